/* One order to the agent inside a machine, and its answer (common/order.h). */
#ifndef HULL_API_ORDER_CALL_H
#define HULL_API_ORDER_CALL_H

#include "common/buf.h"
#include "common/loop.h"
#include "common/order.h"

struct order_call;

/* `answer` and `err` NULL, or `err` says why there is none: the machine's refusal, or ETIMEDOUT, EPROTO, … of the way there;
 * its message holds printable ASCII only. The call is over and freed. */
typedef void (*order_fn)(void *ctx, const struct order_answer *answer, const struct error *err);

/* `order` is not needed afterwards. The machine gives it up after `timeout_ms`; one that does not answer at all is left a
 * little later. `fn` is always called later, unless it is cancelled. Allocation failure aborts. */
struct order_call *order_call(struct loop *loop, const char *vsock_path, const struct order *order, unsigned timeout_ms,
	order_fn fn, void *ctx);
void order_cancel(struct order_call *call); /* NULL is fine */

/* What a machine has sent: a frame that is an ANSWER or REFUSED. 0 with `ret` to be freed by its table; -errno with `err` set.
 * Machines are hostile. */
struct frame;
int order_read_answer(const struct frame *frame, struct order_answer *ret, struct error *err);

#endif
