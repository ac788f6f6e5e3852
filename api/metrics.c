/* GET /metrics.
 *
 * Theory of operation. What hulld knows is copied at once; a worker asks the kernel for each machine and volume, and writes: on a host with a
 * thousand machines that takes some time, and the loop is not held up. One worker at a time; who asks meanwhile is answered, with all
 * others that did, by the next. The text is written in order: hulld itself and the API by the loop, then machines and volumes by the worker. */
#include "api/metrics.h"

#include "api/audit.h"
#include "api/haproxy.h"
#include "api/host_stats.h"
#include "api/hostnames.h"
#include "api/hulld.h"
#include "api/metrics_machines.h"
#include "api/metrics_volumes.h"
#include "api/webhook.h"
#include "api/worker.h"
#include "common/checked.h"
#include "common/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SCRAPES_MAX 16 /* at once: each is given a copy of the text */

struct scrape {
	struct metrics *metrics;
	struct request *req; /* NULL: the client has gone */
	struct scrape *next;
};

struct metrics {
	struct hulld *hulld;
	struct scrape *written, *waiting; /* the worker writes for the first, the others wait for the next */
	size_t n_scrapes;
	struct worker *worker;
	/* The worker's while there is one. */
	struct metrics_machines *machines;
	struct metrics_volumes *volumes;
	FILE *out;
	char *text;
	size_t len;
};

/* ---- the API ---- */

/* NULL: what fits no route. */
static void print_route(FILE *out, const struct http_route *route)
{
	fprintf(out, "method=\"%s\",route=\"%s\"", route ? route->method : "", route ? route->path : "");
}

static void requests_of(FILE *out, const struct hulld *hulld, const struct http_route *route)
{
	const struct http_count *count = http_count(hulld->http, route);

	for (size_t i = 0; i < ARRAY_SIZE(count->statuses); i++)
		if (count->statuses[i]) {
			fputs("hull_http_requests_total{", out);
			print_route(out, route);
			fprintf(out, ",status=\"%zuxx\"} %" PRIu64 "\n", i + 1, count->statuses[i]);
		}
}

static void durations_of(FILE *out, const struct hulld *hulld, const struct http_route *route)
{
	const struct http_count *count = http_count(hulld->http, route);

	if (!count->total)
		return;
	for (size_t i = 0; i <= HTTP_BUCKETS; i++) {
		fputs("hull_http_request_duration_seconds_bucket{", out);
		print_route(out, route);
		if (i < HTTP_BUCKETS)
			fprintf(out, ",le=\"%g\"} %" PRIu64 "\n", http_bucket_ms[i] / 1e3, count->within[i]);
		else
			fprintf(out, ",le=\"+Inf\"} %" PRIu64 "\n", count->total);
	}
	fputs("hull_http_request_duration_seconds_sum{", out);
	print_route(out, route);
	fprintf(out, "} %.6f\nhull_http_request_duration_seconds_count{", (double)count->total_us / 1e6);
	print_route(out, route);
	fprintf(out, "} %" PRIu64 "\n", count->total);
}

static void each_route(FILE *out, const struct hulld *hulld, void (*print)(FILE *, const struct hulld *, const struct http_route *))
{
	for (const struct http_route *route = hulld_routes; route->method; route++)
		print(out, hulld, route);
	print(out, hulld, NULL);
}

/* ---- hulld itself, by the names that Prometheus' own clients use ---- */

/* Processor time of hulld; -1 is not known. */
static int64_t own_cpu_us(void)
{
	struct host_stats stats = {-1, -1, -1, -1, -1, -1};
	cleanup_close int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	char text[1024];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (n > 0) {
		text[n] = '\0';
		host_stats_parse_stat(text, &stats);
	}
	return stats.cpu_us;
}

static int64_t resident_bytes(void)
{
	long long pages = -1;
	FILE *file = fopen("/proc/self/statm", "re");

	if (file && fscanf(file, "%*s %lld", &pages) != 1)
		pages = -1;
	if (file)
		fclose(file);
	return pages < 0 ? -1 : pages * sysconf(_SC_PAGESIZE);
}

static unsigned open_files(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned n = 0;

	while (folder && readdir(folder))
		n++;
	if (folder)
		closedir(folder);
	return n > 3 ? n - 3 : 0; /* ".", ".." and its own */
}

static void itself(FILE *out)
{
	metrics_family(out, "hull_build_info", "gauge", "1; the version is a label.");
	fprintf(out, "hull_build_info{version=\"%s\"} 1\n", HULL_VERSION);
	metrics_family(out, "process_cpu_seconds_total", "counter", "Processor time of hulld.");
	fprintf(out, "process_cpu_seconds_total %.6f\n", (double)own_cpu_us() / 1e6);
	metrics_family(out, "process_resident_memory_bytes", "gauge", "Memory of hulld.");
	fprintf(out, "process_resident_memory_bytes %" PRId64 "\n", resident_bytes());
	metrics_family(out, "process_open_fds", "gauge", "Descriptors that hulld has open.");
	fprintf(out, "process_open_fds %u\n", open_files());
}

static void audit_lines(FILE *out, const struct hulld *hulld)
{
	const struct audit_metrics *lines = audit_metrics(hulld->audit);

	metrics_family(out, "hull_audit_lines_total", "counter", "Lines of the audit log that were written.");
	fprintf(out, "hull_audit_lines_total %" PRIu64 "\n", lines->written);
	metrics_family(out, "hull_audit_lines_lost_total", "counter", "Lines of the audit log that could not be written.");
	fprintf(out, "hull_audit_lines_lost_total %" PRIu64 "\n", lines->lost);
}

static void webhook_deliveries(FILE *out, const struct hulld *hulld)
{
	const uint64_t *counts = sender_counts(hulld->webhooks->sender);
	uint64_t states[WEBHOOK_N_STATES] = {0};

	for (const struct webhook *hook = hulld->webhooks->first; hook; hook = hook->next)
		states[webhook_state(hook)]++;
	metrics_family(out, "hull_webhooks", "gauge", "Webhooks by state.");
	for (size_t i = 0; i < WEBHOOK_N_STATES; i++)
		fprintf(out, "hull_webhooks{state=\"%s\"} %" PRIu64 "\n", webhook_state_names[i], states[i]);
	metrics_family(out, "hull_webhook_deliveries_total", "counter", "What was sent to webhooks, by what became of it.");
	for (size_t i = 0; i < N_SENT; i++)
		fprintf(out, "hull_webhook_deliveries_total{outcome=\"%s\"} %" PRIu64 "\n", sent_names[i], counts[i]);
}

static void wakes(FILE *out, const struct hulld *hulld)
{
	metrics_family(out, "hull_machine_wakes_total", "counter", "How often a machine that was asleep was started as somebody came.");
	fprintf(out, "hull_machine_wakes_total %" PRIu64 "\n", hulld->wakes);
}

static void host_names(FILE *out, const struct hulld *hulld)
{
	const struct haproxy *haproxy = hostnames_haproxy(hulld->hostnames);

	if (!haproxy)
		return;
	metrics_family(out, "hull_haproxy_up", "gauge", "1 when what serves machines by host name runs.");
	fprintf(out, "hull_haproxy_up %d\n", haproxy_is_running(haproxy));
	metrics_family(out, "hull_haproxy_restarts_total", "counter", "How often it had ended unasked, and was started again.");
	fprintf(out, "hull_haproxy_restarts_total %" PRIu64 "\n", haproxy_restarts(haproxy));
}

/* ---- scrapes ---- */

static void scrape_free(struct scrape *scrape)
{
	scrape->metrics->n_scrapes--;
	free(scrape);
}

static void on_gone(void *ctx)
{
	((struct scrape *)ctx)->req = NULL;
}

static void write_rest(void *ctx)
{
	struct metrics *metrics = ctx;

	metrics_machines_write(metrics->machines, metrics->out);
	metrics_volumes_write(metrics->volumes, metrics->out);
}

static void on_written(void *ctx);

/* What is of the loop alone; the worker goes on behind it. */
static void begin(struct metrics *metrics)
{
	const struct hulld *hulld = metrics->hulld;

	metrics->written = metrics->waiting;
	metrics->waiting = NULL;
	metrics->out = open_memstream(&metrics->text, &metrics->len);
	if (!metrics->out)
		abort();
	itself(metrics->out);
	metrics_family(metrics->out, "hull_http_requests_total", "counter",
		"What was answered, by route and class of status; streams count once they begin.");
	each_route(metrics->out, hulld, requests_of);
	metrics_family(metrics->out, "hull_http_request_duration_seconds", "histogram", "From a request's head to its answer's.");
	each_route(metrics->out, hulld, durations_of);
	audit_lines(metrics->out, hulld);
	webhook_deliveries(metrics->out, hulld);
	host_names(metrics->out, hulld);
	wakes(metrics->out, hulld);
	metrics->machines = metrics_machines_new(hulld);
	metrics->volumes = metrics_volumes_new(hulld);
	if (worker_begin(&metrics->worker, hulld->loop, write_rest, on_written, metrics) < 0) {
		write_rest(metrics); /* a scrape that is slow for all is better than none */
		loop_post(hulld->loop, on_written, metrics);
	}
}

/* The text, the caller's. */
static char *end(struct metrics *metrics)
{
	char *text;

	if (fclose(metrics->out) != 0)
		abort();
	text = metrics->text;
	metrics->out = NULL;
	metrics->text = NULL;
	metrics_machines_free(metrics->machines);
	metrics_volumes_free(metrics->volumes);
	metrics->machines = NULL;
	metrics->volumes = NULL;
	return text;
}

static char *copy_text(const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		abort();
	return copy;
}

static void on_written(void *ctx)
{
	struct metrics *metrics = ctx;
	cleanup_free char *text = end(metrics);

	while (metrics->written) {
		struct scrape *scrape = metrics->written;

		metrics->written = scrape->next;
		if (scrape->req)
			request_reply_text(scrape->req, METRICS_TYPE,
				scrape->next ? copy_text(text) : steal_ptr(&text));
		scrape_free(scrape);
	}
	if (metrics->waiting)
		begin(metrics);
}

void metrics_http_get(struct request *req, void *ctx)
{
	struct metrics *metrics = ((struct hulld *)ctx)->metrics;
	struct scrape *scrape;

	if (metrics->n_scrapes == SCRAPES_MAX) {
		request_refuse_with(req, PROBLEM_BUSY, NULL, "%d others are reading this now", SCRAPES_MAX);
		return;
	}
	scrape = malloc(sizeof(*scrape));
	if (!scrape)
		abort();
	*scrape = (struct scrape){metrics, req, metrics->waiting};
	metrics->waiting = scrape;
	metrics->n_scrapes++;
	request_on_gone(req, on_gone, scrape);
	if (!metrics->written)
		begin(metrics);
}

struct metrics *metrics_new(struct hulld *hulld)
{
	struct metrics *metrics = calloc(1, sizeof(*metrics));

	if (!metrics)
		abort();
	metrics->hulld = hulld;
	return metrics;
}

static void free_scrapes(struct scrape *scrape)
{
	struct scrape *next;

	for (; scrape; scrape = next) {
		next = scrape->next;
		scrape_free(scrape);
	}
}

void metrics_free(struct metrics *metrics)
{
	if (!metrics)
		return;
	workers_end(&metrics->worker, NULL);
	if (metrics->out)
		free(end(metrics));
	free_scrapes(metrics->written);
	free_scrapes(metrics->waiting);
	free(metrics);
}
