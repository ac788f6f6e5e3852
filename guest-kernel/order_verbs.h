/* The orders that are carried out at once. */
#ifndef HULL_GUEST_ORDER_VERBS_H
#define HULL_GUEST_ORDER_VERBS_H

#include "common/order.h"
#include "guest-kernel/config.h"

/* CLOCK, RESEED, HOSTNAME or NETWORK, which order_check() has passed. `config` becomes as the machine now is, and `order` gets
 * what was there before. 0, or -errno with `err` set. */
int order_carry_out(struct order *order, struct guest_config *config, struct order_answer *ret, struct error *err);

#endif
