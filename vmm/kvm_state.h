/* The part of a machine that is KVM's: processors, interrupt controllers, clock; taken from it, and given to another. All vCPUs are at
 * rest. Loop thread. */
#ifndef HULL_VMM_KVM_STATE_H
#define HULL_VMM_KVM_STATE_H

#include "common/error.h"

#include <stdbool.h>

struct state_reader;
struct state_writer;
struct vcpus;
struct vm;

/* The vCPUs' sections, then the machine's. 0, or -errno with `err` set. */
int kvm_state_save(const struct vm *vm, const struct vcpus *vcpus, struct state_writer *w, struct error *err);

/* To vCPUs that have been made for it and have not run. The guest's clocks go on from where they were; `catch_up`: they are ahead by the
 * time that has passed since by this host's CLOCK_REALTIME. 0, or -errno with `err` set: this host cannot go on with it, or nobody can. */
int kvm_state_load(const struct vm *vm, const struct vcpus *vcpus, bool catch_up, struct state_reader *r, struct error *err);

#endif
