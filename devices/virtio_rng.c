/* virtio-rng: fills what the driver offers from the host's getrandom(). */
#include "devices/virtio_rng.h"

#include "common/checked.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define QUEUE_SIZE 64

/* What one request gets at most, however much it offers: the device may fill less than the buffer (5.4.6.2), and the
 * loop has other devices to serve. Linux asks for 64 bytes at a time. */
#define BYTES_PER_REQUEST 4096u

struct virtio_rng {
	struct virtio_dev dev;
	struct loop_source *again; /* a timer: the driver added requests as fast as they were served, or a limit is reached */
	struct rate_limiter limiter;
	struct rng_metrics metrics;
};

static struct virtio_rng *to_rng(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_rng, dev);
}

/* Bytes written. getrandom() blocks only until the host's generator is first seeded, long before us. */
static uint32_t fill(struct virtio_rng *rng, const struct virtq_chain *chain)
{
	uint32_t done = 0;
	uint8_t bytes[256]; /* up to this many, getrandom() is neither short nor interrupted */
	size_t n;

	while (done < BYTES_PER_REQUEST && done < chain->in_bytes) {
		if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes)) {
			metric_inc(&rng->metrics.host_rng_fails);
			break;
		}
		n = virtq_chain_write(chain, done, bytes, sizeof(bytes));
		done += (uint32_t)n;
	}
	explicit_bzero(bytes, sizeof(bytes));
	metric_add(&rng->metrics.entropy_bytes, done);
	return done;
}

/* Whether a limit forbids to serve what the driver has made available, if it has; then the timer goes on. */
static bool is_throttled(struct virtio_rng *rng)
{
	uint64_t delay_ns;

	if (!rate_limiter_is_on(&rng->limiter) || !virtq_has_work(&rng->dev.queues[0]))
		return false;
	delay_ns = rate_limiter_delay_ns(&rng->limiter, monotonic_ns());
	if (!delay_ns)
		return false;
	metric_inc(&rng->metrics.entropy_rate_limiter_throttled);
	loop_timer_arm(rng->again, delay_ns);
	return true;
}

static void rng_doorbell(struct virtio_dev *dev, uint16_t q)
{
	struct virtio_rng *rng = to_rng(dev);
	struct virtq *vq = &dev->queues[q];
	struct virtq_chain chain;
	uint32_t filled;
	int r = 0;

	metric_inc(&rng->metrics.entropy_event_count);
	virtq_disable_doorbell(vq);
	for (unsigned budget = QUEUE_SIZE; budget > 0; budget--) {
		r = is_throttled(rng) ? 0 : virtq_pop_or_arm(vq, &chain);
		if (r <= 0)
			break;
		/* 5.4.6.1: the driver's buffers are all for the device to write, and not empty. */
		if (chain.n_out > 0 || chain.in_bytes == 0) {
			r = -EINVAL;
			break;
		}
		filled = fill(rng, &chain);
		rate_limiter_charge(&rng->limiter, filled, monotonic_ns());
		virtq_push(vq, chain.head, filled);
	}
	if (r < 0) {
		metric_inc(&rng->metrics.entropy_event_fails);
		virtio_dev_broken(dev, "a request for entropy is malformed");
	} else if (r > 0) {
		loop_timer_arm(rng->again, 0);
	}
	virtio_dev_notify(dev, q);
}

static void on_again(void *ctx)
{
	struct virtio_rng *rng = ctx;

	virtio_dev_doorbell(&rng->dev, 0);
}

static uint64_t rng_features(struct virtio_dev *dev)
{
	(void)dev;
	return 0;
}

static int rng_activate(struct virtio_dev *dev)
{
	(void)dev;
	return 0;
}

/* Requests are served while the doorbell rings: none is ever in flight. */
static void rng_nothing(struct virtio_dev *dev)
{
	(void)dev;
}

static void rng_resume(struct virtio_dev *dev)
{
	if (dev->queues[0].ready)
		rng_doorbell(dev, 0);
}

static void rng_save(struct virtio_dev *dev, struct state_writer *w)
{
	(void)dev;
	(void)w;
}

static int rng_load(struct virtio_dev *dev, struct state_reader *r, struct error *err)
{
	(void)dev;
	(void)r;
	(void)err;
	return 0;
}

static void rng_free(struct virtio_dev *dev)
{
	struct virtio_rng *rng = to_rng(dev);

	loop_remove(rng->again);
	free(rng);
}

static const struct virtio_ops rng_ops = {
	.name = "virtio-rng",
	.device_id = VIRTIO_ID_RNG,
	.n_queues = 1,
	.queue_size = QUEUE_SIZE,
	.features = rng_features,
	.activate = rng_activate,
	.reset = rng_nothing,
	.doorbell = rng_doorbell,
	.quiesce = rng_nothing,
	.resume = rng_resume,
	.save = rng_save,
	.load = rng_load,
	.free = rng_free,
};

const struct rng_metrics *virtio_rng_metrics(const struct virtio_dev *dev)
{
	return &container_of(dev, const struct virtio_rng, dev)->metrics;
}

struct virtio_dev *virtio_rng_new(const struct rate_limiter_config *limiter, struct loop *loop, const struct gmem *mem,
	struct error *err)
{
	struct virtio_rng *rng = calloc(1, sizeof(*rng));

	if (!rng) {
		error_set_errno(err, ENOMEM, "cannot create the entropy device");
		return NULL;
	}
	virtio_dev_init(&rng->dev, &rng_ops, mem);
	rate_limiter_init(&rng->limiter, limiter, monotonic_ns());
	rng->again = loop_add_timer(loop, on_again, rng);
	if (!rng->again) {
		error_set_errno(err, errno, "cannot create the entropy device");
		virtio_dev_free(&rng->dev);
		return NULL;
	}
	return &rng->dev;
}
