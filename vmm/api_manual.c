/* Makes the API's manual page: copies standard input, and puts in place of each line "@fields KEY" the fields of that object
 * of the configuration, from the table that reads it. So the page cannot say what the monitor does not do. */
#include "vmm/config.h"
#include "vmm/snapshot_request.h"

#include <stdio.h>
#include <string.h>

#define MARK "@fields "

/* The object of that name: of the configuration, a part that several share, or a request's body. */
static const struct json_table *find_table(const char *key)
{
	const struct json_field *field = json_find_field(&config_table, key);

	if (strcmp(key, "rate_limiter") == 0)
		return &config_rate_limiter_table;
	if (strcmp(key, "snapshot-create") == 0)
		return &snapshot_create_table;
	if (strcmp(key, "snapshot-load") == 0)
		return &snapshot_load_table;
	if (strcmp(key, "bucket") == 0)
		return config_rate_limiter_table.fields[0].table;
	return field ? field->table : NULL;
}

static void print_names(const struct json_field *field)
{
	for (size_t i = 0; field->names[i]; i++)
		printf("%s*%s*", i == 0 ? "" : field->names[i + 1] ? ", " : " or ", field->names[i]);
	if (!field->required)
		printf("; *%s* unless given", field->names[field->def]);
}

static void print_type(const struct json_field *field)
{
	switch (field->type) {
	case JSON_FIELD_BOOL:
		printf("boolean");
		break;
	case JSON_FIELD_INT:
		printf("integer from %lld to %lld", (long long)field->min, (long long)field->max);
		if (!field->required)
			printf("; %lld unless given", (long long)field->def);
		break;
	case JSON_FIELD_STRING:
		printf(field->max ? "string of %lld bytes at most" : "string", (long long)field->max);
		if (field->def_string)
			printf("; \"%s\" unless given", field->def_string);
		break;
	case JSON_FIELD_ENUM:
		print_names(field);
		break;
	case JSON_FIELD_OBJECT:
	case JSON_FIELD_OPTIONAL:
		printf("object (%s)", field->table->name);
		break;
	case JSON_FIELD_ARRAY:
		printf("array of objects (%s)", field->table->name);
		break;
	case JSON_FIELD_STRINGS:
		printf("array of strings");
		break;
	case JSON_FIELD_MAP:
		printf("object of strings");
		break;
	case JSON_FIELD_ANY:
		printf("any value");
		break;
	}
}

static void print_fields(const struct json_table *table)
{
	for (size_t i = 0; i < table->n_fields; i++) {
		const struct json_field *field = &table->fields[i];

		printf("\t*%s*%s (", field->name, field->required ? "\\*" : "");
		print_type(field);
		printf(field->help ? "): %s\n\n" : ")\n\n", field->help);
	}
}

int main(void)
{
	char line[4096];

	while (fgets(line, sizeof(line), stdin)) {
		const struct json_table *table;

		if (strncmp(line, MARK, strlen(MARK)) != 0) {
			fputs(line, stdout);
			continue;
		}
		line[strcspn(line, "\n")] = '\0';
		table = find_table(line + strlen(MARK));
		if (!table) {
			fprintf(stderr, "api-manual: the configuration has no object \"%s\"\n", line + strlen(MARK));
			return 1;
		}
		print_fields(table);
	}
	return ferror(stdin) || fflush(stdout) ? 1 : 0;
}
