/* The virtio device core: the status register's state machine, feature negotiation, and what every device shares.
 *
 * Theory of operation (virtio 1.2, sections 2.1 and 3.1). What the driver may do next hangs on the status bits it has
 * set so far; bits are only ever added, until a write of 0 resets.
 *
 *	0 ──▶ ACKNOWLEDGE ──▶ DRIVER ──▶ FEATURES_OK ──▶ DRIVER_OK (active: doorbells, requests, interrupts)
 *	                      features     queues
 *	                      may change   may be set up
 *
 * A bit set out of order is not taken over, which the driver sees when it reads the register back.
 * NEEDS_RESET is ours alone: set by virtio_dev_broken(), from then on doorbells go nowhere. */
#include "devices/virtio.h"

#include "common/checked.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>

#define BIT(n) (1ull << (n))

/* A guest can break and reset its devices for ever; it does not get to fill the host's log with that. */
#define BROKEN_LOG_MAX 8

#define STATE_VERSION 1

void virtio_dev_init(struct virtio_dev *dev, const struct virtio_ops *ops, const struct gmem *mem)
{
	assert(ops->n_queues <= VIRTIO_QUEUES_MAX && ops->queue_size <= VIRTQ_SIZE_MAX);
	*dev = (struct virtio_dev){.ops = ops, .mem = mem};
	dev->ring_features = BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC);
	pthread_mutex_init(&dev->lock, NULL);
	for (uint16_t q = 0; q < ops->n_queues; q++)
		virtq_init(&dev->queues[q], mem, ops->queue_size);
}

/* 2.4: when the driver reads status 0 the device is as after power-on, and touches no guest memory any more. */
static void reset(struct virtio_dev *dev)
{
	if (dev->active)
		dev->ops->reset(dev);
	dev->active = false;
	dev->status = 0;
	dev->features_sel = dev->driver_features_sel = dev->queue_sel = 0;
	dev->driver_features = 0;
	for (uint16_t q = 0; q < dev->ops->n_queues; q++)
		virtq_reset(&dev->queues[q]);
}

void virtio_dev_free(struct virtio_dev *dev)
{
	if (!dev)
		return;
	virtio_dev_enter(dev);
	reset(dev);
	virtio_dev_leave(dev);
	pthread_mutex_destroy(&dev->lock);
	dev->ops->free(dev);
}

uint64_t virtio_dev_features(struct virtio_dev *dev)
{
	return dev->ops->features(dev) | dev->ring_features | BIT(VIRTIO_F_VERSION_1);
}

/* 2.2.2: nothing that was not offered; 6.1: a driver without VERSION_1 is a legacy driver, which we do not serve. */
static bool features_acceptable(struct virtio_dev *dev)
{
	uint64_t required = dev->ops->required_features | BIT(VIRTIO_F_VERSION_1);

	return !(dev->driver_features & ~virtio_dev_features(dev)) && !(required & ~dev->driver_features);
}

static void activate(struct virtio_dev *dev)
{
	int r;

	for (uint16_t q = 0; q < dev->ops->n_queues; q++) {
		dev->queues[q].event_idx = virtio_dev_negotiated(dev, VIRTIO_RING_F_EVENT_IDX);
		dev->queues[q].indirect = virtio_dev_negotiated(dev, VIRTIO_RING_F_INDIRECT_DESC);
	}
	r = dev->ops->activate(dev);
	if (r < 0) {
		metric_inc(&dev->metrics.activate_fails);
		virtio_dev_broken(dev, strerror(-r));
		return;
	}
	dev->active = true;
}

void virtio_dev_set_status(struct virtio_dev *dev, uint8_t status)
{
	const uint8_t driver_bits = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER |
				    VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK |
				    VIRTIO_STATUS_FAILED;
	uint8_t added = status & driver_bits & ~dev->status;

	if (status == 0) {
		reset(dev);
		return;
	}
	/* 2.1.1: the driver must not clear a bit; one that tries is not followed. */
	if (dev->status & driver_bits & ~status)
		return;
	/* 3.1.1, in its order. Bits without their predecessors are left out. */
	if (added & VIRTIO_STATUS_FAILED)
		dev->status |= VIRTIO_STATUS_FAILED;
	if (added & VIRTIO_STATUS_ACKNOWLEDGE)
		dev->status |= VIRTIO_STATUS_ACKNOWLEDGE;
	if ((added & VIRTIO_STATUS_DRIVER) && (dev->status & VIRTIO_STATUS_ACKNOWLEDGE))
		dev->status |= VIRTIO_STATUS_DRIVER;
	if ((added & VIRTIO_STATUS_FEATURES_OK) && (dev->status & VIRTIO_STATUS_DRIVER) &&
		features_acceptable(dev))
		dev->status |= VIRTIO_STATUS_FEATURES_OK;
	if ((added & VIRTIO_STATUS_DRIVER_OK) && (dev->status & VIRTIO_STATUS_FEATURES_OK) &&
		!(dev->status & VIRTIO_STATUS_FAILED)) {
		dev->status |= VIRTIO_STATUS_DRIVER_OK;
		activate(dev);
	}
}

void virtio_dev_config_read(struct virtio_dev *dev, uint32_t offset, void *ret, uint32_t len)
{
	memset(ret, 0, len);
	if (range_fits(offset, len, dev->ops->config_size))
		dev->ops->config_read(dev, offset, ret, len);
	else
		metric_inc(&dev->metrics.cfg_fails);
}

void virtio_dev_config_write(struct virtio_dev *dev, uint32_t offset, const void *data, uint32_t len)
{
	if (dev->ops->config_write && range_fits(offset, len, dev->ops->config_size))
		dev->ops->config_write(dev, offset, data, len);
	else
		metric_inc(&dev->metrics.cfg_fails);
}

void virtio_dev_doorbell(struct virtio_dev *dev, uint16_t q)
{
	virtio_dev_enter(dev);
	/* A doorbell may be left over from before a reset, or come before DRIVER_OK (3.1.1 forbids it). */
	if (virtio_dev_running(dev) && q < dev->ops->n_queues && dev->queues[q].ready)
		dev->ops->doorbell(dev, q);
	virtio_dev_leave(dev);
}

void virtio_dev_interrupt(struct virtio_dev *dev, uint16_t q)
{
	if (!dev->transport)
		return;
	metric_inc(&dev->metrics.triggers);
	dev->transport->interrupt(dev->transport_ctx, q);
}

void virtio_dev_notify(struct virtio_dev *dev, uint16_t q)
{
	if (virtq_wants_interrupt(&dev->queues[q]))
		virtio_dev_interrupt(dev, q);
}

void virtio_dev_config_changed(struct virtio_dev *dev)
{
	dev->config_generation++;
	if (!(dev->status & VIRTIO_STATUS_DRIVER_OK) || !dev->transport)
		return;
	metric_inc(&dev->metrics.config_updates);
	dev->transport->interrupt(dev->transport_ctx, VIRTIO_INTERRUPT_CONFIG);
}

void virtio_dev_broken(struct virtio_dev *dev, const char *why)
{
	if (dev->status & VIRTIO_STATUS_NEEDS_RESET)
		return;
	dev->status |= VIRTIO_STATUS_NEEDS_RESET;
	log_at(dev->times_broken < BROKEN_LOG_MAX ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG,
		"%s needs a reset by its driver: %s", dev->ops->name, why);
	dev->times_broken++;
	if (dev->active && dev->ops->broken)
		dev->ops->broken(dev);
	/* 2.1.2: the driver is told, if it got as far as DRIVER_OK. */
	virtio_dev_config_changed(dev);
}

bool virtio_dev_holds(struct virtio_dev *dev, const void *host, uint64_t len)
{
	for (uint16_t q = 0; q < dev->ops->n_queues; q++)
		if (virtq_holds(&dev->queues[q], host, len))
			return true;
	return dev->active && dev->ops->holds && dev->ops->holds(dev, host, len);
}

void virtio_dev_memory_changed(struct virtio_dev *dev)
{
	virtio_dev_enter(dev);
	if (dev->active && dev->ops->memory_changed)
		dev->ops->memory_changed(dev);
	virtio_dev_leave(dev);
}

void virtio_dev_quiesce(struct virtio_dev *dev)
{
	virtio_dev_enter(dev);
	dev->quiesced = true;
	if (dev->active)
		dev->ops->quiesce(dev);
	virtio_dev_leave(dev);
}

void virtio_dev_resume(struct virtio_dev *dev)
{
	virtio_dev_enter(dev);
	dev->quiesced = false;
	if (virtio_dev_running(dev))
		dev->ops->resume(dev);
	virtio_dev_leave(dev);
}

void virtio_dev_save(struct virtio_dev *dev, struct state_writer *w)
{
	state_begin(w, dev->ops->name, STATE_VERSION);
	state_put_u8(w, dev->status);
	state_put_u8(w, dev->active);
	state_put_u32(w, dev->features_sel);
	state_put_u32(w, dev->driver_features_sel);
	state_put_u32(w, dev->queue_sel);
	state_put_u64(w, dev->driver_features);
	state_put_u32(w, dev->config_generation);
	state_put_u16(w, dev->ops->n_queues);
	for (uint16_t q = 0; q < dev->ops->n_queues; q++)
		virtq_save(&dev->queues[q], w);
	dev->ops->save(dev, w);
	state_end(w);
}

/* A status the state machine above could not have come to would let a device run that was never negotiated with. */
static int check_loaded_status(struct virtio_dev *dev, struct error *err)
{
	const uint8_t ok = VIRTIO_STATUS_FEATURES_OK,
		      live = VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK;

	if (dev->active && (dev->status & live) != live)
		return error_set(
			err, EINVAL, "saved %s is active with status 0x%x", dev->ops->name, dev->status);
	if ((dev->status & ok) && !features_acceptable(dev))
		return error_set(err, EINVAL, "saved %s uses features 0x%llx, and 0x%llx are offered here",
			dev->ops->name, (unsigned long long)dev->driver_features,
			(unsigned long long)virtio_dev_features(dev));
	return 0;
}

static int load_core(struct virtio_dev *dev, struct state_reader *r, struct error *err)
{
	uint16_t n_queues;
	int result;

	dev->status = state_get_u8(r);
	dev->active = state_get_u8(r);
	dev->features_sel = state_get_u32(r);
	dev->driver_features_sel = state_get_u32(r);
	dev->queue_sel = state_get_u32(r);
	dev->driver_features = state_get_u64(r);
	dev->config_generation = state_get_u32(r);
	n_queues = state_get_u16(r);
	if (r->failed || n_queues != dev->ops->n_queues)
		return error_set(err, EINVAL, "saved %s has %u queues instead of %u", dev->ops->name,
			n_queues, dev->ops->n_queues);
	result = check_loaded_status(dev, err);
	if (result < 0)
		return result;
	for (uint16_t q = 0; q < n_queues; q++)
		if (virtq_load(&dev->queues[q], r) < 0)
			return error_set(
				err, EINVAL, "saved %s has an impossible queue %u", dev->ops->name, q);
	return 0;
}

int virtio_dev_load(struct virtio_dev *dev, struct state_reader *r, struct error *err)
{
	int result = state_begin_section(r, dev->ops->name, STATE_VERSION, err);

	if (result < 0)
		return result;
	result = load_core(dev, r, err);
	if (result == 0)
		result = dev->ops->load(dev, r, err);
	if (result == 0)
		result = state_end_section(r, err);
	dev->quiesced = true;
	if (result < 0) {
		dev->active = false; /* nothing was started, so the device's reset() has nothing to stop */
		reset(dev);
	}
	return result;
}
