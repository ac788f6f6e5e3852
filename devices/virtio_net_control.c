/* virtio-net's control queue (virtio 1.2, section 5.1.6.5), as far as it is offered: how many pairs the driver uses.
 *
 *	readable                          writable
 *	+-------+---------+-------------+ +-----+
 *	| class | command | data        | | ack |
 *	+-------+---------+-------------+ +-----+
 *	   u8       u8      le16: pairs     u8 */
#include "devices/virtio_net_device.h"

#include <endian.h>
#include <errno.h>

#define BUDGET 16 /* commands in one go: each takes the kernel's network lock */

enum { NET_CTRL_OK = 0, NET_CTRL_ERR = 1 };
enum { CLASS_MQ = 4 };		/* 5.1.6.5.5 */
enum { MQ_VQ_PAIRS_SET = 0 };

struct command {
	uint8_t class, command;
	uint16_t pairs;
} __attribute__((packed));

int net_control_use(struct virtio_net *n, uint16_t pairs)
{
	int r = 0;

	for (uint16_t i = 0; i < n->n_pairs && r == 0; i++)
		r = net_pair_attach(&n->pairs[i], i < pairs);
	if (r == 0)
		n->pairs_used = pairs;
	for (uint16_t i = n->pairs_used; i < n->n_pairs && r < 0; i++)
		net_pair_attach(&n->pairs[i], false);
	return r;
}

/* The answer to n->command. */
static uint8_t obey(struct virtio_net *n)
{
	struct command command;

	if (n->command.out_bytes != sizeof(command))
		return NET_CTRL_ERR;
	virtq_chain_read(&n->command, 0, &command, sizeof(command));
	command.pairs = le16toh(command.pairs);
	if (command.class != CLASS_MQ || command.command != MQ_VQ_PAIRS_SET || !virtio_dev_negotiated(&n->dev, NET_F_MQ))
		return NET_CTRL_ERR;
	if (command.pairs < 1 || command.pairs > n->n_pairs)
		return NET_CTRL_ERR;
	return net_control_use(n, command.pairs) < 0 ? NET_CTRL_ERR : NET_CTRL_OK;
}

/* As virtq_pop(). */
static int take_one(struct virtio_net *n, struct virtq *vq)
{
	int r = virtq_pop_or_arm(vq, &n->command);
	uint8_t ack;

	if (r <= 0)
		return r;
	if (n->command.in_bytes < sizeof(ack))
		return -EINVAL;
	ack = obey(n);
	virtq_chain_write(&n->command, 0, &ack, sizeof(ack));
	return virtq_push(vq, n->command.head, sizeof(ack)) < 0 ? -EFAULT : 1;
}

void net_control_work(struct virtio_net *n)
{
	struct virtq *vq = &n->dev.queues[net_control_queue(n)];
	int budget = BUDGET, r;

	virtq_disable_doorbell(vq);
	do {
		r = take_one(n, vq);
	} while (r > 0 && --budget > 0);
	if (r < 0)
		virtio_dev_broken(&n->dev, "malformed command in the control queue");
	else if (r > 0)
		loop_kick(&n->control_kick);
	virtio_dev_notify(&n->dev, net_control_queue(n));
}
