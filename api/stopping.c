/* How a machine is asked to end, within record.stop_timeout_s. Called by machine.c and supervisor.c.
 *
 *	supervisor_stop → (connections to its ports end, or `stop.drain_s` is over) → the agent is told → … → SIGKILL at the deadline
 *
 * hull-ingress takes no new connection meanwhile (ingress_client.c), and HAProxy sends none there once it was told (hostnames.c). What has
 * begun may end before the workload hears of it: many programs end at once then, and what they had not answered is lost. It costs half of the
 * time at most. */
#include "api/supervisor.h"

#include "api/agent.h"
#include "api/agent_ready.h"
#include "api/hostnames.h"
#include "api/ingress_client.h"
#include "api/operation.h"
#include "common/checked.h"
#include "common/log.h"

#include <string.h>

#define NS_PER_MS 1000000ull
#define MS_PER_S  1000

static void on_answer(void *ctx, int r)
{
	struct machine *m = ctx;

	m->agent = NULL;
	if (r == 0)
		return;
	log_warn("machine %s: its agent does not stop it: %s", m->record.name, strerror(abs(r)));
	supervisor_terminate(m);
}

int64_t supervisor_stop_left_ms(const struct machine *m)
{
	uint64_t now = monotonic_ns();

	return m->stop_at_ns > now ? (int64_t)((m->stop_at_ns - now) / NS_PER_MS) : 0;
}

/* The agent's own SIGKILL comes early enough for an orderly power-off before ours. */
static void tell_agent(struct machine *m)
{
	int64_t left_ms = supervisor_stop_left_ms(m);
	char vsock[512];

	supervisor_forget_drain(m);
	m->told_to_end = true;
	if (operation_is_in(m, PHASE_CONNECTIONS)) {
		operation_enter(m, PHASE_WORKLOAD);
		machine_commit(m); /* the next hulld does not wait for connections again, and nobody cancels it any more */
	}
	if (left_ms)
		m->agent = agent_call(m->hulld->loop, machine_run_path(m, "vsock.sock", vsock, sizeof(vsock)), HULL_AGENT_STOP,
			(uint32_t)(left_ms / 5 * 4), (unsigned)left_ms, on_answer, m);
}

static void on_drain_over(void *ctx)
{
	struct machine *m = ctx;

	log_info("machine %s: connections are left; it is told to end", m->record.name);
	tell_agent(m);
}

void supervisor_drained(struct machine *m)
{
	if (m->draining && m->drain_asked)
		tell_agent(m);
}

void supervisor_forget_drain(struct machine *m)
{
	m->draining = m->drain_asked = false;
	loop_remove(m->drain);
	m->drain = NULL;
}

static bool has_hostname(const struct machine *m)
{
	const struct port_spec *ports = m->spec.ports.items;

	for (size_t i = 0; i < m->spec.ports.len; i++)
		if (ports[i].hostname)
			return true;
	return false;
}

/* As long as HAProxy sends connections there, it is no answer that there is none. To one that is put to sleep it goes on sending them:
 * hull-ingress holds them. */
void supervisor_names_are_told(struct machine *m)
{
	if (!m->draining || m->drain_asked)
		return;
	if (has_hostname(m) && !m->record.asleep && !hostnames_have_told(m->hulld, m->drain_change))
		return;
	m->drain_asked = true;
	ingress_drain(m->hulld->ingress, m);
}

static int64_t drain_ms(const struct machine *m)
{
	int64_t wait_ms = machine_running_spec(m)->stop.drain_s * MS_PER_S, most_ms = m->record.stop_timeout_s * MS_PER_S / 2;

	if (m->told_to_end || !m->spec.ports.len)
		return 0;
	return wait_ms > most_ms ? most_ms : wait_ms;
}

bool supervisor_drains(const struct machine *m)
{
	return drain_ms(m) > 0;
}

/* A new hulld finds less time left than the whole: of that, too, half is the workload's. False: there is nothing to wait for. */
static bool drain(struct machine *m, uint64_t timeout_ms)
{
	int64_t wait_ms = drain_ms(m), most_ms = (int64_t)(timeout_ms / 2);

	if (wait_ms > most_ms)
		wait_ms = most_ms;
	if (wait_ms == 0)
		return false;
	if (!m->drain)
		m->drain = loop_add_timer(m->hulld->loop, on_drain_over, m);
	if (!m->drain)
		return false;
	loop_timer_arm(m->drain, (uint64_t)wait_ms * NS_PER_MS);
	if (!m->draining)
		m->drain_change = hostnames_changes(m->hulld);
	m->draining = true;
	supervisor_names_are_told(m);
	return true;
}

void supervisor_run_on(struct machine *m)
{
	supervisor_forget_drain(m);
	loop_timer_arm(m->stop_deadline, UINT64_MAX);
}

void supervisor_stop(struct machine *m, uint64_t timeout_ms)
{
	uint64_t timeout_ns = timeout_ms * NS_PER_MS;

	agent_cancel(m->agent);
	agent_ready_free(m->ready);
	m->agent = NULL;
	m->ready = NULL;
	loop_timer_arm(m->start_deadline, UINT64_MAX);
	loop_timer_arm(m->retry, UINT64_MAX);
	loop_timer_arm(m->stop_deadline, timeout_ns);
	m->stop_at_ns = monotonic_ns() + timeout_ns;
	if (!m->up)
		supervisor_terminate(m);
	else if (!drain(m, timeout_ms))
		tell_agent(m);
}
