/* What a program reads and writes: three pipes, or a terminal. */
#include "guest-kernel/exec_stdio.h"

#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>

static int make_pipe(int *ret_read, int *ret_write)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	*ret_read = ends[0];
	*ret_write = ends[1];
	return 0;
}

static int open_pipes(struct exec_stdio *stdio)
{
	int r = make_pipe(&stdio->inside[0], &stdio->input);

	if (r == 0)
		r = make_pipe(&stdio->output, &stdio->inside[1]);
	if (r == 0)
		r = make_pipe(&stdio->error, &stdio->inside[2]);
	if (r == 0 && (fcntl(stdio->input, F_SETFL, O_NONBLOCK) < 0 || fcntl(stdio->output, F_SETFL, O_NONBLOCK) < 0 ||
			      fcntl(stdio->error, F_SETFL, O_NONBLOCK) < 0))
		r = -errno;
	return r;
}

void exec_stdio_resize(int fd, uint16_t rows, uint16_t columns)
{
	const struct winsize size = {.ws_row = rows, .ws_col = columns};

	ioctl(fd, TIOCSWINSZ, &size);
}

static int open_terminal(struct exec_stdio *stdio, uint16_t rows, uint16_t columns)
{
	stdio->output = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (stdio->output < 0 || unlockpt(stdio->output) < 0 || fcntl(stdio->output, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	exec_stdio_resize(stdio->output, rows, columns);
	stdio->inside[0] = ioctl(stdio->output, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	/* Descriptors of their own: each side is watched, and closed, by itself. */
	stdio->input = fcntl(stdio->output, F_DUPFD_CLOEXEC, 3);
	stdio->inside[1] = fcntl(stdio->inside[0], F_DUPFD_CLOEXEC, 3);
	stdio->inside[2] = fcntl(stdio->inside[0], F_DUPFD_CLOEXEC, 3);
	return stdio->inside[0] < 0 || stdio->input < 0 || stdio->inside[1] < 0 || stdio->inside[2] < 0 ? -errno : 0;
}

int exec_stdio_open(struct exec_stdio *stdio, bool terminal, uint16_t rows, uint16_t columns, struct error *err)
{
	int r = terminal ? open_terminal(stdio, rows, columns) : open_pipes(stdio);

	return r < 0 ? error_set_errno(err, -r, terminal ? "open a terminal" : "make pipes") : 0;
}

void exec_stdio_close(struct exec_stdio *stdio)
{
	close_fd(stdio->input);
	close_fd(stdio->output);
	close_fd(stdio->error);
	for (int i = 0; i < 3; i++)
		close_fd(stdio->inside[i]);
}
