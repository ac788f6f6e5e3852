/* How far operations are: the phases that are over, of those that there will be, as its first phase and the machine's specification tell. What
 * comes in between unplanned (a workload that does not end in time, a health check that is new) counts for nothing; what begins anew (a
 * start, after a crash of hulld) does not go back. So two numbers in its record are enough, which are written with the phase. */
#include "api/progress.h"

#include "api/operation.h"

static const char *const unit_names[] = {[PROGRESS_PHASES] = "phases", [PROGRESS_MACHINES] = "machines", NULL};

static const struct json_field progress_fields[] = {
	{"done", JSON_FIELD_INT, offsetof(struct progress, done), .required = true, .max = INT64_MAX},
	{"total", JSON_FIELD_INT, offsetof(struct progress, total), .required = true, .max = INT64_MAX},
	{"unit", JSON_FIELD_ENUM, offsetof(struct progress, unit), .names = unit_names, .required = true},
};
const struct json_table progress_table = JSON_TABLE("Progress", struct progress, progress_fields);

#define BIT(phase) (INT64_C(1) << (phase))

/* One that is resumed has booted already. */
static int64_t plan_of_start(const struct machine *m, bool boots)
{
	int64_t plan = BIT(PHASE_MONITOR) | BIT(PHASE_AGENT) | (boots ? BIT(PHASE_KERNEL) : 0);

	if (network_kind(machine_running_spec(m)) != NETWORK_NONE)
		plan |= BIT(PHASE_NETWORK);
	return m->spec.health ? plan | BIT(PHASE_HEALTH) : plan;
}

static int64_t plan_of(const struct operation_record *record, const struct machine *m, int first)
{
	int64_t plan = BIT(first);

	if (first == PHASE_CONNECTIONS)
		plan |= BIT(PHASE_WORKLOAD);
	if (record->kind == OPERATION_DELETE)
		plan |= BIT(PHASE_PORTS);
	if (record->kind == OPERATION_START || record->kind == OPERATION_RESTART || record->kind == OPERATION_RESUME)
		plan |= plan_of_start(m, record->kind != OPERATION_RESUME);
	if (record->kind == OPERATION_SUSPEND)
		plan |= BIT(PHASE_HOOK) | BIT(PHASE_SAVE);
	return plan;
}

void operation_progress_enter(struct operation_record *record, const struct machine *m, int phase)
{
	if (!record->plan)
		record->plan = plan_of(record, m, phase);
	if (phase > record->reached)
		record->reached = phase;
}

bool operation_progress(const struct operation_record *record, struct progress *ret)
{
	int64_t over = record->state == OPERATION_SUCCEEDED ? record->plan : record->plan & (BIT(record->reached) - 1);

	*ret = (struct progress){__builtin_popcountll((uint64_t)over), __builtin_popcountll((uint64_t)record->plan), PROGRESS_PHASES};
	return record->plan;
}
