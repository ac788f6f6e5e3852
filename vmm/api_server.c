/* Serving the API.
 *
 * Theory of operation. A connection's requests are answered in order, one at a time: while an answer is not taken, nothing
 * more is read from it. A request is served when all of it has come, on the loop's thread, at once. One that cannot be
 * understood is answered, and ends its connection, since nobody knows where the next begins: what still comes is dropped,
 * so that the client reads the answer instead of an error about its own writing. */
#include "vmm/api_server.h"

#include "common/buf.h"
#include "common/http.h"
#include "common/io.h"
#include "common/log.h"
#include "common/loop.h"
#include "vmm/api.h"
#include "vmm/options.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define CONNECTIONS_MAX 16
#define BACKLOG		64
#define READ_BYTES	16384
#define ANSWER_MAX	(2 * OPTIONS_BODY_BYTES_MAX) /* what was put is read again, and may be written longer */
#define DROPPED_MAX	(8u << 20)
#define CONTINUE	"HTTP/1.1 100 Continue\r\n\r\n"

struct connection {
	struct api_server *server;
	int fd;
	struct loop_source *source;
	struct buf in, out;
	bool continued; /* "100 Continue" was sent for the request that is coming */
	bool ending;	/* no more requests: the answer is sent, what comes is dropped */
	size_t dropped_bytes;
	struct connection *next;
};

struct api_server {
	struct loop *loop;
	const struct api *api;
	char *path;
	size_t body_bytes_max;
	int fd;
	struct loop_source *source;
	struct connection *connections;
	unsigned n_connections;
};

static void connection_end(struct connection *c)
{
	struct connection **link = &c->server->connections;

	while (*link != c)
		link = &(*link)->next;
	*link = c->next;
	c->server->n_connections--;
	loop_remove(c->source);
	close_fd(c->fd);
	buf_done(&c->in);
	buf_done(&c->out);
	free(c);
}

/* Sends what can be sent. False when the client is gone. */
static bool flush(struct connection *c)
{
	if (buf_send(&c->out, c->fd) < 0)
		return false;
	if (c->ending && !c->out.len)
		shutdown(c->fd, SHUT_WR);
	return true;
}

static void refuse(struct connection *c, int status, const struct error *err)
{
	char line[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX + 4];

	log_warn("API: %d: %s", status, error_line(err, line, sizeof(line)));
	if (api_refuse(status, false, err, &c->out) < 0)
		log_error("API: no memory for an answer");
	buf_consume(&c->in, c->in.len);
	c->ending = true;
}

static int status_of(int r)
{
	return r == -EMSGSIZE ? 413 : r == -EOPNOTSUPP ? 501 : 400;
}

/* Serves the request at the front of `in`, if all of it is there. Whether to look for another. */
static bool serve_one(struct connection *c)
{
	struct error err = {0};
	struct http_head head;
	int r = http_parse_head(c->in.data, c->in.len, &head, &err);

	if (r > 0 && head.body_bytes > c->server->body_bytes_max)
		r = error_set(&err, EMSGSIZE, "the request's body has %zu bytes; %zu are taken at most", head.body_bytes,
			c->server->body_bytes_max);
	if (r < 0)
		refuse(c, status_of(r), &err);
	if (r <= 0)
		return false;
	if (c->in.len - head.head_bytes < head.body_bytes) {
		if (head.expects_continue && !c->continued)
			c->continued = buf_append(&c->out, CONTINUE, strlen(CONTINUE)) == 0;
		return false;
	}
	c->continued = false;
	if (api_serve(c->server->api, &head, c->in.data + head.head_bytes, &c->out) < 0) {
		error_set(&err, ENOMEM, "the answer is too long");
		refuse(c, 500, &err);
		return false;
	}
	c->ending = !head.keep_alive;
	buf_consume(&c->in, head.head_bytes + head.body_bytes);
	return !c->ending && c->in.len;
}

/* Goes on as far as the client's input, and its taking of answers, allow. False when the connection is over. */
static bool go_on(struct connection *c)
{
	bool more = c->in.len && !c->ending;

	do {
		if (!c->out.len && more)
			more = serve_one(c);
		if (!flush(c))
			return false;
	} while (more && !c->out.len);
	return loop_set_events(c->source, c->out.len ? EPOLLOUT : EPOLLIN) == 0;
}

/* False at the end of what comes, or of our patience. */
static bool receive(struct connection *c)
{
	ssize_t n = buf_read_fd(&c->in, c->fd, READ_BYTES);

	if (c->ending && n > 0) {
		c->dropped_bytes += (size_t)n;
		buf_consume(&c->in, c->in.len);
		return c->dropped_bytes < DROPPED_MAX;
	}
	return n > 0 || n == -EAGAIN;
}

static void on_ready(void *ctx, uint32_t epoll_events)
{
	struct connection *c = ctx;
	bool alive = true;

	if (!(epoll_events & EPOLLOUT))
		alive = receive(c);
	if (!alive || !go_on(c))
		connection_end(c);
}

/* One too many: it is told so, if it takes that at once. */
static void turn_away(int fd)
{
	struct error err = {0};
	struct buf out;

	error_set(&err, EBUSY, "%d clients are connected already", CONNECTIONS_MAX);
	buf_init(&out, ANSWER_MAX);
	if (api_refuse(503, false, &err, &out) == 0 && send(fd, out.data, out.len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_debug("API: a client was turned away unheard: %s", strerror(errno));
	buf_done(&out);
	close_fd(fd);
}

static void on_client(void *ctx, uint32_t epoll_events)
{
	struct api_server *server = ctx;
	int fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct connection *c;

	(void)epoll_events;
	if (fd < 0)
		return;
	if (server->n_connections == CONNECTIONS_MAX) {
		turn_away(fd);
		return;
	}
	c = calloc(1, sizeof(*c));
	if (c)
		c->source = loop_add_fd(server->loop, fd, EPOLLIN, on_ready, c);
	if (!c || !c->source) {
		free(c);
		close_fd(fd);
		return;
	}
	c->server = server;
	c->fd = fd;
	buf_init(&c->in, HTTP_HEAD_MAX + server->body_bytes_max);
	buf_init(&c->out, ANSWER_MAX);
	c->next = server->connections;
	server->connections = c;
	server->n_connections++;
}

struct api_server *api_server_new(
	struct loop *loop, const char *path, size_t body_bytes_max, const struct api *api, struct error *err)
{
	struct api_server *server = calloc(1, sizeof(*server));

	if (!server) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	server->loop = loop;
	server->api = api;
	server->body_bytes_max = body_bytes_max;
	server->fd = unix_listen(path, BACKLOG, 0600, err);
	if (server->fd < 0) {
		free(server);
		return NULL;
	}
	server->path = strdup(path);
	server->source = loop_add_fd(loop, server->fd, EPOLLIN, on_client, server);
	if (!server->path || !server->source) {
		error_set_errno(err, errno, "%s cannot be served", path);
		api_server_free(server);
		return NULL;
	}
	return server;
}

void api_server_free(struct api_server *server)
{
	if (!server)
		return;
	while (server->connections) {
		flush(server->connections);
		connection_end(server->connections);
	}
	loop_remove(server->source);
	close_fd(server->fd);
	if (server->path)
		unlink(server->path);
	free(server->path);
	free(server);
}
