/* The registers by which a guest's ACPI code learns which PCI slots have changed, and lets go of one: 32 bits each, a bit a
 * slot. vmm/acpi.c has the code that reads them.
 *
 *	+0x0  plugged since the last read, which clears
 *	+0x4  asked back since the last read, which clears
 *	+0x8  written: the guest has let go of these slots (_EJ0, ACPI 6.5, 6.3.3)
 *
 * It has a lock of its own, a leaf. */
#ifndef HULL_DEVICES_PCI_HOTPLUG_H
#define HULL_DEVICES_PCI_HOTPLUG_H

#include "devices/state.h"

#include <stdbool.h>

#define PCI_HOTPLUG_PORTS	   0xc
#define PCI_HOTPLUG_OFFSET_PLUGGED 0x0
#define PCI_HOTPLUG_OFFSET_ASKED   0x4
#define PCI_HOTPLUG_OFFSET_EJECT   0x8

struct pci_hotplug;

/* `ejected` is called on the vCPU's thread, without the lock. Never NULL (allocation failure aborts). */
struct pci_hotplug *pci_hotplug_new(void (*ejected)(void *ctx, uint32_t slots), void *ctx);
void pci_hotplug_free(struct pci_hotplug *dev); /* NULL is fine */

/* Access at `offset` < PCI_HOTPLUG_PORTS; what is no register reads as 0 and writes to nothing. Any thread. */
void pci_hotplug_read(struct pci_hotplug *dev, uint64_t offset, void *data, uint32_t len);
void pci_hotplug_write(struct pci_hotplug *dev, uint64_t offset, const void *data, uint32_t len);

/* The slot has got a function, or its function is wanted back: for the guest to read; the owner then interrupts. Any thread. */
void pci_hotplug_plugged(struct pci_hotplug *dev, unsigned slot);
void pci_hotplug_ask(struct pci_hotplug *dev, unsigned slot);
/* Whether the guest has still to read one of the two. Any thread. */
bool pci_hotplug_is_unread(struct pci_hotplug *dev);

/* vCPUs stopped. Section "pci-hotplug". */
void pci_hotplug_save(struct pci_hotplug *dev, struct state_writer *w);
int pci_hotplug_load(struct pci_hotplug *dev, struct state_reader *r, struct error *err);

#endif
