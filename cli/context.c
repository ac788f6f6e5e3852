/* Looking up the context. */
#include "cli/context.h"

#include "cli/context_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int keep(struct context *ret, const char *url, const char *token, const char *project, const char *source, struct failure *fail)
{
	ret->url = strdup(url);
	ret->token = token && token[0] ? strdup(token) : NULL;
	ret->project = project && project[0] ? strdup(project) : NULL;
	ret->source = strdup(source);
	if (!ret->url || !ret->source || (token && token[0] && !ret->token) || (project && project[0] && !ret->project))
		return error_set(&fail->error, ENOMEM, "out of memory");
	return 0;
}

/* One that was named. $HULL_TOKEN is no token of its: it is for $HULL_HOST, and might be sent to a stranger. */
static int keep_named(struct context *ret, const char *name, const char *who, const char *token, struct failure *fail)
{
	cleanup_free char *source = NULL;
	struct context_file file;
	int r = context_check_name(name, who, fail);

	if (r < 0)
		return r;
	r = context_file_read(name, &file, fail);
	if (r == -ENOENT) {
		context_refuse_unknown(name, who, fail);
		if (strcmp(who, "current-context") == 0)
			failure_hint(fail, "`hull context use default`, or one of `hull context list`");
		return r;
	}
	if (r < 0)
		return r;
	if (asprintf(&source, "context %s", name) < 0)
		abort();
	r = keep(ret, file.url, token ? token : file.token, file.project, source, fail);
	context_file_done(&file);
	return r;
}

/* The one that kvmhost(1) and `hull context set` write, or else where hulld listens. */
static int keep_default(struct context *ret, const char *token, struct failure *fail)
{
	cleanup_free char *path = NULL;
	struct context_file file;
	struct failure unsaid;
	int r = context_file_path(CONTEXT_DEFAULT, &path, &unsaid) < 0 ? -ENOENT : context_file_read(CONTEXT_DEFAULT, &file, fail);

	if (!token)
		token = getenv("HULL_TOKEN");
	if (r == -ENOENT)
		return keep(ret, CONTEXT_DEFAULT_URL, token, NULL, "the default", fail);
	if (r < 0)
		return r;
	r = keep(ret, file.url, token && token[0] ? token : file.token, file.project, path, fail);
	context_file_done(&file);
	return r;
}

static const char *environment(const char *name)
{
	const char *value = getenv(name);

	return value && value[0] ? value : NULL;
}

static int find_place(struct context *ret, const struct args *args, struct failure *fail)
{
	const char *host = args_common_value(args, "host"), *token = args_common_value(args, "token");
	const char *name = args_common_value(args, "context"), *who = "--context";
	cleanup_free char *current = NULL;

	if (host && name)
		return failure_usage(fail, "--context", "not together with --host: either says where the API is");
	if (!name && (host || environment("HULL_HOST")))
		return keep(ret, host ? host : getenv("HULL_HOST"), token ? token : getenv("HULL_TOKEN"), NULL, host ? "--host" : "$HULL_HOST",
			fail);
	if (!name) {
		name = environment("HULL_CONTEXT");
		who = "HULL_CONTEXT";
	}
	if (!name) {
		if (context_current(&current, fail) < 0)
			return -fail->error.errnum;
		name = current;
		who = "current-context";
	}
	return strcmp(name, CONTEXT_DEFAULT) == 0 ? keep_default(ret, token, fail) : keep_named(ret, name, who, token, fail);
}

int context_find(struct context *ret, const struct args *args, struct failure *fail)
{
	const char *project = args_common_value(args, "project");
	int r;

	memset(ret, 0, sizeof(*ret));
	r = find_place(ret, args, fail);
	if (!project)
		project = environment("HULL_PROJECT");
	if (r == 0 && project) {
		free(ret->project);
		ret->project = project[0] ? strdup(project) : NULL;
		if (project[0] && !ret->project)
			r = error_set(&fail->error, ENOMEM, "out of memory");
	}
	if (r == 0 && ret->token)
		r = context_check_word(ret->token, "token", fail);
	if (r == 0 && ret->project)
		r = context_check_word(ret->project, "project", fail);
	return r;
}

void context_done(struct context *context)
{
	free(context->url);
	free(context->token);
	free(context->project);
	free(context->source);
	memset(context, 0, sizeof(*context));
}

int context_check_url(const char *url, struct failure *fail)
{
	bool is_unix = strncmp(url, "unix:", 5) == 0;

	if ((strncmp(url, "unix:///", 8) == 0 && url[8]) || (strncmp(url, "http://", 7) == 0 && url[7]) ||
		(strncmp(url, "https://", 8) == 0 && url[8]))
		return 0;
	failure_usage(fail, url, "is no URL of an API");
	if (!strstr(url, "://") && url[0] == '/')
		return failure_hint(fail, "did you mean unix://%s?", url);
	if (is_unix && url[5 + strspn(url + 5, "/")])
		return failure_hint(fail, "did you mean unix:///%s?", url + 5 + strspn(url + 5, "/"));
	if (!strstr(url, "://") && url[0] && !is_unix)
		return failure_hint(fail, "did you mean http://%s?", url);
	return failure_hint(fail, "write http://ADDRESS:PORT, https://ADDRESS:PORT or unix:///PATH");
}

int context_check_word(const char *word, const char *field, struct failure *fail)
{
	for (const char *c = word; *c; c++)
		if (*c <= ' ' || *c > '~')
			return failure_usage(fail, field, "has a character that is none of a %s", field);
	return word[0] ? 0 : failure_usage(fail, field, "is empty");
}
