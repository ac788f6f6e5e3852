/* Connections: who is let in, and how long one may take to ask.
 *
 * Theory of operation. libmicrohttpd stops to accept when it has as many connections as it may: whoever opens that many and says
 * nothing would keep everybody out. So we accept ourselves, and where every place is taken, the one whose client has been awaited for
 * longest makes room. A connection is in one of three states:
 *
 *	waiting    without a request whose head is whole: new, or since its last answer. It has `patience_s` for the next head.
 *	receiving  a body is coming: each BODY_STEP_BYTES of it have `patience_s`; not counted is while we have no room for it.
 *	busy       its request is being served, or its answer sent: no clock of ours runs (libmicrohttpd's does, while it sends).
 *
 * Time that is over, and a place that is needed, end a connection by shutdown(): libmicrohttpd finds its end, and tells.
 * The first two states are lists, the earliest deadline first, as each is entered with the same time to go.
 *
 * Requests of a project may not take all places either: it may have so many as are free (http_has_place()). One project alone gets
 * half of them, two a third each, and there is always a place for another. Nor may what they hold, bodies that come and answers that go, take all
 * memory: HELD_MAX. */
#include "api/http_request.h"

#include "common/io.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define CONNECTIONS_MAX	  2000		/* of each listener; fewer where there are few descriptors: */
#define FDS_OF_CONNECTION 4		/* of two listeners, with a file or a machine's socket each */
/* Bytes of buffer each: headers, and one piece of a body. libmicrohttpd clears, and so touches, half of it, which a connection that follows
 * keeps: 1,000 followers have 16 MiB. */
#define CONNECTION_MEMORY (32u << 10)
#define BODY_STEP_BYTES	  (64u << 10)
#define HELD_MAX	  (64u << 20) /* bytes of bodies and answers of one project, whose clients need not read them soon */
#define ACCEPTED_AT_ONCE  64
#define PARKED_NS	  100000000ull /* until it is tried again to accept, where nothing could be done for a place */
#define NS_PER_S	  1000000000ull

/* ---- a connection's state ---- */

static struct connection *connection_of(const struct request *req)
{
	return MHD_get_connection_info(req->connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static void leave(struct connection *conn)
{
	if (conn->list)
		TAILQ_REMOVE(conn->list, conn, link);
	conn->list = NULL;
}

static void enter(struct connection *conn, struct connections *list)
{
	struct listener *listener = conn->listener;
	uint64_t patience_ns = listener->http->patience_s * NS_PER_S;

	leave(conn);
	if (listener->http->ending)
		return;
	conn->deadline_ns = monotonic_ns() + patience_ns;
	conn->list = list;
	TAILQ_INSERT_TAIL(list, conn, link);
	if (!listener->sweeping)
		loop_timer_arm(listener->sweep, patience_ns);
	listener->sweeping = true;
}

static void cut_off(struct connection *conn)
{
	leave(conn);
	shutdown(conn->fd, SHUT_RDWR);
}

void http_connection_receives(struct request *req, size_t len)
{
	struct connection *conn = connection_of(req);

	conn->received += len;
	if (conn->list == &conn->listener->receiving && conn->received < BODY_STEP_BYTES)
		return;
	conn->received = 0;
	enter(conn, &conn->listener->receiving);
}

void http_connection_is_busy(struct request *req)
{
	struct connection *conn = connection_of(req);

	leave(conn);
	conn->received = 0;
}

void http_connection_waits(struct MHD_Connection *connection)
{
	struct connection *conn = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;

	if (conn)
		enter(conn, &conn->listener->waiting);
}

static void on_connection(void *ctx, struct MHD_Connection *connection, void **socket_context, enum MHD_ConnectionNotificationCode code)
{
	struct connection *conn = *socket_context;
	struct listener *listener = ctx;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		conn = calloc(1, sizeof(*conn));
		if (!conn)
			abort();
		conn->listener = listener;
		conn->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
		*socket_context = conn;
		listener->n_connections++;
		enter(conn, &listener->waiting);
		return;
	}
	listener->n_connections--;
	leave(conn);
	free(conn);
	*socket_context = NULL;
}

static void expire(struct connections *list, uint64_t now)
{
	struct connection *conn;

	while ((conn = TAILQ_FIRST(list)) && conn->deadline_ns <= now)
		cut_off(conn);
}

static uint64_t first_deadline(const struct connections *list)
{
	const struct connection *conn = TAILQ_FIRST(list);

	return conn ? conn->deadline_ns : UINT64_MAX;
}

static void on_sweep(void *ctx)
{
	struct listener *listener = ctx;
	uint64_t now = monotonic_ns(), next, other;

	loop_set_events(listener->accepting, EPOLLIN);
	expire(&listener->waiting, now);
	expire(&listener->receiving, now);
	next = first_deadline(&listener->waiting);
	other = first_deadline(&listener->receiving);
	next = next < other ? next : other;
	listener->sweeping = next != UINT64_MAX;
	loop_timer_arm(listener->sweep, listener->sweeping ? next - now : UINT64_MAX);
}

/* ---- places ---- */

static bool is_of_project(const struct request *other, const struct request *req)
{
	return !other->client.is_host && strcmp(other->client.project, req->client.project) == 0;
}

/* What its project's other requests hold, or may come to: what has been refused keeps nothing of its body. */
static size_t held_by_others(const struct request *req)
{
	size_t n = 0;

	for (const struct request *other = req->http->requests; other; other = other->next)
		if (other != req && other->status < 400 && is_of_project(other, req))
			n += other->answer_bytes + (other->handled ? other->body.len : other->body_max);
	return n;
}

bool http_has_room(const struct request *req, size_t answer_bytes)
{
	size_t held = req->client.is_host ? 0 : held_by_others(req);

	return held == 0 || held + answer_bytes <= HELD_MAX;
}

bool request_keeps(struct request *req, size_t bytes)
{
	if (!http_has_room(req, bytes))
		return false;
	req->answer_bytes = bytes;
	return true;
}

bool http_has_place(const struct request *req)
{
	size_t own = 0, all = 0, max = req->http->connections_max;

	if (req->client.is_host)
		return true;
	for (const struct request *other = req->http->requests; other; other = other->next) {
		/* What has been refused has no place to keep, however long its body still is. */
		if (other == req || other->listener != req->listener || other->status >= 400)
			continue;
		all++;
		own += is_of_project(other, req);
	}
	return all + own < max && held_by_others(req) + req->body_max <= HELD_MAX;
}

/* ---- accepting ---- */

static void run_daemon(struct listener *listener)
{
	MHD_UNSIGNED_LONG_LONG timeout_ms;

	MHD_run(listener->daemon);
	loop_timer_arm(listener->timer, MHD_get_timeout(listener->daemon, &timeout_ms) == MHD_YES
						? (uint64_t)timeout_ms * 1000000
						: UINT64_MAX);
}

/* False: every place has a request that is served. */
static bool make_room(struct listener *listener)
{
	bool body = first_deadline(&listener->receiving) < first_deadline(&listener->waiting);
	struct connection *longest = TAILQ_FIRST(body ? &listener->receiving : &listener->waiting);

	if (longest)
		cut_off(longest);
	return longest;
}

/* Whoever comes waits in the queue of the socket until then. */
static void park(struct listener *listener)
{
	loop_set_events(listener->accepting, 0);
	loop_timer_arm(listener->sweep, PARKED_NS);
	listener->sweeping = true;
}

/* False: there is nobody more, or no place. */
static bool accept_one(struct listener *listener)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	int fd;

	if (listener->n_connections >= listener->http->connections_max && !make_room(listener)) {
		park(listener);
		return false;
	}
	fd = accept4(listener->fd, (struct sockaddr *)&address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
		make_room(listener);
		park(listener);
	}
	if (fd < 0)
		return errno == ECONNABORTED || errno == EINTR;
	if (MHD_add_connection(listener->daemon, fd, (struct sockaddr *)&address, len) != MHD_YES)
		log_debug("http: a connection is not taken: %s", strerror(errno)); /* and is closed */
	return true;
}

static void on_client(void *ctx, uint32_t events)
{
	struct listener *listener = ctx;
	int n = 0;

	(void)events;
	while (n < ACCEPTED_AT_ONCE && accept_one(listener))
		n++;
	run_daemon(listener); /* what was cut off goes */
}

/* ---- libmicrohttpd as a source of the loop ---- */

static void on_daemon_events(void *ctx, uint32_t events)
{
	(void)events;
	run_daemon(ctx);
}

static void on_daemon_timer(void *ctx)
{
	run_daemon(ctx);
}

/* A %00 must not end what it stands in: as a byte that no text has, it fits nothing. */
static size_t unescape(void *ctx, struct MHD_Connection *connection, char *text)
{
	size_t len = MHD_http_unescape(text);

	(void)ctx;
	(void)connection;
	for (size_t i = 0; i < len; i++)
		if (!text[i])
			text[i] = '\xff';
	return len;
}

void http_set_patience(struct http *http, unsigned seconds)
{
	struct rlimit files;

	http->patience_s = seconds;
	http->connections_max = CONNECTIONS_MAX;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur / FDS_OF_CONNECTION < CONNECTIONS_MAX)
		http->connections_max = files.rlim_cur / FDS_OF_CONNECTION;
}

int http_serve(struct http *http, int listen_fd, const char *token, struct error *err)
{
	struct listener *listener = &http->listeners[http->n_listeners];
	const union MHD_DaemonInfo *info;

	assert(http->n_listeners < LISTENERS_MAX);
	listener->http = http;
	listener->token = token;
	listener->fd = listen_fd;
	TAILQ_INIT(&listener->waiting);
	TAILQ_INIT(&listener->receiving);
	/* No MHD_USE_ERROR_LOG: of a Unix socket that it has not accepted itself it finds out with each send, and says in three lines, that it is no
	 * TCP. */
	/* Those that were cut off are among its connections until it has found that out. */
	listener->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE | MHD_USE_NO_LISTEN_SOCKET, 0,
		NULL, NULL, http_on_access, listener, MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL,
		MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection, listener,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned)http->connections_max + 2 * ACCEPTED_AT_ONCE, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t)CONNECTION_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT, http->patience_s, MHD_OPTION_END);
	if (!listener->daemon) {
		close_fd(listen_fd);
		return error_set(err, EIO, "libmicrohttpd does not start");
	}
	http->n_listeners++;
	info = MHD_get_daemon_info(listener->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	listener->events = loop_add_fd(http->loop, info->epoll_fd, EPOLLIN, on_daemon_events, listener);
	listener->accepting = loop_add_fd(http->loop, listen_fd, EPOLLIN, on_client, listener);
	listener->timer = loop_add_timer(http->loop, on_daemon_timer, listener);
	listener->sweep = loop_add_timer(http->loop, on_sweep, listener);
	if (!listener->events || !listener->accepting || !listener->timer || !listener->sweep)
		return error_set_errno(err, errno, "cannot watch the HTTP server");
	return 0;
}

void http_stop_listening(struct listener *listener)
{
	loop_remove(listener->accepting);
	close_fd(listener->fd);
	MHD_run(listener->daemon);
	loop_remove(listener->events);
	loop_remove(listener->timer);
	loop_remove(listener->sweep);
	MHD_stop_daemon(listener->daemon);
}
