/* PCI0: what a guest must know of the bus, in AML. Section numbers are ACPI 6.5's.
 *
 * Hot-plug is ACPI's own (5.6.6, 6.3): the event device calls PCHG, which reads the slot registers (devices/pci_hotplug.h) and
 * notifies each slot that has changed; a slot that is to be given back is so by its _EJ0. */
#include "vmm/acpi_pci.h"

#include "common/checked.h"
#include "devices/pci.h"
#include "devices/pci_hotplug.h"
#include "vmm/layout.h"

#include <stdio.h>

#define NOTIFY_DEVICE_CHECK  1 /* 5.6.6, table 5.156 */
#define NOTIFY_EJECT_REQUEST 3

#define PORTS_CONFIG 8

static const char *slot_name(unsigned slot, char ret[8])
{
	snprintf(ret, 8, "S%02u_", slot % 100);
	return ret;
}

static void describe_slot(struct aml *aml, unsigned slot)
{
	char name[8];
	size_t device = aml_begin_device(aml, slot_name(slot, name)), method;

	aml_name_integer(aml, "_ADR", (uint64_t)slot << 16); /* 6.1.1 */
	aml_name_integer(aml, "_SUN", slot);
	method = aml_begin_method(aml, "_EJ0", 1, false);
	aml_store_integer(aml, UINT64_C(1) << slot, "EJCT");
	aml_end(aml, method);
	aml_end(aml, device);
}

static void notify_slots(struct aml *aml, const char *changed, uint8_t what)
{
	char name[8];

	aml_store_to_local0(aml, changed);
	for (unsigned slot = 1; slot < PCI_SLOTS; slot++) {
		size_t branch = aml_begin_if_local0_has(aml, UINT64_C(1) << slot);

		aml_notify(aml, slot_name(slot, name), what);
		aml_end(aml, branch);
	}
}

static void describe_bus(struct aml *aml)
{
	static const char *const registers[] = {"PLGD", "ASKD", "EJCT"};
	struct aml_resources res = {0};
	size_t device = aml_begin_device(aml, "PCI0"), method;

	_Static_assert(PCI_HOTPLUG_OFFSET_PLUGGED == 0 && PCI_HOTPLUG_OFFSET_ASKED == 4 && PCI_HOTPLUG_OFFSET_EJECT == 8,
		"the registers are named in their order");
	aml_name_eisa_id(aml, "_HID", "PNP0A03");
	aml_name_integer(aml, "_UID", 0);
	aml_name_integer(aml, "_BBN", 0);
	aml_add_bus_window(&res, 1);
	aml_add_ports(&res, LAYOUT_PORT_PCI, PORTS_CONFIG);
	aml_add_memory32_window(&res, LAYOUT_PCI_MEMORY, LAYOUT_PCI_MEMORY_BYTES);
	aml_name_resources(aml, "_CRS", &res);
	aml_port_fields32(aml, "PHPR", LAYOUT_PORT_PCI_HOTPLUG, registers, ARRAY_SIZE(registers));
	for (unsigned slot = 1; slot < PCI_SLOTS; slot++)
		describe_slot(aml, slot);
	/* What goes before what comes: a slot that is told of both has a new device. */
	method = aml_begin_method(aml, "PCHG", 0, true);
	notify_slots(aml, "ASKD", NOTIFY_EJECT_REQUEST);
	notify_slots(aml, "PLGD", NOTIFY_DEVICE_CHECK);
	aml_end(aml, method);
	aml_end(aml, device);
}

/* The memory that MCFG speaks of is to be found reserved (PCI Firmware 3.2, 4.1.2). */
static void reserve_configuration_space(struct aml *aml)
{
	struct aml_resources res = {0};
	size_t device = aml_begin_device(aml, "MCFG");

	aml_name_eisa_id(aml, "_HID", "PNP0C02");
	aml_add_memory32(&res, LAYOUT_PCI_ECAM, PCI_ECAM_BYTES);
	aml_name_resources(aml, "_CRS", &res);
	aml_end(aml, device);
}

void acpi_pci_describe(struct aml *aml)
{
	describe_bus(aml);
	reserve_configuration_space(aml);
}
