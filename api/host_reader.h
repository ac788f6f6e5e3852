/* Reads what the kernel says of monitors' processes (host_stats.h), beside the loop: for smaps_rollup it walks all of a guest's
 * memory, which takes some 50 ms a GiB. */
#ifndef HULL_API_HOST_READER_H
#define HULL_API_HOST_READER_H

#include "api/host_stats.h"
#include "common/loop.h"

#include <sys/types.h>

struct host_reader;
struct host_reading;

/* `loop` outlives it. Aborts without memory. Loop thread, as all below. */
struct host_reader *host_reader_new(struct loop *loop);
/* Waits for the process that is being read; those that asked are not called any more. NULL is fine. */
void host_reader_free(struct host_reader *reader);

/* The reading is over and freed. What could not be read is -1 (a process that has ended meanwhile: all of it). */
typedef void (*host_reading_fn)(void *ctx, const struct host_stats *stats);

/* One process at a time, in order: however many ask, they have one processor between them. `pid` is a process that the caller knows
 * to be there now: another's that has its number later is not read. `fn` is always called later, unless it is cancelled. */
struct host_reading *host_reader_read(struct host_reader *reader, pid_t pid, host_reading_fn fn, void *ctx);
void host_reading_cancel(struct host_reading *reading); /* NULL is fine */

#endif
