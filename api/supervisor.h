/* What runs for a machine: files, passt, folders, the monitor, the agent. Called by machine.c, reports back to it. */
#ifndef HULL_API_SUPERVISOR_H
#define HULL_API_SUPERVISOR_H

#include "api/machine.h"
#include "common/subnet.h"

/* What can be known before a start is promised: kernel, monitor, passt and blob are there. */
int supervisor_check(const struct machine *m, struct problem *problem);
/* The operation's, of the start that follows; with its deadline. */
void supervisor_enter_first_phase(struct machine *m);
/* Waits for what it depends on (start_order.h), prepares and starts; ends in machine_is_up() or machine_has_ended(), later. */
void supervisor_start(struct machine *m);
/* From start_order.c: what it waited for is there; or never will be, `end` says why. */
void supervisor_begin(struct machine *m);
void supervisor_give_up(struct machine *m, const struct machine_end *end);
/* After a restart of hulld, for an active machine: adopts what lives, or concludes what happened. */
void supervisor_adopt(struct machine *m);
/* stopping.c: asks the machine to end within `timeout_ms`, of record.stop_timeout_s what is left; kills it then. */
void supervisor_stop(struct machine *m, uint64_t timeout_ms);
/* Of one that is stopping, what is left until it is killed, whatever the clock says. */
int64_t supervisor_stop_left_ms(const struct machine *m);
/* Will its connections be waited for, before it is told? */
bool supervisor_drains(const struct machine *m);
/* It is not to end after all: it has not been told, as its connections were waited for. */
void supervisor_run_on(struct machine *m);
/* HAProxy sends nobody to it any more, where it has said so; any machine will do. */
void supervisor_names_are_told(struct machine *m);
/* No connection to its ports is left, or nobody knows of any. */
void supervisor_drained(struct machine *m);
void supervisor_forget_drain(struct machine *m);
/* Asks its monitor, as nobody inside does it. */
void supervisor_terminate(struct machine *m);
/* Ends it at once; `code` becomes the cause. */
void supervisor_kill(struct machine *m, const char *code);
/* Its run, which is `suspending`, is to be saved (suspend.h): ends in machine_is_suspended(), machine_runs_on() or machine_has_ended(), later. */
void supervisor_suspend(struct machine *m, uint64_t timeout_ms);
void supervisor_go_on_suspending(struct machine *m, uint64_t timeout_ms); /* which an earlier hulld has begun */
/* The operation's, of the resume that follows; with its deadline. */
void supervisor_enter_resume_phase(struct machine *m);
/* Restores it: ends in machine_is_up(), machine_has_ended() or, where it could not be begun, machine_stays_suspended(), perhaps at once. */
void supervisor_resume(struct machine *m);
/* Of one that is suspended: its run ends. */
void supervisor_throw_away(struct machine *m);
/* From suspend.c: all is saved; its programs run; and from machine_suspend.c: they run on. */
void supervisor_end_saved(struct machine *m);
void supervisor_is_up(struct machine *m);
void supervisor_runs_on(struct machine *m);
/* From folders.c: one that it sees is lost (folders_lost()), and with it the machine. */
void supervisor_lose_folder(struct machine *m);
/* Frees timers and watches; processes go on. */
void supervisor_release(struct machine *m);

/* Where it writes what has become of it. */
#define MONITOR_STATUS_FD 4
/* Where a monitor finds its end of the network's connection. */
#define MONITOR_NET_FD 5
/* And the guest's archive, of a machine that has secrets. */
#define MONITOR_ARCHIVE_FD 6

/* supervisor_spawn.c: m->monitor, m->passt and their places in the record become processes that wait at their gates. `net_fd` (borrowed) becomes
 * the monitor's MONITOR_NET_FD; -1: it has none, or gets one by way of hull-network. 0 or -errno with `err` set. */
int supervisor_spawn_monitor(struct machine *m, int net_fd, process_fn on_end, int *ret_gate, struct error *err);
int supervisor_spawn_passt(struct machine *m, int net_fd, process_fn on_end, int *ret_gate, struct error *err);
/* hulld->passt is the one that was found last, as long as it is there: there are many folders to look in. */
bool supervisor_find_passt(struct hulld *hulld);

/* launch.c: the files a monitor is started with, and its arguments. 0 or -errno with `err` set. */
int launch_prepare(struct machine *m, struct error *err);
/* The same, of one that is restored. */
int launch_prepare_restore(struct machine *m, struct error *err);
/* Has the monitor that it was prepared for, in this boot, begun? If not, it was never let go by its gate: a monitor makes `accounting`
 * before it reads what is saved, and leaves it. Where what it was prepared with has gone, too, the run folder was emptied, and nobody knows. */
bool launch_has_begun(const struct machine *m);
/* Was what it was prepared for last, in this boot, a restore? */
bool launch_is_restore(const struct machine *m);
/* The guest's archive of a machine that has secrets, in memory only: a descriptor, or -errno with `err` set. */
int launch_archive_fd(const struct machine *m, struct error *err);
/* What a monitor, `argv`, is started by: where the machine is on a network, by hull-network, which executes it with a tap. Valid as long
 * as `*ret` is where it was. 0 or -errno with `err` set. */
#define MONITOR_ARGS_MAX 24
struct launch_join {
	bool is_needed;
	const char *argv[20 + MONITOR_ARGS_MAX]; /* ended by NULL */
	char folder[256], subnet[SUBNET_TEXT_BYTES], address[ADDRESS_TEXT_BYTES], tap_fd[12], status_fd[12];
};
int launch_join(struct machine *m, const char *const *argv, struct launch_join *ret, struct error *err);
int launch_make_folders(struct machine *m, struct error *err);

#endif
