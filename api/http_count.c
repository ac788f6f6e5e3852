/* Counts what is answered, by route. */
#include "api/http_request.h"

#include <stdlib.h>
#include <time.h>

const unsigned http_bucket_ms[HTTP_BUCKETS] = {1, 5, 25, 100, 500, 2500, 10000};

int64_t http_monotonic_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000) + now.tv_nsec / 1000;
}

static size_t index_of(const struct http *http, const struct http_route *route)
{
	size_t n = 0;

	if (route)
		return (size_t)(route - http->routes);
	while (http->routes[n].method)
		n++;
	return n; /* behind the last: what fits none */
}

struct http_count *http_counts_new(const struct http *http)
{
	struct http_count *counts = calloc(index_of(http, NULL) + 1, sizeof(*counts));

	if (!counts)
		abort();
	return counts;
}

const struct http_count *http_count(const struct http *http, const struct http_route *route)
{
	return &http->counts[index_of(http, route)];
}

void http_count_answer(const struct request *req)
{
	struct http_count *count = &req->http->counts[index_of(req->http, req->route)];
	int64_t us = http_monotonic_us() - req->begun_us;

	count->total++;
	count->total_us += (uint64_t)us;
	if (req->status >= 100 && req->status < 600)
		count->statuses[req->status / 100 - 1]++;
	for (size_t i = 0; i < HTTP_BUCKETS; i++)
		count->within[i] += us <= (int64_t)http_bucket_ms[i] * 1000;
}
