/* The machines in numbers. See metrics_machines.h.
 *
 * All numbers are the host's own, by its kernel and by the monitor: what a guest says of itself is no ground for an account. A number
 * that is not known has no sample. */
#include "api/metrics_machines.h"

#include "api/host_stats.h"
#include "api/hulld.h"
#include "api/idle.h"
#include "api/machine.h"
#include "common/accounting.h"
#include "common/checked.h"
#include "common/cleanup.h"
#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK_BYTES 512 /* of st_blocks: inode(7) */

struct subject {
	char project[NAME_MAX_BYTES + 1], name[NAME_MAX_BYTES + 1], id[MACHINE_ID_BYTES + 1];
	const char *state;
	bool up;
	int64_t restarts, cpus, memory_mib, disk_mib;
	struct process_id monitor; /* pid 0: there is none */
	/* By the kernel. */
	struct host_stats host;
	int64_t disk_used_bytes; /* -1: it has no disk yet */
	/* By its monitor. */
	bool counts;
	struct accounting counted;
};

struct metrics_machines {
	char *state, *run; /* hulld's folders */
	size_t n;
	struct subject subjects[];
};

static size_t count(const struct hulld *hulld)
{
	size_t n = 0;

	for (const struct machine *m = hulld->machines; m; m = m->next)
		n++;
	return n;
}

static void copy(const struct machine *m, struct subject *ret)
{
	const struct machine_spec *spec = machine_running_spec(m);

	*ret = (struct subject){.state = idle_sleeps(m) && m->record.state != MACHINE_FAILED ? "asleep" : machine_state_names[m->record.state], .up = m->up, .restarts = m->record.restarts, .cpus = spec->cpus,
		.memory_mib = spec->memory_mib, .disk_mib = spec->disk_mib, .host = {-1, -1, -1, -1, -1, -1}, .disk_used_bytes = -1};
	memcpy(ret->project, m->record.project, sizeof(ret->project));
	memcpy(ret->name, m->record.name, sizeof(ret->name));
	memcpy(ret->id, m->record.id, sizeof(ret->id));
	if (m->monitor)
		ret->monitor = m->record.monitor;
}

struct metrics_machines *metrics_machines_new(const struct hulld *hulld)
{
	size_t n = count(hulld), i = 0;
	struct metrics_machines *machines = malloc(sizeof(*machines) + n * sizeof(*machines->subjects));

	if (!machines || !(machines->state = strdup(hulld->options.state)) || !(machines->run = strdup(hulld->options.run)))
		abort();
	machines->n = n;
	for (const struct machine *m = hulld->machines; m; m = m->next)
		copy(m, &machines->subjects[i++]);
	return machines;
}

void metrics_machines_free(struct metrics_machines *machines)
{
	if (machines) {
		free(machines->state);
		free(machines->run);
	}
	free(machines);
}

/* ---- what the kernel says ---- */

/* A small file of /proc as text; -errno. */
static int read_text(int folder_fd, const char *file, char *ret, size_t size)
{
	cleanup_close int fd = openat(folder_fd, file, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -errno : read_full(fd, ret, size - 1);

	ret[n < 0 ? 0 : n] = '\0';
	return n < 0 ? (int)n : 0;
}

/* Its monitor may have ended since, and another process have its number: by the folder's descriptor all is of one process. */
static void ask_monitor(struct subject *subject)
{
	char path[32], text[1024];
	cleanup_close int folder_fd = -1;

	snprintf(path, sizeof(path), "/proc/%d", (int)subject->monitor.pid);
	folder_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (folder_fd < 0 || read_text(folder_fd, "stat", text, sizeof(text)) < 0 ||
		host_stats_start_time(text) != subject->monitor.start_time)
		return;
	host_stats_parse_stat(text, &subject->host);
	if (read_text(folder_fd, "io", text, sizeof(text)) == 0)
		host_stats_parse_io(text, &subject->host);
}

static void ask_disk(const char *state, struct subject *subject)
{
	char path[512];
	struct stat st;

	snprintf(path, sizeof(path), "%s/machines/%s/scratch.ext4", state, subject->id);
	if (stat(path, &st) == 0)
		subject->disk_used_bytes = (int64_t)st.st_blocks * BLOCK_BYTES;
}

/* A machine that does not run has none: they are of its last run. */
static void read_counts(const char *run, struct subject *subject)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/machines/%s/accounting", run, subject->id);
	subject->counts = accounting_read(path, &subject->counted) == 0;
}

/* ---- writing ---- */

void metrics_family(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Of each project, in each state that one of its machines has. */
static void write_states(const struct metrics_machines *machines, FILE *out)
{
	json_t *counts = json_object(), *n;
	char labels[160];
	const char *key;

	for (size_t i = 0; i < machines->n; i++) {
		const struct subject *subject = &machines->subjects[i];

		snprintf(labels, sizeof(labels), "project=\"%s\",state=\"%s\"", subject->project, subject->state);
		json_object_set_new(counts, labels, json_integer(json_integer_value(json_object_get(counts, labels)) + 1));
	}
	metrics_family(out, "hull_machines", "gauge", "Machines by project and state.");
	json_object_foreach (counts, key, n)
		fprintf(out, "hull_machines{%s} %" JSON_INTEGER_FORMAT "\n", key, json_integer_value(n));
	json_decref(counts);
}

static int64_t is_up(const struct subject *subject)
{
	return subject->up;
}

static int64_t restarts(const struct subject *subject)
{
	return subject->restarts;
}

static int64_t cpus(const struct subject *subject)
{
	return subject->cpus;
}

static int64_t memory_limit(const struct subject *subject)
{
	return subject->memory_mib << 20;
}

static int64_t disk_limit(const struct subject *subject)
{
	return subject->disk_mib << 20;
}

static int64_t cpu_us(const struct subject *subject)
{
	return subject->host.cpu_us;
}

static int64_t memory_resident(const struct subject *subject)
{
	return subject->host.rss_bytes;
}

static int64_t disk_used(const struct subject *subject)
{
	return subject->disk_used_bytes;
}

static int64_t disk_read(const struct subject *subject)
{
	return subject->host.read_bytes;
}

static int64_t disk_written(const struct subject *subject)
{
	return subject->host.written_bytes;
}

/* Each of every machine; a value below 0 is none. */
static const struct {
	const char *name, *type, *help;
	int64_t (*value)(const struct subject *subject);
	bool in_us; /* and shown in seconds */
} families[] = {
	{"hull_machine_up", "gauge", "1 when it runs and its agent has answered.", is_up, false},
	{"hull_machine_restarts_total", "counter", "Starts by its restart policy.", restarts, false},
	{"hull_machine_cpus", "gauge", "Its virtual processors.", cpus, false},
	{"hull_machine_memory_limit_bytes", "gauge", "Its memory.", memory_limit, false},
	{"hull_machine_disk_limit_bytes", "gauge", "Size of its own disk.", disk_limit, false},
	{"hull_machine_disk_used_bytes", "gauge", "What its own disk has of the host's storage.", disk_used, false},
	{"hull_machine_cpu_seconds_total", "counter", "Processor time of its monitor, its virtual processors included, in this run.",
		cpu_us, true},
	{"hull_machine_memory_resident_bytes", "gauge", "The host's memory that its monitor has now, what the guest has touched included.",
		memory_resident, false},
	{"hull_machine_disk_read_bytes_total", "counter", "What its monitor has had read from the host's storage, in this run.", disk_read,
		false},
	{"hull_machine_disk_written_bytes_total", "counter", "What its monitor has had written to the host's storage, in this run.",
		disk_written, false},
};

/* Counters of what its monitor has counted, in this run. */
static const struct {
	const char *name, *help;
	size_t offset; /* in struct accounting */
} counters[] = {
	{"hull_machine_network_received_bytes_total", "What its guest has received by its network, in this run.",
		offsetof(struct accounting, net_received_bytes)},
	{"hull_machine_network_received_packets_total", "The same in packets.", offsetof(struct accounting, net_received_packets)},
	{"hull_machine_network_sent_bytes_total", "What its guest has sent by its network, in this run.",
		offsetof(struct accounting, net_sent_bytes)},
	{"hull_machine_network_sent_packets_total", "The same in packets.", offsetof(struct accounting, net_sent_packets)},
	{"hull_machine_disk_reads_total", "Requests by which its guest has read from its disks, in this run.",
		offsetof(struct accounting, disk_reads)},
	{"hull_machine_disk_writes_total", "Requests by which its guest has written to them.", offsetof(struct accounting, disk_writes)},
	{"hull_machine_disk_flushes_total", "Requests by which its guest has had them flushed.",
		offsetof(struct accounting, disk_flushes)},
};

static void write_counters(const struct metrics_machines *machines, FILE *out)
{
	for (size_t c = 0; c < ARRAY_SIZE(counters); c++) {
		metrics_family(out, counters[c].name, "counter", counters[c].help);
		for (size_t i = 0; i < machines->n; i++) {
			const struct subject *subject = &machines->subjects[i];
			const uint64_t *value = (const uint64_t *)((const char *)&subject->counted + counters[c].offset);

			if (subject->counts)
				fprintf(out, "%s{project=\"%s\",machine=\"%s\"} %" PRIu64 "\n", counters[c].name, subject->project,
					subject->name, *value);
		}
	}
}

/* Names have letters, digits and '-' only: no label needs escaping. */
static void write_sample(FILE *out, const char *name, const struct subject *subject, int64_t value, bool in_us)
{
	fprintf(out, "%s{project=\"%s\",machine=\"%s\"} ", name, subject->project, subject->name);
	if (in_us)
		fprintf(out, "%" PRId64 ".%06d\n", value / 1000000, (int)(value % 1000000));
	else
		fprintf(out, "%" PRId64 "\n", value);
}

void metrics_machines_write(struct metrics_machines *machines, FILE *out)
{
	for (size_t i = 0; i < machines->n; i++) {
		if (machines->subjects[i].monitor.pid) {
			ask_monitor(&machines->subjects[i]);
			read_counts(machines->run, &machines->subjects[i]);
		}
		ask_disk(machines->state, &machines->subjects[i]);
	}
	write_states(machines, out);
	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		metrics_family(out, families[f].name, families[f].type, families[f].help);
		for (size_t i = 0; i < machines->n; i++) {
			int64_t value = families[f].value(&machines->subjects[i]);

			if (value >= 0)
				write_sample(out, families[f].name, &machines->subjects[i], value, families[f].in_us);
		}
	}
	write_counters(machines, out);
}
