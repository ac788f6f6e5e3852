/* What commands print: tables, sizes and ages for people, values for programs. */
#ifndef HULL_CLI_OUTPUT_H
#define HULL_CLI_OUTPUT_H

#include "cli/args.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#define TABLE_COLUMNS_MAX 10

/* Rows of text, printed as columns as wide as their widest cell, two spaces apart. */
struct table {
	size_t n_columns;
	char **cells; /* owned; the header's first */
	size_t n_cells;
};

/* `header` is one string, columns separated by '|'. */
void table_init(struct table *table, const char *header);
/* One cell, row by row, left to right; copied, control characters replaced. Allocation failure aborts. */
void table_add(struct table *table, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void table_print(const struct table *table, FILE *out);
void table_done(struct table *table);

#define AGE_MAX	 32
#define SIZE_MAX_TEXT 32

/* "3 minutes ago" for an RFC 3339 time in UTC; "" for what is none. Returns `ret`. */
char *age_text(const char *rfc3339, time_t now, char ret[AGE_MAX]);
/* "84.4 MiB". Returns `ret`. */
char *size_text(uint64_t size_bytes, char ret[SIZE_MAX_TEXT]);

/* Members of what the API sent, whatever it sent: "" or 0 when it is absent or of another type. Borrowed. */
const char *json_text(const json_t *object, const char *key);
json_int_t json_number(const json_t *object, const char *key);

enum output_format {
	OUTPUT_TABLE,
	OUTPUT_JSON,
	OUTPUT_YAML,
};

/* The options of commands that show something, and of those that are answered with what they have made or changed. */
#define OUTPUT_OPTION {'o', "output", "table|json|yaml", "how to print it (table)"}
#define QUIET_OPTION(what) {'q', "quiet", NULL, what}

/* What --output says, or `def`. 0 or a usage failure. */
int output_format(const struct args *args, enum output_format def, enum output_format *ret, struct failure *fail);

/* As JSON, indented, or YAML, on standard output: for any format but OUTPUT_TABLE. */
void print_value(const json_t *value, enum output_format format);
/* One of many that follow each other: JSON as a line, YAML as a document. */
void print_next(const json_t *value, enum output_format format);
/* What was made or changed: for people its `key`, a line. */
void print_made(const json_t *value, const char *key, enum output_format format);

#endif
