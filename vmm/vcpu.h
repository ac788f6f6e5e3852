/* The machine's processors: one thread each, which runs the guest and serves its register accesses.
 *
 * Theory of operation. A vCPU thread is in one of three places: in KVM_RUN, at a device's registers, or at rest. The
 * group's `wanted` says where all of them should be; whoever changes it kicks them out of KVM_RUN (immediate_exit,
 * then a signal: a thread that was on its way in comes back at once, one that is inside is interrupted), and they
 * look at it between two KVM_RUN.
 *
 *	             vcpus_resume                    vcpus_request_stop
 *	 created ──▶ PAUSE ─────────────▶ RUN ──────────────────────────▶ STOP ──▶ threads end, vcpus_done joins
 *	               ▲                   │            (from PAUSE too)
 *	               └── vcpus_pause ────┘
 */
#ifndef HULL_VMM_VCPU_H
#define HULL_VMM_VCPU_H

#include "common/error.h"
#include "devices/metrics.h"
#include "vmm/bus.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct vm;
struct boot_entry;
struct config_cpu;
struct cpuid_topology;
struct vcpu;
struct vcpus;

enum vcpu_end {
	VCPU_END_RESET, /* triple fault */
	VCPU_END_ERROR, /* KVM cannot go on; the message says why */
};

struct vcpus_config {
	const struct vm *vm; /* all borrowed, for the group's life */
	const struct bus *ports, *mmio;
	const struct cpuid_topology *topology; /* n_vcpus says how many */
	const struct config_cpu *template;     /* of the processors; may be NULL */
	/* Of vCPU 0; the others wait for its start-up interrupt. NULL: they are made without CPUID, and their state is loaded
	 * (vmm/kvm_state.h) before they run. */
	const struct boot_entry *entry;
	/* From now on a register access may wait for the outside (true: they run), or shall not, and one that does
	 * comes back (false: they are wanted at rest). Any thread, under the group's lock. */
	void (*may_wait)(void *ctx, bool may_wait);
	/* KVM_EXIT_DEBUG, which comes only when a debugger wants it. True: this vCPU is held and all come to rest, as by
	 * vcpus_hold() and vcpus_pause(). vCPU thread. */
	bool (*debug)(void *ctx, struct vcpu *vcpu);
	/* A vCPU cannot or shall not go on; it is at rest afterwards. vCPU thread. */
	void (*ended)(void *ctx, enum vcpu_end end, const char *message);
	void *ctx;
};

enum vcpus_wanted { VCPUS_PAUSE, VCPUS_RUN, VCPUS_STOP };

struct vcpu_metrics {
	uint64_t exit_io_in, exit_io_out, exit_mmio_read, exit_mmio_write; /* register accesses */
	struct metric_latency exit_io_in_agg, exit_io_out_agg, exit_mmio_read_agg, exit_mmio_write_agg;
	uint64_t exit_msr_refused;    /* accesses to MSRs that the guest has not */
	uint64_t kvmclock_ctrl_fails; /* it could not be told of a pause; also when its guest uses no kvmclock */
	uint64_t failures;	      /* it ended by an error */
};

struct vcpu {
	struct vcpus *group;
	unsigned index;
	int fd;              /* owned */
	struct kvm_run *run; /* owned mapping */
	pthread_t thread;
	bool has_thread;
	bool held; /* it rests also while the group runs. Written under the group's lock, by its own thread or while it rests */
	struct vcpu_metrics metrics;
};

struct vcpus {
	struct vcpus_config config;
	struct vcpu *items; /* owned: config.topology->n_vcpus of them */
	unsigned n;
	_Atomic enum vcpus_wanted wanted; /* written under `lock`, read without */
	pthread_mutex_t lock;             /* guards n_resting */
	pthread_cond_t changed;           /* `wanted` or `n_resting` did */
	unsigned n_resting;               /* threads that wait for another `wanted`, or have ended */
};

/* Makes vCPUs and their threads, paused. `group` must stay where it is. 0, or -errno with `err` set and
 * nothing left. */
int vcpus_init(struct vcpus *group, const struct vcpus_config *config, struct error *err);
/* Stops, joins and frees; also what vcpus_init() never touched, if zeroed. Not from a vCPU thread. */
void vcpus_done(struct vcpus *group);

/* vcpus_pause() returns when all are at rest. Not from a vCPU thread. No effect once a stop was requested. */
void vcpus_resume(struct vcpus *group);
void vcpus_pause(struct vcpus *group);
/* One that is held stays at rest when the others are resumed. While it rests. Not from a vCPU thread. */
void vcpus_hold(struct vcpus *group, unsigned index, bool held);
/* Sends all threads to their end without waiting for them. Any thread, vCPUs and device callbacks included. */
void vcpus_request_stop(struct vcpus *group);

#endif
