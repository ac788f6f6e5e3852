#include "api/host.h"

#include "api/folders.h"
#include "api/host_drain.h"
#include "api/networks.h"
#include "api/process.h"
#include "api/progress.h"
#include "api/project.h"
#include "common/cleanup.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>

#define DRAIN_TIMEOUT_S 60

/* Documentation/virt/kvm/api.rst, 4.1 KVM_GET_API_VERSION; <linux/kvm.h> is for vmm/ only. */
#define KVM_VERSION_REQUEST _IO(0xae, 0)
#define KVM_VERSION	    12

struct capabilities {
	bool kvm, network, folders;
};

struct networks_view {
	bool available;
	char *reason;
};

struct host_view {
	char *version;
	int state; /* enum host_state */
	char *drain_since, *drain_until;
	struct progress *progress;
	int64_t cpus, memory_mib, memory_limit_mib, disk_mib, disk_free_mib;
	struct usage allocated, running;
	int64_t held;
	struct capabilities capabilities;
	struct networks_view networks;
};

static const struct json_field capabilities_fields[] = {
	{"kvm", JSON_FIELD_BOOL, offsetof(struct capabilities, kvm), .read_only = true, .help = "hulld may use /dev/kvm, and that is KVM."},
	{"network", JSON_FIELD_BOOL, offsetof(struct capabilities, network), .read_only = true,
		.help = "Machines may have the network default: passt is installed."},
	{"folders", JSON_FIELD_BOOL, offsetof(struct capabilities, folders), .read_only = true,
		.help = "Machines may see folders of the host, where they are allowed: virtiofsd is installed, and hulld root, or newuidmap there for it."},
};
static const struct json_table capabilities_table = JSON_TABLE("Capabilities", struct capabilities, capabilities_fields);

static const struct json_field networks_fields[] = {
	{"available", JSON_FIELD_BOOL, offsetof(struct networks_view, available), .read_only = true, .help = "Projects may have networks."},
	{"reason", JSON_FIELD_STRING, offsetof(struct networks_view, reason), .read_only = true, .nullable = true, .help = "Why they may not."},
};
static const struct json_table networks_view_table = JSON_TABLE("HostNetworks", struct networks_view, networks_fields);

#define NUMBER(name_, help_, ...) \
	{#name_, JSON_FIELD_INT, offsetof(struct host_view, name_), .read_only = true, .max = INT64_MAX, .help = (help_), __VA_ARGS__}
static const struct json_field host_fields[] = {
	{"version", JSON_FIELD_STRING, offsetof(struct host_view, version), .read_only = true},
	{"state", JSON_FIELD_ENUM, offsetof(struct host_view, state), .names = host_state_names, .read_only = true,
		.help = "serving; draining: machines end, and none starts; drained: none runs."},
	{"drain_since", JSON_FIELD_STRING, offsetof(struct host_view, drain_since), .read_only = true, .nullable = true},
	{"drain_until", JSON_FIELD_STRING, offsetof(struct host_view, drain_until), .read_only = true, .nullable = true,
		.help = "When machines that still run are killed."},
	{"progress", JSON_FIELD_OPTIONAL, offsetof(struct host_view, progress), .table = &progress_table, .read_only = true, .nullable = true,
		.help = "Of its drain: machines that have ended, of those that ran when it began."},
	NUMBER(cpus, "Processors."),
	NUMBER(memory_mib, "Memory."),
	NUMBER(memory_limit_mib, "What machines that run may have of it together, as they were made; -1: no limit.", .min = -1),
	NUMBER(disk_mib, "Size of the file system that holds images and machines' disks."),
	NUMBER(disk_free_mib, "What of that is free."),
	{"allocated", JSON_FIELD_OBJECT, offsetof(struct host_view, allocated), .table = &usage_table, .read_only = true,
		.help = "What all machines, and volumes, of all projects, were made with, whether they run or not."},
	{"running", JSON_FIELD_OBJECT, offsetof(struct host_view, running), .table = &usage_table, .read_only = true,
		.help = "Of these, those that run, start or stop."},
	NUMBER(held, "Machines that do not run, and start by themselves once they may."),
	{"capabilities", JSON_FIELD_OBJECT, offsetof(struct host_view, capabilities), .table = &capabilities_table, .read_only = true},
	{"networks", JSON_FIELD_OBJECT, offsetof(struct host_view, networks), .table = &networks_view_table, .read_only = true},
};
const struct json_table host_table = JSON_TABLE("Host", struct host_view, host_fields);

struct drain_request {
	int64_t timeout_s;
};

static const struct json_field drain_request_fields[] = {
	{"timeout_s", JSON_FIELD_INT, offsetof(struct drain_request, timeout_s), .def = DRAIN_TIMEOUT_S, .max = 86400,
		.help = "Seconds until machines that still run are killed."},
};
const struct json_table drain_request_table = JSON_TABLE("DrainRequest", struct drain_request, drain_request_fields);

/* -1: none. */
static int64_t memory_limit_mib(const struct hulld *hulld)
{
	uint64_t percent = hulld->options.memory_overcommit_percent;

	return percent ? (int64_t)(hulld->host_memory_mib * percent / 100) : -1;
}

int host_check_memory(const struct machine *m, struct problem *problem)
{
	int64_t limit_mib = memory_limit_mib(m->hulld), own_mib = machine_running_spec(m)->memory_mib, sum_mib = own_mib;

	if (limit_mib < 0)
		return 0;
	for (const struct machine *other = m->hulld->machines; other; other = other->next)
		if (other != m && machine_is_active(other))
			sum_mib += machine_running_spec(other)->memory_mib;
	if (sum_mib <= limit_mib)
		return 0;
	problem_set(problem, PROBLEM_INSUFFICIENT_MEMORY, "memory_mib", "%lld MiB are more than this host has left for machines",
		(long long)own_mib);
	return problem_set_hint(problem, "stop what need not run, or have hulld's --memory-overcommit raised");
}

static int64_t count_held(const struct hulld *hulld)
{
	int64_t n = 0;

	for (const struct machine *m = hulld->machines; m; m = m->next)
		n += machine_restarts(m) && !machine_is_active(m);
	return n;
}

static void look_at_disk(const char *folder, struct host_view *ret)
{
	struct statvfs fs;

	if (statvfs(folder, &fs) < 0)
		return;
	ret->disk_mib = (int64_t)((uint64_t)fs.f_blocks * fs.f_frsize >> 20);
	ret->disk_free_mib = (int64_t)((uint64_t)fs.f_bavail * fs.f_frsize >> 20);
}

static struct progress drain_progress(const struct host_record *record, const struct usage *running)
{
	int64_t left = running->used[QUOTA_MACHINES], total = record->drain_machines;

	return (struct progress){left < total ? total - left : 0, total, PROGRESS_MACHINES};
}

/* Who may open the device may still have none that works, or something else by that name. */
static bool has_kvm(void)
{
	cleanup_close int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	return fd >= 0 && ioctl(fd, KVM_VERSION_REQUEST) == KVM_VERSION;
}

static void reply_host(struct request *req, const struct hulld *hulld)
{
	const struct host_record *record = host_drain_record(hulld);
	cleanup_free char *since = format_time(record->drain_since), *until = format_time(record->drain_until);
	struct progress progress;
	struct problem problem;
	char program[256];
	int64_t volumes_mib;
	struct error err;
	struct host_view view = {
		.version = (char *)HULL_VERSION,
		.state = record->state,
		.drain_since = since,
		.drain_until = until,
		.cpus = sysconf(_SC_NPROCESSORS_ONLN),
		.memory_mib = (int64_t)hulld->host_memory_mib,
		.memory_limit_mib = memory_limit_mib(hulld),
		.held = count_held(hulld),
		.capabilities = {has_kvm(), find_program("passt", program, sizeof(program)) == 0, !folders_why_not(hulld)},
	};

	view.networks.available = networks_check_host(hulld, &problem) == 0;
	if (!view.networks.available)
		view.networks.reason = problem.error.message;
	look_at_disk(hulld->options.state, &view);
	machines_usage(hulld, &view.allocated, &view.running);
	volumes_mib = store_volumes_mib(hulld->store, NULL, &err);
	if (volumes_mib < 0) {
		request_refuse_error(req, &err);
		return;
	}
	view.allocated.used[QUOTA_DISK_MIB] += volumes_mib;
	progress = drain_progress(record, &view.running);
	if (record->state != HOST_SERVING)
		view.progress = &progress;
	request_reply(req, 200, json_dump(&host_table, &view));
}

void host_http_get(struct request *req, void *ctx)
{
	reply_host(req, ctx);
}

void host_http_drain(struct request *req, void *ctx)
{
	struct drain_request request;
	struct problem problem;

	if (request_read(req, &drain_request_table, &request) < 0)
		return;
	if (host_drain_begin(ctx, request.timeout_s, &problem) < 0)
		request_refuse(req, &problem);
	else
		reply_host(req, ctx);
}

void host_http_undrain(struct request *req, void *ctx)
{
	struct problem problem;

	if (host_drain_undo(ctx, &problem) < 0)
		request_refuse(req, &problem);
	else
		reply_host(req, ctx);
}
