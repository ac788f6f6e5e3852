/* Who follows the events of a project.
 *
 * Theory of operation. A feed is a project that is followed, with its latest events as text for the stream. The store says when there is
 * a new row; on the next round of the loop each feed takes up what has been committed since, and wakes its followers, some in each round, so
 * that requests are answered between them, however many follow. A follower's
 * `after` is the last event that it has been given or that its filter kept from it; what it does not get, it is told of by an id
 * without data, which moves its Last-Event-ID (section 9.2.6), so that a filter that never fits does not make a cursor expire. */
#ifndef HULL_API_EVENT_STREAMS_H
#define HULL_API_EVENT_STREAMS_H

#include "api/hulld.h"

struct event_filter;
struct event_streams;

/* NULL with `err` set. Loop thread, as all here. */
struct event_streams *event_streams_new(struct hulld *hulld, struct error *err);
/* After all requests have ended. NULL is fine. */
void event_streams_free(struct event_streams *streams);

/* There may be new rows, of whichever project: they are read later. */
void event_streams_look(struct event_streams *streams);

/* Answers `req` with a stream of what comes after the event `after` in its project, whose last is `last` now. `filter` is copied. */
void event_streams_follow(struct event_streams *streams, struct request *req, const struct event_filter *filter, int64_t after,
	int64_t last);

#endif
