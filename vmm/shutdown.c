/* Asking a guest to power off.
 *
 *	IDLE ──request──▶ ASKING ──request, or the deadline──▶ GIVEN UP
 *	                   │  ▲
 *	                   └──┘ now and then
 *
 * It is asked again because a guest may be deaf at first: the button's driver, or whoever listens to it, comes late in a
 * boot. A guest that is shutting down already takes no notice. */
#include "vmm/shutdown.h"

#include "common/loop.h"

#include <stdio.h>
#include <stdlib.h>

#define NS_PER_MS 1000000ull

enum phase { PHASE_IDLE, PHASE_ASKING, PHASE_GIVEN_UP };

struct shutdown {
	const struct shutdown_ops *ops;
	void *ctx;
	struct shutdown_times times;
	struct loop_source *deadline, *again;
	enum phase phase;
	const char *who;
};

static void give_up(struct shutdown *shutdown, const char *why)
{
	shutdown->phase = PHASE_GIVEN_UP;
	loop_timer_arm(shutdown->deadline, UINT64_MAX);
	loop_timer_arm(shutdown->again, UINT64_MAX);
	shutdown->ops->give_up(shutdown->ctx, why);
}

static void ask(void *ctx)
{
	struct shutdown *shutdown = ctx;

	shutdown->ops->ask(shutdown->ctx);
	loop_timer_arm(shutdown->again, shutdown->times.ask_every_ms * NS_PER_MS);
}

static void time_is_over(void *ctx)
{
	struct shutdown *shutdown = ctx;
	char why[96];

	snprintf(why, sizeof(why), "%s, and the guest did not power off within %g s", shutdown->who,
		(double)shutdown->times.timeout_ms / 1000);
	give_up(shutdown, why);
}

struct shutdown *shutdown_new(
	struct loop *loop, struct shutdown_times times, const struct shutdown_ops *ops, void *ctx)
{
	struct shutdown *shutdown = calloc(1, sizeof(*shutdown));

	if (!shutdown)
		return NULL;
	*shutdown = (struct shutdown){.ops = ops, .ctx = ctx, .times = times};
	shutdown->deadline = loop_add_timer(loop, time_is_over, shutdown);
	shutdown->again = loop_add_timer(loop, ask, shutdown);
	if (shutdown->deadline && shutdown->again)
		return shutdown;
	shutdown_free(shutdown);
	return NULL;
}

void shutdown_free(struct shutdown *shutdown)
{
	if (!shutdown)
		return;
	loop_remove(shutdown->deadline);
	loop_remove(shutdown->again);
	free(shutdown);
}

void shutdown_request(struct shutdown *shutdown, const char *who)
{
	char why[32];

	switch (shutdown->phase) {
	case PHASE_IDLE:
		shutdown->who = who;
		if (shutdown->times.timeout_ms == 0) {
			give_up(shutdown, who);
			break;
		}
		shutdown->phase = PHASE_ASKING;
		loop_timer_arm(shutdown->deadline, shutdown->times.timeout_ms * NS_PER_MS);
		ask(shutdown);
		break;
	case PHASE_ASKING:
		snprintf(why, sizeof(why), "%s, twice", who);
		give_up(shutdown, why);
		break;
	case PHASE_GIVEN_UP:
		break;
	}
}
