/* The wall clocks of machines that run.
 *
 * Theory of operation. A guest's clock counts on by the processor's; it knows nothing of a host that slept, or whose clock was
 * set. A timer that never comes due tells: it is cancelled whenever CLOCK_REALTIME jumps, which it also does after a suspend
 * (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET). Then each machine gets an order, and looks at the host's clock by KVM. */
#include "api/clock.h"

#include "api/machine.h"
#include "api/order_call.h"
#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>

#define TIMEOUT_MS 30000
#define NS_PER_S   INT64_C(1000000000)
#define NS_PER_MS  1000000
#define NEVER_S    (INT64_C(1) << 33) /* in 2242 */

struct clock_watch {
	struct hulld *hulld;
	int fd;
	struct loop_source *source;
};

static void on_answer(void *ctx, const struct order_answer *answer, const struct error *err)
{
	struct machine *m = ctx;

	m->clock = NULL;
	if (err) {
		log_warn("machine %s: its clock is not set: %s", m->record.name, err->message);
		return;
	}
	m->frozen = answer->frozen;
	log_info("machine %s: its clock moved by %lld ms", m->record.name, (long long)(answer->moved_ns / NS_PER_MS));
}

void clock_step(struct machine *m)
{
	struct order order = {.verb = ORDER_CLOCK};
	struct timespec now;
	char vsock[512];

	clock_gettime(CLOCK_REALTIME, &now);
	order.unix_ns = now.tv_sec * NS_PER_S + now.tv_nsec;
	clock_forget(m);
	m->clock = order_call(m->hulld->loop, machine_run_path(m, "vsock.sock", vsock, sizeof(vsock)), &order, TIMEOUT_MS,
		on_answer, m);
}

void clock_forget(struct machine *m)
{
	order_cancel(m->clock);
	m->clock = NULL;
}

/* 0 or -errno. */
static int arm(const struct clock_watch *watch)
{
	const struct itimerspec never = {.it_value.tv_sec = NEVER_S};

	return timerfd_settime(watch->fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) < 0 ? -errno : 0;
}

static void on_jump(void *ctx, uint32_t events)
{
	struct clock_watch *watch = ctx;
	uint64_t times;

	(void)events;
	if (read(watch->fd, &times, sizeof(times)) >= 0 || errno != ECANCELED)
		return;
	arm(watch);
	log_info("the host's clock was set");
	for (struct machine *m = watch->hulld->machines; m; m = m->next)
		if (m->record.state == MACHINE_RUNNING)
			clock_step(m);
}

struct clock_watch *clock_watch_new(struct hulld *hulld, struct error *err)
{
	struct clock_watch *watch = calloc(1, sizeof(*watch));
	int r;

	if (!watch)
		abort();
	*watch = (struct clock_watch){.hulld = hulld, .fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC)};
	r = watch->fd < 0 ? -errno : arm(watch);
	if (r == 0)
		watch->source = loop_add_fd(hulld->loop, watch->fd, EPOLLIN, on_jump, watch);
	if (watch->source)
		return watch;
	error_set_errno(err, r < 0 ? -r : errno, "cannot watch the host's clock");
	clock_watch_free(watch);
	return NULL;
}

void clock_watch_free(struct clock_watch *watch)
{
	if (!watch)
		return;
	loop_remove(watch->source);
	close_fd(watch->fd);
	free(watch);
}
