/* See spawn.h.
 *
 * Theory of operation. fork() copies the tables of all of hulld's memory, and then each page that hulld writes to: with ten thousand
 * machines that is most of what a start costs. This child has none of its own: it is a process that shares our memory (CLONE_VM) until
 * it executes, and what it touches of it is its place alone, where its stack is, and a copy of all that it is told. hulld goes on
 * meanwhile, unlike after vfork(), as it has to write down who waits at the gate. Hence
 *
 * - the child calls no function of the C library, not even for errno, which is hulld's own: system calls, and nothing else; it has no
 *   loop that a compiler knows as one of those, as strlen();
 * - all signals are blocked until right before it executes, and there are no handlers;
 * - its place is not used again until the kernel says that it has left our memory, by execution or by its end: it writes 0 to `pid`
 *   then (CLONE_CHILD_CLEARTID, clone(2)). Should hulld end first, the memory is the child's until then. */
#include "api/spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARGS_MAX    40
#define TEXT_MAX    24576 /* bytes of all arguments: paths of PATH_MAX bytes at most */
#define STACK_BYTES 32768

/* What one child has. The first bytes of the mapping are a page that nobody can touch, below the stack. */
struct place {
	unsigned char guard[4096];
	unsigned char stack[STACK_BYTES];
	volatile pid_t pid; /* 0: nobody is here */
	struct place *next;
	int fds[SPAWN_FDS_MAX];
	int n_fds, gate;
	char *argv[ARGS_MAX + 1];
	char text[TEXT_MAX]; /* of the arguments, and behind them */
	const char *failure; /* a line, for who reads descriptor 2 */
	size_t failure_len;
};

static struct place *places; /* as many as have been in use at a time */

/* ---- the child ---- */

#define CHILD static inline __attribute__((always_inline, no_sanitize("address", "undefined")))

/* The x86-64 ABI's: errors are -errno. */
CHILD long call(long number, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return r;
}

CHILD void __attribute__((noreturn)) leave(int status)
{
	for (;;)
		call(SYS_exit_group, status, 0, 0, 0);
}

/* First of all hulld's own descriptors go: a successor must not find its sockets still listening. */
CHILD void take_descriptors(struct place *place)
{
	place->gate = (int)call(SYS_fcntl, place->gate, F_DUPFD, 2 * SPAWN_FDS_MAX, 0);
	for (int i = 0; i < place->n_fds; i++) /* out of the way: one may have the number of another's place */
		place->fds[i] = (int)call(SYS_fcntl, place->fds[i], F_DUPFD, SPAWN_FDS_MAX, 0);
	for (int i = 0; i < place->n_fds; i++)
		if (place->fds[i] < 0 || call(SYS_dup2, place->fds[i], i, 0, 0) < 0)
			leave(127);
	if (place->gate < 0)
		leave(127);
	call(SYS_close_range, place->n_fds, place->gate - 1, 0, 0);
	call(SYS_close_range, place->gate + 1, ~0u, 0, 0);
}

CHILD void stay_at_gate(const struct place *place)
{
	char go;
	long n;

	do
		n = call(SYS_read, place->gate, (long)&go, 1, 0);
	while (n == -EINTR);
	if (n != 1)
		leave(0);
	call(SYS_close, place->gate, 0, 0, 0);
}

static int __attribute__((noreturn, no_sanitize("address", "undefined"))) child(void *ctx)
{
	static const struct { /* the kernel's, not the C library's (rt_sigaction(2)) */
		void *handler; /* SIG_DFL */
		unsigned long flags;
		void *restorer;
		uint64_t mask;
	} by_default;
	static const uint64_t none;
	struct place *place = ctx;

	take_descriptors(place);
	stay_at_gate(place);
	call(SYS_setsid, 0, 0, 0, 0);
	call(SYS_umask, 077, 0, 0, 0);
	call(SYS_rt_sigaction, SIGPIPE, (long)&by_default, 0, sizeof(by_default.mask)); /* what is ignored stays so */
	call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, sizeof(none));
	call(SYS_execve, (long)place->argv[0], (long)place->argv, (long)environ, 0);
	call(SYS_write, 2, (long)place->failure, (long)place->failure_len, 0);
	leave(127);
}

/* ---- its parent ---- */

/* NULL: out of memory. */
static struct place *find_place(void)
{
	struct place *place = places;

	while (place && place->pid)
		place = place->next;
	if (place)
		return place;
	place = mmap(NULL, sizeof(*place), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (place == MAP_FAILED)
		return NULL;
	mprotect(place->guard, sizeof(place->guard), PROT_NONE);
	place->next = places;
	places = place;
	return place;
}

static bool copy_arguments(struct place *place, const char *const *argv)
{
	size_t used = 0, i;
	int r;

	for (i = 0; argv[i]; i++) {
		size_t bytes = strlen(argv[i]) + 1;

		if (i == ARGS_MAX || bytes > sizeof(place->text) - used)
			return false;
		place->argv[i] = memcpy(place->text + used, argv[i], bytes);
		used += bytes;
	}
	place->argv[i] = NULL;
	place->failure = place->text + used;
	r = snprintf(place->text + used, sizeof(place->text) - used, "hulld: cannot execute %s\n", argv[0]);
	place->failure_len = (size_t)r;
	return (size_t)r < sizeof(place->text) - used;
}

pid_t spawn_at_gate(const char *const *argv, const int *fds, size_t n_fds, int gate, struct error *err)
{
	struct place *place = find_place();
	sigset_t all, before;
	pid_t pid;

	assert(n_fds <= SPAWN_FDS_MAX);
	if (!place || !copy_arguments(place, argv))
		return error_set_errno(err, place ? E2BIG : ENOMEM, "cannot start %s", argv[0]);
	memcpy(place->fds, fds, n_fds * sizeof(*fds));
	place->n_fds = (int)n_fds;
	place->gate = gate;
	place->pid = 1; /* until the kernel clears it */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	pid = clone(child, place->stack + sizeof(place->stack), CLONE_VM | CLONE_CHILD_CLEARTID | SIGCHLD, place, NULL, NULL, &place->pid);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (pid > 0)
		return pid;
	place->pid = 0;
	return error_set_errno(err, errno, "cannot start %s", argv[0]);
}
