/* Operations: what changes a machine and takes time, from what was asked to what came of it.
 *
 * Theory of operation. A machine has one operation under way at most, its `operations` list's first. It is begun in the transaction that
 * brings the machine into a transient state, and ended in the one that ends this state; all that happens to it between is in memory until
 * the machine's record is written next, by operation_commit(). So it costs no commit of its own (but for a start's last phase, `health`).
 *
 * What is asked for later takes the place of what is under way, which is then `cancelled`, by the later one: a stop cancels a start. The
 * same again, as a second stop, joins the first.
 *
 *	start    started (or, `restart` by hulld, started again) → up, and healthy where there is a check
 *	stop     told to end → its monitor has ended
 *	restart  both
 *	kill     its monitor is ended → has ended
 *	delete   killed → ports given up → removed; of a machine that does not run no operation, as it takes no time
 *	suspend  its hook → saved, and its monitor has ended
 *	resume   restored (or, when that fails, started) → up, and healthy where there is a check
 *
 * It cannot be stuck: `deadline` is when hulld ends by force what it waits for, and that is supervisor.c's timer, or this one's own in the
 * phase `health`. A hulld that finds one under way goes on with it (operations_load(), machine.h).
 *
 * Loop thread only. */
#ifndef HULL_API_OPERATION_H
#define HULL_API_OPERATION_H

#include "api/http.h"
#include "api/machine.h"

enum operation_kind {
	OPERATION_START,
	OPERATION_STOP,
	OPERATION_RESTART,
	OPERATION_KILL,
	OPERATION_DELETE,
	OPERATION_SUSPEND,
	OPERATION_RESUME,
};
enum operation_state { OPERATION_RUNNING, OPERATION_SUCCEEDED, OPERATION_FAILED, OPERATION_CANCELLED };
extern const char *const operation_kind_names[], *const operation_state_names[]; /* NULL-terminated */

/* In the order in which a restart comes through them, and then a suspend. Their numbers are in the database. */
enum operation_phase {
	PHASE_CONNECTIONS, /* to its ports may end, before it hears of it */
	PHASE_WORKLOAD, /* it has been told to end */
	PHASE_MONITOR_END, /* the monitor is ended: the workload is not asked, or has not ended in time */
	PHASE_PORTS,	/* are given up */
	PHASE_DEPENDENCIES, /* machines that it depends on are not there yet */
	PHASE_DISK,	/* the scratch disk is made, before the first start */
	PHASE_NETWORK,	/* passt is started */
	PHASE_MONITOR,	/* is started */
	PHASE_KERNEL,	/* the guest's boots, until the agent is heard */
	PHASE_AGENT,	/* is asked, until it answers */
	PHASE_HEALTH,	/* checks, until one succeeds */
	PHASE_HOOK,	/* its image's, before it is saved; then its programs are frozen */
	PHASE_SAVE,	/* it is saved, and its monitor ends */
};

#define REQUESTED_BY_HOST  "host"  /* the host's administrator */
#define REQUESTED_BY_HULLD "hulld" /* nobody: a restart by policy */

struct operation;

/* A step of forgetting (forget.h) old ones. */
int operations_forget(struct hulld *hulld, int64_t now, struct error *err);
/* Gives each machine the one that is under way on it. Once machines are loaded, before they are taken up. */
int operations_load(struct hulld *hulld, struct error *err);

/* Who asks for one, and with which request: 0, or a number by which it is found that it was begun. */
struct operation_origin {
	const char *by; /* as `requested_by` has it */
	int64_t request;
};
extern const struct operation_origin operation_by_hulld;

/* Who asks, as `requested_by` has it. */
const char *operation_asker(const struct client *client);

/* The one that is under way, or NULL. Valid until the next operation_commit(). */
const struct operation_record *operation_current(const struct machine *m);
/* That one, and is it of `kind`? */
bool operation_is(const struct machine *m, enum operation_kind kind);
bool operation_is_in(const struct machine *m, enum operation_phase phase);
/* When its phase began, as now_ms(); 0: it has none. */
int64_t operation_phase_since(const struct machine *m);
/* Has somebody asked for its end? */
bool operation_is_cancelled(const struct machine *m);
/* The id of the one that was begun last, by this hulld, or "". */
const char *operation_latest(const struct machine *m);

/* What follows is in memory only until the next commit. But for the first, nothing happens where none is under way. */
void operation_begin(struct machine *m, enum operation_kind kind, int64_t timeout_ms, const struct operation_origin *origin);
/* Makes it, or another of the same kind that is under way already, end within `timeout_ms` from now. */
void operation_begin_or_join(struct machine *m, enum operation_kind kind, int64_t timeout_ms, const struct operation_origin *origin);
/* One it has been in already begins anew, and what came after it did not happen. */
void operation_enter(struct machine *m, enum operation_phase phase);
void operation_set_timeout(struct machine *m, int64_t timeout_ms);
/* How much of it is left, between 0 and `max`; `max` where none is under way. */
int64_t operation_time_left_ms(const struct machine *m, int64_t max_ms);
void operation_succeed(struct machine *m);
void operation_fail(struct machine *m, enum problem_code code, const char *detail);
void operation_cancel(struct machine *m, const char *by);
/* It ends, cancelled, as soon as its machine does, within `timeout_ms`. */
void operation_ask_for_end(struct machine *m, const char *by, int64_t timeout_ms);
/* What it was begun for comes to nothing: the changes since the last commit did not happen. */
void operation_undo(struct machine *m);

/* Writes the machine's record, and what has become of its operations, in one transaction. 0 or -errno with `err` set: what is in memory
 * stays, to be written with the next. */
int operation_commit(struct machine *m, struct error *err);
/* Deletes the machine's record, and ends what is under way on it: a delete has then succeeded. On failure it has failed. */
int operation_commit_removal(struct machine *m, struct error *err);

/* From machine.c: it has come up; its run has ended, and, `again`, the other half of a restart follows. Also in memory only. */
void operation_machine_is_up(struct machine *m);
void operation_machine_has_ended(struct machine *m, const struct machine_end *end, bool again);
/* From machine_patch.c: it is asked otherwise whether it is healthy, and that awaited for as long as if it had been from the start, if that is
 * longer. Commits then. */
void operation_check_is_another(struct machine *m);
/* From health.c: what is known of a machine that runs. Commits, if that ends a start. */
void operation_health_is_known(struct machine *m, bool healthy, const char *reason);

void operations_free(struct machine *m);

/* Who waits for one that is under way (operation_http.c): a list. NULL: it is not, of whichever machine. */
struct operation_waiter **operation_waiters(const struct hulld *hulld, const char *id);
/* It has ended, and is written. */
void operation_tell(struct operation_waiter **waiters);

/* Handlers; their context is a struct hulld. */
extern const struct json_table operation_table;
void operation_http_list(struct request *req, void *ctx);
void operation_http_get(struct request *req, void *ctx);
void operation_http_wait(struct request *req, void *ctx);
void operation_http_cancel(struct request *req, void *ctx);

#endif
