/* What `hull top` shows of the API's MachineStats. */
#include "cli/top_rows.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define CLEAR_LINE "\033[K"
#define CLEAR_REST "\033[J"

/* The number at a path of two keys (the first NULL: at the top); false: it is not there. */
static bool find(const json_t *stats, const char *part, const char *key, double *ret)
{
	const json_t *value = json_object_get(part ? json_object_get(stats, part) : stats, key);

	*ret = json_is_integer(value) ? (double)json_integer_value(value) : 0;
	return json_is_integer(value);
}

/* Of the guest's disks, or interfaces. */
static bool add_up(const json_t *stats, const char *list, const char *key, double *ret)
{
	const json_t *items = json_object_get(json_object_get(stats, "guest"), list), *item;
	size_t i;

	*ret = 0;
	json_array_foreach (items, i, item)
		*ret += (double)json_number(item, key);
	return json_is_array(items);
}

/* Milliseconds from one to the other; 0: there is no time in between. */
static double elapsed_ms(const json_t *stats, const json_t *before)
{
	double now, then;

	return before && find(stats, NULL, "at_unix_ms", &now) && find(before, NULL, "at_unix_ms", &then) && now > then ? now - then
															: 0;
}

static void add_cpu(struct table *table, const json_t *stats, const json_t *before)
{
	double now, then, ms = elapsed_ms(stats, before);

	/* One that was started again counts from 0. */
	if (ms > 0 && find(stats, "host", "cpu_us", &now) && find(before, "host", "cpu_us", &then) && now >= then)
		table_add(table, "%.1f", (now - then) / 10 / ms);
	else
		table_add(table, "-");
}

static void add_memory(struct table *table, const json_t *stats)
{
	double total, available, limit;
	char text[SIZE_MAX_TEXT];

	if (find(stats, "guest", "memory_total_bytes", &total) && find(stats, "guest", "memory_available_bytes", &available) &&
		total >= available)
		table_add(table, "%s", size_text((uint64_t)(total - available), text));
	else
		table_add(table, "-");
	find(stats, NULL, "memory_limit_bytes", &limit);
	table_add(table, "%s", size_text((uint64_t)limit, text));
}

static void add_pressure(struct table *table, const json_t *stats)
{
	double hundredths;

	if (find(json_object_get(stats, "guest"), "memory_pressure", "some_avg10_hundredths", &hundredths))
		table_add(table, "%.1f%%", hundredths / 100);
	else
		table_add(table, "-");
}

static void add_rate(struct table *table, const json_t *stats, const json_t *before, const char *list, const char *key)
{
	double now, then, ms = elapsed_ms(stats, before);
	char text[SIZE_MAX_TEXT];

	/* A machine that lies has any rate: no more than a number holds. */
	if (ms > 0 && add_up(stats, list, key, &now) && add_up(before, list, key, &then) && now >= then && (now - then) * 1000 / ms < 1e18)
		table_add(table, "%s", size_text((uint64_t)((now - then) * 1000 / ms), text));
	else
		table_add(table, "-");
}

static void add_tasks(struct table *table, const json_t *stats)
{
	const json_t *guest = json_object_get(stats, "guest");
	double workload, executed;
	bool known = find(guest, "workload", "tasks", &workload);

	known = find(guest, "executed", "tasks", &executed) || known;
	if (!guest)
		table_add(table, "- (%s)", json_text(stats, "guest_reason"));
	else if (known)
		table_add(table, "%.0f", workload + executed);
	else
		table_add(table, "-");
}

void top_add_row(struct table *table, const json_t *stats, const json_t *before)
{
	table_add(table, "%s", json_text(stats, "name"));
	add_cpu(table, stats, before);
	add_memory(table, stats);
	add_pressure(table, stats);
	add_rate(table, stats, before, "disks", "read_bytes");
	add_rate(table, stats, before, "disks", "written_bytes");
	add_rate(table, stats, before, "interfaces", "received_bytes");
	add_rate(table, stats, before, "interfaces", "sent_bytes");
	add_tasks(table, stats);
}

/* The bytes of its first `columns` characters. */
static size_t cut(const char *line, size_t len, unsigned columns)
{
	size_t i = 0;

	for (unsigned n = 0; i < len; i++) {
		n += ((unsigned char)line[i] & 0xc0) != 0x80;
		if (n > columns)
			break;
	}
	return i;
}

char *top_fit(const char *text, unsigned rows, unsigned columns)
{
	char *fitted = NULL;
	size_t size;
	FILE *out = open_memstream(&fitted, &size);

	if (!out)
		abort();
	for (unsigned row = 0; row < rows && *text; row++) {
		size_t len = strcspn(text, "\n");

		/* No newline behind the last: the screen would scroll. */
		fprintf(out, "%s%.*s" CLEAR_LINE, row ? "\r\n" : "", (int)cut(text, len, columns), text);
		text += len + (text[len] == '\n');
	}
	fprintf(out, CLEAR_REST);
	if (fclose(out) != 0)
		abort();
	return fitted;
}
