/* The slot registers: see pci_hotplug.h. */
#include "devices/pci_hotplug.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct pci_hotplug {
	void (*ejected)(void *ctx, uint32_t slots);
	void *ctx;
	pthread_mutex_t lock; /* guards what follows */
	uint32_t plugged, asked; /* not read yet */
};

struct pci_hotplug *pci_hotplug_new(void (*ejected)(void *ctx, uint32_t slots), void *ctx)
{
	struct pci_hotplug *dev = calloc(1, sizeof(*dev));

	if (!dev)
		abort();
	dev->ejected = ejected;
	dev->ctx = ctx;
	pthread_mutex_init(&dev->lock, NULL);
	return dev;
}

void pci_hotplug_free(struct pci_hotplug *dev)
{
	if (!dev)
		return;
	pthread_mutex_destroy(&dev->lock);
	free(dev);
}

/* A register is read whole, or not at all: a part of it would lose the rest. */
void pci_hotplug_read(struct pci_hotplug *dev, uint64_t offset, void *data, uint32_t len)
{
	uint32_t *slots = offset == PCI_HOTPLUG_OFFSET_PLUGGED ? &dev->plugged : &dev->asked;

	memset(data, 0, len);
	if (len != sizeof(*slots) || (offset != PCI_HOTPLUG_OFFSET_PLUGGED && offset != PCI_HOTPLUG_OFFSET_ASKED))
		return;
	pthread_mutex_lock(&dev->lock);
	memcpy(data, slots, sizeof(*slots));
	*slots = 0;
	pthread_mutex_unlock(&dev->lock);
}

void pci_hotplug_write(struct pci_hotplug *dev, uint64_t offset, const void *data, uint32_t len)
{
	uint32_t slots;

	if (offset != PCI_HOTPLUG_OFFSET_EJECT || len != sizeof(slots))
		return;
	memcpy(&slots, data, sizeof(slots));
	dev->ejected(dev->ctx, slots);
}

static void set_bit(struct pci_hotplug *dev, uint32_t *slots, unsigned slot)
{
	pthread_mutex_lock(&dev->lock);
	*slots |= UINT32_C(1) << slot;
	pthread_mutex_unlock(&dev->lock);
}

void pci_hotplug_plugged(struct pci_hotplug *dev, unsigned slot)
{
	set_bit(dev, &dev->plugged, slot);
}

void pci_hotplug_ask(struct pci_hotplug *dev, unsigned slot)
{
	set_bit(dev, &dev->asked, slot);
}

bool pci_hotplug_is_unread(struct pci_hotplug *dev)
{
	bool unread;

	pthread_mutex_lock(&dev->lock);
	unread = dev->plugged | dev->asked;
	pthread_mutex_unlock(&dev->lock);
	return unread;
}

void pci_hotplug_save(struct pci_hotplug *dev, struct state_writer *w)
{
	state_begin(w, "pci-hotplug", 1);
	state_put_u32(w, dev->plugged);
	state_put_u32(w, dev->asked);
	state_end(w);
}

int pci_hotplug_load(struct pci_hotplug *dev, struct state_reader *r, struct error *err)
{
	int result = state_begin_section(r, "pci-hotplug", 1, err);
	uint32_t plugged, asked;

	if (result < 0)
		return result;
	plugged = state_get_u32(r);
	asked = state_get_u32(r);
	result = state_end_section(r, err);
	if (result < 0)
		return result;
	dev->plugged = plugged;
	dev->asked = asked;
	return 0;
}
