/* Events over HTTP: pages of JSON, and streams (Server-Sent Events: WHATWG HTML, section 9.2). See events.h.
 *
 * Theory of operation. A feed is a project that is followed, with its latest events as text for the stream. The store says when there is
 * a new row; on the next round of the loop each feed takes up what has been committed since, and wakes its followers, some in each round, so
 * that requests are answered between them, however many follow. A follower's
 * `after` is the last event that it has been given or that its filter kept from it; what it does not get, it is told of by an id
 * without data, which moves its Last-Event-ID (section 9.2.6), so that a filter that never fits does not make a cursor expire. */
#include "api/events.h"

#include "api/access.h"
#include "api/event_types.h"
#include "api/hostnames.h"
#include "api/http.h"
#include "api/machine.h"
#include "api/machine_http.h"
#include "api/webhook.h"
#include "common/buf.h"
#include "common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define KEPT	       50000 /* of each project, */
#define KEPT_MS	       (7 * 24 * INT64_C(3600000))
#define PRUNE_EVERY    1000 /* after so many, or: */
#define PRUNE_NS       (3600 * 1000000000ull)
#define ALIVE_NS       (15 * 1000000000ull) /* an idle stream says something, so that proxies keep it */
#define RETRY_MS       1000
#define RECENT	       32 /* of a feed, in memory */
#define WOKEN_AT_ONCE  16
#define BATCH	       64 /* rows that one who is behind reads at a time */
#define OUT_MAX	       (1u << 20)
#define PAGE	       100
#define SCAN_MAX       10000 /* rows that one page looks at */

struct filter {
	uint64_t types; /* bits, by index in event_types */
	char machine[NAME_MAX_BYTES + 1]; /* id or name; "": any */
};

/* As a stream has it. */
struct entry {
	int64_t id;
	int type; /* index in event_types */
	char subject[NAME_MAX_BYTES + 1], name[TOKEN_LABEL_MAX + 1];
	char *text; /* owned */
};

struct feed {
	struct events *events;
	char project[NAME_MAX_BYTES + 1];
	int64_t last; /* event that was taken up */
	struct entry recent[RECENT]; /* event N in [N % RECENT], as far as there is text */
	struct follower *followers;
	struct follower *waking; /* the next one to be woken; NULL: all have been */
	bool again;		 /* then all once more, as something was new meanwhile */
	struct feed *next;
};

struct follower {
	struct feed *feed;
	struct request *req;
	struct filter filter;
	int64_t after, told; /* `told`: the last id in what it was given */
	bool alive;	     /* it is to be told that this is alive */
	struct buf out;
	size_t pos; /* of what is given, in `out` */
	struct follower *next;
};

struct events {
	struct hulld *hulld;
	struct loop_source *look, *keep_alive, *prune;
	unsigned since_prune;
	bool fresh; /* there may be rows that no feed has taken up */
	struct feed *feeds;
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

/* Filters. */

static bool fits(const struct filter *filter, int type, const char *subject, const char *name)
{
	if (type < 0 || !(filter->types & (UINT64_C(1) << type)))
		return false;
	return !filter->machine[0] || ((event_type_is_of(type, "machine") || event_type_is_of(type, "operation")) &&
					      (strcmp(filter->machine, subject) == 0 || strcmp(filter->machine, name) == 0));
}

static void read_filter(const struct request *req, struct filter *ret)
{
	const char *machine = request_query(req, "machine"), *types = request_query(req, "type");
	const struct client *client = request_client(req);

	*ret = (struct filter){.types = UINT64_MAX};
	if (types)
		event_types_parse(types, &ret->types);
	/* Who may not see tokens and webhooks, or the host, does not see them come and go. */
	if (!client->is_host && !(client->scopes & SCOPE_BIT(SCOPE_ADMIN)))
		ret->types &= ~(event_types_of("token") | event_types_of("webhook"));
	if (!client->is_host)
		ret->types &= ~event_types_of("host");
	snprintf(ret->machine, sizeof(ret->machine), "%s", machine ? machine : "");
}

/* Feeds. */

static char *format(const struct event_record *event)
{
	json_t *dumped = events_dump(event);
	char *data = json_dumps(dumped, JSON_COMPACT), *text = NULL;

	if (!data || asprintf(&text, "id: %" PRId64 "\nevent: %s\ndata: %s\n\n", event->id, event->type, data) < 0)
		abort();
	free(data);
	json_decref(dumped);
	return text;
}

static int take_up(void *ctx, const struct event_record *event)
{
	struct feed *feed = ctx;
	struct entry *entry = &feed->recent[event->id % RECENT];

	free(entry->text);
	entry->id = event->id;
	entry->type = event_type_by_name(event->type);
	snprintf(entry->subject, sizeof(entry->subject), "%s", event->subject);
	snprintf(entry->name, sizeof(entry->name), "%s", event->name);
	entry->text = format(event);
	feed->last = event->id;
	return 0;
}

static void wake_all(struct feed *feed)
{
	if (feed->waking)
		feed->again = true;
	else
		feed->waking = feed->followers;
	loop_timer_arm(feed->events->look, 0);
}

static void wake_some(struct feed *feed)
{
	for (unsigned n = 0; feed->waking && n < WOKEN_AT_ONCE; n++) {
		struct follower *f = feed->waking;

		feed->waking = f->next;
		request_wake(f->req);
	}
	if (!feed->waking && feed->again) {
		feed->again = false;
		feed->waking = feed->followers;
	}
	if (feed->waking)
		loop_timer_arm(feed->events->look, 0);
}

static void feed_look(struct feed *feed)
{
	int64_t before = feed->last;
	struct error err;

	if (store_events_each(feed->events->hulld->store, feed->project, feed->last, RECENT, take_up, feed, &err) < 0)
		log_error_object(&err, "events are not passed on");
	if (feed->last == before)
		return;
	feed->events->fresh |= feed->last - before >= RECENT;
	wake_all(feed);
}

static void prune(struct events *events)
{
	struct error err;

	events->since_prune = 0;
	if (store_events_prune(events->hulld->store, now_ms() - KEPT_MS, KEPT, &err) < 0)
		log_error_object(&err, "old events are kept");
	loop_timer_arm(events->prune, PRUNE_NS);
}

static void on_look(void *ctx)
{
	struct events *events = ctx;
	bool fresh = events->fresh;

	events->fresh = false;
	for (struct feed *feed = events->feeds; feed; feed = feed->next) {
		if (fresh)
			feed_look(feed);
		wake_some(feed);
	}
	if (events->since_prune >= PRUNE_EVERY)
		prune(events);
}

static void on_new(void *ctx, const char *project)
{
	struct events *events = ctx;

	webhooks_on_event(events->hulld->webhooks, project);
	events->since_prune++;
	events->fresh = true;
	loop_timer_arm(events->look, 0);
	hostnames_changed(events->hulld);
}

static void on_keep_alive(void *ctx)
{
	struct events *events = ctx;

	for (struct feed *feed = events->feeds; feed; feed = feed->next) {
		for (struct follower *f = feed->followers; f; f = f->next)
			f->alive = true;
		wake_all(feed);
	}
	loop_timer_arm(events->keep_alive, events->feeds ? ALIVE_NS : UINT64_MAX);
}

static void on_prune(void *ctx)
{
	prune(ctx);
}

struct events *events_new(struct hulld *hulld, struct error *err)
{
	struct events *events = calloc(1, sizeof(*events));

	if (!events) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	events->hulld = hulld;
	events->look = loop_add_timer(hulld->loop, on_look, events);
	events->keep_alive = loop_add_timer(hulld->loop, on_keep_alive, events);
	events->prune = loop_add_timer(hulld->loop, on_prune, events);
	if (!events->look || !events->keep_alive || !events->prune) {
		error_set_errno(err, errno, "cannot make a timer");
		events_free(events);
		return NULL;
	}
	store_on_event(hulld->store, on_new, events);
	prune(events);
	return events;
}

void events_free(struct events *events)
{
	if (!events)
		return;
	store_on_event(events->hulld->store, NULL, NULL);
	loop_remove(events->look);
	loop_remove(events->keep_alive);
	loop_remove(events->prune);
	free(events);
}

/* What it has is forgotten; its followers end by themselves: what they were given is not what follows. */
static void feed_restart(struct feed *feed, int64_t last)
{
	for (size_t i = 0; i < RECENT; i++) {
		free(feed->recent[i].text);
		feed->recent[i] = (struct entry){0};
	}
	feed->last = last;
}

static struct feed *feed_get(struct events *events, const char *project, int64_t last)
{
	struct feed *feed;

	for (feed = events->feeds; feed; feed = feed->next)
		if (strcmp(feed->project, project) == 0) {
			if (feed->last > last) /* a project of that name was deleted: its events are nobody's */
				feed_restart(feed, last);
			return feed;
		}
	feed = calloc(1, sizeof(*feed));
	if (!feed)
		abort();
	feed->events = events;
	feed->last = last;
	snprintf(feed->project, sizeof(feed->project), "%s", project);
	if (!events->feeds)
		loop_timer_arm(events->keep_alive, ALIVE_NS);
	feed->next = events->feeds;
	events->feeds = feed;
	return feed;
}

static void feed_drop(struct feed *feed)
{
	struct feed **link = &feed->events->feeds;

	while (*link != feed)
		link = &(*link)->next;
	*link = feed->next;
	for (size_t i = 0; i < RECENT; i++)
		free(feed->recent[i].text);
	free(feed);
}

/* Followers. */

static void give(struct follower *f, int64_t id, const char *text)
{
	/* Texts are as long as the store's limits let them be: BATCH of them fit. */
	if (buf_append(&f->out, text, strlen(text)) < 0)
		abort();
	f->told = id;
}

static int give_row(void *ctx, const struct event_record *event)
{
	struct follower *f = ctx;
	char *text;

	if (event->id != f->after + 1)
		return 1; /* what was between them is not kept any more */
	f->after = event->id;
	if (!fits(&f->filter, event_type_by_name(event->type), event->subject, event->name))
		return 0;
	text = format(event);
	give(f, event->id, text);
	free(text);
	return 0;
}

/* False: there is a gap. */
static bool give_rows(struct follower *f)
{
	struct feed *feed = f->feed;
	int64_t before = f->after;
	struct error err;
	int r = store_events_each(feed->events->hulld->store, feed->project, f->after, BATCH, give_row, f, &err);

	if (r < 0)
		log_error_object(&err, "events cannot be read");
	return r == 0 && f->after > before;
}

static bool give_next(struct follower *f)
{
	const struct entry *entry = &f->feed->recent[(f->after + 1) % RECENT];

	if (entry->id != f->after + 1)
		return give_rows(f);
	f->after++;
	if (fits(&f->filter, entry->type, entry->subject, entry->name))
		give(f, entry->id, entry->text);
	return true;
}

/* False: the stream ends. */
static bool fill(struct follower *f, size_t enough)
{
	char mark[64];
	int64_t from = f->after;

	f->out.len = f->pos = 0;
	while (f->after < f->feed->last && f->out.len < enough && f->after - from < BATCH)
		if (!give_next(f))
			return false;
	if (f->out.len == 0 && f->told < f->after && (f->alive || f->after < f->feed->last)) {
		snprintf(mark, sizeof(mark), "id: %" PRId64 "\n\n", f->after);
		give(f, f->after, mark);
	} else if (f->out.len == 0 && f->alive) {
		give(f, f->told, ":\n\n");
	}
	f->alive = false;
	return true;
}

static ssize_t read_follower(void *ctx, char *buf, size_t max)
{
	struct follower *f = ctx;
	size_t n;

	if (f->pos == f->out.len && !fill(f, max))
		return HTTP_STREAM_END;
	n = f->out.len - f->pos < max ? f->out.len - f->pos : max;
	if (n)
		memcpy(buf, f->out.data + f->pos, n);
	f->pos += n;
	if (f->pos == f->out.len) { /* who waits needs no memory */
		buf_done(&f->out);
		buf_init(&f->out, OUT_MAX);
		f->pos = 0;
	}
	return (ssize_t)n;
}

static void follower_done(void *ctx)
{
	struct follower *f = ctx, **link = &f->feed->followers;

	while (*link != f)
		link = &(*link)->next;
	*link = f->next;
	if (f->feed->waking == f)
		f->feed->waking = f->next;
	if (!f->feed->followers)
		feed_drop(f->feed);
	buf_done(&f->out);
	free(f);
}

static const struct http_stream_ops follower_ops = {read_follower, follower_done, HTTP_EVENTS};

static void follow(struct request *req, struct events *events, const struct filter *filter, int64_t after, int64_t last)
{
	struct follower *f = calloc(1, sizeof(*f));
	char first[64];

	if (!f)
		abort();
	*f = (struct follower){.req = req, .filter = *filter, .after = after, .told = after,
		.feed = feed_get(events, request_project(req), last)};
	buf_init(&f->out, OUT_MAX);
	f->next = f->feed->followers;
	f->feed->followers = f;
	/* Where it begins, should it have to come again before anything happens. */
	snprintf(first, sizeof(first), "retry: %d\nid: %" PRId64 "\n\n", RETRY_MS, after);
	give(f, after, first);
	request_reply_stream(req, &follower_ops, f);
}

/* Pages. */

struct page {
	const struct filter *filter;
	json_t *items;
	int64_t cursor, limit;
};

static int add_to_page(void *ctx, const struct event_record *event)
{
	struct page *page = ctx;

	page->cursor = event->id;
	if (fits(page->filter, event_type_by_name(event->type), event->subject, event->name))
		json_array_append_new(page->items, events_dump(event));
	return json_array_size(page->items) >= (size_t)page->limit;
}

static void reply_page(struct request *req, struct hulld *hulld, const struct filter *filter, int64_t after, int64_t last)
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
	struct filter filter;
	int64_t after = 0, last = 0;
	bool stream = wants_stream(req);

	read_filter(req, &filter);
	if (find_start(req, hulld, stream, &after, &last) < 0)
		return;
	if (stream)
		follow(req, hulld->events, &filter, after, last);
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
