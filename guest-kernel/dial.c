/* A TCP connection to a program in the machine, by the loopback. */
#include "guest-kernel/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

struct dial {
	struct loop *loop;
	int fd;
	struct loop_source *source;
	struct loop_source *soon; /* tells a failure that was known at once */
	uint16_t port;
	bool tried_ipv6;
	int failure; /* -errno */
	dial_fn fn;
	void *ctx;
};

static void connect_next(struct dial *dial);

void dial_cancel(struct dial *dial)
{
	if (!dial)
		return;
	loop_remove(dial->source);
	loop_remove(dial->soon);
	close_fd(dial->fd);
	free(dial);
}

static void finish(struct dial *dial, int r)
{
	int fd = r == 0 ? steal_fd(&dial->fd) : -1;
	dial_fn fn = dial->fn;
	void *ctx = dial->ctx;

	dial_cancel(dial);
	fn(ctx, r, fd);
}

static void on_soon(void *ctx)
{
	struct dial *dial = ctx;

	finish(dial, dial->failure);
}

/* The connection to the current address failed. */
static void connect_failed(struct dial *dial, int errnum)
{
	loop_remove(dial->source);
	dial->source = NULL;
	dial->fd = close_fd(dial->fd);
	if (dial->tried_ipv6) {
		dial->failure = -errnum;
		loop_timer_arm(dial->soon, 0);
	} else {
		dial->tried_ipv6 = true;
		connect_next(dial);
	}
}

static void on_connected(void *ctx, uint32_t events)
{
	struct dial *dial = ctx;
	int errnum = 0, one = 1;
	socklen_t len = sizeof errnum;

	(void)events;
	if (getsockopt(dial->fd, SOL_SOCKET, SO_ERROR, &errnum, &len) < 0)
		errnum = errno;
	if (errnum) {
		connect_failed(dial, errnum);
		return;
	}
	setsockopt(dial->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	loop_remove(dial->source);
	dial->source = NULL;
	finish(dial, 0);
}

int dial_loopback(int fd, uint16_t port, bool ipv6)
{
	struct sockaddr_in in4 = {
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 in6 = {
		.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};

	return ipv6 ? connect(fd, (struct sockaddr *)&in6, sizeof in6) :
		      connect(fd, (struct sockaddr *)&in4, sizeof in4);
}

static void connect_next(struct dial *dial)
{
	int family = dial->tried_ipv6 ? AF_INET6 : AF_INET;

	dial->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (dial->fd < 0 || (dial_loopback(dial->fd, dial->port, dial->tried_ipv6) < 0 && errno != EINPROGRESS)) {
		/* An IPv6 that the kernel lacks says nothing of the program: "refused" does. */
		connect_failed(dial, dial->tried_ipv6 && dial->fd < 0 ? ECONNREFUSED : errno);
		return;
	}
	dial->source = loop_add_fd(dial->loop, dial->fd, EPOLLOUT, on_connected, dial);
	if (!dial->source)
		connect_failed(dial, errno);
}

struct dial *dial_new(struct loop *loop, uint16_t port, dial_fn fn, void *ctx)
{
	struct dial *dial = calloc(1, sizeof *dial);

	if (!dial)
		return NULL;
	*dial = (struct dial){.loop = loop, .fd = -1, .port = port, .fn = fn, .ctx = ctx};
	dial->soon = loop_add_timer(loop, on_soon, dial);
	if (!dial->soon) {
		dial_cancel(dial);
		return NULL;
	}
	connect_next(dial);
	return dial;
}
