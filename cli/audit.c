/* hull audit: who has done what on the host, and how it was answered. */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TAIL	 100
#define TAIL_MAX 1000000
#define PAGE_MAX 1000

const struct option_def audit_options[] = {
	{'n', "tail", "N", "the last N lines (100)"},
	{'o', "output", "table|json|yaml", "how to print it: columns (table), an object a line, or a document each"},
	{0},
};

/* "ci (tabc…)", "uid 0, pid 17", "host-token" or "nobody". */
static void add_who(struct table *table, const json_t *entry)
{
	const char *who = json_text(entry, "who");

	if (strcmp(who, "token") == 0 && json_text(entry, "label")[0])
		table_add(table, "%s (%s)", json_text(entry, "label"), json_text(entry, "token"));
	else if (strcmp(who, "token") == 0)
		table_add(table, "%s", json_text(entry, "token"));
	else if (strcmp(who, "socket") == 0)
		table_add(table, "uid %lld, pid %lld", (long long)json_number(entry, "uid"), (long long)json_number(entry, "pid"));
	else
		table_add(table, "%s", who);
}

static void add_row(struct table *table, const json_t *entry)
{
	const char *operation = json_text(entry, "operation"), *code = json_text(entry, "code");
	const char *resource = json_text(entry, "resource"), *file = json_text(entry, "file");

	table_add(table, "%s", json_text(entry, "at"));
	add_who(table, entry);
	table_add(table, "%s", json_text(entry, "address"));
	table_add(table, "%s", json_text(entry, "project"));
	if (operation[0])
		table_add(table, "%s", operation);
	else
		table_add(table, "%s %s", json_text(entry, "method"), json_text(entry, "path"));
	table_add(table, "%s%s%s", resource, file[0] ? ":" : "", file);
	if (json_number(entry, "status"))
		table_add(table, "%lld%s%s", (long long)json_number(entry, "status"), code[0] ? " " : "", code);
	else
		table_add(table, "no answer");
}

/* The newest `n`, the newest first: a new array. */
static int collect(struct client *client, const char *project, size_t n, json_t **ret, struct failure *fail)
{
	cleanup_free char *filter = client_escape(project ? project : "");
	json_t *all = json_array(), *page = NULL;
	char cursor[128] = "";
	int r = 0;

	do {
		size_t missing = n - json_array_size(all);
		cleanup_free char *path = NULL;

		if (asprintf(&path, "/v1/audit?limit=%zu%s%s%s%s", missing < PAGE_MAX ? missing : PAGE_MAX, project ? "&project=" : "", filter,
			    cursor[0] ? "&cursor=" : "", cursor) < 0)
			abort();
		r = client_call(client, "GET", path, NULL, &page, fail);
		if (r == 0) {
			cleanup_free char *next = client_escape(json_text(page, "next"));

			json_array_extend(all, json_object_get(page, "items"));
			snprintf(cursor, sizeof(cursor), "%s", next);
		}
		json_decref(page);
		page = NULL;
	} while (r == 0 && cursor[0] && json_array_size(all) < n);
	if (r == 0)
		*ret = all;
	else
		json_decref(all);
	return r;
}

static void print_all(const json_t *entries, enum output_format format)
{
	struct table table;

	table_init(&table, "AT|WHO|FROM|PROJECT|DID|TO|ANSWER");
	for (size_t i = json_array_size(entries); i > 0; i--) {
		const json_t *entry = json_array_get(entries, i - 1);

		if (format == OUTPUT_TABLE)
			add_row(&table, entry);
		else
			print_next(entry, format);
	}
	if (format == OUTPUT_TABLE)
		table_print(&table, stdout);
	table_done(&table);
}

int audit_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	json_t *entries = NULL;
	long long tail = TAIL;
	enum output_format format;
	int r = output_format(args, OUTPUT_TABLE, &format, fail);

	if (r == 0)
		r = args_integer(args, "tail", 1, TAIL_MAX, TAIL, &tail, fail);
	if (r < 0)
		return r;
	client = client_new(args, fail);
	if (!client)
		return -fail->error.errnum;
	r = collect(client, args_common_value(args, "project"), (size_t)tail, &entries, fail);
	if (r == 0)
		print_all(entries, format);
	json_decref(entries);
	return r;
}
