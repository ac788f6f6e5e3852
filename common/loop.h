/* The event loop: descriptors, timers and deferred calls on one thread, over epoll and one timerfd.
 *
 * Theory of operation. Every callback runs on the thread inside loop_run(), one at a time, so what only the loop
 * touches needs no lock. A source may be removed from any callback, its own and others': it is then never called
 * again, and its memory goes once the current batch of events is done. An idle loop sleeps without a time-out. */
#ifndef HULL_COMMON_LOOP_H
#define HULL_COMMON_LOOP_H

#include "common/cleanup.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct loop;
struct loop_source;

typedef void (*loop_fd_fn)(void *ctx, uint32_t epoll_events);
typedef void (*loop_fn)(void *ctx);

/* NULL with errno set when the kernel gives no descriptors. */
struct loop *loop_new(void);
/* Removes what is still registered; closes none of the callers' descriptors. NULL is fine. */
void loop_free(struct loop *loop);
DEFINE_CLEANUP(struct loop *, loop_free)

/* Calls `fn` whenever `fd` (borrowed: remove the source before closing it) is ready for one of `epoll_events`
 * (level-triggered unless EPOLLET is given). NULL with errno set on failure. Loop thread, or before loop_run(). */
struct loop_source *loop_add_fd(struct loop *loop, int fd, uint32_t epoll_events, loop_fd_fn fn, void *ctx);
/* Changes what is waited for; 0 parks the source (errors and hang-ups are then not reported either). 0 or -errno. */
int loop_set_events(struct loop_source *source, uint32_t epoll_events);

/* A timer, disarmed at first. Fires `fn` once per arming. */
struct loop_source *loop_add_timer(struct loop *loop, loop_fn fn, void *ctx);
/* (Re)arms it `delay_ns` from now on CLOCK_MONOTONIC; 0 fires in the next round; UINT64_MAX disarms. Cannot fail. */
void loop_timer_arm(struct loop_source *timer, uint64_t delay_ns);

/* Calls `fn` with the signal's number as `epoll_events`, on the loop thread; blocks that signal in the calling
 * thread, so call it before other threads start: they inherit the mask. */
struct loop_source *loop_add_signal(struct loop *loop, int signo, loop_fd_fn fn, void *ctx);

/* Unregisters and frees. NULL is fine. Loop thread. */
void loop_remove(struct loop_source *source);

/* Runs until loop_stop(). Returns 0, or -errno when epoll itself fails. */
int loop_run(struct loop *loop);
/* Makes loop_run() return after the current callback. Any thread, async-signal-safe, also before loop_run(). */
void loop_stop(struct loop *loop);

/* Runs `fn(ctx)` on the loop thread, soon, in order. Any thread. Cannot fail (allocation failure aborts). */
void loop_post(struct loop *loop, loop_fn fn, void *ctx);

/* Nanoseconds on CLOCK_MONOTONIC. */
uint64_t monotonic_ns(void);
/* Nanoseconds of processor time that all threads of this process have had. */
uint64_t process_cpu_ns(void);

#endif
