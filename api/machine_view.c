/* What a client sees of a machine. */
#include "api/machine.h"

#include "api/health.h"
#include "api/idle.h"
#include "api/networks.h"
#include "api/operation.h"
#include "api/start_order.h"
#include "common/cleanup.h"

json_t *machine_dump(const struct machine *m)
{
	const struct machine_record *record = &m->record;
	struct machine_cause cause = {(char *)record->cause_code, (char *)record->cause_message};
	cleanup_free char *created = format_time(record->created_at);
	cleanup_free char *started = format_time(record->started_at);
	cleanup_free char *stopped = format_time(record->stopped_at);
	cleanup_free char *healthy_since = NULL;
	char address[ADDRESS_TEXT_BYTES];
	char *pending[MACHINE_PENDING_MAX], *waiting_for[DEPENDS_ON_MAX];
	const struct operation_record *operation = operation_current(m);
	struct health_view health;
	struct machine_view view = {
		.spec = m->spec,
		.id = (char *)record->id,
		.project = (char *)record->project,
		.state = record->state,
		.asleep = idle_sleeps(m),
		.rootfs = (char *)record->rootfs,
		.frozen = m->frozen,
		.cause = record->cause_code[0] ? &cause : NULL,
		.exit_status = record->exit_status >= 0 ? json_integer(record->exit_status) : NULL,
		.pid = record->monitor.pid > 0 ? json_integer(record->monitor.pid) : NULL,
		.pending = {pending, machine_pending(m, (const char **)pending)},
		.waiting_for = {waiting_for, start_order_waits_for(m, waiting_for)},
		.restarts = record->restarts,
		.created_at = created,
		.started_at = started,
		.stopped_at = stopped,
		.address = machine_address(m) ? address_format(machine_address(m), address) : NULL,
		.operation = operation ? (char *)operation->id : NULL,
	};
	json_t *dumped;

	if (m->spec.health) {
		int64_t since_ms;

		health_view(m, &health, &since_ms);
		health.since = healthy_since = format_time(since_ms);
		view.health = &health;
	}
	dumped = json_dump(&machine_table, &view);
	json_decref(view.exit_status);
	json_decref(view.pid);
	return dumped;
}
