/* A hostile client of the agent: whatever it says of datagrams, in whatever pieces, the agent keeps its bounds, answers with datagrams
 * only, ends all sessions with the stream, and serves an honest client afterwards. The program that is asked answers all it hears.
 *
 *	byte 0: bytes a piece  then the host's stream, after the agent's reply */
#include "tests/fuzz/frames.h"

#include "common/frame.h"
#include "guest-kernel/datagrams.h"

#include <arpa/inet.h>
#include <endian.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

static struct loop *loop;
static int program;
static uint16_t port;
static size_t n_sessions, most; /* of these, so far */
static struct datagrams *served; /* NULL: it has ended */

static void prepare(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);

	signal(SIGPIPE, SIG_IGN);
	loop = loop_new();
	program = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	CHECK(loop && bind(program, (struct sockaddr *)&address, len) == 0);
	CHECK(getsockname(program, (struct sockaddr *)&address, &len) == 0);
	port = ntohs(address.sin_port);
}

static void on_done(void *ctx)
{
	(void)ctx;
	datagrams_free(served);
	served = NULL;
}

static void answer(void)
{
	static char data[HULL_DATAGRAM_MAX];
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	ssize_t n;

	while ((n = recvfrom(program, data, sizeof(data), 0, (struct sockaddr *)&from, &len)) >= 0)
		sendto(program, data, (size_t)n, 0, (struct sockaddr *)&from, len);
}

/* The datagrams that have come; all of the stream makes sense. */
static unsigned hear(int fd, struct frame_reader *reader)
{
	struct frame frame;
	unsigned n = 0;
	int r;

	while ((r = frame_read(reader, fd, &frame)) > 0) {
		CHECK(frame.type == HULL_FRAME_DATAGRAM && frame.len >= sizeof(uint32_t));
		n++;
	}
	CHECK(r == 0 || r == -ECONNRESET);
	return n;
}

static unsigned converse(const uint8_t *data, size_t len, size_t piece)
{
	struct frame_reader reader;
	unsigned heard = 0;
	int ends[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
	frame_reader_init(&reader, sizeof(uint32_t) + HULL_DATAGRAM_MAX);
	served = datagrams_new(loop, ends[1], port, &n_sessions, on_done, NULL);
	CHECK(served);
	while (len && served) {
		size_t part = len < piece ? len : piece;

		if (send(ends[0], data, part, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break;
		data += part;
		len -= part;
		fuzz_run_loop(loop);
		CHECK(n_sessions <= HULL_DATAGRAM_SESSIONS);
		most = n_sessions > most ? n_sessions : most;
		answer();
		fuzz_run_loop(loop);
		heard += hear(ends[0], &reader);
	}
	close(ends[0]);
	for (int i = 0; served && i < 1024; i++) /* what the socket still has is read first */
		fuzz_run_loop(loop);
	CHECK(!served && n_sessions == 0);
	answer(); /* what nobody wants any more */
	frame_reader_done(&reader);
	return heard;
}

static void honest_host(void)
{
	static const char datagram[] = "\1\0\0\0hello";
	struct buf stream;

	buf_init(&stream, HULL_SPEC_MAX);
	CHECK(frame_put(&stream, HULL_FRAME_DATAGRAM, datagram, sizeof(datagram) - 1) == 0);
	CHECK(frame_put_number(&stream, HULL_FRAME_CLOSE, 2) == 0);
	CHECK(converse((const uint8_t *)stream.data, stream.len, stream.len) == 1);
	buf_done(&stream);
}

/* More sessions than there may be: the first give way to the last. */
static void crowd(void)
{
	struct buf stream;

	buf_init(&stream, HULL_SPEC_MAX);
	for (uint32_t id = 0; id < HULL_DATAGRAM_SESSIONS + 100; id++)
		CHECK(frame_put_number(&stream, HULL_FRAME_DATAGRAM, id) == 0);
	CHECK(converse((const uint8_t *)stream.data, stream.len, 120) > HULL_DATAGRAM_SESSIONS);
	CHECK(most == HULL_DATAGRAM_SESSIONS);
	buf_done(&stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!loop) {
		prepare();
		crowd();
	}
	if (len < 1)
		return 0;
	converse(data + 1, len - 1, fuzz_piece(data[0], len));
	if (fuzz_honest_turn())
		honest_host();
	return 0;
}
