/* Processes that outlive hulld: started behind a gate, known by pid and start time, watched by pidfd.
 *
 * Theory of operation. process_spawn() makes a child (spawn.h) that waits at a pipe, the gate, before it executes anything. The
 * caller writes the child's identity to the database and only then opens the gate. Should hulld be killed at any instant
 * in between, the pipe closes and the child ends without having done a thing; once the gate has been opened the
 * identity is on disk. So there is never a process that a restarted hulld would not know of.
 *
 * A pid alone may have been given to somebody else; with the start time, and the boot it was seen in, it is unique. A
 * pidfd is opened first and compared afterwards, so what is signalled is what was compared. A process of an earlier
 * hulld is no child of this one: its exit status is lost, which is why monitors leave a status record. */
#ifndef HULL_API_PROCESS_H
#define HULL_API_PROCESS_H

#include "api/store.h"
#include "common/loop.h"

struct process;

/* `status` is as from waitpid(), or -1 for a process that was not our child. The process may be freed in it. */
typedef void (*process_fn)(void *ctx, int status);

/* A child in a session of its own, with descriptors fds[0..n_fds) as 0..n_fds-1 and no others, umask 077, that
 * executes argv[0] (a path) once the gate is opened. Returns it watched, `*ret_id` and `*ret_gate` set, or NULL with
 * `err` set. A program that cannot be executed ends with status 127 and a line on descriptor 2. */
struct process *process_spawn(struct loop *loop, const char *const *argv, const int *fds, size_t n_fds, process_fn fn,
	void *ctx, struct process_id *ret_id, int *ret_gate, struct error *err);
/* Lets the child run, or (closing only) end. */
void process_open_gate(int gate);

/* Watches a process started by an earlier hulld. NULL when it has ended. */
struct process *process_adopt(struct loop *loop, const struct process_id *id, process_fn fn, void *ctx);

bool process_is_running(const struct process *process); /* NULL is not */
void process_signal(struct process *process, int signo); /* NULL is fine */
/* Kills it, and reaps and frees by itself once it has ended; `fn` is not called any more. NULL is fine. */
void process_kill_and_free(struct process *process);
/* Stops watching; the process goes on. NULL is fine. */
void process_free(struct process *process);

/* The absolute path of a program, from PATH and the folders of the system's own tools, or -ENOENT. */
int find_program(const char *name, char *ret, size_t size);

#endif
