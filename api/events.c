/* Events as rows: kept, read in pages, passed on to who follows them. See events.h. */
#include "api/events.h"

#include "api/event_filter.h"
#include "api/event_streams.h"
#include "api/event_types.h"
#include "api/forget.h"
#include "api/hostnames.h"
#include "api/machine.h"
#include "api/machine_http.h"
#include "api/webhook.h"
#include "common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define KEPT        50000 /* of each project, */
#define KEPT_MS     (7 * 24 * INT64_C(3600000))
#define LOOK_EVERY  1000 /* after so many it is looked at whether there are more */
#define FORGET_MAX  250	 /* at a time */
#define PAGE        100
#define SCAN_MAX    10000 /* rows that one page looks at */

struct events {
	struct hulld *hulld;
	struct event_streams *streams;
	unsigned since_look;
};

struct event_view {
	int64_t id;
	char *at, *type, *subject, *name;
	json_t *data;
};

static const struct json_field event_fields[] = {
	{"id", JSON_FIELD_INT, offsetof(struct event_view, id), .read_only = true, .max = INT64_MAX,
		.help = "1, 2, 3 … in the project; a cursor."},
	{"at", JSON_FIELD_STRING, offsetof(struct event_view, at), .read_only = true},
	{"type", JSON_FIELD_STRING, offsetof(struct event_view, type), .read_only = true},
	{"subject", JSON_FIELD_STRING, offsetof(struct event_view, subject), .read_only = true,
		.help = "The id of what it is of; where that has none, the name."},
	{"name", JSON_FIELD_STRING, offsetof(struct event_view, name), .read_only = true},
	{"data", JSON_FIELD_ANY, offsetof(struct event_view, data), .read_only = true, .help = "By type."},
};
static const struct json_table event_table = JSON_TABLE("Event", struct event_view, event_fields);

struct page_view {
	struct json_array items;
	int64_t cursor;
	bool more;
};

static const struct json_field page_fields[] = {
	{"items", JSON_FIELD_ARRAY, offsetof(struct page_view, items), .read_only = true, .table = &event_table},
	{"cursor", JSON_FIELD_INT, offsetof(struct page_view, cursor), .read_only = true, .max = INT64_MAX,
		.help = "Of the last event that was looked at: after it goes on from here."},
	{"more", JSON_FIELD_BOOL, offsetof(struct page_view, more), .read_only = true, .help = "There are events after it already."},
};
const struct json_table event_page_table = JSON_TABLE("EventPage", struct page_view, page_fields);

json_t *events_dump(const struct event_record *event)
{
	char *at = format_time(event->at);
	struct error err;
	struct event_view view = {event->id, at, (char *)event->type, (char *)event->subject, (char *)event->name,
		json_parse(event->data, strlen(event->data), &err)};
	json_t *dumped;

	if (!view.data)
		view.data = json_object(); /* not ours */
	dumped = json_dump(&event_table, &view);
	json_decref(view.data);
	free(at);
	return dumped;
}

/* Keeping. */

int events_forget(struct hulld *hulld, int64_t now, struct error *err)
{
	hulld->events->since_look = 0;
	return store_events_prune(hulld->store, now - KEPT_MS, KEPT, FORGET_MAX, err);
}

static void on_new(void *ctx, const char *project)
{
	struct events *events = ctx;

	webhooks_on_event(events->hulld->webhooks, project);
	event_streams_look(events->streams);
	if (++events->since_look >= LOOK_EVERY)
		forgetter_look(events->hulld->forgetter);
	hostnames_changed(events->hulld);
}

struct events *events_new(struct hulld *hulld, struct error *err)
{
	struct events *events = calloc(1, sizeof(*events));

	if (!events) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	events->hulld = hulld;
	events->streams = event_streams_new(hulld, err);
	if (!events->streams) {
		events_free(events);
		return NULL;
	}
	store_on_event(hulld->store, on_new, events);
	return events;
}

void events_free(struct events *events)
{
	if (!events)
		return;
	store_on_event(events->hulld->store, NULL, NULL);
	event_streams_free(events->streams);
	free(events);
}

/* Pages. */

struct page {
	const struct event_filter *filter;
	json_t *items;
	int64_t cursor, limit;
};

static int add_to_page(void *ctx, const struct event_record *event)
{
	struct page *page = ctx;

	page->cursor = event->id;
	if (event_filter_fits(page->filter, event_type_by_name(event->type), event->subject, event->name))
		json_array_append_new(page->items, events_dump(event));
	return json_array_size(page->items) >= (size_t)page->limit;
}

static void reply_page(struct request *req, struct hulld *hulld, const struct event_filter *filter, int64_t after, int64_t last)
{
	struct page page = {
		.filter = filter, .cursor = after, .limit = request_query_int(req, "limit", PAGE), .items = json_array()};
	struct error err;

	if (store_events_each(hulld->store, request_project(req), after, SCAN_MAX, add_to_page, &page, &err) < 0) {
		json_decref(page.items);
		request_refuse_error(req, &err);
		return;
	}
	request_reply(req, 200, json_pack("{s:o, s:I, s:b}", "items", page.items, "cursor", (json_int_t)page.cursor, "more",
					page.cursor < last));
}

/* Where to begin. */

static bool wants_stream(const struct request *req)
{
	const char *accept = request_header(req, "Accept");

	return accept && strcasestr(accept, HTTP_EVENTS);
}

/* What a client that comes again has seen. 0 with `*ret` as it was: it says nothing. */
static int read_last_event_id(struct request *req, int64_t *ret)
{
	const char *text = request_header(req, "Last-Event-ID");
	char *end;
	long long value;

	if (!text || !text[0])
		return 0;
	errno = 0;
	value = strtoll(text, &end, 10);
	if (errno || *end || value < 0 || text[0] < '0' || text[0] > '9') {
		request_refuse_with(req, PROBLEM_INVALID_FIELD, "Last-Event-ID", "must be the id of an event");
		return -ECANCELED;
	}
	*ret = value;
	return 0;
}

static int refuse_cursor(struct request *req, int64_t after, int64_t before, int64_t last)
{
	struct problem problem;

	if (after < before)
		problem_set(&problem, PROBLEM_CURSOR_EXPIRED, "after", "what came after %" PRId64 " is not kept any more", after);
	else
		problem_set(&problem, PROBLEM_CURSOR_EXPIRED, "after", "there is no event %" PRId64 " yet: the last is %" PRId64, after,
			last);
	problem_set_hint(&problem, "look at everything anew, and begin without a cursor");
	request_refuse(req, &problem);
	return -ECANCELED;
}

/* 0, or -ECANCELED having refused. */
static int find_start(struct request *req, struct hulld *hulld, bool stream, int64_t *ret_after, int64_t *ret_last)
{
	int64_t before, after = request_query_int(req, "after", -1), since_s = request_query_int(req, "since_s", -1), since;
	struct error err;

	if (stream && read_last_event_id(req, &after) < 0)
		return -ECANCELED;
	if (store_events_range(hulld->store, request_project(req), &before, ret_last, &err) < 0 ||
		(since = since_s < 0 ? 0
				     : store_events_since(hulld->store, request_project(req), now_ms() - since_s * 1000, &err)) < 0) {
		request_refuse_error(req, &err);
		return -ECANCELED;
	}
	if (after >= 0 && (after < before || after > *ret_last))
		return refuse_cursor(req, after, before, *ret_last);
	if (after >= 0)
		*ret_after = after;
	else if (since_s >= 0)
		*ret_after = since > before ? since : before;
	else
		*ret_after = stream ? *ret_last : before;
	return 0;
}

int events_passed(struct request *req, const struct machine *m, int64_t after, unsigned states)
{
	struct store *store = m->hulld->store;
	int64_t before = 0, last = 0;
	struct error err;
	char type[64];
	int r = store_events_range(store, m->record.project, &before, &last, &err);

	if (r == 0 && (after < before || after > last))
		return refuse_cursor(req, after, before, last);
	/* Of one without a check nothing else is told. */
	if (states & 1u << STATE_HEALTHY && !m->spec.health)
		states |= 1u << MACHINE_RUNNING;
	for (int state = MACHINE_CREATED; r == 0 && state < N_STATE_WORDS; state++) {
		snprintf(type, sizeof(type), "machine.%s", machine_http_state_word(state));
		if (states & (1u << state))
			r = store_events_has(store, m->record.project, m->record.id, type, after, &err);
	}
	if (r >= 0)
		return r;
	request_refuse_error(req, &err);
	return -ECANCELED;
}

void events_http(struct request *req, void *ctx)
{
	struct hulld *hulld = ctx;
	struct event_filter filter;
	int64_t after = 0, last = 0;
	bool stream = wants_stream(req);

	event_filter_read(req, &filter);
	if (find_start(req, hulld, stream, &after, &last) < 0)
		return;
	if (stream)
		event_streams_follow(hulld->events->streams, req, &filter, after, last);
	else
		reply_page(req, hulld, &filter, after, last);
}

void events_add(const struct machine *m, const char *type, const char *reason)
{
	json_t *data = json_pack("{s:o}", "reason", json_lossy_string(reason));
	char *text = json_dumps(data, JSON_COMPACT);
	struct event_record event = {.project = m->record.project, .type = type, .subject = m->record.id, .name = m->record.name,
		.data = text};
	struct error err;

	if (!text)
		abort();
	if (store_event_insert(m->hulld->store, &event, &err) < 0)
		log_error_object(&err, type);
	free(text);
	json_decref(data);
}
