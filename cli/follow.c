/* Following events: one stream after the other, each begun by Last-Event-ID where the one before has ended. */
#include "cli/follow.h"

#include "cli/sse.h"
#include "cli/transfer.h"
#include "common/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define QUIET_MS 60000 /* hulld sends a comment every 15 s */
#define RETRY_MS 1000

struct follow {
	struct sse sse;
	int (*on_event)(void *ctx, const json_t *event);
	void *ctx;
	struct failure *fail;
	int refused;	     /* what that returned, if it was negative; then */
	struct failure said; /* is what it set, kept from what ends the transfer */
};

static int refuse(struct follow *follow, int r)
{
	follow->said = *follow->fail;
	return follow->refused = r;
}

static int on_event(void *ctx, const char *data, size_t len)
{
	struct follow *follow = ctx;
	json_t *event = json_parse(data, len, &follow->fail->error);
	int r;

	if (!event)
		return refuse(follow, error_prefix(&follow->fail->error, "an event is no JSON: "));
	r = follow->on_event(follow->ctx, event);
	json_decref(event);
	return r < 0 ? refuse(follow, r) : 0;
}

static int on_bytes(void *ctx, const char *data, size_t len)
{
	struct follow *follow = ctx;
	int r = sse_feed(&follow->sse, data, len);

	if (r < 0 && follow->refused == 0)
		refuse(follow, error_set(&follow->fail->error, -r, "an event is too large"));
	return r;
}

/* Until it ends: 0, or -errno with `fail` set. */
static int stream(struct client *client, const char *query, struct follow *follow, struct failure *fail)
{
	cleanup_free char *path = NULL, *line = NULL;
	struct transfer t;
	int r;

	if (asprintf(&path, "/v1/events%s%s", query[0] ? "?" : "", query) < 0)
		abort();
	transfer_init(&t, client, "GET", path);
	transfer_add_header(&t, "Accept: text/event-stream");
	if (follow->sse.id >= 0) {
		if (asprintf(&line, "Last-Event-ID: %lld", follow->sse.id) < 0)
			abort();
		transfer_add_header(&t, line);
	}
	t.sink = on_bytes;
	t.sink_ctx = follow;
	t.quiet_max_ms = QUIET_MS;
	sse_restart(&follow->sse);
	r = transfer_finish(&t, fail);
	transfer_done(&t);
	return r;
}

int follow_events(struct client *client, const char *query, int (*act)(void *ctx, const json_t *event), void *ctx, struct failure *fail)
{
	struct follow follow = {.on_event = act, .ctx = ctx, .fail = fail};
	struct retry retry = {0};
	int r;

	sse_init(&follow.sse, on_event, &follow);
	do {
		long long before = follow.sse.id;

		memset(fail, 0, sizeof(*fail));
		r = stream(client, query, &follow, fail);
		if (follow.sse.id > before)
			retry = (struct retry){.worked = true};
		/* A stream ends when hulld does, which says nothing else. */
		fail->lost |= r == 0;
	} while (follow.refused == 0 && client_retries(client, &retry, follow.sse.retry_ms >= 0 ? follow.sse.retry_ms : RETRY_MS, fail));
	sse_done(&follow.sse);
	if (follow.refused < 0)
		*fail = follow.said;
	return -fail->error.errnum;
}
