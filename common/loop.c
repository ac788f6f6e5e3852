/* The event loop over epoll. See loop.h for the theory of operation. */
#include "common/loop.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>

#define EVENTS_PER_ROUND 32
#define NS_PER_S	 1000000000ull

enum source_kind { SOURCE_FD, SOURCE_TIMER, SOURCE_SIGNAL };

struct loop_source {
	struct loop *loop;
	enum source_kind kind;
	bool removed;		  /* never called again; freed at the end of the round */
	int fd;			  /* SOURCE_FD: the caller's; SOURCE_SIGNAL: our signalfd; SOURCE_TIMER: -1 */
	uint32_t events;
	uint64_t deadline_ns;	  /* SOURCE_TIMER: UINT64_MAX when disarmed */
	size_t place;		  /* SOURCE_TIMER that is armed: in loop->armed */
	loop_fd_fn fd_fn;
	loop_fn fn;
	void *ctx;
	struct loop_source *next, **link; /* in loop->watched or loop->timers, *link == this; or, by next, in the graveyard */
};

struct posted {
	loop_fn fn;
	void *ctx;
	struct posted *next;
};

struct loop {
	int epoll_fd;
	int wake_fd;   /* eventfd: loop_stop, loop_post */
	int timer_fd;  /* set to the earliest deadline */
	uint64_t timer_set_ns; /* what timer_fd is set to; UINT64_MAX: nothing */
	struct loop_source *watched, *timers, *graveyard;
	struct loop_source **armed; /* a binary heap of timers, the earliest first; has room for all */
	size_t n_armed, n_timers, armed_room;
	bool stop;	/* atomic */
	pthread_mutex_t posted_lock; /* guards the two below */
	struct posted *posted_first, **posted_end;
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t monotonic_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t process_cpu_ns(void)
{
	return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static int watch(struct loop *loop, int op, int fd, uint32_t events, void *tag)
{
	struct epoll_event event = {.events = events, .data.ptr = tag};

	return epoll_ctl(loop->epoll_fd, op, fd, &event);
}

struct loop *loop_new(void)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return NULL;
	loop->timer_set_ns = UINT64_MAX;
	loop->posted_end = &loop->posted_first;
	pthread_mutex_init(&loop->posted_lock, NULL);
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (loop->epoll_fd < 0 || loop->wake_fd < 0 || loop->timer_fd < 0 ||
		watch(loop, EPOLL_CTL_ADD, loop->wake_fd, EPOLLIN, &loop->wake_fd) < 0 ||
		watch(loop, EPOLL_CTL_ADD, loop->timer_fd, EPOLLIN, &loop->timer_fd) < 0) {
		int saved = errno;

		loop_free(loop);
		errno = saved;
		return NULL;
	}
	return loop;
}

static void bury(struct loop *loop)
{
	while (loop->graveyard) {
		struct loop_source *dead = loop->graveyard;

		loop->graveyard = dead->next;
		free(dead);
	}
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	while (loop->watched)
		loop_remove(loop->watched);
	while (loop->timers)
		loop_remove(loop->timers);
	bury(loop);
	free(loop->armed);
	while (loop->posted_first) {
		struct posted *posted = loop->posted_first;

		loop->posted_first = posted->next;
		free(posted);
	}
	pthread_mutex_destroy(&loop->posted_lock);
	close_fd(loop->timer_fd);
	close_fd(loop->wake_fd);
	close_fd(loop->epoll_fd);
	free(loop);
}

static struct loop_source *add_source(struct loop *loop, enum source_kind kind, int fd, void *ctx)
{
	struct loop_source **list = kind == SOURCE_TIMER ? &loop->timers : &loop->watched;
	struct loop_source *source = calloc(1, sizeof(*source));

	if (!source)
		return NULL;
	*source = (struct loop_source){.loop = loop, .kind = kind, .fd = fd, .deadline_ns = UINT64_MAX, .ctx = ctx,
		.next = *list, .link = list};
	if (*list)
		(*list)->link = &source->next;
	*list = source;
	return source;
}

struct loop_source *loop_add_fd(struct loop *loop, int fd, uint32_t epoll_events, loop_fd_fn fn, void *ctx)
{
	struct loop_source *source = add_source(loop, SOURCE_FD, fd, ctx);
	int saved;

	if (!source)
		return NULL;
	source->fd_fn = fn;
	if (loop_set_events(source, epoll_events) < 0) {
		saved = errno;
		loop_remove(source);
		errno = saved;
		return NULL;
	}
	return source;
}

int loop_set_events(struct loop_source *source, uint32_t epoll_events)
{
	int op;

	if (source->events == epoll_events)
		return 0;
	/* epoll reports errors even for an empty mask, so a parked source is taken out. */
	op = !source->events ? EPOLL_CTL_ADD : !epoll_events ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
	if (watch(source->loop, op, source->fd, epoll_events, source) < 0)
		return -errno;
	source->events = epoll_events;
	return 0;
}

struct loop_source *loop_add_signal(struct loop *loop, int signo, loop_fd_fn fn, void *ctx)
{
	cleanup_close int fd = -1;
	struct loop_source *source;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	errno = pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (errno)
		return NULL;
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return NULL;
	source = loop_add_fd(loop, fd, EPOLLIN, fn, ctx);
	if (!source)
		return NULL;
	source->kind = SOURCE_SIGNAL;
	steal_fd(&fd);
	return source;
}

/* Room for one timer more in the heap, so that arming one never fails. */
static int make_room(struct loop *loop)
{
	size_t room = loop->armed_room ? 2 * loop->armed_room : 16;
	struct loop_source **armed;

	if (loop->n_timers < loop->armed_room)
		return 0;
	armed = reallocarray(loop->armed, room, sizeof(struct loop_source *));
	if (!armed)
		return -ENOMEM;
	loop->armed = armed;
	loop->armed_room = room;
	return 0;
}

struct loop_source *loop_add_timer(struct loop *loop, loop_fn fn, void *ctx)
{
	struct loop_source *source = make_room(loop) == 0 ? add_source(loop, SOURCE_TIMER, -1, ctx) : NULL;

	if (!source)
		return NULL;
	source->fn = fn;
	loop->n_timers++;
	return source;
}

static void put_armed(struct loop *loop, size_t place, struct loop_source *timer)
{
	loop->armed[place] = timer;
	timer->place = place;
}

/* `timer` is to be at `place`, or where those above and below it are in order. */
static void settle(struct loop *loop, size_t place, struct loop_source *timer)
{
	size_t child;

	for (; place && timer->deadline_ns < loop->armed[(place - 1) / 2]->deadline_ns; place = (place - 1) / 2)
		put_armed(loop, place, loop->armed[(place - 1) / 2]);
	for (; (child = 2 * place + 1) < loop->n_armed; place = child) {
		if (child + 1 < loop->n_armed && loop->armed[child + 1]->deadline_ns < loop->armed[child]->deadline_ns)
			child++;
		if (timer->deadline_ns <= loop->armed[child]->deadline_ns)
			break;
		put_armed(loop, place, loop->armed[child]);
	}
	put_armed(loop, place, timer);
}

static void set_deadline(struct loop_source *timer, uint64_t deadline_ns)
{
	struct loop *loop = timer->loop;
	bool was_armed = timer->deadline_ns != UINT64_MAX;
	struct loop_source *last;

	timer->deadline_ns = deadline_ns;
	if (deadline_ns != UINT64_MAX) {
		settle(loop, was_armed ? timer->place : loop->n_armed++, timer);
	} else if (was_armed) {
		last = loop->armed[--loop->n_armed];
		if (last != timer)
			settle(loop, timer->place, last);
	}
}

/* Sets timer_fd to the earliest deadline. A timer is armed far more often than it fires, so an earlier setting is left
 * alone when the deadline moved out: it costs one idle wake-up at most. */
static void set_timer(struct loop *loop)
{
	uint64_t earliest = loop->n_armed ? loop->armed[0]->deadline_ns : UINT64_MAX;
	struct itimerspec when = {0};

	if (earliest == loop->timer_set_ns)
		return;
	if (earliest != UINT64_MAX) {
		when.it_value.tv_sec = (time_t)(earliest / NS_PER_S);
		when.it_value.tv_nsec = (long)(earliest % NS_PER_S);
		if (!earliest)
			when.it_value.tv_nsec = 1; /* zero would disarm */
	}
	timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
	loop->timer_set_ns = earliest;
}

void loop_timer_arm(struct loop_source *timer, uint64_t delay_ns)
{
	uint64_t deadline_ns;

	assert(timer->kind == SOURCE_TIMER && !timer->removed);
	if (delay_ns == UINT64_MAX || __builtin_add_overflow(monotonic_ns(), delay_ns, &deadline_ns))
		deadline_ns = UINT64_MAX;
	set_deadline(timer, deadline_ns);
	if (deadline_ns < timer->loop->timer_set_ns)
		set_timer(timer->loop);
}

void loop_remove(struct loop_source *source)
{
	if (!source || source->removed)
		return;
	*source->link = source->next;
	if (source->next)
		source->next->link = source->link;
	if (source->kind == SOURCE_TIMER) {
		set_deadline(source, UINT64_MAX);
		source->loop->n_timers--;
	} else {
		loop_set_events(source, 0);
		if (source->kind == SOURCE_SIGNAL)
			source->fd = close_fd(source->fd);
	}
	source->removed = true;
	source->next = source->loop->graveyard;
	source->loop->graveyard = source;
}

static void wake(struct loop *loop)
{
	uint64_t one = 1;
	ssize_t ignored = write(loop->wake_fd, &one, sizeof(one)); /* full means: already awake */

	(void)ignored;
}

void loop_stop(struct loop *loop)
{
	int saved = errno;

	__atomic_store_n(&loop->stop, true, __ATOMIC_RELEASE);
	wake(loop);
	errno = saved;
}

void loop_post(struct loop *loop, loop_fn fn, void *ctx)
{
	struct posted *posted = malloc(sizeof(*posted));

	if (!posted)
		abort();
	*posted = (struct posted){fn, ctx, NULL};
	pthread_mutex_lock(&loop->posted_lock);
	*loop->posted_end = posted;
	loop->posted_end = &posted->next;
	pthread_mutex_unlock(&loop->posted_lock);
	wake(loop);
}

static bool stopping(struct loop *loop)
{
	return __atomic_load_n(&loop->stop, __ATOMIC_ACQUIRE);
}

static void run_posted(struct loop *loop)
{
	struct posted *posted;

	pthread_mutex_lock(&loop->posted_lock);
	posted = loop->posted_first;
	loop->posted_first = NULL;
	loop->posted_end = &loop->posted_first;
	pthread_mutex_unlock(&loop->posted_lock);
	while (posted) {
		struct posted *next = posted->next;

		posted->fn(posted->ctx);
		free(posted);
		posted = next;
	}
}

static void run_timers(struct loop *loop)
{
	uint64_t now = monotonic_ns();

	/* A callback may arm, disarm and remove any timer: look afresh each time. One armed again with no delay gets a
	 * deadline after `now` and waits for the next round. */
	while (!stopping(loop) && loop->n_armed && loop->armed[0]->deadline_ns <= now) {
		struct loop_source *due = loop->armed[0];

		set_deadline(due, UINT64_MAX);
		due->fn(due->ctx);
	}
	loop->timer_set_ns = 0; /* it has fired: whatever is earliest must be set anew */
	set_timer(loop);
}

static void dispatch(struct loop *loop, struct epoll_event *event)
{
	struct loop_source *source = event->data.ptr;
	struct signalfd_siginfo info;
	uint64_t drained;
	ssize_t got;

	if (event->data.ptr == &loop->wake_fd) {
		got = read(loop->wake_fd, &drained, sizeof(drained));
		run_posted(loop);
	} else if (event->data.ptr == &loop->timer_fd) {
		got = read(loop->timer_fd, &drained, sizeof(drained));
		run_timers(loop);
	} else if (source->removed || !source->events) {
		return; /* removed or parked earlier in this round */
	} else if (source->kind == SOURCE_SIGNAL) {
		got = read(source->fd, &info, sizeof(info));
		if (got == sizeof(info))
			source->fd_fn(source->ctx, info.ssi_signo);
	} else if (event->events & (source->events | EPOLLERR | EPOLLHUP)) {
		/* (An event for a mask changed since, in this very round, is dropped above.) */
		source->fd_fn(source->ctx, event->events);
	}
	(void)got;
}

/* An event that loop_stop() left undone. Level-triggered ones come again by themselves; an edge is reported once, but
 * setting the same mask anew makes epoll look, and report, again: for a later loop_run(). */
static void hold_over(struct loop *loop, const struct epoll_event *event)
{
	struct loop_source *source = event->data.ptr;

	if (event->data.ptr == &loop->wake_fd || event->data.ptr == &loop->timer_fd)
		return;
	if (!source->removed && (source->events & EPOLLET))
		watch(loop, EPOLL_CTL_MOD, source->fd, source->events, source);
}

int loop_run(struct loop *loop)
{
	struct epoll_event events[EVENTS_PER_ROUND];

	while (!stopping(loop)) {
		int n = epoll_wait(loop->epoll_fd, events, EVENTS_PER_ROUND, -1);

		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n; i++) {
			if (stopping(loop))
				hold_over(loop, &events[i]);
			else
				dispatch(loop, &events[i]);
		}
		bury(loop);
	}
	__atomic_store_n(&loop->stop, false, __ATOMIC_RELEASE);
	return 0;
}
