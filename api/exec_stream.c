/* Frames copied between a client of HTTP and the agent in a machine.
 *
 * Theory of operation. A relay copies. When it is over the client has been sent everything, and its sending
 * side is shut; but a socket that is closed with input unread is reset, which may cost the client what it has
 * not yet read. So we go on reading, and dropping, until the client closes, or its time is over. */
#include "api/exec_stream.h"

#include "common/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>

#define LINGER_NS    5000000000ull
#define IDLE_S	     60 /* without a word of a client's host, it is asked whether it is there, */
#define IDLE_EVERY_S 10 /* and three times again */

struct exec_stream {
	struct loop *loop;
	struct http_upgraded *conn;
	struct relay *relay;
	struct loop_source *input, *timer;
	loop_fn done;
	void *ctx;
};

void exec_stream_free(struct exec_stream *stream)
{
	if (!stream)
		return;
	relay_free(stream->relay);
	loop_remove(stream->input);
	loop_remove(stream->timer);
	http_upgraded_end(stream->conn);
	free(stream);
}

static void on_timer(void *ctx)
{
	struct exec_stream *stream = ctx;

	stream->done(stream->ctx);
}

static void on_late_input(void *ctx, uint32_t events)
{
	struct exec_stream *stream = ctx;
	static char dropped[65536];
	ssize_t n = recv(http_upgraded_fd(stream->conn), dropped, sizeof(dropped), MSG_DONTWAIT);

	(void)events;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		stream->done(stream->ctx);
}

static void on_relay_end(void *ctx)
{
	struct exec_stream *stream = ctx;
	int fd = http_upgraded_fd(stream->conn);

	relay_free(stream->relay);
	stream->relay = NULL;
	shutdown(fd, SHUT_WR);
	stream->input = loop_add_fd(stream->loop, fd, EPOLLIN, on_late_input, stream);
	loop_timer_arm(stream->timer, stream->input ? LINGER_NS : 0);
}

/* A client's host that is gone without a word is not waited for for ever. */
static void watch_idle(int fd)
{
	const int on = 1, idle = IDLE_S, every = IDLE_EVERY_S, times = 3;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof(every));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof(times));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

struct exec_stream *exec_stream_new(struct loop *loop, struct http_upgraded *conn, int agent_fd, const char *early,
	size_t early_len, loop_fn done, void *ctx)
{
	struct exec_stream *stream = calloc(1, sizeof(*stream));
	cleanup_close int agent = agent_fd, client = fcntl(http_upgraded_fd(conn), F_DUPFD_CLOEXEC, 3);

	if (!stream) {
		http_upgraded_end(conn);
		return NULL;
	}
	*stream = (struct exec_stream){.loop = loop, .conn = conn, .done = done, .ctx = ctx};
	stream->timer = loop_add_timer(loop, on_timer, stream);
	watch_idle(http_upgraded_fd(conn));
	/* An empty socket takes at once what was read with a request's head. */
	if (stream->timer && client >= 0 &&
		(!early_len || send(agent, early, early_len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)early_len))
		stream->relay = relay_new(loop, agent, client, on_relay_end, stream);
	if (!stream->relay) {
		exec_stream_free(stream);
		return NULL;
	}
	agent = client = -1; /* the relay's */
	return stream;
}
