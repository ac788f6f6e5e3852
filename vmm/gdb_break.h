/* A debugger's breakpoints and watchpoints, and guest memory as it sees it: by virtual address, without the breakpoints that
 * stand in it. It knows no KVM: who translates an address is a callback.
 *
 * A software breakpoint is an INT3 in the guest's code, known by its physical address: the same code may be mapped
 * twice. It may only come and go, and memory only be touched by these functions, while no vCPU runs; vCPU threads may ask
 * gdb_breaks_hit() at any time. */
#ifndef HULL_VMM_GDB_BREAK_H
#define HULL_VMM_GDB_BREAK_H

#include "devices/gmem.h"

#include <stdbool.h>

#define GDB_SOFTWARE_MAX 256
#define GDB_HARDWARE_MAX 4 /* the processor's debug address registers */

/* As the protocol numbers them. A processor of this kind watches no reads that are not writes too. */
enum gdb_break_kind {
	GDB_BREAK_SOFTWARE = 0,
	GDB_BREAK_HARDWARE = 1,
	GDB_WATCH_WRITE = 2,
	GDB_WATCH_ACCESS = 4,
};

struct gdb_software_break {
	gpa_t gpa;
	uint8_t covers; /* the guest's own byte */
};

struct gdb_hardware_break {
	bool used;
	enum gdb_break_kind kind;
	uint64_t address;
	uint8_t size_bytes;
};

struct gdb_breaks {
	const struct gmem *mem; /* borrowed */
	struct gdb_software_break software[GDB_SOFTWARE_MAX];
	size_t n_software;
	struct gdb_hardware_break hardware[GDB_HARDWARE_MAX];
};

/* Where virtual addresses lead. */
struct gdb_space {
	int (*translate)(void *ctx, uint64_t address, gpa_t *ret); /* 0 or -EFAULT; of the page that `address` is in */
	void *ctx;
};

void gdb_breaks_init(struct gdb_breaks *breaks, const struct gmem *mem);

/* 0; -EFAULT: nothing is mapped there; -EINVAL: a size or an alignment that no processor watches; -ENOSPC. To insert what is
 * there already, or remove what is not, has no effect. `size_bytes` counts for watchpoints alone. */
int gdb_break_insert(struct gdb_breaks *breaks, const struct gdb_space *space, enum gdb_break_kind kind, uint64_t address,
	uint64_t size_bytes);
int gdb_break_remove(struct gdb_breaks *breaks, const struct gdb_space *space, enum gdb_break_kind kind, uint64_t address,
	uint64_t size_bytes);
/* All of them: memory is as the guest left it. */
void gdb_breaks_clear(struct gdb_breaks *breaks);

/* Whether one of ours covers the byte at `gpa`. */
bool gdb_breaks_hit(const struct gdb_breaks *breaks, gpa_t gpa);
/* Whether any is in guest memory. */
bool gdb_breaks_any_software(const struct gdb_breaks *breaks);
bool gdb_breaks_any_hardware(const struct gdb_breaks *breaks);
/* The debug registers for hardware[]: dr[0] to dr[3], and DR7 (AMD64 manual, volume 2, 13.1.1). */
void gdb_debug_registers(const struct gdb_breaks *breaks, uint64_t dr[GDB_HARDWARE_MAX], uint64_t *ret_dr7);

/* The bytes read from the front, `len` at most: fewer where nothing is mapped. */
size_t gdb_memory_read(const struct gdb_breaks *breaks, const struct gdb_space *space, uint64_t address, void *ret, size_t len);
/* 0, or -EFAULT, after what lies before the hole has been written. */
int gdb_memory_write(
	struct gdb_breaks *breaks, const struct gdb_space *space, uint64_t address, const void *data, size_t len);

#endif
