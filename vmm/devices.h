/* The machine's devices: made from the configuration, put on the buses, wired to KVM.
 *
 * Threads: registers are accessed by vCPU threads, everything else happens on the loop thread. */
#ifndef HULL_VMM_DEVICES_H
#define HULL_VMM_DEVICES_H

#include "devices/boot_timer.h"
#include "devices/discard.h"
#include "vmm/bus.h"
#include "vmm/config.h"
#include "vmm/console.h"
#include "vmm/devices_memory.h"
#include "vmm/virtio_bus.h"

struct acpi_pm;
struct exit_port;
struct i8042;
struct metrics;
struct mmds;
struct pvpanic;
struct ram;
struct state_reader;
struct state_writer;
struct vm;

enum devices_event {
	DEVICES_POWER_OFF,      /* ACPI S5 */
	DEVICES_RESET_KEYBOARD, /* the keyboard controller's reset line */
	DEVICES_RESET_ACPI,     /* ACPI's reset register */
	DEVICES_PANIC,
};

/* Where what the guest says goes. */
struct devices_output {
	int log_fd;           /* its workload's output; -1: nowhere */
	uint64_t limit_bytes; /* log_fd's file and the console's each keep so many, the newest; 0: all */
	bool boot_timer;      /* when it says that it has booted, the log tells how long that took */
};

struct devices_config {
	const struct config *config; /* all borrowed; vm, loop and mem for the devices' life */
	bool pci;		     /* virtio devices are on a PCI bus */
	struct vm *vm;
	struct loop *loop;
	struct gmem *mem; /* of `ram`, which has what memory-hotplug wants to plug */
	struct ram *ram;
	struct discard discard; /* of `mem` */
	struct metrics *metrics;
	struct mmds *mmds;
	struct devices_output output;
	struct state_reader *places; /* of a snapshot, as devices_save_places() has written them; only for devices_init(). NULL: it boots */
	uint64_t began_ns, began_cpu_ns; /* monotonic_ns() and process_cpu_ns() when the start was asked for */
	/* The guest asked for it. vCPU thread, under a device's lock: must not call a device. */
	void (*event)(void *ctx, enum devices_event event);
	void *ctx;
};

struct devices {
	struct devices_config config;
	struct bus ports, mmio; /* for the vCPUs */
	struct console console;
	struct console virtio_console; /* the other one's host end; zeroed without one */
	struct virtio_dev *hvc;	       /* its device, among devs */
	struct token_bucket console_bucket; /* under the UART's lock, as its output */
	struct uart16550 *uart; /* all owned */
	struct i8042 *i8042;
	struct pvpanic *pvpanic;
	struct acpi_pm *acpi_pm;
	struct exit_port *exit_port;
	struct boot_timer boot_timer;
	struct virtio_bus virtio;
	struct devices_memory memory;
};

/* Makes all of them; `devices` must stay where it is. 0, or -errno with `err` naming the field and nothing
 * left. */
int devices_init(struct devices *devices, const struct devices_config *config, struct error *err);
/* vCPUs are gone. Waits for disks to be done, removes what was created on the host. Also of a zeroed one. */
void devices_done(struct devices *devices);

/* The loop is about to run: input from the console is read from now on. */
void devices_start(struct devices *devices);
/* Whether a device may let a vCPU wait for the outside; at first none does. False ends such waits. Any thread. */
void devices_may_wait(struct devices *devices, bool may_wait);

/* The device of that kind (VIRTIO_ID_*, virtio 1.2, section 5) and id, NULL being that of an only one; or NULL. Loop thread. */
static inline struct virtio_dev *devices_find(const struct devices *devices, uint32_t device_id, const char *id)
{
	return virtio_bus_find(&devices->virtio, device_id, id);
}

/* Puts the drive, interface or pmem `id`, which the configuration has by now, on the PCI bus of the machine that runs, and tells the guest.
 * 0, or -errno with `err` naming the field inside its object and nothing changed. Loop thread. */
int devices_plug_drive(struct devices *devices, const char *id, struct error *err);
int devices_plug_net(struct devices *devices, const char *id, struct error *err);
int devices_plug_pmem(struct devices *devices, const char *id, struct error *err);

/* vmm/devices_state.c: saving and loading all of them. Loop thread, vCPUs at rest.
 * Whether they can be saved: 0, or -errno with `err` naming the field of the one that cannot. */
int devices_check_savable(const struct devices *devices, struct error *err);
/* Brings what is under way to rest, and lets it go on. */
void devices_quiesce(struct devices *devices);
void devices_resume(struct devices *devices);
/* In between: what the guest has written is on the host's disk, 0 or -errno with `err` set; */
int devices_sync(struct devices *devices, struct error *err);
/* which virtio device is where, which devices_init() has to know, and the rest. */
void devices_save_places(const struct devices *devices, struct state_writer *w);
void devices_save(struct devices *devices, struct state_writer *w);
/* To devices that were made for it; what was plugged of the memory is read from the memory file. They stand still until devices_resume(). 0, or
 * -errno with `err` set. */
int devices_load(struct devices *devices, int memory_fd, struct state_reader *r, struct error *err);

/* Presses the power button: the guest is told by ACPI, and does what it likes. Any thread. */
void devices_press_power_button(struct devices *devices);
/* The machine's generation is another: the guest is told. Any thread. */
void devices_tell_generation(struct devices *devices);
/* As i8042_press_ctrl_alt_del(). */
int devices_press_ctrl_alt_del(struct devices *devices);
/* What the workload handed over, 0..255, or -1. Any thread. */
int devices_exit_status(const struct devices *devices);
/* As exit_port_out_of_memory(). */
bool devices_out_of_memory(const struct devices *devices);
/* As exit_port_no_mount(). */
int devices_no_mount(const struct devices *devices, int *ret_errnum);

#endif
