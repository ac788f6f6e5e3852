/* Tables, sizes, ages; JSON and YAML. */
#include "cli/output.h"

#include "cli/yaml.h"
#include "common/checked.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static void *grow(void *p, size_t size)
{
	p = realloc(p, size);
	if (!p)
		abort();
	return p;
}

static void add_cell(struct table *table, char *text)
{
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	table->cells = grow(table->cells, (table->n_cells + 1) * sizeof(char *));
	table->cells[table->n_cells++] = text;
}

void table_init(struct table *table, const char *header)
{
	memset(table, 0, sizeof(*table));
	for (const char *c = header;; c++) {
		size_t len = strcspn(c, "|");
		char *name = strndup(c, len);

		if (!name || table->n_columns == TABLE_COLUMNS_MAX)
			abort();
		add_cell(table, name);
		table->n_columns++;
		c += len;
		if (!*c)
			break;
	}
}

void table_add(struct table *table, const char *fmt, ...)
{
	va_list args;
	char *text;

	va_start(args, fmt);
	if (vasprintf(&text, fmt, args) < 0)
		abort();
	va_end(args);
	add_cell(table, text);
}

/* Columns that a UTF-8 string takes, near enough: continuation bytes take none. */
static size_t width(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

void table_print(const struct table *table, FILE *out)
{
	size_t widths[TABLE_COLUMNS_MAX] = {0};

	for (size_t i = 0; i < table->n_cells; i++) {
		size_t w = width(table->cells[i]), column = i % table->n_columns;

		if (w > widths[column])
			widths[column] = w;
	}
	for (size_t i = 0; i < table->n_cells; i++) {
		size_t column = i % table->n_columns;

		if (column + 1 == table->n_columns)
			fprintf(out, "%s\n", table->cells[i]);
		else
			fprintf(out, "%s%*s", table->cells[i], (int)(widths[column] + 2 - width(table->cells[i])), "");
	}
}

void table_done(struct table *table)
{
	for (size_t i = 0; i < table->n_cells; i++)
		free(table->cells[i]);
	free(table->cells);
	memset(table, 0, sizeof(*table));
}

char *age_text(const char *rfc3339, time_t now, char ret[AGE_MAX])
{
	static const struct {
		long long seconds;
		const char *name;
	} units[] = {{86400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}};
	struct tm tm = {0};
	long long age;

	ret[0] = '\0';
	if (!rfc3339 || !strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &tm))
		return ret;
	age = (long long)now - (long long)timegm(&tm);
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		long long n = age / units[i].seconds;

		if (n > 0) {
			snprintf(ret, AGE_MAX, "%lld %s%s ago", n, units[i].name, n == 1 ? "" : "s");
			return ret;
		}
	}
	snprintf(ret, AGE_MAX, "just now");
	return ret;
}

char *size_text(uint64_t size_bytes, char ret[SIZE_MAX_TEXT])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double size = (double)size_bytes;
	size_t unit = 0;

	while (size >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		size /= 1024;
		unit++;
	}
	snprintf(ret, SIZE_MAX_TEXT, "%.*f %s", unit == 0 || size == (double)(uint64_t)size ? 0 : 1, size, units[unit]);
	return ret;
}

const char *json_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

json_int_t json_number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

int output_format(const struct args *args, enum output_format def, enum output_format *ret, struct failure *fail)
{
	static const char *const names[] = {[OUTPUT_TABLE] = "table", [OUTPUT_JSON] = "json", [OUTPUT_YAML] = "yaml"};
	const char *name = args_value(args, "output");

	*ret = def;
	for (size_t i = 0; name && i < ARRAY_SIZE(names); i++)
		if (strcmp(name, names[i]) == 0) {
			*ret = (enum output_format)i;
			return 0;
		}
	return name ? failure_usage(fail, "--output", "\"%s\" is none of table, json, yaml", name) : 0;
}

void print_value(const json_t *value, enum output_format format)
{
	char *text = format == OUTPUT_YAML ? yaml_text(value) : json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY);

	if (!text)
		abort();
	printf("%s%s", text, format == OUTPUT_YAML ? "" : "\n");
	free(text);
}

void print_next(const json_t *value, enum output_format format)
{
	if (format == OUTPUT_YAML) {
		printf("---\n");
		print_value(value, format);
	} else {
		json_dumpf(value, stdout, JSON_COMPACT);
		putchar('\n');
	}
}

void print_made(const json_t *value, const char *key, enum output_format format)
{
	if (format == OUTPUT_TABLE)
		printf("%s\n", json_text(value, key));
	else
		print_value(value, format);
}
