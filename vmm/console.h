/* The host's end of the guest's serial console: standard output and input, or a file.
 *
 * Threads: console_write() comes from vCPU threads, under the UART's lock; everything else is the loop
 * thread's. */
#ifndef HULL_VMM_CONSOLE_H
#define HULL_VMM_CONSOLE_H

#include "common/error.h"
#include "common/loop.h"

#include <pthread.h>
#include <stdatomic.h>
#include <termios.h>

struct uart16550;

struct console {
	int out_fd; /* owned when it is a file's */
	bool owns_out_fd, out_is_file;
	int stop_fd;            /* owned: readable once writers shall not wait any more */
	atomic_bool out_broken; /* nobody reads: what comes is dropped */
	struct loop *loop;
	struct uart16550 *uart; /* NULL while there is no input */
	struct loop_source *in; /* of standard input; NULL: none, or at its end */
	char pending[256];      /* read from standard input, not taken by the UART yet */
	size_t pending_len;
	bool raw; /* the terminal was put into raw mode, and was `terminal` before */
	struct termios terminal;
};

/* `path` NULL: standard output. 0, or -errno with `err` set and nothing to be undone. */
int console_init(struct console *console, struct loop *loop, const char *path, struct error *err);
/* Gives the terminal back. Also of a zeroed one. */
void console_done(struct console *console);

/* Starts to pass standard input on to `uart` (borrowed), if there is a standard input that can be waited for.
 */
void console_read_input(struct console *console, struct uart16550 *uart);
/* The UART has room again. Any thread. */
void console_room(struct console *console);

/* Waits while the reader is slow, until console_stop(); drops when there is none. Any thread. */
void console_write(struct console *console, const void *data, size_t len);
/* No write waits any more. */
void console_stop(struct console *console);

#endif
