/* Reading YAML.
 *
 * Theory of operation. libyaml makes events of the text; a recursive descent, JSON_DEPTH_MAX deep at most, makes values of them. Without
 * aliases nothing becomes larger than the text is. */
#include "cli/yaml_read.h"

#include "common/cleanup.h"
#include "common/json.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define TAG "tag:yaml.org,2002:"

struct reader {
	yaml_parser_t parser;
	const char *text, *end;
	yaml_event_t event; /* the next one, when `has_event` */
	bool has_event;
	json_t *lines; /* of the document that is read; borrowed */
	struct error *err;
};

static int refuse(struct reader *reader, size_t line, const char *what)
{
	return error_set(reader->err, EINVAL, "line %zu: %s", line + 1, what);
}

static void drop_event(struct reader *reader)
{
	if (reader->has_event)
		yaml_event_delete(&reader->event);
	reader->has_event = false;
}

static bool is_indented_by_a_tab(const struct reader *reader, size_t line)
{
	const char *at = reader->text;

	for (; line > 0 && at; line--) {
		at = memchr(at, '\n', (size_t)(reader->end - at));
		at = at ? at + 1 : NULL;
	}
	while (at && at < reader->end && *at == ' ')
		at++;
	return at && at < reader->end && *at == '\t';
}

/* What libyaml says of a tab names none. */
static int refuse_syntax(struct reader *reader)
{
	const yaml_parser_t *parser = &reader->parser;
	size_t line = parser->problem_mark.line ? parser->problem_mark.line : parser->context_mark.line;

	if (is_indented_by_a_tab(reader, line))
		return refuse(reader, line, "is indented by a tab, where YAML takes spaces");
	return refuse(reader, line, parser->problem ? parser->problem : "is no YAML");
}

/* Makes reader->event the next one. */
static int next_event(struct reader *reader)
{
	drop_event(reader);
	if (!yaml_parser_parse(&reader->parser, &reader->event))
		return refuse_syntax(reader);
	reader->has_event = true;
	return 0;
}

/* ---- scalars ---- */

static json_t *string_of(const char *text, size_t len)
{
	return json_stringn(text, len);
}

static bool is_one_of(const char *text, const char *const *words)
{
	for (; *words; words++)
		if (strcmp(text, *words) == 0)
			return true;
	return false;
}

/* [-+]?(0|[1-9][0-9]*) that a number holds. */
static bool is_integer(const char *text, json_int_t *ret)
{
	const char *digits = text + (*text == '-' || *text == '+');
	char *end;

	if (strspn(digits, "0123456789") != strlen(digits) || !*digits || (digits[0] == '0' && digits[1]))
		return false;
	errno = 0;
	*ret = strtoll(text, &end, 10);
	return errno == 0 && !*end;
}

/* [-+]?(0|[1-9][0-9]*)?\.[0-9]*([eE][-+][0-9]+)? with a digit before the exponent: what YAML 1.1 takes for a number, too. */
static bool is_real(const char *text, double *ret)
{
	const char *c = text + (*text == '-' || *text == '+');
	size_t whole = strspn(c, "0123456789"), fraction = 0, exponent;

	if (whole > 1 && c[0] == '0')
		return false;
	c += whole;
	if (*c != '.')
		return false;
	fraction = strspn(c + 1, "0123456789");
	c += 1 + fraction;
	if (whole + fraction == 0)
		return false;
	if ((*c == 'e' || *c == 'E') && (c[1] == '-' || c[1] == '+')) {
		exponent = strspn(c + 2, "0123456789");
		if (exponent == 0)
			return false;
		c += 2 + exponent;
	}
	*ret = strtod(text, NULL);
	return !*c && isfinite(*ret);
}

static json_t *plain_value(const char *text, size_t len)
{
	static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL}, *const trues[] = {"true", "True", "TRUE", NULL},
				 *const falses[] = {"false", "False", "FALSE", NULL};
	json_int_t integer;
	double real;

	if (is_one_of(text, nulls))
		return json_null();
	if (is_one_of(text, trues))
		return json_true();
	if (is_one_of(text, falses))
		return json_false();
	if (is_integer(text, &integer))
		return json_integer(integer);
	if (is_real(text, &real))
		return json_real(real);
	return string_of(text, len);
}

static bool has_tag(const yaml_char_t *tag, const char *name)
{
	return strcmp((const char *)tag, name) == 0;
}

static int read_scalar(struct reader *reader, json_t **ret)
{
	const char *text = (const char *)reader->event.data.scalar.value;
	size_t len = reader->event.data.scalar.length, line = reader->event.start_mark.line;
	const yaml_char_t *tag = reader->event.data.scalar.tag;
	bool plain = reader->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;

	if (memchr(text, '\0', len))
		return refuse(reader, line, "a text has a NUL");
	if (tag && has_tag(tag, TAG "str"))
		plain = false;
	else if (tag && !has_tag(tag, "!"))
		return refuse(reader, line, "this tag is not known here");
	else if (tag)
		plain = false;
	*ret = plain ? plain_value(text, len) : string_of(text, len);
	return *ret ? 0 : refuse(reader, line, "is not UTF-8");
}

/* ---- values ---- */

static int read_value(struct reader *reader, const char *path, int depth, json_t **ret);

static char *join(const char *path, const char *key)
{
	char *joined;

	if (asprintf(&joined, "%s%s%s", path, path[0] ? "." : "", key) < 0)
		abort();
	return joined;
}

/* The key of a pair, and its line; then the next event is the value's first. */
static int read_key(struct reader *reader, const json_t *object, json_t **ret, size_t *ret_line)
{
	size_t line = *ret_line = reader->event.start_mark.line;
	cleanup_free char *twice = NULL;

	*ret = NULL;
	if (reader->event.type != YAML_SCALAR_EVENT)
		return refuse(reader, line, "a key must be a word");
	*ret = string_of((const char *)reader->event.data.scalar.value, reader->event.data.scalar.length);
	if (!*ret || strlen(json_string_value(*ret)) != json_string_length(*ret))
		return refuse(reader, line, "a key is no text");
	if (strcmp(json_string_value(*ret), "<<") == 0 && reader->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
		return refuse(reader, line, "`<<` is not taken: write out what is meant");
	if (!json_object_get(object, json_string_value(*ret)))
		return next_event(reader);
	if (asprintf(&twice, "%.100s is there twice", json_string_value(*ret)) < 0)
		abort();
	return refuse(reader, line, twice);
}

static int read_mapping(struct reader *reader, const char *path, int depth, json_t *object)
{
	int r = next_event(reader);

	while (r == 0 && reader->event.type != YAML_MAPPING_END_EVENT) {
		json_t *key = NULL, *value = NULL;
		size_t line;

		r = read_key(reader, object, &key, &line);
		if (r == 0) {
			cleanup_free char *below = join(path, json_string_value(key));

			json_object_set_new(reader->lines, below, json_integer((json_int_t)line + 1));
			r = read_value(reader, below, depth + 1, &value);
			if (r == 0)
				json_object_set_new(object, json_string_value(key), value);
		}
		json_decref(key);
		if (r == 0)
			r = next_event(reader);
	}
	return r;
}

static int read_sequence(struct reader *reader, const char *path, int depth, json_t *array)
{
	int r = next_event(reader);

	while (r == 0 && reader->event.type != YAML_SEQUENCE_END_EVENT) {
		cleanup_free char *below = NULL;
		json_t *value = NULL;

		if (asprintf(&below, "%s[%zu]", path, json_array_size(array)) < 0)
			abort();
		json_object_set_new(reader->lines, below, json_integer((json_int_t)reader->event.start_mark.line + 1));
		r = read_value(reader, below, depth + 1, &value);
		if (r == 0)
			json_array_append_new(array, value);
		if (r == 0)
			r = next_event(reader);
	}
	return r;
}

static int check_tag(struct reader *reader, const yaml_char_t *tag, const char *type)
{
	return tag && !has_tag(tag, "!") && !has_tag(tag, type) ? refuse(reader, reader->event.start_mark.line, "this tag is not known here") : 0;
}

/* reader->event is its first; afterwards its last. */
static int read_value(struct reader *reader, const char *path, int depth, json_t **ret)
{
	size_t line = reader->event.start_mark.line;
	int r;

	*ret = NULL;
	if (depth > JSON_DEPTH_MAX)
		return refuse(reader, line, "is too deep");
	switch (reader->event.type) {
	case YAML_SCALAR_EVENT:
		return read_scalar(reader, ret);
	case YAML_MAPPING_START_EVENT:
		*ret = json_object();
		r = check_tag(reader, reader->event.data.mapping_start.tag, TAG "map");
		if (r == 0)
			r = read_mapping(reader, path, depth, *ret);
		break;
	case YAML_SEQUENCE_START_EVENT:
		*ret = json_array();
		r = check_tag(reader, reader->event.data.sequence_start.tag, TAG "seq");
		if (r == 0)
			r = read_sequence(reader, path, depth, *ret);
		break;
	default:
		return refuse(reader, line, "aliases are not taken: write out what is meant");
	}
	if (r < 0) {
		json_decref(*ret);
		*ret = NULL;
	}
	return r;
}

/* ---- documents ---- */

static int read_document(struct reader *reader, struct yaml_document *ret)
{
	int r = next_event(reader);

	ret->lines = reader->lines = json_object();
	ret->value = NULL;
	if (r == 0) {
		json_object_set_new(ret->lines, "", json_integer((json_int_t)reader->event.start_mark.line + 1));
		r = read_value(reader, "", 1, &ret->value);
	}
	return r == 0 ? next_event(reader) : r; /* the document's end */
}

int yaml_read(const char *text, size_t len, struct yaml_document **ret, size_t *ret_n, struct error *err)
{
	struct reader reader = {.text = text, .end = text + len, .err = err};
	struct yaml_document *documents = NULL;
	size_t n = 0;
	int r;

	if (!yaml_parser_initialize(&reader.parser))
		abort();
	yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text, len);
	r = next_event(&reader); /* the stream's start */
	while (r == 0 && (r = next_event(&reader)) == 0 && reader.event.type != YAML_STREAM_END_EVENT) {
		documents = realloc(documents, (n + 1) * sizeof(*documents));
		if (!documents)
			abort();
		r = read_document(&reader, &documents[n++]);
	}
	drop_event(&reader);
	yaml_parser_delete(&reader.parser);
	if (r < 0) {
		yaml_documents_free(documents, n);
		return r;
	}
	*ret = documents;
	*ret_n = n;
	return 0;
}

void yaml_documents_free(struct yaml_document *documents, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		json_decref(documents[i].value);
		json_decref(documents[i].lines);
	}
	free(documents);
}

int yaml_line(const json_t *lines, const char *path)
{
	cleanup_free char *shorter = strdup(path);
	char *end;

	if (!shorter)
		abort();
	while (!json_object_get(lines, shorter) && shorter[0]) {
		end = shorter + strlen(shorter) - 1;
		while (end > shorter && *end != '.' && *end != '[')
			end--;
		*end = '\0';
	}
	return (int)json_integer_value(json_object_get(lines, shorter));
}
