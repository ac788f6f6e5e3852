/* Putting virtio devices where the guest finds them, and taking them away again. */
#include "vmm/virtio_bus.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/loop.h"
#include "devices/pci_hotplug.h"
#include "devices/state.h"
#include "devices/virtio.h"
#include "devices/virtio_mmio.h"
#include "devices/virtio_pci.h"
#include "vmm/vm.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

DEFINE_BUS_OPS(virtio_mmio, virtio_mmio_read, virtio_mmio_write)
DEFINE_BUS_OPS(pci_ports, pci_bus_port_read, pci_bus_port_write)
DEFINE_BUS_OPS(pci_ecam, pci_bus_ecam_read, pci_bus_ecam_write)
DEFINE_BUS_OPS(pci_hotplug, pci_hotplug_read, pci_hotplug_write)

static void pci_memory_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	pci_bus_memory_read(ctx, LAYOUT_PCI_MEMORY + offset, data, len);
}

static void pci_memory_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	pci_bus_memory_write(ctx, LAYOUT_PCI_MEMORY + offset, data, len);
}

static const struct bus_ops pci_memory_bus_ops = {pci_memory_read, pci_memory_write};

static unsigned index_of(const struct virtio_slot *slot)
{
	return (unsigned)(slot - slot->bus->slots);
}

static unsigned pci_slot_of(const struct virtio_slot *slot)
{
	return index_of(slot) + 1;
}

/* ---- what a PCI function asks for ---- */

/* The guest can point a function's registers anywhere; only inside the window are they there. */
static bool is_in_window(uint64_t address)
{
	return address >= LAYOUT_PCI_MEMORY && address - LAYOUT_PCI_MEMORY < LAYOUT_PCI_MEMORY_BYTES;
}

static void connect_doorbell(void *ctx, uint64_t address, int fd)
{
	const struct virtio_slot *slot = ctx;
	int r = is_in_window(address) ? vm_connect_doorbell(slot->bus->config.vm, address, fd) : 0;

	if (r < 0)
		log_debug("PCI slot %u: no doorbell at %#llx: %s", pci_slot_of(slot), (unsigned long long)address,
			strerror(-r));
}

static void disconnect_doorbell(void *ctx, uint64_t address, int fd)
{
	const struct virtio_slot *slot = ctx;

	if (is_in_window(address))
		vm_disconnect_doorbell(slot->bus->config.vm, address, fd);
}

static uint32_t gsi_of(const struct virtio_slot *slot, unsigned vector)
{
	return LAYOUT_GSI_MSI + index_of(slot) * VIRTIO_PCI_VECTORS_MAX + vector;
}

static int connect_vector(void *ctx, unsigned vector, int fd, uint64_t address, uint32_t data)
{
	const struct virtio_slot *slot = ctx;

	return vm_connect_message(slot->bus->config.vm, gsi_of(slot, vector), fd, address, data);
}

static void disconnect_vector(void *ctx, unsigned vector, int fd)
{
	const struct virtio_slot *slot = ctx;

	vm_disconnect_message(slot->bus->config.vm, gsi_of(slot, vector), fd);
}

static const struct virtio_pci_ops virtio_pci_ops = {
	connect_doorbell, disconnect_doorbell, connect_vector, disconnect_vector};

/* ---- placing ---- */

static int place_mmio(struct virtio_slot *slot, struct virtio_dev *dev, struct error *err)
{
	const struct virtio_bus_config *config = &slot->bus->config;
	unsigned n = index_of(slot);
	gpa_t base = LAYOUT_VIRTIO_MMIO + n * VIRTIO_MMIO_SIZE;
	uint16_t n_queues = dev->ops->n_queues;
	int r;

	slot->mmio = virtio_mmio_new(dev, config->loop, err);
	if (!slot->mmio)
		return -EIO;
	r = bus_add(config->mmio, base, VIRTIO_MMIO_SIZE, &virtio_mmio_bus_ops, slot->mmio);
	assert(r == 0); /* vmm/layout.h has them disjoint */
	for (uint16_t q = 0; q < n_queues && r == 0; q++)
		r = vm_add_doorbell(config->vm, base + VIRTIO_MMIO_QUEUE_NOTIFY, q, virtio_mmio_doorbell_fd(slot->mmio, q), err);
	if (r == 0)
		r = vm_add_interrupt(config->vm, LAYOUT_GSI_VIRTIO + n, virtio_mmio_interrupt_fd(slot->mmio), err);
	return r;
}

static int place_pci(struct virtio_slot *slot, struct virtio_dev *dev, struct error *err)
{
	struct virtio_bus *bus = slot->bus;

	slot->pci = virtio_pci_new(dev, bus->config.loop, &virtio_pci_ops, slot, err);
	if (!slot->pci)
		return -EIO;
	pci_bus_plug(&bus->pci, pci_slot_of(slot), virtio_pci_function(slot->pci),
		(uint32_t)(LAYOUT_PCI_MEMORY + index_of(slot) * VIRTIO_PCI_BAR_BYTES));
	return 0;
}

static unsigned n_slots(const struct virtio_bus *bus)
{
	return bus->config.is_pci ? VIRTIO_BUS_MAX : LAYOUT_VIRTIO_MAX;
}

static bool same_id(const char *one, const char *other)
{
	return one && other ? strcmp(one, other) == 0 : one == other;
}

static struct virtio_slot *find_place(struct virtio_bus *bus, uint32_t device_id, const char *id)
{
	for (unsigned i = 0; i < n_slots(bus); i++) {
		struct virtio_slot *slot = &bus->slots[i];

		if (!slot->dev && slot->device_id == device_id && same_id(slot->id, id))
			return slot;
	}
	return NULL;
}

static struct virtio_slot *find_empty(struct virtio_bus *bus)
{
	unsigned n = n_slots(bus);

	for (unsigned i = 0; i < n; i++) {
		struct virtio_slot *slot = &bus->slots[(bus->next + i) % n];

		if (!slot->dev)
			return slot;
	}
	return NULL;
}

/* The device's own end, wherever it is. */
static void empty(struct virtio_slot *slot)
{
	struct virtio_bus *bus = slot->bus;

	if (slot->dev)
		bus->config.removed(bus->config.ctx, slot->dev);
	if (slot->pci) {
		pci_bus_unplug(&bus->pci, pci_slot_of(slot));
		virtio_pci_free(slot->pci);
	}
	virtio_mmio_free(slot->mmio);
	loop_remove(slot->deadline);
	free(slot->id);
	*slot = (struct virtio_slot){.bus = bus};
}

int virtio_bus_add(struct virtio_bus *bus, struct virtio_dev *dev, const char *id, struct error *err)
{
	struct virtio_slot *slot = bus->has_places ? find_place(bus, dev->ops->device_id, id) : find_empty(bus);
	char *copy = id ? strdup(id) : NULL;
	int r;

	if (!slot || (id && !copy)) {
		free(copy);
		virtio_dev_free(dev);
		if (!slot && bus->has_places)
			return error_set(err, EINVAL, "the snapshot has no place for it");
		return slot ? error_set(err, ENOMEM, "out of memory") :
			      error_set(err, ENOSPC, "a machine has room for %d virtio devices%s",
				      bus->config.is_pci ? VIRTIO_BUS_MAX : LAYOUT_VIRTIO_MAX,
				      bus->config.is_pci ? "" : ", or more with --enable-pci");
	}
	r = bus->config.is_pci ? place_pci(slot, dev, err) : place_mmio(slot, dev, err);
	if (r < 0 && !slot->mmio) { /* it is gone with its transport */
		free(copy);
		return r;
	}
	slot->dev = dev;
	free(slot->id); /* it was the same */
	slot->id = copy;
	if (!bus->has_places)
		bus->next = index_of(slot) + 1;
	return r;
}

/* ---- coming and going ---- */

static struct virtio_slot *slot_of(const struct virtio_bus *bus, const struct virtio_dev *dev)
{
	for (unsigned i = 0; i < VIRTIO_BUS_MAX; i++)
		if (bus->slots[i].dev == dev)
			return (struct virtio_slot *)&bus->slots[i];
	return NULL;
}

/* An interrupt that comes before the guest's kernel, which boots, has opened its line is lost. */
static void remind(void *ctx)
{
	struct virtio_bus *bus = ctx;

	if (!bus->reminders || !pci_hotplug_is_unread(bus->hotplug))
		return;
	bus->reminders--;
	bus->config.slots_changed(bus->config.ctx);
	loop_timer_arm(bus->reminder, VIRTIO_BUS_REMIND_NS);
}

static void tell_guest(struct virtio_bus *bus)
{
	bus->reminders = VIRTIO_BUS_REMINDERS;
	bus->config.slots_changed(bus->config.ctx);
	loop_timer_arm(bus->reminder, bus->held ? UINT64_MAX : VIRTIO_BUS_REMIND_NS);
}

void virtio_bus_announce(struct virtio_bus *bus, const struct virtio_dev *dev)
{
	pci_hotplug_plugged(bus->hotplug, pci_slot_of(slot_of(bus, dev)));
	tell_guest(bus);
}

static void out_of_patience(void *ctx)
{
	struct virtio_slot *slot = ctx;

	log_warn("PCI slot %u: the guest has not let go of it, and loses it", pci_slot_of(slot));
	empty(slot);
}

/* Whether a driver has it, or is about to: Linux's waits for the end of a reset before it says that it is there, and for ever if the
 * device is gone meanwhile. It leaves ACKNOWLEDGE behind when it has gone itself. */
static bool is_in_use(struct virtio_slot *slot)
{
	bool in_use;

	virtio_dev_enter(slot->dev);
	in_use = slot->dev->status & VIRTIO_STATUS_DRIVER;
	virtio_dev_leave(slot->dev);
	return in_use || pci_bus_is_master(&slot->bus->pci, pci_slot_of(slot));
}

static void set_deadline(struct virtio_slot *slot)
{
	loop_timer_arm(slot->deadline, slot->bus->held ? UINT64_MAX : VIRTIO_BUS_RELEASE_NS);
}

void virtio_bus_hold(struct virtio_bus *bus, bool held)
{
	bus->held = held;
	if (bus->reminder)
		loop_timer_arm(bus->reminder, held ? UINT64_MAX : VIRTIO_BUS_REMIND_NS);
	for (unsigned i = 0; i < VIRTIO_BUS_MAX; i++)
		if (bus->slots[i].deadline)
			set_deadline(&bus->slots[i]);
}

void virtio_bus_remove(struct virtio_bus *bus, const struct virtio_dev *dev)
{
	struct virtio_slot *slot = slot_of(bus, dev);
	unsigned n = pci_slot_of(slot);

	assert(bus->config.is_pci);
	if (slot->deadline)
		return;
	slot->deadline = is_in_use(slot) ? loop_add_timer(bus->config.loop, out_of_patience, slot) : NULL;
	if (slot->deadline) {
		/* What the guest let go of before it was asked was another device, or this one before it took it up again. */
		__atomic_fetch_and(&bus->ejected, ~(UINT32_C(1) << n), __ATOMIC_ACQ_REL);
		set_deadline(slot);
	} else {
		empty(slot);
	}
	pci_hotplug_ask(bus->hotplug, n);
	tell_guest(bus);
}

/* A slot that nobody asked for stays as it is: the guest finds its device again by looking. */
static void take_ejected(void *ctx)
{
	struct virtio_bus *bus = ctx;
	uint32_t slots = __atomic_exchange_n(&bus->ejected, 0, __ATOMIC_ACQ_REL);

	for (unsigned i = 0; i < VIRTIO_BUS_MAX; i++)
		if ((slots >> (i + 1) & 1) && bus->slots[i].deadline)
			empty(&bus->slots[i]);
}

/* vCPU thread. */
static void ejected(void *ctx, uint32_t slots)
{
	struct virtio_bus *bus = ctx;

	if (!__atomic_fetch_or(&bus->ejected, slots, __ATOMIC_ACQ_REL))
		loop_post(bus->config.loop, take_ejected, bus);
}

/* ---- the bus ---- */

static void add_range(struct bus *bus, uint64_t base, uint64_t size, const struct bus_ops *ops, void *ctx)
{
	int r = bus_add(bus, base, size, ops, ctx);

	assert(r == 0); /* vmm/layout.h has them disjoint */
	(void)r;
}

void virtio_bus_init(struct virtio_bus *bus, const struct virtio_bus_config *config)
{
	*bus = (struct virtio_bus){.config = *config};
	for (unsigned i = 0; i < VIRTIO_BUS_MAX; i++)
		bus->slots[i].bus = bus;
	if (!config->is_pci)
		return;
	pci_bus_init(&bus->pci);
	bus->hotplug = pci_hotplug_new(ejected, bus);
	bus->reminder = loop_add_timer(config->loop, remind, bus);
	if (!bus->reminder)
		abort();
	add_range(config->ports, LAYOUT_PORT_PCI, PCI_PORTS, &pci_ports_bus_ops, &bus->pci);
	add_range(config->ports, LAYOUT_PORT_PCI_HOTPLUG, PCI_HOTPLUG_PORTS, &pci_hotplug_bus_ops, bus->hotplug);
	add_range(config->mmio, LAYOUT_PCI_MEMORY, LAYOUT_PCI_MEMORY_BYTES, &pci_memory_bus_ops, &bus->pci);
	add_range(config->mmio, LAYOUT_PCI_ECAM, PCI_ECAM_BYTES, &pci_ecam_bus_ops, &bus->pci);
}

void virtio_bus_done(struct virtio_bus *bus)
{
	for (unsigned i = 0; i < VIRTIO_BUS_MAX; i++)
		if (bus->slots[i].bus)
			empty(&bus->slots[i]);
	if (bus->hotplug)
		pci_bus_done(&bus->pci);
	pci_hotplug_free(bus->hotplug);
	loop_remove(bus->reminder);
	*bus = (struct virtio_bus){0};
}

struct virtio_dev *virtio_bus_find(const struct virtio_bus *bus, uint32_t device_id, const char *id)
{
	for (unsigned i = 0; i < VIRTIO_BUS_MAX; i++) {
		struct virtio_dev *dev = bus->slots[i].dev;
		const char *has = bus->slots[i].id;

		if (dev && dev->ops->device_id == device_id && same_id(id, has))
			return dev;
	}
	return NULL;
}

bool virtio_bus_is_leaving(const struct virtio_bus *bus, const struct virtio_dev *dev)
{
	return slot_of(bus, dev)->deadline;
}

/* ---- saving and loading ---- */

#define PLACES_SECTION "virtio-places"
#define PLACES_VERSION 1

void virtio_bus_save_places(const struct virtio_bus *bus, struct state_writer *w)
{
	state_begin(w, PLACES_SECTION, PLACES_VERSION);
	state_put_u32(w, bus->next);
	for (unsigned i = 0; i < n_slots(bus); i++) {
		const struct virtio_slot *slot = &bus->slots[i];

		state_put_u32(w, slot->dev ? slot->dev->ops->device_id : 0);
		state_put_bytes(w, slot->id, slot->id ? (uint32_t)strlen(slot->id) : 0);
	}
	state_end(w);
}

int virtio_bus_load_places(struct virtio_bus *bus, struct state_reader *r, struct error *err)
{
	int result = state_begin_section(r, PLACES_SECTION, PLACES_VERSION, err);

	if (result < 0)
		return result;
	bus->next = state_get_u32(r) % VIRTIO_BUS_MAX;
	for (unsigned i = 0; i < n_slots(bus) && !r->failed; i++) {
		struct virtio_slot *slot = &bus->slots[i];
		const uint8_t *id;
		uint32_t device_id = state_get_u32(r), len = state_get_bytes(r, &id);

		slot->device_id = device_id;
		slot->id = len ? strndup((const char *)id, len) : NULL;
		if (len && !slot->id)
			return error_set(err, ENOMEM, "out of memory");
	}
	bus->has_places = true;
	return state_end_section(r, err);
}

void virtio_bus_save(struct virtio_bus *bus, struct state_writer *w)
{
	if (bus->config.is_pci) {
		pci_bus_save(&bus->pci, w);
		pci_hotplug_save(bus->hotplug, w);
	}
	for (unsigned i = 0; i < n_slots(bus); i++) {
		if (bus->slots[i].mmio)
			virtio_mmio_save(bus->slots[i].mmio, w);
		else if (bus->slots[i].pci)
			virtio_pci_save(bus->slots[i].pci, w);
	}
}

static int load_slot(struct virtio_slot *slot, struct state_reader *r, struct error *err)
{
	if (!slot->dev)
		return slot->device_id ? error_set(err, EINVAL, "the saved configuration lacks a device that was saved") : 0;
	slot->device_id = 0; /* another may come here later */
	return slot->mmio ? virtio_mmio_load(slot->mmio, r, err) : virtio_pci_load(slot->pci, r, err);
}

int virtio_bus_load(struct virtio_bus *bus, struct state_reader *r, struct error *err)
{
	int result = 0;

	if (bus->config.is_pci) {
		result = pci_bus_load(&bus->pci, r, err);
		if (result == 0)
			result = pci_hotplug_load(bus->hotplug, r, err);
	}
	for (unsigned i = 0; i < n_slots(bus) && result == 0; i++)
		result = load_slot(&bus->slots[i], r, err);
	bus->has_places = false;
	if (result == 0 && bus->hotplug && pci_hotplug_is_unread(bus->hotplug))
		tell_guest(bus);
	return result;
}

void virtio_bus_quiesce(struct virtio_bus *bus)
{
	for (unsigned i = 0; i < VIRTIO_BUS_MAX; i++)
		if (bus->slots[i].dev)
			virtio_dev_quiesce(bus->slots[i].dev);
}

int virtio_bus_sync(struct virtio_bus *bus, struct error *err)
{
	int r = 0;

	for (unsigned i = 0; i < VIRTIO_BUS_MAX && r == 0; i++)
		if (bus->slots[i].dev && bus->slots[i].dev->ops->sync)
			r = bus->slots[i].dev->ops->sync(bus->slots[i].dev, err);
	return r;
}

void virtio_bus_resume(struct virtio_bus *bus)
{
	for (unsigned i = 0; i < VIRTIO_BUS_MAX; i++)
		if (bus->slots[i].dev)
			virtio_dev_resume(bus->slots[i].dev);
}

unsigned virtio_bus_mmio_places(const struct virtio_bus *bus, struct acpi_virtio ret[LAYOUT_VIRTIO_MAX])
{
	unsigned n = 0;

	for (; n < LAYOUT_VIRTIO_MAX && bus->slots[n].mmio; n++)
		ret[n] = (struct acpi_virtio){
			.base = LAYOUT_VIRTIO_MMIO + n * VIRTIO_MMIO_SIZE, .gsi = LAYOUT_GSI_VIRTIO + n};
	return n;
}
