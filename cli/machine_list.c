/* hull machine list and inspect. */
#include "cli/machine.h"

#include "cli/collection.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "common/buf.h"
#include "common/checked.h"

#include <stdlib.h>
#include <string.h>

#define QUERY_MAX (1u << 20)

const struct option_def machines_options[] = {
	{'a', "all", NULL, "ended machines too"},
	OUTPUT_OPTION,
	QUIET_OPTION("ids only"),
	{'l', "label", "KEY[=VALUE]", "only those with that label"},
	{'f', "filter", "KEY=VALUE", "only those with that label, state or name: label=KEY=VALUE, state=running,failed, name=web*"},
	{0},
};

/* "127.0.0.1:8080->80, …"; owned by the caller. */
static char *ports_text(const json_t *machine)
{
	char *text = strdup("");
	const json_t *port;
	size_t i;

	json_array_foreach (json_object_get(machine, "ports"), i, port) {
		const char *hostname = json_string_value(json_object_get(port, "hostname"));
		char *longer, host[24];
		bool udp = strcmp(json_text(port, "protocol"), "udp") == 0;

		snprintf(host, sizeof(host), ":%lld", (long long)json_number(port, "host"));
		if (!text || asprintf(&longer, "%s%s%s%s->%lld%s", text, i ? ", " : "", hostname ? hostname : json_text(port, "address"),
				     hostname ? "" : host, (long long)json_number(port, "guest"), udp ? "/udp" : "") < 0)
			abort();
		free(text);
		text = longer;
	}
	return text;
}

static bool has_ended(const json_t *machine)
{
	const char *state = json_text(machine, "state");

	return strcmp(state, "stopped") == 0 || strcmp(state, "failed") == 0 || strcmp(state, "created") == 0;
}

static bool is_suspended(const json_t *machine)
{
	return strcmp(json_text(machine, "state"), "suspended") == 0;
}

/* One that has not come up when somebody came says that it has failed, though it may be tried again. */
static bool sleeps(const json_t *machine)
{
	return json_is_true(json_object_get(machine, "asleep")) && (is_suspended(machine) || strcmp(json_text(machine, "state"), "stopped") == 0);
}

static void add_row(struct table *table, const json_t *machine)
{
	cleanup_free char *ports = ports_text(machine);
	const json_t *status = json_object_get(machine, "exit_status"), *waiting = json_object_get(machine, "waiting_for");
	char age[AGE_MAX], size[SIZE_MAX_TEXT];

	table_add(table, "%s", json_text(machine, "name"));
	table_add(table, "%s", json_text(machine, "image"));
	if (sleeps(machine))
		table_add(table, "%s", is_suspended(machine) ? "asleep (suspended)" : "asleep");
	else if (machine_ran_out_of_memory(machine) && has_ended(machine))
		table_add(table, "%s (%d, out of memory)", json_text(machine, "state"), MACHINE_KILLED_STATUS);
	else if (json_is_integer(status) && has_ended(machine))
		table_add(table, "%s (%lld)", json_text(machine, "state"), (long long)json_integer_value(status));
	else if (strcmp(json_text(machine, "state"), "failed") == 0)
		table_add(table, "failed (%s)", json_text(json_object_get(machine, "cause"), "code"));
	else if (json_is_true(json_object_get(machine, "frozen")))
		table_add(table, "%s (frozen)", json_text(machine, "state"));
	else if (strcmp(json_text(machine, "state"), "running") == 0 && json_object_get(machine, "health"))
		table_add(table, "running (%s)", json_text(json_object_get(machine, "health"), "state"));
	else if (json_array_size(waiting))
		table_add(table, "%s (waits for %s)", json_text(machine, "state"), json_string_value(json_array_get(waiting, 0)));
	else
		table_add(table, "%s", json_text(machine, "state"));
	table_add(table, "%s", ports);
	table_add(table, "%lld", (long long)json_number(machine, "cpus"));
	table_add(table, "%s", size_text((uint64_t)json_number(machine, "memory_mib") << 20, size));
	table_add(table, "%s", age_text(json_text(machine, "created_at"), time(NULL), age));
}

static const struct collection machines = {"machines", "id", "NAME|IMAGE|STATE|PORTS|CPUS|MEMORY|CREATED", add_row};

static bool filters_by_state(const struct args *args)
{
	const char *filter;
	size_t i = 0;

	while ((filter = args_next(args, "filter", &i)))
		if (strncmp(filter, "state=", 6) == 0)
			return true;
	return false;
}

/* "state" or "label", and a value that is escaped. */
static void add_query(struct buf *query, const char *key, size_t len, const char *value)
{
	cleanup_free char *escaped = client_escape(value);

	if (buf_printf(query, "%s%.*s=%s", query->len ? "&" : "", (int)len, key, escaped) < 0)
		abort();
}

/* What --label and --filter say, as the API's query. 0 or a usage failure. */
static int make_query(const struct args *args, struct buf *query, struct failure *fail)
{
	static const char *const keys[] = {"label", "name", "state"};
	const char *value;
	size_t i = 0, key;

	while ((value = args_next(args, "label", &i)))
		add_query(query, "label", 5, value);
	i = 0;
	while ((value = args_next(args, "filter", &i))) {
		size_t len = strcspn(value, "=");

		for (key = 0; key < ARRAY_SIZE(keys); key++)
			if (value[len] && strlen(keys[key]) == len && strncmp(keys[key], value, len) == 0)
				break;
		if (key == ARRAY_SIZE(keys))
			return failure_usage(fail, "--filter", "\"%s\" is none of label=KEY[=VALUE], name=NAME, state=STATE", value);
		add_query(query, value, len, value + len + 1);
	}
	return buf_append(query, "", 1);
}

static void print_machines(const struct args *args, json_t *items, enum output_format format)
{
	json_t *machine, *shown = json_array();
	size_t i;

	json_array_foreach (items, i, machine)
		if (args_flag(args, "all") || filters_by_state(args) || !has_ended(machine) ||
			json_is_true(json_object_get(machine, "asleep")))
			json_array_append(shown, machine);
	if (format == OUTPUT_TABLE)
		collection_print(&machines, shown, args_flag(args, "quiet"));
	else
		print_value(shown, format);
	json_decref(shown);
}

int machine_list_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	json_t *items = NULL;
	struct buf query;
	enum output_format format;
	int r = output_format(args, OUTPUT_TABLE, &format, fail);

	if (r < 0)
		return r;
	buf_init(&query, QUERY_MAX);
	r = make_query(args, &query, fail);
	client = r < 0 ? NULL : client_new(args, fail);
	if (r == 0)
		r = client ? client_list(client, "/v1/machines", query.data, &items, fail) : -fail->error.errnum;
	buf_done(&query);
	if (r == 0)
		print_machines(args, items, format);
	json_decref(items);
	return r;
}

int machine_inspect_run(const struct args *args, struct failure *fail)
{
	return collection_inspect(&machines, args, fail);
}
