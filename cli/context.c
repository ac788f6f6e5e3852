/* Looking up and writing the context. */
#include "cli/context.h"

#include "cli/output.h"
#include "common/buf.h"
#include "common/io.h"
#include "common/json.h"

#include <string.h>

#define CONTEXT_FILE_MAX 65536

struct context_file {
	char *url, *token;
};

static const struct json_field context_fields[] = {
	{"url", JSON_FIELD_STRING, offsetof(struct context_file, url), .required = true, .min = 1},
	{"token", JSON_FIELD_STRING, offsetof(struct context_file, token), .nullable = true},
};
static const struct json_table context_table = JSON_TABLE("Context", struct context_file, context_fields);

static int context_path(char **ret, struct failure *fail)
{
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	int r;

	if (config && config[0] == '/')
		r = asprintf(ret, "%s/hull/context.json", config);
	else if (home && home[0] == '/')
		r = asprintf(ret, "%s/.config/hull/context.json", home);
	else
		return error_set_field(&fail->error, ENOENT, "HOME", "is not set, so there is no place for a context");
	if (r < 0) {
		*ret = NULL;
		return error_set(&fail->error, ENOMEM, "out of memory");
	}
	return 0;
}

static int read_file(const char *path, struct context_file *ret, struct failure *fail)
{
	struct buf text;
	json_t *json;
	int r;

	buf_init(&text, CONTEXT_FILE_MAX);
	r = buf_read_file(&text, path);
	if (r < 0) {
		buf_done(&text);
		return r == -ENOENT ? r : error_set_field(&fail->error, -r, path, "%s", strerror(-r));
	}
	json = json_parse(text.data ? text.data : "", text.len, &fail->error);
	r = json ? json_read(&context_table, json, ret, &fail->error) : -EINVAL;
	json_decref(json);
	buf_done(&text);
	if (r < 0) {
		error_prefix(&fail->error, "%s: ", path);
		return failure_hint(fail, "write it anew with `hull context set URL`");
	}
	return 0;
}

static int keep(struct context *ret, const char *url, const char *token, const char *source, struct failure *fail)
{
	ret->url = strdup(url);
	ret->token = token && token[0] ? strdup(token) : NULL;
	ret->source = strdup(source);
	if (!ret->url || !ret->source || (token && token[0] && !ret->token))
		return error_set(&fail->error, ENOMEM, "out of memory");
	return 0;
}

int context_find(struct context *ret, const struct args *args, struct failure *fail)
{
	const char *host = args_value(args, "host"), *token = args_value(args, "token");
	cleanup_free char *path = NULL;
	struct context_file file = {0};
	int r;

	memset(ret, 0, sizeof(*ret));
	if (!token)
		token = getenv("HULL_TOKEN");
	if (host)
		return keep(ret, host, token, "--host", fail);
	host = getenv("HULL_HOST");
	if (host && host[0])
		return keep(ret, host, token, "$HULL_HOST", fail);
	if (context_path(&path, fail) < 0 || (r = read_file(path, &file, fail)) == -ENOENT)
		return keep(ret, CONTEXT_DEFAULT_URL, token, "the default", fail);
	if (r < 0)
		return r;
	r = keep(ret, file.url, token && token[0] ? token : file.token, path, fail);
	json_done(&context_table, &file);
	return r;
}

void context_done(struct context *context)
{
	free(context->url);
	free(context->token);
	free(context->source);
	memset(context, 0, sizeof(*context));
}

int context_check_url(const char *url, struct failure *fail)
{
	if ((strncmp(url, "unix:///", 8) == 0 && url[8]) || (strncmp(url, "http://", 7) == 0 && url[7]) ||
		(strncmp(url, "https://", 8) == 0 && url[8]))
		return 0;
	failure_usage(fail, url, "is no URL of an API");
	return failure_hint(fail, "write http://ADDRESS:PORT, https://ADDRESS:PORT or unix:///PATH");
}

int context_show_run(const struct args *args, struct failure *fail)
{
	struct context context = {0};
	enum output_format format;
	int r = output_format(args, OUTPUT_TABLE, &format, fail);
	json_t *shown;

	if (r == 0)
		r = context_find(&context, args, fail);
	if (r == 0 && format == OUTPUT_TABLE)
		printf("%s\n  from %s, %s a token\n", context.url, context.source, context.token ? "with" : "without");
	if (r == 0 && format != OUTPUT_TABLE) {
		shown = json_pack("{s:s, s:s, s:b}", "url", context.url, "source", context.source, "token", context.token != NULL);
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
	const char *url = args->operands[0], *token = args_value(args, "token");
	cleanup_free char *path = NULL, *folder = NULL, *text = NULL;
	json_t *json;
	int r = context_check_url(url, fail);

	if (r == 0)
		r = context_path(&path, fail);
	if (r < 0)
		return r;
	json = token ? json_pack("{s:s, s:s}", "url", url, "token", token) : json_pack("{s:s}", "url", url);
	text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
	json_decref(json);
	folder = strdup(path);
	if (!folder || !text)
		return error_set_field(&fail->error, EINVAL, "context", "URL and token must be UTF-8");
	*strrchr(folder, '/') = '\0';
	r = make_directories(folder, 0700, &fail->error);
	/* The token opens the API: nobody else reads it. */
	return r < 0 ? r : write_file_atomic(path, text, strlen(text), 0600, &fail->error);
}
