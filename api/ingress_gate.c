/* What becomes of who comes to a machine's ports. See ingress_client.h, and docs/interfaces.md, "hull-ingress". */
#include "api/ingress_client.h"

#include "api/health.h"
#include "api/idle.h"
#include "api/ingress/words.h"
#include "api/machine.h"

/* It has ended, or is suspended, and will not be there but by a start that nobody has asked for yet. */
static bool stays_away(const struct machine *m)
{
	switch (m->record.state) {
	case MACHINE_SUSPENDED:
	case MACHINE_STOPPED:
	case MACHINE_FAILED:
		return m->deleting || !(machine_restarts(m) || m->record.restart_wanted);
	default:
		return false;
	}
}

int ingress_gate_of(const struct machine *m)
{
	if (m->record.asleep && !m->deleting)
		return idle_backs_off(m) ? GATE_CLOSED : GATE_WAKE;
	if (m->record.state == MACHINE_SUSPENDING || m->record.state == MACHINE_RESUMING)
		return GATE_WAIT;
	if (m->record.state == MACHINE_STOPPING)
		return m->record.restart_wanted && !m->deleting ? GATE_WAIT : GATE_CLOSED;
	if (stays_away(m))
		return GATE_CLOSED;
	if (!m->spec.health || health_state(m) == HEALTH_HEALTHY)
		return GATE_OPEN;
	return health_state(m) == HEALTH_UNHEALTHY ? GATE_CLOSED : GATE_WAIT;
}
