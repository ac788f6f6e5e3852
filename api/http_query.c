/* Queries: whether one is as its route has it. */
#include "api/http_request.h"

#include "api/page.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const struct http_query http_page_queries[] = {
	{"limit", "So many items at most, and next where there are more. 1000 when absent.", HTTP_QUERY_INT, .min = 1, .max = PAGE_LIMIT_MAX},
	{"cursor", "next of the page before.", .min = 2, .max = 2 * PAGE_KEY_MAX, .pattern = "^(0[1-9a-f]|[1-9a-f][0-9a-f])+$"},
	{NULL, NULL},
};

struct checking {
	struct request *req;
	/* How often each has come: the route's own, and those of pages. */
	unsigned own[HTTP_QUERIES_MAX], page[HTTP_QUERIES_MAX];
};

static const struct http_query *find(const struct http_query *queries, const char *name, size_t len, size_t *ret_index)
{
	for (size_t i = 0; queries && queries[i].name; i++)
		if (strlen(queries[i].name) == len && memcmp(queries[i].name, name, len) == 0) {
			*ret_index = i;
			return &queries[i];
		}
	return NULL;
}

static const struct http_query *page_queries(const struct request *req)
{
	return req->route->gives_list ? http_page_queries : NULL;
}

static bool is_number(const char *text, int64_t min, int64_t max)
{
	const char *digits = text + (text[0] == '-');
	long long value;

	errno = 0;
	value = strtoll(text, NULL, 10);
	return !errno && digits[0] && !digits[strspn(digits, "0123456789")] && value >= min && value <= max;
}

static bool is_one_of(const char *const *names, const char *word, size_t len)
{
	for (; *names; names++)
		if (strlen(*names) == len && memcmp(*names, word, len) == 0)
			return true;
	return false;
}

/* The first of `list` that is none of `names`; NULL: all are. */
static const char *find_wrong(const char *const *names, const char *list)
{
	for (;;) {
		size_t len = strcspn(list, ",");

		if (!is_one_of(names, list, len))
			return list;
		if (!list[len])
			return NULL;
		list += len + 1;
	}
}

/* Those of `names` that begin with `prefix`, without that, as "a, b"; `all`, or those with no dot in the rest. False: they do not fit. */
static bool put_names(char *list, size_t size, const char *const *names, const char *prefix, size_t prefix_len, bool all)
{
	size_t len = 0;

	list[0] = '\0';
	for (; *names && len < size; names++)
		if (strncmp(*names, prefix, prefix_len) == 0 && (all || !strchr(*names + prefix_len, '.')))
			len += (size_t)snprintf(list + len, size - len, "%s%s", len ? ", " : "", *names + prefix_len);
	return len < size;
}

/* Too many to be named: those of the thing that it names ("machine." of "machine.x"), or else all things. */
static void describe_names(const char *const *names, const char *wrong, char ret[ERROR_MESSAGE_MAX])
{
	size_t thing = strcspn(wrong, ".,");
	char list[ERROR_MESSAGE_MAX - 80];

	if (wrong[thing] == '.' && is_one_of(names, wrong, thing)) {
		put_names(list, sizeof(list), names, wrong, thing + 1, false);
		snprintf(ret, ERROR_MESSAGE_MAX, "of \"%.*s.\" there are %s", (int)thing, wrong, list);
	} else {
		put_names(list, sizeof(list), names, "", 0, false);
		snprintf(ret, ERROR_MESSAGE_MAX, "must be of %s, or of what these have behind a dot, with commas between", list);
	}
}

static void refuse_names(struct request *req, const struct http_query *query, const char *wrong)
{
	size_t len = query->type == HTTP_QUERY_NAMES ? strcspn(wrong, ",") : strlen(wrong);
	char list[ERROR_MESSAGE_MAX - 40], detail[ERROR_MESSAGE_MAX], word[64];
	struct problem problem;
	const char *near;

	if (!put_names(list, sizeof(list), query->names, "", 0, true))
		describe_names(query->names, wrong, detail);
	else if (query->type == HTTP_QUERY_NAME)
		snprintf(detail, sizeof(detail), "must be one of %s", list);
	else
		snprintf(detail, sizeof(detail), "must be of %s, with commas between", list);
	problem_set(&problem, PROBLEM_INVALID_FIELD, query->name, "%s", detail);
	snprintf(word, sizeof(word), "%.*s", (int)(len < sizeof(word) ? len : 0), wrong);
	near = nearest_name(word, query->names);
	if (near)
		problem_set_hint(&problem, "did you mean %s?", near);
	request_refuse(req, &problem);
}

static void check_text(struct request *req, const struct http_query *query, const char *text, size_t len)
{
	json_t *string = json_stringn(text, len);

	json_decref(string);
	if (!string)
		request_refuse_with(req, PROBLEM_INVALID_FIELD, query->name, "must be UTF-8, without a NUL");
	else if (len < (size_t)query->min)
		request_refuse_with(req, PROBLEM_INVALID_FIELD, query->name, len ? "must have at least %" PRId64 " bytes" : "must not be empty",
			query->min);
	else if (query->max && len > (size_t)query->max)
		request_refuse_with(req, PROBLEM_INVALID_FIELD, query->name, "must have at most %" PRId64 " bytes", query->max);
}

static void check_value(struct request *req, const struct http_query *query, const char *value, size_t len)
{
	const char *wrong;

	switch (query->type) {
	case HTTP_QUERY_TEXT:
		check_text(req, query, value, len);
		break;
	case HTTP_QUERY_INT:
		if (!is_number(value, query->min, query->max))
			request_refuse_with(req, PROBLEM_INVALID_FIELD, query->name, "must be a number from %" PRId64 " to %" PRId64,
				query->min, query->max);
		break;
	case HTTP_QUERY_NAME:
		if (!is_one_of(query->names, value, len))
			refuse_names(req, query, value);
		break;
	case HTTP_QUERY_NAMES:
		wrong = find_wrong(query->names, value);
		if (wrong)
			refuse_names(req, query, wrong);
		break;
	}
}

static enum MHD_Result check_one(void *ctx, enum MHD_ValueKind kind, const char *name, size_t name_len, const char *value, size_t len)
{
	struct checking *checking = ctx;
	struct request *req = checking->req;
	const struct http_query *query;
	unsigned *seen = checking->own;
	size_t i;

	(void)kind;
	query = find(req->route->queries, name, name_len, &i);
	if (!query) {
		query = find(page_queries(req), name, name_len, &i);
		seen = checking->page;
	}
	if (!query)
		request_refuse_with(req, PROBLEM_UNKNOWN_FIELD, name, "unknown query parameter");
	else if (++seen[i] > (query->repeats ? query->repeats : 1))
		request_refuse_with(req, PROBLEM_INVALID_FIELD, query->name, "may be given %s", query->repeats ? "no more than that often" : "once");
	else
		check_value(req, query, value ? value : "", value ? len : 0);
	return req->response ? MHD_NO : MHD_YES;
}

void http_check_query(struct request *req)
{
	struct checking checking = {.req = req};
	const struct http_query *queries = req->route->queries;

	MHD_get_connection_values_n(req->connection, MHD_GET_ARGUMENT_KIND, check_one, &checking);
	for (size_t i = 0; !req->response && queries && queries[i].name; i++)
		if (queries[i].required && !checking.own[i])
			request_refuse_with(req, PROBLEM_MISSING_FIELD, queries[i].name, "is required");
}
