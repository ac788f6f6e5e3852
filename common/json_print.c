/* JSON as text. See json.h. */
#include "common/json.h"

#include "common/buf.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int print_value(struct buf *text, const json_t *value);

/* What a byte of a string is written as: 0: itself, 'u': \u00XX, else a backslash and this (RFC 8259, section 7). */
static const char escapes[256] = {[0 ... 7] = 'u',
        ['\b'] = 'b',
        ['\t'] = 't',
        ['\n'] = 'n',
        ['\v'] = 'u',
        ['\f'] = 'f',
        ['\r'] = 'r',
        [14 ... 31] = 'u',
        ['"'] = '"',
        ['\\'] = '\\'};

static int print_escaped(struct buf *text, unsigned char byte)
{
	char escape = escapes[byte];

	return escape == 'u' ? buf_printf(text, "\\u%04X", byte) : buf_printf(text, "\\%c", escape);
}

static int print_string(struct buf *text, const char *string, size_t len)
{
	size_t begin = 0;
	int r = buf_append(text, "\"", 1);

	for (size_t i = 0; r == 0 && i < len; i++) {
		if (!escapes[(unsigned char)string[i]])
			continue;
		r = buf_append(text, string + begin, i - begin);
		if (r == 0)
			r = print_escaped(text, (unsigned char)string[i]);
		begin = i + 1;
	}
	if (r == 0)
		r = buf_append(text, string + begin, len - begin);
	return r == 0 ? buf_append(text, "\"", 1) : r;
}

static int print_array(struct buf *text, const json_t *array)
{
	int r = buf_append(text, "[", 1);

	for (size_t i = 0; r == 0 && i < json_array_size(array); i++) {
		r = i ? buf_append(text, ",", 1) : 0;
		if (r == 0)
			r = print_value(text, json_array_get(array, i));
	}
	return r == 0 ? buf_append(text, "]", 1) : r;
}

static int print_object(struct buf *text, json_t *object)
{
	void *field = json_object_iter(object);
	int r = buf_append(text, "{", 1);

	for (bool first = true; r == 0 && field;
	        field = json_object_iter_next(object, field), first = false) {
		r = first ? 0 : buf_append(text, ",", 1);
		if (r == 0)
			r = print_string(text, json_object_iter_key(field), json_object_iter_key_len(field));
		if (r == 0)
			r = buf_append(text, ":", 1);
		if (r == 0)
			r = print_value(text, json_object_iter_value(field));
	}
	return r == 0 ? buf_append(text, "}", 1) : r;
}

/* What there are few of is left to jansson: reals. */
static int print_other(struct buf *text, const json_t *value)
{
	char *printed = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
	int r;

	if (!printed)
		abort();
	r = buf_append(text, printed, strlen(printed));
	free(printed);
	return r;
}

static int print_value(struct buf *text, const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return print_object(text, (json_t *)value);
	case JSON_ARRAY:
		return print_array(text, value);
	case JSON_STRING:
		return print_string(text, json_string_value(value), json_string_length(value));
	case JSON_INTEGER:
		return buf_printf(text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	case JSON_TRUE:
		return buf_append(text, "true", 4);
	case JSON_FALSE:
		return buf_append(text, "false", 5);
	case JSON_NULL:
		return buf_append(text, "null", 4);
	default:
		return print_other(text, value);
	}
}

char *json_print(const json_t *value, const char *end)
{
	struct buf text;

	buf_init(&text, SIZE_MAX / 2);
	text.secret = true;
	if (print_value(&text, value) < 0 || buf_append(&text, end, strlen(end)) < 0)
		abort();
	return text.data;
}
