/* Prometheus' view of the host and of its machines. What it costs: one small file of /proc for each machine that runs. */
#include "api/metrics.h"

#include "api/host_stats.h"
#include "api/hulld.h"
#include "api/machine.h"
#include "common/checked.h"
#include "common/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void family(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Of a process, by its number in /proc or "self"; -1 is not known. */
static struct host_stats read_stat(const char *process)
{
	struct host_stats stats = {-1, -1, -1, -1, -1, -1};
	char path[64], text[1024];
	cleanup_close int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%s/stat", process);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n > 0) {
		text[n] = '\0';
		host_stats_parse_stat(text, &stats);
	}
	return stats;
}

/* ---- machines ---- */

/* Of each project, in each state that one of its machines has. */
static void machines_by_state(FILE *out, const struct hulld *hulld)
{
	json_t *counts = json_object(), *count;
	char labels[160];
	const char *key;

	for (const struct machine *m = hulld->machines; m; m = m->next) {
		snprintf(labels, sizeof(labels), "project=\"%s\",state=\"%s\"", m->record.project, machine_state_names[m->record.state]);
		json_object_set_new(counts, labels, json_integer(json_integer_value(json_object_get(counts, labels)) + 1));
	}
	family(out, "hull_machines", "gauge", "Machines by project and state.");
	json_object_foreach (counts, key, count)
		fprintf(out, "hull_machines{%s} %" JSON_INTEGER_FORMAT "\n", key, json_integer_value(count));
	json_decref(counts);
}

/* Names have letters, digits and '-' only: no label needs escaping. */
static void sample(FILE *out, const char *name, const struct machine *m, double value)
{
	fprintf(out, "%s{project=\"%s\",machine=\"%s\"} %.15g\n", name, m->record.project, m->record.name, value);
}

static double cpu_seconds(const struct machine *m)
{
	char pid[16];
	int64_t us;

	if (!m->monitor)
		return -1;
	snprintf(pid, sizeof(pid), "%d", (int)m->record.monitor.pid);
	us = read_stat(pid).cpu_us;
	return us < 0 ? -1 : (double)us / 1e6;
}

static double is_up(const struct machine *m)
{
	return m->up;
}

static double restarts(const struct machine *m)
{
	return (double)m->record.restarts;
}

static double cpus(const struct machine *m)
{
	return (double)machine_running_spec(m)->cpus;
}

static double memory_limit(const struct machine *m)
{
	return (double)(machine_running_spec(m)->memory_mib << 20);
}

/* Each of every machine; a value below 0 is none. */
static const struct {
	const char *name, *type, *help;
	double (*value)(const struct machine *m);
} of_machines[] = {
	{"hull_machine_up", "gauge", "1 when it runs and its agent has answered.", is_up},
	{"hull_machine_restarts_total", "counter", "Starts by its restart policy.", restarts},
	{"hull_machine_cpus", "gauge", "Its virtual processors.", cpus},
	{"hull_machine_memory_limit_bytes", "gauge", "Its memory.", memory_limit},
	{"hull_machine_cpu_seconds_total", "counter", "Processor time of its monitor, its virtual processors included, in this run.", cpu_seconds},
};

static void each_machine(FILE *out, const struct hulld *hulld)
{
	for (size_t i = 0; i < ARRAY_SIZE(of_machines); i++) {
		family(out, of_machines[i].name, of_machines[i].type, of_machines[i].help);
		for (const struct machine *m = hulld->machines; m; m = m->next) {
			double value = of_machines[i].value(m);

			if (value >= 0)
				sample(out, of_machines[i].name, m, value);
		}
	}
}

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
	family(out, "hull_build_info", "gauge", "1; the version is a label.");
	fprintf(out, "hull_build_info{version=\"%s\"} 1\n", HULL_VERSION);
	family(out, "process_cpu_seconds_total", "counter", "Processor time of hulld.");
	fprintf(out, "process_cpu_seconds_total %.6f\n", (double)read_stat("self").cpu_us / 1e6);
	family(out, "process_resident_memory_bytes", "gauge", "Memory of hulld.");
	fprintf(out, "process_resident_memory_bytes %" PRId64 "\n", resident_bytes());
	family(out, "process_open_fds", "gauge", "Descriptors that hulld has open.");
	fprintf(out, "process_open_fds %u\n", open_files());
}

void metrics_http_get(struct request *req, void *ctx)
{
	const struct hulld *hulld = ctx;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		abort();
	itself(out);
	machines_by_state(out, hulld);
	each_machine(out, hulld);
	family(out, "hull_http_requests_total", "counter", "What was answered, by route and class of status; streams count once they begin.");
	each_route(out, hulld, requests_of);
	family(out, "hull_http_request_duration_seconds", "histogram", "From a request's head to its answer's.");
	each_route(out, hulld, durations_of);
	if (fclose(out) != 0)
		abort();
	request_reply_text(req, "text/plain; version=0.0.4; charset=utf-8", text);
}
