/* What a machine uses, seen from the host (Linux, Documentation/filesystems/proc.rst) and from inside (the order `stats`).
 *
 * The host's numbers are read when the machine has answered, or has not: both are of one moment. */
#include "api/stats.h"

#include "api/host_stats.h"
#include "api/hulld.h"
#include "api/machine.h"
#include "api/machine_http.h"
#include "api/order_call.h"
#include "common/buf.h"

#include <stdlib.h>

#define TIMEOUT_MS 2000 /* of an agent that listens; one that does not is left as order_call() says */
#define TEXT_MAX   16384

#define NUMBER(name_, help_) \
	{#name_, JSON_FIELD_INT, offsetof(struct host_stats, name_), .sparse = true, .def = -1, .max = INT64_MAX, .help = (help_)}

static const struct json_field host_fields[] = {
	NUMBER(cpu_us, "Processor time of the monitor, its virtual processors included."),
	NUMBER(threads, "Threads of the monitor."),
	NUMBER(rss_bytes, "Memory of the monitor, the guest's included."),
	NUMBER(pss_bytes, "As rss_bytes, but its share only of pages that other processes map too."),
	NUMBER(read_bytes, "What the monitor has had read from the host's storage."),
	NUMBER(written_bytes, "What the monitor has had written to the host's storage."),
};
static const struct json_table host_table = JSON_TABLE("HostStats", struct host_stats, host_fields);

#define AT(name_) offsetof(struct machine_stats, name_)

static const struct json_field fields[] = {
	{"id", JSON_FIELD_STRING, AT(id)},
	{"name", JSON_FIELD_STRING, AT(name)},
	{"state", JSON_FIELD_ENUM, AT(state), .names = machine_state_names},
	{"at_unix_ms", JSON_FIELD_INT, AT(at_unix_ms), .max = INT64_MAX, .help = "When this was, by the host's clock."},
	{"cpus", JSON_FIELD_INT, AT(cpus), .max = INT64_MAX},
	{"memory_limit_bytes", JSON_FIELD_INT, AT(memory_limit_bytes), .max = INT64_MAX},
	{"host", JSON_FIELD_OBJECT, AT(host), .table = &host_table},
	{"guest", JSON_FIELD_OPTIONAL, AT(guest), .table = &guest_stats_table,
		.help = "What the machine says of itself: its own word. Absent when it does not answer in time."},
	{"guest_reason", JSON_FIELD_STRING, AT(guest_reason), .help = "Why `guest` is absent."},
};
const struct json_table machine_stats_table = JSON_TABLE("MachineStats", struct machine_stats, fields);

/* ---- the host's part ---- */

static void read_host(const struct machine *m, struct host_stats *ret)
{
	static const struct {
		const char *file;
		void (*parse)(const char *text, struct host_stats *ret);
	} files[] = {{"stat", host_stats_parse_stat}, {"smaps_rollup", host_stats_parse_rollup}, {"io", host_stats_parse_io}};

	*ret = (struct host_stats){-1, -1, -1, -1, -1, -1};
	if (!m->monitor) /* and its pid may be another's */
		return;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct buf text;
		char path[64];

		snprintf(path, sizeof(path), "/proc/%d/%s", (int)m->record.monitor.pid, files[i].file);
		buf_init(&text, TEXT_MAX);
		if (buf_read_file(&text, path) == 0 && buf_append(&text, "", 1) == 0)
			files[i].parse(text.data, ret);
		buf_done(&text);
	}
}

/* ---- a request ---- */

/* The machine may be gone when the answer comes: it is found again by its id. */
struct asking {
	struct hulld *hulld;
	struct request *req;
	struct order_call *call;
	char id[MACHINE_ID_BYTES + 1];
};

static void reply(struct request *req, const struct machine *m, struct guest_stats *guest, const char *reason)
{
	struct machine_stats stats = {
		.id = (char *)m->record.id,
		.name = (char *)m->record.name,
		.state = m->record.state,
		.at_unix_ms = now_ms(),
		.cpus = machine_running_spec(m)->cpus,
		.memory_limit_bytes = machine_running_spec(m)->memory_mib << 20,
		.guest = guest,
		.guest_reason = guest ? NULL : (char *)reason,
	};

	read_host(m, &stats.host);
	request_reply(req, 200, json_dump(&machine_stats_table, &stats));
}

static void on_gone(void *ctx)
{
	struct asking *asking = ctx;

	order_cancel(asking->call);
	free(asking);
}

static void on_answer(void *ctx, const struct order_answer *answer, const struct error *err)
{
	struct asking *asking = ctx;
	struct machine *m = machine_by_id(asking->hulld, asking->id);

	if (!m)
		request_refuse_with(asking->req, PROBLEM_NOT_FOUND, NULL, "machine %s has been deleted", asking->id);
	else
		reply(asking->req, m, answer ? answer->stats : NULL, err ? err->message : "its agent makes no sense");
	free(asking);
}

void stats_http_get(struct request *req, void *ctx)
{
	struct hulld *hulld = ctx;
	struct machine *m = machine_http_find(hulld, req);
	const struct order order = {.verb = ORDER_STATS};
	struct asking *asking;
	char vsock[512];

	if (!m)
		return;
	if (!m->up || !machine_is_active(m)) {
		if (machine_is_active(m))
			reply(req, m, NULL, "its agent is not up yet");
		else
			machine_http_require_running(m, req);
		return;
	}
	asking = calloc(1, sizeof(*asking));
	if (!asking)
		abort();
	*asking = (struct asking){.hulld = hulld, .req = req};
	snprintf(asking->id, sizeof(asking->id), "%s", m->record.id);
	request_on_gone(req, on_gone, asking);
	asking->call = order_call(
		hulld->loop, machine_run_path(m, "vsock.sock", vsock, sizeof(vsock)), &order, TIMEOUT_MS, on_answer, asking);
}
