/* The virtio transport over PCI (virtio 1.2, section 4.1), non-transitional: one function with MSI-X, all registers in BAR 0.
 *
 *	0x0000  common configuration (4.1.4.3)	0x3000  notifications (4.1.4.4), 4 bytes a queue: ioeventfds
 *	0x1000  ISR status (4.1.4.5)		0x4000  MSI-X table
 *	0x2000  device configuration (4.1.4.6)	0x5000  MSI-X pending bits
 *
 * There is a vector for each queue and one for the configuration; interrupts by a line (INTx) are not offered. Registers move
 * with the BAR, and the doorbells with them. */
#ifndef HULL_DEVICES_VIRTIO_PCI_H
#define HULL_DEVICES_VIRTIO_PCI_H

#include "common/loop.h"
#include "devices/pci.h"
#include "devices/virtio.h"

#define VIRTIO_PCI_BAR_BYTES   0x8000u
#define VIRTIO_PCI_VECTORS_MAX (VIRTIO_QUEUES_MAX + 1)

/* What the owner does for it; called with the bus's lock held, must not call back. */
struct virtio_pci_ops {
	/* A write of any length at guest-physical `address` makes the eventfd `fd` readable, without an exit; or no longer does. */
	void (*connect_doorbell)(void *ctx, uint64_t address, int fd);
	void (*disconnect_doorbell)(void *ctx, uint64_t address, int fd);
	/* Each write to `fd` sends the function's message `vector`, or no longer does. 0 or -errno. */
	int (*connect_vector)(void *ctx, unsigned vector, int fd, uint64_t address, uint32_t data);
	void (*disconnect_vector)(void *ctx, unsigned vector, int fd);
};

struct virtio_pci;

/* Takes `dev` over (frees it with itself, also on failure). `ops` and `ctx` are borrowed. NULL with `err` set. Loop thread. */
struct virtio_pci *virtio_pci_new(struct virtio_dev *dev, struct loop *loop, const struct virtio_pci_ops *ops, void *ctx,
	struct error *err);
/* It must be unplugged. Loop thread. NULL is fine. */
void virtio_pci_free(struct virtio_pci *pci);

/* For pci_bus_plug(). Borrowed. */
struct pci_function *virtio_pci_function(struct virtio_pci *pci);

/* As virtio_mmio_save() and virtio_mmio_load(). */
void virtio_pci_save(struct virtio_pci *pci, struct state_writer *w);
int virtio_pci_load(struct virtio_pci *pci, struct state_reader *r, struct error *err);

#endif
