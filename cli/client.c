/* Requests to the API. */
#include "cli/client.h"

#include "cli/client_private.h"
#include "cli/transfer.h"
#include "common/hex.h"
#include "common/io.h"
#include "common/json.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>

/* No answer of the API takes longer, but of those that wait for something. */
#define REQUEST_TIMEOUT_MS 300000L
#define MS_PER_S	   1000
#define RETRY_FOR_MS	   60000
#define TRIES_MAX	   50
#define TRY_AGAIN_NS	   10000000l
#define PAGE_LIMIT	   "500"
#define AGAIN_MS	   250
#define KEY_BYTES	   16

int64_t client_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

int client_next_signal(struct client *client)
{
	struct signalfd_siginfo info;

	if (client->signal_fd < 0 || read(client->signal_fd, &info, sizeof(info)) != sizeof(info))
		return 0;
	return (int)info.ssi_signo;
}

long client_time_left_ms(const struct client *client, long most_ms)
{
	int64_t left_ms = client->deadline_ms - client_now_ms();

	if (!client->timeout_s || left_ms > most_ms)
		return most_ms;
	return left_ms > 0 ? (long)left_ms : 1;
}

void client_while_waiting(struct client *client, void (*fn)(void *ctx), void *ctx)
{
	client->waiting = fn;
	client->waiting_ctx = ctx;
}

void client_drop_timeout(struct client *client)
{
	client->timeout_s = 0;
}

struct client *client_new(const struct args *args, struct failure *fail)
{
	struct client *client = calloc(1, sizeof(*client));

	if (!client) {
		error_set(&fail->error, ENOMEM, "out of memory");
		return NULL;
	}
	client->signal_fd = -1;
	if (args_common_integer(args, "timeout", 1, CLIENT_TIMEOUT_MAX_S, 0, &client->timeout_s, fail) < 0 ||
		context_find(&client->context, args, fail) < 0 || context_check_url(client->context.url, fail) < 0)
		goto failed;
	client->deadline_ms = client_now_ms() + client->timeout_s * MS_PER_S;
	client->multi = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? curl_multi_init() : NULL;
	if (client->multi)
		return client;
	error_set(&fail->error, ENOMEM, "libcurl cannot be started");
failed:
	client_free(client);
	return NULL;
}

void client_free(struct client *client)
{
	if (!client)
		return;
	if (client->multi)
		curl_multi_cleanup(client->multi);
	close_fd(client->signal_fd);
	context_done(&client->context);
	free(client);
}

const struct context *client_context(const struct client *client)
{
	return &client->context;
}

const char *client_url(const struct client *client)
{
	return client->context.url;
}

int client_catch_signals(struct client *client, struct failure *fail)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	client->interruptible = true;
	if (client->signal_fd < 0)
		client->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return client->signal_fd < 0 ? error_set_errno(&fail->error, errno, "cannot catch signals") : 0;
}

void client_ignore_signals(struct client *client)
{
	client->interruptible = false;
}

char *client_escape(const char *text)
{
	char *escaped = curl_easy_escape(NULL, text, 0), *copy = escaped ? strdup(escaped) : NULL;

	if (!copy)
		abort();
	curl_free(escaped);
	return copy;
}

char *client_path(const char *collection, const char *name, const char *suffix)
{
	char *escaped = curl_easy_escape(NULL, name, 0), *path = NULL;

	if (!escaped || asprintf(&path, "/v1/%s/%s%s", collection, escaped, suffix) < 0)
		abort();
	curl_free(escaped);
	return path;
}

/* For an API that is away nobody has to wait who would rather not, whatever there is to be cleaned up. */
static bool pause_for(struct client *client, int pause_ms)
{
	struct pollfd fd = {.fd = client->signal_fd, .events = POLLIN};
	int64_t end_ms = client_now_ms() + client_time_left_ms(client, pause_ms), left_ms;

	while ((left_ms = end_ms - client_now_ms()) > 0) {
		if (poll(&fd, 1, (int)left_ms) > 0 && client_next_signal(client))
			return false;
	}
	return true;
}

bool client_retries(struct client *client, struct retry *retry, int pause_ms, struct failure *fail)
{
	int64_t now_ms = client_now_ms();

	if (!fail->lost) /* an answer, though a refusal */
		return false;
	if (!retry->since_ms)
		retry->since_ms = now_ms;
	if (!retry->worked || now_ms - retry->since_ms > RETRY_FOR_MS)
		return false;
	if (pause_for(client, pause_ms))
		return true;
	error_set(&fail->error, EINTR, "interrupted");
	return false;
}

bool client_tries_again(unsigned *tries, struct failure *fail)
{
	if (strcmp(fail->code, "precondition_failed") != 0 && strcmp(fail->code, "request_in_progress") != 0)
		return false;
	if (++*tries == TRIES_MAX) {
		error_set(&fail->error, EBUSY, "it changes all the time");
		return false;
	}
	/* A machine that starts and ends changes by itself, too. */
	nanosleep(&(struct timespec){.tv_nsec = *tries * TRY_AGAIN_NS}, NULL);
	memset(fail, 0, sizeof(*fail));
	return true;
}

/* ---- requests ---- */

/* A request whose body, if any, is JSON of `type`. */
struct call {
	const char *method, *path, *type;
	const json_t *body;
	const char *if_match; /* NULL: whatever it is */
	char **ret_etag;      /* NULL: nobody asks */
	bool waits;	      /* its answer takes as long as it takes */
	bool keyless;	      /* a POST that changes nothing */
};

static char *read_etag(const struct transfer *t)
{
	struct curl_header *header;
	char *etag = strdup(curl_easy_header(t->easy, "ETag", 0, CURLH_HEADER, -1, &header) == CURLHE_OK ? header->value : "*");

	if (!etag)
		abort();
	return etag;
}

static void add_field(struct transfer *t, const char *name, const char *value)
{
	cleanup_free char *line = NULL;

	if (asprintf(&line, "%s: %s", name, value) < 0)
		abort();
	transfer_add_header(t, line);
}

/* Somebody took the request, or a part of it, and then was not there any more. */
static bool is_broken(CURLcode result)
{
	return result == CURLE_GOT_NOTHING || result == CURLE_RECV_ERROR || result == CURLE_SEND_ERROR || result == CURLE_PARTIAL_FILE;
}

/* `key`: of a POST. `ret_broken`: whether it was done nobody knows. */
static int call_once(struct client *client, const struct call *call, const char *key, json_t **ret, bool *ret_broken, struct failure *fail)
{
	cleanup_free char *text = call->body ? json_dumps(call->body, JSON_COMPACT) : NULL;
	struct transfer t;
	int r;

	if (call->body && !text)
		return error_set(&fail->error, EINVAL, "the request is not UTF-8");
	transfer_init(&t, client, call->method, call->path);
	if (!call->waits)
		curl_easy_setopt(t.easy, CURLOPT_TIMEOUT_MS, client_time_left_ms(client, REQUEST_TIMEOUT_MS));
	if (text || strcmp(call->method, "POST") == 0) {
		transfer_add_header(&t, text ? call->type : "Content-Type:");
		curl_easy_setopt(t.easy, CURLOPT_POSTFIELDSIZE, text ? (long)strlen(text) : 0L);
		curl_easy_setopt(t.easy, CURLOPT_POSTFIELDS, text ? text : "");
	}
	if (strcmp(call->method, "POST") == 0 && !call->keyless)
		add_field(&t, "Idempotency-Key", key);
	if (call->if_match)
		add_field(&t, "If-Match", call->if_match);
	r = transfer_finish(&t, fail);
	*ret_broken = fail->lost && is_broken(t.result);
	if (r == 0 && ret) {
		*ret = t.answer.len ? json_parse(t.answer.data, t.answer.len, &fail->error) : NULL;
		if (t.answer.len && !*ret)
			r = error_prefix(&fail->error, "%s %s: the API's answer is no JSON: ", call->method, call->path);
	}
	if (r == 0 && call->ret_etag)
		*call->ret_etag = read_etag(&t);
	transfer_done(&t);
	return r;
}

static int make_key(char ret[2 * KEY_BYTES + 1], struct failure *fail)
{
	unsigned char bytes[KEY_BYTES];

	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		return error_set_errno(&fail->error, errno, "cannot make a key");
	hex_encode(bytes, sizeof(bytes), ret);
	return 0;
}

/* Asks again, once, where the connection broke in the middle, as when hulld is restarted, as soon as somebody listens again. By its key a POST
 * is done once; the others come to the same when done twice, but for a DELETE, which finds nothing the second time. */
static int call(struct client *client, const struct call *call, json_t **ret, struct failure *fail)
{
	struct retry retry = {0};
	char key[2 * KEY_BYTES + 1];
	bool broken = false, again;
	int r = make_key(key, fail);

	if (r < 0)
		return r;
	do {
		if (retry.worked)
			memset(fail, 0, sizeof(*fail));
		r = call_once(client, call, key, ret, &broken, fail);
		if (r < 0 && retry.worked && strcmp(call->method, "DELETE") == 0 && strcmp(fail->code, "not_found") == 0) {
			memset(fail, 0, sizeof(*fail));
			r = 0;
		}
		if (retry.worked && strcmp(fail->code, "request_in_progress") == 0)
			fail->lost = true; /* the first one's client, who is gone, is being served still */
		again = r < 0 && !call->waits && (broken ? !retry.worked : retry.worked);
		retry.worked |= broken;
	} while (again && client_retries(client, &retry, AGAIN_MS, fail));
	if (r < 0 && fail->error.errnum == EINTR && retry.worked)
		failure_hint(fail, "the API is away; what was asked for may have been done: `hull ps -a`, once it is back");
	else if (r < 0 && broken && !call->waits)
		failure_hint(fail, "it went away twice before its answer; on its host: `journalctl -u hulld`");
	return r < 0 ? -fail->error.errnum : r;
}

int client_call(struct client *client, const char *method, const char *path, const json_t *body, json_t **ret,
	struct failure *fail)
{
	return call(client, &(struct call){.method = method, .path = path, .type = "Content-Type: application/json", .body = body}, ret,
		fail);
}

int client_dry_run(struct client *client, const char *path, const json_t *body, json_t **ret, struct failure *fail)
{
	return call(client,
		&(struct call){.method = "POST", .path = path, .type = "Content-Type: application/json", .body = body, .keyless = true}, ret,
		fail);
}

int client_wait(struct client *client, const char *path, json_t **ret, struct failure *fail)
{
	return call(client, &(struct call){.method = "GET", .path = path, .waits = true}, ret, fail);
}

int client_list(struct client *client, const char *path, const char *query, json_t **ret, struct failure *fail)
{
	json_t *items = json_array(), *page = NULL;
	cleanup_free char *next = NULL;
	int r;

	do {
		cleanup_free char *whole = NULL;

		if (asprintf(&whole, "%s?limit=" PAGE_LIMIT "%s%s%s%s", path, query[0] ? "&" : "", query, next ? "&cursor=" : "",
			    next ? next : "") < 0)
			abort();
		free(next);
		next = NULL;
		r = client_call(client, "GET", whole, NULL, &page, fail);
		if (r == 0) {
			json_array_extend(items, json_object_get(page, "items"));
			if (json_is_string(json_object_get(page, "next")))
				next = client_escape(json_string_value(json_object_get(page, "next")));
		}
		json_decref(page);
		page = NULL;
	} while (r == 0 && next);
	if (r < 0)
		json_decref(items);
	else
		*ret = items;
	return r;
}

int client_get_tagged(struct client *client, const char *path, json_t **ret, char **ret_etag, struct failure *fail)
{
	return call(client, &(struct call){.method = "GET", .path = path, .ret_etag = ret_etag}, ret, fail);
}

int client_patch(struct client *client, const char *path, const char *etag, const json_t *patch, json_t **ret, struct failure *fail)
{
	return call(client,
		&(struct call){.method = "PATCH", .path = path, .type = "Content-Type: application/merge-patch+json",
			.body = patch, .if_match = etag},
		ret, fail);
}

int client_delete(struct client *client, const char *path, const char *etag, struct failure *fail)
{
	return call(client, &(struct call){.method = "DELETE", .path = path, .if_match = etag}, NULL, fail);
}

int client_put(struct client *client, const char *path, const char *etag, const json_t *body, json_t **ret, struct failure *fail)
{
	return call(client,
		&(struct call){.method = "PUT", .path = path, .type = "Content-Type: application/json", .body = body, .if_match = etag}, ret,
		fail);
}

static int on_progress(void *ctx, curl_off_t total, curl_off_t got, curl_off_t up_total, curl_off_t up)
{
	struct transfer *t = ctx;

	(void)total, (void)up_total, (void)up;
	bar_bytes(&t->bar, (uint64_t)got, t->total);
	return 0;
}

int client_download(struct client *client, const char *path, int out, const char *label, struct failure *fail)
{
	struct transfer t;
	int r;

	transfer_init(&t, client, "GET", path);
	transfer_show(&t, label, 0, on_progress);
	t.out = out;
	r = transfer_finish(&t, fail);
	transfer_done(&t);
	return r;
}

int client_stream(struct client *client, const char *path, int out, struct failure *fail)
{
	return client_download(client, path, out, NULL, fail);
}

int client_head(struct client *client, const char *path, struct failure *fail)
{
	struct transfer t;
	long status = 0;
	int r;

	transfer_init(&t, client, "HEAD", path);
	curl_easy_setopt(t.easy, CURLOPT_NOBODY, 1L);
	curl_easy_setopt(t.easy, CURLOPT_TIMEOUT_MS, client_time_left_ms(client, REQUEST_TIMEOUT_MS));
	r = transfer_run(&t);
	curl_easy_getinfo(t.easy, CURLINFO_RESPONSE_CODE, &status);
	if (r < 0)
		r = error_set(&fail->error, EINTR, "interrupted");
	else if (t.result == CURLE_OK && status == 404)
		r = 0;
	else
		r = transfer_outcome(&t, fail) < 0 ? -fail->error.errnum : 1;
	transfer_done(&t);
	return r;
}
