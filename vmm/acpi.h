/* The machine's description for the guest: hardware-reduced ACPI tables (ACPI 6.5, section 4.1), written once
 * at boot into LAYOUT_ACPI. */
#ifndef HULL_VMM_ACPI_H
#define HULL_VMM_ACPI_H

#include "common/error.h"
#include "devices/gmem.h"

#include <stdbool.h>

#define ACPI_VCPUS_MAX 254

struct acpi_virtio {
	uint64_t base; /* of the 4 KiB register page, below 4 GiB */
	uint32_t gsi;  /* edge-triggered, active high */
};

struct acpi_config {
	unsigned n_vcpus;                 /* APIC ids 0..n_vcpus-1 */
	const struct acpi_virtio *virtio; /* in the order the guest shall find them */
	unsigned n_virtio;                /* <= LAYOUT_VIRTIO_MAX */
	bool uart;
	bool pci; /* a PCI bus with hot-plug, at LAYOUT_PCI_* */
};

/* Builds RSDP, XSDT, FADT, MADT, DSDT and, with a PCI bus, MCFG. 0 with the RSDP's address, or -errno with `err` set. */
int acpi_build(const struct acpi_config *config, const struct gmem *mem, gpa_t *ret_rsdp, struct error *err);

/* Gives the machine a generation that no other has had ("Virtual Machine Generation ID", Microsoft, 2012). One that runs on afterwards, being a
 * copy, has to be told: ACPI_PM_EVENT_GENERATION. 0, or -errno with `err` set. */
int acpi_write_generation(const struct gmem *mem, struct error *err);

#endif
