/* What projects use, and may use. */
#include "api/project.h"

#include "api/machine.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static const struct {
	const char *name, *field; /* of MachineSpec; NULL: none */
} quotas[] = {
	[QUOTA_MACHINES] = {"machines", NULL},
	[QUOTA_VCPUS] = {"vcpus", "cpus"},
	[QUOTA_MEMORY_MIB] = {"memory_mib", "memory_mib"},
	[QUOTA_DISK_MIB] = {"disk_mib", "disk_mib"},
	[QUOTA_PORTS] = {"ports", "ports"},
};
static_assert(ARRAY_SIZE(quotas) == N_QUOTAS, "every quota has its row");

#define LIMIT(name_, quota_, help_)                                                                           \
	{name_, JSON_FIELD_INT, offsetof(struct quotas, limits) + (quota_) * sizeof(int64_t), .def = -1, .min = -1,   \
		.max = QUOTA_MAX, .help = help_ " -1, or absent: no limit."}
#define QUOTA_MAX (1ll << 40)
#define QUOTA_HOSTNAMES_MAX 64
#define ROWS_MAX 1000 /* of what only takes room in the database */

static const struct json_field quotas_fields[] = {
	LIMIT("machines", QUOTA_MACHINES, "Machines, whether they run or not."),
	LIMIT("vcpus", QUOTA_VCPUS, "Virtual processors of all of them."),
	LIMIT("memory_mib", QUOTA_MEMORY_MIB, "Their memory."),
	LIMIT("disk_mib", QUOTA_DISK_MIB, "Their disks, volumes, and what was uploaded for images."),
	LIMIT("ports", QUOTA_PORTS, "Ports published on the host, and host names."),
	{"hostnames", JSON_FIELD_STRINGS, offsetof(struct quotas, hostnames), .max = QUOTA_HOSTNAMES_MAX, .check = dns_name_check,
		.pattern = DNS_NAME_PATTERN, .sparse = true,
		.help = "Domains: what its machines are served by is one of these, or below one. When absent, PROJECT.localhost; any, for the "
			"project default."},
};
const struct json_table quotas_table = JSON_TABLE("Quotas", struct quotas, quotas_fields);

static void add_spec(struct usage *usage, const struct machine_spec *spec)
{
	usage->used[QUOTA_MACHINES]++;
	usage->used[QUOTA_VCPUS] += spec->cpus;
	usage->used[QUOTA_MEMORY_MIB] += spec->memory_mib;
	usage->used[QUOTA_DISK_MIB] += spec->disk_mib;
	usage->used[QUOTA_PORTS] += (int64_t)spec->ports.len;
}

/* Its memory takes room on the disk. One that is saved anew gives back within moments what it goes on from: that is not counted twice. */
static bool is_saved(const struct machine *m)
{
	return m->restored || m->record.state == MACHINE_SUSPENDING || m->record.state == MACHINE_SUSPENDED || m->record.state == MACHINE_RESUMING;
}

/* One that is to become smaller is as large as it was until it has stopped. */
static void add_machine(struct usage *usage, const struct machine *m)
{
	struct usage wanted = {0}, running = {0};

	add_spec(&wanted, &m->spec);
	add_spec(&running, machine_running_spec(m));
	for (size_t i = 0; i < N_QUOTAS; i++)
		usage->used[i] += wanted.used[i] > running.used[i] || i == QUOTA_PORTS ? wanted.used[i] : running.used[i];
	if (is_saved(m))
		usage->used[QUOTA_DISK_MIB] += running.used[QUOTA_MEMORY_MIB];
}

static int64_t to_mib(int64_t bytes)
{
	return (bytes >> 20) + ((bytes & 0xfffff) != 0);
}

int project_usage(struct hulld *hulld, const char *project, struct usage *ret, struct error *err)
{
	int64_t blobs = store_blob_bytes(hulld->store, project, err);
	int64_t volumes_mib = blobs < 0 ? blobs : store_volumes_mib(hulld->store, project, err);

	if (volumes_mib < 0)
		return (int)volumes_mib;
	*ret = (struct usage){.used[QUOTA_DISK_MIB] = to_mib(blobs) + volumes_mib};
	for (const struct machine *m = hulld->machines; m; m = m->next)
		if (strcmp(m->record.project, project) == 0)
			add_machine(ret, m);
	return 0;
}

void machines_usage(const struct hulld *hulld, struct usage *ret_all, struct usage *ret_active)
{
	*ret_all = *ret_active = (struct usage){0};
	for (const struct machine *m = hulld->machines; m; m = m->next) {
		add_machine(ret_all, m);
		if (machine_is_active(m))
			add_machine(ret_active, m);
	}
}

int quotas_parse(const char *text, struct quotas *ret, struct error *err)
{
	json_t *parsed = json_parse(text, strlen(text), err);
	int r = parsed ? json_read(&quotas_table, parsed, ret, err) : -EINVAL;

	json_decref(parsed);
	if (r < 0)
		error_set(err, EIO, "the quotas of a project are damaged in the database");
	return r < 0 ? -EIO : 0;
}

/* Does what is used, and `more` of it, fit? Where nothing more is asked for, nothing is refused. */
static int check(const int64_t *limits, const struct usage *usage, const struct usage *more, const char *project,
	struct problem *problem)
{
	for (size_t i = 0; i < N_QUOTAS; i++) {
		long long limit = limits[i], used = usage->used[i], asked = more->used[i];

		if (limit < 0 || !asked || used + asked <= limit)
			continue;
		problem_set(problem, PROBLEM_QUOTA_EXCEEDED, quotas[i].field,
			"quota %s of project %s: %lld of %lld are used, and %lld would be added", quotas[i].name, project, used,
			limit, asked);
		return problem_set_hint(problem, "delete what is not needed, or have the quota raised");
	}
	return 0;
}

static bool is_limited(const int64_t *limits)
{
	for (size_t i = 0; i < N_QUOTAS; i++)
		if (limits[i] >= 0)
			return true;
	return false;
}

static int read_quotas(struct hulld *hulld, const char *project, struct quotas *ret, struct error *err)
{
	struct project_record record;
	int r = store_project_get(hulld->store, project, &record, err);

	if (r == 0) {
		r = quotas_parse(record.quotas, ret, err);
		project_record_done(&record);
	}
	return r;
}

/* `usage` is left empty where there is no limit to it: adding it up takes a look at each machine of the host. */
static int read_project(struct hulld *hulld, const char *project, int64_t *limits, struct usage *usage, struct problem *problem)
{
	struct quotas quotas_of;
	struct error err;
	int r = read_quotas(hulld, project, &quotas_of, &err);

	if (r == 0) {
		memcpy(limits, quotas_of.limits, sizeof(quotas_of.limits));
		json_done(&quotas_table, &quotas_of);
		*usage = (struct usage){0};
		if (is_limited(limits))
			r = project_usage(hulld, project, usage, &err);
	}
	return r < 0 ? problem_from_error(problem, &err) : 0;
}

int quota_check_machine(struct hulld *hulld, const char *project, const struct machine *changed, const struct machine_spec *spec,
	struct problem *problem)
{
	struct usage usage, more = {0}, less = {0};
	int64_t limits[N_QUOTAS];
	int r = read_project(hulld, project, limits, &usage, problem);

	add_spec(&more, spec);
	if (changed)
		add_machine(&less, changed);
	for (size_t i = 0; i < N_QUOTAS; i++)
		more.used[i] = more.used[i] > less.used[i] ? more.used[i] - less.used[i] : 0;
	return r < 0 ? r : check(limits, &usage, &more, project, problem);
}

int quota_check_start(struct hulld *hulld, const char *project, struct problem *problem)
{
	struct usage usage, none = {0};
	int64_t limits[N_QUOTAS];
	int r = read_project(hulld, project, limits, &usage, problem);

	/* What it has is looked at as if it were asked for. */
	return r < 0 ? r : check(limits, &none, &usage, project, problem);
}

int quota_check_blob(struct hulld *hulld, const char *project, int64_t size_bytes, struct problem *problem)
{
	struct usage usage, more = {.used[QUOTA_DISK_MIB] = to_mib(size_bytes)};
	int64_t limits[N_QUOTAS];
	int r = read_project(hulld, project, limits, &usage, problem);

	return r < 0 ? r : check(limits, &usage, &more, project, problem);
}

int quota_check_volume(struct hulld *hulld, const char *project, int64_t more_mib, struct problem *problem)
{
	struct usage usage, more = {.used[QUOTA_DISK_MIB] = more_mib};
	int64_t limits[N_QUOTAS];
	int r = read_project(hulld, project, limits, &usage, problem);

	if (r == 0)
		r = check(limits, &usage, &more, project, problem);
	if (r < 0 && problem->code == PROBLEM_QUOTA_EXCEEDED)
		snprintf(problem->error.field, sizeof(problem->error.field), "size_mib");
	return r;
}

int quota_check_save(const struct machine *m, struct problem *problem)
{
	struct usage usage, more = {.used[QUOTA_DISK_MIB] = is_saved(m) ? 0 : machine_running_spec(m)->memory_mib};
	int64_t limits[N_QUOTAS];
	int r = read_project(m->hulld, m->record.project, limits, &usage, problem);

	if (r == 0)
		r = check(limits, &usage, &more, m->record.project, problem);
	if (r < 0 && problem->code == PROBLEM_QUOTA_EXCEEDED)
		snprintf(problem->error.field, sizeof(problem->error.field), "memory_mib");
	return r;
}

int quota_check_row(struct hulld *hulld, const char *project, enum store_kind kind, struct problem *problem)
{
	static const char *const names[STORE_N_KINDS] = {
		[STORE_CERTIFICATES] = "certificates", [STORE_IMAGES] = "images", [STORE_SECRETS] = "secrets",
		[STORE_VOLUMES] = "volumes"};
	struct error err;
	int64_t n = store_count(hulld->store, kind, project, &err);

	if (n < 0)
		return problem_from_error(problem, &err);
	if (n < ROWS_MAX)
		return 0;
	problem_set(problem, PROBLEM_QUOTA_EXCEEDED, NULL, "a project may have %d %s", ROWS_MAX, names[kind]);
	return problem_set_hint(problem, "delete what is not needed");
}

/* Nobody else's name is below a project's own, and nobody takes one that others might rely on, unless the host's administrator says so. */
static bool may_have(const struct quotas *limits, const char *project, const char *hostname)
{
	char domain[NAME_MAX_BYTES + sizeof(".localhost")];

	for (size_t i = 0; i < limits->hostnames.len; i++)
		if (dns_name_is_within(hostname, limits->hostnames.items[i]))
			return true;
	snprintf(domain, sizeof(domain), "%s.localhost", project);
	return !limits->hostnames.len && (strcmp(project, PROJECT_DEFAULT) == 0 || dns_name_is_within(hostname, domain));
}

int quota_check_hostname(struct hulld *hulld, const char *project, const char *hostname, const char *field, struct problem *problem)
{
	struct quotas limits;
	struct error err;
	bool may;

	if (read_quotas(hulld, project, &limits, &err) < 0)
		return problem_from_error(problem, &err);
	may = may_have(&limits, project, hostname);
	problem_set(problem, PROBLEM_QUOTA_EXCEEDED, field, "quota hostnames of project %s does not have %.100s", project, hostname);
	if (limits.hostnames.len)
		problem_set_hint(problem, "choose one below %.100s", limits.hostnames.items[0]);
	else
		problem_set_hint(problem, "choose one below %s.localhost, or have the quota set", project);
	json_done(&quotas_table, &limits);
	return may ? 0 : -ECANCELED;
}

int quota_check_share(const char *project, size_t own, size_t all, size_t max, const char *verb, const char *what, struct problem *problem)
{
	if (strcmp(project, PROJECT_DEFAULT) == 0)
		own = 0;
	if (own + all <= max)
		return 0;
	problem_set(problem, PROBLEM_QUOTA_EXCEEDED, "ports", "this host %s %zu %s, and a project has at most as many as it leaves to others",
		verb, max, what);
	return problem_set_hint(problem, "delete what is not needed");
}
