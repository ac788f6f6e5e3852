/* hull machine …: verbs, logs, and what several commands do with one. */
#include "cli/machine.h"

#include "cli/commands.h"
#include "cli/operands.h"
#include "cli/operation.h"
#include "cli/request.h"

#include <errno.h>
#include <string.h>

const struct option_def logs_options[] = {
	{'f', "follow", NULL, "go on until the machine ends"},
	{'n', "tail", "N", "only the last N lines"},
	{0, "console", NULL, "the guest's serial console instead of the workload's output"},
	{0, "monitor", NULL, "the monitor's own log instead"},
	{0},
};

const struct option_def stop_options[] = {
	{'t', "timeout", "S", "seconds the workload gets before the machine is ended (the machine's own; 10)"},
	OUTPUT_OPTION,
	QUIET_OPTION("print ids"),
	{0},
};

const struct option_def verb_options[] = {
	OUTPUT_OPTION,
	QUIET_OPTION("print ids"),
	{0},
};

const struct option_def remove_options[] = {
	{'f', "force", NULL, "even when it is in use"},
	{0},
};

#define RETRY_MS 250

/* The last event there is. */
static int find_cursor(struct client *client, json_int_t *ret, struct failure *fail)
{
	json_t *page = NULL;
	int r = client_call(client, "GET", "/v1/events?since_s=0&limit=1", NULL, &page, fail);

	*ret = json_number(page, "cursor");
	json_decref(page);
	return r;
}

/* Asked again from the same event on, nothing is missed while hulld was away. */
static int wait_after(struct client *client, const char *machine, const char *states, json_int_t cursor, json_t **ret, struct failure *fail)
{
	struct retry retry = {.worked = true};
	cleanup_free char *path = NULL;
	char suffix[160];
	int r;

	snprintf(suffix, sizeof(suffix), "/wait?state=%s&after=%" JSON_INTEGER_FORMAT, states, cursor);
	path = client_path("machines", machine, suffix);
	do {
		memset(fail, 0, sizeof(*fail));
		r = client_wait(client, path, ret, fail);
	} while (r < 0 && client_retries(client, &retry, RETRY_MS, fail));
	return r;
}

int machine_wait(struct client *client, const char *machine, const char *states, json_t **ret, struct failure *fail)
{
	json_int_t cursor;
	int r;

	do {
		memset(fail, 0, sizeof(*fail));
		r = find_cursor(client, &cursor, fail);
		if (r == 0)
			r = wait_after(client, machine, states, cursor, ret, fail);
		/* Of a wait of days hulld may have forgotten where it began. */
	} while (r < 0 && strcmp(fail->code, "cursor_expired") == 0);
	return r;
}

static int refuse_failed(const json_t *machine, struct failure *fail)
{
	const json_t *cause = json_object_get(machine, "cause");
	const char *name = json_text(machine, "name"), *message = json_text(cause, "message");

	error_set_field(&fail->error, EIO, name, "the machine failed: %s",
		message[0] ? message : json_text(cause, "code"));
	return failure_hint(fail, "`hull logs --console %s` and `hull logs --monitor %s` may say why", name, name);
}

static int wait_until_it_runs(struct client *client, const char *machine, json_t **ret, struct failure *fail)
{
	json_t *ready = NULL;
	int r = machine_wait(client, machine, "running,stopped,failed", &ready, fail);

	if (r == 0 && strcmp(json_text(ready, "state"), "failed") == 0)
		r = refuse_failed(ready, fail);
	if (r == 0 && ret)
		*ret = ready;
	else
		json_decref(ready);
	return r;
}

int machine_start(struct client *client, const char *machine, bool attached, json_t **ret, struct failure *fail)
{
	cleanup_free char *path = client_path("machines", machine, "/start");
	json_t *body = json_pack("{s:b}", "attached", attached), *answer = NULL;
	int r = client_call(client, "POST", path, body, &answer, fail);

	/* With a check, what is under way takes longer than until the machine runs. */
	if (r == 0 && !json_object_get(answer, "health"))
		r = operation_show(client, answer, fail);
	json_decref(answer);
	json_decref(body);
	return r < 0 ? r : wait_until_it_runs(client, machine, ret, fail);
}

int machine_restart(struct client *client, const char *machine, json_t **ret, struct failure *fail)
{
	cleanup_free char *path = client_path("machines", machine, "/restart");
	int r = client_call(client, "POST", path, NULL, NULL, fail);

	return r < 0 ? r : wait_until_it_runs(client, machine, ret, fail);
}

int machine_exit_status(const json_t *machine, struct failure *fail)
{
	const json_t *status = json_object_get(machine, "exit_status");

	if (strcmp(json_text(machine, "state"), "failed") == 0)
		return refuse_failed(machine, fail);
	if (json_is_integer(status))
		return (int)(json_integer_value(status) & 0xff);
	return strcmp(json_text(json_object_get(machine, "cause"), "code"), "killed") == 0 ? MACHINE_KILLED_STATUS : 0;
}

/* hulld's word for it is the cause's message. */
bool machine_ran_out_of_memory(const json_t *machine)
{
	const json_t *cause = json_object_get(machine, "cause");

	return json_number(machine, "exit_status") == MACHINE_KILLED_STATUS && strstr(json_text(cause, "message"), "out of memory");
}

/* ---- verbs ---- */

typedef int (*act_fn)(struct client *client, const char *machine, const struct args *args, json_t **ret, struct failure *fail);

struct turn {
	struct client *client;
	const struct args *args;
	act_fn act;
	json_t *done; /* for programs, what is printed at the end; or NULL */
};

/* One machine's turn, and what is printed for it. */
static int act_on(void *ctx, const char *machine, struct failure *fail)
{
	const struct turn *turn = ctx;
	json_t *answer = NULL;
	int r = turn->act(turn->client, machine, turn->args, &answer, fail);

	if (r == 0 && turn->done && answer)
		json_array_append(turn->done, answer);
	else if (r == 0 && !turn->done)
		printf("%s\n", args_flag(turn->args, "quiet") && answer ? json_text(answer, "id") : machine);
	json_decref(answer);
	return r;
}

/* Does `act` for every machine named. */
static int for_each(const struct args *args, struct failure *fail, act_fn act)
{
	enum output_format format;
	cleanup(client_free_p) struct client *client = request_begin(args, OUTPUT_TABLE, &format, fail);
	struct turn turn = {.client = client, .args = args, .act = act};
	int status;

	if (!client)
		return -fail->error.errnum;
	if (format != OUTPUT_TABLE)
		turn.done = json_array();
	status = operands_each(args, act_on, &turn, fail);
	if (turn.done && status >= 0)
		print_value(turn.done, format);
	json_decref(turn.done);
	return status;
}

static int wait_for_end(struct client *client, const char *machine, json_t **ret, struct failure *fail);

/* POSTs `verb`, and shows how far it is. A new reference in `ret`, also where that is interrupted. */
static int begin(struct client *client, const char *machine, const char *verb, const json_t *body, json_t **ret, struct failure *fail)
{
	cleanup_free char *suffix = NULL, *path = NULL;
	int r = client_catch_signals(client, fail);

	if (asprintf(&suffix, "/%s", verb) < 0)
		abort();
	path = client_path("machines", machine, suffix);
	if (r == 0)
		r = client_call(client, "POST", path, body, ret, fail);
	return r < 0 ? r : operation_show(client, *ret, fail);
}

/* Does `verb`, and waits for what `wait` waits for. Who does not wait any more is told that it goes on. */
static int do_and_wait(struct client *client, const char *machine, const char *verb, const json_t *body,
	int (*wait)(struct client *client, const char *machine, json_t **ret, struct failure *fail), json_t **ret, struct failure *fail)
{
	json_t *answer = NULL;
	int r = begin(client, machine, verb, body, &answer, fail);

	if (r == 0)
		r = wait(client, machine, ret, fail);
	if (r == -EINTR && answer)
		r = operation_goes_on(answer, verb, fail);
	json_decref(answer);
	return r;
}

/* What was suspended, and could not be resumed, is started: that is no failure, but whoever thinks that it goes on where it was is wrong. */
static void tell_started_anew(const json_t *before, const json_t *after)
{
	const json_t *cause = json_object_get(after, "cause"), *cause_before = json_object_get(before, "cause");
	struct failure said = {0};

	if (strcmp(json_text(cause, "code"), "resume_failed") != 0 || strcmp(json_text(cause_before, "code"), "resume_failed") == 0)
		return;
	error_set_field(&said.error, EIO, json_text(after, "name"), "it was started anew, as it could not be resumed: %s", json_text(cause, "message"));
	failure_print(&said);
}

/* `answer`: that it is resumed, or will be. One that cannot be now stays suspended. */
static int wait_until_it_goes_on(struct client *client, const json_t *answer, json_t **ret, struct failure *fail)
{
	json_t *now = NULL;
	int r = strcmp(json_text(answer, "state"), "suspending") == 0 ? operation_finish(client, answer, "resumed", fail) : 0;

	if (r == 0)
		r = machine_wait(client, json_text(answer, "id"), "running,suspended,stopped,failed", &now, fail);
	if (r == 0 && strcmp(json_text(now, "state"), "suspended") == 0)
		r = error_set_field(&fail->error, EIO, json_text(now, "name"), "it was not resumed: %s", json_text(json_object_get(now, "cause"), "message"));
	if (r == 0 && strcmp(json_text(now, "state"), "failed") == 0)
		r = refuse_failed(now, fail);
	if (r < 0) {
		json_decref(now);
		return r;
	}
	tell_started_anew(answer, now);
	*ret = now;
	return 0;
}

/* By "start" or "resume". */
static int set_going(struct client *client, const char *machine, const char *verb, json_t **ret, struct failure *fail)
{
	json_t *answer = NULL;
	int r = begin(client, machine, verb, NULL, &answer, fail);
	const char *state = json_text(answer, "state");

	if (r == 0 && (strcmp(state, "resuming") == 0 || strcmp(state, "suspending") == 0 || strcmp(state, "suspended") == 0))
		r = wait_until_it_goes_on(client, answer, ret, fail);
	else if (r == 0)
		r = wait_until_it_runs(client, machine, ret, fail);
	if (r == -EINTR && answer)
		r = operation_goes_on(answer, strcmp(state, "starting") == 0 ? "start" : "resume", fail);
	json_decref(answer);
	return r;
}

static int start_one(struct client *client, const char *machine, const struct args *args, json_t **ret, struct failure *fail)
{
	(void)args;
	return set_going(client, machine, "start", ret, fail);
}

int machine_start_run(const struct args *args, struct failure *fail)
{
	return for_each(args, fail, start_one);
}

/* One that is deleted as soon as it has ended, by `hull run --rm`, has ended. */
static int wait_for_end(struct client *client, const char *machine, json_t **ret, struct failure *fail)
{
	int r = machine_wait(client, machine, "stopped,failed,created", ret, fail);

	return r < 0 && strcmp(fail->code, "not_found") == 0 ? 0 : r;
}

/* "stop" or "restart", within what --timeout says. */
static int end_one(struct client *client, const char *machine, const char *verb, const struct args *args,
	int (*wait)(struct client *client, const char *machine, json_t **ret, struct failure *fail), json_t **ret, struct failure *fail)
{
	long long timeout_s;
	json_t *body = NULL;
	int r = args_integer(args, "timeout", 0, 3600, -1, &timeout_s, fail);

	if (r < 0)
		return r;
	if (timeout_s >= 0)
		body = json_pack("{s:I}", "timeout_s", (json_int_t)timeout_s);
	r = do_and_wait(client, machine, verb, body, wait, ret, fail);
	json_decref(body);
	return r;
}

static int stop_one(struct client *client, const char *machine, const struct args *args, json_t **ret, struct failure *fail)
{
	return end_one(client, machine, "stop", args, wait_for_end, ret, fail);
}

int machine_stop_run(const struct args *args, struct failure *fail)
{
	return for_each(args, fail, stop_one);
}

static int restart_one(struct client *client, const char *machine, const struct args *args, json_t **ret, struct failure *fail)
{
	return end_one(client, machine, "restart", args, wait_until_it_runs, ret, fail);
}

int machine_restart_run(const struct args *args, struct failure *fail)
{
	return for_each(args, fail, restart_one);
}

static int suspend_one(struct client *client, const char *machine, const struct args *args, json_t **ret, struct failure *fail)
{
	cleanup_free char *path = client_path("machines", machine, "");
	json_t *answer = NULL;
	int r = begin(client, machine, "suspend", NULL, &answer, fail);

	(void)args;
	/* When it could not be, it runs: only what was under way says so. */
	if (r == 0)
		r = operation_finish(client, answer, "suspended", fail);
	if (r == 0)
		r = client_call(client, "GET", path, NULL, ret, fail);
	if (r == -EINTR && answer)
		r = operation_goes_on(answer, "suspend", fail);
	json_decref(answer);
	return r;
}

int machine_suspend_run(const struct args *args, struct failure *fail)
{
	return for_each(args, fail, suspend_one);
}

static int resume_one(struct client *client, const char *machine, const struct args *args, json_t **ret, struct failure *fail)
{
	(void)args;
	return set_going(client, machine, "resume", ret, fail);
}

int machine_resume_run(const struct args *args, struct failure *fail)
{
	return for_each(args, fail, resume_one);
}

static int post(struct client *client, const char *machine, const char *verb, json_t **ret, struct failure *fail)
{
	cleanup_free char *path = client_path("machines", machine, verb);

	return client_call(client, "POST", path, NULL, ret, fail);
}

static int kill_one(struct client *client, const char *machine, const struct args *args, json_t **ret, struct failure *fail)
{
	int r = post(client, machine, "/kill", NULL, fail);

	(void)args;
	return r < 0 ? r : wait_for_end(client, machine, ret, fail);
}

int machine_kill_run(const struct args *args, struct failure *fail)
{
	return for_each(args, fail, kill_one);
}

static int freeze_one(struct client *client, const char *machine, const struct args *args, json_t **ret, struct failure *fail)
{
	(void)args;
	return post(client, machine, "/freeze", ret, fail);
}

int machine_freeze_run(const struct args *args, struct failure *fail)
{
	return for_each(args, fail, freeze_one);
}

static int thaw_one(struct client *client, const char *machine, const struct args *args, json_t **ret, struct failure *fail)
{
	(void)args;
	return post(client, machine, "/thaw", ret, fail);
}

int machine_thaw_run(const struct args *args, struct failure *fail)
{
	return for_each(args, fail, thaw_one);
}

/* By its id: what is asked for a second time, as the connection broke, must not find another machine that has got its name meanwhile. Who
 * may not look takes the name. */
static int remove_one(struct client *client, const char *machine, const struct args *args, json_t **ret, struct failure *fail)
{
	cleanup_free char *there = client_path("machines", machine, ""), *path = NULL;
	json_t *found = NULL;
	int r = client_call(client, "GET", there, NULL, &found, fail);

	(void)ret;
	if (r == 0 || strcmp(fail->code, "forbidden") == 0) {
		memset(fail, 0, sizeof(*fail));
		path = client_path("machines", found ? json_text(found, "id") : machine, args_flag(args, "force") ? "?force=1" : "");
		r = client_call(client, "DELETE", path, NULL, NULL, fail);
	}
	json_decref(found);
	if (r < 0 && strcmp(fail->code, "wrong_state") == 0)
		failure_hint(fail, "stop it first, or `hull rm -f %s`", machine);
	if (r < 0 && strcmp(fail->code, "machine_in_use") == 0)
		failure_hint(fail, "delete that one first, or `hull rm -f %s`", machine);
	return r;
}

int machine_remove_run(const struct args *args, struct failure *fail)
{
	return for_each(args, fail, remove_one);
}

static int refuse_stopped(const json_t *machine, struct failure *fail)
{
	const json_t *status = json_object_get(machine, "exit_status");
	const char *name = json_text(machine, "name");

	if (machine_ran_out_of_memory(machine)) {
		error_set_field(&fail->error, EIO, name, "the machine has stopped: its command was killed, as its %lld MiB of memory were used up",
			(long long)json_number(machine, "memory_mib"));
		return failure_hint(fail, "`hull update %s -m MIB --restart-now` gives it more", name);
	}
	if (json_is_integer(status))
		error_set_field(&fail->error, EIO, name, "the machine has stopped: its command ended with status %lld", (long long)json_integer_value(status));
	else
		error_set_field(&fail->error, EIO, name, "the machine has stopped");
	return failure_hint(fail, "`hull logs %s` shows what it said", name);
}

int machine_wait_healthy(struct client *client, const char *name, json_t **ret, struct failure *fail)
{
	json_t *machine = NULL;
	int r = machine_wait(client, name, "healthy,unhealthy,stopped,failed", &machine, fail);
	const json_t *health = json_object_get(machine, "health");
	const char *state = json_text(machine, "state"), *health_state = json_text(health, "state");

	if (r == 0 && strcmp(state, "failed") == 0) {
		r = refuse_failed(machine, fail);
	} else if (r == 0 && strcmp(state, "running") != 0) {
		r = refuse_stopped(machine, fail);
	} else if (r == 0 && strcmp(health_state, "unhealthy") == 0) {
		r = error_set_field(&fail->error, EIO, json_text(machine, "name"), "the machine is unhealthy: %s",
			json_text(health, "reason"));
		failure_hint(fail, "`hull logs %s` may say more; what takes longer to come up gets that by `hull update --health-grace S %s`",
			json_text(machine, "name"), json_text(machine, "name"));
	}
	if (r == 0)
		*ret = machine;
	else
		json_decref(machine);
	return r;
}

int machine_logs_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	cleanup_free char *path = NULL;
	char query[96], tail[32] = "";
	long long lines;
	int r = args_integer(args, "tail", 0, 1000000000, -1, &lines, fail);

	if (r < 0)
		return r;
	if (args_flag(args, "console") && args_flag(args, "monitor"))
		return failure_usage(fail, "--console", "not together with --monitor");
	if (lines >= 0)
		snprintf(tail, sizeof(tail), "&tail=%lld", lines);
	snprintf(query, sizeof(query), "/logs?follow=%d&source=%s%s", args_flag(args, "follow"),
		args_flag(args, "console")   ? "console"
		: args_flag(args, "monitor") ? "monitor"
					     : "workload",
		tail);
	path = client_path("machines", args->operands[0], query);
	client = client_new(args, fail);
	return client ? client_stream(client, path, STDOUT_FILENO, fail) : -fail->error.errnum;
}
