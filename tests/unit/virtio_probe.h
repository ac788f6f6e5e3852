/* A virtio device that records what it is told: what the tests of the transports put behind them. */
#ifndef HULL_TESTS_UNIT_VIRTIO_PROBE_H
#define HULL_TESTS_UNIT_VIRTIO_PROBE_H

#include "tests/unit/test.h"

#include "common/checked.h"
#include "devices/virtio.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_DEVICE_ID 42
#define PROBE_FEATURE 5u

struct probe {
	struct virtio_dev dev;
	unsigned activated, was_reset, doorbells[2], quiesced, resumed;
	int activate_result;
	uint8_t config[12];
	uint32_t own_state;
	bool *freed; /* set when the device is */
};

static inline struct probe *to_probe(struct virtio_dev *dev)
{
	return container_of(dev, struct probe, dev);
}

static inline uint64_t probe_features(struct virtio_dev *dev)
{
	(void)dev;
	return 1u << PROBE_FEATURE;
}

static inline void probe_config_read(struct virtio_dev *dev, uint32_t offset, void *ret, uint32_t len)
{
	memcpy(ret, to_probe(dev)->config + offset, len);
}

static inline void probe_config_write(struct virtio_dev *dev, uint32_t offset, const void *data, uint32_t len)
{
	memcpy(to_probe(dev)->config + offset, data, len);
}

static inline int probe_activate(struct virtio_dev *dev)
{
	to_probe(dev)->activated++;
	return to_probe(dev)->activate_result;
}

static inline void probe_reset(struct virtio_dev *dev)
{
	to_probe(dev)->was_reset++;
}

static inline void probe_doorbell(struct virtio_dev *dev, uint16_t q)
{
	to_probe(dev)->doorbells[q]++;
}

static inline void probe_quiesce(struct virtio_dev *dev)
{
	to_probe(dev)->quiesced++;
}

static inline void probe_resume(struct virtio_dev *dev)
{
	to_probe(dev)->resumed++;
}

static inline void probe_save(struct virtio_dev *dev, struct state_writer *w)
{
	state_put_u32(w, to_probe(dev)->own_state);
}

static inline int probe_load(struct virtio_dev *dev, struct state_reader *r, struct error *err)
{
	to_probe(dev)->own_state = state_get_u32(r);
	return to_probe(dev)->own_state == 666 ? error_set(err, EINVAL, "no such state") : 0;
}

static inline void probe_free(struct virtio_dev *dev)
{
	*to_probe(dev)->freed = true;
	free(to_probe(dev));
}

static const struct virtio_ops probe_ops = {
	.name = "virtio-probe",
	.device_id = PROBE_DEVICE_ID,
	.n_queues = 2,
	.queue_size = 128,
	.features = probe_features,
	.config_size = 12,
	.config_read = probe_config_read,
	.config_write = probe_config_write,
	.activate = probe_activate,
	.reset = probe_reset,
	.doorbell = probe_doorbell,
	.quiesce = probe_quiesce,
	.resume = probe_resume,
	.save = probe_save,
	.load = probe_load,
	.free = probe_free,
};

/* `freed` is set to true when the device is. */
static inline struct probe *new_probe(const struct gmem *mem, bool *freed)
{
	struct probe *probe = calloc(1, sizeof(*probe));

	assert_non_null(probe);
	probe->freed = freed;
	virtio_dev_init(&probe->dev, &probe_ops, mem);
	return probe;
}

#endif
