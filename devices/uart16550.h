/* A 16550A UART, as far as firmware and Linux's 8250 driver look: FIFOs, interrupts, loopback; no baud rate,
 * no modem.
 *
 * It has locks of its own: registers are accessed by vCPU threads, input comes from the loop thread. The
 * callbacks are called with one held and must not call back. */
#ifndef HULL_DEVICES_UART16550_H
#define HULL_DEVICES_UART16550_H

#include "common/cleanup.h"
#include "devices/state.h"

#define UART16550_PORTS 8
#define UART16550_FIFO  16

struct uart16550_ops {
	/* The interrupt output rose: one edge. */
	void (*interrupt)(void *ctx);
	/* The guest sent `len` bytes. They are gathered: a call brings a line, what there was when the
	 * transmitter fell idle, or a full buffer. It may block: register accesses wait, input does not. */
	void (*transmit)(void *ctx, const uint8_t *data, size_t len);
	/* The receive FIFO has room again after uart16550_receive() took less than it was given. May be NULL. */
	void (*receive_ready)(void *ctx);
};

struct uart16550;

struct uart16550_metrics {
	uint64_t read_count, write_count;	       /* of registers */
	uint64_t missed_read_count, missed_write_count; /* of wide accesses, what lay beyond them */
	uint64_t flush_count;			       /* what was gathered was passed on */
};

/* `ops` and `ctx` are borrowed. Never NULL (allocation failure aborts). */
struct uart16550 *uart16550_new(const struct uart16550_ops *ops, void *ctx);
/* Passes on what was not transmitted yet. NULL is fine. */
void uart16550_free(struct uart16550 *uart);
DEFINE_CLEANUP(struct uart16550 *, uart16550_free)

/* Register access at `offset` < UART16550_PORTS, any length. Any thread. */
void uart16550_read(struct uart16550 *uart, uint64_t offset, void *data, uint32_t len);
void uart16550_write(struct uart16550 *uart, uint64_t offset, const void *data, uint32_t len);

/* Bytes for the guest. Returns how many the FIFO took; receive_ready() says when to offer the rest. Any
 * thread. */
size_t uart16550_receive(struct uart16550 *uart, const void *data, size_t len);
/* Passes on what was gathered so far, line or not. Any thread. */
void uart16550_flush(struct uart16550 *uart);

/* vCPUs stopped. Section "uart16550". save() flushes first. */
void uart16550_save(struct uart16550 *uart, struct state_writer *w);
int uart16550_load(struct uart16550 *uart, struct state_reader *r, struct error *err);

const struct uart16550_metrics *uart16550_metrics(const struct uart16550 *uart);

#endif
