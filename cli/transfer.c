/* One HTTP transfer, and what went wrong with it. See transfer.h. */
#include "cli/transfer.h"

#include "cli/client_private.h"
#include "common/io.h"
#include "common/json.h"

#include <string.h>

#define ANSWER_MAX	  (64u << 20)
#define CONNECT_TIMEOUT_S 5L
#define KEEPALIVE_S	  20L
#define POLL_MS		  1000

static size_t on_data(char *data, size_t size, size_t n, void *ctx)
{
	struct transfer *t = ctx;
	long status = 0;

	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	t->heard_ms = client_now_ms();
	if (t->sink && status >= 200 && status <= 299)
		return t->sink(t->sink_ctx, data, size * n) < 0 ? 0 : size * n;
	if (t->out < 0 || status < 200 || status > 299)
		return buf_append(&t->answer, data, size * n) < 0 ? 0 : size * n;
	t->out_error = write_full(t->out, data, size * n);
	return t->out_error < 0 ? 0 : size * n;
}

void transfer_add_header(struct transfer *t, const char *line)
{
	struct curl_slist *longer = curl_slist_append(t->headers, line);

	if (!longer)
		abort();
	t->headers = longer;
}

/* Method, place, token and limits that every request shares. */
static CURL *new_easy(struct client *client, const char *method, const char *path)
{
	CURL *easy = curl_easy_init();
	const char *url = client->context.url;
	cleanup_free char *whole = NULL;

	if (!easy)
		abort();
	if (strncmp(url, "unix://", 7) == 0) {
		curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, url + 7);
		url = "http://localhost";
	}
	if (asprintf(&whole, "%.*s%s", (int)(strlen(url) - (url[strlen(url) - 1] == '/')), url, path) < 0)
		abort();
	curl_easy_setopt(easy, CURLOPT_URL, whole);
	/* A machine called ".." is one that does not exist, not a way up the path. */
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
	/* Who waits for long hears of a host that is gone. */
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_S);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_S);
	if (client->context.token) {
		curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
		curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, client->context.token);
	}
	return easy;
}

void transfer_init(struct transfer *t, struct client *client, const char *method, const char *path)
{
	const char *project = client->context.project;

	*t = (struct transfer){.client = client, .out = -1, .in = -1};
	buf_init(&t->answer, ANSWER_MAX);
	t->easy = new_easy(client, method, path);
	curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, t);
	if (client->timeout_s)
		curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, client_time_left_ms(client, CLIENT_TIMEOUT_MAX_S * 1000L));
	if (project) {
		cleanup_free char *line = NULL;

		if (asprintf(&line, "Hull-Project: %s", project) < 0)
			abort();
		transfer_add_header(t, line);
	}
}

void transfer_done(struct transfer *t)
{
	curl_easy_cleanup(t->easy);
	curl_slist_free_all(t->headers);
	buf_done(&t->answer);
}

void transfer_show(struct transfer *t, const char *label, uint64_t total, curl_xferinfo_callback fn)
{
	bar_begin(&t->bar, label);
	t->total = total;
	curl_easy_setopt(t->easy, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(t->easy, CURLOPT_XFERINFOFUNCTION, fn);
	curl_easy_setopt(t->easy, CURLOPT_XFERINFODATA, t);
}

static void collect_results(struct transfer *t)
{
	CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(t->client->multi, &left))) {
		if (msg->msg != CURLMSG_DONE)
			continue;
		t->done = true;
		t->result = msg->data.result;
	}
}

int transfer_run(struct transfer *t)
{
	struct client *client = t->client;
	struct curl_waitfd extra = {.fd = client->signal_fd, .events = CURL_WAIT_POLLIN};
	int running, r = 0;

	if (t->headers)
		curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
	if (curl_multi_add_handle(client->multi, t->easy) != CURLM_OK)
		abort();
	t->heard_ms = client_now_ms();
	while (!t->done && r == 0) {
		if (curl_multi_perform(client->multi, &running) != CURLM_OK)
			abort();
		collect_results(t);
		if (!t->done && t->quiet_max_ms && client_now_ms() - t->heard_ms > t->quiet_max_ms) {
			t->done = true;
			t->result = CURLE_RECV_ERROR;
		}
		if (t->done)
			break;
		curl_multi_poll(client->multi, &extra, client->signal_fd >= 0 ? 1 : 0, POLL_MS, NULL);
		if (client->waiting)
			client->waiting(client->waiting_ctx);
		if (client->interruptible && client_next_signal(client))
			r = -EINTR;
	}
	curl_multi_remove_handle(client->multi, t->easy);
	bar_end(&t->bar);
	return r;
}

/* ---- what went wrong ---- */

int transfer_refuse_connection(struct transfer *t, struct failure *fail)
{
	const struct context *context = &t->client->context;
	long number = 0, sent = 0;

	curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &number);
	curl_easy_getinfo(t->easy, CURLINFO_REQUEST_SIZE, &sent);
	fail->lost = true;
	if (t->client->timeout_s && client_now_ms() >= t->client->deadline_ms) {
		fail->lost = false;
		error_set(&fail->error, ETIMEDOUT, "the API at %s (%s) was not done within %lld s", context->url, context->source,
			t->client->timeout_s);
		return failure_hint(fail, "what was asked for may happen still; `hull ps -a` shows it, a longer --timeout waits for it");
	}
	if (t->result == CURLE_OPERATION_TIMEDOUT && (sent || t->connected)) {
		error_set(&fail->error, ETIMEDOUT, "the API at %s (%s) takes a request, and does not answer", context->url, context->source);
		return failure_hint(fail, "on its host: `systemctl status hulld`, `journalctl -u hulld`");
	}
	if (t->result == CURLE_COULDNT_CONNECT || t->result == CURLE_OPERATION_TIMEDOUT ||
		t->result == CURLE_COULDNT_RESOLVE_HOST) {
		error_set(&fail->error, ECONNREFUSED, "cannot reach the API at %s (%s): %s", context->url, context->source,
			number ? strerror((int)number) : curl_easy_strerror(t->result));
		if (t->result == CURLE_COULDNT_RESOLVE_HOST)
			return failure_hint(fail, "is the name right? `hull context show` says where it is from");
		if (number == EACCES)
			return failure_hint(fail, "members of the socket's group may, of a package `sudo adduser $USER hull`, and log in anew; or use sudo");
		return failure_hint(fail, "start one with ./quickstart or `sudo systemctl start hulld`, or name another with --host, --context "
					  "or `hull context set URL`");
	}
	error_set(&fail->error, EIO, "%s (%s): %s", context->url, context->source, curl_easy_strerror(t->result));
	if (t->result == CURLE_SSL_CONNECT_ERROR)
		return failure_hint(fail, "does it speak TLS there? If not, write http://");
	if (t->result == CURLE_PEER_FAILED_VERIFICATION)
		return failure_hint(fail, "its certificate is signed by nobody that this machine trusts, or is for another name");
	if (t->result == CURLE_UNSUPPORTED_PROTOCOL || t->result == CURLE_WEIRD_SERVER_REPLY)
		return failure_hint(fail, "who answers there is no API of Hull");
	return -EIO;
}

int transfer_refuse_status(struct transfer *t, long status, struct failure *fail)
{
	json_t *problem = t->answer.len ? json_parse(t->answer.data, t->answer.len, NULL) : NULL;
	const json_t *detail = json_object_get(problem, "detail"), *title = json_object_get(problem, "title");
	const json_t *field = json_object_get(problem, "field"), *hint = json_object_get(problem, "hint");
	const json_t *code = json_object_get(problem, "code");
	int errnum = status == 404 ? ENOENT : status == 408 ? ETIMEDOUT : status == 401 ? EACCES : EPROTO;

	if (!json_is_string(detail))
		detail = title;
	if (json_is_string(detail))
		error_set_field(&fail->error, errnum, json_is_string(field) ? json_string_value(field) : "", "%s",
			json_string_value(detail));
	else
		error_set(&fail->error, errnum, "the API answered with status %ld", status);
	if (status == 401 && strncmp(t->client->context.source, "context ", 8) == 0)
		failure_hint(fail, "`hull context rm %s`, and create it with --token-file FILE", t->client->context.source + 8);
	else if (status == 401)
		failure_hint(fail, "give the token with $HULL_TOKEN, or `hull context set %s --token TOKEN`",
			t->client->context.url);
	else if (json_is_string(hint))
		failure_hint(fail, "%s", json_string_value(hint));
	/* A proxy's word, before an API that has gone. */
	fail->lost = !json_is_string(code) && (status == 502 || status == 503 || status == 504);
	snprintf(fail->code, sizeof(fail->code), "%s", json_is_string(code) ? json_string_value(code) : "");
	json_decref(problem);
	return -errnum;
}

int transfer_outcome(struct transfer *t, struct failure *fail)
{
	long status = 0;

	if (t->out_error < 0)
		return error_set_errno(&fail->error, -t->out_error, "cannot write the output");
	/* A server that refuses an upload answers and closes before it read everything. */
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	if (t->result != CURLE_OK && status < 400)
		return transfer_refuse_connection(t, fail);
	return status >= 200 && status <= 299 ? 0 : transfer_refuse_status(t, status, fail);
}

int transfer_finish(struct transfer *t, struct failure *fail)
{
	return transfer_run(t) < 0 ? error_set(&fail->error, EINTR, "interrupted") : transfer_outcome(t, fail);
}
