/* A snapshot's memory file: the guest's RAM as it was, in a sparse file that a restored machine can map.
 *
 *	0                size_bytes       plug_fd_offset                      + 4 KiB
 *	├────────────────┼ ─ ─ ─ ─ ─ ─ ─ ─ ┼────────────────────────┼──────────┤
 *	│ RAM, low, high │ (a gap to 2 MiB)│ what can be plugged    │ the end  │
 *	└────────────────┴ ─ ─ ─ ─ ─ ─ ─ ─ ┴────────────────────────┴──────────┘
 *	                   └── only with memory that can be plugged ─┘
 *
 * The end names the snapshot, so that memory is never taken for that of another state. Pages of zeroes are holes. */
#ifndef HULL_VMM_MEMORY_FILE_H
#define HULL_VMM_MEMORY_FILE_H

#include "common/error.h"
#include "vmm/ram.h"

#define MEMORY_FILE_ID_BYTES 16

/* Where things are in the file of such a RAM. */
struct memory_file_layout {
	uint64_t ram_bytes, plug_bytes; /* as struct ram_config has them */
};

/* Writes all of `ram`, which nobody writes to meanwhile, to `fd`, an empty file. 0, or -errno with `err` set (no field). Loop thread. */
int memory_file_write(int fd, const struct ram *ram, const uint8_t id[MEMORY_FILE_ID_BYTES], struct error *err);

/* Opens the file at `path` for reading: it is exactly as large as such a RAM's is, and ends with `id`. Its descriptor; or -errno with
 * `err` set (no field). */
int memory_file_open(const char *path, const struct memory_file_layout *layout, const uint8_t id[MEMORY_FILE_ID_BYTES],
	struct error *err);

/* Copies the file's RAM, or what is plugged of `ram` by now, into `ram`, which reads as zeroes. 0, or -errno with `err` set (no field). */
int memory_file_copy_ram(int fd, struct ram *ram, struct error *err);
int memory_file_copy_plugged(int fd, struct ram *ram, struct error *err);

#endif
