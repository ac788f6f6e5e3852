/* The host's end, as hulld sees it: machines end in good order first, what serves them next, hulld last. */
#include "api/hostnames.h"
#include "api/ingress_client.h"
#include "api/machine.h"
#include "api/operation.h"
#include "common/log.h"

#define STOP_TIMEOUT_S 30 /* of each machine: kvmhost, and a system that shuts down, wait longer than that */

static void on_ingress_answer(void *ctx, const json_t *answer, const struct error *err)
{
	struct hulld *hulld = ctx;

	(void)answer;
	if (err)
		log_warn("hull-ingress: %s", err->message);
	loop_stop(hulld->loop);
}

static void on_all_ended(void *ctx)
{
	struct hulld *hulld = ctx;

	hostnames_end(hulld->hostnames);
	if (!ingress_shut_down(hulld->ingress, on_ingress_answer, hulld))
		loop_stop(hulld->loop);
}

void going_down_look(struct hulld *hulld)
{
	if (!hulld->going_down)
		return;
	for (const struct machine *m = hulld->machines; m; m = m->next)
		if (machine_is_active(m))
			return;
	loop_post(hulld->loop, on_all_ended, hulld); /* whoever calls still works on the last of them */
}

void machines_go_down(struct hulld *hulld)
{
	struct problem problem;

	if (hulld->going_down)
		return;
	hulld->going_down = true;
	for (struct machine *m = hulld->machines; m; m = m->next) {
		bool again = m->record.state == MACHINE_STOPPING ? m->record.restart_wanted
								 : m->spec.restart.policy == RESTART_ALWAYS;

		/* One that is being deleted has been killed already. */
		if (machine_is_active(m) && !m->deleting && machine_stop(m, STOP_TIMEOUT_S, again, REQUESTED_BY_HULLD, &problem) < 0)
			log_error_object(&problem.error, m->record.name);
	}
	going_down_look(hulld);
}
