/* What the host tells the machine to do at once, over connections of the agent (hull_guest.h, ORDER). */
#ifndef HULL_GUEST_ORDERS_H
#define HULL_GUEST_ORDERS_H

#include "common/loop.h"
#include "guest-kernel/config.h"

#include <sys/types.h>

#define HOOKS_FOLDER "/etc/hull/hooks" /* of the image: programs named as order_hook_names */

struct orders;

/* `config` (borrowed) is kept as the machine is. NULL without memory. Loop thread, as everything here. */
struct orders *orders_new(struct loop *loop, struct guest_config *config);
/* Ends all that is under way. NULL is fine. */
void orders_free(struct orders *orders);

/* Takes an order from `fd`, a non-blocking stream socket, and answers it; owned on success. 0, -EINVAL for a time that none is
 * given, -EAGAIN when there are too many already, -ENOMEM. */
int orders_serve(struct orders *orders, int fd, uint32_t timeout_ms);

/* Is the workload frozen, or about to be? No program may begin then. */
bool orders_hold_still(const struct orders *orders);
/* The machine is to end: whatever is frozen runs, and hears so. */
void orders_thaw(struct orders *orders);

/* A child has ended, one of these or another. */
void orders_child_ended(struct orders *orders, pid_t pid, int wait_status);

#endif
