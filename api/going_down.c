/* The host's end, as hulld sees it: machines end in good order first, what serves them next, hulld last. */
#include "api/host_drain.h"
#include "api/hostnames.h"
#include "api/ingress_client.h"
#include "api/machine.h"
#include "common/log.h"

#define STOP_TIMEOUT_S 30 /* of all: kvmhost, and a system that shuts down, wait longer than that */

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

void machines_go_down(struct hulld *hulld)
{
	if (hulld->going_down)
		return;
	hulld->going_down = true;
	host_drain_for_good(hulld, STOP_TIMEOUT_S, on_all_ended, hulld);
}
