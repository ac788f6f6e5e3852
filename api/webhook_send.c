#include "api/webhook_send.h"

#include "common/cleanup.h"
#include "common/log.h"

#include <arpa/inet.h>
#include <assert.h>
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ANSWER_MAX	65536 /* bytes of an answer's head, and of its body, that are read, and thrown away */
#define CONNECTIONS_MAX 64    /* that are kept for the next */

const char *const sent_names[N_SENT] = {
	[SENT_DELIVERED] = "delivered", [SENT_TURNED_DOWN] = "turned_down", [SENT_UNANSWERED] = "unanswered", [SENT_FORBIDDEN] = "forbidden"};

struct sender {
	struct loop *loop;
	CURLM *multi;
	struct loop_source *timer;
	const struct address_ranges *allow;
	int64_t timeout_ms;
	void (*on_left)(void *ctx);
	void *ctx;
	uint64_t counts[N_SENT];
	struct sending *first; /* of those under way, and those that were left */
};

struct sending {
	struct sender *sender;
	CURL *easy;
	struct curl_slist *headers;
	char project[NAME_MAX_BYTES + 1], *body;
	bool is_plain;	    /* http, not https */
	bool is_looked_up;  /* what its name stands for, by a thread */
	char forbidden[INET6_ADDRSTRLEN]; /* the last address that was not connected to */
	size_t head_bytes, body_bytes;
	char error[CURL_ERROR_SIZE];
	uint64_t begun_ns;
	sent_fn fn; /* NULL: it was left */
	void *ctx;
	struct sending *next, **prev;
};

/* A socket of libcurl's, as a source of the loop. */
struct watch {
	struct sender *sender;
	struct loop_source *source;
	int fd;
};

/* ---- where to ---- */

static bool is_allowed(const struct address_ranges *allow, bool is_plain, const struct sockaddr *address)
{
	if (address_ranges_have(allow, address))
		return true;
	return !is_plain && address_is_public(address) && !address_is_own(address);
}

static void address_text(const struct sockaddr *address, char ret[INET6_ADDRSTRLEN])
{
	const void *bytes = address->sa_family == AF_INET6 ? (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr
							   : (const void *)&((const struct sockaddr_in *)address)->sin_addr;

	if (!inet_ntop(address->sa_family, bytes, ret, INET6_ADDRSTRLEN))
		strcpy(ret, "?");
}

static int on_look_up(void *resolver_state, void *reserved, void *ctx)
{
	struct sending *sending = ctx;

	(void)resolver_state;
	(void)reserved;
	sending->is_looked_up = true;
	return 0;
}

/* In the place of socket(): what is returned is connected to that address, and to no other. */
static curl_socket_t open_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *address)
{
	struct sending *sending = ctx;

	(void)purpose;
	sending->is_looked_up = false;
	if (!sending->fn)
		return CURL_SOCKET_BAD;
	if (!is_allowed(sending->sender->allow, sending->is_plain, &address->addr)) {
		address_text(&address->addr, sending->forbidden);
		return CURL_SOCKET_BAD;
	}
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* A host that is an address, in whatever way it is written: libcurl has made it the usual one. */
static int check_host(const char *host, bool is_plain, const struct address_ranges *allow, struct error *err)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	char bare[INET6_ADDRSTRLEN] = "";
	const struct sockaddr *address = NULL;

	if (host[0] == '[')
		snprintf(bare, sizeof(bare), "%.*s", (int)strcspn(host + 1, "]"), host + 1);
	if (inet_pton(AF_INET, host, &v4.sin_addr) == 1)
		address = (struct sockaddr *)&v4;
	else if (inet_pton(AF_INET6, bare, &v6.sin6_addr) == 1)
		address = (struct sockaddr *)&v6;
	if (address && !is_allowed(allow, is_plain, address))
		return error_set(err, EINVAL, "%s is no address that webhooks may be sent to", host);
	return 0;
}

static int check_parts(CURLU *parts, const struct address_ranges *allow, struct error *err)
{
	char *scheme = NULL, *host = NULL, *other = NULL;
	int r = 0;

	if (curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK || curl_url_get(parts, CURLUPART_HOST, &host, 0) != CURLUE_OK)
		r = error_set(err, EINVAL, "is no URL");
	else if (curl_url_get(parts, CURLUPART_USER, &other, 0) == CURLUE_OK || curl_url_get(parts, CURLUPART_PASSWORD, &other, 0) == CURLUE_OK ||
		 curl_url_get(parts, CURLUPART_FRAGMENT, &other, 0) == CURLUE_OK)
		r = error_set(err, EINVAL, "must have no user, password or fragment");
	else if (strcmp(scheme, "http") == 0 && !allow->len)
		r = error_set(err, EINVAL, "must begin with https://; http is for addresses that this host's administrator has allowed (hulld --webhook-allow)");
	else
		r = check_host(host, strcmp(scheme, "http") == 0, allow, err);
	curl_free(scheme);
	curl_free(host);
	curl_free(other);
	return r;
}

int webhook_url_check(const char *url, struct error *err)
{
	if (strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0)
		return error_set(err, EINVAL, "must begin with https://");
	for (const char *c = url; *c; c++)
		if (*c <= ' ' || *c > '~')
			return error_set(err, EINVAL, "must be printable ASCII, without blanks");
	return 0;
}

int sender_check_url(const char *url, const struct address_ranges *allow, struct error *err)
{
	CURLU *parts = curl_url();
	int r;

	if (!parts)
		abort();
	if (curl_url_set(parts, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
		r = error_set(err, EINVAL, "is no URL");
	else
		r = check_parts(parts, allow, err);
	curl_url_cleanup(parts);
	return r;
}

/* ---- one that is under way ---- */

static size_t take_head(char *data, size_t size, size_t n, void *ctx)
{
	struct sending *sending = ctx;

	(void)data;
	sending->head_bytes += size * n;
	return sending->head_bytes > ANSWER_MAX ? 0 : size * n;
}

static size_t take_body(char *data, size_t size, size_t n, void *ctx)
{
	struct sending *sending = ctx;

	(void)data;
	sending->body_bytes += size * n;
	return sending->body_bytes > ANSWER_MAX ? 0 : size * n;
}

static void add_header(struct sending *sending, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add_header(struct sending *sending, const char *fmt, ...)
{
	struct curl_slist *longer;
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	longer = curl_slist_append(sending->headers, text);
	if (!longer)
		abort();
	sending->headers = longer;
}

static void set_up(struct sending *sending, const struct outgoing *out)
{
	const char *authorities = getenv("SSL_CERT_FILE");
	CURL *easy = sending->easy;

	add_header(sending, "Content-Type: application/json");
	add_header(sending, "Expect:");
	add_header(sending, "webhook-id: %s", out->id);
	add_header(sending, "webhook-timestamp: %" PRId64, out->at_s);
	add_header(sending, "webhook-signature: %s", out->signature);
	curl_easy_setopt(easy, CURLOPT_URL, out->url);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* a look-up that goes on is not waited for: its thread ends by itself */
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)sending->sender->timeout_ms);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "hulld/" HULL_VERSION);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, sending->headers);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, sending->body);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_head);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, sending);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, sending);
	curl_easy_setopt(easy, CURLOPT_RESOLVER_START_FUNCTION, on_look_up);
	curl_easy_setopt(easy, CURLOPT_RESOLVER_START_DATA, sending);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
	curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, sending);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, sending->error);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, sending);
	/* Debian's folder of authorities has those of its file, and with a folder libcurl reads the file, for 20 ms, with each connection. */
	curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	if (authorities)
		curl_easy_setopt(easy, CURLOPT_CAINFO, authorities);
}

struct sending *sender_send(struct sender *sender, const struct outgoing *out, sent_fn fn, void *ctx)
{
	struct sending *sending = calloc(1, sizeof(*sending));

	if (!sending)
		abort();
	*sending = (struct sending){.sender = sender, .easy = curl_easy_init(), .body = strdup(out->body),
		.is_plain = strncasecmp(out->url, "http:", 5) == 0, .begun_ns = monotonic_ns(), .fn = fn, .ctx = ctx,
		.next = sender->first, .prev = &sender->first};
	if (!sending->easy || !sending->body)
		abort();
	snprintf(sending->project, sizeof(sending->project), "%s", out->project);
	set_up(sending, out);
	if (curl_multi_add_handle(sender->multi, sending->easy) != CURLM_OK)
		abort(); /* only for want of memory */
	if (sending->next)
		sending->next->prev = &sending->next;
	sender->first = sending;
	return sending;
}

static void sending_free(struct sending *sending)
{
	*sending->prev = sending->next;
	if (sending->next)
		sending->next->prev = sending->prev;
	curl_multi_remove_handle(sending->sender->multi, sending->easy);
	curl_easy_cleanup(sending->easy);
	curl_slist_free_all(sending->headers);
	free(sending->body);
	free(sending);
}

void sending_cancel(struct sending *sending)
{
	if (sending && sending->is_looked_up)
		sending->fn = NULL;
	else if (sending)
		sending_free(sending);
}

size_t sender_left(const struct sender *sender, const char *project)
{
	size_t n = 0;

	for (const struct sending *sending = sender->first; sending; sending = sending->next)
		n += !sending->fn && strcmp(sending->project, project) == 0;
	return n;
}

static void describe(struct sending *sending, CURLcode code, struct sent_result *ret)
{
	const char *why = sending->error[0] ? sending->error : curl_easy_strerror(code);
	curl_off_t retry_after = 0;
	long status = 0;

	*ret = (struct sent_result){.what = SENT_UNANSWERED, .took_ms = (int64_t)((monotonic_ns() - sending->begun_ns) / 1000000)};
	curl_easy_getinfo(sending->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(sending->easy, CURLINFO_RETRY_AFTER, &retry_after);
	ret->status = status >= 200 && status < 1000 ? (int)status : 0;
	ret->retry_after_s = retry_after;
	if (sending->body_bytes > ANSWER_MAX || (code == CURLE_OK && ret->status)) {
		ret->what = ret->status < 300 ? SENT_DELIVERED : SENT_TURNED_DOWN;
		if (ret->what == SENT_TURNED_DOWN)
			snprintf(ret->error, sizeof(ret->error), "answered with status %d", ret->status);
		return;
	}
	ret->status = 0;
	if (sending->head_bytes > ANSWER_MAX)
		why = "the head of the answer is too long";
	if (sending->forbidden[0] && code == CURLE_COULDNT_CONNECT) {
		ret->what = SENT_FORBIDDEN;
		snprintf(ret->error, sizeof(ret->error), "%s is no address that webhooks may be sent to%s", sending->forbidden,
			sending->is_plain ? " by http" : "");
		return;
	}
	snprintf(ret->error, sizeof(ret->error), "%.*s", SENT_ERROR_MAX - 1, why);
	for (char *c = ret->error; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
}

static void take_done(struct sender *sender)
{
	struct sent_result result;
	struct sending *sending;
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(sender->multi, &left))) {
		sent_fn fn;
		void *ctx;

		if (message->msg != CURLMSG_DONE || curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &sending) != CURLE_OK)
			continue;
		fn = sending->fn;
		ctx = sending->ctx;
		if (fn) {
			describe(sending, message->data.result, &result);
			sender->counts[result.what]++;
		}
		sending_free(sending);
		if (fn)
			fn(ctx, &result);
		else
			sender->on_left(sender->ctx);
	}
}

/* ---- libcurl as sources of the loop ---- */

static void act(struct sender *sender, curl_socket_t fd, int events)
{
	int running;

	curl_multi_socket_action(sender->multi, fd, events, &running);
	take_done(sender);
}

static void on_socket(void *ctx, uint32_t events)
{
	const struct watch *watch = ctx;

	act(watch->sender, watch->fd,
		(events & EPOLLIN ? CURL_CSELECT_IN : 0) | (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
			(events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0));
}

static void on_timer(void *ctx)
{
	act(ctx, CURL_SOCKET_TIMEOUT, 0);
}

static int set_timer(CURLM *multi, long timeout_ms, void *ctx)
{
	struct sender *sender = ctx;

	(void)multi;
	loop_timer_arm(sender->timer, timeout_ms < 0 ? UINT64_MAX : (uint64_t)timeout_ms * 1000000);
	return 0;
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *slot)
{
	uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	struct sender *sender = ctx;
	struct watch *watch = slot;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		curl_multi_assign(sender->multi, fd, NULL);
		if (watch)
			loop_remove(watch->source);
		free(watch);
		return 0;
	}
	if (watch)
		return loop_set_events(watch->source, events) < 0 ? -1 : 0;
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		abort();
	*watch = (struct watch){sender, NULL, fd};
	watch->source = loop_add_fd(sender->loop, fd, events, on_socket, watch);
	if (!watch->source) {
		free(watch);
		return -1;
	}
	curl_multi_assign(sender->multi, fd, watch);
	return 0;
}

struct sender *sender_new(struct loop *loop, const struct address_ranges *allow, int64_t timeout_ms, void (*on_left)(void *ctx), void *ctx,
	struct error *err)
{
	struct sender *sender = calloc(1, sizeof(*sender));

	if (!sender)
		abort();
	*sender = (struct sender){.loop = loop, .allow = allow, .timeout_ms = timeout_ms, .on_left = on_left, .ctx = ctx};
	if (curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK)
		sender->multi = curl_multi_init();
	sender->timer = loop_add_timer(loop, on_timer, sender);
	if (!sender->multi || !sender->timer) {
		error_set(err, ENOMEM, "libcurl does not start");
		sender_free(sender);
		return NULL;
	}
	/* A name that is looked up on the loop would hold it up. */
	if (!(curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_ASYNCHDNS)) {
		error_set(err, ENOTSUP, "this libcurl looks up names without threads");
		sender_free(sender);
		return NULL;
	}
	curl_multi_setopt(sender->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	curl_multi_setopt(sender->multi, CURLMOPT_SOCKETDATA, sender);
	curl_multi_setopt(sender->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(sender->multi, CURLMOPT_TIMERDATA, sender);
	curl_multi_setopt(sender->multi, CURLMOPT_MAXCONNECTS, (long)CONNECTIONS_MAX);
	return sender;
}

void sender_free(struct sender *sender)
{
	if (!sender)
		return;
	while (sender->first) {
		assert(!sender->first->fn);
		sending_free(sender->first);
	}
	curl_multi_cleanup(sender->multi);
	loop_remove(sender->timer);
	curl_global_cleanup();
	free(sender);
}

const uint64_t *sender_counts(const struct sender *sender)
{
	return sender->counts;
}
