/* The ACPI power registers: see acpi_pm.h. */
#include "devices/acpi_pm.h"

#include <pthread.h>
#include <string.h>

/* SLEEP_CONTROL_REG, ACPI 6.5, 4.8.3.7 */
#define SLP_TYP_SHIFT 2
#define SLP_TYP_MASK  7u
#define SLP_EN        0x20u

#define EVENTS_ALL (ACPI_PM_EVENT_POWER_BUTTON | ACPI_PM_EVENT_SLEEP_BUTTON | ACPI_PM_EVENT_PCI | ACPI_PM_EVENT_GENERATION)

struct acpi_pm {
	const struct acpi_pm_ops *ops;
	void *ctx;
	pthread_mutex_t lock; /* guards what follows; a leaf */
	uint32_t events;      /* pending, ACPI_PM_EVENT_* */
};

struct acpi_pm *acpi_pm_new(const struct acpi_pm_ops *ops, void *ctx)
{
	struct acpi_pm *dev = calloc(1, sizeof(*dev));

	if (!dev)
		abort();
	dev->ops = ops;
	dev->ctx = ctx;
	pthread_mutex_init(&dev->lock, NULL);
	return dev;
}

void acpi_pm_free(struct acpi_pm *dev)
{
	if (!dev)
		return;
	pthread_mutex_destroy(&dev->lock);
	free(dev);
}

/* SLEEP_CONTROL is write-only for SLP_EN and forgets SLP_TYP; SLEEP_STATUS has only WAK_STS, and we never
 * wake up. The event register is whole or not at all: a part of it would lose the rest. */
void acpi_pm_read(struct acpi_pm *dev, uint64_t offset, void *data, uint32_t len)
{
	memset(data, 0, len);
	if (offset != ACPI_PM_OFFSET_EVENTS || len != sizeof(dev->events))
		return;
	pthread_mutex_lock(&dev->lock);
	memcpy(data, &dev->events, sizeof(dev->events));
	dev->events = 0;
	pthread_mutex_unlock(&dev->lock);
}

void acpi_pm_write(struct acpi_pm *dev, uint64_t offset, const void *data, uint32_t len)
{
	uint8_t value;

	if (len != 1)
		return;
	value = *(const uint8_t *)data;
	pthread_mutex_lock(&dev->lock);
	if (offset == ACPI_PM_OFFSET_SLEEP_CONTROL && value & SLP_EN &&
		(value >> SLP_TYP_SHIFT & SLP_TYP_MASK) == ACPI_PM_SLP_TYP_S5)
		dev->ops->power_off(dev->ctx);
	else if (offset == ACPI_PM_OFFSET_RESET && value == ACPI_PM_RESET_VALUE)
		dev->ops->reset(dev->ctx);
	pthread_mutex_unlock(&dev->lock);
}

void acpi_pm_raise(struct acpi_pm *dev, uint32_t events)
{
	pthread_mutex_lock(&dev->lock);
	dev->events |= events & EVENTS_ALL;
	if (dev->events)
		dev->ops->interrupt(dev->ctx);
	pthread_mutex_unlock(&dev->lock);
}

void acpi_pm_save(struct acpi_pm *dev, struct state_writer *w)
{
	state_begin(w, "acpi-pm", 1);
	state_put_u32(w, dev->events);
	state_end(w);
}

int acpi_pm_load(struct acpi_pm *dev, struct state_reader *r, struct error *err)
{
	int version = state_begin_section(r, "acpi-pm", 1, err);
	uint32_t events;
	int ret;

	if (version < 0)
		return version;
	events = state_get_u32(r);
	ret = state_end_section(r, err);
	if (ret < 0)
		return ret;
	dev->events = events & EVENTS_ALL;
	return 0;
}
