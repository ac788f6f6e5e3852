/* A hostile guest of MMDS: whatever frames it sends, and whatever it makes of the answers, nothing is read or written beside
 * them, memory stays bounded, what is said is well-formed, and an honest client is served afterwards.
 *
 *	steps of: kind, client, flags, length (1 byte each), sequence, acknowledgement (2 bytes each, relative to what would
 *	be right), window (2 bytes), then `length` bytes */
#include "tests/fuzz/fuzz.h"

#include "devices/mmds.h"
#include "devices/mmds_http.h"
#include "devices/mmds_tcp.h"
#include "devices/net_backend.h"
#include "devices/net_interceptor.h"
#include "devices/net_order.h"

#include <endian.h>
#include <string.h>

#define CLIENTS	     40 /* more than there is room for */
#define FRAME_MAX    (14 + 20 + MMDS_TCP_SEGMENT_MAX)
#define LIMIT	     4096
#define HEADER_BYTES 34

enum { STEP_SEGMENT, STEP_FRAME, STEP_TIME, STEP_RECEIVE, STEP_RESET, STEP_KINDS };

struct step {
	uint8_t kind, client, flags, len;
	uint16_t seq, ack, window;
} __attribute__((packed));

/* What a client would be right to say next. */
static struct client {
	uint32_t seq, ack;
} clients[CLIENTS];
static struct mmds *mmds;
static struct net_interceptor *stack;
static uint64_t now_ns;

static uint16_t checksum(uint64_t sum, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum += (uint64_t)data[i] << (i & 1 ? 0 : 8);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static void send_frame(const uint8_t *frame, size_t len, bool checksum_due)
{
	/* Of the exact size, so that one byte too far is seen. */
	uint8_t *copy = malloc(len ? len : 1);

	CHECK(copy);
	if (len)
		memcpy(copy, frame, len);
	if (stack->ops->wants(stack, copy, len < NET_INTERCEPTOR_HEAD_BYTES ? len : NET_INTERCEPTOR_HEAD_BYTES))
		stack->ops->take(stack, copy, len, checksum_due, now_ns);
	free(copy);
}

/* A segment whose IP header is right; the rest is as it comes. */
static void send_segment(unsigned client, const struct step *step, const uint8_t *data, size_t len)
{
	uint8_t frame[HEADER_BYTES + 20 + UINT8_MAX] = {0}, *ip = frame + 14;
	struct client *c = &clients[client];

	frame[11] = (uint8_t)client;
	net_put_16(frame + 12, 0x0800);
	ip[0] = 0x45;
	net_put_16(ip + 2, (uint16_t)(40 + len));
	ip[9] = 6;
	net_put_32(ip + 12, 0x0a000001);
	net_put_32(ip + 16, mmds->address);
	net_put_16(ip + 10, checksum(0, ip, 20));
	tcp_put_header(ip + 20, (uint16_t)(1000 + client), MMDS_TCP_PORT, c->seq + (uint32_t)(int16_t)le16toh(step->seq),
		c->ack + (uint32_t)(int16_t)le16toh(step->ack), step->flags & 31, le16toh(step->window), 0);
	if (step->flags & 128 && len >= 4)
		ip[32] = 6 << 4; /* the data begins with options */
	if (len)
		memcpy(ip + 40, data, len);
	send_frame(frame, HEADER_BYTES + 20 + len, true);
	if (step->seq == 0)
		c->seq += (uint32_t)len - (step->flags & 128 && len >= 4 ? 4 : 0) + !!(step->flags & TCP_SYN) +
			  !!(step->flags & TCP_FIN);
}

/* Takes a frame that MMDS has sent; false when there is none. */
static bool receive_frame(uint8_t *frame)
{
	bool announced = stack->ops->delay_ns(stack, now_ns) == 0;
	size_t len = stack->ops->next(stack, frame, now_ns), segment_bytes;
	const uint8_t *ip = frame + 14, *tcp = ip + 20;

	CHECK(announced == (len > 0) && len <= FRAME_MAX);
	if (!len || net_get_16(frame + 12) == 0x0806)
		return len > 0;
	segment_bytes = len - HEADER_BYTES;
	CHECK(net_get_16(ip + 2) == len - 14 && checksum(0, ip, 20) == 0);
	CHECK(checksum((uint64_t)net_get_16(ip + 12) + net_get_16(ip + 14) + net_get_16(ip + 16) + net_get_16(ip + 18) + 6 +
			       segment_bytes,
		      tcp, segment_bytes) == 0);
	CHECK((size_t)(tcp[12] >> 4) * 4 <= segment_bytes);
	if (net_get_16(tcp + 2) - 1000u < CLIENTS && !(tcp[13] & TCP_RST))
		clients[net_get_16(tcp + 2) - 1000].ack =
			net_get_32(tcp + 4) + (uint32_t)(segment_bytes - (tcp[12] >> 4) * 4) + (tcp[13] & 3 ? 1 : 0);
	return true;
}

static void receive_all(unsigned most)
{
	static uint8_t frame[NET_FRAME_MAX];

	while (most-- && receive_frame(frame))
		;
}

static void take(const struct step *step, const uint8_t *data)
{
	switch (step->kind % STEP_KINDS) {
	case STEP_SEGMENT:
		send_segment(step->client % CLIENTS, step, data, step->len);
		break;
	case STEP_FRAME:
		send_frame(data, step->len, step->flags & 1);
		break;
	case STEP_TIME:
		now_ns += (uint64_t)le16toh(step->window) * 1000000;
		break;
	case STEP_RECEIVE:
		receive_all(step->flags);
		break;
	case STEP_RESET:
		stack->ops->reset(stack);
		break;
	}
	CHECK(mmds->metrics.connections_created - mmds->metrics.connections_destroyed <= MMDS_TCP_CONNS);
}

static void make(void)
{
	json_t *data = json_pack("{s:{s:s,s:[i,f]}}", "latest", "meta-data", "some value", "list", 1, 2.5);

	mmds = mmds_new("fuzz", LIMIT, NULL);
	CHECK(mmds && mmds_store_put(&mmds->store, data, NULL) == 0);
	json_decref(data);
	stack = mmds_stack_new(mmds);
	CHECK(stack);
	memset(clients, 0, sizeof(clients));
}

/* After a minute of silence, there is room for somebody new, who is served. */
static void honest_client(void)
{
	static const char request[] = "GET /latest/meta-data HTTP/1.1\r\n\r\n";
	struct step step = {.flags = TCP_SYN, .window = htole16(10000)};
	unsigned client = CLIENTS - 1;
	static uint8_t frame[NET_FRAME_MAX];
	bool served = false;

	receive_all(10000);
	now_ns += 3600000000000ull;
	clients[client] = (struct client){.seq = 0x7fffff00};
	send_segment(client, &step, NULL, 0);
	receive_all(10000);
	step.flags = TCP_ACK;
	send_segment(client, &step, (const uint8_t *)request, sizeof(request) - 1);
	while (receive_frame(frame))
		served |= memmem(frame, FRAME_MAX, "\r\n\r\nsome value", 14) != NULL;
	CHECK(served);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct step step;

	make();
	if (len && data[0] & 128)
		mmds->version = MMDS_V2;
	while (len >= sizeof(step)) {
		memcpy(&step, data, sizeof(step));
		data += sizeof(step);
		len -= sizeof(step);
		if (step.len > len)
			step.len = (uint8_t)len;
		take(&step, data);
		data += step.len;
		len -= step.len;
	}
	mmds->version = MMDS_V1;
	honest_client();
	stack->ops->free(stack);
	CHECK(mmds->metrics.connections_created == mmds->metrics.connections_destroyed);
	mmds_free(mmds);
	return 0;
}
