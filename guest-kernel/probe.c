/* One look at whether what the machine is for works: a connection, a GET, or a program. */
#include "guest-kernel/probe.h"

#include "common/order.h"
#include "guest-kernel/dial.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define STATUS_LINE_MAX 13 /* "HTTP/1.1 200 " (RFC 9112, section 4): what of it is looked at */
#define REST_NS		1000000000ull

struct probe {
	struct loop *loop;
	const struct health_check *check;
	struct dial *dial;
	struct errand *errand;
	int fd;
	struct loop_source *source;
	char answer[STATUS_LINE_MAX + 1];
	size_t answer_len;
	probe_fn fn;
	void *ctx;
};

void probe_cancel(struct probe *probe)
{
	if (!probe)
		return;
	dial_cancel(probe->dial);
	errand_cancel(probe->errand);
	loop_remove(probe->source);
	close_fd(probe->fd);
	free(probe);
}

static void finish(struct probe *probe, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void finish(struct probe *probe, const char *fmt, ...)
{
	char reason[ORDER_REASON_MAX + 1];
	probe_fn fn = probe->fn;
	void *ctx = probe->ctx;
	va_list args;

	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);
	for (char *c = reason; *c; c++) /* what was said of a program may have been cut anywhere */
		if (*c < 0x20 || *c > 0x7e)
			*c = '?';
	probe_cancel(probe);
	fn(ctx, reason[0] ? reason : NULL);
}

/* ---- HTTP ---- */

/* What follows the status, which says all. It is read and thrown away: a program whose connection breaks while it still
 * writes says so in its log, at each look. Nobody owns this: it ends by itself, after REST_NS at the latest. */
struct rest {
	int fd;
	struct loop_source *source, *deadline;
};

static void rest_end(void *ctx)
{
	struct rest *rest = ctx;

	loop_remove(rest->source);
	loop_remove(rest->deadline);
	close_fd(rest->fd);
	free(rest);
}

static void on_rest(void *ctx, uint32_t events)
{
	struct rest *rest = ctx;
	char unread[4096];
	ssize_t n = recv(rest->fd, unread, sizeof(unread), 0);

	(void)events;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		rest_end(rest);
}

/* Takes the connection. Without memory it is closed at once. */
static void rest_read(struct loop *loop, int fd)
{
	struct rest *rest = calloc(1, sizeof(*rest));

	if (!rest) {
		close_fd(fd);
		return;
	}
	rest->fd = fd;
	rest->source = loop_add_fd(loop, fd, EPOLLIN, on_rest, rest);
	rest->deadline = loop_add_timer(loop, rest_end, rest);
	if (!rest->source || !rest->deadline) {
		rest_end(rest);
		return;
	}
	loop_timer_arm(rest->deadline, REST_NS);
}

static void judge(struct probe *probe)
{
	const struct health_http *http = probe->check->http;
	int minor, status, end = 0;

	loop_remove(probe->source);
	probe->source = NULL;
	rest_read(probe->loop, probe->fd);
	probe->fd = -1;
	/* A status has three digits, and a space or the line's end after it. */
	if (sscanf(probe->answer, "HTTP/1.%1d %3d%n", &minor, &status, &end) != 2 || end != STATUS_LINE_MAX - 1 ||
		status < 100 || !strchr(" \r\n", probe->answer[end]))
		finish(probe, "port %d answers with what is not HTTP", (int)http->port);
	else if (status < 200 || status > 399)
		finish(probe, "GET %.80s is answered with %d", http->path, status);
	else
		finish(probe, "%s", "");
}

static void on_answer(void *ctx, uint32_t events)
{
	struct probe *probe = ctx;
	ssize_t n = recv(probe->fd, probe->answer + probe->answer_len, STATUS_LINE_MAX - probe->answer_len, 0);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		finish(probe, "port %d answers nothing: %s", (int)probe->check->http->port, n < 0 ? strerror(errno) : "it closes");
		return;
	}
	probe->answer_len += (size_t)n;
	if (probe->answer_len == STATUS_LINE_MAX)
		judge(probe);
}

static void ask(struct probe *probe)
{
	const struct health_http *http = probe->check->http;
	cleanup_free char *request = NULL;
	int len = asprintf(&request,
		"GET %s HTTP/1.1\r\nHost: localhost:%d\r\nUser-Agent: hull-init\r\nAccept: */*\r\nConnection: close\r\n\r\n", http->path,
		(int)http->port);

	/* An empty socket takes that much at once. */
	if (len > 0 && send(probe->fd, request, (size_t)len, MSG_NOSIGNAL) == len)
		probe->source = loop_add_fd(probe->loop, probe->fd, EPOLLIN, on_answer, probe);
	if (!probe->source)
		finish(probe, "port %d takes no request", (int)http->port);
}

static void on_dialled(void *ctx, int r, int fd)
{
	struct probe *probe = ctx;
	const struct health_check *check = probe->check;

	probe->dial = NULL;
	probe->fd = fd;
	if (r < 0)
		finish(probe, "port %d: %s", (int)(check->http ? check->http->port : check->tcp->port), strerror(-r));
	else if (check->http)
		ask(probe);
	else
		finish(probe, "%s", "");
}

/* ---- a program ---- */

static void on_run(void *ctx, const struct error *err, int status, const char *line)
{
	struct probe *probe = ctx;

	probe->errand = NULL;
	if (err)
		finish(probe, "%s", err->message);
	else if (status != 0)
		finish(probe, "exit status %d%s%s", status, line[0] ? ": " : "", line);
	else
		finish(probe, "%s", "");
}

static struct errand *run(struct probe *probe, struct errands *errands, const struct guest_config *config, struct error *err)
{
	const struct process_spec spec = {.argv = probe->check->exec->command.items, .env = config->env,
		.hostname = config->hostname, .user = config->user, .workdir = config->workdir};

	return errand_new(errands, &spec, on_run, probe, err);
}

struct probe *probe_new(struct loop *loop, struct errands *errands, const struct guest_config *config,
	const struct health_check *check, probe_fn fn, void *ctx, struct error *err)
{
	struct probe *probe = calloc(1, sizeof *probe);

	if (!probe) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	*probe = (struct probe){.loop = loop, .check = check, .fd = -1, .fn = fn, .ctx = ctx};
	if (check->exec) {
		probe->errand = run(probe, errands, config, err);
	} else {
		probe->dial = dial_new(loop, (uint16_t)(check->http ? check->http->port : check->tcp->port), on_dialled, probe);
		if (!probe->dial)
			error_set(err, ENOMEM, "out of memory");
	}
	if (probe->errand || probe->dial)
		return probe;
	probe_cancel(probe);
	return NULL;
}
