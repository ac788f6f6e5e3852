/* Where the machine's virtio devices are: a page of registers and an interrupt line for each (virtio-mmio); or a slot of a PCI
 * bus, with messages for interrupts, where devices come and go while the guest runs.
 *
 * A device is taken back in two steps: the guest is asked, and lets go of the slot (_EJ0); then the device is taken apart. Where
 * no driver has it, it goes at once, and the guest is told so that it forgets what it has seen. A guest that runs and does
 * not answer in time loses the device all the same: reads find nothing there. Slots are filled in a round, so that the guest has
 * long done with what was in one before. Loop thread, where nothing else is said. */
#ifndef HULL_VMM_VIRTIO_BUS_H
#define HULL_VMM_VIRTIO_BUS_H

#include "devices/pci.h"
#include "vmm/acpi.h"
#include "vmm/bus.h"
#include "vmm/layout.h"

struct loop;
struct loop_source;
struct pci_hotplug;
struct state_reader;
struct state_writer;
struct virtio_bus;
struct virtio_dev;
struct virtio_mmio;
struct virtio_pci;
struct vm;

#define VIRTIO_BUS_MAX	       (PCI_SLOTS - 1)
/* A guest has so long to let go of a device. One that is slow, and loses it in the middle of its reset, waits for it for ever. */
#define VIRTIO_BUS_RELEASE_NS  UINT64_C(20000000000)
#define VIRTIO_BUS_REMIND_NS   UINT64_C(1000000000) /* one that has not looked is told again, so often */
#define VIRTIO_BUS_REMINDERS   30

struct virtio_bus_config {
	bool is_pci;
	struct vm *vm; /* all borrowed, for the bus's life */
	struct loop *loop;
	struct bus *ports, *mmio;
	/* The guest is to look at its PCI slots. */
	void (*slots_changed)(void *ctx);
	/* The device is about to be taken apart: it is not in use any more. */
	void (*removed)(void *ctx, struct virtio_dev *dev);
	void *ctx;
};

struct virtio_slot {
	struct virtio_bus *bus;
	struct virtio_dev *dev; /* of its transport, one of the next two, which is owned; NULL: the slot is empty */
	struct virtio_mmio *mmio;
	struct virtio_pci *pci;
	char *id; /* owned; NULL: there is only one of its kind */
	uint32_t device_id; /* of the device that it is for, as is `id`, once virtio_bus_load_places() has said so; else 0 */
	struct loop_source *deadline; /* the guest has been asked to let go */
};

struct virtio_bus {
	struct virtio_bus_config config;
	struct pci_bus pci;
	struct pci_hotplug *hotplug; /* NULL with mmio */
	uint32_t ejected;	     /* atomic: slots that the guest has let go of */
	unsigned next;		     /* the slot to be filled next, if it is empty */
	bool held;		     /* the guest stands still */
	bool has_places;	     /* each device has a slot that it was saved in */
	struct loop_source *reminder; /* NULL with mmio */
	unsigned reminders;	     /* that are left */
	struct virtio_slot slots[VIRTIO_BUS_MAX]; /* index I is PCI slot I + 1, or page I and GSI LAYOUT_GSI_VIRTIO + I */
};

/* An empty bus, reached by the vCPUs' ports and mmio; `bus` must stay where it is. */
void virtio_bus_init(struct virtio_bus *bus, const struct virtio_bus_config *config);
/* vCPUs are gone. Also of a zeroed one. */
void virtio_bus_done(struct virtio_bus *bus);

/* Puts `dev` (taken over, also on failure) into the next empty slot, under `id` (copied; NULL: there is only one of its kind).
 * 0 or -errno with `err` set (no field): -ENOSPC when all are taken. */
int virtio_bus_add(struct virtio_bus *bus, struct virtio_dev *dev, const char *id, struct error *err);
/* The guest runs already, and is to look at this device that it has not seen. */
void virtio_bus_announce(struct virtio_bus *bus, const struct virtio_dev *dev);
/* Takes the device out, at once or when the guest has let go of it. */
void virtio_bus_remove(struct virtio_bus *bus, const struct virtio_dev *dev);
/* The guest stands still, or not any more: only while it runs does its time to let go of a device pass. */
void virtio_bus_hold(struct virtio_bus *bus, bool held);

/* The device of that kind (VIRTIO_ID_*, virtio 1.2, section 5) and id, NULL being that of an only one; or NULL. */
struct virtio_dev *virtio_bus_find(const struct virtio_bus *bus, uint32_t device_id, const char *id);
/* Whether it is being taken out. */
bool virtio_bus_is_leaving(const struct virtio_bus *bus, const struct virtio_dev *dev);

/* A bus that is saved in two pieces: which device is where, which a new one has to know before its devices are added; and, once they are, all
 * of their state. Devices are quiesced, and none is leaving. After the second load they stand still until virtio_bus_resume(). 0, or
 * -errno with `err` set. */
void virtio_bus_save_places(const struct virtio_bus *bus, struct state_writer *w);
int virtio_bus_load_places(struct virtio_bus *bus, struct state_reader *r, struct error *err);
void virtio_bus_save(struct virtio_bus *bus, struct state_writer *w);
int virtio_bus_load(struct virtio_bus *bus, struct state_reader *r, struct error *err);
/* All of its devices: virtio_dev_quiesce() and virtio_dev_resume(). */
void virtio_bus_quiesce(struct virtio_bus *bus);
/* In between: their sync(), until one fails. 0 or -errno with `err` set. */
int virtio_bus_sync(struct virtio_bus *bus, struct error *err);
void virtio_bus_resume(struct virtio_bus *bus);

/* For the ACPI tables: how many mmio devices there are, and where. */
unsigned virtio_bus_mmio_places(const struct virtio_bus *bus, struct acpi_virtio ret[LAYOUT_VIRTIO_MAX]);

#endif
