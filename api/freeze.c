/* Freezing machines' programs, and thawing them, over HTTP. A client that leaves before the answer has it undone, unless it is
 * done already: the machine is asked. */
#include "api/freeze.h"

#include "api/clock.h"
#include "api/events.h"
#include "api/hulld.h"
#include "api/machine.h"
#include "api/machine_http.h"
#include "api/order_call.h"

#include <errno.h>
#include <stdlib.h>

#define TIMEOUT_MS 10000

/* The machine may be gone when the answer comes: it is found again by its id. */
struct freezing {
	struct hulld *hulld;
	struct request *req;
	struct order_call *call;
	char id[MACHINE_ID_BYTES + 1], name[NAME_MAX_BYTES + 1];
};

static void on_gone(void *ctx)
{
	struct freezing *freezing = ctx;

	struct machine *m = machine_by_id(freezing->hulld, freezing->id);

	order_cancel(freezing->call);
	if (m && m->record.state == MACHINE_RUNNING)
		clock_step(m);
	free(freezing);
}

static void on_answer(void *ctx, const struct order_answer *answer, const struct error *err)
{
	struct freezing *freezing = ctx;
	struct machine *m = machine_by_id(freezing->hulld, freezing->id);

	if (answer && m && m->record.state != MACHINE_RUNNING) {
		request_refuse_with(freezing->req, PROBLEM_WRONG_STATE, NULL, "machine %s is %s", freezing->name, machine_state_names[m->record.state]);
	} else if (answer && m) {
		if (m->frozen != answer->frozen)
			events_add(m, answer->frozen ? "machine.frozen" : "machine.thawed", "");
		m->frozen = answer->frozen;
		request_reply(freezing->req, 200, machine_dump(m));
	} else {
		request_refuse_with(freezing->req, err && err->errnum == ETIMEDOUT ? PROBLEM_TIMEOUT : PROBLEM_MACHINE_FAILED, NULL,
			"machine %s: %s", freezing->name, err ? err->message : "it has been deleted");
	}
	free(freezing);
}

static void tell(struct request *req, struct hulld *hulld, enum order_verb verb)
{
	struct machine *m = machine_http_find(hulld, req);
	struct order order = {.verb = verb};
	struct freezing *freezing;
	char vsock[512];

	if (!m || machine_http_require_running(m, req) < 0)
		return;
	freezing = calloc(1, sizeof(*freezing));
	if (!freezing)
		abort();
	*freezing = (struct freezing){.hulld = hulld, .req = req};
	snprintf(freezing->id, sizeof(freezing->id), "%s", m->record.id);
	snprintf(freezing->name, sizeof(freezing->name), "%s", m->record.name);
	request_on_gone(req, on_gone, freezing);
	freezing->call = order_call(hulld->loop, machine_run_path(m, "vsock.sock", vsock, sizeof(vsock)), &order, TIMEOUT_MS,
		on_answer, freezing);
}

void freeze_http_freeze(struct request *req, void *ctx)
{
	tell(req, ctx, ORDER_FREEZE);
}

void freeze_http_thaw(struct request *req, void *ctx)
{
	tell(req, ctx, ORDER_THAW);
}
