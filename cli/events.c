/* hull events: what has happened, page by page, and what happens, as a stream. */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/follow.h"
#include "cli/machine.h"
#include "cli/output.h"

#include "common/checked.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SINCE_MAX_S 31536000

const struct option_def events_options[] = {
	{'f', "follow", NULL, "go on with what happens"},
	{0, "since", "S[s|m|h|d]", "only of the last so many seconds, minutes, hours or days"},
	{'m', "machine", "MACHINE", "only of that machine"},
	{0, "type", "TYPE[,TYPE]", "only of these types, as machine.failed, or of these things, as machine"},
	{'o', "output", "table|json|yaml", "how to print it: lines (table), an object a line, or a document each"},
	{0},
};

static int read_since(const struct args *args, long long def_s, long long *ret_s, struct failure *fail)
{
	static const struct {
		char letter;
		long long seconds;
	} units[] = {{'\0', 1}, {'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	const char *text = args_value(args, "since");
	char *end;
	long long value;

	*ret_s = def_s;
	if (!text)
		return 0;
	errno = 0;
	value = strtoll(text, &end, 10);
	for (size_t i = 0; i < ARRAY_SIZE(units) && !errno && end != text && value >= 0; i++)
		if (*end == units[i].letter && (!*end || !end[1]) && value <= SINCE_MAX_S / units[i].seconds) {
			*ret_s = value * units[i].seconds;
			return 0;
		}
	return failure_usage(fail, "--since", "must be a number of seconds, or as 30m, 12h or 7d; a year at most");
}

/* A machine may have had a hand in it. */
static void print_clean(const char *text, int width)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < len; i++)
		putchar((unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i]);
	for (; len < (size_t)width; len++)
		putchar(' ');
}

/* Why a run has ended is no news of the next one; and an operation's error says it already. */
static bool tells_end(const char *type, const char *code)
{
	return code[0] && strncmp(type, "machine.", 8) == 0 && strcmp(type, "machine.starting") != 0 && strcmp(type, "machine.running") != 0;
}

static void print_end(const char *type, const json_t *data)
{
	const json_t *cause = json_object_get(data, "cause"), *status = json_object_get(data, "exit_status");

	if (!tells_end(type, json_text(cause, "code")))
		return;
	printf("  ");
	print_clean(json_text(cause, "code"), 0);
	printf(json_text(cause, "message")[0] ? ": " : "");
	print_clean(json_text(cause, "message"), 0);
	if (json_is_integer(status))
		printf(", status %lld", (long long)json_integer_value(status));
}

static void print_event(const json_t *event)
{
	const json_t *data = json_object_get(event, "data"), *error = json_object_get(data, "error");

	print_clean(json_text(event, "at"), 26);
	print_clean(json_text(event, "type"), 28);
	print_clean(json_text(event, "name"), 0);
	print_end(json_text(event, "type"), data);
	if (json_text(data, "kind")[0])
		printf("  %s%s%s", json_text(data, "kind"), json_text(data, "phase")[0] ? ": " : "", json_text(data, "phase"));
	if (json_text(error, "detail")[0]) {
		printf("  ");
		print_clean(json_text(error, "detail"), 0);
	}
	if (json_text(data, "reason")[0]) {
		printf("  ");
		print_clean(json_text(data, "reason"), 0);
	}
	if (json_text(data, "restart_at")[0]) {
		printf("  at ");
		print_clean(json_text(data, "restart_at"), 0);
	}
	putchar('\n');
}

static void print_page(const json_t *page, enum output_format format)
{
	json_t *event;
	size_t i;

	json_array_foreach (json_object_get(page, "items"), i, event) {
		if (format == OUTPUT_TABLE)
			print_event(event);
		else
			print_next(event, format);
	}
	fflush(stdout);
}

struct looking {
	json_int_t cursor; /* where the next page begins; -1: nobody has said */
	bool more;	   /* there is one already */
	size_t shown;
};

static int look(struct client *client, const char *query, enum output_format format, struct looking *looking, struct failure *fail)
{
	json_t *page = NULL;
	int r = client_call(client, "GET", query, NULL, &page, fail);

	if (r == 0 && !json_is_integer(json_object_get(page, "cursor")))
		r = error_set(&fail->error, EPROTO, "the answer has no cursor");
	if (r == 0) {
		print_page(page, format);
		looking->cursor = json_number(page, "cursor");
		looking->more = json_is_true(json_object_get(page, "more"));
		looking->shown += json_array_size(json_object_get(page, "items"));
	}
	json_decref(page);
	return r;
}

/* "&machine=…&type=…"; owned by the caller. */
static char *filter_text(const struct args *args)
{
	const char *machine = args_value(args, "machine"), *type = args_value(args, "type");
	cleanup_free char *machine_path = client_path("", machine ? machine : "", ""), *type_path = client_path("", type ? type : "", "");
	char *text;

	/* What client_path() escapes comes after the last slash. */
	if (asprintf(&text, "%s%s%s%s", machine ? "&machine=" : "", machine ? strrchr(machine_path, '/') + 1 : "", type ? "&type=" : "",
		    type ? strrchr(type_path, '/') + 1 : "") < 0)
		abort();
	return text;
}

struct printing {
	enum output_format format;
	struct failure *fail;
};

static int print_followed(void *ctx, const json_t *event)
{
	const struct printing *printing = ctx;

	if (printing->format == OUTPUT_TABLE)
		print_event(event);
	else
		print_next(event, printing->format);
	fflush(stdout);
	return ferror(stdout) ? error_set(&printing->fail->error, EPIPE, "cannot write the output") : 0;
}

static int follow(struct client *client, const char *filter, long long since_s, enum output_format format, struct failure *fail)
{
	struct printing printing = {format, fail};
	cleanup_free char *query = NULL;

	if ((since_s >= 0 ? asprintf(&query, "since_s=%lld%s", since_s, filter) : asprintf(&query, "%s", filter + (filter[0] == '&'))) < 0)
		abort();
	return follow_events(client, query, print_followed, &printing, fail);
}

/* A machine's name may be misspelt: that of one which is gone is none that could be looked up. */
static void say_nothing_happened(const struct args *args)
{
	const char *machine = args_value(args, "machine"), *since = args_value(args, "since"), *type = args_value(args, "type");

	fprintf(stderr, "hull: nothing%s that is kept has happened to \"%s\"%s\n", type ? " of that type" : "", machine,
		since ? " in that time" : "");
	if (since || type)
		fprintf(stderr, "      `hull events -m %s` shows all of it\n", machine);
	else
		fprintf(stderr, "      `hull ps -a` lists what there is\n");
}

int events_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	cleanup_free char *filter = filter_text(args);
	struct looking looking = {.cursor = -1};
	enum output_format format;
	long long since_s = -1;
	int r = output_format(args, OUTPUT_TABLE, &format, fail);

	if (r == 0)
		r = read_since(args, -1, &since_s, fail);
	if (r < 0)
		return r;
	client = client_new(args, fail);
	if (!client)
		return -fail->error.errnum;
	if (args_flag(args, "follow"))
		return follow(client, filter, since_s, format, fail);
	do {
		cleanup_free char *query = NULL;
		char begin[64] = "";

		if (looking.cursor >= 0)
			snprintf(begin, sizeof(begin), "&after=%lld", (long long)looking.cursor);
		else if (since_s >= 0)
			snprintf(begin, sizeof(begin), "&since_s=%lld", since_s);
		if (asprintf(&query, "/v1/events?limit=1000%s%s", begin, filter) < 0)
			abort();
		r = look(client, query, format, &looking, fail);
	} while (r == 0 && looking.more && !ferror(stdout));
	if (r == 0 && looking.shown == 0 && args_value(args, "machine") && format == OUTPUT_TABLE)
		say_nothing_happened(args);
	return r;
}
