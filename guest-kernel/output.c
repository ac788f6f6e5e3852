/* Carries the workload's output to the host.
 *
 * Theory of operation. One buffer: filled from the pipe when it is empty, emptied into the sink. At the end the vsock
 * connection is shut both ways and we wait for the host's RST: it comes once the host has passed on all it was sent
 * (virtio 1.2, section 5.10.6.5). A machine that is powered off any earlier takes its last words with it. One that goes on after it was
 * saved finds its connections reset: what was sent is not lost, and another connection takes what follows. */
#include "guest-kernel/output.h"

#include "guest-kernel/console.h"
#include "guest-kernel/hull_guest.h"
#include "guest-kernel/vsock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <string.h>
#include <sys/socket.h>

#define NS_PER_MS	1000000ull
#define BUFFER_BYTES	(64 * 1024)
#define CLOSE_POLL_NS	(1 * NS_PER_MS)

struct output {
	struct loop *loop;
	int pipe_fd, sink_fd;
	struct loop_source *pipe, *sink, *close_poll, *deadline;
	bool is_vsock;
	bool took; /* the connection has taken something */
	bool at_end;  /* the pipe's end was read */
	loop_fn done; /* NULL until output_drain(), and again once called */
	void *ctx;
	size_t off, len; /* what `buffer` holds */
	char buffer[BUFFER_BYTES];
};

static void on_sink(void *ctx, uint32_t events);

/* Makes `fd` (owned by then) the sink. 0 or -errno. */
static int use_sink(struct output *output, int fd, bool is_vsock)
{
	struct loop_source *source = loop_add_fd(output->loop, fd, EPOLLERR, on_sink, output);

	if (!source) {
		close_fd(fd);
		return -errno;
	}
	loop_remove(output->sink);
	close_fd(output->sink_fd);
	output->sink = source;
	output->sink_fd = fd;
	output->is_vsock = is_vsock;
	output->took = false;
	return 0;
}

/* A description of its own: O_NONBLOCK must not reach hull-init's stdio. */
static int use_console(struct output *output)
{
	int fd = open("/dev/console", O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	return fd < 0 ? -errno : use_sink(output, fd, false);
}

static void finish(struct output *output)
{
	loop_fn done = output->done;

	loop_timer_arm(output->close_poll, UINT64_MAX);
	loop_timer_arm(output->deadline, UINT64_MAX);
	loop_set_events(output->sink, 0);
	loop_set_events(output->pipe, 0);
	output->done = NULL;
	if (done)
		done(output->ctx);
}

/* A socket shut both ways is always ready for epoll, so the RST has to be looked for: the peer's name goes with it. */
static void on_close_poll(void *ctx)
{
	struct output *output = ctx;
	struct sockaddr_vm peer;
	socklen_t len = sizeof peer;

	if (getpeername(output->sink_fd, (struct sockaddr *)&peer, &len) < 0)
		finish(output);
	else
		loop_timer_arm(output->close_poll, CLOSE_POLL_NS);
}

static void on_deadline(void *ctx)
{
	console_say("the host did not take all output in time");
	finish(ctx);
}

static void begin_closing(struct output *output)
{
	if (!output->is_vsock) {
		finish(output); /* the console has its bytes when write() returns; power-off waits for the UART */
		return;
	}
	loop_set_events(output->sink, 0);
	shutdown(output->sink_fd, SHUT_RDWR);
	on_close_poll(output);
}

/* A connection that took something was good: another one may be, too. */
static int connect_again(struct output *output)
{
	int fd = output->took ? vsock_connect_host(HULL_VSOCK_PORT_LOG) : -ECONNRESET;

	return fd < 0 ? fd : use_sink(output, fd, true);
}

static void write_held(struct output *output)
{
	while (output->len > 0) {
		ssize_t n = write(output->sink_fd, output->buffer + output->off, output->len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0 && output->is_vsock) {
			int errnum = errno;

			if (connect_again(output) == 0)
				continue;
			console_say("the host takes no more output: %s; it goes to the console", strerror(errnum));
			if (use_console(output) == 0)
				continue;
		}
		output->took = output->took || n > 0;
		if (n < 0)
			n = (ssize_t)output->len; /* no console either: nobody to keep it for */
		output->off += (size_t)n;
		output->len -= (size_t)n;
	}
}

static void read_more(struct output *output)
{
	ssize_t n = read(output->pipe_fd, output->buffer, sizeof output->buffer);

	output->off = 0;
	output->len = n > 0 ? (size_t)n : 0;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		output->at_end = true;
}

static void step(struct output *output)
{
	write_held(output);
	if (output->len == 0 && !output->at_end) {
		read_more(output);
		write_held(output);
	}
	loop_set_events(output->pipe, output->len == 0 && !output->at_end ? EPOLLIN : 0);
	loop_set_events(output->sink, output->len > 0 ? EPOLLOUT : 0);
	if (output->at_end && output->len == 0 && output->done)
		begin_closing(output);
}

static void on_pipe(void *ctx, uint32_t events)
{
	(void)events;
	step(ctx);
}

static void on_sink(void *ctx, uint32_t events)
{
	(void)events;
	step(ctx);
}

struct output *output_new(struct loop *loop, int pipe_fd, struct error *err)
{
	struct output *output = calloc(1, sizeof *output);
	int fd, r = -ENOMEM;

	if (!output) {
		error_set_errno(err, ENOMEM, "output");
		return NULL;
	}
	output->loop = loop;
	output->pipe_fd = output->sink_fd = -1;
	fd = vsock_connect_host(HULL_VSOCK_PORT_LOG);
	if (fd >= 0)
		r = use_sink(output, fd, true);
	else
		r = use_console(output);
	output->pipe = loop_add_fd(loop, pipe_fd, EPOLLIN, on_pipe, output);
	output->close_poll = loop_add_timer(loop, on_close_poll, output);
	output->deadline = loop_add_timer(loop, on_deadline, output);
	if (r == 0 && output->pipe && output->close_poll && output->deadline) {
		output->pipe_fd = pipe_fd;
		loop_set_events(output->sink, 0);
		return output;
	}
	error_set_errno(err, r < 0 ? -r : errno, "open a way for the output");
	output_free(output);
	return NULL;
}

void output_drain(struct output *output, int timeout_ms, loop_fn done, void *ctx)
{
	output->done = done;
	output->ctx = ctx;
	loop_timer_arm(output->deadline, (uint64_t)timeout_ms * NS_PER_MS);
	step(output);
}

void output_free(struct output *output)
{
	if (!output)
		return;
	loop_remove(output->pipe);
	loop_remove(output->sink);
	loop_remove(output->close_poll);
	loop_remove(output->deadline);
	close_fd(output->pipe_fd);
	close_fd(output->sink_fd);
	free(output);
}
