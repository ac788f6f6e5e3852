/* A connection to the API that speaks another protocol after one request. libcurl connects, and encrypts
 * where it has to; the request and the head of its answer are ours (RFC 9112). */
#include "cli/upgrade.h"

#include "cli/transfer.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <strings.h>

#define HEAD_MAX    16384
#define ANSWER_MAX  (1u << 20) /* of a refusal */
#define ANSWER_MS   120000     /* the API answers sooner */

struct upgrade {
	struct transfer transfer;
	int fd;
};

void upgrade_close(struct upgrade *upgrade)
{
	if (!upgrade)
		return;
	transfer_done(&upgrade->transfer);
	free(upgrade);
}

int upgrade_fd(const struct upgrade *upgrade)
{
	return upgrade->fd;
}

static ssize_t outcome(CURLcode code, size_t n)
{
	if (code == CURLE_AGAIN)
		return -EAGAIN;
	return code != CURLE_OK || n == 0 ? -ECONNRESET : (ssize_t)n;
}

ssize_t upgrade_receive(struct upgrade *upgrade, void *data, size_t len)
{
	size_t n = 0;
	CURLcode code = curl_easy_recv(upgrade->transfer.easy, data, len, &n);

	return outcome(code, n);
}

ssize_t upgrade_send(struct upgrade *upgrade, const void *data, size_t len)
{
	size_t n = 0;
	CURLcode code = curl_easy_send(upgrade->transfer.easy, data, len, &n);

	return outcome(code, n);
}

/* Waits for the socket. False when the time is over. */
static bool wait_for(const struct upgrade *upgrade, short events)
{
	struct pollfd fd = {.fd = upgrade->fd, .events = events};
	int r;

	do
		r = poll(&fd, 1, (int)client_time_left_ms(upgrade->transfer.client, ANSWER_MS));
	while (r < 0 && errno == EINTR);
	return r > 0;
}

static int send_all(struct upgrade *upgrade, const char *data, size_t len)
{
	while (len) {
		ssize_t n = upgrade_send(upgrade, data, len);

		if (n == -EAGAIN && !wait_for(upgrade, POLLOUT))
			return -ETIMEDOUT;
		if (n < 0 && n != -EAGAIN)
			return (int)n;
		data += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* Where the API is: "host:port" and what stands before each path. */
static void split_url(const char *url, char *host, size_t size, const char **ret_prefix, size_t *ret_len)
{
	const char *authority = strstr(url, "://");
	size_t len;

	*ret_prefix = "";
	*ret_len = 0;
	snprintf(host, size, "localhost");
	if (strncmp(url, "unix://", 7) == 0 || !authority)
		return;
	authority += 3;
	len = strcspn(authority, "/");
	snprintf(host, size, "%.*s", (int)len, authority);
	*ret_prefix = authority + len;
	*ret_len = strlen(*ret_prefix);
	if (*ret_len && (*ret_prefix)[*ret_len - 1] == '/')
		--*ret_len;
}

static int send_request(struct upgrade *upgrade, const char *path, const char *protocol, const char *body)
{
	const struct context *context = client_context(upgrade->transfer.client);
	const char *prefix, *token = context->token;
	char host[300];
	const char *project = context->project;
	struct buf head;
	size_t prefix_len;
	int r;

	split_url(context->url, host, sizeof(host), &prefix, &prefix_len);
	buf_init(&head, HEAD_MAX);
	r = buf_printf(&head,
		"POST %.*s%s HTTP/1.1\r\nHost: %s\r\n%s%s%s%s%s%sContent-Type: application/json\r\nContent-Length: %zu\r\n"
		"Connection: Upgrade\r\nUpgrade: %s\r\n\r\n",
		(int)prefix_len, prefix, path, host, token ? "Authorization: Bearer " : "", token ? token : "",
		token ? "\r\n" : "", project ? "Hull-Project: " : "", project ? project : "", project ? "\r\n" : "", strlen(body), protocol);
	if (r == 0)
		r = send_all(upgrade, head.data, head.len);
	buf_done(&head);
	return r == 0 ? send_all(upgrade, body, strlen(body)) : r;
}

/* Up to the empty line and not a byte further: what follows belongs to the other protocol. */
static int read_head(struct upgrade *upgrade, char head[HEAD_MAX])
{
	size_t len = 0;

	while (len < 4 || memcmp(head + len - 4, "\r\n\r\n", 4) != 0) {
		ssize_t n = len + 1 < HEAD_MAX ? upgrade_receive(upgrade, head + len, 1) : -EPROTO;

		if (n == -EAGAIN && !wait_for(upgrade, POLLIN))
			return -ETIMEDOUT;
		if (n < 0 && n != -EAGAIN)
			return (int)n;
		len += n > 0 ? 1 : 0;
	}
	head[len] = '\0';
	return 0;
}

/* The body of a refusal; what there is of it. */
static void read_body(struct upgrade *upgrade, const char *head)
{
	struct buf *answer = &upgrade->transfer.answer;
	const char *field = strcasestr(head, "\r\nContent-Length:");
	size_t left = field ? strtoul(field + strlen("\r\nContent-Length:"), NULL, 10) : 0;
	ssize_t n = 1;

	if (left > ANSWER_MAX || buf_reserve(answer, left) < 0)
		return;
	while (left && (n > 0 || (n == -EAGAIN && wait_for(upgrade, POLLIN)))) {
		n = upgrade_receive(upgrade, answer->data + answer->len, left);
		if (n > 0) {
			answer->len += (size_t)n;
			left -= (size_t)n;
		}
	}
}

static int switch_protocols(
	struct upgrade *upgrade, const char *path, const char *protocol, const char *body, struct failure *fail)
{
	char head[HEAD_MAX];
	long status = 0;
	int r = send_request(upgrade, path, protocol, body);

	if (r == 0)
		r = read_head(upgrade, head);
	if (r == 0 && (strncmp(head, "HTTP/1.1 ", 9) != 0 || (status = strtol(head + 9, NULL, 10)) < 101))
		r = -EPROTO;
	if (r == -ETIMEDOUT) {
		upgrade->transfer.result = CURLE_OPERATION_TIMEDOUT;
		return transfer_refuse_connection(&upgrade->transfer, fail);
	}
	if (r < 0)
		return error_set_errno(&fail->error, -r, "%s", client_url(upgrade->transfer.client));
	if (status == 101)
		return 0;
	if (status < 300)
		return error_set(&fail->error, EPROTO, "the API does not speak %s", protocol);
	read_body(upgrade, head);
	return transfer_refuse_status(&upgrade->transfer, status, fail);
}

struct upgrade *upgrade_open(
	struct client *client, const char *path, const char *protocol, const json_t *body, struct failure *fail)
{
	struct upgrade *upgrade = calloc(1, sizeof(*upgrade));
	cleanup_free char *text = json_dumps(body, JSON_COMPACT);
	struct transfer *t;
	curl_socket_t fd;
	int r;

	if (!upgrade || !text)
		abort();
	t = &upgrade->transfer;
	transfer_init(t, client, "POST", path);
	curl_easy_setopt(t->easy, CURLOPT_CONNECT_ONLY, 1L);
	curl_easy_setopt(t->easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	t->result = curl_easy_perform(t->easy);
	if (t->result == CURLE_OK)
		t->result = curl_easy_getinfo(t->easy, CURLINFO_ACTIVESOCKET, &fd);
	if (t->result == CURLE_OK) {
		upgrade->fd = fd;
		t->connected = true;
		r = switch_protocols(upgrade, path, protocol, text, fail);
	} else {
		r = transfer_refuse_connection(t, fail);
	}
	if (r == 0)
		return upgrade;
	upgrade_close(upgrade);
	return NULL;
}
