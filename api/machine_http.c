/* Machines over HTTP: what a handler can answer at once, and waiters for what it cannot.
 *
 * Theory of operation. A waiter belongs to a machine and keeps one request until the machine is in one of some states,
 * is removed, or the waiter's deadline has come. Creating with ports and deleting are chains over hull-ingress:
 *
 *	create:  row `creating` committed → ports published, one by one → row `created` committed → 201
 *	         a port that is taken: ports given up → row removed → 409
 *	delete:  killed, if it runs → ports given up → row and folders removed → 204
 *
 * A hulld that is killed in between finds a `creating` row and removes it, or a machine nobody was told is gone. */
#include "api/machine_http.h"

#include "api/events.h"
#include "api/hulld.h"
#include "api/ingress_client.h"
#include "api/machine.h"
#include "api/operation.h"
#include "api/start_order.h"
#include "api/supervisor.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S      1000000000ull
#define KILL_WAIT_S   10
#define DELETE_WAIT_S 30

enum waiter_kind {
	WAITER_STATE,	/* GET …/wait: 408 when its time is over, if it has any */
	WAITER_ANYHOW,	/* kill: the machine as it is when its time is over */
	WAITER_DELETED, /* DELETE: 204 when it is removed */
};

struct waiter {
	struct machine *machine;
	struct request *req;
	enum waiter_kind kind;
	unsigned states; /* as machine_http_read_states() has them */
	char operation[OPERATION_ID_BYTES + 1]; /* that the answer names; "" */
	struct loop_source *timer;
	struct waiter *next;
};

/* Waiters. */

static void waiter_free(struct waiter *waiter)
{
	struct waiter **link = &waiter->machine->waiters;

	while (*link != waiter)
		link = &(*link)->next;
	*link = waiter->next;
	loop_remove(waiter->timer);
	free(waiter);
}

static void on_gone(void *ctx)
{
	waiter_free(ctx);
}

static void reply_machine(struct request *req, int status, const struct machine *m)
{
	request_reply(req, status, machine_dump(m));
}

/* To the answer that was just given. */
static void name_operation(struct request *req, const char *operation)
{
	if (operation[0])
		request_add_header(req, HTTP_OPERATION, operation);
}

/* The one that is under way, or, should it have ended at once, was begun since `before` was the latest; or "". */
static const char *operation_since(const struct machine *m, const char *before)
{
	return operation_current(m) || strcmp(before, operation_latest(m)) != 0 ? operation_latest(m) : "";
}

static const char *asker(const struct request *req)
{
	return operation_asker(request_client(req));
}

static void on_waiter_timer(void *ctx)
{
	struct waiter *waiter = ctx;
	struct request *req = waiter->req;
	const struct machine *m = waiter->machine;

	if (waiter->kind == WAITER_ANYHOW) {
		reply_machine(req, 200, m);
		name_operation(req, waiter->operation);
	} else {
		request_refuse_with(req, PROBLEM_TIMEOUT, NULL, "machine %s is still %s", m->record.name,
			machine_state_names[m->record.state]);
	}
	waiter_free(waiter);
}

static struct waiter *wait_for(struct machine *m, struct request *req, enum waiter_kind kind, unsigned states, uint64_t timeout_s)
{
	struct waiter *waiter = calloc(1, sizeof(*waiter)), **end = &m->waiters;

	if (!waiter)
		abort();
	*waiter = (struct waiter){.machine = m, .req = req, .kind = kind, .states = states,
		.timer = loop_add_timer(m->hulld->loop, on_waiter_timer, waiter)};
	if (!waiter->timer)
		abort();
	loop_timer_arm(waiter->timer, timeout_s == UINT64_MAX ? UINT64_MAX : timeout_s * NS_PER_S);
	request_on_gone(req, on_gone, waiter);
	while (*end)
		end = &(*end)->next;
	*end = waiter;
	return waiter;
}

/* True when the waiter has been answered. */
static bool answer_waiter(struct waiter *waiter)
{
	const struct machine *m = waiter->machine;
	struct problem problem;

	if (waiter->kind == WAITER_DELETED)
		return false;
	if (machine_http_is_in(m, waiter->states)) {
		reply_machine(waiter->req, 200, m);
		name_operation(waiter->req, waiter->operation);
		return true;
	}
	/* Nothing will happen any more unless somebody asks for it: better said now than at the end of the wait. */
	if (m->record.state != MACHINE_FAILED || machine_restarts(m))
		return false;
	problem_set(&problem, PROBLEM_MACHINE_FAILED, NULL, "machine %s failed: %s: %s", m->record.name,
		m->record.cause_code, m->record.cause_message);
	problem_set_hint(&problem, "its logs may say more: GET /v1/machines/%s/logs?source=console", m->record.name);
	request_refuse(waiter->req, &problem);
	return true;
}

static void begin_removal(struct machine *m);

void machine_tell_waiters(struct machine *m)
{
	struct waiter *waiter, *next;

	start_order_tell(m);
	for (waiter = m->waiters; waiter; waiter = next) {
		next = waiter->next;
		if (answer_waiter(waiter))
			waiter_free(waiter);
	}
	if (m->deleting && !machine_is_active(m))
		begin_removal(m);
}

void machine_tell_removed(struct machine *m)
{
	while (m->waiters) {
		struct waiter *waiter = m->waiters;

		if (waiter->kind == WAITER_DELETED)
			request_reply(waiter->req, 204, NULL);
		else
			request_refuse_with(
				waiter->req, PROBLEM_NOT_FOUND, NULL, "machine %s has been deleted", m->record.name);
		waiter_free(waiter);
	}
}

/* Before it is known whether the request has been done already. */
static struct machine *find_as_it_is(struct hulld *hulld, struct request *req)
{
	struct machine *m = machine_find(hulld, request_project(req), request_param(req));

	if (m && m->record.state != MACHINE_CREATING)
		return m;
	request_refuse_with(req, PROBLEM_NOT_FOUND, NULL, "there is no machine \"%s\"", request_param(req));
	return NULL;
}

/* Few ask for it: the machine is not described for nothing. */
static int check_match(struct request *req, const struct machine *m)
{
	return request_condition(req) ? request_check_match(req, machine_dump(m)) : 0;
}

struct machine *machine_http_find(struct hulld *hulld, struct request *req)
{
	struct machine *m = find_as_it_is(hulld, req);

	return m && check_match(req, m) == 0 ? m : NULL;
}

int machine_http_require_running(const struct machine *m, struct request *req)
{
	struct problem problem;

	if (m->record.state == MACHINE_RUNNING)
		return 0;
	problem_set(&problem, PROBLEM_WRONG_STATE, NULL, "machine %s is %s", m->record.name, machine_state_names[m->record.state]);
	problem_set_hint(&problem, "this is done in a machine that runs");
	request_refuse(req, &problem);
	return -ECANCELED;
}

/* Creating. */

struct creation {
	struct machine *machine;
	struct request *req; /* NULL: the client has gone; the machine is created all the same */
	size_t port;	     /* being published */
	struct problem problem;
};

static void on_creator_gone(void *ctx)
{
	((struct creation *)ctx)->req = NULL;
}

static void creation_end(struct creation *creation, bool ok)
{
	if (creation->req && ok)
		reply_machine(creation->req, 201, creation->machine);
	else if (creation->req)
		request_refuse(creation->req, &creation->problem);
	free(creation);
}

static void on_rolled_back(void *ctx, const json_t *answer, const struct error *err)
{
	struct creation *creation = ctx;
	struct problem problem;

	(void)answer;
	(void)err;
	if (machine_remove(creation->machine, &problem) < 0)
		log_error_object(&problem.error, "a machine that was not created stays until hulld restarts");
	creation_end(creation, false);
}

static void roll_back(struct creation *creation)
{
	ingress_unpublish(creation->machine->hulld->ingress, creation->machine->record.id, on_rolled_back, creation);
}

static const struct port_spec *next_port(const struct creation *creation)
{
	return (const struct port_spec *)creation->machine->spec.ports.items + creation->port;
}

static void on_published(void *ctx, const json_t *answer, const struct error *err);

static void publish_next(struct creation *creation)
{
	if (machine_http_publish(creation->machine, next_port(creation), creation->port, on_published, creation, &creation->problem) < 0)
		roll_back(creation);
}

static void on_published(void *ctx, const json_t *answer, const struct error *err)
{
	struct creation *creation = ctx;
	struct machine *m = creation->machine;

	if (machine_http_check_published(next_port(creation), creation->port, answer, err, &creation->problem) < 0)
		roll_back(creation);
	else if (++creation->port < m->spec.ports.len)
		publish_next(creation);
	else if (machine_created(m, &creation->problem) < 0)
		roll_back(creation);
	else
		creation_end(creation, true);
}

/* A request that is repeated, and was cut short once the machine was there, is replied to. */
static bool reply_created_before(struct request *req, struct hulld *hulld)
{
	const struct machine *m = request_repeats(req) ? hulld->machines : NULL;

	while (m && m->record.request != request_number(req))
		m = m->next;
	if (!m)
		return false;
	if (m->record.state == MACHINE_CREATING)
		request_refuse_with(req, PROBLEM_REQUEST_IN_PROGRESS, NULL, "machine %s is being created", m->record.name);
	else
		reply_machine(req, 201, m);
	return true;
}

void machine_http_create(struct request *req, void *ctx)
{
	struct machine_origin origin = {request_project(req), request_number(req)};
	struct hulld *hulld = ctx;
	struct creation *creation;
	struct machine_spec spec;
	struct problem problem;
	struct machine *m;
	json_t *planned;

	if (reply_created_before(req, hulld) || request_read(req, &machine_spec_table, &spec) < 0)
		return;
	if (request_query_int(req, "dry_run", 0)) {
		if (machine_plan(hulld, &origin, &spec, &planned, &problem) < 0)
			request_refuse(req, &problem);
		else
			request_reply(req, 201, planned);
		return;
	}
	if (machine_insert(hulld, &origin, &spec, &m, &problem) < 0) {
		request_refuse(req, &problem);
		return;
	}
	if (m->record.state == MACHINE_CREATED) {
		reply_machine(req, 201, m);
		return;
	}
	creation = calloc(1, sizeof(*creation));
	if (!creation)
		abort();
	creation->machine = m;
	creation->req = req;
	request_on_gone(req, on_creator_gone, creation);
	publish_next(creation);
}

/* Deleting. */

static void on_unpublished(void *ctx, const json_t *answer, const struct error *err)
{
	struct machine *m = ctx;
	struct problem problem;

	(void)answer;
	if (err)
		log_warn("hull-ingress: %s; it is told again when it is there", err->message);
	if (machine_remove(m, &problem) == 0)
		return;
	m->deleting = m->removing = false;
	log_error_object(&problem.error, m->record.name);
	for (struct waiter *waiter = m->waiters, *next; waiter; waiter = next) {
		next = waiter->next;
		if (waiter->kind != WAITER_DELETED)
			continue;
		request_refuse(waiter->req, &problem);
		waiter_free(waiter);
	}
}

static void on_no_ports(void *ctx)
{
	on_unpublished(ctx, NULL, NULL);
}

static bool may_hold_ports(const struct machine *m)
{
	return m->spec.ports.len || m->patching;
}

/* Ends in the machine's removal, but never from within: callers still use it. */
static void begin_removal(struct machine *m)
{
	if (m->removing)
		return;
	m->removing = true;
	if (may_hold_ports(m))
		ingress_unpublish(m->hulld->ingress, m->record.id, on_unpublished, m);
	else
		loop_post(m->hulld->loop, on_no_ports, m);
}

static void remove_without_ports(struct machine *m, struct request *req)
{
	struct problem problem;

	if (machine_remove(m, &problem) < 0)
		request_refuse(req, &problem);
	else
		request_reply(req, 204, NULL);
}

void machine_http_delete(struct request *req, void *ctx)
{
	const struct machine *dependent;
	struct machine *m;
	struct problem problem;
	int64_t force = request_query_int(req, "force", 0);

	m = machine_http_find(ctx, req);
	if (!m)
		return;
	dependent = force ? NULL : start_order_dependent(m);
	if (dependent) {
		problem_set(&problem, PROBLEM_MACHINE_IN_USE, NULL, "machine %s depends on %s", dependent->record.name, m->record.name);
		problem_set_hint(&problem, "delete that one first, or repeat with ?force=1");
		request_refuse(req, &problem);
		return;
	}
	if (machine_is_active(m) && !force) {
		problem_set(&problem, PROBLEM_WRONG_STATE, NULL, "machine %s is %s", m->record.name,
			machine_state_names[m->record.state]);
		problem_set_hint(&problem, "stop it first, or repeat with ?force=1");
		request_refuse(req, &problem);
		return;
	}
	if (!machine_is_active(m) && !may_hold_ports(m) && !m->deleting) {
		remove_without_ports(m, req);
		return;
	}
	if (!m->deleting && machine_is_active(m) && machine_kill_to_delete(m, asker(req), &problem) < 0) {
		request_refuse(req, &problem);
		return;
	}
	wait_for(m, req, WAITER_DELETED, 0, DELETE_WAIT_S);
	if (m->deleting)
		return;
	m->deleting = true;
	if (!machine_is_active(m))
		begin_removal(m);
}

/* The rest. */

void machine_http_get(struct request *req, void *ctx)
{
	struct machine *m = machine_http_find(ctx, req);

	if (m)
		reply_machine(req, 200, m);
}

/* The operation that was begun for a request that was cut short and is repeated: who asked for one run, or for one end, gets one. 1, 0, or
 * -errno having refused. */
static int find_begun(struct request *req, struct hulld *hulld, char ret[OPERATION_ID_BYTES + 1])
{
	struct error err;
	int r = request_repeats(req) ? store_operation_of_request(hulld->store, request_number(req), ret, &err) : 0;

	if (r < 0)
		request_refuse_error(req, &err);
	return r;
}

static bool reply_begun_before(struct request *req, const struct machine *m)
{
	char operation[OPERATION_ID_BYTES + 1];
	int r = find_begun(req, m->hulld, operation);

	if (r <= 0)
		return r < 0;
	reply_machine(req, 200, m);
	name_operation(req, operation);
	return true;
}

/* `before`: the operation that was the latest, then. */
static void reply_begun(struct request *req, const struct machine *m, const char *before, int r, const struct problem *problem)
{
	if (r < 0) {
		request_refuse(req, problem);
		return;
	}
	reply_machine(req, 200, m);
	name_operation(req, operation_since(m, before));
}

void machine_http_start(struct request *req, void *ctx)
{
	struct operation_origin origin = {asker(req), request_number(req)};
	struct machine *m = find_as_it_is(ctx, req);
	char before[OPERATION_ID_BYTES + 1];
	struct start_request request;
	struct problem problem;

	if (!m || reply_begun_before(req, m) || check_match(req, m) < 0 ||
		request_read(req, &start_request_table, &request) < 0)
		return;
	snprintf(before, sizeof(before), "%s", operation_latest(m));
	reply_begun(req, m, before, machine_start(m, request.attached, &origin, &problem), &problem);
}

static void stop(struct request *req, void *ctx, bool then_start)
{
	struct operation_origin origin = {asker(req), request_number(req)};
	struct machine *m = find_as_it_is(ctx, req);
	char before[OPERATION_ID_BYTES + 1];
	struct stop_request request;
	struct problem problem;

	if (!m || reply_begun_before(req, m) || check_match(req, m) < 0 ||
		request_read(req, &stop_request_table, &request) < 0)
		return;
	if (request.timeout_s < 0)
		request.timeout_s = machine_running_spec(m)->stop.timeout_s;
	snprintf(before, sizeof(before), "%s", operation_latest(m));
	reply_begun(req, m, before, machine_stop(m, request.timeout_s, then_start, &origin, &problem), &problem);
}

void machine_http_stop(struct request *req, void *ctx)
{
	stop(req, ctx, false);
}

void machine_http_restart(struct request *req, void *ctx)
{
	stop(req, ctx, true);
}

static void suspend_or_resume(struct request *req, struct hulld *hulld,
	int (*change)(struct machine *m, const struct operation_origin *origin, struct problem *problem))
{
	struct operation_origin origin = {asker(req), request_number(req)};
	struct machine *m = find_as_it_is(hulld, req);
	char before[OPERATION_ID_BYTES + 1];
	struct problem problem;

	if (!m || reply_begun_before(req, m) || check_match(req, m) < 0)
		return;
	snprintf(before, sizeof(before), "%s", operation_latest(m));
	reply_begun(req, m, before, change(m, &origin, &problem), &problem);
}

void machine_http_suspend(struct request *req, void *ctx)
{
	suspend_or_resume(req, ctx, machine_suspend);
}

void machine_http_resume(struct request *req, void *ctx)
{
	suspend_or_resume(req, ctx, machine_resume);
}

void machine_http_kill(struct request *req, void *ctx)
{
	unsigned ended = 1u << MACHINE_CREATED | 1u << MACHINE_STOPPED | 1u << MACHINE_FAILED;
	struct operation_origin origin = {asker(req), request_number(req)};
	struct machine *m = machine_http_find(ctx, req);
	char operation[OPERATION_ID_BYTES + 1];
	struct problem problem;
	struct waiter *waiter;
	int begun;

	if (!m || (begun = find_begun(req, m->hulld, operation)) < 0)
		return;
	if (!begun) {
		snprintf(operation, sizeof(operation), "%s", operation_latest(m));
		if (machine_kill(m, &origin, &problem) < 0) {
			request_refuse(req, &problem);
			return;
		}
		snprintf(operation, sizeof(operation), "%s", operation_since(m, operation));
	} else if (!operation_current(m) || strcmp(operation_current(m)->id, operation) != 0) {
		ended = ~0u; /* it has, and what runs now is another run */
	}
	waiter = wait_for(m, req, WAITER_ANYHOW, ended, KILL_WAIT_S);
	snprintf(waiter->operation, sizeof(waiter->operation), "%s", operation);
	if (answer_waiter(waiter))
		waiter_free(waiter);
}

void machine_http_wait(struct request *req, void *ctx)
{
	struct machine *m = machine_http_find(ctx, req);
	unsigned states = machine_http_read_states(request_query(req, "state"));
	int64_t timeout_s = request_query_int(req, "timeout_s", -1), after = request_query_int(req, "after", -1);
	struct waiter *waiter;
	int passed;

	if (!m)
		return;
	passed = after < 0 ? 0 : events_passed(req, m, after, states);
	if (passed > 0)
		reply_machine(req, 200, m);
	if (passed != 0)
		return;
	waiter = wait_for(m, req, WAITER_STATE, states, (uint64_t)timeout_s);
	if (answer_waiter(waiter))
		waiter_free(waiter);
}
