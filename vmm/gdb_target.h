/* The machine as a debugger's target: its vCPUs stopped, looked at, and let run, by KVM.
 *
 * Theory of operation. A vCPU that meets a breakpoint, a watched place or the end of a step leaves KVM_RUN on its own thread,
 * which notes why in `stops`, brings all vCPUs to rest (vmm/vcpu.h) and posts to the loop. There the target waits until
 * all of them rest, and tells one stop. Of those that came at the same time, a breakpoint's is forgotten, since it is met
 * again; a watched place's is kept, and told when the debugger lets the machine run the next time.
 *
 * Everything is the loop thread's, and what vCPU threads read (`breaks`, `actions`) changes only while they rest, but
 * gdb_target_exit(), a vCPU thread's. */
#ifndef HULL_VMM_GDB_TARGET_H
#define HULL_VMM_GDB_TARGET_H

#include "common/error.h"
#include "vmm/gdb_stub.h"

#include <stdatomic.h>

struct loop;
struct vcpu;
struct vcpus;

struct gdb_target_config {
	struct loop *loop;   /* all borrowed */
	struct vcpus *vcpus; /* GDB_THREADS_MAX at most */
	const struct gmem *mem;
	int kvm_fd;
	/* True: returns when all vCPUs rest. False: they run as far as nobody else wants them at rest. */
	void (*hold)(void *ctx, bool hold);
	void (*stopped)(void *ctx, const struct gdb_stop *stop); /* it was resumed, and stands still again */
	void (*kill)(void *ctx);				  /* the machine shall end */
	void *ctx;
};

struct gdb_target {
	struct gdb_target_config config;
	bool blocks_interrupts; /* KVM keeps them from a vCPU that steps */
	bool has_software;	/* INT3 leaves the guest */
	bool attached;
	bool running; /* the debugger waits for a stop */
	struct gdb_breaks breaks;
	enum gdb_action actions[GDB_THREADS_MAX];
	struct {
		struct gdb_stop stop; /* written before `pending`; a vCPU's own until it rests */
		atomic_bool pending;
	} stops[GDB_THREADS_MAX];
};

/* `target` must stay where it is. 0, or -ENOTSUP with `err` set. */
int gdb_target_init(struct gdb_target *target, const struct gdb_target_config *config, struct error *err);

/* The machine stands still from now on; and, afterwards, runs as if nobody had ever looked. The latter in any state. */
void gdb_target_attach(struct gdb_target *target);
void gdb_target_detach(struct gdb_target *target);

/* KVM_EXIT_DEBUG. True: this vCPU shall rest; false: it was the guest's own affair, and the guest has been told. */
bool gdb_target_exit(struct gdb_target *target, struct vcpu *vcpu);

/* Of a struct gdb_target. */
extern const struct gdb_target_ops gdb_target_ops;

#endif
