/* One request over a unix socket whose answer ends with the connection: a monitor's API, HAProxy's commands. */
#ifndef HULL_API_SOCKET_CALL_H
#define HULL_API_SOCKET_CALL_H

#include "common/loop.h"

#include <stddef.h>
#include <stdint.h>

struct socket_call;

struct socket_request {
	const char *path; /* of the socket */
	const char *text; /* what is sent: may hold a secret, as what is kept of it is wiped */
	size_t answer_max; /* bytes; a longer answer is EMSGSIZE */
	uint64_t timeout_ns; /* for all of it, or ETIMEDOUT; 0: there is none, and who calls has a deadline */
};

/* `answer`: what came until its end, with a NUL; it is gone afterwards. NULL where there is none, and `errnum` says why.
 * The call is over. */
typedef void (*socket_call_fn)(void *ctx, const char *answer, int errnum);

/* `request` is not needed afterwards. `fn` is always called once and later, unless it is cancelled. Allocation failure aborts. Loop thread,
 * as the other. */
struct socket_call *socket_call(struct loop *loop, const struct socket_request *request, socket_call_fn fn, void *ctx);
void socket_call_cancel(struct socket_call *call); /* NULL is fine; what was sent may be done */

#endif
