/* Webhooks: a project's events, POSTed to where its client says, signed, each at least once and in their order.
 *
 * A webhook is a cursor into its project's rows of events, as a follower of GET /v1/events is, but one that outlives its client. The event
 * after the cursor is sent until it is answered with a 2xx; then the cursor moves. What fails is sent again, later each time (a factor of
 * two, up to an hour, with some chance in it; Retry-After counts where it is longer), and nothing overtakes it. What has failed for
 * `give_up_s`, or is answered with 410 Gone, is disabled, which is an event. While it is disabled the cursor stays: once enabled, it goes on.
 *
 *	idle → queued → sending ─ 2xx → queued → … → idle
 *	         ↑         └ anything else → waiting ─┐      410, or for too long → disabled
 *	         └────────────────────────────────────┘
 *
 * How far each has come is written within a second, all in one transaction: what a hulld that is killed had delivered in its last second is
 * delivered again, with the same id. Of all webhooks WEBHOOKS_ACTIVE_MAX are sent at a time, of one project PROJECT_ACTIVE_MAX. */
#ifndef HULL_API_WEBHOOK_H
#define HULL_API_WEBHOOK_H

#include "api/hulld.h"
#include "api/webhook_send.h"
#include "api/webhook_sign.h"

#define WEBHOOKS_MAX	    16 /* of a project */
#define WEBHOOKS_ACTIVE_MAX 64

struct webhook_spec {
	char *url;
	struct json_strings events; /* types, and things for all of theirs; none: all */
	char *secret;		    /* NULL: as it was, or to be made */
	bool enabled;
	json_t *labels;
};
extern const struct json_table webhook_spec_table, webhook_table, new_webhook_table, ping_result_table;

enum webhook_state { WEBHOOK_ACTIVE, WEBHOOK_FAILING, WEBHOOK_DISABLED, WEBHOOK_N_STATES };
extern const char *const webhook_state_names[]; /* NULL-terminated */

struct webhook {
	struct webhooks *webhooks;
	struct webhook_record record;
	struct webhook_spec spec;
	uint64_t types;		  /* bits, by index in event_types */
	struct sending *sending;  /* NULL: none */
	int64_t sent;		  /* the event that is being sent */
	bool queued;
	bool unwritten;		  /* its row does not say how far it has come */
	uint64_t retry_ns;	  /* of the monotonic clock: it is not sent before; 0: at once */
	struct webhook *next, *next_queued;
};

struct webhooks {
	struct hulld *hulld;
	struct sender *sender;
	struct loop_source *work, *retry, *write; /* timers */
	struct webhook *first;			  /* the oldest first */
	struct webhook *queue, **queue_end;
	struct webhook *active[WEBHOOKS_ACTIVE_MAX]; /* those that are being sent */
	size_t n_active;
	bool write_is_due; /* the timer of `write` runs */
	struct ping *pings;
};

/* Loads them, and goes on. NULL with `err` set. */
struct webhooks *webhooks_new(struct hulld *hulld, struct error *err);
/* After all requests have ended; writes how far they have come. NULL is fine. */
void webhooks_free(struct webhooks *webhooks);

/* A project has an event that is about to be committed. NULL is fine. */
void webhooks_on_event(struct webhooks *webhooks, const char *project);
/* The project, and its rows, have gone. */
void webhooks_forget(struct webhooks *webhooks, const char *project);

/* For the routes, and metrics. */

enum webhook_state webhook_state(const struct webhook *hook);

/* Takes the record, which has its row. NULL with `err` set, and nothing taken. */
struct webhook *webhook_add(struct webhooks *webhooks, struct webhook_record *record, struct error *err);
/* Its row has been changed to `record`, which is taken; `anew`: it is to be sent at once, to somewhere else perhaps. */
int webhook_change(struct webhook *hook, struct webhook_record *record, bool anew, struct error *err);
void webhook_remove(struct webhook *hook); /* frees it */
/* Sends a POST of that body, by its secret. NULL with `err` set. */
struct sending *webhook_send(const struct webhook *hook, const char *id, const char *body, sent_fn fn, void *ctx, struct error *err);
/* An event's body, owned by the caller. */
char *webhook_body(const struct event_record *event);

/* "FIRST_RETRY_MS[,GIVE_UP_S[,TIMEOUT_MS]]". 0 or -EINVAL with `err` set. */
int webhook_timing_parse(const char *text, struct webhook_timing *ret, struct error *err);

/* Routes; their context is a struct hulld. */
void webhook_http_create(struct request *req, void *ctx);
void webhook_http_list(struct request *req, void *ctx);
void webhook_http_get(struct request *req, void *ctx);
void webhook_http_patch(struct request *req, void *ctx);
void webhook_http_delete(struct request *req, void *ctx);
void webhook_http_ping(struct request *req, void *ctx);

#endif
