/* What the host tells a machine to do at once, and what is answered: the objects that hulld and the agent exchange
 * (guest-kernel/hull_guest.h, ORDER). */
#ifndef HULL_COMMON_ORDER_H
#define HULL_COMMON_ORDER_H

#include "common/guest_network.h"
#include "common/guest_stats.h"
#include "common/health_check.h"

#define ORDER_TIMEOUT_MAX_MS 600000
#define ORDER_REASON_MAX     255 /* bytes */
#define ORDER_SEED_MAX	     512 /* bytes */

enum order_verb {
	ORDER_HEALTH,	/* is it healthy? */
	ORDER_FREEZE,	/* the workload, and what was executed beside it; answered when they all stand still */
	ORDER_THAW,
	ORDER_CLOCK,	/* the wall clock is to be the host's */
	ORDER_RESEED,	/* the kernel's random numbers become others */
	ORDER_HOSTNAME, /* of the machine */
	ORDER_NETWORK,	/* its address, routes and name servers */
	ORDER_HOOK,	/* the image's own program for an occasion */
	ORDER_STATS,	/* the machine's own numbers */
	ORDER_N_VERBS,
};
extern const char *const order_verb_names[]; /* NULL-terminated, by enum order_verb */

enum order_hook { ORDER_HOOK_NONE, ORDER_HOOK_BEFORE_SNAPSHOT, ORDER_HOOK_AFTER_RESTORE };
extern const char *const order_hook_names[];

/* A verb, and what that verb needs: nothing else is there. */
struct order {
	int verb;		     /* enum order_verb */
	struct health_check *health; /* HEALTH */
	int64_t unix_ns;	     /* CLOCK: the host's time, where the machine cannot ask KVM for it; 0: none */
	char *seed;		     /* RESEED: hexadecimal */
	char *hostname;
	struct guest_network *network;
	int hook; /* enum order_hook */
};
extern const struct json_table order_table;

struct order_answer {
	bool frozen;	  /* the workload stands still; of every verb */
	bool healthy;	  /* HEALTH */
	char *reason;	  /* HEALTH: why not. NULL: none */
	int64_t moved_ns; /* CLOCK: so far forward, or, less than 0, back */
	bool ran;	  /* HOOK: the image has one */
	struct guest_stats *stats; /* STATS */
};
extern const struct json_table order_answer_table;

/* What the table cannot say: that what the verb needs is there, and nothing else. 0, or -ENODATA or -EINVAL with `err` set. */
int order_check(const struct order *order, struct error *err);

/* The bytes of a seed, which order_check() has passed. Their number. */
size_t order_seed(const struct order *order, uint8_t ret[ORDER_SEED_MAX]);

#endif
