/* One machine, from its configuration to its end. Loop thread only, but for what the vCPUs call inside. */
#ifndef HULL_VMM_MACHINE_H
#define HULL_VMM_MACHINE_H

#include "common/cleanup.h"
#include "common/error.h"

#include <stdbool.h>

struct config;
struct devices;
struct devices_output;
struct loop;
struct machine;
struct metrics;
struct mmds;
struct outcome;
struct snapshot;
struct snapshot_paths;

struct machine_setup {
	const struct config *config; /* all borrowed, for the machine's life */
	bool pci;		     /* its virtio devices are on a PCI bus */
	struct loop *loop;
	struct metrics *metrics;
	struct mmds *mmds;
	const struct devices_output *output;
	const char *gdb_socket; /* where a debugger may come at any time; NULL: where the configuration says, or nowhere */
	struct snapshot *snapshot; /* what it goes on from; only for machine_new(). NULL: it boots */
	bool catch_up;		   /* of a snapshot: its clocks are ahead by the time that has passed since */
};

/* Opens and makes everything, up to vCPUs that stand at the kernel's entry, or where they were when they were saved. `setup` itself is
 * copied. NULL with `err` set, and nothing left on the host. */
struct machine *machine_new(const struct machine_setup *setup, struct error *err);

/* Lets its vCPUs run, once; or, where the configuration names a debugger's socket, lets them wait for the debugger. One of a snapshot is
 * paused. */
void machine_start(struct machine *machine);
/* All vCPUs at rest, and running on, unless a debugger has stopped them. The guest's clocks go on meanwhile (vmm/clock.c). No
 * effect once the machine has ended. */
void machine_pause(struct machine *machine);
void machine_resume(struct machine *machine);
/* Saves one that is paused, which stays so; its devices do nothing either until it is resumed, so that nothing is done twice. 0, or -errno with `err` set, naming the field of what cannot be saved or written, and no file
 * is changed. It takes as long as writing the memory does. */
int machine_save(struct machine *machine, const struct snapshot_paths *paths, struct error *err);
/* Asks the guest to power off, by ACPI; it may or may not. */
void machine_press_power_button(struct machine *machine);
/* Types Ctrl-Alt-Del. 0, or -errno with `err` set when the guest does not take keys. */
int machine_press_ctrl_alt_del(struct machine *machine, struct error *err);
/* Ends it as a signal does, whatever the guest is at; `why` is for the status record. */
void machine_end(struct machine *machine, const char *why);
/* When the guest, or machine_end(), has ended it, the loop is stopped. This stops its vCPUs in any case, and says how it
 * ended: by an error, when nothing has ended it. */
void machine_finish(struct machine *machine, struct outcome *ret);

/* Its devices, for changes while it runs; borrowed. Loop thread. */
struct devices *machine_devices(struct machine *machine);

/* Finishes disk requests in flight and removes what was created on the host. NULL is fine. */
void machine_free(struct machine *machine);
DEFINE_CLEANUP(struct machine *, machine_free)

#endif
