/* Brings work to the loop thread by an eventfd. */
#include "devices/loop_kick.h"

#include <errno.h>
#include <sys/eventfd.h>

static void on_kick(void *ctx, uint32_t epoll_events)
{
	struct loop_kick *kick = ctx;
	uint64_t count;
	ssize_t ignored = read(kick->fd, &count, sizeof(count)); /* a spurious call does no harm */

	(void)ignored;
	(void)epoll_events;
	if (!kick->thread_known) {
		kick->thread = pthread_self();
		__atomic_store_n(&kick->thread_known, true, __ATOMIC_RELEASE);
	}
	kick->fn(kick->ctx);
}

int loop_kick_init(struct loop_kick *kick, struct loop *loop, loop_fn fn, void *ctx)
{
	*kick = (struct loop_kick){.fn = fn, .ctx = ctx};
	kick->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (kick->fd < 0)
		return -errno;
	kick->source = loop_add_fd(loop, kick->fd, EPOLLIN, on_kick, kick);
	return kick->source ? 0 : -errno;
}

void loop_kick_done(struct loop_kick *kick)
{
	loop_remove(kick->source);
	kick->source = NULL;
	kick->fd = close_fd(kick->fd);
}

void loop_kick(struct loop_kick *kick)
{
	uint64_t one = 1;
	ssize_t ignored = write(kick->fd, &one, sizeof(one)); /* full means: already kicked */

	(void)ignored;
}

bool loop_kick_is_loop_thread(const struct loop_kick *kick)
{
	return __atomic_load_n(&kick->thread_known, __ATOMIC_ACQUIRE) &&
	       pthread_equal(kick->thread, pthread_self());
}
