/* MSI-X: a function's interrupts as messages, from a table that the guest writes (PCI Local Bus 3.0, section 6.8.2).
 *
 * Theory of operation. Each vector is an eventfd; whoever interrupts writes it. While the vector is unmasked, its owner has it
 * connected to the guest's interrupt controller by the message in its table entry; while it is masked, nobody reads it, and
 * that it is readable is its pending bit. So an interrupt is one write by any thread, with no look at the table, and none is
 * lost or doubled by masking. `lock` guards the table, by which vectors are connected; a leaf but for what `ops` take. */
#ifndef HULL_DEVICES_MSIX_H
#define HULL_DEVICES_MSIX_H

#include "devices/state.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define MSIX_VECTORS_MAX 64 /* the pending bits are one quadword */
#define MSIX_ENTRY_BYTES 16
#define MSIX_PENDING_BYTES 8

struct msix_ops {
	/* From now on each write to `fd` sends the message: 0 or -errno. Under the lock; must not call back. */
	int (*connect)(void *ctx, unsigned vector, int fd, uint64_t address, uint32_t data);
	/* No more. */
	void (*disconnect)(void *ctx, unsigned vector, int fd);
};

struct msix_vector {
	uint64_t address;
	uint32_t data, control; /* control: bit 0 masks */
	bool connected;
	int fd; /* owned */
};

struct msix {
	const struct msix_ops *ops; /* borrowed, as is ctx */
	void *ctx;
	unsigned n;
	pthread_mutex_t lock;
	bool enabled; /* atomic: read without the lock */
	bool masked;  /* all of them */
	struct msix_vector vectors[MSIX_VECTORS_MAX];
};

/* `n` vectors, masked, MSI-X off. 0 or -errno; to be freed either way. */
int msix_init(struct msix *msix, unsigned n, const struct msix_ops *ops, void *ctx);
/* Nobody interrupts any more. */
void msix_done(struct msix *msix);

/* The table, and the pending bits: dwords and quadwords, aligned; what else comes reads as 0 and writes to nothing. Any thread. */
void msix_table_read(struct msix *msix, uint64_t offset, void *data, uint32_t len);
void msix_table_write(struct msix *msix, uint64_t offset, const void *data, uint32_t len);
void msix_pending_read(struct msix *msix, uint64_t offset, void *data, uint32_t len);
/* The capability's message control register has been written. */
void msix_set_control(struct msix *msix, uint16_t control);

static inline bool msix_is_enabled(const struct msix *msix)
{
	return __atomic_load_n(&msix->enabled, __ATOMIC_ACQUIRE);
}

/* Borrowed; each write is one interrupt. `vector` < n. Any thread. */
static inline int msix_fd(const struct msix *msix, unsigned vector)
{
	return msix->vectors[vector].fd;
}

/* Inside a section of the caller's, whose message control is saved elsewhere and set after a load. */
void msix_save(struct msix *msix, struct state_writer *w);
void msix_load(struct msix *msix, struct state_reader *r);

#endif
