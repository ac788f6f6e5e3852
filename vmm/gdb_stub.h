/* A debugger's session: it asks and commands by packets, its target does. All-stop: either no vCPU runs and the debugger may
 * ask, or it waits for a stop. It knows neither sockets nor KVM. Loop thread.
 *
 * Threads of the protocol are vCPUs, from 1 on; here they are counted from 0. */
#ifndef HULL_VMM_GDB_STUB_H
#define HULL_VMM_GDB_STUB_H

#include "vmm/gdb_break.h"
#include "vmm/gdb_packet.h"
#include "vmm/gdb_registers.h"

#define GDB_THREADS_MAX 64

enum gdb_action { GDB_ACTION_STAY, GDB_ACTION_CONTINUE, GDB_ACTION_STEP };

enum gdb_stop_kind {
	GDB_STOP_INTERRUPT, /* the debugger asked for it */
	GDB_STOP_TRAP,	    /* a step is done, or the session has begun */
	GDB_STOP_SOFTWARE,
	GDB_STOP_HARDWARE,
	GDB_STOP_WRITE, /* of a watched place; at `address` */
	GDB_STOP_ACCESS,
};

struct gdb_stop {
	unsigned thread;
	enum gdb_stop_kind kind;
	uint64_t address;
};

/* What the target does, while no vCPU runs but for interrupt(). Errors are -errno, which the debugger is told. */
struct gdb_target_ops {
	int (*read_registers)(void *ctx, unsigned thread, struct gdb_registers *ret);
	int (*write_registers)(void *ctx, unsigned thread, const struct gdb_registers *registers);
	size_t (*read_memory)(void *ctx, unsigned thread, uint64_t address, void *ret, size_t len);
	int (*write_memory)(void *ctx, unsigned thread, uint64_t address, const void *data, size_t len);
	int (*insert)(void *ctx, unsigned thread, enum gdb_break_kind kind, uint64_t address, uint64_t size_bytes);
	int (*remove)(void *ctx, unsigned thread, enum gdb_break_kind kind, uint64_t address, uint64_t size_bytes);
	/* One action a thread, not all STAY. gdb_stub_stopped() follows, not from within. */
	void (*resume)(void *ctx, const enum gdb_action *actions);
	/* The same follows, maybe from within. */
	void (*interrupt)(void *ctx);
	void (*kill)(void *ctx); /* the machine; the session is over */
};

struct gdb_stub {
	const struct gdb_target_ops *ops; /* borrowed, with ctx */
	void *ctx;
	unsigned n_threads;
	struct buf *out; /* borrowed: what the debugger is to be sent */
	bool running, no_ack;
	unsigned thread; /* whose registers and memory are asked for */
	struct gdb_stop stop; /* the last */
	struct gdb_reader reader;
	struct buf content, sent; /* of the answer that is being made; the last one, for whom it came broken */
};

/* A session begins with a target that stands still. */
void gdb_stub_init(
	struct gdb_stub *stub, const struct gdb_target_ops *ops, void *ctx, unsigned n_threads, struct buf *out);
void gdb_stub_done(struct gdb_stub *stub); /* also of a zeroed one */

/* What the debugger sent. True: the session goes on; false: it is over, once `out` has been sent. */
bool gdb_stub_receive(struct gdb_stub *stub, const void *data, size_t len);
/* The target stands still again. No effect unless it ran. */
void gdb_stub_stopped(struct gdb_stub *stub, const struct gdb_stop *stop);
/* The machine has come to its end. No effect unless it ran: nobody waits for word of it then. */
void gdb_stub_ended(struct gdb_stub *stub);

#endif
