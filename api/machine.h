/* Machines: their states and what moves them from one to the next.
 *
 * Theory of operation. A machine is a row of the database and this struct, which mirrors it. Every change of state goes
 * through machine.c, is committed, and is then announced to waiters. What a state allows:
 *
 *	creating  inserted, ports being published; unseen; becomes created, or is removed
 *	created   never started
 *	starting  supervisor.c prepares files, passt and the monitor; becomes running when the agent answers PING
 *	running   the monitor and the agent are up
 *	suspending it is being saved, and its monitor ended (suspend.h)
 *	suspended no process; it goes on from what is saved (saved.h), which its run's volumes, address and content stay for
 *	resuming  a monitor is restored; becomes running once the agent has made all right
 *	stopping  asked to end: by the agent, then, at the deadline, by SIGKILL
 *	stopped   no process. A restart may be due (restart_at); or it is asleep (idle.h)
 *	failed    as stopped, after an end that nobody wanted; `cause` says which
 *
 *	start:   created, stopped, failed → starting                      machine_start()
 *	wake:    stopped, failed → starting, of one that is asleep         machine_wake()
 *	up:      starting, resuming → running                             machine_is_up()
 *	suspend: running → suspending → suspended, or → running           machine_suspend(), machine_is_suspended(), machine_runs_on()
 *	resume:  suspended → resuming → running, suspended, or starting   machine_resume(), machine_is_up(), machine_stays_suspended(), machine_has_ended()
 *	sleep:   running → stopping                                       machine_sleep()
 *	stop:    starting, running, suspending, suspended, resuming → stopping    machine_stop(), machine_kill()
 *	end:     whatever has a monitor, or is stopping → stopped, failed, starting    machine_has_ended()
 *	cancel:  starting → stopping; stopping → running, while its connections may end, and it has not been told    machine_cancel()
 *
 * Crash safety. hulld may be killed at any instant; machines_load() then finds each row in one of the states above and
 * goes on: `starting`, `running` and `stopping` adopt the monitor when its recorded pid, start time and boot are alive
 * (process.h: no monitor runs unrecorded), and otherwise conclude from status.json what happened; `starting` without
 * a monitor begins again; `suspending` and `resuming` go on where they were: what is saved is used by the monitor that was recorded in
 * `resuming`, and by no other; `creating` is removed, as nobody was told of it; what was killed to be deleted, is. What was under way on
 * them is an operation (operation.h), which goes on with them. Ports are settled by ingress_client.c, folders
 * of unknown machines are removed. A reply is sent only after the commit it speaks of. */
#ifndef HULL_API_MACHINE_H
#define HULL_API_MACHINE_H

#include "api/hulld.h"
#include "api/process.h"

#define CAUSE_CODE_MAX 32
#define PORT_IN_USE    "it is already in use" /* whoever has it: another project's machine, or no machine */

struct agent_call;
struct folders;
struct health;
struct idle;
struct operation;
struct operation_origin;
struct order_call;
struct start_wait;
struct suspend;
struct waiter;

/* Where machine_index.c finds a machine: by its project and name, or by "" and its id. */
struct machine_key {
	const char *project, *name; /* borrowed from the record */
	struct machine *machine;
};

struct machine {
	struct hulld *hulld;
	struct machine_record record;
	struct machine_spec spec;      /* what it is to be, as its client says */
	struct machine_spec *run_spec; /* what the present run was begun with, where it is not that; NULL: it is */
	uint64_t number;	       /* in the order in which this hulld has come to know them: the clock may be set back */
	bool patching;		       /* machine_patch.c: hull-ingress is asked for ports that are to be its */
	size_t patch_ports;	       /* while that is so: how many it is to have */
	bool deleting; /* ends in its removal, */
	bool removing; /* which has begun: hull-ingress has been asked to give up its ports */

	/* supervisor.c: what runs now. */
	struct process *monitor, *passt;
	struct folders *folders; /* folders.c; NULL: it sees none of the host's, or does not run */
	struct scratch *scratch; /* while it is made */
	struct agent_call *agent;
	struct loop_source *start_deadline, *stop_deadline, *retry;
	struct loop_source *drain;	/* stopping.c: until when connections may end; NULL: they are not waited for */
	bool draining, drain_asked;	/* drain_asked: hull-ingress was, how many there are */
	uint64_t drain_change;		/* of hostnames.c: HAProxy is to know of it before */
	bool told_to_end;		/* by its agent, in this run */
	uint64_t stop_at_ns;		/* when stop_deadline fires */
	char ending_code[CAUSE_CODE_MAX]; /* why hulld ends the monitor; "": it does not */
	struct start_wait *start_wait; /* start_order.c; NULL: it waits for no other machine */
	struct agent_ready *ready; /* while the agent has not answered yet, in this run */
	bool up;			  /* the agent has answered, in this run */
	bool restored;			  /* its monitor has open what was saved, which is removed, and has its room until it ends */
	struct suspend *suspend;	  /* suspend.c; NULL: nothing is under way */
	bool network_lost;		  /* network_watch.c: in this run, and was told of */

	bool frozen; /* by what its agent said last */
	struct order_call *clock; /* clock.c; being set */
	struct health *health;	  /* health.c; NULL: nothing is checked, or it does not run */
	uint64_t grace_from_ns;	  /* of that: when the workload began, on the monotonic clock; 0: a check has succeeded since, or nobody knows */
	int gate;		  /* enum gate: what hull-ingress was told last */
	struct idle *idle;	  /* idle.c; NULL: it was never put to sleep, nor is to be */
	unsigned uses;		  /* of that: what is executed in it and copied */

	struct operation *operations; /* operation.h; the one under way first */
	char latest_operation[OPERATION_ID_BYTES + 1];

	struct loop_source *restart; /* the restart policy's timer; NULL: there has never been a need */
	uint64_t began_ns;	     /* when this hulld has begun the present run, on the monotonic clock; 0: it has not */
	bool needed, host_kills;     /* host_drain.c: others that run depend on it; its time was over */
	struct waiter *waiters;	     /* machine_http.c */
	uint64_t label_bits;	     /* machine_list.c: of the spec's labels */
	struct machine *previous, *next; /* in the order in which they were made */
	struct machine_key by_id, by_name;
};

/* How a run ended. */
struct machine_end {
	char code[CAUSE_CODE_MAX];
	char message[ERROR_MESSAGE_MAX];
	int exit_status; /* -1: none */
	bool failed;
};

/* machine_load.c. Reads all machines and takes up what was under way. 0 or -errno with `err` set. Before requests are served. */
int machines_load(struct hulld *hulld, struct error *err);
/* Frees what is in memory; the machines go on. */
void machines_free(struct hulld *hulld);

/* machine_index.c. Of one project: what is another's is not found. */
struct machine *machine_find(struct hulld *hulld, const char *project, const char *id_or_name);
struct machine *machine_by_name(const struct hulld *hulld, const char *project, const char *name);
/* Of whichever project, for who has kept the id: no client's word. */
struct machine *machine_by_id(struct hulld *hulld, const char *id);
/* A machine that is new, or goes; and one whose name changes, before and after that. */
void machine_index_add(struct machine *m);
void machine_index_remove(struct machine *m);
void machine_index_add_name(struct machine *m);
void machine_index_remove_name(struct machine *m);

/* machine_check.c. One of the project that has the image, or runs with it; NULL: none. */
const struct machine *machine_using_image(const struct hulld *hulld, const char *project, const char *image);
bool machines_publish_ports(const struct hulld *hulld); /* any, of any machine */
/* In `starting`, `running`, `suspending`, `resuming` or `stopping`. */
bool machine_is_active(const struct machine *m);
/* Is it, or is it suspended? */
bool machine_has_run(const struct machine *m);
/* What its run has been begun with; where it has none, what it will be started with. */
const struct machine_spec *machine_running_spec(const struct machine *m);
/* Is a restart due by policy, with nobody asking? */
bool machine_restarts(const struct machine *m);

/* Who makes a machine, and with which request. */
struct machine_origin {
	const char *project;
	int64_t request; /* request_number() */
};

/* machine_check.c. Each 0, or -ECANCELED with `problem` set. */
int machine_check_image(struct hulld *hulld, const char *project, const char *name, struct image_view *ret, struct problem *problem);
/* May there be a machine like this, over an image with `config`? `changed`: the one that is to become it; NULL: a new one. */
int machine_check_spec(struct hulld *hulld, const char *project, const struct machine *changed, const struct machine_spec *spec,
	const struct image_config *config, struct problem *problem);

/* machine_patch.c: which fields of the spec its run does not have yet. Their number; their names. */
#define MACHINE_PENDING_MAX 32
size_t machine_pending(const struct machine *m, const char *ret[MACHINE_PENDING_MAX]);

/* machine_create.c. Each 0 after the commit, or -ECANCELED with `problem` set and nothing changed; so are those below. */
int machine_insert(struct hulld *hulld, const struct machine_origin *origin, struct machine_spec *spec, struct machine **ret,
	struct problem *problem); /* takes `spec` */
/* What that would make, its id made up; ports are not tried. */
int machine_plan(struct hulld *hulld, const struct machine_origin *origin, struct machine_spec *spec, json_t **ret,
	struct problem *problem); /* takes `spec` */
/* Removes row, folders and struct. Not while it is active. On failure it stays. */
int machine_remove(struct machine *m, struct problem *problem);

/* machine.c. `by`, `origin`: who asks (operation.h). */
int machine_created(struct machine *m, struct problem *problem); /* creating → created */
/* `attached`: its workload waits for a client that executes it, and the machine may not run yet. Not so any start that follows by
 * itself. */
int machine_start(struct machine *m, bool attached, const struct operation_origin *origin, struct problem *problem);
/* For the host's sake (host_drain.c): no restart, but `then_start` says that it is to start once the host lets it. Of an active one. */
int machine_stop_for_now(struct machine *m, int64_t timeout_s, bool then_start, struct problem *problem);
int machine_stop(struct machine *m, int64_t timeout_s, bool then_start, const struct operation_origin *origin, struct problem *problem);
/* As nobody uses it: it is stopped, and asleep. */
int machine_sleep(struct machine *m, struct problem *problem);
/* One that is asleep starts, or as soon as it has stopped; no effect on one that does. */
void machine_wake(struct machine *m);
/* machine_suspend.c. No effect on one that is suspended, or on its way there; and on one that runs, or is on its way there. */
int machine_suspend(struct machine *m, const struct operation_origin *origin, struct problem *problem);
int machine_resume(struct machine *m, const struct operation_origin *origin, struct problem *problem);
/* From supervisor.c: it is saved, and its monitor has gone; it could not be saved, or not be resumed, and `reason` says why. */
void machine_is_suspended(struct machine *m);
void machine_runs_on(struct machine *m, const char *reason);
void machine_stays_suspended(struct machine *m, const char *reason);
int machine_kill(struct machine *m, const struct operation_origin *origin, struct problem *problem);
/* One that is active is killed, and then removed; also by the next hulld. */
int machine_kill_to_delete(struct machine *m, const char *by, struct problem *problem);
/* machine_cancel.c. Undoes what is under way on it: a start, which then ends as any stop does; a stop of which its workload has not heard. No effect where
 * that was asked for before. */
int machine_cancel(struct machine *m, const char *by, struct problem *problem);

/* going_down.c: the host goes down. Every machine that runs is asked to end, and killed when its time is over; those that their
 * policy starts always, the next hulld starts. Then hull-ingress ends, and the loop. */
void machines_go_down(struct hulld *hulld);
/* Its restart is due, by its row: at once, but after `wait_ms`. */
void machine_rearm_restart(struct machine *m, unsigned wait_ms);

/* And not any more. */
void machine_disarm_restart(struct machine *m);

/* machine_list.c: its spec has been set. Gives back the memory of what is empty. */
void machine_note_spec(struct machine *m);

/* From supervisor.c. */
void machine_is_up(struct machine *m);
void machine_has_ended(struct machine *m, const struct machine_end *end);
/* Writes the record; a failure is logged: what memory says is true, and a restart finds out again. */
void machine_commit(struct machine *m);

/* <state>/machines/<id>/NAME and <run>/machines/<id>/NAME. Returns `ret`. */
char *machine_state_path(const struct machine *m, const char *name, char *ret, size_t size);
char *machine_run_path(const struct machine *m, const char *name, char *ret, size_t size);

/* machine_view.c: the API's Machine, a new object. */
json_t *machine_dump(const struct machine *m);

/* machine_http.c: to be told of every committed change, and right before a machine is removed. */
void machine_tell_waiters(struct machine *m);
void machine_tell_removed(struct machine *m);

#endif
