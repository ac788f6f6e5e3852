/* What has happened, as rows that clients read in pages or follow as a stream.
 *
 * Who follows is never waited for: a follower is a cursor into the rows, and its connection. What is new is read once for all that
 * follow a project, and formatted once; who is behind reads rows of its own, some at a time. One that takes nothing for a minute is cut off
 * by the HTTP server, and one that needs rows that are kept no more, here; each may come again with its cursor. */
#ifndef HULL_API_EVENTS_H
#define HULL_API_EVENTS_H

#include "api/hulld.h"

struct events;
struct machine;

extern const struct json_table event_page_table;

/* NULL with `err` set. */
struct events *events_new(struct hulld *hulld, struct error *err);
void events_free(struct events *events); /* after all requests have ended; NULL is fine */

/* A step of forgetting (forget.h) what is older than a week, or beyond the last 50,000 of a project. */
int events_forget(struct hulld *hulld, int64_t now, struct error *err);

/* What has become of a machine that its row does not say; `reason` may be "". A failure is logged. */
void events_add(const struct machine *m, const char *type, const char *reason);

/* Has a machine, after the event `after`, come to one of `states` (bits as machine_http_read_states() has them)? 1 or 0; -ECANCELED
 * having refused, as an event that is not kept could have been that. */
int events_passed(struct request *req, const struct machine *m, int64_t after, unsigned states);

/* As clients see it, a new object. */
json_t *events_dump(const struct event_record *event);

/* GET /v1/events. */
void events_http(struct request *req, void *ctx);

#endif
