#include "api/webhook.h"

#include "api/event_types.h"
#include "api/events.h"
#include "api/secrets.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define PROJECT_ACTIVE_MAX 4
#define STARTS		   16 /* of one round of the loop */
#define BATCH		   64 /* rows that one looks at in a round */
#define WRITE_NS	   1000000000ull
#define NS_PER_MS	   1000000ull
#define RETRY_MAX_MS	   3600000
#define RETRY_AFTER_MAX_MS 86400000
#define GIVE_UP_FAILURES   5 /* at least, whatever the clock says */
#define TIMING_MAX	   (365 * 86400ll)

int webhook_timing_parse(const char *text, struct webhook_timing *ret, struct error *err)
{
	int64_t *const places[] = {&ret->first_retry_ms, &ret->give_up_s, &ret->timeout_ms};
	char *end = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		errno = 0;
		*places[i] = strtoll(text, &end, 10);
		if (errno || end == text || (*end && *end != ',') || *places[i] < 1 || *places[i] > TIMING_MAX)
			break;
		if (!*end)
			return 0;
		text = end + 1;
	}
	return error_set_field(err, EINVAL, "--webhook-timing", "must be FIRST_RETRY_MS, or with ,GIVE_UP_S and ,TIMEOUT_MS behind it");
}

/* ---- the queue ---- */

static void arm_work(void *ctx)
{
	struct webhooks *webhooks = ctx;

	loop_timer_arm(webhooks->work, 0);
}

static void enqueue(struct webhook *hook)
{
	struct webhooks *webhooks = hook->webhooks;

	if (hook->queued || hook->sending || !hook->spec.enabled || hook->retry_ns > monotonic_ns())
		return;
	hook->queued = true;
	hook->next_queued = NULL;
	*webhooks->queue_end = hook;
	webhooks->queue_end = &hook->next_queued;
	arm_work(webhooks);
}

static void dequeue(struct webhook *hook)
{
	struct webhooks *webhooks = hook->webhooks;
	struct webhook **link = &webhooks->queue;

	if (!hook->queued)
		return;
	while (*link != hook)
		link = &(*link)->next_queued;
	*link = hook->next_queued;
	if (!*link)
		webhooks->queue_end = link;
	hook->queued = false;
}

static void arm_retry(struct webhooks *webhooks)
{
	uint64_t now = monotonic_ns(), earliest = UINT64_MAX;

	for (const struct webhook *hook = webhooks->first; hook; hook = hook->next)
		if (hook->retry_ns && hook->retry_ns < earliest)
			earliest = hook->retry_ns;
	loop_timer_arm(webhooks->retry, earliest == UINT64_MAX ? UINT64_MAX : earliest > now ? earliest - now : 0);
}

static void on_retry(void *ctx)
{
	struct webhooks *webhooks = ctx;
	uint64_t now = monotonic_ns();

	for (struct webhook *hook = webhooks->first; hook; hook = hook->next)
		if (hook->retry_ns && hook->retry_ns <= now) {
			hook->retry_ns = 0;
			enqueue(hook);
		}
	arm_retry(webhooks);
}

void webhooks_on_event(struct webhooks *webhooks, const char *project)
{
	for (struct webhook *hook = webhooks ? webhooks->first : NULL; hook; hook = hook->next)
		if (strcmp(hook->record.project, project) == 0)
			enqueue(hook);
}

/* ---- rows ---- */

static void write_progress(struct webhooks *webhooks)
{
	const struct webhook_record **records;
	size_t n = 0, i = 0;
	struct error err;

	webhooks->write_is_due = false;
	for (const struct webhook *hook = webhooks->first; hook; hook = hook->next)
		n += hook->unwritten;
	if (n == 0)
		return;
	records = calloc(n, sizeof(*records));
	if (!records)
		abort();
	for (const struct webhook *hook = webhooks->first; hook; hook = hook->next)
		if (hook->unwritten)
			records[i++] = &hook->record;
	if (store_webhooks_progress(webhooks->hulld->store, records, n, &err) == 0) {
		for (struct webhook *hook = webhooks->first; hook; hook = hook->next)
			hook->unwritten = false;
	} else {
		log_error_object(&err, "how far webhooks have come is not kept");
		webhooks->write_is_due = true;
		loop_timer_arm(webhooks->write, WRITE_NS);
	}
	free(records);
}

static void on_write(void *ctx)
{
	write_progress(ctx);
}

static void note_progress(struct webhook *hook)
{
	hook->unwritten = true;
	if (!hook->webhooks->write_is_due)
		loop_timer_arm(hook->webhooks->write, WRITE_NS);
	hook->webhooks->write_is_due = true;
}

/* Nobody is to find it disabled and enabled: what the row does not take is not so. */
static void disable(struct webhook *hook, const char *reason)
{
	struct webhook_record record = hook->record;
	struct error err;

	hook->spec.enabled = false;
	record.spec = json_dump_text(&webhook_spec_table, &hook->spec);
	snprintf(record.disabled_reason, sizeof(record.disabled_reason), "%s", reason);
	record.next_attempt_at = 0;
	record.updated_at = now_ms();
	if (store_webhook_respecify(hook->webhooks->hulld->store, &record, &err) == 0) {
		free(hook->record.spec);
		hook->record = record;
		return;
	}
	free(record.spec);
	log_error_object(&err, "a webhook is not disabled");
	hook->spec.enabled = true;
	hook->retry_ns = monotonic_ns() + RETRY_MAX_MS * NS_PER_MS;
	arm_retry(hook->webhooks);
}

/* ---- sending ---- */

static void become_active(struct webhook *hook, struct sending *sending)
{
	hook->sending = sending;
	hook->webhooks->active[hook->webhooks->n_active++] = hook;
}

/* Its sending has ended. */
static void become_idle(struct webhook *hook)
{
	struct webhooks *webhooks = hook->webhooks;
	size_t i = 0;

	while (webhooks->active[i] != hook)
		i++;
	webhooks->active[i] = webhooks->active[--webhooks->n_active];
	hook->sending = NULL;
	arm_work(webhooks);
}

char *webhook_body(const struct event_record *event)
{
	json_t *dumped = events_dump(event);
	char *text;

	json_object_set_new(dumped, "project", json_string(event->project));
	json_object_set(dumped, "timestamp", json_object_get(dumped, "at"));
	text = json_print(dumped, "");
	json_decref(dumped);
	return text;
}

struct sending *webhook_send(const struct webhook *hook, const char *id, const char *body, sent_fn fn, void *ctx, struct error *err)
{
	const struct hulld *hulld = hook->webhooks->hulld;
	struct secret_record sealed = {.sealed = hook->record.sealed, .sealed_len = hook->record.sealed_len};
	struct outgoing out = {.project = hook->record.project, .url = hook->spec.url, .id = id, .body = body, .at_s = now_ms() / 1000};
	char signature[WEBHOOK_SIGNATURE_BYTES];
	json_t *secret;

	snprintf(sealed.project, sizeof(sealed.project), "%s", hook->record.project);
	snprintf(sealed.name, sizeof(sealed.name), "webhook:%s", hook->record.id);
	secret = secrets_unseal(hulld->secrets, &sealed, err);
	if (!secret)
		return NULL;
	webhook_sign(json_string_value(secret), id, out.at_s, body, signature);
	json_decref(secret);
	out.signature = signature;
	return sender_send(hook->webhooks->sender, &out, fn, ctx);
}

/* Between a half and the whole of what is due, so that what failed together does not come back together. */
static int64_t backoff_ms(const struct webhook *hook, int64_t retry_after_s)
{
	int64_t delay = hook->webhooks->hulld->options.webhook_timing.first_retry_ms, asked;

	for (int64_t i = 1; i < hook->record.failures && delay < RETRY_MAX_MS; i++)
		delay *= 2;
	if (delay > RETRY_MAX_MS)
		delay = RETRY_MAX_MS;
	delay -= (int64_t)randombytes_uniform((uint32_t)delay / 2 + 1);
	asked = retry_after_s < RETRY_AFTER_MAX_MS / 1000 ? retry_after_s * 1000 : RETRY_AFTER_MAX_MS;
	return delay > asked ? delay : asked;
}

static void on_failure(struct webhook *hook, const char *error, int status, int64_t retry_after_s)
{
	struct webhook_record *record = &hook->record;
	int64_t now = now_ms(), delay;

	record->failures++;
	if (!record->failing_since || record->failing_since > now)
		record->failing_since = now;
	snprintf(record->last_error, sizeof(record->last_error), "%s", error);
	if (status == 410) {
		disable(hook, "gone");
	} else if (record->failures >= GIVE_UP_FAILURES &&
		   now - record->failing_since >= hook->webhooks->hulld->options.webhook_timing.give_up_s * 1000) {
		disable(hook, "failing");
	} else {
		delay = backoff_ms(hook, retry_after_s);
		record->next_attempt_at = now + delay;
		hook->retry_ns = monotonic_ns() + (uint64_t)delay * NS_PER_MS;
		arm_retry(hook->webhooks);
	}
}

static void on_sent(void *ctx, const struct sent_result *result)
{
	struct webhook *hook = ctx;
	struct webhook_record *record = &hook->record;

	become_idle(hook);
	record->last_attempt_at = now_ms();
	record->last_status = result->status;
	note_progress(hook);
	if (result->what == SENT_DELIVERED) {
		record->cursor = hook->sent;
		record->failures = record->failing_since = record->next_attempt_at = 0;
		record->last_delivered_at = record->last_attempt_at;
		record->last_error[0] = '\0';
		enqueue(hook);
	} else {
		on_failure(hook, result->error, result->status, result->retry_after_s);
	}
}

struct look {
	struct webhook *hook;
	int64_t after; /* of all that is not wanted */
	int n;
	char *body; /* of the one that is */
};

static int look_at(void *ctx, const struct event_record *event)
{
	struct look *look = ctx;
	int type = event_type_by_name(event->type);

	if (event->id != look->after + 1)
		look->hook->record.missed += event->id - look->after - 1;
	look->n++;
	if (type >= 0 && look->hook->types & (UINT64_C(1) << type)) {
		look->body = webhook_body(event);
		look->hook->sent = event->id;
		look->after = event->id - 1;
		return 1;
	}
	look->after = event->id;
	return 0;
}

static void start(struct webhook *hook)
{
	struct look look = {hook, hook->record.cursor, 0, NULL};
	struct webhooks *webhooks = hook->webhooks;
	char id[WEBHOOK_ID_BYTES + 24];
	struct sending *sending;
	struct error err;

	if (store_events_each(webhooks->hulld->store, hook->record.project, look.after, BATCH, look_at, &look, &err) < 0) {
		log_error_object(&err, "events are not sent to a webhook");
		hook->retry_ns = monotonic_ns() + WRITE_NS;
		arm_retry(webhooks);
		return;
	}
	if (look.after != hook->record.cursor) {
		hook->record.cursor = look.after;
		note_progress(hook);
	}
	if (!look.body) {
		if (look.n == BATCH)
			enqueue(hook);
		return;
	}
	snprintf(id, sizeof(id), "%s_%" PRId64, hook->record.id, hook->sent);
	sending = webhook_send(hook, id, look.body, on_sent, hook, &err);
	free(look.body);
	if (sending) {
		become_active(hook, sending);
		return;
	}
	hook->record.last_attempt_at = now_ms();
	hook->record.last_status = 0;
	note_progress(hook);
	on_failure(hook, err.message, 0, 0);
}

static bool may_start(const struct webhook *hook)
{
	const struct webhooks *webhooks = hook->webhooks;
	size_t n = sender_left(webhooks->sender, hook->record.project);

	for (size_t i = 0; i < webhooks->n_active; i++)
		n += strcmp(webhooks->active[i]->record.project, hook->record.project) == 0;
	return n < PROJECT_ACTIVE_MAX;
}

static void on_work(void *ctx)
{
	struct webhooks *webhooks = ctx;
	struct webhook *hook = webhooks->queue, *next;

	for (int n = 0; hook && n < STARTS && webhooks->n_active < WEBHOOKS_ACTIVE_MAX; hook = next) {
		next = hook->next_queued;
		if (!may_start(hook))
			continue;
		dequeue(hook);
		start(hook);
		n++;
	}
	/* What could start and was not looked at; what could not is when one that is under way has ended. */
	if (hook && webhooks->n_active < WEBHOOKS_ACTIVE_MAX)
		arm_work(webhooks);
}

/* ---- their lives ---- */

static int read_spec(struct webhook *hook, struct error *err)
{
	json_t *parsed = json_parse(hook->record.spec, strlen(hook->record.spec), err);
	int r = parsed ? json_read(&webhook_spec_table, parsed, &hook->spec, err) : -EINVAL;
	uint64_t bits;

	json_decref(parsed);
	if (r < 0)
		return r;
	hook->types = hook->spec.events.len ? 0 : UINT64_MAX;
	for (size_t i = 0; i < hook->spec.events.len; i++)
		if (event_types_parse(hook->spec.events.items[i], &bits) == 0)
			hook->types |= bits;
	return 0;
}

struct webhook *webhook_add(struct webhooks *webhooks, struct webhook_record *record, struct error *err)
{
	struct webhook *hook = calloc(1, sizeof(*hook)), **link = &webhooks->first;

	if (!hook)
		abort();
	hook->webhooks = webhooks;
	hook->record = *record;
	if (read_spec(hook, err) < 0) {
		free(hook);
		return NULL;
	}
	*record = (struct webhook_record){.id = ""};
	while (*link)
		link = &(*link)->next;
	*link = hook;
	enqueue(hook);
	return hook;
}

static void stop_sending(struct webhook *hook)
{
	if (!hook->sending)
		return;
	sending_cancel(hook->sending);
	become_idle(hook);
}

int webhook_change(struct webhook *hook, struct webhook_record *record, bool anew, struct error *err)
{
	struct webhook changed = {.record = *record};

	if (read_spec(&changed, err) < 0)
		return -err->errnum;
	free(hook->record.spec);
	if (hook->record.sealed != record->sealed)
		free(hook->record.sealed);
	json_done(&webhook_spec_table, &hook->spec);
	hook->record = *record;
	hook->spec = changed.spec;
	hook->types = changed.types;
	*record = (struct webhook_record){.id = ""};
	if (anew || !hook->spec.enabled)
		stop_sending(hook);
	if (!hook->spec.enabled)
		dequeue(hook);
	if (anew)
		hook->retry_ns = 0;
	enqueue(hook);
	return 0;
}

void webhook_remove(struct webhook *hook)
{
	struct webhook **link = &hook->webhooks->first;

	stop_sending(hook);
	dequeue(hook);
	while (*link != hook)
		link = &(*link)->next;
	*link = hook->next;
	json_done(&webhook_spec_table, &hook->spec);
	webhook_record_done(&hook->record);
	free(hook);
}

void webhooks_forget(struct webhooks *webhooks, const char *project)
{
	struct webhook *next;

	for (struct webhook *hook = webhooks->first; hook; hook = next) {
		next = hook->next;
		if (strcmp(hook->record.project, project) == 0)
			webhook_remove(hook);
	}
}

static int load(void *ctx, struct webhook_record *record)
{
	struct webhooks *webhooks = ctx;
	int64_t wait_ms = record->next_attempt_at - now_ms();
	struct webhook *hook;
	char id[sizeof(record->id)];
	struct error err;

	snprintf(id, sizeof(id), "%s", record->id);
	hook = webhook_add(webhooks, record, &err);
	if (!hook) {
		webhook_record_done(record);
		log_error("webhook %s makes no sense: %s", id, err.message);
		return 0;
	}
	if (wait_ms <= 0)
		return 0;
	/* A clock that was set does not make it wait for ever. */
	if (wait_ms > RETRY_AFTER_MAX_MS)
		wait_ms = RETRY_AFTER_MAX_MS;
	dequeue(hook);
	hook->retry_ns = monotonic_ns() + (uint64_t)wait_ms * NS_PER_MS;
	return 0;
}

struct webhooks *webhooks_new(struct hulld *hulld, struct error *err)
{
	struct webhooks *webhooks = calloc(1, sizeof(*webhooks));

	if (!webhooks)
		abort();
	webhooks->hulld = hulld;
	webhooks->queue_end = &webhooks->queue;
	webhooks->work = loop_add_timer(hulld->loop, on_work, webhooks);
	webhooks->retry = loop_add_timer(hulld->loop, on_retry, webhooks);
	webhooks->write = loop_add_timer(hulld->loop, on_write, webhooks);
	if (!webhooks->work || !webhooks->retry || !webhooks->write)
		error_set_errno(err, errno, "cannot make a timer");
	else if ((webhooks->sender = sender_new(hulld->loop, &hulld->options.webhook_allow, hulld->options.webhook_timing.timeout_ms, arm_work,
			  webhooks, err)) &&
		 store_webhooks_each(hulld->store, load, webhooks, err) == 0) {
		arm_retry(webhooks);
		return webhooks;
	}
	webhooks_free(webhooks);
	return NULL;
}

void webhooks_free(struct webhooks *webhooks)
{
	if (!webhooks)
		return;
	write_progress(webhooks);
	while (webhooks->first)
		webhook_remove(webhooks->first);
	sender_free(webhooks->sender);
	loop_remove(webhooks->work);
	loop_remove(webhooks->retry);
	loop_remove(webhooks->write);
	free(webhooks);
}
