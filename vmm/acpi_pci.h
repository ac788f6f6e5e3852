/* The PCI bus in the machine's ACPI description: its windows, and the hot-plug of its slots. */
#ifndef HULL_VMM_ACPI_PCI_H
#define HULL_VMM_ACPI_PCI_H

#include "vmm/aml.h"

/* The method that looks which slots have changed and tells their drivers. */
#define ACPI_PCI_SLOTS_CHANGED "\\_SB_.PCI0.PCHG"

/* Inside \_SB_: device PCI0, and who keeps its configuration space from being given away. */
void acpi_pci_describe(struct aml *aml);

#endif
