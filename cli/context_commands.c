/* hull context create, list, use, inspect, rm, show, set. Tokens go in by a file, and are shown by nothing. */
#include "cli/commands.h"
#include "cli/context.h"
#include "cli/context_file.h"
#include "cli/operands.h"
#include "cli/output.h"
#include "common/buf.h"
#include "common/checked.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOKEN_MAX 4096

const struct option_def context_create_options[] = {
	{0, "url", "URL", "where the API is: http://ADDRESS:PORT, https://ADDRESS:PORT or unix:///PATH"},
	{0, "token-file", "FILE", "what has the token that opens it; -: the input"},
	OUTPUT_OPTION,
	{0},
};
const struct option_def context_remove_options[] = {
	{'f', "force", NULL, "even when it is in use; then `default` is"},
	{0},
};

/* The first line of `path`, or of the input. Owned by the caller. */
static int read_token(const char *path, char **ret, struct failure *fail)
{
	bool input = strcmp(path, "-") == 0;
	struct buf text;
	ssize_t n = 1;
	int r = 0;

	buf_init(&text, TOKEN_MAX);
	if (!input)
		r = buf_read_file(&text, path);
	while (input && n > 0)
		n = buf_read_fd(&text, STDIN_FILENO, 1024);
	if (n < 0)
		r = (int)n;
	if (r < 0)
		r = failure_usage(fail, "--token-file", "cannot read %s: %s", input ? "the input" : path, strerror(-r));
	else if (!text.len || strlen(text.data) != text.len)
		r = failure_usage(fail, "--token-file", "%s has no token", input ? "the input" : path);
	if (r == 0) {
		*ret = strndup(text.data, strcspn(text.data, "\r\n"));
		r = *ret ? context_check_word(*ret, "token", fail) : error_set(&fail->error, ENOMEM, "out of memory");
	}
	buf_done(&text);
	return r;
}

/* What programs are shown of one. `file` NULL: it is the default, and there is no file. */
static json_t *describe(const char *name, const char *current, const struct context_file *file)
{
	json_t *shown = json_pack("{s:s, s:b, s:s, s:s?, s:b}", "name", name, "current", strcmp(name, current) == 0, "url",
		file ? file->url : CONTEXT_DEFAULT_URL, "project", file ? file->project : NULL, "token", file && file->token);

	if (!shown)
		abort();
	return shown;
}

/* A new reference in `ret`. One that was named has to be there. */
static int look_up(const char *name, const char *current, json_t **ret, struct failure *fail)
{
	struct context_file file;
	int r = context_check_name(name, "CONTEXT", fail);

	if (r < 0)
		return r;
	r = context_file_read(name, &file, fail);
	if (r == -ENOENT && strcmp(name, CONTEXT_DEFAULT) == 0)
		*ret = describe(name, current, NULL);
	else if (r == -ENOENT)
		return context_refuse_unknown(name, "CONTEXT", fail);
	else if (r < 0)
		return r;
	else
		*ret = describe(name, current, &file);
	if (r == 0)
		context_file_done(&file);
	return 0;
}

static void print_contexts(const json_t *contexts)
{
	const json_t *context;
	struct table table;
	size_t i;

	table_init(&table, "NAME|IN USE|URL|PROJECT|TOKEN");
	json_array_foreach (contexts, i, context) {
		table_add(&table, "%s", json_text(context, "name"));
		table_add(&table, "%s", json_is_true(json_object_get(context, "current")) ? "yes" : "");
		table_add(&table, "%s", json_text(context, "url"));
		table_add(&table, "%s", json_text(context, "project"));
		table_add(&table, "%s", json_is_true(json_object_get(context, "token")) ? "yes" : "");
	}
	table_print(&table, stdout);
	table_done(&table);
}

int context_create_run(const struct args *args, struct failure *fail)
{
	const char *name = args->operands[0], *url = args_value(args, "url"), *token_file = args_value(args, "token-file");
	const char *token = args_common_value(args, "token"), *project = args_common_value(args, "project");
	struct context_file file = {.url = (char *)url, .project = (char *)project}, before;
	cleanup_free char *read = NULL;
	enum output_format format;
	json_t *shown;
	int r = output_format(args, OUTPUT_TABLE, &format, fail);

	if (r == 0)
		r = context_check_name(name, "CONTEXT", fail);
	if (r == 0 && strcmp(name, CONTEXT_DEFAULT) == 0) {
		failure_usage(fail, "CONTEXT", "default is where the host is that was started last");
		return failure_hint(fail, "`hull context set URL` sets it");
	}
	if (r == 0 && !url) {
		failure_usage(fail, "--url", "is missing");
		return failure_hint(fail, "for example --url http://127.0.0.1:7070, or --url unix:///run/hull/hulld.sock");
	}
	if (r == 0)
		r = context_check_url(url, fail);
	if (r == 0 && project)
		r = context_check_word(project, "project", fail);
	if (r == 0 && token_file && token)
		r = failure_usage(fail, "--token-file", "not together with --token");
	if (r == 0 && token_file)
		r = read_token(token_file, &read, fail);
	if (r == 0 && token)
		r = context_check_word(token, "token", fail);
	if (r < 0)
		return r;
	r = context_file_read(name, &before, fail);
	if (r == 0)
		context_file_done(&before);
	if (r != -ENOENT) {
		memset(fail, 0, sizeof(*fail));
		error_set_field(&fail->error, EEXIST, "CONTEXT", "there is a context \"%s\" already", name);
		return failure_hint(fail, "`hull context rm %s` takes it away", name);
	}
	file.token = read ? read : (char *)token;
	r = context_file_write(name, &file, fail);
	if (r < 0)
		return r;
	shown = describe(name, "", &file);
	print_made(shown, "name", format);
	json_decref(shown);
	return 0;
}

int context_list_run(const struct args *args, struct failure *fail)
{
	cleanup_free char *current = NULL;
	json_t *shown, *contexts = json_array();
	char **names = NULL;
	enum output_format format;
	int r = output_format(args, OUTPUT_TABLE, &format, fail);

	if (r == 0)
		r = context_current(&current, fail);
	if (r == 0)
		r = context_names(&names, fail);
	for (char **name = names; name && *name && r == 0; name++) {
		r = look_up(*name, current, &shown, fail);
		if (r == 0)
			json_array_append_new(contexts, shown);
	}
	for (char **name = names; r == 0 && format == OUTPUT_TABLE && args_flag(args, "quiet") && *name; name++)
		printf("%s\n", *name);
	if (r == 0 && format != OUTPUT_TABLE)
		print_value(contexts, format);
	else if (r == 0 && !args_flag(args, "quiet"))
		print_contexts(contexts);
	context_names_free(names);
	json_decref(contexts);
	return r;
}

int context_use_run(const struct args *args, struct failure *fail)
{
	static const char *const first[] = {"HULL_HOST", "HULL_CONTEXT"};
	const char *name = args->operands[0];
	json_t *shown = NULL;
	int r = look_up(name, "", &shown, fail);

	if (r == 0)
		r = context_set_current(name, fail);
	if (r == 0)
		printf("%s\n", name);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(first); i++)
		if (getenv(first[i]) && getenv(first[i])[0])
			fprintf(stderr, "hull: %s is set, and comes first\n", first[i]);
	json_decref(shown);
	return r;
}

int context_inspect_run(const struct args *args, struct failure *fail)
{
	cleanup_free char *current = NULL;
	json_t *shown = NULL, *list;
	enum output_format format;
	int r = output_format(args, OUTPUT_JSON, &format, fail);

	if (r == 0)
		r = context_current(&current, fail);
	if (r == 0)
		r = look_up(args->n_operands ? args->operands[0] : current, current, &shown, fail);
	if (r == 0 && format == OUTPUT_TABLE) {
		list = json_pack("[O]", shown);
		print_contexts(list);
		json_decref(list);
	} else if (r == 0) {
		print_value(shown, format);
	}
	json_decref(shown);
	return r;
}

/* `ctx`: the command line. */
static int remove_one(void *ctx, const char *name, struct failure *fail)
{
	cleanup_free char *current = NULL;
	int r = context_current(&current, fail);
	bool used = r == 0 && strcmp(name, current) == 0 && strcmp(name, CONTEXT_DEFAULT) != 0;

	if (r == 0)
		r = context_check_name(name, "CONTEXT", fail);
	if (r == 0 && used && !args_flag(ctx, "force")) {
		error_set_field(&fail->error, EBUSY, "CONTEXT", "%s is in use", name);
		return failure_hint(fail, "`hull context use default` first, or `hull context rm -f %s`", name);
	}
	if (r == 0)
		r = context_file_remove(name, fail);
	if (r == 0 && used)
		r = context_set_current(CONTEXT_DEFAULT, fail);
	if (r == 0)
		printf("%s\n", name);
	return r;
}

int context_remove_run(const struct args *args, struct failure *fail)
{
	return operands_each(args, remove_one, (void *)args, fail);
}

int context_show_run(const struct args *args, struct failure *fail)
{
	struct context context = {0};
	enum output_format format;
	json_t *shown;
	int r = output_format(args, OUTPUT_TABLE, &format, fail);

	if (r == 0)
		r = context_find(&context, args, fail);
	if (r == 0 && format == OUTPUT_TABLE)
		printf("%s\n  from %s, %s a token%s%s\n", context.url, context.source, context.token ? "with" : "without",
			context.project ? ", project " : "", context.project ? context.project : "");
	if (r == 0 && format != OUTPUT_TABLE) {
		shown = json_pack("{s:s, s:s, s:s?, s:b}", "url", context.url, "source", context.source, "project", context.project, "token",
			context.token != NULL);
		if (!shown)
			r = error_set_field(&fail->error, EINVAL, "context", "URL and source must be UTF-8");
		else
			print_value(shown, format);
		json_decref(shown);
	}
	context_done(&context);
	return r;
}

int context_set_run(const struct args *args, struct failure *fail)
{
	const char *url = args->operands[0], *token = args_common_value(args, "token"), *project = args_common_value(args, "project");
	struct context_file file = {.url = (char *)url, .token = (char *)token, .project = (char *)project};
	cleanup_free char *current = NULL;
	int r = context_check_url(url, fail);

	if (r == 0 && token)
		r = context_check_word(token, "token", fail);
	if (r == 0 && project)
		r = context_check_word(project, "project", fail);
	if (r == 0)
		r = context_file_write(CONTEXT_DEFAULT, &file, fail);
	if (r == 0)
		r = context_current(&current, fail);
	if (r == 0 && strcmp(current, CONTEXT_DEFAULT) != 0)
		fprintf(stderr, "hull: context %s is in use\n      `hull context use default` uses this one\n", current);
	return r;
}
