/* A snapshot: a machine's state file, and the memory file that belongs to it (vmm/memory_file.h).
 *
 *	section      what it holds
 *	snapshot     the snapshot's id, the size of the memory, whether virtio devices are on a PCI bus
 *	config       the machine's whole configuration, JSON
 *	vcpu …, vm   vmm/vcpu_state.h
 *	…            the devices: vmm/devices_state.c
 *
 * Sections are those of devices/state.h. All of it may be anybody's making. Loop thread. */
#ifndef HULL_VMM_SNAPSHOT_H
#define HULL_VMM_SNAPSHOT_H

#include "common/buf.h"
#include "common/cleanup.h"
#include "devices/state.h"
#include "vmm/config.h"
#include "vmm/memory_file.h"

#define SNAPSHOT_BYTES_MAX (64u << 20) /* of the state file */

struct snapshot_head {
	uint8_t id[MEMORY_FILE_ID_BYTES];
	struct memory_file_layout memory;
	bool pci;
};

/* One that is being restored from. */
struct snapshot {
	struct buf data;
	struct snapshot_head head;
	struct config config;	    /* until its owner takes it */
	struct state_reader reader; /* of what follows the configuration */
	int memory_fd;		    /* owned; -1: not opened yet */
};

/* Where the two files go. */
struct snapshot_paths {
	const char *state, *memory; /* borrowed */
};

/* Begins `w`, which is initialised, with a new id and what comes before the vCPUs. 0, or -errno with `err` set. */
int snapshot_begin(struct state_writer *w, const struct config *config, const struct memory_file_layout *memory, bool pci,
	struct snapshot_head *ret_head, struct error *err);
/* Writes the memory and the finished state so that each path has its whole file, synced, or what it had before; the memory's is the
 * first to change. 0, or -errno with `err` naming the field (snapshot_path, mem_file_path). */
int snapshot_commit(const struct snapshot_paths *paths, const struct state_writer *w, const struct ram *ram,
	const struct snapshot_head *head, struct error *err);

/* Reads and checks a state file up to the vCPUs, and opens its memory. 0; or -errno with `err` naming the field (snapshot_path,
 * mem_backend), and `ret` as snapshot_done() leaves it. */
int snapshot_open(const struct snapshot_paths *paths, struct snapshot *ret, struct error *err);
/* The same for bytes that are there, without memory. `data` is taken over. For snapshot_open(), and tests. */
int snapshot_parse(struct buf *data, struct snapshot *ret, struct error *err);
/* All sections have been read, or -EINVAL with `err` set. */
int snapshot_check_end(const struct snapshot *snapshot, struct error *err);
void snapshot_done(struct snapshot *snapshot); /* also of a zeroed one, whose memory_fd is -1 */

#endif
