/* A copy of what a program writes, into a pipe that is not always emptied at once. */
#include "guest-kernel/tee.h"

#include "common/buf.h"

#include <errno.h>

#define HELD_MAX (64 * 1024)

struct tee {
	int fd;
	struct loop_source *source;
	struct buf held;
	loop_fn ready;
	void *ctx;
};

static void flush(struct tee *tee)
{
	size_t done = 0;
	int errnum = 0;

	while (done < tee->held.len && !errnum) {
		ssize_t n = write(tee->fd, tee->held.data + done, tee->held.len - done);

		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && errno != EINTR)
			errnum = errno;
	}
	if (errnum && errnum != EAGAIN)
		done = tee->held.len;
	buf_consume(&tee->held, done);
	loop_set_events(tee->source, tee->held.len ? EPOLLOUT : 0);
}

static void on_writable(void *ctx, uint32_t events)
{
	struct tee *tee = ctx;

	(void)events;
	flush(tee);
	if (!tee->held.len)
		tee->ready(tee->ctx);
}

struct tee *tee_new(struct loop *loop, int fd, loop_fn ready, void *ctx)
{
	struct tee *tee = calloc(1, sizeof *tee);

	if (!tee) {
		close_fd(fd);
		return NULL;
	}
	*tee = (struct tee){.fd = fd, .ready = ready, .ctx = ctx};
	buf_init(&tee->held, HELD_MAX);
	tee->source = loop_add_fd(loop, fd, EPOLLOUT, on_writable, tee);
	if (!tee->source) {
		tee_free(tee);
		return NULL;
	}
	loop_set_events(tee->source, 0);
	return tee;
}

void tee_free(struct tee *tee)
{
	if (!tee)
		return;
	loop_remove(tee->source);
	close_fd(tee->fd);
	buf_done(&tee->held);
	free(tee);
}

int tee_put(struct tee *tee, const void *data, size_t len)
{
	int r = buf_append(&tee->held, data, len);

	if (r == 0)
		flush(tee);
	return r;
}

bool tee_is_idle(const struct tee *tee)
{
	return !tee || !tee->held.len;
}
