/* When which rows are forgotten. See forget.h. */
#include "api/forget.h"

#include "api/events.h"
#include "api/idempotency.h"
#include "api/operation.h"
#include "api/project.h"
#include "api/token.h"
#include "common/log.h"

#include <errno.h>
#include <stdlib.h>

#define STEPS_NS    10000000ull /* so long others wait, or for one step, then so long nobody does: */
#define PAUSE_NS    50000000ull
#define NS_PER_HOUR 3600000000000ull

struct forgetter {
	struct hulld *hulld;
	struct loop_source *timer;
	size_t kind; /* whose turn it is */
	bool sleeps, asked; /* until the hour is over; to begin anew once all kinds have had their turn */
};

/* Each a step: how many rows have gone, or -errno with `err` set. `now` is 0 as long as the clock is not believed. */
static const struct {
	const char *kept; /* where it fails */
	int (*forget)(struct hulld *hulld, int64_t now, struct error *err);
} kinds[] = {
	{"what a deleted project has left is kept", projects_forget},
	{"old answers are kept", idempotency_forget},
	{"old operations are kept", operations_forget},
	{"old events are kept", events_forget},
	{"tokens that have expired are kept", tokens_forget},
};

static void on_timer(void *ctx)
{
	struct forgetter *forgetter = ctx;
	uint64_t end = monotonic_ns() + STEPS_NS;
	struct error err;
	int n;

	do {
		n = kinds[forgetter->kind].forget(forgetter->hulld, clock_is_settled() ? now_ms() : 0, &err);
	} while (n > 0 && monotonic_ns() < end);
	if (n < 0)
		log_error_object(&err, kinds[forgetter->kind].kept);
	if (n <= 0)
		forgetter->kind = (forgetter->kind + 1) % ARRAY_SIZE(kinds);
	if (n <= 0 && forgetter->kind == 0) {
		forgetter->sleeps = !forgetter->asked;
		forgetter->asked = false;
	}
	loop_timer_arm(forgetter->timer, forgetter->sleeps ? NS_PER_HOUR : n > 0 ? PAUSE_NS : 0);
}

void forgetter_look(struct forgetter *forgetter)
{
	if (!forgetter)
		return;
	if (forgetter->sleeps)
		loop_timer_arm(forgetter->timer, 0);
	else
		forgetter->asked = true;
	forgetter->sleeps = false;
}

struct forgetter *forgetter_new(struct hulld *hulld, struct error *err)
{
	struct forgetter *forgetter = calloc(1, sizeof(*forgetter));

	if (!forgetter)
		abort();
	forgetter->hulld = hulld;
	forgetter->timer = loop_add_timer(hulld->loop, on_timer, forgetter);
	if (!forgetter->timer) {
		error_set_errno(err, errno, "cannot make a timer");
		free(forgetter);
		return NULL;
	}
	loop_timer_arm(forgetter->timer, 0);
	return forgetter;
}

void forgetter_free(struct forgetter *forgetter)
{
	if (!forgetter)
		return;
	loop_remove(forgetter->timer);
	free(forgetter);
}
