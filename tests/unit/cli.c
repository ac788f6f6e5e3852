/* The argument table, the machine's spec from options, tables and ages. */
#include "tests/unit/test.h"

#include "cli/bar.h"
#include "cli/args.h"
#include "cli/mount.h"
#include "cli/output.h"
#include "cli/spec.h"
#include "cli/sse.h"
#include "common/checked.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct option_def options[] = {
	{0, "name", "NAME", "name"},
	{'m', "memory", "MIB", "memory"},
	{'p', "publish", "PORTS", "ports"},
	{'e', "env", "KEY=VALUE", "environment"},
	{0, "restart", "POLICY", "restart"},
	{'v', "volume", "VOLUME:PATH[:ro]", ""},
	{0, "depends-on", "NAME[:CONDITION]", ""},
	{'d', "detach", NULL, "flag"},
	{0, "health-http", "PORT[/PATH]", ""},
	{0, "health-tcp", "PORT", ""},
	{0, "health-cmd", "COMMAND", ""},
	{0, "health-interval", "S", ""},
	{0, "health-retries", "N", ""},
	{0, "health-grace", "S", ""},
	{0, "hostname", "NAME:GUEST", ""},
	{0},
};

static const struct command commands[] = {
	{"machine run", "run", "IMAGE [-- COMMAND...]", 1, 1, true, options, "run", 125, NULL},
	{"machine list", "ps", "", 0, 0, false, NULL, "list", 0, NULL},
	{"version", NULL, "", 0, 0, false, NULL, "version", 0, NULL},
	{0},
};

#define PARSE(args, fail, ...)                                                                                \
	({                                                                                                    \
		static char *argv_[] = {"hull", __VA_ARGS__};                                                   \
		memset(fail, 0, sizeof(*(fail)));                                                             \
		args_parse(args, commands, (int)(sizeof(argv_) / sizeof(argv_[0])), argv_, fail);             \
	})

static void options_stand_anywhere_and_take_values_both_ways(void **state)
{
	struct failure fail;
	struct args args;

	(void)state;
	assert_int_equal(PARSE(&args, &fail, "run", "-dm", "64", "img", "--name=a", "-e", "A=1", "-eB=2", "--", "ls", "-l"), 0);
	assert_string_equal(args.command->name, "machine run");
	assert_string_equal(args.operands[0], "img");
	assert_string_equal(args_value(&args, "name"), "a");
	assert_string_equal(args_value(&args, "memory"), "64");
	assert_true(args_flag(&args, "detach"));
	assert_int_equal(args.n_rest, 2);
	assert_string_equal(args.rest[1], "-l");
	args_done(&args);
	assert_int_equal(PARSE(&args, &fail, "--host", "unix:///x", "machine", "list"), 0);
	assert_string_equal(args_value(&args, "host"), "unix:///x");
	assert_string_equal(args.command->short_form, "ps");
	args_done(&args);
	/* A command for the machine follows its operand, and its options are its own. */
	assert_int_equal(PARSE(&args, &fail, "run", "--name", "web", "img", "ls", "--detach"), 0);
	assert_int_equal(args.n_operands, 1);
	assert_int_equal(args.n_rest, 2);
	assert_string_equal(args.rest[1], "--detach");
	assert_false(args_flag(&args, "detach"));
	args_done(&args);
}

static void mistakes_are_refused_with_the_nearest_name(void **state)
{
	struct failure fail;
	struct args args;

	(void)state;
#define REFUSED(hint_, ...)                                                                                   \
	do {                                                                                                  \
		assert_int_equal(PARSE(&args, &fail, __VA_ARGS__), -EINVAL);                                  \
		assert_true(fail.usage);                                                                      \
		assert_non_null(strstr(fail.hint, hint_));                                                    \
		args_done(&args);                                                                             \
	} while (0)
	REFUSED("hull version", "versoin");
	REFUSED("machine list", "machine", "lits");
	REFUSED("--name", "run", "--nmae", "x", "img");
	REFUSED("usage: hull run", "run");
	REFUSED("", "run", "img", "--detach=1");
	REFUSED("", "run", "img", "--name");
	REFUSED("", "run", "");
}

static void a_spec_says_what_the_options_said(void **state)
{
	struct failure fail;
	struct args args;
	json_t *spec = NULL;
	char *text;

	(void)state;
	assert_int_equal(PARSE(&args, &fail, "run", "img", "-m", "2g", "-p", "127.0.0.2:8080:80", "-e", "A=b=c", "--restart",
				 "on-failure:3"), 0);
	assert_int_equal(spec_from_args(&args, &spec, &fail), 0);
	text = json_dumps(spec, JSON_COMPACT | JSON_SORT_KEYS);
	assert_string_equal(text, "{\"env\":{\"A\":\"b=c\"},\"image\":\"img\",\"labels\":{},\"memory_mib\":2048,\"ports\":[{\"address\":"
				  "\"127.0.0.2\",\"guest\":80,\"host\":8080}],\"restart\":{\"max_retries\":3,\"policy\":\"on-failure\"}}");
	free(text);
	json_decref(spec);
	args_done(&args);
#define BAD(option, value)                                                                                    \
	do {                                                                                                  \
		assert_int_equal(PARSE(&args, &fail, "run", "img", option, value), 0);                        \
		assert_int_equal(spec_from_args(&args, &spec, &fail), -EINVAL);                               \
		assert_true(fail.usage);                                                                      \
		args_done(&args);                                                                             \
	} while (0)
	BAD("-p", "80");
	BAD("-p", "0:80");
	BAD("-p", "8080:65536");
	BAD("-m", "12x");
	BAD("-e", "=x");
	BAD("--restart", "always:3");
	BAD("--depends-on", "db-");
	BAD("--health-http", "/up");
	BAD("--health-http", "80up");
	BAD("--health-tcp", "65536");
	BAD("--health-tcp", "-1");
	BAD("--health-interval", "1");
	BAD("--health-retries", "0");
	BAD("--health-grace", "0");
	BAD("--health-http=80", "--health-grace=-1");
	BAD("--health-http=80", "--health-grace=86401");
	BAD("--health-http=80", "--health-grace=soon");
}

static void a_host_name_that_is_none_is_refused_by_its_option(void **state)
{
	static char *const bad[] = {"web.localhost", "web.localhost:", ":80", "web.localhost:0", "web.localhost:65536", "web.localhost:80x", ""};
	json_t *ports = json_array(), *spec;
	struct failure fail;
	struct args args;
	char *text;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(&fail, 0, sizeof(fail));
		assert_int_equal(spec_add_hostname(ports, bad[i], &fail), -EINVAL);
		assert_true(fail.usage);
		assert_string_equal(fail.error.field, "--hostname");
		assert_string_equal(fail.hint, "for example --hostname web.localhost:80");
	}
	assert_int_equal(spec_add_hostname(ports, "b\xff:80", &fail), -EINVAL);
	assert_string_equal(fail.error.field, "--hostname");
	assert_string_equal(fail.error.message, "is not UTF-8");
	json_decref(ports);
	assert_int_equal(PARSE(&args, &fail, "run", "img", "--hostname", "a.localhost:80", "--hostname=b.localhost:81"), 0);
	assert_int_equal(spec_from_args(&args, &spec, &fail), 0);
	text = json_dumps(json_object_get(spec, "ports"), JSON_COMPACT | JSON_SORT_KEYS);
	assert_string_equal(text, "[{\"guest\":80,\"hostname\":\"a.localhost\"},{\"guest\":81,\"hostname\":\"b.localhost\"}]");
	free(text);
	json_decref(spec);
	args_done(&args);
}

static void dependencies_are_added_replaced_and_taken_away(void **state)
{
	json_t *before = json_pack("[{s:s, s:s}, {s:s, s:s}]", "machine", "db", "condition", "ready", "machine", "old", "condition", "ready");
	json_t *spec = json_object();
	struct failure fail;
	struct args args;
	char *text;

	(void)state;
	assert_int_equal(PARSE(&args, &fail, "run", "img", "--depends-on", "migrate:completed", "--depends-on", "db:healthy",
				 "--depends-on", "old-", "--depends-on", "cache"), 0);
	assert_int_equal(spec_add_dependencies(&args, before, spec, &fail), 0);
	text = json_dumps(spec, JSON_COMPACT | JSON_SORT_KEYS);
	assert_string_equal(text, "{\"depends_on\":[{\"condition\":\"healthy\",\"machine\":\"db\"},{\"condition\":\"completed\",\"machine\":"
				  "\"migrate\"},{\"condition\":\"ready\",\"machine\":\"cache\"}]}");
	assert_int_equal(json_array_size(before), 2);
	free(text);
	json_decref(spec);
	json_decref(before);
	args_done(&args);
}

static void mounts_are_added_replaced_and_taken_away(void **state)
{
	json_t *before = json_pack("[{s:s, s:s, s:b}, {s:s, s:s, s:b}]", "volume", "a", "path", "/a", "read_only", 0, "volume", "b", "path", "/b",
		"read_only", 0);
	json_t *spec = json_object();
	struct failure fail;
	struct args args;
	char *text;

	(void)state;
	assert_int_equal(PARSE(&args, &fail, "run", "img", "-v", "a:/x:y:rw", "-v", "b-", "-v", "c:/c:ro", "-v", "d:/d:rw"), 0);
	assert_int_equal(spec_add_mounts(&args, before, spec, &fail), 0);
	text = json_dumps(spec, JSON_COMPACT | JSON_SORT_KEYS);
	assert_string_equal(text, "{\"mounts\":[{\"path\":\"/x:y\",\"read_only\":false,\"volume\":\"a\"},{\"path\":\"/c\",\"read_only\":true,"
				  "\"volume\":\"c\"},{\"path\":\"/d\",\"read_only\":false,\"volume\":\"d\"}]}");
	assert_int_equal(json_array_size(before), 2);
	free(text);
	args_done(&args);
	assert_int_equal(PARSE(&args, &fail, "run", "img", "-v", "none-"), 0);
	assert_int_equal(spec_add_mounts(&args, before, spec, &fail), -EINVAL);
	args_done(&args);
#define NO_MOUNT(text_)                                                                                           \
	do {                                                                                                  \
		assert_int_equal(PARSE(&args, &fail, "run", "img", "-v", text_), 0);                           \
		assert_int_equal(spec_add_mounts(&args, NULL, spec, &fail), -EINVAL);                          \
		assert_string_equal(fail.error.field, "--volume");                                             \
		args_done(&args);                                                                              \
	} while (0)
	NO_MOUNT("data");
	NO_MOUNT(":/data");
	NO_MOUNT("data:");
	NO_MOUNT("data::ro");
	NO_MOUNT("data:/x:y");
	NO_MOUNT("");
	NO_MOUNT("./no-such-folder:/srv");
	NO_MOUNT("/srv");
#undef NO_MOUNT
	json_decref(spec);
	json_decref(before);
}

static void folders_of_the_host_are_mounts_too(void **state)
{
	json_t *before = json_pack("[{s:s, s:s, s:b}, {s:s, s:s, s:b}]", "host_path", "/a", "path", "/a", "read_only", 0, "host_path", "/b", "path",
		"/b", "read_only", 0);
	cleanup_free char *here = realpath(".", NULL), *text = NULL, *expected = NULL;
	json_t *spec = json_object();
	struct failure fail;
	struct args args;

	(void)state;
	assert_int_equal(PARSE(&args, &fail, "run", "img", "-v", "/a/:/x:ro", "-v", "/b-", "-v", ".:/srv"), 0);
	assert_int_equal(spec_add_mounts(&args, before, spec, &fail), 0);
	text = json_dumps(spec, JSON_COMPACT | JSON_SORT_KEYS);
	assert_true(asprintf(&expected, "{\"mounts\":[{\"host_path\":\"/a\",\"path\":\"/x\",\"read_only\":true},"
					"{\"host_path\":\"%s\",\"path\":\"/srv\",\"read_only\":false}]}", here) > 0);
	assert_string_equal(text, expected);
	args_done(&args);
	json_decref(spec);
	json_decref(before);
}

static void a_check_is_made_of_options(void **state)
{
	struct failure fail;
	struct args args;
	json_t *spec, *patch = json_object();
	char *text;

	(void)state;
#define GOOD(option, value, health)                                                                           \
	do {                                                                                                  \
		assert_int_equal(PARSE(&args, &fail, "run", "img", "--health-retries", "5", option, value), 0); \
		assert_int_equal(spec_from_args(&args, &spec, &fail), 0);                                      \
		text = json_dumps(json_object_get(spec, "health"), JSON_COMPACT | JSON_SORT_KEYS);             \
		assert_string_equal(text, health);                                                             \
		free(text);                                                                                    \
		json_decref(spec);                                                                             \
		args_done(&args);                                                                              \
	} while (0)
	GOOD("--health-http", "80/up?x", "{\"http\":{\"path\":\"/up?x\",\"port\":80},\"retries\":5}");
	GOOD("--health-http", "80", "{\"http\":{\"port\":80},\"retries\":5}");
	GOOD("--health-tcp", "5432", "{\"retries\":5,\"tcp\":{\"port\":5432}}");
	GOOD("--health-http=80", "--health-grace=20", "{\"grace_s\":20,\"http\":{\"port\":80},\"retries\":5}");
	GOOD("--health-http=80", "--health-grace=0", "{\"grace_s\":0,\"http\":{\"port\":80},\"retries\":5}");
	GOOD("--health-http=80", "--health-grace=86400", "{\"grace_s\":86400,\"http\":{\"port\":80},\"retries\":5}");
	/* Of a check that there is, a number alone may be said. */
	assert_int_equal(PARSE(&args, &fail, "run", "img", "--health-grace", "20"), 0);
	assert_int_equal(spec_add_health(&args, false, patch, &fail), -EINVAL);
	assert_string_equal(fail.error.field, "--health-grace");
	assert_int_equal(spec_add_health(&args, true, patch, &fail), 0);
	text = json_dumps(patch, JSON_COMPACT);
	assert_string_equal(text, "{\"health\":{\"grace_s\":20}}");
	free(text);
	json_decref(patch);
	args_done(&args);
	GOOD("--health-cmd", "test -e /up", "{\"exec\":{\"command\":[\"/bin/sh\",\"-c\",\"test -e /up\"]},\"retries\":5}");
}

static void columns_are_as_wide_as_their_widest_cell(void **state)
{
	struct table table;
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	(void)state;
	table_init(&table, "NAME|X");
	table_add(&table, "a\033b");
	table_add(&table, "%d", 7);
	table_add(&table, "longer");
	table_add(&table, "y");
	table_print(&table, out);
	table_done(&table);
	fclose(out);
	assert_string_equal(text, "NAME    X\na?b     7\nlonger  y\n");
	free(text);
}

static void ages_and_sizes_are_rounded_down_to_one_unit(void **state)
{
	char age[AGE_MAX], size[SIZE_MAX_TEXT];

	(void)state;
	assert_string_equal(age_text("1970-01-01T00:01:00Z", 60 + 119, age), "1 minute ago");
	assert_string_equal(age_text("1970-01-01T00:00:00.5Z", 3 * 86400, age), "3 days ago");
	assert_string_equal(age_text("1970-01-01T00:01:00Z", 0, age), "just now");
	assert_string_equal(age_text("nonsense", 0, age), "");
	assert_string_equal(size_text(1536, size), "1.5 KiB");
	assert_string_equal(size_text(256 << 20, size), "256 MiB");
}

struct heard {
	char text[256];
	int refuse;
};

static int on_event(void *ctx, const char *data, size_t len)
{
	struct heard *heard = ctx;

	snprintf(heard->text + strlen(heard->text), sizeof(heard->text) - strlen(heard->text), "[%.*s]", (int)len, data);
	return heard->refuse;
}

static void events_are_the_same_however_they_are_cut(void **state)
{
	static const char stream[] = "retry: 250\nid: 7\n\n: a comment\n\ndata: one\nid: 8\n\ndata:two\r\ndata: and more\r\n\r\nid: 1x\ndata\n\n"
				     "event: x\nother: y\nid: 9\n\ndata: not ended\nid: 10\n";

	(void)state;
	for (size_t step = 1; step < sizeof(stream); step++) {
		struct heard heard = {0};
		struct sse sse;

		sse_init(&sse, on_event, &heard);
		for (size_t i = 0; i < sizeof(stream) - 1; i += step)
			assert_int_equal(sse_feed(&sse, stream + i, i + step < sizeof(stream) - 1 ? step : sizeof(stream) - 1 - i), 0);
		assert_string_equal(heard.text, "[one][two\nand more][]");
		assert_true(sse.id == 9 && sse.retry_ms == 250);
		sse_restart(&sse);
		assert_int_equal(sse_feed(&sse, "\n\ndata: new\n\n", 13), 0);
		assert_string_equal(heard.text, "[one][two\nand more][][new]");
		assert_true(sse.id == 9);
		sse_done(&sse);
	}
}

static void a_reader_that_refuses_an_event_ends_the_stream(void **state)
{
	struct heard heard = {.refuse = -EPIPE};
	struct sse sse;
	char *line = calloc(1, SSE_TEXT_MAX + 1);

	(void)state;
	sse_init(&sse, on_event, &heard);
	assert_int_equal(sse_feed(&sse, "data: x\n\ndata: y\n\n", 18), -EPIPE);
	assert_string_equal(heard.text, "[x]");
	sse_restart(&sse);
	memset(line, 'x', SSE_TEXT_MAX + 1);
	assert_int_equal(sse_feed(&sse, line, SSE_TEXT_MAX + 1), -EMSGSIZE);
	sse_done(&sse);
	free(line);
}

static void a_bar_is_narrower_than_its_terminal(void **state)
{
	char line[BAR_LINE_MAX], label[300];

	(void)state;
	assert_string_equal(bar_line(line, 80, "web", 3, 10, "3 MiB"), "web [############                            ]  30% 3 MiB");
	assert_string_equal(bar_line(line, 40, "web", 1, 2, "3 MiB"), "web [###########           ]  50% 3 MiB");
	assert_string_equal(bar_line(line, 24, "web", 10, 10, "3 MiB"), "web 100% 3 MiB");
	assert_string_equal(bar_line(line, 80, "web", 3, 0, "3 MiB"), "web 3 MiB");
	assert_string_equal(bar_line(line, 80, "web", 99, 10, ""), "web [########################################] 100% ");
	assert_string_equal(bar_line(line, 80, "a\033[2J\nb", 3, 0, "x\r"), "a?[2J?b x?");
	/* UTF-8 is not cut in a character. */
	assert_string_equal(bar_line(line, 13, "\303\244\303\244\303\244\303\244\303\244", 0, 0, ""), "\303\244\303\244\303\244\303\244 ");
	memset(label, 'l', sizeof(label) - 1);
	label[sizeof(label) - 1] = '\0';
	for (int columns = -1; columns < 400; columns++) {
		size_t len = strlen(bar_line(line, columns, label, 1, 3, label));

		assert_true(len == 0 || (int)len < columns);
		assert_true(len <= 128);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bar_is_narrower_than_its_terminal),
		cmocka_unit_test(options_stand_anywhere_and_take_values_both_ways),
		cmocka_unit_test(mistakes_are_refused_with_the_nearest_name),
		cmocka_unit_test(a_spec_says_what_the_options_said),
		cmocka_unit_test(dependencies_are_added_replaced_and_taken_away),
		cmocka_unit_test(mounts_are_added_replaced_and_taken_away),
		cmocka_unit_test(folders_of_the_host_are_mounts_too),
		cmocka_unit_test(a_check_is_made_of_options),
		cmocka_unit_test(a_host_name_that_is_none_is_refused_by_its_option),
		cmocka_unit_test(columns_are_as_wide_as_their_widest_cell),
		cmocka_unit_test(events_are_the_same_however_they_are_cut),
		cmocka_unit_test(a_reader_that_refuses_an_event_ends_the_stream),
		cmocka_unit_test(ages_and_sizes_are_rounded_down_to_one_unit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
