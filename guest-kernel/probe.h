/* One look at whether what the machine is for works. */
#ifndef HULL_GUEST_PROBE_H
#define HULL_GUEST_PROBE_H

#include "common/health_check.h"
#include "guest-kernel/config.h"
#include "guest-kernel/errand.h"

struct probe;

/* `reason` says why it is not healthy, in one line; NULL: it is. The probe is over and freed. */
typedef void (*probe_fn)(void *ctx, const char *reason);

/* `fn` is called later, unless it is cancelled; there is no deadline. `check` and `config` are borrowed as long. NULL with
 * `err` set when there was no looking. Loop thread. */
struct probe *probe_new(struct loop *loop, struct errands *errands, const struct guest_config *config,
	const struct health_check *check, probe_fn fn, void *ctx, struct error *err);
void probe_cancel(struct probe *probe); /* NULL is fine */

#endif
