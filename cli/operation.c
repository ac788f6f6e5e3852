/* hull operation list, inspect, wait, cancel; and how far one is, for who waits at a terminal. */
#include "cli/operation.h"

#include "cli/bar.h"
#include "cli/collection.h"
#include "cli/commands.h"
#include "cli/operands.h"
#include "cli/output.h"
#include "cli/request.h"
#include "common/cleanup.h"

#include <errno.h>
#include <string.h>

const struct option_def operation_list_options[] = {
	{'a', "all", NULL, "ended ones too"},
	{'m', "machine", "MACHINE", "only those on that machine"},
	OUTPUT_OPTION,
	QUIET_OPTION("ids only"),
	{0},
};

/* "3/5", or "" where nobody knows. */
static const char *progress_text(const json_t *operation, char ret[32])
{
	const json_t *progress = json_object_get(operation, "progress");

	snprintf(ret, 32, json_is_object(progress) ? "%lld/%lld" : "", (long long)json_number(progress, "done"),
		(long long)json_number(progress, "total"));
	return ret;
}

static void add_row(struct table *table, const json_t *operation)
{
	char age[AGE_MAX], progress[32];

	table_add(table, "%s", json_text(operation, "id"));
	table_add(table, "%s", json_text(operation, "kind"));
	table_add(table, "%s", json_text(json_object_get(operation, "subject"), "name"));
	table_add(table, "%s%s%s", json_text(operation, "state"), json_text(operation, "phase")[0] ? ": " : "", json_text(operation, "phase"));
	table_add(table, "%s", progress_text(operation, progress));
	table_add(table, "%s", json_text(operation, "requested_by"));
	table_add(table, "%s", age_text(json_text(operation, "created_at"), time(NULL), age));
	table_add(table, "%s", json_text(json_object_get(operation, "error"), "detail"));
}

static const struct collection operations = {"operations", "id", "ID|KIND|MACHINE|STATE|DONE|BY|BEGAN|ERROR", add_row};

/* "state=running&machine=…"; owned by the caller. */
static char *make_query(const struct args *args)
{
	const char *machine = args_value(args, "machine");
	cleanup_free char *escaped = client_escape(machine ? machine : "");
	char *query;

	if (asprintf(&query, "%s%s%s%s", args_flag(args, "all") ? "" : "state=running", !args_flag(args, "all") && machine ? "&" : "",
		    machine ? "machine=" : "", escaped) < 0)
		abort();
	return query;
}

int operation_list_run(const struct args *args, struct failure *fail)
{
	cleanup_free char *query = make_query(args);

	return collection_list_where(&operations, query, args, fail);
}

int operation_inspect_run(const struct args *args, struct failure *fail)
{
	return collection_inspect(&operations, args, fail);
}

/* What did not succeed is a failure, which a script sees by the exit status. */
static int judge(const json_t *operation, struct failure *fail)
{
	const char *state = json_text(operation, "state"), *id = json_text(operation, "id");
	const char *detail = json_text(json_object_get(operation, "error"), "detail");

	if (strcmp(state, "succeeded") == 0)
		return 0;
	error_set_field(&fail->error, EIO, id, "%s%s%s", state, detail[0] ? ": " : "", detail);
	return failure_hint(fail, "hull operation inspect %s", id);
}

/* ---- how far it is ---- */

/* False: there is nothing to see any more, nor of a start, unless it is waited for `to_its_end`, when the machine runs. */
static bool draw(struct client *client, const char *path, bool to_its_end, struct bar *bar)
{
	struct failure unsaid = {0};
	json_t *operation = NULL;
	bool goes_on = client_call(client, "GET", path, NULL, &operation, &unsaid) == 0 && json_text(operation, "phase")[0] &&
		       (to_its_end || strcmp(json_text(operation, "phase"), "health") != 0);
	const json_t *progress = json_object_get(operation, "progress");
	char what[80];

	snprintf(what, sizeof(what), "%.30s: %.30s", json_text(operation, "kind"), json_text(operation, "phase"));
	if (goes_on)
		bar_steps(bar, (uint64_t)json_number(progress, "done"), (uint64_t)json_number(progress, "total"), what);
	json_decref(operation);
	return goes_on;
}

/* A bar called `label`, once it takes longer than a moment. As operation_show(). */
static int show(struct client *client, const char *id, const char *label, bool to_its_end, struct failure *fail)
{
	cleanup_free char *path = client_path("operations", id, ""), *wait = client_path("operations", id, "/wait?timeout_s=1");
	json_t *ended = NULL;
	struct bar bar;
	int r = 0;

	bar_begin(&bar, label);
	if (!id[0] || !bar.on)
		return 0;
	do {
		memset(fail, 0, sizeof(*fail));
		r = client_call(client, "GET", wait, NULL, &ended, fail);
	} while (r < 0 && strcmp(fail->code, "timeout") == 0 && draw(client, path, to_its_end, &bar));
	bar_end(&bar);
	json_decref(ended);
	if (r == -EINTR)
		return r;
	memset(fail, 0, sizeof(*fail));
	return 0;
}

int operation_show(struct client *client, const json_t *machine, struct failure *fail)
{
	return show(client, json_text(machine, "operation"), json_text(machine, "name"), false, fail);
}

/* ---- waiting ---- */

/* A new reference in `ret`. */
static int wait_for_end(struct client *client, const char *id, json_t **ret, struct failure *fail)
{
	cleanup_free char *path = client_path("operations", id, "/wait");
	struct retry retry = {.worked = true};
	int r;

	do {
		memset(fail, 0, sizeof(*fail));
		r = client_wait(client, path, ret, fail);
	} while (r < 0 && client_retries(client, &retry, 250, fail));
	return r;
}

int operation_finish(struct client *client, const json_t *machine, const char *done, struct failure *fail)
{
	const char *id = json_text(machine, "operation"), *name = json_text(machine, "name"), *detail;
	json_t *ended = NULL;
	int r = id[0] ? wait_for_end(client, id, &ended, fail) : 0;

	if (r == 0 && ended && strcmp(json_text(ended, "state"), "succeeded") != 0) {
		detail = json_text(json_object_get(ended, "error"), "detail");
		r = error_set_field(&fail->error, EIO, name, "it was not %s%s%s", done, detail[0] ? ": " : "", detail);
		failure_hint(fail, "`hull events -m %s` has what has happened", name);
	}
	json_decref(ended);
	return r;
}

int operation_wait_run(const struct args *args, struct failure *fail)
{
	enum output_format format;
	cleanup(client_free_p) struct client *client = request_begin(args, OUTPUT_TABLE, &format, fail);
	json_t *ended = NULL;
	int r;

	if (!client)
		return -fail->error.errnum;
	show(client, args->operands[0], args->operands[0], true, fail);
	r = wait_for_end(client, args->operands[0], &ended, fail);
	if (r == 0) {
		print_made(ended, "state", format);
		r = judge(ended, fail);
	}
	json_decref(ended);
	return r;
}

/* `ctx`: the client. */
static int cancel_one(void *ctx, const char *operation, struct failure *fail)
{
	cleanup_free char *path = client_path("operations", operation, "/cancel");
	int r = client_call(ctx, "POST", path, NULL, NULL, fail);

	if (r == 0)
		printf("%s\n", operation);
	return r;
}

int operation_cancel_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = client_new(args, fail);

	return client ? operands_each(args, cancel_one, client, fail) : -fail->error.errnum;
}

int operation_goes_on(const json_t *machine, const char *verb, struct failure *fail)
{
	const char *id = json_text(machine, "operation");
	bool is_final = strcmp(verb, "suspend") == 0 || strcmp(verb, "resume") == 0;

	if (!id[0])
		return -EINTR;
	error_set_field(&fail->error, EINTR, json_text(machine, "name"), "its %s goes on", verb);
	if (is_final)
		return failure_hint(fail, "`hull operation wait %s` waits for its end", id);
	return failure_hint(fail, "`hull operation cancel %s` undoes it, while it can be; `hull operation wait %s` waits for its end", id, id);
}
