/* Events as streams (Server-Sent Events: WHATWG HTML, section 9.2). See event_streams.h. */
#include "api/event_streams.h"

#include "api/event_filter.h"
#include "api/event_types.h"
#include "api/events.h"
#include "common/buf.h"
#include "common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ALIVE_NS       (15 * 1000000000ull) /* an idle stream says something, so that proxies keep it */
#define RETRY_MS       1000
#define RECENT	       32 /* of a feed, in memory */
#define WOKEN_AT_ONCE  16
#define BATCH	       64 /* rows that one who is behind reads at a time */
#define OUT_MAX	       (1u << 20)

/* As a stream has it. */
struct entry {
	int64_t id;
	int type; /* index in event_types */
	char subject[NAME_MAX_BYTES + 1], name[TOKEN_LABEL_MAX + 1];
	char *text; /* owned */
};

struct feed {
	struct event_streams *streams;
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
	struct event_filter filter;
	int64_t after, told; /* `told`: the last id in what it was given */
	bool alive;	     /* it is to be told that this is alive */
	struct buf out;
	size_t pos; /* of what is given, in `out` */
	struct follower *next;
};

struct event_streams {
	struct hulld *hulld;
	struct loop_source *look, *keep_alive;
	bool fresh; /* there may be rows that no feed has taken up */
	struct feed *feeds;
};

/* Feeds. */

static char *format(const struct event_record *event)
{
	json_t *dumped = events_dump(event);
	char *data = json_print(dumped, ""), *text;

	if (asprintf(&text, "id: %" PRId64 "\nevent: %s\ndata: %s\n\n", event->id, event->type, data) < 0)
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
	loop_timer_arm(feed->streams->look, 0);
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
		loop_timer_arm(feed->streams->look, 0);
}

static void feed_look(struct feed *feed)
{
	int64_t before = feed->last;
	struct error err;

	if (store_events_each(feed->streams->hulld->store, feed->project, feed->last, RECENT, take_up, feed, &err) < 0)
		log_error_object(&err, "events are not passed on");
	if (feed->last == before)
		return;
	feed->streams->fresh |= feed->last - before >= RECENT;
	wake_all(feed);
}

static void on_look(void *ctx)
{
	struct event_streams *streams = ctx;
	bool fresh = streams->fresh;

	streams->fresh = false;
	for (struct feed *feed = streams->feeds; feed; feed = feed->next) {
		if (fresh)
			feed_look(feed);
		wake_some(feed);
	}
}

static void on_keep_alive(void *ctx)
{
	struct event_streams *streams = ctx;

	for (struct feed *feed = streams->feeds; feed; feed = feed->next) {
		for (struct follower *f = feed->followers; f; f = f->next)
			f->alive = true;
		wake_all(feed);
	}
	loop_timer_arm(streams->keep_alive, streams->feeds ? ALIVE_NS : UINT64_MAX);
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

static struct feed *feed_get(struct event_streams *streams, const char *project, int64_t last)
{
	struct feed *feed;

	for (feed = streams->feeds; feed; feed = feed->next)
		if (strcmp(feed->project, project) == 0) {
			if (feed->last > last) /* a project of that name was deleted: its events are nobody's */
				feed_restart(feed, last);
			return feed;
		}
	feed = calloc(1, sizeof(*feed));
	if (!feed)
		abort();
	feed->streams = streams;
	feed->last = last;
	snprintf(feed->project, sizeof(feed->project), "%s", project);
	if (!streams->feeds)
		loop_timer_arm(streams->keep_alive, ALIVE_NS);
	feed->next = streams->feeds;
	streams->feeds = feed;
	return feed;
}

static void feed_drop(struct feed *feed)
{
	struct feed **link = &feed->streams->feeds;

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
	if (!event_filter_fits(&f->filter, event_type_by_name(event->type), event->subject, event->name))
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
	int r = store_events_each(feed->streams->hulld->store, feed->project, f->after, BATCH, give_row, f, &err);

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
	if (event_filter_fits(&f->filter, entry->type, entry->subject, entry->name))
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

void event_streams_follow(struct event_streams *streams, struct request *req, const struct event_filter *filter, int64_t after, int64_t last)
{
	struct follower *f = calloc(1, sizeof(*f));
	char first[64];

	if (!f)
		abort();
	*f = (struct follower){.req = req, .filter = *filter, .after = after, .told = after,
		.feed = feed_get(streams, request_project(req), last)};
	buf_init(&f->out, OUT_MAX);
	f->next = f->feed->followers;
	f->feed->followers = f;
	/* Where it begins, should it have to come again before anything happens. */
	snprintf(first, sizeof(first), "retry: %d\nid: %" PRId64 "\n\n", RETRY_MS, after);
	give(f, after, first);
	request_reply_stream(req, &follower_ops, f);
}

/* All of them. */

struct event_streams *event_streams_new(struct hulld *hulld, struct error *err)
{
	struct event_streams *streams = calloc(1, sizeof(*streams));

	if (!streams) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	streams->hulld = hulld;
	streams->look = loop_add_timer(hulld->loop, on_look, streams);
	streams->keep_alive = loop_add_timer(hulld->loop, on_keep_alive, streams);
	if (streams->look && streams->keep_alive)
		return streams;
	error_set_errno(err, errno, "cannot make a timer");
	event_streams_free(streams);
	return NULL;
}

void event_streams_free(struct event_streams *streams)
{
	if (!streams)
		return;
	loop_remove(streams->look);
	loop_remove(streams->keep_alive);
	free(streams);
}

void event_streams_look(struct event_streams *streams)
{
	streams->fresh = true;
	loop_timer_arm(streams->look, 0);
}
