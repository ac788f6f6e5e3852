/* Makes a process of a description: the workload, and what is executed beside it. */
#ifndef HULL_GUEST_PROCESS_H
#define HULL_GUEST_PROCESS_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

/* What a process ends with that could not even be tried; 126 and 127 mean what they mean to a shell. */
#define PROCESS_STATUS_SETUP	      125
#define PROCESS_STATUS_NOT_EXECUTABLE 126
#define PROCESS_STATUS_NOT_FOUND      127

/* All borrowed. */
struct process_spec {
	char **argv; /* NULL-terminated, at least one */
	const json_t *env, *more_env; /* strings; the second over the first, and may be NULL */
	const char *hostname;
	const char *user;    /* as passwd_resolve() takes it, by the machine's own files */
	const char *workdir; /* absolute */
	bool make_workdir;   /* where it is missing it is made, and given to the user */
	int stdio[3];	     /* pipes and terminals are given to the user */
	bool terminal;	     /* stdio[0] becomes the controlling terminal */
	int cgroup_fd;	     /* the folder of the cgroup it is to be in; -1: its parent's */
};

/* What the child tells its parent when it cannot become the program. */
struct process_failure {
	int status; /* PROCESS_STATUS_…, which it exits with */
	struct error error;
};

/* Forks a child that makes a session of its own and becomes what the spec says; all that may take time
 * happens there. A descriptor (close-on-exec, blocking) to read a struct process_failure from, or nothing at
 * all when the program executes; -errno with `err` set when there is no child. No other threads may run. */
int process_spawn(const struct process_spec *spec, pid_t *ret_pid, struct error *err);

/* For a child that was forked: nothing of hull-init's own, as its signals and limits, is left. */
void process_forget_parent(void);

/* 0..255 of what waitpid() gave: 128 + N when signal N ended it. */
int process_exit_status(int wait_status);

#endif
