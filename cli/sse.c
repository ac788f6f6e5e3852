/* Reading Server-Sent Events. */
#include "cli/sse.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_MAX_MS 30000

void sse_init(struct sse *sse, int (*on_event)(void *ctx, const char *data, size_t len), void *ctx)
{
	*sse = (struct sse){.id = -1, .next_id = -1, .retry_ms = -1, .on_event = on_event, .ctx = ctx};
	buf_init(&sse->line, SSE_TEXT_MAX);
	buf_init(&sse->data, SSE_TEXT_MAX);
}

void sse_done(struct sse *sse)
{
	buf_done(&sse->line);
	buf_done(&sse->data);
}

void sse_restart(struct sse *sse)
{
	sse->line.len = sse->data.len = 0;
	sse->after_cr = sse->has_data = false;
	sse->next_id = sse->id;
}

/* A number of our server's, or `before`. */
static long long read_number(const char *value, long long max, long long before)
{
	size_t digits = strspn(value, "0123456789");
	long long number = digits && !value[digits] && digits < 19 ? atoll(value) : -1;

	return number >= 0 && number <= max ? number : before;
}

static int end_event(struct sse *sse)
{
	int r = 0;

	sse->id = sse->next_id;
	if (sse->has_data)
		r = sse->on_event(sse->ctx, sse->data.data ? sse->data.data : "", sse->data.len);
	sse->data.len = 0;
	sse->has_data = false;
	return r < 0 ? r : 0;
}

/* sse->line has one, without its end. */
static int end_line(struct sse *sse)
{
	char *line = sse->line.data, *colon;
	const char *value = "";
	int r = 0;

	if (!sse->line.len)
		return end_event(sse);
	colon = strchr(line, ':');
	if (colon) {
		*colon = '\0';
		value = colon + 1 + (colon[1] == ' ');
	}
	if (strcmp(line, "data") == 0) {
		if (sse->has_data)
			r = buf_append(&sse->data, "\n", 1);
		sse->has_data = true;
		if (r == 0)
			r = buf_append(&sse->data, value, strlen(value));
	} else if (strcmp(line, "id") == 0) {
		sse->next_id = read_number(value, INT64_MAX, sse->next_id);
	} else if (strcmp(line, "retry") == 0) {
		sse->retry_ms = (int)read_number(value, RETRY_MAX_MS, sse->retry_ms);
	}
	sse->line.len = 0;
	return r;
}

int sse_feed(struct sse *sse, const char *data, size_t len)
{
	int r = 0;

	while (len && r == 0) {
		size_t part = 0;

		if (sse->after_cr && *data == '\n') {
			data++, len--;
			sse->after_cr = false;
			continue;
		}
		sse->after_cr = false;
		while (part < len && data[part] != '\n' && data[part] != '\r')
			part++;
		r = buf_append(&sse->line, data, part);
		if (r == 0 && part < len) {
			sse->after_cr = data[part++] == '\r';
			r = end_line(sse);
		}
		data += part;
		len -= part;
	}
	return r;
}
