/* When a machine is idle, and what follows. See idle.h. */
#include "api/idle.h"

#include "api/events.h"
#include "api/host_drain.h"
#include "api/hostnames.h"
#include "api/ingress_client.h"
#include "api/machine.h"
#include "api/operation.h"
#include "api/start_order.h"
#include "common/checked.h"
#include "common/log.h"

#include <stdlib.h>

#define NS_PER_S      1000000000ull
#define NS_PER_MS     1000000ull
#define MS_PER_S      1000
#define HOST_RETRY_MS 1000 /* while it starts nothing */
#define LATER_S	      10   /* after the first suspend that has failed; then twice as much each time, */
#define LATER_S_MAX   3600

struct idle {
	struct loop_source *timer; /* it is to be looked at, or may be woken again */
	uint64_t since_ns;	   /* nobody has used it since, by way of hulld */
	bool backs_off;
	uint64_t later_ns; /* how much longer it has to be, as suspends have failed */
};

static uint64_t after_ns(const struct machine *m)
{
	return (uint64_t)m->spec.idle->after_s * NS_PER_S;
}

static uint64_t left_ns(const struct machine *m)
{
	uint64_t now = monotonic_ns(), due = m->idle->since_ns + after_ns(m) + m->idle->later_ns;

	return due > now ? due - now : 0;
}

/* By way of hulld, or so that it may not be stopped. */
static bool is_used(const struct machine *m)
{
	return m->uses || m->frozen || m->patching || operation_current(m) || start_order_needs(m);
}

static bool may_sleep(const struct machine *m)
{
	return m->record.state == MACHINE_RUNNING && m->spec.idle && m->idle && !m->deleting && !is_used(m) && left_ns(m) == 0;
}

static void put_to_sleep(struct machine *m)
{
	struct problem problem;

	if (machine_sleep(m, &problem) == 0)
		return;
	log_error_object(&problem.error, m->record.name);
	if (m->spec.idle->action == IDLE_SUSPEND)
		idle_fail(m, problem.error.message);
}

static void look(struct machine *m)
{
	uint64_t left;

	if (m->record.state != MACHINE_RUNNING || !m->spec.idle)
		return;
	if (is_used(m))
		m->idle->since_ns = monotonic_ns();
	left = left_ns(m);
	loop_timer_arm(m->idle->timer, left ? left : after_ns(m)); /* the latter: should nothing come of what follows */
	if (left)
		return;
	if (m->spec.ports.len)
		ingress_sleep(m->hulld->ingress, m, m->spec.idle->after_s * MS_PER_S);
	else
		put_to_sleep(m);
}

static void on_timer(void *ctx)
{
	struct machine *m = ctx;

	if (!m->idle->backs_off) {
		look(m);
		return;
	}
	m->idle->backs_off = false;
	ingress_tell_gate(m->hulld->ingress, m);
	hostnames_changed(m->hulld);
}

static struct idle *idle_of(struct machine *m)
{
	if (m->idle)
		return m->idle;
	m->idle = calloc(1, sizeof(*m->idle));
	if (!m->idle)
		abort();
	m->idle->timer = loop_add_timer(m->hulld->loop, on_timer, m);
	if (!m->idle->timer)
		abort();
	return m->idle;
}

void idle_begin(struct machine *m)
{
	if (!m->spec.idle) {
		idle_end(m);
		return;
	}
	idle_of(m)->since_ns = monotonic_ns();
	loop_timer_arm(m->idle->timer, left_ns(m));
}

void idle_fail(struct machine *m, const char *reason)
{
	struct idle *idle = idle_of(m);

	events_add(m, "machine.suspend_failed", reason);
	idle->later_ns = idle->later_ns ? 2 * idle->later_ns : LATER_S * NS_PER_S;
	if (idle->later_ns > LATER_S_MAX * NS_PER_S)
		idle->later_ns = LATER_S_MAX * NS_PER_S;
	idle->since_ns = monotonic_ns();
	loop_timer_arm(idle->timer, m->spec.idle ? left_ns(m) : UINT64_MAX);
}

void idle_forgive(struct machine *m)
{
	if (m->idle)
		m->idle->later_ns = 0;
}

void idle_end(struct machine *m)
{
	if (!m->idle)
		return;
	m->idle->backs_off = false;
	loop_timer_arm(m->idle->timer, UINT64_MAX);
}

void idle_free(struct machine *m)
{
	if (m->idle)
		loop_remove(m->idle->timer);
	free(m->idle);
	m->idle = NULL;
}

void idle_use(struct machine *m)
{
	m->uses++;
}

void idle_unuse(struct hulld *hulld, const char *machine_id)
{
	struct machine *m = machine_by_id(hulld, machine_id);

	if (!m)
		return;
	m->uses--;
	if (m->idle)
		m->idle->since_ns = monotonic_ns();
}

void idle_answered(struct machine *m, int64_t idle_ms, bool held)
{
	if (held)
		m->gate = GATE_WAKE;
	if (held && may_sleep(m))
		put_to_sleep(m);
	else if (!held && may_sleep(m) && idle_ms >= 0 && idle_ms < m->spec.idle->after_s * MS_PER_S)
		loop_timer_arm(m->idle->timer, after_ns(m) - (uint64_t)idle_ms * NS_PER_MS);
	ingress_tell_gate(m->hulld->ingress, m); /* where it was not put to sleep after all */
}

void idle_wanted(struct machine *m)
{
	if (host_starts(m->hulld))
		idle_wake(m);
	else if (m->record.asleep)
		idle_back_off(m, HOST_RETRY_MS);
}

void idle_wake(struct machine *m)
{
	if (m->record.asleep && !m->deleting && !idle_backs_off(m) && host_starts(m->hulld))
		machine_wake(m);
}

void idle_back_off(struct machine *m, int64_t wait_ms)
{
	idle_of(m)->backs_off = true;
	loop_timer_arm(m->idle->timer, (uint64_t)wait_ms * NS_PER_MS);
	ingress_tell_gate(m->hulld->ingress, m);
	hostnames_changed(m->hulld);
}

bool idle_backs_off(const struct machine *m)
{
	return m->idle && m->idle->backs_off;
}

bool idle_sleeps(const struct machine *m)
{
	return m->record.asleep && !machine_is_active(m) && !machine_restarts(m) && !m->deleting;
}
