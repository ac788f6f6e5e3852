/* What hull-init was told to run: /hull/config.json (docs/interfaces.md, "Guest configuration"). */
#ifndef HULL_GUEST_CONFIG_H
#define HULL_GUEST_CONFIG_H

#include "common/guest_network.h"

struct guest_root {
	char *image;   /* serial of the drive with the EROFS file system */
	char *scratch; /* serial of the drive with the ext4 file system; NULL: a tmpfs takes the writes */
};

#define GUEST_MOUNTS_MAX 16 /* HULL_EXIT_NO_MOUNT has room for no more */

struct guest_mount {
	char *drive; /* serial of the drive with a volume's ext4; NULL: it is */
	char *tag;   /* of a virtio file system: a folder of the host */
	char *path;  /* absolute */
	bool read_only;
};

struct guest_config {
	char *hostname;
	struct json_strings command; /* at least one */
	json_t *env;
	char *user;    /* "name", "number", "user:group"; default "root" */
	char *workdir; /* absolute */
	struct guest_root root;
	struct json_array mounts; /* of struct guest_mount */
	struct guest_network *network; /* NULL: loopback only */
	bool attached; /* the workload begins when a client of the host executes it */
	int stop_signal;	       /* an index: guest_config_stop_signal() */
};

extern const struct json_table guest_config_table;

/* Reads the file. 0, or -errno with `err` set and `*ret` untouched. guest_config_done() frees what is inside. */
int guest_config_read(const char *path, struct guest_config *ret, struct error *err);
void guest_config_done(struct guest_config *config);

/* What the table cannot say: each of `mounts` has a drive or a tag. 0 or -EINVAL with `err` set. */
int guest_config_check(const struct guest_config *config, struct error *err);

/* The number of the signal that asks the workload to end. */
int guest_config_stop_signal(const struct guest_config *config);

#endif
