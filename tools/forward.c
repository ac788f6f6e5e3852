/* Published ports of an emulated host: see forward.h. */
#include "tools/forward.h"

#include "common/buf.h"
#include "common/checked.h"
#include "common/io.h"
#include "common/json.h"
#include "common/log.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define LINE_MAX_BYTES 64    /* the longest request is "remove 127.255.255.255 65535 udp" */
#define QMP_MAX_BYTES  65536 /* of one answer; QEMU's are far shorter */

struct forward {
	struct loop *loop;
	int qmp_fd, inside_fd;
	struct loop_source *qmp_source, *inside_source;
	struct buf qmp, inside; /* what came and was not yet handled */
	bool ready;		/* QMP's capabilities are negotiated */
	bool busy;		/* `request` is with QEMU */
	bool skipping;		/* in the rest of a line that was too long */
	struct forward_request request;
	struct forward_request held[FORWARDS_MAX];
	size_t n_held;
};

static int parse_port(const char *text, unsigned *ret)
{
	unsigned port = 0;

	if (!*text || *text == '0' || strlen(text) > 5)
		return -EINVAL;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		port = port * 10 + (unsigned)(*text - '0');
	}
	if (port > 65535)
		return -EINVAL;
	*ret = port;
	return 0;
}

int forward_parse(const char *line, struct forward_request *ret, const char **reason)
{
	struct forward_request request = {0};
	struct in_addr address;
	const char *space, *behind;
	char port[8] = "";
	size_t len;

	*reason = "expected: add|remove ADDRESS PORT [udp]";
	if (strncmp(line, "add ", 4) == 0)
		request.add = true;
	else if (strncmp(line, "remove ", 7) != 0)
		return -EINVAL;
	line += request.add ? 4 : 7;
	space = strchr(line, ' ');
	len = space ? (size_t)(space - line) : 0;
	if (len == 0 || len >= sizeof(request.address))
		return -EINVAL;
	memcpy(request.address, line, len);
	*reason = "the address is not 0.0.0.0 or in 127.0.0.0/8";
	if (inet_pton(AF_INET, request.address, &address) != 1 ||
		(ntohl(address.s_addr) >> 24 != 127 && address.s_addr != htonl(INADDR_ANY)))
		return -EINVAL;
	*reason = "the port is not a number from 1 to 65535";
	behind = strchr(space + 1, ' ');
	request.udp = behind && strcmp(behind, " udp") == 0;
	snprintf(port, sizeof(port), "%.*s", request.udp ? (int)(behind - space - 1) : 7, space + 1);
	if (parse_port(port, &request.port) < 0)
		return -EINVAL;
	*ret = request;
	return 0;
}

static struct forward_request *find_held(struct forward *f, const struct forward_request *request)
{
	for (size_t i = 0; i < f->n_held; i++)
		if (f->held[i].port == request->port && f->held[i].udp == request->udp && strcmp(f->held[i].address, request->address) == 0)
			return &f->held[i];
	return NULL;
}

static void answer(struct forward *f, const char *text)
{
	char line[256];
	int n = snprintf(line, sizeof(line), "%s\n", text);

	/* An inside that reads no answers loses them; the relay does not wait for it. */
	if (send(f->inside_fd, line, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n)
		log_warn("the inside does not take the answer to a forward: %s", text);
}

static void send_qmp(struct forward *f, json_t *command)
{
	cleanup_free char *text = json_dumps(command, JSON_COMPACT);

	json_decref(command);
	if (!text || send(f->qmp_fd, text, strlen(text), MSG_NOSIGNAL) < 0)
		log_error("cannot write to QEMU's monitor: %s", strerror(errno));
}

static void ask_qemu(struct forward *f, const struct forward_request *request)
{
	const char *protocol = request->udp ? "udp" : "tcp";
	char line[128];

	f->request = *request;
	f->busy = true;
	if (request->add)
		snprintf(line, sizeof(line), "hostfwd_add n0 %s:%s:%u-:%u", protocol, request->address, request->port,
			request->port);
	else
		snprintf(line, sizeof(line), "hostfwd_remove n0 %s:%s:%u", protocol, request->address, request->port);
	send_qmp(f, json_pack("{s:s, s:{s:s}}", "execute", "human-monitor-command", "arguments", "command-line", line));
}

static void handle_line(struct forward *f, const char *line)
{
	struct forward_request request;
	const char *reason;
	char text[128];

	if (forward_parse(line, &request, &reason) < 0) {
		snprintf(text, sizeof(text), "error %s", reason);
		answer(f, text);
	} else if (request.add == (find_held(f, &request) != NULL)) {
		answer(f, "ok"); /* whoever asks again was started anew */
	} else if (request.add && f->n_held == FORWARDS_MAX) {
		answer(f, "error no more ports can be published on this host");
	} else {
		ask_qemu(f, &request);
	}
}

/* Handles the lines that are there, until one has to wait for QEMU. */
static void handle_lines(struct forward *f)
{
	char *newline;

	while (f->ready && !f->busy && f->inside.len && (newline = memchr(f->inside.data, '\n', f->inside.len))) {
		*newline = '\0';
		if (f->skipping)
			answer(f, "error line too long");
		else if (strlen(f->inside.data) != (size_t)(newline - f->inside.data))
			answer(f, "error a byte that is no text");
		else
			handle_line(f, f->inside.data);
		f->skipping = false;
		buf_consume(&f->inside, (size_t)(newline - f->inside.data) + 1);
	}
	if (f->inside.len >= LINE_MAX_BYTES && !memchr(f->inside.data, '\n', f->inside.len)) {
		f->skipping = true;
		buf_consume(&f->inside, f->inside.len);
	}
	/* More is read only when there is room for it: the inside waits meanwhile. */
	if (f->inside_source)
		loop_set_events(f->inside_source, f->inside.len < LINE_MAX_BYTES ? EPOLLIN : 0);
}

/* QEMU's own words say no more than that it failed; trying the address again tells why. */
static void explain_failure(const struct forward_request *request, char *text, size_t size)
{
	cleanup_close int fd = socket(AF_INET, (request->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)request->port)};
	int one = 1;

	inet_pton(AF_INET, request->address, &address.sin_addr);
	if (!request->udp)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && (request->udp || listen(fd, 1) == 0))
		snprintf(text, size, "error %s:%u: QEMU refused to forward it", request->address, request->port);
	else
		snprintf(text, size, "error %s:%u: %s", request->address, request->port, strerror(errno));
}

static void finish_request(struct forward *f, bool succeeded)
{
	struct forward_request *held = find_held(f, &f->request);
	char text[128] = "ok";

	f->busy = false;
	if (f->request.add && succeeded)
		f->held[f->n_held++] = f->request;
	else if (f->request.add)
		explain_failure(&f->request, text, sizeof(text));
	else if (held) /* gone, whatever QEMU said: it knows no such forward then */
		*held = f->held[--f->n_held];
	log_info("%s %s:%u%s: %s", f->request.add ? "publish" : "unpublish", f->request.address, f->request.port,
		f->request.udp ? "/udp" : "", text);
	answer(f, text);
	handle_lines(f);
}

static void handle_qmp(struct forward *f, const char *text, size_t len)
{
	struct error err = {0};
	json_t *message = json_parse(text, len, &err);
	const char *output;

	if (!message) {
		log_error_object(&err, "QEMU's monitor");
	} else if (json_object_get(message, "QMP")) {
		send_qmp(f, json_pack("{s:s}", "execute", "qmp_capabilities"));
	} else if (json_object_get(message, "return") && !f->ready) {
		f->ready = true;
		handle_lines(f);
	} else if (json_object_get(message, "return") && f->busy) {
		output = json_string_value(json_object_get(message, "return"));
		/* Adding says nothing when it worked; removing says that it did. */
		finish_request(f, !output || !*output);
	} else if (json_object_get(message, "error") && f->busy) {
		finish_request(f, false);
	}
	json_decref(message);
}

static void on_qmp(void *ctx, uint32_t events)
{
	struct forward *f = ctx;
	ssize_t got = buf_read_fd(&f->qmp, f->qmp_fd, 4096);
	char *newline;

	(void)events;
	if (got == -EAGAIN)
		return;
	if (got <= 0) { /* QEMU ends; its process is watched elsewhere */
		loop_remove(f->qmp_source);
		f->qmp_source = NULL;
		return;
	}
	while ((newline = memchr(f->qmp.data, '\n', f->qmp.len))) {
		size_t len = (size_t)(newline - f->qmp.data);

		handle_qmp(f, f->qmp.data, len);
		buf_consume(&f->qmp, len + 1);
	}
}

static void on_inside(void *ctx, uint32_t events)
{
	struct forward *f = ctx;
	ssize_t got = buf_read_fd(&f->inside, f->inside_fd, LINE_MAX_BYTES);

	(void)events;
	if (got == -EAGAIN)
		return;
	if (got <= 0) {
		loop_remove(f->inside_source);
		f->inside_source = NULL;
		return;
	}
	handle_lines(f);
}

struct forward *forward_new(struct loop *loop, int qmp_fd, int inside_fd)
{
	struct forward *f = calloc(1, sizeof(*f));

	if (!f) {
		close_fd(qmp_fd);
		close_fd(inside_fd);
		return NULL;
	}
	f->loop = loop;
	f->qmp_fd = qmp_fd;
	f->inside_fd = inside_fd;
	buf_init(&f->qmp, QMP_MAX_BYTES);
	buf_init(&f->inside, 2 * LINE_MAX_BYTES);
	f->qmp_source = loop_add_fd(loop, qmp_fd, EPOLLIN, on_qmp, f);
	f->inside_source = loop_add_fd(loop, inside_fd, EPOLLIN, on_inside, f);
	if (!f->qmp_source || !f->inside_source) {
		forward_free(f);
		return NULL;
	}
	return f;
}

void forward_quit(struct forward *f)
{
	send_qmp(f, json_pack("{s:s}", "execute", "quit"));
}

void forward_free(struct forward *f)
{
	if (!f)
		return;
	loop_remove(f->qmp_source);
	loop_remove(f->inside_source);
	close_fd(f->qmp_fd);
	close_fd(f->inside_fd);
	buf_done(&f->qmp);
	buf_done(&f->inside);
	free(f);
}
