/* Whether a machine that runs does what it is for.
 *
 * Theory of operation. One timer, one call: the next check begins `interval_s` after the end of the one before; until the first
 * success a second after it, so that who waits for a machine that comes up does not wait for the timer. Of the failures then one in
 * `interval_s` counts, so that it has no less time to come up, and none does in its grace: `grace_s` of the time that the workload has
 * run, of which what it was frozen for is no part. It is the run's: a success ends it, and a check that is another does not renew it. What a machine says of itself is one order's answer (HEALTH), or why there
 * was none, which counts as not healthy; but a frozen machine is neither. It is memory only: a new hulld begins with `starting`. */
#include "api/health.h"

#include "api/events.h"
#include "api/ingress_client.h"
#include "api/machine.h"
#include "api/operation.h"
#include "api/order_call.h"
#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S  1000000000ull
#define NS_PER_MS 1000000ull
#define FROZEN_MS 60000 /* that a start waits for its check beyond what that may take */

struct health {
	struct machine *machine;
	struct loop_source *timer;
	struct order_call *call;
	int state; /* enum health_state */
	int64_t since_ms, failures; /* in a row */
	uint64_t counts_at_ns;	    /* a failure before that, while it starts, is not counted */
	uint64_t looked_at_ns;	    /* when the last check ended */
	char reason[ORDER_REASON_MAX + 1];
};

static void enter(struct health *health, int state)
{
	if (health->state == state)
		return;
	log_info("machine %s is %s%s%s", health->machine->record.name, health_state_names[state], health->reason[0] ? ": " : "",
		health->reason);
	health->state = state;
	health->since_ms = now_ms();
	events_add(health->machine, state == HEALTH_HEALTHY ? "machine.healthy" : "machine.unhealthy", health->reason);
	ingress_tell_gate(health->machine->hulld->ingress, health->machine);
	machine_tell_waiters(health->machine);
	operation_health_is_known(health->machine, state == HEALTH_HEALTHY, health->reason);
}

static void arm(struct health *health)
{
	bool starts = health->state == HEALTH_STARTING;

	loop_timer_arm(health->timer, starts ? NS_PER_S : (uint64_t)health->machine->spec.health->interval_s * NS_PER_S);
}

static bool has_grace(const struct machine *m, uint64_t now_ns)
{
	return m->grace_from_ns && now_ns - m->grace_from_ns < (uint64_t)m->spec.health->grace_s * NS_PER_S;
}

/* Between two looks of which the second finds it frozen, it is taken to have been. */
static void extend_grace(struct health *health, uint64_t now_ns)
{
	if (health->machine->grace_from_ns)
		health->machine->grace_from_ns += now_ns - health->looked_at_ns;
}

static bool counts(struct health *health, uint64_t now)
{
	if (health->state == HEALTH_STARTING && (now < health->counts_at_ns || has_grace(health->machine, now)))
		return false;
	health->counts_at_ns = now + (uint64_t)health->machine->spec.health->interval_s * NS_PER_S;
	return true;
}

static void on_answer(void *ctx, const struct order_answer *answer, const struct error *err)
{
	struct health *health = ctx;
	const struct health_spec *spec = health->machine->spec.health;
	uint64_t now = monotonic_ns();

	health->call = NULL;
	if (err && err->errnum == EBUSY) /* frozen */
		extend_grace(health, now);
	health->looked_at_ns = now;
	if (err && err->errnum == EBUSY) {
		arm(health);
		return;
	}
	snprintf(health->reason, sizeof(health->reason), "%.*s", ORDER_REASON_MAX,
		err ? err->message : answer->reason ? answer->reason : "");
	if (answer && answer->healthy) {
		health->failures = 0;
		health->machine->grace_from_ns = 0;
		health->reason[0] = '\0';
		enter(health, HEALTH_HEALTHY);
	} else if (counts(health, now) && ++health->failures >= spec->retries) {
		enter(health, HEALTH_UNHEALTHY);
	}
	arm(health);
}

static void on_due(void *ctx)
{
	struct health *health = ctx;
	struct machine *m = health->machine;
	struct order order = {.verb = ORDER_HEALTH, .health = &m->spec.health->check};
	char vsock[512];

	health->call = order_call(m->hulld->loop, machine_run_path(m, "vsock.sock", vsock, sizeof(vsock)), &order,
		(unsigned)m->spec.health->timeout_s * 1000, on_answer, health);
}

int64_t health_patience_ms(const struct health_spec *spec)
{
	return (spec->grace_s + spec->retries * (spec->interval_s + spec->timeout_s)) * 1000 + FROZEN_MS;
}

void health_begin_grace(struct machine *m, int64_t ago_ms)
{
	uint64_t now = monotonic_ns(), ago_ns = ago_ms > 0 ? (uint64_t)ago_ms * NS_PER_MS : 0;

	m->grace_from_ns = ago_ns < now ? now - ago_ns : 1;
}

void health_start(struct machine *m)
{
	struct health *health;

	health_stop(m);
	if (!m->spec.health) {
		operation_health_is_known(m, true, "");
		return;
	}
	health = calloc(1, sizeof(*health));
	if (!health)
		abort();
	*health = (struct health){.machine = m, .state = HEALTH_STARTING, .since_ms = now_ms(), .looked_at_ns = monotonic_ns()};
	health->timer = loop_add_timer(m->hulld->loop, on_due, health);
	if (!health->timer)
		abort();
	loop_timer_arm(health->timer, 0);
	m->health = health;
	ingress_tell_gate(m->hulld->ingress, m);
}

void health_stop(struct machine *m)
{
	if (!m->health)
		return;
	order_cancel(m->health->call);
	loop_remove(m->health->timer);
	free(m->health);
	m->health = NULL;
}

int health_state(const struct machine *m)
{
	return m->health ? m->health->state : HEALTH_UNKNOWN;
}

void health_view(const struct machine *m, struct health_view *ret, int64_t *ret_since_ms)
{
	const struct health *health = m->health;

	*ret = (struct health_view){.spec = *m->spec.health, .state = HEALTH_UNKNOWN};
	*ret_since_ms = 0;
	if (!health)
		return;
	ret->state = health->state;
	ret->reason = health->reason[0] ? (char *)health->reason : NULL;
	*ret_since_ms = health->since_ms;
}
