/* A debugger's session without a machine: a target of four threads and a little memory that notes what it is told. For the
 * unit test and the fuzz target. */
#ifndef HULL_TESTS_UNIT_GDB_WORLD_H
#define HULL_TESTS_UNIT_GDB_WORLD_H

#include "vmm/gdb_stub.h"

#include <errno.h>
#include <string.h>

#define GDB_WORLD_THREADS 4
#define GDB_WORLD_MEMORY  0x3000u
#define GDB_WORLD_BREAKS  16

struct gdb_world {
	struct gdb_stub stub;
	struct buf out;
	struct gdb_registers registers[GDB_WORLD_THREADS];
	uint8_t memory[GDB_WORLD_MEMORY]; /* from address 0 */
	enum gdb_action actions[GDB_WORLD_THREADS];
	struct {
		enum gdb_break_kind kind;
		uint64_t address, size_bytes;
	} breaks[GDB_WORLD_BREAKS];
	unsigned n_breaks, n_resumed, n_interrupted, n_killed, last_thread;
};

static inline int gdb_world_read_registers(void *ctx, unsigned thread, struct gdb_registers *ret)
{
	*ret = ((struct gdb_world *)ctx)->registers[thread];
	return 0;
}

static inline int gdb_world_write_registers(void *ctx, unsigned thread, const struct gdb_registers *registers)
{
	((struct gdb_world *)ctx)->registers[thread] = *registers;
	return 0;
}

static inline size_t gdb_world_read_memory(void *ctx, unsigned thread, uint64_t address, void *ret, size_t len)
{
	struct gdb_world *w = ctx;

	w->last_thread = thread;
	if (address >= GDB_WORLD_MEMORY)
		return 0;
	if (len > GDB_WORLD_MEMORY - address)
		len = (size_t)(GDB_WORLD_MEMORY - address);
	memcpy(ret, w->memory + address, len);
	return len;
}

static inline int gdb_world_write_memory(void *ctx, unsigned thread, uint64_t address, const void *data, size_t len)
{
	struct gdb_world *w = ctx;

	w->last_thread = thread;
	if (address > GDB_WORLD_MEMORY || len > GDB_WORLD_MEMORY - address)
		return -EFAULT;
	memcpy(w->memory + address, data, len);
	return 0;
}

static inline int gdb_world_insert(
	void *ctx, unsigned thread, enum gdb_break_kind kind, uint64_t address, uint64_t size_bytes)
{
	struct gdb_world *w = ctx;

	(void)thread;
	if (w->n_breaks == GDB_WORLD_BREAKS)
		return -ENOSPC;
	w->breaks[w->n_breaks].kind = kind;
	w->breaks[w->n_breaks].address = address;
	w->breaks[w->n_breaks++].size_bytes = size_bytes;
	return 0;
}

static inline int gdb_world_remove(
	void *ctx, unsigned thread, enum gdb_break_kind kind, uint64_t address, uint64_t size_bytes)
{
	struct gdb_world *w = ctx;

	(void)thread;
	(void)kind;
	(void)address;
	(void)size_bytes;
	if (w->n_breaks > 0)
		w->n_breaks--;
	return 0;
}

static inline void gdb_world_resume(void *ctx, const enum gdb_action *actions)
{
	struct gdb_world *w = ctx;

	memcpy(w->actions, actions, sizeof(w->actions));
	w->n_resumed++;
}

static inline void gdb_world_interrupt(void *ctx)
{
	struct gdb_world *w = ctx;
	struct gdb_stop stop = {.thread = 2, .kind = GDB_STOP_INTERRUPT};

	w->n_interrupted++;
	gdb_stub_stopped(&w->stub, &stop);
}

static inline void gdb_world_kill(void *ctx)
{
	((struct gdb_world *)ctx)->n_killed++;
}

static inline void gdb_world_init(struct gdb_world *w)
{
	static const struct gdb_target_ops ops = {
		.read_registers = gdb_world_read_registers,
		.write_registers = gdb_world_write_registers,
		.read_memory = gdb_world_read_memory,
		.write_memory = gdb_world_write_memory,
		.insert = gdb_world_insert,
		.remove = gdb_world_remove,
		.resume = gdb_world_resume,
		.interrupt = gdb_world_interrupt,
		.kill = gdb_world_kill,
	};

	memset(w, 0, sizeof(*w));
	buf_init(&w->out, 64u << 10);
	gdb_stub_init(&w->stub, &ops, w, GDB_WORLD_THREADS, &w->out);
}

static inline void gdb_world_done(struct gdb_world *w)
{
	gdb_stub_done(&w->stub);
	buf_done(&w->out);
}

#endif
