/* A hostile machine behind a published UDP port: whatever it sends, in whatever pieces, hull-ingress keeps its bounds, sends to nobody
 * but who has asked, and serves an honest machine afterwards.
 *
 *	byte 0: bytes a piece  then the machine's stream, after the agent's reply */
#include "tests/fuzz/frames.h"

#include "api/agent.h"
#include "api/ingress/udp_port.h"
#include "common/frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

static struct loop *loop;
static int host, asker, bystander;
static struct udp_port *port;
static struct udp_sessions all = {.max = 2}, sessions = {.max = 1, .whole = &all};
static agent_open_fn opened; /* NULL: nobody asks for the agent */
static void *opened_ctx;

/* In place of the real ones (--wrap). */
struct agent_call *__wrap_agent_open(struct loop *on, const char *vsock_path, enum hull_agent_verb verb, uint32_t arg,
	unsigned timeout_ms, agent_open_fn fn, void *ctx);
void __wrap_agent_cancel(struct agent_call *call);

struct agent_call *__wrap_agent_open(struct loop *on, const char *vsock_path, enum hull_agent_verb verb, uint32_t arg,
	unsigned timeout_ms, agent_open_fn fn, void *ctx)
{
	CHECK(on == loop && strcmp(vsock_path, "/v") == 0 && verb == HULL_AGENT_DATAGRAMS && arg == 53 && timeout_ms && !opened);
	opened = fn;
	opened_ctx = ctx;
	return (struct agent_call *)&opened;
}

void __wrap_agent_cancel(struct agent_call *call)
{
	if (call)
		opened = NULL;
}

static int udp_socket(struct sockaddr_in *address, bool connected)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*address);

	*address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = connected ? address->sin_port : 0,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	CHECK((connected ? connect(fd, (struct sockaddr *)address, len) : bind(fd, (struct sockaddr *)address, len)) == 0);
	if (!connected)
		CHECK(getsockname(fd, (struct sockaddr *)address, &len) == 0);
	return fd;
}

static void prepare(void)
{
	struct sockaddr_in address;
	int one = 1;

	signal(SIGPIPE, SIG_IGN);
	loop = loop_new();
	host = udp_socket(&address, false);
	asker = udp_socket(&address, true);
	bystander = udp_socket(&address, true);
	CHECK(setsockopt(host, IPPROTO_IP, IP_PKTINFO, &one, sizeof(one)) == 0);
	port = udp_port_new(loop, host, "m1", "/v", 53, &sessions);
	CHECK(loop && port);
}

/* The datagrams that have come for who has asked. */
static void hear(void)
{
	static char data[HULL_DATAGRAM_MAX + 1];
	ssize_t got;

	while ((got = recv(asker, data, sizeof(data), 0)) >= 0)
		CHECK(got <= (ssize_t)HULL_DATAGRAM_MAX);
	CHECK(recv(bystander, data, sizeof(data), 0) < 0);
}

static void converse(const uint8_t *data, size_t len, size_t piece)
{
	agent_open_fn fn;
	int ends[2];

	CHECK(send(asker, "question", 8, 0) == 8);
	udp_port_receive(port);
	CHECK(opened && sessions.n == 1 && all.n == 1 && udp_port_count(port) == 1);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
	fn = opened;
	opened = NULL;
	fn(opened_ctx, 0, ends[1]);
	while (len) {
		size_t part = len < piece ? len : piece;

		if (send(ends[0], data, part, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break;
		data += part;
		len -= part;
		fuzz_run_loop(loop);
		hear();
	}
	close(ends[0]);
	for (int i = 0; sessions.n && i < 1024; i++) /* what the socket still has is read first */
		fuzz_run_loop(loop);
	CHECK(sessions.n == 0 && all.n == 0 && !opened);
	hear();
}

/* The machine has all the sessions it may have: another of its ports, which has none to end for it, gets none. */
static void crowd(void)
{
	struct sockaddr_in address;
	int other = udp_socket(&address, false), client = udp_socket(&address, true);
	struct udp_port *full = udp_port_new(loop, other, "m1", "/v", 53, &sessions);

	CHECK(full && sessions.n == 1 && send(client, "question", 8, 0) == 8);
	udp_port_receive(full);
	CHECK(udp_port_count(full) == 0 && sessions.n == 1);
	udp_port_free(full);
	close(other);
	close(client);
}

static void honest_machine(void)
{
	struct frame_reader reader;
	struct frame frame;
	agent_open_fn fn;
	char said[16];
	int ends[2];

	CHECK(send(asker, "question", 8, 0) == 8);
	udp_port_receive(port);
	CHECK(opened && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
	fn = opened;
	opened = NULL;
	fn(opened_ctx, 0, ends[1]);
	fuzz_run_loop(loop);
	frame_reader_init(&reader, HULL_FRAME_MAX);
	CHECK(frame_read(&reader, ends[0], &frame) == 1 && frame.type == HULL_FRAME_DATAGRAM && frame.len == 12);
	CHECK(memcmp(frame.data + 4, "question", 8) == 0);
	CHECK(send(ends[0], &(struct hull_frame_header){.len = 12, .type = HULL_FRAME_DATAGRAM}, 8, 0) == 8);
	CHECK(send(ends[0], frame.data, 12, 0) == 12);
	fuzz_run_loop(loop);
	CHECK(recv(asker, said, sizeof(said), 0) == 8 && memcmp(said, "question", 8) == 0);
	crowd();
	frame_reader_done(&reader);
	close(ends[0]);
	fuzz_run_loop(loop);
	CHECK(sessions.n == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!loop)
		prepare();
	if (len < 1)
		return 0;
	converse(data + 1, len - 1, fuzz_piece(data[0], len));
	if (fuzz_honest_turn())
		honest_machine();
	return 0;
}
