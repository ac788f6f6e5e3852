/* The host's end of a console of the guest's, be it the UART or a virtio device: standard output and input, a file, or a
 * socket to which a terminal comes.
 *
 * Threads: console_write() comes from vCPU threads, under the UART's lock, and from the loop thread while they
 * rest; what is not marked otherwise is the loop thread's. */
#ifndef HULL_VMM_CONSOLE_H
#define HULL_VMM_CONSOLE_H

#include "common/bounded_file.h"
#include "common/buf.h"
#include "common/error.h"
#include "common/loop.h"

#include <pthread.h>
#include <stdbool.h>
#include <termios.h>

/* The guest's end. Called on the loop thread, without a lock. */
struct console_guest {
	/* Bytes taken, from the front, of what comes from outside; the rest is offered again after console_room(). */
	size_t (*receive)(void *ctx, const void *data, size_t len);
	/* All that console_offer() had to keep has gone. May be NULL where that is not used. */
	void (*sent)(void *ctx);
	void *ctx;
};

struct console {
	struct loop *loop; /* borrowed */
	struct console_guest guest;
	int out_fd;		 /* -1: nobody is at the socket */
	bool owns_out_fd;        /* it is ours to close, and does not block */
	size_t at_once;          /* bytes of which a write never waits once poll() says that there is room */
	struct loop_source *out; /* parked while all was written; NULL: a file, which never has to be waited for */

	pthread_mutex_t lock; /* guards what follows, up to the input; a leaf */
	pthread_cond_t changed;
	struct bounded_file limit; /* of what the output may grow to */
	struct buf backlog; /* written by the guest, and not taken by the reader yet */
	bool may_wait;
	bool offered; /* guest.sent is due when the backlog has gone */
	bool out_broken; /* nobody reads: what comes is dropped */

	bool has_input;		/* there is, or may be, some */
	int in_fd;		/* standard input, or once more the socket's connection, and ours then; -1: none */
	struct loop_source *in; /* of in_fd; NULL: none, or at its end */
	char pending[256];      /* read from it, not taken by the guest yet */
	size_t pending_len;
	char *socket_path; /* NULL: there is no socket */
	int listen_fd;
	struct loop_source *listener;
	bool raw; /* the terminal was put into raw mode, and was `terminal` before */
	struct termios terminal;
};

/* `path` NULL: standard output. A file keeps `limit_bytes`, the newest; 0: all. `console` must stay where it is. 0, or -errno
 * with `err` set and nothing to be undone. */
int console_init(struct console *console, struct loop *loop, const struct console_guest *guest, const char *path,
	uint64_t limit_bytes, struct error *err);
/* The same at a Unix socket, made with mode 0600: who connects is the reader, and what it sends is input, until it closes its
 * sending side. One at a time; while there is none, what the guest says is lost. */
int console_init_socket(struct console *console, struct loop *loop, const struct console_guest *guest, const char *path,
	struct error *err);
/* Gives the terminal back, removes the socket. Also of a zeroed one. */
void console_done(struct console *console);

/* Starts to pass standard input on to the guest, if there is a standard input that can be waited for. */
void console_read_standard_input(struct console *console);
/* The guest has room again. Any thread, and under a device's lock. */
void console_room(struct console *console);

/* Waits while the reader is slow and waiting is allowed, so that a slow reader slows the guest down; what the reader
 * has not taken then is kept, and sent when it does. Drops when there is no reader. Any thread. */
void console_write(struct console *console, const void *data, size_t len);
/* The same for the loop thread, which never waits. False: it has been taken, but no more shall come until guest.sent. */
bool console_offer(struct console *console, const void *data, size_t len);
/* Whether a write may wait; at first it may not. Forbidding it ends the wait that is under way. Any thread. */
void console_may_wait(struct console *console, bool may_wait);

#endif
