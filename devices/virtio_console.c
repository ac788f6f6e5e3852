/* virtio-console: the receive queue takes what a terminal sends, the transmit queue holds what the guest prints.
 *
 * Theory of operation. What the guest prints goes on piece by piece. When the other side has no room, or the guest has had
 * its share of the loop, the buffer that is being printed goes back into the ring, and `sent` tells how much of it has
 * gone: so nothing is ever in flight, and a buffer of any size costs no memory here. */
#include "devices/virtio_console.h"

#include "common/checked.h"

#include <errno.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

/* Section 5.3.2. */
enum { RECEIVEQ, TRANSMITQ, N_QUEUES };

#define QUEUE_SIZE	  64
#define PIECE_BYTES	  4096u
#define BYTES_PER_ROUND (64u << 10)

struct virtio_console {
	struct virtio_dev dev;
	const struct virtio_console_ops *ops;
	void *ctx;
	struct loop_source *again; /* a timer: the guest has had its share of this round */
	bool has_room;
	uint64_t sent; /* bytes, of the transmit queue's next buffer */
};

static struct virtio_console *to_console(struct virtio_dev *dev)
{
	return container_of(dev, struct virtio_console, dev);
}

/* Prints what is left of the buffer, while there is room and `*budget` lasts. Whether all of it has gone. */
static bool print(struct virtio_console *console, const struct virtq_chain *chain, size_t *budget)
{
	uint8_t piece[PIECE_BYTES];

	while (console->has_room && *budget > 0) {
		/* (After a load, or by a driver that changes what it has made available, there may be less than was sent.) */
		size_t n = virtq_chain_read(chain, console->sent, piece, sizeof(piece));

		if (n == 0)
			break;
		console->sent += n;
		*budget -= n < *budget ? n : *budget;
		console->has_room = console->ops->transmit(console->ctx, piece, n);
	}
	return console->sent >= chain->out_bytes;
}

static void serve_transmit(struct virtio_console *console)
{
	struct virtq *vq = &console->dev.queues[TRANSMITQ];
	struct virtq_chain chain;
	size_t budget = BYTES_PER_ROUND;
	unsigned left = QUEUE_SIZE;
	int r = 0;

	virtq_disable_doorbell(vq);
	while (console->has_room) {
		r = virtq_pop_or_arm(vq, &chain);
		if (r <= 0)
			break;
		if (chain.n_in > 0) { /* 5.3.6.1: a transmit buffer is for the device to read */
			r = -EINVAL;
			break;
		}
		if (!print(console, &chain, &budget)) {
			virtq_unpop(vq, 1);
		} else {
			console->sent = 0;
			virtq_push(vq, chain.head, 0);
			left--;
		}
		if (budget == 0 || left == 0)
			break;
	}
	if (r < 0)
		virtio_dev_broken(&console->dev, "a buffer to print is malformed");
	else if (r > 0 && console->has_room)
		loop_timer_arm(console->again, 0);
	virtio_dev_notify(&console->dev, TRANSMITQ);
}

static void on_again(void *ctx)
{
	virtio_dev_doorbell(ctx, TRANSMITQ);
}

static void console_doorbell(struct virtio_dev *dev, uint16_t q)
{
	struct virtio_console *console = to_console(dev);

	if (q == TRANSMITQ) {
		serve_transmit(console);
	} else {
		virtq_disable_doorbell(&dev->queues[RECEIVEQ]);
		console->ops->receive_ready(console->ctx);
	}
}

size_t virtio_console_receive(struct virtio_dev *dev, const void *data, size_t len)
{
	struct virtq *vq = &dev->queues[RECEIVEQ];
	struct virtq_chain chain;
	size_t taken = 0;
	int r = 1;

	virtio_dev_enter(dev);
	while (taken < len && virtio_dev_running(dev) && vq->ready) {
		r = virtq_pop_or_arm(vq, &chain);
		if (r <= 0)
			break;
		/* 5.3.6.1: a receive buffer is for the device to write; an empty one would be used up for nothing. */
		if (chain.n_out > 0 || chain.in_bytes == 0) {
			virtio_dev_broken(dev, "a buffer for input is malformed");
			break;
		}
		r = (int)virtq_chain_write(&chain, 0, (const uint8_t *)data + taken, len - taken);
		virtq_push(vq, chain.head, (uint32_t)r);
		taken += (size_t)r;
	}
	if (r < 0)
		virtio_dev_broken(dev, "the receive queue is malformed");
	if (taken > 0)
		virtio_dev_notify(dev, RECEIVEQ);
	virtio_dev_leave(dev);
	return taken;
}

void virtio_console_room(struct virtio_dev *dev)
{
	struct virtio_console *console = to_console(dev);

	virtio_dev_enter(dev);
	console->has_room = true;
	if (virtio_dev_running(dev) && dev->queues[TRANSMITQ].ready)
		serve_transmit(console);
	virtio_dev_leave(dev);
}

/* Without F_SIZE, F_MULTIPORT and F_EMERG_WRITE, no field of it means anything (5.3.4). */
static void console_config_read(struct virtio_dev *dev, uint32_t offset, void *ret, uint32_t len)
{
	(void)dev;
	(void)offset;
	memset(ret, 0, len);
}

static uint64_t console_features(struct virtio_dev *dev)
{
	(void)dev;
	return 0;
}

static int console_activate(struct virtio_dev *dev)
{
	struct virtio_console *console = to_console(dev);

	console->ops->receive_ready(console->ctx); /* somebody may have typed already */
	return 0;
}

static void console_reset(struct virtio_dev *dev)
{
	to_console(dev)->sent = 0;
}

static void console_quiesce(struct virtio_dev *dev)
{
	(void)dev; /* nothing is in flight */
}

static void console_resume(struct virtio_dev *dev)
{
	struct virtio_console *console = to_console(dev);

	if (dev->queues[TRANSMITQ].ready)
		serve_transmit(console);
	console->ops->receive_ready(console->ctx);
}

static void console_save(struct virtio_dev *dev, struct state_writer *w)
{
	state_put_u64(w, to_console(dev)->sent);
}

static int console_load(struct virtio_dev *dev, struct state_reader *r, struct error *err)
{
	(void)err;
	to_console(dev)->sent = state_get_u64(r);
	return 0;
}

static void console_free(struct virtio_dev *dev)
{
	struct virtio_console *console = to_console(dev);

	loop_remove(console->again);
	free(console);
}

static const struct virtio_ops console_ops = {
	.name = "virtio-console",
	.device_id = VIRTIO_ID_CONSOLE,
	.n_queues = N_QUEUES,
	.queue_size = QUEUE_SIZE,
	.features = console_features,
	.config_size = sizeof(struct virtio_console_config),
	.config_read = console_config_read,
	.activate = console_activate,
	.reset = console_reset,
	.doorbell = console_doorbell,
	.quiesce = console_quiesce,
	.resume = console_resume,
	.save = console_save,
	.load = console_load,
	.free = console_free,
};

struct virtio_dev *virtio_console_new(const struct virtio_console_ops *ops, void *ctx, struct loop *loop,
	const struct gmem *mem, struct error *err)
{
	struct virtio_console *console = calloc(1, sizeof(*console));

	if (!console) {
		error_set_errno(err, ENOMEM, "cannot create the console");
		return NULL;
	}
	virtio_dev_init(&console->dev, &console_ops, mem);
	console->ops = ops;
	console->ctx = ctx;
	console->has_room = true;
	console->again = loop_add_timer(loop, on_again, &console->dev);
	if (!console->again) {
		error_set_errno(err, errno, "cannot create the console");
		virtio_dev_free(&console->dev);
		return NULL;
	}
	return &console->dev;
}
