#include "api/host_drain.h"

#include "api/machine.h"
#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_MS      1000000ull
#define MS_PER_S       1000
#define ENDED_A_ROUND  8
#define RETRY_MS       1000 /* where the database refuses */
#define START_EVERY_MS 5    /* of those that were held back: others are served in between */

struct host_drain {
	struct hulld *hulld;
	struct host_record record;
	struct loop_source *look, *deadline;
	bool for_good;
	uint64_t late_at_ns; /* on the monotonic clock: the other may be set */
	bool late; /* the time is over: whatever runs is killed */
	void (*fn)(void *ctx); /* of `for_good`; NULL: it has been called */
	void *ctx;
};

static bool is_ending(const struct host_drain *drain)
{
	return drain->for_good || drain->record.state == HOST_DRAINING;
}

bool host_starts(const struct hulld *hulld)
{
	const struct host_drain *drain = hulld->host_drain;

	return !drain->for_good && drain->record.state == HOST_SERVING;
}

int host_check_starts(const struct hulld *hulld, struct problem *problem)
{
	const struct host_drain *drain = hulld->host_drain;

	if (host_starts(hulld))
		return 0;
	if (drain->for_good)
		return problem_set(problem, PROBLEM_HOST_DRAINING, NULL, "the host is going down");
	problem_set(problem, PROBLEM_HOST_DRAINING, NULL, "the host is %s: no machine is started",
		drain->record.state == HOST_DRAINED ? "drained" : "being drained");
	return problem_set_hint(problem, "try again once its administrator has undrained it");
}

int host_check_stays(const struct hulld *hulld, struct problem *problem)
{
	const struct host_drain *drain = hulld->host_drain;

	return drain->for_good && drain->record.state == HOST_SERVING ? 0 : host_check_starts(hulld, problem);
}

const struct host_record *host_drain_record(const struct hulld *hulld)
{
	return &hulld->host_drain->record;
}

/* ---- ending machines ---- */

static int64_t left_ms(const struct host_drain *drain)
{
	uint64_t now = monotonic_ns();

	return drain->late_at_ns > now ? (int64_t)((drain->late_at_ns - now) / NS_PER_MS) : 0;
}

/* Marks what others that run depend on. How many run. */
static size_t mark_needed(struct hulld *hulld)
{
	size_t n = 0;

	for (struct machine *m = hulld->machines; m; m = m->next)
		m->needed = false;
	for (struct machine *m = hulld->machines; m; m = m->next) {
		const struct dependency_spec *dependencies = m->spec.depends_on.items;

		if (!machine_is_active(m))
			continue;
		n++;
		for (size_t i = 0; i < m->spec.depends_on.len; i++) {
			struct machine *needed = machine_by_name(hulld, m->record.project, dependencies[i].machine);

			if (needed)
				needed->needed = true;
		}
	}
	return n;
}

static bool is_next(const struct host_drain *drain, const struct machine *m)
{
	/* One that is being deleted has been killed already. */
	if (!machine_is_active(m) || m->deleting)
		return false;
	if (drain->late)
		return !m->host_kills;
	/* One that is being suspended ends by that. */
	return m->record.state != MACHINE_STOPPING && m->record.state != MACHINE_SUSPENDING && !m->needed;
}

static bool starts_again(const struct host_drain *drain, const struct machine *m)
{
	if (m->record.state == MACHINE_STOPPING)
		return m->record.restart_wanted;
	if (drain->record.state == HOST_DRAINING)
		return !m->record.attached;
	return m->spec.restart.policy == RESTART_ALWAYS;
}

static int end_one(const struct host_drain *drain, struct machine *m)
{
	int64_t timeout_s = machine_running_spec(m)->stop.timeout_s, left_s = (left_ms(drain) + MS_PER_S - 1) / MS_PER_S;
	struct problem problem;
	int r;

	if (timeout_s > left_s)
		timeout_s = left_s;
	m->host_kills = drain->late;
	r = machine_stop_for_now(m, drain->late ? 0 : timeout_s, starts_again(drain, m), &problem);
	if (r < 0)
		log_error_object(&problem.error, m->record.name);
	return r;
}

static void all_ended(struct host_drain *drain)
{
	struct host_record drained = {.state = HOST_DRAINED, .drain_since = drain->record.drain_since,
		.drain_machines = drain->record.drain_machines};
	void (*fn)(void *) = drain->fn;
	struct error err;

	loop_timer_arm(drain->deadline, UINT64_MAX);
	if (drain->record.state == HOST_DRAINING) {
		if (store_host_set(drain->hulld->store, &drained, &err) < 0) {
			log_error_object(&err, "the host is drained");
			loop_timer_arm(drain->look, RETRY_MS * NS_PER_MS);
			return;
		}
		drain->record = drained;
		log_info("the host is drained");
	}
	drain->fn = NULL;
	if (fn)
		fn(drain->ctx);
}

static void on_look(void *ctx)
{
	struct host_drain *drain = ctx;
	size_t n = 0;

	if (!is_ending(drain))
		return;
	if (mark_needed(drain->hulld) == 0) {
		all_ended(drain);
		return;
	}
	for (struct machine *m = drain->hulld->machines; m && n < ENDED_A_ROUND; m = m->next) {
		if (!is_next(drain, m))
			continue;
		n++;
		if (end_one(drain, m) < 0) {
			m->host_kills = false;
			loop_timer_arm(drain->look, RETRY_MS * NS_PER_MS);
			return;
		}
	}
	if (n == ENDED_A_ROUND)
		loop_timer_arm(drain->look, 0);
}

static void on_deadline(void *ctx)
{
	struct host_drain *drain = ctx;

	drain->late = true;
	log_warn("the time of the host's drain is over: what runs is killed");
	loop_timer_arm(drain->look, 0);
}

void host_drain_look(struct hulld *hulld)
{
	if (is_ending(hulld->host_drain))
		loop_timer_arm(hulld->host_drain->look, 0);
}

static void begin(struct host_drain *drain, int64_t timeout_ms)
{
	drain->late = false;
	drain->late_at_ns = monotonic_ns() + (uint64_t)timeout_ms * NS_PER_MS;
	for (struct machine *m = drain->hulld->machines; m; m = m->next)
		m->host_kills = false;
	loop_timer_arm(drain->deadline, (uint64_t)timeout_ms * NS_PER_MS);
	loop_timer_arm(drain->look, 0);
}

void host_drain_take_up(struct hulld *hulld)
{
	struct host_drain *drain = hulld->host_drain;
	int64_t left = drain->record.drain_until - now_ms(), most = drain->record.drain_until - drain->record.drain_since;

	/* The clock may have been set. */
	if (left > most)
		left = most;
	if (is_ending(drain))
		begin(drain, left < 0 ? 0 : left);
}

void host_drain_for_good(struct hulld *hulld, unsigned timeout_s, void (*fn)(void *ctx), void *ctx)
{
	struct host_drain *drain = hulld->host_drain;
	int64_t timeout_ms = (int64_t)timeout_s * MS_PER_S;

	drain->for_good = true;
	drain->fn = fn;
	drain->ctx = ctx;
	if (drain->record.state == HOST_DRAINING && timeout_ms > left_ms(drain))
		timeout_ms = left_ms(drain);
	begin(drain, timeout_ms);
}

/* ---- draining ---- */

static int enter(struct host_drain *drain, const struct host_record *record, struct problem *problem)
{
	struct error err;

	if (store_host_set(drain->hulld->store, record, &err) < 0)
		return problem_from_error(problem, &err);
	drain->record = *record;
	return 0;
}

int host_drain_begin(struct hulld *hulld, int64_t timeout_s, struct problem *problem)
{
	struct host_drain *drain = hulld->host_drain;
	struct host_record record = drain->record;
	int64_t now = now_ms(), timeout_ms = timeout_s * MS_PER_S;
	int r;

	if (drain->for_good)
		return host_check_starts(hulld, problem);
	if (record.state == HOST_DRAINED || (record.state == HOST_DRAINING && timeout_ms >= left_ms(drain)))
		return 0;
	if (record.state == HOST_SERVING)
		record = (struct host_record){.state = HOST_DRAINING, .drain_since = now, .drain_machines = (int64_t)mark_needed(hulld)};
	record.drain_until = now + timeout_ms;
	r = enter(drain, &record, problem);
	if (r == 0)
		begin(drain, timeout_ms);
	return r;
}

int host_drain_undo(struct hulld *hulld, struct problem *problem)
{
	const struct host_record serving = {.state = HOST_SERVING};
	struct host_drain *drain = hulld->host_drain;
	unsigned wait_ms = 0;
	int r;

	if (drain->for_good)
		return host_check_starts(hulld, problem);
	if (drain->record.state == HOST_SERVING)
		return 0;
	r = enter(drain, &serving, problem);
	if (r < 0)
		return r;
	loop_timer_arm(drain->deadline, UINT64_MAX);
	for (struct machine *m = hulld->machines; m; m = m->next)
		if (machine_restarts(m) && !machine_is_active(m)) {
			machine_rearm_restart(m, wait_ms);
			wait_ms += START_EVERY_MS;
		}
	return 0;
}

struct host_drain *host_drain_new(struct hulld *hulld, struct error *err)
{
	struct host_drain *drain = calloc(1, sizeof(*drain));

	if (!drain)
		abort();
	drain->hulld = hulld;
	drain->look = loop_add_timer(hulld->loop, on_look, drain);
	drain->deadline = loop_add_timer(hulld->loop, on_deadline, drain);
	if (!drain->look || !drain->deadline)
		error_set_errno(err, errno, "cannot make a timer");
	else if (store_host_get(hulld->store, &drain->record, err) == 0)
		return drain;
	host_drain_free(drain);
	return NULL;
}

void host_drain_free(struct host_drain *drain)
{
	if (!drain)
		return;
	loop_remove(drain->look);
	loop_remove(drain->deadline);
	free(drain);
}
