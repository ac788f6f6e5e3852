/* An orderly end with a deadline: the guest is asked to power off, and asked again while it does not; when its time is
 * over, or whoever wants the end loses patience, the machine is ended as it is. It knows neither signals nor machines.
 * Loop thread. */
#ifndef HULL_VMM_SHUTDOWN_H
#define HULL_VMM_SHUTDOWN_H

#include <stdint.h>

struct loop;
struct shutdown;

#define SHUTDOWN_TIMEOUT_S_DEFAULT 30 /* longer than hull-init takes when nothing goes well */
#define SHUTDOWN_TIMEOUT_S_MAX	   86400

struct shutdown_ops {
	void (*ask)(void *ctx);
	/* Once, in one line. Nothing is asked any more. */
	void (*give_up)(void *ctx, const char *why);
};

struct shutdown_times {
	uint64_t timeout_ms; /* 0: a request gives up at once */
	uint64_t ask_every_ms;
};

/* `loop`, `ops` and `ctx` are borrowed. NULL when out of memory. */
struct shutdown *shutdown_new(
	struct loop *loop, struct shutdown_times times, const struct shutdown_ops *ops, void *ctx);
void shutdown_free(struct shutdown *shutdown); /* NULL is fine */

/* The first begins; a second, while the first is under way, gives up. `who` asks, for the person who reads why. */
void shutdown_request(struct shutdown *shutdown, const char *who);

#endif
