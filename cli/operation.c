/* hull operation list, inspect, wait, cancel; and how far one is, for who waits at a terminal. */
#include "cli/operation.h"

#include "cli/collection.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/request.h"
#include "common/cleanup.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define CLEAR_LINE "\r\033[K"

const struct option_def operation_list_options[] = {
	{'a', "all", NULL, "ended ones too"},
	{'m', "machine", "MACHINE", "only those on that machine"},
	OUTPUT_OPTION,
	QUIET_OPTION("ids only"),
	{0},
};

static void add_row(struct table *table, const json_t *operation)
{
	char age[AGE_MAX];

	table_add(table, "%s", json_text(operation, "id"));
	table_add(table, "%s", json_text(operation, "kind"));
	table_add(table, "%s", json_text(json_object_get(operation, "subject"), "name"));
	table_add(table, "%s%s%s", json_text(operation, "state"), json_text(operation, "phase")[0] ? ": " : "", json_text(operation, "phase"));
	table_add(table, "%s", json_text(operation, "requested_by"));
	table_add(table, "%s", age_text(json_text(operation, "created_at"), time(NULL), age));
	table_add(table, "%s", json_text(json_object_get(operation, "error"), "detail"));
}

static const struct collection operations = {"operations", "id", "ID|KIND|MACHINE|STATE|BY|BEGAN|ERROR", add_row};

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

int operation_wait_run(const struct args *args, struct failure *fail)
{
	enum output_format format;
	cleanup(client_free_p) struct client *client = request_begin(args, OUTPUT_TABLE, &format, fail);
	cleanup_free char *path = client_path("operations", args->operands[0], "/wait");
	struct retry retry = {.worked = true};
	json_t *ended = NULL;
	int r;

	if (!client)
		return -fail->error.errnum;
	do {
		memset(fail, 0, sizeof(*fail));
		r = client_wait(client, path, &ended, fail);
	} while (r < 0 && client_retries(client, &retry, 250, fail));
	if (r == 0) {
		print_made(ended, "state", format);
		r = judge(ended, fail);
	}
	json_decref(ended);
	return r;
}

int operation_cancel_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = client_new(args, fail);
	int r = client ? 0 : -fail->error.errnum;

	for (size_t i = 0; i < args->n_operands && r == 0; i++) {
		cleanup_free char *path = client_path("operations", args->operands[i], "/cancel");

		r = client_call(client, "POST", path, NULL, NULL, fail);
		if (r == 0)
			printf("%s\n", args->operands[i]);
	}
	return r;
}

/* For who waits. */

/* It is shown once it takes longer than a moment. False: there is nothing to see any more. */
static bool show(struct client *client, const char *path, long seconds)
{
	struct failure unsaid = {0};
	json_t *operation = NULL;
	bool goes_on = client_call(client, "GET", path, NULL, &operation, &unsaid) == 0 && json_text(operation, "phase")[0] &&
		       strcmp(json_text(operation, "phase"), "health") != 0;

	if (goes_on)
		fprintf(stderr, CLEAR_LINE "%s: %s: %s, %ld s", json_text(json_object_get(operation, "subject"), "name"),
			json_text(operation, "kind"), json_text(operation, "phase"), seconds);
	json_decref(operation);
	return goes_on;
}

int operation_show(struct client *client, const json_t *machine, struct failure *fail)
{
	const char *id = json_text(machine, "operation");
	cleanup_free char *path = client_path("operations", id, ""), *wait = client_path("operations", id, "/wait?timeout_s=1");
	json_t *ended = NULL;
	long seconds = 0;
	int r = 0;

	if (!id[0] || !isatty(STDERR_FILENO))
		return 0;
	do {
		memset(fail, 0, sizeof(*fail));
		r = client_call(client, "GET", wait, NULL, &ended, fail);
	} while (r < 0 && strcmp(fail->code, "timeout") == 0 && show(client, path, ++seconds));
	if (seconds)
		fputs(CLEAR_LINE, stderr);
	json_decref(ended);
	if (r == -EINTR)
		return r;
	memset(fail, 0, sizeof(*fail));
	return 0;
}

int operation_goes_on(const json_t *machine, const char *verb, struct failure *fail)
{
	const char *id = json_text(machine, "operation");

	if (!id[0])
		return -EINTR;
	error_set_field(&fail->error, EINTR, json_text(machine, "name"), "its %s goes on", verb);
	return failure_hint(fail, "`hull operation cancel %s` undoes it, while it can be; `hull operation wait %s` waits for its end", id, id);
}
