/* One interface's way to MMDS: Ethernet, ARP (RFC 826) and IPv4 (RFC 791), each as far as one host on a link of two needs it.
 *
 * What is addressed to MMDS is taken, whatever it is, so that none of it reaches a network; answered are requests for its
 * hardware address, and TCP. Nothing is put together of fragments, no tag or option is looked at. */
#include "devices/mmds.h"
#include "devices/mmds_tcp.h"
#include "devices/net_interceptor.h"
#include "devices/net_order.h"

#include "common/checked.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

/*	+-------------+--------+-----------+
 *	| destination | source | EtherType | …	6, 6 and 2 bytes
 *	+-------------+--------+-----------+ */
#define ETHERNET_BYTES 14
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP  0x0806

/*	+----------+----------+------+------+-----------+------------+-----------+------------+-----------+
 *	| hardware | protocol | 6, 4 | what | sender's: | MAC (6)    | IP (4)    | target's:  | MAC, IP   |
 *	+----------+----------+------+------+-----------+------------+-----------+------------+-----------+ */
#define ARP_BYTES   28
#define ARP_REQUEST 1
#define ARP_REPLY   2

#define IPV4_BYTES	   20
#define IPV4_DONT_FRAGMENT 0x4000
#define IPV4_FRAGMENT	   0x3fff /* more of them, or not the first */
#define IPV4_TTL	   64
#define PROTOCOL_TCP	   6

#define TCP_CHECKSUM_AT 16

static_assert(ETHERNET_BYTES + ARP_BYTES <= NET_INTERCEPTOR_HEAD_BYTES, "the target's address is seen");

/* Firecracker's: whoever has it in a table of neighbours finds it here, too. */
static const uint8_t own_mac[6] = {0x06, 0x01, 0x23, 0x45, 0x67, 0x01};

struct mmds_stack {
	struct net_interceptor interceptor;
	struct mmds *mmds; /* borrowed */
	struct mmds_tcp tcp;
	bool arp_due; /* `asker` has asked for our hardware address */
	struct mmds_peer asker;
};

static struct mmds_stack *from_interceptor(struct net_interceptor *interceptor)
{
	return container_of(interceptor, struct mmds_stack, interceptor);
}

static const struct mmds_stack *from_const(const struct net_interceptor *interceptor)
{
	return container_of(interceptor, const struct mmds_stack, interceptor);
}

/* RFC 1071. Of what holds its own checksum it is 0. */
static uint16_t checksum(uint64_t sum, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i + 1 < len; i += 2)
		sum += net_get_16(data + i);
	if (len & 1)
		sum += (uint64_t)data[len - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* The sum of TCP's pseudo-header (RFC 9293, 3.1). */
static uint64_t pseudo_sum(uint32_t a, uint32_t b, size_t len)
{
	return (a >> 16) + (a & 0xffff) + (b >> 16) + (b & 0xffff) + PROTOCOL_TCP + len;
}

static bool is_unicast(uint32_t ip)
{
	return ip >> 24 != 0 && ip >> 28 < 0xe;
}

/* From the guest. */

static bool stack_wants(const struct net_interceptor *interceptor, const uint8_t *head, size_t len)
{
	uint32_t address = from_const(interceptor)->mmds->address;

	if (len < ETHERNET_BYTES)
		return false;
	switch (net_get_16(head + 12)) {
	case ETHERTYPE_ARP:
		return len >= ETHERNET_BYTES + ARP_BYTES && net_get_32(head + ETHERNET_BYTES + 24) == address;
	case ETHERTYPE_IPV4:
		return len >= ETHERNET_BYTES + IPV4_BYTES && net_get_32(head + ETHERNET_BYTES + 16) == address;
	default:
		return false;
	}
}

/* 0; -EINVAL: malformed; -ENOMSG: fine, and nothing for us. */
static int take_arp(struct mmds_stack *stack, const uint8_t *arp)
{
	static const uint8_t ethernet_ipv4[] = {0, 1, ETHERTYPE_IPV4 >> 8, ETHERTYPE_IPV4 & 0xff, 6, 4};

	if (memcmp(arp, ethernet_ipv4, sizeof(ethernet_ipv4)) != 0 || arp[8] & 1)
		return -EINVAL;
	if (net_get_16(arp + 6) != ARP_REQUEST)
		return -ENOMSG;
	memcpy(stack->asker.mac, arp + 8, 6);
	stack->asker.ip = net_get_32(arp + 14);
	stack->arp_due = true;
	return 0;
}

/* The same. */
static int take_ipv4(struct mmds_stack *stack, const uint8_t *mac, const uint8_t *ip, size_t len, bool checksum_due,
	uint64_t now_ns)
{
	size_t header_bytes = (size_t)(ip[0] & 15) * 4, total_bytes = net_get_16(ip + 2);
	struct mmds_peer peer = {.ip = net_get_32(ip + 12)};
	uint64_t sum;

	if (ip[0] >> 4 != 4 || header_bytes < IPV4_BYTES || total_bytes < header_bytes || total_bytes > len)
		return -EINVAL;
	if (checksum(0, ip, header_bytes) != 0)
		return -EINVAL;
	if (net_get_16(ip + 6) & IPV4_FRAGMENT || ip[9] != PROTOCOL_TCP || !is_unicast(peer.ip))
		return -ENOMSG;
	total_bytes -= header_bytes;
	sum = pseudo_sum(peer.ip, stack->mmds->address, total_bytes);
	if (!checksum_due && checksum(sum, ip + header_bytes, total_bytes) != 0)
		return -EINVAL;
	memcpy(peer.mac, mac, 6);
	return mmds_tcp_receive(&stack->tcp, &peer, ip + header_bytes, total_bytes, now_ns);
}

static void stack_take(
	struct net_interceptor *interceptor, const uint8_t *frame, size_t len, bool checksum_due, uint64_t now_ns)
{
	struct mmds_stack *stack = from_interceptor(interceptor);
	struct mmds_metrics *metrics = &stack->mmds->metrics;
	const uint8_t *mac = frame + 6;
	int r;

	metric_inc(&metrics->rx_accepted);
	if (mac[0] & 1) {
		metric_inc(&metrics->rx_bad_eth); /* nobody is a group */
		return;
	}
	if (net_get_16(frame + 12) == ETHERTYPE_ARP)
		r = take_arp(stack, frame + ETHERNET_BYTES);
	else
		r = take_ipv4(stack, mac, frame + ETHERNET_BYTES, len - ETHERNET_BYTES, checksum_due, now_ns);
	if (r == -EINVAL)
		metric_inc(&metrics->rx_accepted_err);
	else if (r == -ENOMSG)
		metric_inc(&metrics->rx_accepted_unusual);
}

/* To the guest. */

static void put_ethernet(uint8_t *frame, const uint8_t *mac, uint16_t type)
{
	memcpy(frame, mac, 6);
	memcpy(frame + 6, own_mac, 6);
	net_put_16(frame + 12, type);
}

static size_t put_arp_reply(const struct mmds_stack *stack, uint8_t *frame)
{
	uint8_t *arp = frame + ETHERNET_BYTES;

	put_ethernet(frame, stack->asker.mac, ETHERTYPE_ARP);
	net_put_16(arp, 1);
	net_put_16(arp + 2, ETHERTYPE_IPV4);
	arp[4] = 6;
	arp[5] = 4;
	net_put_16(arp + 6, ARP_REPLY);
	memcpy(arp + 8, own_mac, 6);
	net_put_32(arp + 14, stack->mmds->address);
	memcpy(arp + 18, stack->asker.mac, 6);
	net_put_32(arp + 24, stack->asker.ip);
	return ETHERNET_BYTES + ARP_BYTES;
}

/* Around the segment that lies behind where the headers belong. */
static size_t put_packet(const struct mmds_stack *stack, uint8_t *frame, const struct mmds_peer *peer, size_t segment_bytes)
{
	uint8_t *ip = frame + ETHERNET_BYTES, *segment = ip + IPV4_BYTES;

	put_ethernet(frame, peer->mac, ETHERTYPE_IPV4);
	memset(ip, 0, IPV4_BYTES);
	ip[0] = 4 << 4 | IPV4_BYTES / 4;
	net_put_16(ip + 2, (uint16_t)(IPV4_BYTES + segment_bytes));
	net_put_16(ip + 6, IPV4_DONT_FRAGMENT);
	ip[8] = IPV4_TTL;
	ip[9] = PROTOCOL_TCP;
	net_put_32(ip + 12, stack->mmds->address);
	net_put_32(ip + 16, peer->ip);
	net_put_16(ip + 10, checksum(0, ip, IPV4_BYTES));
	net_put_16(segment + TCP_CHECKSUM_AT,
		checksum(pseudo_sum(stack->mmds->address, peer->ip, segment_bytes), segment, segment_bytes));
	return ETHERNET_BYTES + IPV4_BYTES + segment_bytes;
}

static size_t stack_next(struct net_interceptor *interceptor, uint8_t *frame, uint64_t now_ns)
{
	struct mmds_stack *stack = from_interceptor(interceptor);
	struct mmds_peer peer;
	size_t len;

	if (stack->arp_due) {
		stack->arp_due = false;
		len = put_arp_reply(stack, frame);
	} else {
		len = mmds_tcp_next(&stack->tcp, &peer, frame + ETHERNET_BYTES + IPV4_BYTES, now_ns);
		if (!len)
			return 0;
		len = put_packet(stack, frame, &peer, len);
	}
	metric_inc(&stack->mmds->metrics.tx_count);
	metric_inc(&stack->mmds->metrics.tx_frames);
	metric_add(&stack->mmds->metrics.tx_bytes, len);
	return len;
}

static uint64_t stack_delay_ns(const struct net_interceptor *interceptor, uint64_t now_ns)
{
	const struct mmds_stack *stack = from_const(interceptor);

	return stack->arp_due ? 0 : mmds_tcp_delay_ns(&stack->tcp, now_ns);
}

/* Its life. */

static void stack_reset(struct net_interceptor *interceptor)
{
	struct mmds_stack *stack = from_interceptor(interceptor);

	stack->arp_due = false;
	mmds_tcp_reset(&stack->tcp);
}

static void stack_free(struct net_interceptor *interceptor)
{
	stack_reset(interceptor);
	free(from_interceptor(interceptor));
}

static const struct net_interceptor_ops stack_ops = {
	.wants = stack_wants,
	.take = stack_take,
	.next = stack_next,
	.delay_ns = stack_delay_ns,
	.reset = stack_reset,
	.free = stack_free,
};

struct net_interceptor *mmds_stack_new(struct mmds *mmds)
{
	struct mmds_stack *stack = calloc(1, sizeof(*stack));
	uint32_t seed;

	if (!stack)
		return NULL;
	/* Unguessable or not, on a link of two: it only has to differ from the last machine's with this guest. */
	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = 0;
	stack->interceptor.ops = &stack_ops;
	stack->mmds = mmds;
	mmds_tcp_init(&stack->tcp, mmds, seed);
	return &stack->interceptor;
}
