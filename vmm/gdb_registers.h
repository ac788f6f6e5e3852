/* A processor's registers as a debugger knows them: their names, their order and their form, which it is told in XML ("Target
 * Descriptions", an appendix of GDB's manual). One table. */
#ifndef HULL_VMM_GDB_REGISTERS_H
#define HULL_VMM_GDB_REGISTERS_H

#include "common/buf.h"

#include <stdbool.h>
#include <stdint.h>

/* Values in the processor's own byte order, which is the protocol's. */
struct gdb_registers {
	uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip;
	uint32_t eflags, cs, ss, ds, es, fs, gs;
	uint8_t st[8][10]; /* from the stack's top */
	uint32_t fctrl, fstat, ftag, fiseg, fioff, foseg, fooff, fop;
	uint8_t xmm[16][16];
	uint32_t mxcsr;
	uint64_t fs_base, gs_base;
	uint64_t cr0, cr2, cr3, cr4, cr8, efer;
};

/* Appends the description. 0 or as buf_append(). */
int gdb_registers_describe(struct buf *out);

/* Append all of them, or the one of that number, in hexadecimal. 0, -ENOENT when there is none, or as buf_append(). */
int gdb_registers_put_all(const struct gdb_registers *registers, struct buf *out);
int gdb_registers_put(const struct gdb_registers *registers, uint64_t number, struct buf *out);
/* Take them from exactly so many digits. 0, -ENOENT, or -EINVAL with `registers` partly changed. */
int gdb_registers_take_all(struct gdb_registers *registers, const char *digits);
int gdb_registers_take(struct gdb_registers *registers, uint64_t number, const char *digits);

#endif
