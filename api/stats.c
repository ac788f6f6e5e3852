/* What a machine uses, seen from the host (Linux, Documentation/filesystems/proc.rst) and from inside (the order `stats`).
 *
 * The host's numbers are read when the machine has answered, or has not: both are of one moment. What the client waits for
 * is, in this order, `call` and `reading`. */
#include "api/stats.h"

#include "api/host_reader.h"
#include "api/hulld.h"
#include "api/machine.h"
#include "api/machine_http.h"
#include "api/order_call.h"

#include <stdlib.h>

#define TIMEOUT_MS 2000 /* of an agent that listens; one that does not is left as order_call() says */

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

/* ---- a request ---- */

/* The machine may be gone when the answer comes: it is found again by its id. */
struct asking {
	struct hulld *hulld;
	struct request *req;
	struct order_call *call;
	json_t *body; /* once the machine has answered: all but `host` */
	struct host_reading *reading;
	char id[MACHINE_ID_BYTES + 1];
};

static void on_gone(void *ctx)
{
	struct asking *asking = ctx;

	order_cancel(asking->call);
	host_reading_cancel(asking->reading);
	json_decref(asking->body);
	free(asking);
}

static void on_host(void *ctx, const struct host_stats *stats)
{
	struct asking *asking = ctx;

	if (stats)
		json_object_set_new(asking->body, "host", json_dump(&host_table, stats));
	request_reply(asking->req, 200, asking->body);
	free(asking);
}

/* All is of one moment, but for the time that the host's numbers take. */
static void ask_host(struct asking *asking, const struct machine *m, struct guest_stats *guest, const char *reason)
{
	struct machine_stats stats = {
		.id = (char *)m->record.id,
		.name = (char *)m->record.name,
		.state = m->record.state,
		.at_unix_ms = now_ms(),
		.cpus = machine_running_spec(m)->cpus,
		.memory_limit_bytes = machine_running_spec(m)->memory_mib << 20,
		.host = {-1, -1, -1, -1, -1, -1},
		.guest = guest,
		.guest_reason = guest ? NULL : (char *)reason,
	};

	asking->body = json_dump(&machine_stats_table, &stats);
	if (m->monitor)
		asking->reading = host_reader_read(asking->hulld->host_reader, m->record.monitor.pid, on_host, asking);
	else /* and its pid may be another's */
		on_host(asking, NULL);
}

static void on_answer(void *ctx, const struct order_answer *answer, const struct error *err)
{
	struct asking *asking = ctx;
	struct machine *m = machine_by_id(asking->hulld, asking->id);

	asking->call = NULL;
	if (m) {
		ask_host(asking, m, answer ? answer->stats : NULL, err ? err->message : "its agent makes no sense");
		return;
	}
	request_refuse_with(asking->req, PROBLEM_NOT_FOUND, NULL, "machine %s has been deleted", asking->id);
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
	if (!machine_is_active(m)) {
		machine_http_require_running(m, req);
		return;
	}
	asking = calloc(1, sizeof(*asking));
	if (!asking)
		abort();
	*asking = (struct asking){.hulld = hulld, .req = req};
	snprintf(asking->id, sizeof(asking->id), "%s", m->record.id);
	request_on_gone(req, on_gone, asking);
	if (m->up)
		asking->call = order_call(hulld->loop, machine_run_path(m, "vsock.sock", vsock, sizeof(vsock)), &order,
			TIMEOUT_MS, on_answer, asking);
	else
		ask_host(asking, m, NULL, "its agent is not up yet");
}
