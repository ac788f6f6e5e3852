/* Webhooks over HTTP. */
#include "api/webhook.h"

#include "api/event_types.h"
#include "api/merge_patch.h"
#include "api/page.h"
#include "api/random.h"
#include "api/secrets.h"
#include "common/cleanup.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS_MAX	  64
#define FAILING_FAILURES  3 /* in a row */
#define PROJECT_PINGS_MAX 4

static int event_check(const char *name, struct error *err)
{
	uint64_t bits;

	if (strchr(name, ',') || event_types_parse(name, &bits) < 0)
		return error_set(err, EINVAL, "is no type of events, as machine.failed, nor a thing that has some, as machine");
	return 0;
}

#define SHARED_FIELDS                                                                                                          \
	{"url", JSON_FIELD_STRING, offsetof(struct webhook_spec, url), .required = true, .min = 1, .max = WEBHOOK_URL_MAX,               \
		.check = webhook_url_check, .pattern = "^https?://[!-~]+$",                                                             \
		.help = "Where to: https, to the public network; or what the host's administrator has allowed."},                       \
	{"events", JSON_FIELD_STRINGS, offsetof(struct webhook_spec, events), .max = EVENTS_MAX, .check = event_check,                  \
		.names = event_type_words,                                                                                              \
		.help = "Only of these types, as machine.failed, or of these things, as machine; all when it is empty."},               \
	{"enabled", JSON_FIELD_BOOL, offsetof(struct webhook_spec, enabled), .def = true,                                               \
		.help = "false: what happens waits, as long as events are kept."},                                                      \
	{"labels", JSON_FIELD_MAP, offsetof(struct webhook_spec, labels), .help = "Free for clients."}

static const struct json_field spec_fields[] = {
	SHARED_FIELDS,
	{"secret", JSON_FIELD_STRING, offsetof(struct webhook_spec, secret), .secret = true, .max = WEBHOOK_SECRET_MAX, .check = webhook_secret_check,
		.pattern = WEBHOOK_SECRET_PATTERN,
		.help = "Of the signatures: whsec_ and, in base64, 24 to 64 bytes; made when it is absent."},
};
const struct json_table webhook_spec_table = JSON_TABLE("WebhookSpec", struct webhook_spec, spec_fields);

const char *const webhook_state_names[] = {
	[WEBHOOK_ACTIVE] = "active", [WEBHOOK_FAILING] = "failing", [WEBHOOK_DISABLED] = "disabled", [WEBHOOK_N_STATES] = NULL};

struct view {
	struct webhook_spec spec; /* `secret`: of a new one */
	char *id, *project, *created_at, *updated_at;
	int state; /* enum webhook_state */
	char *disabled_reason;
	int64_t cursor, missed, failures;
	json_t *last_status;
	char *last_error, *last_attempt_at, *last_delivered_at, *next_attempt_at;
};

#define TEXT(name_, ...) {#name_, JSON_FIELD_STRING, offsetof(struct view, name_), .read_only = true, __VA_ARGS__}
#define NUMBER(name_, help_) {#name_, JSON_FIELD_INT, offsetof(struct view, name_), .read_only = true, .max = INT64_MAX, .help = (help_)}
#define VIEW_FIELDS                                                                                                            \
	TEXT(id, .help = "w and 12 base32 characters."), SHARED_FIELDS, TEXT(project), TEXT(created_at), TEXT(updated_at),              \
	{"state", JSON_FIELD_ENUM, offsetof(struct view, state), .read_only = true, .names = webhook_state_names,                               \
		.help = "failing: three attempts in a row, or more."},                                                                  \
	TEXT(disabled_reason, .nullable = true, .help = "Why hulld has disabled it: gone (410), or failing (for days)."),               \
	NUMBER(cursor, "The last event that was delivered, or is none of its types."),                                                  \
	NUMBER(missed, "Events that were not kept any more when it came to them."),                                                     \
	NUMBER(failures, "Attempts that have failed, since the last that has not."),                                                    \
	{"last_status", JSON_FIELD_ANY, offsetof(struct view, last_status), .read_only = true, .nullable = true,                        \
		.schema = "{\"type\": \"integer\"}",                                                                                  \
		.help = "What the last attempt was answered with."},                                                                    \
	TEXT(last_error, .nullable = true, .help = "Why it failed, if it did."), TEXT(last_attempt_at, .nullable = true),               \
	TEXT(last_delivered_at, .nullable = true), TEXT(next_attempt_at, .nullable = true, .help = "Of what has failed.")

static const struct json_field view_fields[] = {VIEW_FIELDS};
const struct json_table webhook_table = JSON_TABLE("Webhook", struct view, view_fields);

static const struct json_field new_fields[] = {
	VIEW_FIELDS,
	{"secret", JSON_FIELD_STRING, offsetof(struct view, spec.secret), .read_only = true, .help = "Of the signatures; it is not shown again."},
};
const struct json_table new_webhook_table = JSON_TABLE("NewWebhook", struct view, new_fields);

enum webhook_state webhook_state(const struct webhook *hook)
{
	if (!hook->spec.enabled)
		return WEBHOOK_DISABLED;
	return hook->record.failures >= FAILING_FAILURES ? WEBHOOK_FAILING : WEBHOOK_ACTIVE;
}

/* `secret`: of a new one, else NULL. */
static json_t *dump(const struct webhook *hook, char *secret)
{
	const struct webhook_record *record = &hook->record;
	cleanup_free char *created = format_time(record->created_at), *updated = format_time(record->updated_at);
	cleanup_free char *attempt = format_time(record->last_attempt_at), *delivered = format_time(record->last_delivered_at);
	cleanup_free char *next = format_time(record->next_attempt_at);
	struct view view = {
		.spec = hook->spec,
		.id = (char *)record->id,
		.project = (char *)record->project,
		.created_at = created,
		.updated_at = updated,
		.state = (int)webhook_state(hook),
		.disabled_reason = record->disabled_reason[0] ? (char *)record->disabled_reason : NULL,
		.cursor = record->cursor,
		.missed = record->missed,
		.failures = record->failures,
		.last_status = record->last_status ? json_integer(record->last_status) : NULL,
		.last_error = record->last_error[0] ? (char *)record->last_error : NULL,
		.last_attempt_at = attempt,
		.last_delivered_at = delivered,
		.next_attempt_at = next,
	};
	json_t *dumped;

	view.spec.secret = secret;
	dumped = json_dump(secret ? &new_webhook_table : &webhook_table, &view);
	json_decref(view.last_status);
	return dumped;
}

/* The project's webhook that the path names; NULL: refused. */
static struct webhook *find(struct request *req, struct hulld *hulld)
{
	for (struct webhook *hook = hulld->webhooks->first; hook; hook = hook->next)
		if (strcmp(hook->record.id, request_param(req)) == 0 && strcmp(hook->record.project, request_project(req)) == 0)
			return hook;
	request_refuse_with(req, PROBLEM_NOT_FOUND, NULL, "there is no webhook \"%s\"", request_param(req));
	return NULL;
}

/* What a table cannot say. 0, or -ECANCELED having refused. */
static int check(struct request *req, const struct hulld *hulld, const struct webhook_spec *spec)
{
	struct error err;

	if (sender_check_url(spec->url, &hulld->options.webhook_allow, &err) == 0)
		return 0;
	error_in_field(&err, "url");
	request_refuse_error(req, &err);
	return -ECANCELED;
}

static void seal(const struct hulld *hulld, struct webhook_record *record, const char *secret)
{
	struct secret_record sealed = {.sealed = NULL};

	snprintf(sealed.project, sizeof(sealed.project), "%s", record->project);
	snprintf(sealed.name, sizeof(sealed.name), "webhook:%s", record->id);
	secrets_seal(hulld->secrets, &sealed, secret);
	record->sealed = sealed.sealed;
	record->sealed_len = sealed.sealed_len;
}

static void wipe(char *secret)
{
	if (secret)
		sodium_memzero(secret, strlen(secret));
}

/* 0, or -ECANCELED having refused. */
static int check_count(struct request *req, const struct hulld *hulld)
{
	int n = 0;

	for (const struct webhook *hook = hulld->webhooks->first; hook; hook = hook->next)
		n += strcmp(hook->record.project, request_project(req)) == 0;
	if (n < WEBHOOKS_MAX)
		return 0;
	request_refuse_with(req, PROBLEM_QUOTA_EXCEEDED, NULL, "a project may have %d webhooks", WEBHOOKS_MAX);
	return -ECANCELED;
}

/* Its row, and the answer that shows its secret. `*ret_shown` is a new reference. 0 or -errno with `err` set. */
static int insert(struct request *req, struct store *store, struct webhook_record *record, const struct webhook_spec *spec, char *secret,
	json_t **ret_shown, struct error *err)
{
	struct webhook hook;
	int64_t before;
	int r = store_check_room(store, strlen(record->spec), err);

	*ret_shown = NULL;
	if (r == 0)
		r = store_transaction_begin(store, err);
	if (r < 0)
		return r;
	/* What happens from now on; its own making is the first of it. */
	r = store_events_range(store, record->project, &before, &record->cursor, err);
	if (r == 0)
		r = store_webhook_insert(store, record, err);
	hook = (struct webhook){.record = *record, .spec = *spec};
	*ret_shown = dump(&hook, secret);
	if (r == 0)
		r = request_keep(req, 201, *ret_shown, err);
	return store_transaction_end(store, r, err);
}

static void create(struct request *req, struct hulld *hulld, struct webhook_spec *spec)
{
	struct webhook_record record = {.created_at = now_ms()};
	char secret[WEBHOOK_SECRET_MAX + 1];
	struct error err;
	json_t *shown;

	if (spec->secret)
		snprintf(secret, sizeof(secret), "%s", spec->secret);
	else
		webhook_secret_make(secret);
	record.id[0] = 'w';
	random_base32(record.id + 1, WEBHOOK_ID_BYTES - 1);
	record.updated_at = record.created_at;
	snprintf(record.project, sizeof(record.project), "%s", request_project(req));
	record.spec = json_dump_text(&webhook_spec_table, spec);
	seal(hulld, &record, secret);
	if (insert(req, hulld->store, &record, spec, secret, &shown, &err) == 0 && webhook_add(hulld->webhooks, &record, &err))
		request_reply(req, 201, json_incref(shown));
	else
		request_refuse_error(req, &err);
	json_decref(shown);
	webhook_record_done(&record);
	wipe(secret);
}

void webhook_http_create(struct request *req, void *ctx)
{
	struct webhook_spec spec;

	if (request_read(req, &webhook_spec_table, &spec) < 0)
		return;
	if (check(req, ctx, &spec) == 0 && check_count(req, ctx) == 0)
		create(req, ctx, &spec);
	wipe(spec.secret);
	json_done(&webhook_spec_table, &spec);
}

void webhook_http_list(struct request *req, void *ctx)
{
	const struct hulld *hulld = ctx;
	char key[PAGE_KEY_MAX + 1];
	struct page page;

	if (page_begin(req, &page) < 0)
		return;
	for (const struct webhook *hook = hulld->webhooks->first; hook && !page_is_full(&page); hook = hook->next)
		if (strcmp(hook->record.project, request_project(req)) == 0 &&
			page_has(&page, page_time_key(hook->record.created_at, hook->record.id, key)))
			page_add(&page, key, dump(hook, NULL));
	page_reply(&page, req);
}

void webhook_http_get(struct request *req, void *ctx)
{
	const struct webhook *hook = find(req, ctx);

	if (hook)
		request_reply_matching(req, dump(hook, NULL));
}

/* The row, and then the webhook, as the spec has it. */
static void change(struct request *req, struct hulld *hulld, struct webhook *hook, const struct webhook_spec *spec)
{
	bool anew = spec->secret || strcmp(spec->url, hook->spec.url) != 0 || (spec->enabled && !hook->spec.enabled);
	struct webhook_record record = hook->record;
	struct error err;

	record.spec = json_dump_text(&webhook_spec_table, spec);
	record.updated_at = now_ms();
	if (spec->secret)
		seal(hulld, &record, spec->secret);
	if (anew)
		record.failures = record.failing_since = record.next_attempt_at = 0;
	if (spec->enabled)
		record.disabled_reason[0] = '\0';
	else
		record.next_attempt_at = 0;
	if (store_check_room(hulld->store, strlen(record.spec), &err) == 0 && store_webhook_respecify(hulld->store, &record, &err) == 0 &&
		webhook_change(hook, &record, anew, &err) == 0) {
		request_reply(req, 200, dump(hook, NULL));
		return;
	}
	request_refuse_error(req, &err);
	free(record.spec);
	if (record.sealed != hook->record.sealed)
		free(record.sealed);
}

void webhook_http_patch(struct request *req, void *ctx)
{
	struct webhook *hook = find(req, ctx);
	struct webhook_spec spec;
	struct problem problem;
	json_t *document;

	if (!hook || request_check_match(req, dump(hook, NULL)) < 0 || !(document = request_read_json(req)))
		return;
	if (json_is_null(json_object_get(document, "secret"))) {
		request_refuse_with(req, PROBLEM_INVALID_FIELD, "secret", "cannot be taken away, only be another");
	} else if (merge_patch_read(&webhook_spec_table, hook->record.spec, document, &spec, &problem) < 0) {
		request_refuse(req, &problem);
	} else {
		if (check(req, ctx, &spec) == 0)
			change(req, ctx, hook, &spec);
		wipe(spec.secret);
		json_done(&webhook_spec_table, &spec);
	}
	json_decref(document);
}

void webhook_http_delete(struct request *req, void *ctx)
{
	struct webhook *hook = find(req, ctx);
	struct hulld *hulld = ctx;
	struct error err;

	if (!hook || request_check_match(req, dump(hook, NULL)) < 0)
		return;
	if (store_webhook_delete(hulld->store, hook->record.id, &err) < 0) {
		request_refuse_error(req, &err);
		return;
	}
	webhook_remove(hook);
	request_reply(req, 204, NULL);
}

/* ---- pings ---- */

struct ping {
	struct webhooks *webhooks;
	struct request *req;
	struct sending *sending;
	struct ping *next, **prev;
};

struct ping_result {
	bool delivered;
	json_t *status;
	char *error;
	int64_t took_ms;
};

static const struct json_field result_fields[] = {
	{"delivered", JSON_FIELD_BOOL, offsetof(struct ping_result, delivered), .read_only = true},
	{"status", JSON_FIELD_ANY, offsetof(struct ping_result, status), .read_only = true, .nullable = true,
		.schema = "{\"type\": \"integer\"}", .help = "What it was answered with."},
	{"error", JSON_FIELD_STRING, offsetof(struct ping_result, error), .read_only = true, .nullable = true, .help = "Why it is not delivered."},
	{"took_ms", JSON_FIELD_INT, offsetof(struct ping_result, took_ms), .read_only = true, .max = INT64_MAX},
};
const struct json_table ping_result_table = JSON_TABLE("PingResult", struct ping_result, result_fields);

static void ping_free(struct ping *ping)
{
	*ping->prev = ping->next;
	if (ping->next)
		ping->next->prev = ping->prev;
	free(ping);
}

static void on_ping_gone(void *ctx)
{
	struct ping *ping = ctx;

	sending_cancel(ping->sending);
	ping_free(ping);
}

static void on_pinged(void *ctx, const struct sent_result *result)
{
	struct ping *ping = ctx;
	struct ping_result shown = {
		.delivered = result->what == SENT_DELIVERED,
		.status = result->status ? json_integer(result->status) : NULL,
		.error = result->error[0] ? (char *)result->error : NULL,
		.took_ms = result->took_ms,
	};
	struct request *req = ping->req;

	ping_free(ping);
	request_reply(req, 200, json_dump(&ping_result_table, &shown));
	json_decref(shown.status);
}

static bool has_room(const struct webhooks *webhooks, const char *project)
{
	size_t n = sender_left(webhooks->sender, project);

	for (const struct ping *ping = webhooks->pings; ping; ping = ping->next)
		n += strcmp(request_project(ping->req), project) == 0;
	return n < PROJECT_PINGS_MAX;
}

void webhook_http_ping(struct request *req, void *ctx)
{
	struct hulld *hulld = ctx;
	struct webhooks *webhooks = hulld->webhooks;
	const struct webhook *hook = find(req, hulld);
	char id[WEBHOOK_ID_BYTES + 24], nonce[13];
	cleanup_free char *body = NULL;
	struct event_record event;
	struct ping *ping;
	struct error err;

	if (!hook)
		return;
	if (!has_room(webhooks, request_project(req))) {
		request_refuse_with(req, PROBLEM_BUSY, NULL, "%d others are under way", PROJECT_PINGS_MAX);
		return;
	}
	event = (struct event_record){.project = hook->record.project, .at = now_ms(), .type = "webhook.ping", .subject = hook->record.id,
		.name = hook->record.id, .data = "{}"};
	random_base32(nonce, sizeof(nonce) - 1);
	snprintf(id, sizeof(id), "%s_ping_%s", hook->record.id, nonce);
	body = webhook_body(&event);
	ping = calloc(1, sizeof(*ping));
	if (!ping)
		abort();
	*ping = (struct ping){.webhooks = webhooks, .req = req, .next = webhooks->pings, .prev = &webhooks->pings};
	ping->sending = webhook_send(hook, id, body, on_pinged, ping, &err);
	if (!ping->sending) {
		free(ping);
		request_refuse_error(req, &err);
		return;
	}
	if (ping->next)
		ping->next->prev = &ping->next;
	webhooks->pings = ping;
	request_on_gone(req, on_ping_gone, ping);
}
