#include "api/start_order.h"

#include "api/events.h"
#include "api/health.h"
#include "api/idle.h"
#include "api/operation.h"
#include "api/supervisor.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define NS_PER_S  1000000000ull
#define NS_PER_MS 1000000ull
#define LATER_MS  1000 /* than the operation's own deadline */
#define REACH_MAX 256 /* machines that one depends on, directly or by others: what is looked through for a circle */

struct start_wait {
	TAILQ_ENTRY(start_wait) entry;
	struct machine *machine;
	struct loop_source *deadline;
	uint64_t began_ns;  /* on the monotonic clock */
	int64_t late_at;    /* as now_ms(), when its time was over; 0: it is not */
	bool due;	    /* to be looked at: it may go on, or has to end */
	bool announced;	    /* an event has said what it waits for */
	unsigned missing;   /* bits: which of depends_on are not there yet */
};

struct start_order {
	struct hulld *hulld;
	struct loop_source *look;
	TAILQ_HEAD(, start_wait) waits;
};

enum presence { THERE, NOT_YET, NEVER /* but by somebody's doing */ };

static const struct dependency_spec *dependency_at(const struct machine_spec *spec, size_t i)
{
	return &((const struct dependency_spec *)spec->depends_on.items)[i];
}

/* NULL: it does not. */
static const struct dependency_spec *find_dependency(const struct machine_spec *spec, const char *name)
{
	for (size_t i = 0; i < spec->depends_on.len; i++)
		if (strcmp(dependency_at(spec, i)->machine, name) == 0)
			return dependency_at(spec, i);
	return NULL;
}

/* By name alone: an id is none. */
static const struct machine *find(const struct hulld *hulld, const char *project, const char *name)
{
	const struct machine *m = machine_by_name(hulld, project, name);

	return m && m->record.state != MACHINE_CREATING ? m : NULL;
}

const struct machine *start_order_dependent(const struct machine *m)
{
	for (const struct machine *other = m->hulld->machines; other; other = other->next)
		if (other != m && !other->deleting && strcmp(other->record.project, m->record.project) == 0 &&
			find_dependency(&other->spec, m->record.name))
			return other;
	return NULL;
}

bool start_order_needs(const struct machine *m)
{
	for (const struct machine *other = m->hulld->machines; other; other = other->next) {
		const struct dependency_spec *dependency = NULL;

		if (other != m && machine_is_active(other) && strcmp(other->record.project, m->record.project) == 0)
			dependency = find_dependency(&other->spec, m->record.name);
		if (dependency && dependency->condition != DEPENDS_COMPLETED)
			return true;
	}
	return false;
}

/* ---- what a specification may say ---- */

struct search {
	const struct hulld *hulld;
	const char *project, *target;
	const struct machine *seen[REACH_MAX];
	size_t n_seen;
	const char *path[REACH_MAX + 1];
	size_t depth;
};

/* Is it looked through for the first time? -E2BIG: there are too many. */
static int see(struct search *search, const struct machine *m)
{
	for (size_t i = 0; i < search->n_seen; i++)
		if (search->seen[i] == m)
			return 0;
	if (search->n_seen == REACH_MAX)
		return -E2BIG;
	search->seen[search->n_seen++] = m;
	return 1;
}

/* 0; -ELOOP with the way to the target in `path`; -E2BIG. */
static int look_through(struct search *search, const struct machine_spec *spec)
{
	for (size_t i = 0; i < spec->depends_on.len; i++) {
		const char *name = dependency_at(spec, i)->machine;
		const struct machine *found = machine_by_name(search->hulld, search->project, name);
		int r;

		search->path[search->depth++] = name;
		if (strcmp(name, search->target) == 0)
			return -ELOOP;
		r = found ? see(search, found) : 0;
		if (r > 0)
			r = look_through(search, &found->spec);
		if (r < 0)
			return r;
		search->depth--;
	}
	return 0;
}

static int refuse_circle(const struct search *search, struct problem *problem)
{
	char way[160];
	size_t len = (size_t)snprintf(way, sizeof(way), "%s", search->target);

	for (size_t i = 0; i < search->depth && len < sizeof(way); i++)
		len += (size_t)snprintf(way + len, sizeof(way) - len, " -> %s", search->path[i]);
	return problem_set(problem, PROBLEM_INVALID_FIELD, "depends_on", "makes a circle: %s", way);
}

static int check_circle(const struct hulld *hulld, const char *project, const struct machine_spec *spec, struct problem *problem)
{
	struct search search = {.hulld = hulld, .project = project, .target = spec->name};
	int r;

	if (!spec->name || !spec->depends_on.len)
		return 0;
	r = look_through(&search, spec);
	if (r == -ELOOP)
		return refuse_circle(&search, problem);
	return r < 0 ? problem_set(problem, PROBLEM_INVALID_FIELD, "depends_on", "reaches more than %d machines", REACH_MAX) : 0;
}

static int check_one(const struct hulld *hulld, const char *project, const struct machine *changed, const struct machine_spec *spec,
	size_t i, struct problem *problem)
{
	const struct dependency_spec *dependency = dependency_at(spec, i);
	const struct dependency_spec *before = changed ? find_dependency(&changed->spec, dependency->machine) : NULL;
	const struct machine *m = find(hulld, project, dependency->machine);
	char field[48];

	snprintf(field, sizeof(field), "depends_on[%zu].machine", i);
	for (size_t j = 0; j < i; j++)
		if (strcmp(dependency_at(spec, j)->machine, dependency->machine) == 0)
			return problem_set(problem, PROBLEM_INVALID_FIELD, field, "%s is named twice", dependency->machine);
	if (before && (!m || before->condition == dependency->condition))
		return 0;
	if (spec->name && strcmp(spec->name, dependency->machine) == 0)
		return 0; /* a circle, which is named as such */
	if (!m) {
		problem_set(problem, PROBLEM_NOT_FOUND, field, "there is no machine \"%s\"", dependency->machine);
		return problem_set_hint(problem, "create it first");
	}
	if (dependency->condition != DEPENDS_HEALTHY || m->spec.health)
		return 0;
	snprintf(field, sizeof(field), "depends_on[%zu].condition", i);
	return problem_set(problem, PROBLEM_INVALID_FIELD, field, "machine %s has no health check", dependency->machine);
}

static int check_name(const struct machine *changed, const struct machine_spec *spec, struct problem *problem)
{
	const struct machine *dependent;

	if (!changed || strcmp(changed->record.name, spec->name) == 0 || !(dependent = start_order_dependent(changed)))
		return 0;
	problem_set(problem, PROBLEM_MACHINE_IN_USE, "name", "machine %s depends on it by the name %s", dependent->record.name,
		changed->record.name);
	return problem_set_hint(problem, "change depends_on of that machine first");
}

int start_order_check(struct hulld *hulld, const char *project, const struct machine *changed, const struct machine_spec *spec,
	struct problem *problem)
{
	int r = check_name(changed, spec, problem);

	for (size_t i = 0; r == 0 && i < spec->depends_on.len; i++)
		r = check_one(hulld, project, changed, spec, i, problem);
	return r < 0 ? r : check_circle(hulld, project, spec, problem);
}

/* ---- waiting ---- */

/* `m`: NULL, there is none. */
static enum presence presence_of(const struct machine *m, enum dependency_condition condition)
{
	bool running, over;

	if (!m)
		return NEVER;
	running = m->record.state == MACHINE_RUNNING && m->up;
	over = (m->record.state == MACHINE_STOPPED || m->record.state == MACHINE_FAILED) && !machine_restarts(m);
	if (condition == DEPENDS_COMPLETED && over && m->record.state == MACHINE_STOPPED && m->record.exit_status >= 0)
		return m->record.exit_status == 0 ? THERE : NEVER;
	if ((over && m->record.state == MACHINE_FAILED) || (condition == DEPENDS_HEALTHY && !m->spec.health))
		return NEVER;
	if (condition == DEPENDS_HEALTHY || (condition == DEPENDS_READY && m->spec.health))
		return running && health_state(m) == HEALTH_HEALTHY ? THERE : NOT_YET;
	return running && condition != DEPENDS_COMPLETED ? THERE : NOT_YET;
}

static const char *wish(const struct machine *m, enum dependency_condition condition)
{
	if (condition == DEPENDS_COMPLETED)
		return "have completed";
	return condition == DEPENDS_HEALTHY || (condition == DEPENDS_READY && m && m->spec.health) ? "be healthy" : "run";
}

static void give_up(struct machine *m, const char *code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void give_up(struct machine *m, const char *code, const char *fmt, ...)
{
	struct machine_end end = {.exit_status = -1, .failed = true};
	va_list args;

	snprintf(end.code, sizeof(end.code), "%s", code);
	va_start(args, fmt);
	vsnprintf(end.message, sizeof(end.message), fmt, args);
	va_end(args);
	start_order_forget(m);
	supervisor_give_up(m, &end);
}

static void give_up_on(struct machine *m, const struct dependency_spec *missing, const struct machine *dependency)
{
	const char *name = missing->machine;

	if (!dependency)
		give_up(m, "dependency_failed", "there is no machine %s, which it depends on", name);
	else if (missing->condition == DEPENDS_HEALTHY && !dependency->spec.health)
		give_up(m, "dependency_failed", "machine %s, which should be healthy before it, has no health check any more", name);
	else if (dependency->record.state == MACHINE_FAILED)
		give_up(m, "dependency_failed", "machine %s, which it depends on, failed: %s", name, dependency->record.cause_code);
	else
		give_up(m, "dependency_failed", "machine %s, which it depends on, ended with status %d", name,
			dependency->record.exit_status);
}

/* What was being started when the time was over is waited for until that start is: whatever that is at has a deadline of its own. */
static bool awaits_start(struct start_wait *wait, const struct machine *dependency)
{
	const struct operation_record *op = operation_current(dependency);
	int64_t left_ms;

	if (!wait->late_at)
		wait->late_at = now_ms();
	if (!op || (op->kind != OPERATION_START && op->kind != OPERATION_RESTART && op->kind != OPERATION_RESUME) || op->created_at > wait->late_at)
		return false;
	left_ms = operation_time_left_ms(dependency, INT64_MAX / (int64_t)NS_PER_MS - LATER_MS) + LATER_MS;
	loop_timer_arm(wait->deadline, (uint64_t)left_ms * NS_PER_MS);
	operation_set_timeout(wait->machine, left_ms);
	machine_commit(wait->machine);
	return true;
}

static void give_up_late(struct start_wait *wait, const struct dependency_spec *missing, const struct machine *dependency)
{
	give_up(wait->machine, "dependency_timeout", "machine %s, which it depends on, should %s within %llu s, and is %s", missing->machine,
		wish(dependency, missing->condition), (unsigned long long)((monotonic_ns() - wait->began_ns) / NS_PER_S),
		machine_state_names[dependency->record.state]);
}

static void announce(struct start_wait *wait, const struct dependency_spec *missing, const struct machine *dependency)
{
	struct machine *m = wait->machine;
	char reason[NAME_MAX_BYTES + 64];

	if (wait->announced)
		return;
	wait->announced = true;
	snprintf(reason, sizeof(reason), "for machine %s to %s", missing->machine, wish(dependency, missing->condition));
	log_info("machine %s waits %s", m->record.name, reason);
	events_add(m, "machine.waiting", reason);
}

void start_order_wake(struct machine *m)
{
	for (size_t i = 0; i < m->spec.depends_on.len; i++) {
		struct machine *other = machine_by_name(m->hulld, m->record.project, dependency_at(&m->spec, i)->machine);

		if (other && dependency_at(&m->spec, i)->condition != DEPENDS_COMPLETED)
			idle_wake(other);
	}
}

/* All that it depends on; the wait is over, or goes on unless it is `late`. */
static void look_at_all(struct start_wait *wait, bool late)
{
	const struct dependency_spec *missing = NULL;
	const struct machine *missed = NULL;
	struct machine *m = wait->machine;

	wait->due = false;
	wait->missing = 0;
	start_order_wake(m);
	for (size_t i = 0; i < m->spec.depends_on.len; i++) {
		const struct dependency_spec *dependency = dependency_at(&m->spec, i);
		const struct machine *other = find(m->hulld, m->record.project, dependency->machine);
		enum presence presence = presence_of(other, dependency->condition);

		if (presence == NEVER) {
			give_up_on(m, dependency, other);
			return;
		}
		if (presence == THERE)
			continue;
		wait->missing |= 1u << i;
		missing = missing ? missing : dependency;
		missed = missing == dependency ? other : missed;
	}
	if (missing && late && !awaits_start(wait, missed)) {
		give_up_late(wait, missing, missed);
	} else if (missing) {
		announce(wait, missing, missed);
	} else {
		start_order_forget(m);
		supervisor_begin(m);
	}
}

static void on_deadline(void *ctx)
{
	look_at_all(ctx, true);
}

static void on_look(void *ctx)
{
	struct start_order *order = ctx;
	struct start_wait *wait;

	TAILQ_FOREACH(wait, &order->waits, entry)
		if (wait->due)
			break;
	if (!wait)
		return;
	loop_timer_arm(order->look, 0); /* for the next */
	look_at_all(wait, wait->late_at != 0);
}

static void set_due(struct start_wait *wait)
{
	wait->due = true;
	loop_timer_arm(wait->machine->hulld->start_order->look, 0);
}

void start_order_begin(struct machine *m)
{
	struct start_order *order = m->hulld->start_order;
	struct start_wait *wait;

	start_order_forget(m);
	if (!m->spec.depends_on.len) {
		supervisor_begin(m);
		return;
	}
	wait = calloc(1, sizeof(*wait));
	if (!wait)
		abort();
	wait->machine = m;
	wait->began_ns = monotonic_ns();
	wait->missing = (1u << m->spec.depends_on.len) - 1;
	wait->deadline = loop_add_timer(m->hulld->loop, on_deadline, wait);
	if (!wait->deadline)
		abort();
	loop_timer_arm(wait->deadline, m->hulld->options.dependency_timeout_s * NS_PER_S);
	TAILQ_INSERT_TAIL(&order->waits, wait, entry);
	m->start_wait = wait;
	set_due(wait);
}

void start_order_forget(struct machine *m)
{
	if (!m->start_wait)
		return;
	TAILQ_REMOVE(&m->hulld->start_order->waits, m->start_wait, entry);
	loop_remove(m->start_wait->deadline);
	free(m->start_wait);
	m->start_wait = NULL;
}

void start_order_renew(struct machine *m)
{
	if (!m->start_wait)
		return;
	m->start_wait->announced = false;
	m->start_wait->missing = (1u << m->spec.depends_on.len) - 1;
	set_due(m->start_wait);
}

static void look_at_one(struct start_wait *wait, size_t i, const struct machine *m)
{
	enum presence presence = presence_of(m, dependency_at(&wait->machine->spec, i)->condition);

	if (presence == THERE)
		wait->missing &= ~(1u << i);
	else
		wait->missing |= 1u << i;
	if (presence == NEVER || !wait->missing || wait->late_at)
		set_due(wait);
}

/* `m`: NULL, it has been removed. */
static void tell(struct start_order *order, const char *project, const char *name, const struct machine *m)
{
	struct start_wait *wait;

	TAILQ_FOREACH(wait, &order->waits, entry) {
		const struct machine_spec *spec = &wait->machine->spec;

		if (strcmp(wait->machine->record.project, project) != 0)
			continue;
		for (size_t i = 0; i < spec->depends_on.len; i++)
			if (strcmp(dependency_at(spec, i)->machine, name) == 0)
				look_at_one(wait, i, m);
	}
}

void start_order_tell(const struct machine *m)
{
	tell(m->hulld->start_order, m->record.project, m->record.name, m);
}

void start_order_tell_removed(struct hulld *hulld, const char *project, const char *name)
{
	tell(hulld->start_order, project, name, NULL);
}

size_t start_order_waits_for(const struct machine *m, char *ret[DEPENDS_ON_MAX])
{
	size_t n = 0;

	for (size_t i = 0; m->start_wait && i < m->spec.depends_on.len; i++)
		if (m->start_wait->missing & 1u << i)
			ret[n++] = dependency_at(&m->spec, i)->machine;
	return n;
}

struct start_order *start_order_new(struct hulld *hulld, struct error *err)
{
	struct start_order *order = calloc(1, sizeof(*order));

	if (!order)
		abort();
	order->hulld = hulld;
	TAILQ_INIT(&order->waits);
	order->look = loop_add_timer(hulld->loop, on_look, order);
	if (order->look)
		return order;
	error_set_errno(err, errno, "cannot make a timer");
	start_order_free(order);
	return NULL;
}

void start_order_free(struct start_order *order)
{
	if (!order)
		return;
	loop_remove(order->look);
	free(order);
}
