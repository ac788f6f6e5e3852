/* Writing YAML. */
#include "cli/yaml.h"

#include "common/buf.h"
#include "common/checked.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#define INDENT 2

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

static int on_text(void *ctx, unsigned char *data, size_t size)
{
	return buf_append(ctx, data, size) == 0;
}

static void emit(yaml_emitter_t *emitter, int initialized, yaml_event_t *event)
{
	/* What is refused is what our own code has put into a wrong order, or memory that is not there. */
	if (!initialized || !yaml_emitter_emit(emitter, event))
		abort();
}

/* Words that YAML 1.1 takes for something else than a string. Those that begin with a digit or a sign never are plain. */
static bool is_word_of_yaml(const char *text)
{
	static const char *const words[] = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcasecmp(text, words[i]) == 0)
			return true;
	return false;
}

static bool is_plain(const char *text)
{
	size_t first = strspn(text, letters);

	if (first == 0 && text[0] != '/' && text[0] != '_')
		return false;
	for (const char *c = text; *c; c++)
		if (!strchr(letters, *c) && !strchr("0123456789_./@+-", *c))
			return false;
	return !is_word_of_yaml(text);
}

/* Lines that stay what they are in a literal block: of plain characters, none with blanks at an end, where an editor would take them away. */
static bool is_block(const char *text)
{
	const char *end = strchr(text, '\n');

	if (!end || text[0] == ' ' || text[0] == '\n')
		return false;
	for (const char *c = text; *c; c++)
		if (((unsigned char)*c < 0x20 && *c != '\n') || (unsigned char)*c > 0x7e || (c[0] == ' ' && (c[1] == '\n' || !c[1])))
			return false;
	return true;
}

static void put_scalar(yaml_emitter_t *emitter, const char *text, size_t len, yaml_scalar_style_t style)
{
	yaml_event_t event;

	emit(emitter,
		yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)len, 1, 1, style), &event);
}

static void put_string(yaml_emitter_t *emitter, const char *text, size_t len)
{
	put_scalar(emitter, text, len,
		strlen(text) != len ? YAML_DOUBLE_QUOTED_SCALAR_STYLE
		: is_plain(text)    ? YAML_PLAIN_SCALAR_STYLE
		: is_block(text)    ? YAML_LITERAL_SCALAR_STYLE
				    : YAML_DOUBLE_QUOTED_SCALAR_STYLE);
}

static void put_number(yaml_emitter_t *emitter, const json_t *value)
{
	char text[64];

	if (json_is_integer(value)) {
		snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	} else {
		size_t digits;

		/* YAML 1.1 has no number with an exponent, and without a point. */
		snprintf(text, sizeof(text) - 2, "%.17g", json_real_value(value));
		digits = strspn(text, "+-0123456789");
		if (text[digits] != '.') {
			memmove(text + digits + 2, text + digits, strlen(text + digits) + 1);
			memcpy(text + digits, ".0", 2);
		}
	}
	put_scalar(emitter, text, strlen(text), YAML_PLAIN_SCALAR_STYLE);
}

static void put_value(yaml_emitter_t *emitter, const json_t *value)
{
	yaml_event_t event;
	const char *key;
	json_t *item;
	size_t i;

	switch (json_typeof(value)) {
	case JSON_OBJECT:
		emit(emitter, yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE), &event);
		json_object_foreach ((json_t *)value, key, item) {
			put_string(emitter, key, strlen(key));
			put_value(emitter, item);
		}
		emit(emitter, yaml_mapping_end_event_initialize(&event), &event);
		break;
	case JSON_ARRAY:
		emit(emitter, yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE), &event);
		json_array_foreach (value, i, item)
			put_value(emitter, item);
		emit(emitter, yaml_sequence_end_event_initialize(&event), &event);
		break;
	case JSON_STRING:
		put_string(emitter, json_string_value(value), json_string_length(value));
		break;
	case JSON_INTEGER:
	case JSON_REAL:
		put_number(emitter, value);
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		put_scalar(emitter, json_is_true(value) ? "true" : "false", json_is_true(value) ? 4 : 5, YAML_PLAIN_SCALAR_STYLE);
		break;
	case JSON_NULL:
		put_scalar(emitter, "null", 4, YAML_PLAIN_SCALAR_STYLE);
		break;
	}
}

char *yaml_text(const json_t *value)
{
	yaml_emitter_t emitter;
	yaml_event_t event;
	struct buf text;

	buf_init(&text, SIZE_MAX / 2);
	if (!yaml_emitter_initialize(&emitter))
		abort();
	yaml_emitter_set_output(&emitter, on_text, &text);
	yaml_emitter_set_unicode(&emitter, 1);
	yaml_emitter_set_indent(&emitter, INDENT);
	yaml_emitter_set_width(&emitter, -1); /* lines are not folded */
	emit(&emitter, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING), &event);
	emit(&emitter, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1), &event);
	put_value(&emitter, value);
	emit(&emitter, yaml_document_end_event_initialize(&event, 1), &event);
	emit(&emitter, yaml_stream_end_event_initialize(&event), &event);
	yaml_emitter_delete(&emitter);
	return text.data; /* the caller's now */
}
