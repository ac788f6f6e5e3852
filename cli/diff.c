/* Differences of JSON values. */
#include "cli/diff.h"

#include "cli/output.h"
#include "common/cleanup.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLAIN "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-"

static void add(const char *path, const json_t *before, const json_t *after, json_t *changes)
{
	json_t *change = json_pack("{s:s}", "field", path);

	if (!change)
		abort();
	if (before)
		json_object_set(change, "before", (json_t *)before);
	if (after)
		json_object_set(change, "after", (json_t *)after);
	json_array_append_new(changes, change);
}

/* A key that has other characters stands in quotes. */
static char *join(const char *path, const char *key)
{
	cleanup_free char *quoted = NULL;
	json_t *text = json_string(key);
	char *joined;

	quoted = key[0] && strspn(key, PLAIN) == strlen(key) ? strdup(key) : json_dumps(text, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
	json_decref(text);
	if (!quoted || asprintf(&joined, "%s%s%s", path, path[0] ? "." : "", quoted) < 0)
		abort();
	return joined;
}

static bool has(const json_t *list, const json_t *item)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if (json_equal(json_array_get(list, i), item))
			return true;
	return false;
}

static bool is_list_of_objects(const json_t *list)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if (!json_is_object(json_array_get(list, i)))
			return false;
	return !list || json_is_array(list);
}

static void diff_lists(const char *path, const json_t *before, const json_t *after, json_t *changes)
{
	size_t before_size = json_array_size(changes), i;
	json_t *item;

	json_array_foreach (before, i, item)
		if (!has(after, item))
			add(path, item, NULL, changes);
	json_array_foreach (after, i, item)
		if (!has(before, item))
			add(path, NULL, item, changes);
	if (json_array_size(changes) == before_size) /* their order */
		add(path, before, after, changes);
}

static bool is_map(const json_t *value)
{
	return !value || (json_is_object(value) && json_object_size(value));
}

static void diff_maps(const char *path, const json_t *before, const json_t *after, json_t *changes)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)before, key, value) {
		cleanup_free char *below = join(path, key);

		diff_values(below, value, json_object_get(after, key), changes);
	}
	json_object_foreach((json_t *)after, key, value) {
		cleanup_free char *below = join(path, key);

		if (!json_object_get(before, key))
			diff_values(below, NULL, value, changes);
	}
}

void diff_values(const char *path, const json_t *before, const json_t *after, json_t *changes)
{
	bool maps = (json_is_object(before) || json_is_object(after)) && (json_is_object(before) || !before) && (json_is_object(after) || !after);

	if (before == after || (before && after && json_equal(before, after)))
		return;
	if (maps && (is_map(before) || is_map(after)))
		diff_maps(path, before, after, changes);
	else if (json_array_size(before) + json_array_size(after) && is_list_of_objects(before) && is_list_of_objects(after))
		diff_lists(path, before, after, changes);
	else
		add(path, before, after, changes);
}

bool diff_in_colour(FILE *out)
{
	const char *term = getenv("TERM"), *no = getenv("NO_COLOR");

	return isatty(fileno(out)) && (!no || !no[0]) && term && strcmp(term, "dumb") != 0;
}

static const char *colour_of(char sign)
{
	return sign == '+' ? "\033[32m" : sign == '-' ? "\033[31m" : "\033[33m";
}

/* JSON escapes what a terminal would take for a command, but for what is above ASCII. */
static void print_value_of(FILE *out, const json_t *value)
{
	cleanup_free char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

	if (!text)
		abort();
	for (char *c = text; *c; c++)
		if (*c == 0x7f)
			*c = '?';
	fputs(text, out);
}

void diff_print(FILE *out, const json_t *change, const char *note, bool colour)
{
	const json_t *before = json_object_get(change, "before"), *after = json_object_get(change, "after");
	char sign = !before ? '+' : !after ? '-' : '~';

	fprintf(out, "    %s%c %s: ", colour ? colour_of(sign) : "", sign, json_text(change, "field"));
	if (before)
		print_value_of(out, before);
	if (before && after)
		fputs(" -> ", out);
	if (after)
		print_value_of(out, after);
	fprintf(out, "%s%s\n", colour ? "\033[0m" : "", note);
}

void diff_print_head(FILE *out, char sign, const char *text, bool colour)
{
	fprintf(out, "%s%c %s%s\n", colour ? colour_of(sign) : "", sign, text, colour ? "\033[0m" : "");
}
