/* Reading and writing contexts. */
#include "cli/context_file.h"

#include "common/buf.h"
#include "common/io.h"
#include "common/json.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX  65536
#define NAME_LEN_MAX  63
#define NAMES_MAX 1000

static const struct json_field context_fields[] = {
	{"url", JSON_FIELD_STRING, offsetof(struct context_file, url), .required = true, .min = 1},
	{"token", JSON_FIELD_STRING, offsetof(struct context_file, token), .nullable = true},
	{"project", JSON_FIELD_STRING, offsetof(struct context_file, project), .nullable = true},
};
static const struct json_table context_table = JSON_TABLE("Context", struct context_file, context_fields);

int context_check_name(const char *name, const char *field, struct failure *fail)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t len = strlen(name);

	if (len >= 1 && len <= NAME_LEN_MAX && strspn(name, allowed) == len && name[0] != '.' && name[0] != '-')
		return 0;
	return failure_usage(fail, field, "\"%s\" is no name of a context: 1 to %d letters, digits, ., _ and -", name, NAME_LEN_MAX);
}

/* "~/.config/hull/WHAT" */
static int place(const char *what, char **ret, struct failure *fail)
{
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	int r;

	if (config && config[0] == '/')
		r = asprintf(ret, "%s/hull/%s", config, what);
	else if (home && home[0] == '/')
		r = asprintf(ret, "%s/.config/hull/%s", home, what);
	else
		return error_set_field(&fail->error, ENOENT, "HOME", "is not set, so there is no place for a context");
	if (r < 0) {
		*ret = NULL;
		return error_set(&fail->error, ENOMEM, "out of memory");
	}
	return 0;
}

int context_file_path(const char *name, char **ret, struct failure *fail)
{
	char what[NAME_LEN_MAX + 32];

	if (strcmp(name, CONTEXT_DEFAULT) == 0)
		return place("context.json", ret, fail);
	snprintf(what, sizeof(what), "contexts/%s.json", name);
	return place(what, ret, fail);
}

int context_file_read(const char *name, struct context_file *ret, struct failure *fail)
{
	cleanup_free char *path = NULL;
	struct buf text;
	json_t *json;
	int r = context_file_path(name, &path, fail);

	memset(ret, 0, sizeof(*ret));
	if (r < 0)
		return r;
	buf_init(&text, FILE_MAX);
	r = buf_read_file(&text, path);
	if (r < 0) {
		buf_done(&text);
		return r == -ENOENT ? r : error_set_field(&fail->error, -r, path, "%s", strerror(-r));
	}
	json = json_parse(text.data ? text.data : "", text.len, &fail->error);
	r = json ? json_read(&context_table, json, ret, &fail->error) : -EINVAL;
	json_decref(json);
	buf_done(&text);
	if (r == 0)
		return 0;
	error_prefix(&fail->error, "%s: ", path);
	failure_hint(fail, strcmp(name, CONTEXT_DEFAULT) == 0 ? "write it anew with `hull context set URL`"
							      : "`hull context rm %s`, and create it anew", name);
	return -EINVAL;
}

void context_file_done(struct context_file *file)
{
	json_done(&context_table, file);
}

/* Nobody else reads what is written: a token opens the API. */
static int write_text(const char *path, const char *text, struct failure *fail)
{
	cleanup_free char *folder = strdup(path);
	int r;

	if (!folder)
		return error_set(&fail->error, ENOMEM, "out of memory");
	*strrchr(folder, '/') = '\0';
	r = make_directories(folder, 0700, &fail->error);
	return r < 0 ? r : write_file_atomic(path, text, strlen(text), 0600, &fail->error);
}

int context_file_write(const char *name, const struct context_file *file, struct failure *fail)
{
	cleanup_free char *path = NULL, *text = NULL;
	json_t *json = json_pack("{s:s, s:s*, s:s*}", "url", file->url, "token", file->token, "project", file->project);
	int r = context_file_path(name, &path, fail);

	text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;
	json_decref(json);
	if (r == 0 && !text)
		r = error_set_field(&fail->error, EINVAL, "context", "URL, token and project must be UTF-8");
	return r < 0 ? r : write_text(path, text, fail);
}

int context_file_remove(const char *name, struct failure *fail)
{
	cleanup_free char *path = NULL;
	int r = context_file_path(name, &path, fail);

	if (r == 0 && unlink(path) < 0)
		r = errno == ENOENT ? context_refuse_unknown(name, "CONTEXT", fail) : error_set_errno(&fail->error, errno, "%s", path);
	return r;
}

int context_current(char **ret, struct failure *fail)
{
	cleanup_free char *path = NULL;
	struct buf text;
	int r;

	*ret = NULL;
	/* Without a home there is nothing but the default. */
	if (place("current-context", &path, fail) < 0) {
		memset(fail, 0, sizeof(*fail));
		*ret = strdup(CONTEXT_DEFAULT);
		return *ret ? 0 : error_set(&fail->error, ENOMEM, "out of memory");
	}
	buf_init(&text, FILE_MAX);
	r = buf_read_file(&text, path);
	if (r == 0)
		*ret = strndup(text.data ? text.data : "", strcspn(text.data ? text.data : "", "\n"));
	else if (r == -ENOENT)
		*ret = strdup(CONTEXT_DEFAULT);
	buf_done(&text);
	if (r < 0 && r != -ENOENT)
		return error_set_field(&fail->error, -r, path, "%s", strerror(-r));
	if (!*ret)
		return error_set(&fail->error, ENOMEM, "out of memory");
	if (context_check_name(*ret, path, fail) == 0)
		return 0;
	free(*ret);
	*ret = NULL;
	return failure_hint(fail, "`hull context use NAME` writes it anew");
}

int context_set_current(const char *name, struct failure *fail)
{
	cleanup_free char *path = NULL, *line = NULL;
	int r = place("current-context", &path, fail);

	if (r < 0)
		return r;
	if (strcmp(name, CONTEXT_DEFAULT) == 0)
		return unlink(path) < 0 && errno != ENOENT ? error_set_errno(&fail->error, errno, "%s", path) : 0;
	if (asprintf(&line, "%s\n", name) < 0)
		abort();
	return write_text(path, line, fail);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int context_names(char ***ret, struct failure *fail)
{
	char **names = calloc(NAMES_MAX + 1, sizeof(*names));
	cleanup_free char *path = NULL;
	struct dirent *entry;
	size_t n = 1, len;
	DIR *folder;

	if (!names || !(names[0] = strdup(CONTEXT_DEFAULT)))
		abort();
	*ret = names;
	if (place("contexts", &path, fail) < 0 || !(folder = opendir(path))) {
		memset(fail, 0, sizeof(*fail)); /* there are none */
		return 0;
	}
	while ((entry = readdir(folder)) && n < NAMES_MAX) {
		struct failure unsaid;

		len = strlen(entry->d_name);
		if (len < 6 || strcmp(entry->d_name + len - 5, ".json") != 0)
			continue;
		names[n] = strndup(entry->d_name, len - 5);
		if (!names[n])
			abort();
		if (context_check_name(names[n], "", &unsaid) == 0 && strcmp(names[n], CONTEXT_DEFAULT) != 0)
			n++;
		else
			free(names[n]);
	}
	names[n] = NULL;
	closedir(folder);
	qsort(names + 1, n - 1, sizeof(*names), by_name);
	return 0;
}

void context_names_free(char **names)
{
	for (char **name = names; name && *name; name++)
		free(*name);
	free(names);
}

int context_refuse_unknown(const char *name, const char *field, struct failure *fail)
{
	char **names = NULL;
	const char *near;

	context_names(&names, fail);
	near = nearest_name(name, (const char *const *)names);
	error_set_field(&fail->error, ENOENT, field, "there is no context \"%s\"", name);
	if (near)
		failure_hint(fail, "did you mean %s? `hull context list` lists them", near);
	else
		failure_hint(fail, "`hull context list` lists what there is, `hull context create` makes one");
	context_names_free(names);
	return -ENOENT;
}
