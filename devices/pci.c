/* Configuration space, and finding the function that an address belongs to. Section numbers are PCI Local Bus 3.0's. */
#include "devices/pci.h"

#include "common/checked.h"

#include <assert.h>
#include <linux/pci.h>
#include <string.h>

#define CAPABILITIES 0x40
#define ECAM_FUNCTION_BYTES 4096u

#define ADDRESS_ENABLE (1u << 31) /* CONFIG_ADDRESS, 3.2.2.3.2 */
#define DATA_PORT      4	   /* 0xcfc, relative to 0xcf8 */

static uint32_t get32(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return value;
}

static void put16(uint8_t *p, uint16_t value)
{
	memcpy(p, &value, sizeof(value));
}

static void put32(uint8_t *p, uint32_t value)
{
	memcpy(p, &value, sizeof(value));
}

void pci_function_init(struct pci_function *function, const struct pci_identity *identity, uint32_t bar_bytes,
	const struct pci_ops *ops, void *ctx)
{
	uint8_t *config = function->config;

	assert(!(bar_bytes & (bar_bytes - 1)));
	*function = (struct pci_function){.ops = ops, .ctx = ctx, .bar_bytes = bar_bytes};
	put16(config + PCI_VENDOR_ID, identity->vendor);
	put16(config + PCI_DEVICE_ID, identity->device);
	config[PCI_REVISION_ID] = identity->revision;
	config[PCI_CLASS_PROG] = (uint8_t)identity->class_code;
	put16(config + PCI_CLASS_DEVICE, (uint16_t)(identity->class_code >> 8));
	put16(config + PCI_SUBSYSTEM_VENDOR_ID, identity->subsystem_vendor);
	put16(config + PCI_SUBSYSTEM_ID, identity->subsystem);
	if (!bar_bytes)
		return;
	put16(function->writable + PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	put32(function->writable + PCI_BASE_ADDRESS_0, ~(bar_bytes - 1)); /* 6.2.5.1: its size is read off what sticks */
	function->writable[PCI_INTERRUPT_LINE] = 0xff;
}

uint8_t pci_add_capability(
	struct pci_function *function, uint8_t id, const void *capability, const void *writable, uint8_t len)
{
	uint8_t *config = function->config;
	uint8_t last = function->last_capability;
	uint8_t at = last ? function->capabilities_end : CAPABILITIES;

	assert(range_fits(at, len, PCI_CONFIG_BYTES));
	memcpy(config + at, capability, len);
	if (writable)
		memcpy(function->writable + at, writable, len);
	config[at + PCI_CAP_LIST_ID] = id;
	config[at + PCI_CAP_LIST_NEXT] = 0;
	config[last ? last + PCI_CAP_LIST_NEXT : PCI_CAPABILITY_LIST] = at;
	config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	function->last_capability = at;
	function->capabilities_end = (uint8_t)align_up((uint64_t)at + len, 4);
	return at;
}

/* What the guest has written says where the registers are: tells the function when that has changed. */
static void settle_place(struct pci_function *function)
{
	bool mapped = function->config[PCI_COMMAND] & PCI_COMMAND_MEMORY;
	uint32_t base = get32(function->config + PCI_BASE_ADDRESS_0);

	if (!function->bar_bytes || (mapped == function->mapped && (!mapped || base == function->base)))
		return;
	function->mapped = mapped;
	function->base = base;
	function->ops->placed(function->ctx, mapped, base);
}

/* Configuration space of one function: 256 bytes of the 4 KiB that ECAM gives each; no extended capabilities. */

static void config_read(struct pci_function *function, uint32_t offset, void *data, uint32_t len)
{
	memset(data, 0, len);
	if (!range_fits(offset, len, PCI_CONFIG_BYTES))
		return;
	if (!function->ops || !function->ops->config_read(function->ctx, offset, data, len))
		memcpy(data, function->config + offset, len);
}

static void config_write(struct pci_function *function, uint32_t offset, const void *data, uint32_t len)
{
	const uint8_t *bytes = data;

	if (!range_fits(offset, len, PCI_CONFIG_BYTES))
		return;
	for (uint32_t i = 0; i < len; i++) {
		uint8_t *byte = &function->config[offset + i], mask = function->writable[offset + i];

		*byte = (uint8_t)((*byte & ~mask) | (bytes[i] & mask));
	}
	settle_place(function);
	if (function->ops)
		function->ops->config_written(function->ctx, offset, len);
}

/* Which function, and where in it, an access to bus 0 is for. False: nobody's. With the lock held. */
static bool find_config(struct pci_bus *bus, unsigned devfn, uint32_t len, struct pci_function **ret)
{
	*ret = PCI_FUNC(devfn) == 0 ? bus->slots[PCI_SLOT(devfn)] : NULL;
	return *ret && len <= sizeof(uint32_t);
}

static void bus_config_read(struct pci_bus *bus, unsigned devfn, uint32_t offset, void *data, uint32_t len)
{
	struct pci_function *function;

	if (find_config(bus, devfn, len, &function))
		config_read(function, offset, data, len);
	else
		memset(data, 0xff, len);
}

static void bus_config_write(struct pci_bus *bus, unsigned devfn, uint32_t offset, const void *data, uint32_t len)
{
	struct pci_function *function;

	if (find_config(bus, devfn, len, &function))
		config_write(function, offset, data, len);
}

/* CONFIG_DATA stands for the dword that CONFIG_ADDRESS points to. False: for nothing. */
static bool port_target(const struct pci_bus *bus, uint64_t offset, uint32_t len, unsigned *ret_devfn, uint32_t *ret_offset)
{
	if (offset < DATA_PORT || !range_fits(offset, len, PCI_PORTS) || !(bus->address & ADDRESS_ENABLE) ||
		bus->address >> 16 & 0xff)
		return false;
	*ret_devfn = bus->address >> 8 & 0xff;
	*ret_offset = (bus->address & 0xfc) + (uint32_t)(offset - DATA_PORT);
	return true;
}

void pci_bus_port_read(struct pci_bus *bus, uint64_t offset, void *data, uint32_t len)
{
	unsigned devfn;
	uint32_t at;

	pthread_rwlock_rdlock(&bus->lock);
	if (port_target(bus, offset, len, &devfn, &at))
		bus_config_read(bus, devfn, at, data, len);
	else if (offset == 0 && len == sizeof(bus->address))
		memcpy(data, &bus->address, len);
	else
		memset(data, 0xff, len);
	pthread_rwlock_unlock(&bus->lock);
}

void pci_bus_port_write(struct pci_bus *bus, uint64_t offset, const void *data, uint32_t len)
{
	unsigned devfn;
	uint32_t at;

	pthread_rwlock_wrlock(&bus->lock);
	if (port_target(bus, offset, len, &devfn, &at))
		bus_config_write(bus, devfn, at, data, len);
	else if (offset == 0 && len == sizeof(bus->address))
		memcpy(&bus->address, data, len);
	pthread_rwlock_unlock(&bus->lock);
}

void pci_bus_ecam_read(struct pci_bus *bus, uint64_t offset, void *data, uint32_t len)
{
	pthread_rwlock_rdlock(&bus->lock);
	bus_config_read(bus, (unsigned)(offset / ECAM_FUNCTION_BYTES), offset % ECAM_FUNCTION_BYTES, data, len);
	pthread_rwlock_unlock(&bus->lock);
}

void pci_bus_ecam_write(struct pci_bus *bus, uint64_t offset, const void *data, uint32_t len)
{
	pthread_rwlock_wrlock(&bus->lock);
	bus_config_write(bus, (unsigned)(offset / ECAM_FUNCTION_BYTES), offset % ECAM_FUNCTION_BYTES, data, len);
	pthread_rwlock_unlock(&bus->lock);
}

/* Where a guest lets two overlap, the lower slot answers. With the lock held. */
static struct pci_function *find_memory(struct pci_bus *bus, uint64_t address, uint32_t len)
{
	for (unsigned slot = 0; slot < PCI_SLOTS; slot++) {
		struct pci_function *function = bus->slots[slot];

		if (function && function->mapped && address >= function->base &&
			range_fits(address - function->base, len, function->bar_bytes))
			return function;
	}
	return NULL;
}

void pci_bus_memory_read(struct pci_bus *bus, uint64_t address, void *data, uint32_t len)
{
	struct pci_function *function;

	pthread_rwlock_rdlock(&bus->lock);
	function = find_memory(bus, address, len);
	if (function)
		function->ops->bar_read(function->ctx, address - function->base, data, len);
	else
		memset(data, 0xff, len);
	pthread_rwlock_unlock(&bus->lock);
}

void pci_bus_memory_write(struct pci_bus *bus, uint64_t address, const void *data, uint32_t len)
{
	struct pci_function *function;

	pthread_rwlock_rdlock(&bus->lock);
	function = find_memory(bus, address, len);
	if (function)
		function->ops->bar_write(function->ctx, address - function->base, data, len);
	pthread_rwlock_unlock(&bus->lock);
}

void pci_bus_init(struct pci_bus *bus)
{
	/* The PCI ID repository's generic host bridge: nothing but a presence, by which a guest trusts this way of access. */
	static const struct pci_identity host_bridge = {
		.vendor = 0x1b36, .device = 0x0008, .class_code = 0x060000, .subsystem_vendor = 0x1b36, .subsystem = 0x1100};

	pthread_rwlockattr_t writers_first;

	*bus = (struct pci_bus){0};
	pthread_rwlockattr_init(&writers_first);
	pthread_rwlockattr_setkind_np(&writers_first, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&bus->lock, &writers_first);
	pthread_rwlockattr_destroy(&writers_first);
	pci_function_init(&bus->bridge, &host_bridge, 0, NULL, NULL);
	bus->slots[0] = &bus->bridge;
}

void pci_bus_done(struct pci_bus *bus)
{
	pthread_rwlock_destroy(&bus->lock);
}

void pci_bus_plug(struct pci_bus *bus, unsigned slot, struct pci_function *function, uint32_t base)
{
	assert(slot > 0 && slot < PCI_SLOTS && !bus->slots[slot]);
	pthread_rwlock_wrlock(&bus->lock);
	put32(function->config + PCI_BASE_ADDRESS_0, base);
	bus->slots[slot] = function;
	pthread_rwlock_unlock(&bus->lock);
}

void pci_bus_unplug(struct pci_bus *bus, unsigned slot)
{
	struct pci_function *function = bus->slots[slot];

	pthread_rwlock_wrlock(&bus->lock);
	bus->slots[slot] = NULL;
	function->config[PCI_COMMAND] &= (uint8_t)~PCI_COMMAND_MEMORY;
	settle_place(function);
	pthread_rwlock_unlock(&bus->lock);
}

bool pci_bus_is_master(struct pci_bus *bus, unsigned slot)
{
	bool is_master;

	pthread_rwlock_rdlock(&bus->lock);
	is_master = bus->slots[slot] && bus->slots[slot]->config[PCI_COMMAND] & PCI_COMMAND_MASTER;
	pthread_rwlock_unlock(&bus->lock);
	return is_master;
}

void pci_function_save(const struct pci_function *function, struct state_writer *w)
{
	for (unsigned i = 0; i < PCI_CONFIG_BYTES; i++)
		if (function->writable[i])
			state_put_u8(w, function->config[i]);
}

void pci_function_load(struct pci_function *function, struct state_reader *r)
{
	for (unsigned i = 0; i < PCI_CONFIG_BYTES; i++) {
		uint8_t mask = function->writable[i];

		if (mask)
			function->config[i] = (uint8_t)((function->config[i] & ~mask) | (state_get_u8(r) & mask));
	}
	settle_place(function);
}

void pci_bus_save(const struct pci_bus *bus, struct state_writer *w)
{
	state_begin(w, "pci", 1);
	state_put_u32(w, bus->address);
	state_end(w);
}

int pci_bus_load(struct pci_bus *bus, struct state_reader *r, struct error *err)
{
	int result = state_begin_section(r, "pci", 1, err);
	uint32_t address;

	if (result < 0)
		return result;
	address = state_get_u32(r);
	result = state_end_section(r, err);
	if (result == 0)
		bus->address = address;
	return result;
}
