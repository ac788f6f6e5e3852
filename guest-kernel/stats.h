/* The machine's own numbers, read from its kernel. */
#ifndef HULL_GUEST_STATS_H
#define HULL_GUEST_STATS_H

#include "common/guest_stats.h"

/* Folders as they were before a workload could put something else in their place. */
struct stats_source {
	int proc_fd, cgroup_fd; /* -1: not there */
};

void stats_source_open(struct stats_source *ret);
void stats_source_close(struct stats_source *source);

/* Reads all; what the kernel does not say is absent. Needs no disk, no child, and waits for nobody: file systems that others
 * serve (FUSE, NFS) are not asked. `ret` is to be freed by its table. */
void stats_read(const struct stats_source *source, struct guest_stats *ret);

/* The parsers, for the unit test. `text` is what the kernel's file has. Each fills what it finds. */
void stats_parse_memory(const char *text, struct guest_stats *ret);
void stats_parse_load(const char *text, struct guest_stats *ret);
struct guest_pressure *stats_parse_pressure(const char *text); /* NULL: not that */
void stats_parse_disks(char *text, struct guest_stats *ret);
void stats_parse_interfaces(char *text, struct guest_stats *ret);
/* The mount points whose file system may be asked for its size: the root, and those right in it. */
typedef void (*stats_mount_fn)(void *ctx, const char *path);
void stats_parse_mounts(char *text, stats_mount_fn fn, void *ctx);

#endif
