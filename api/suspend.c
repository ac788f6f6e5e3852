/* Chains of steps, each begun by the end of the one before. See suspend.h. */
#include "api/suspend.h"

#include "api/monitor_call.h"
#include "api/operation.h"
#include "api/order_call.h"
#include "api/random.h"
#include "api/saved.h"
#include "api/supervisor.h"
#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HOOK_TIMEOUT_MS	  30000
#define FREEZE_TIMEOUT_MS 10000
#define CLOCK_TIMEOUT_MS  10000
#define SEED_CHARACTERS	  64 /* of base32, 5 bits each; written in hexadecimal */
#define MIB_PER_S	  16 /* a disk that is slower is taken for broken */
#define MS_PER_S	  1000
#define NS_PER_MS	  1000000ull

struct suspend;

struct step {
	void (*begin)(struct suspend *suspend); /* NULL: there is no more */
	const char *name;			/* for who reads why it failed */
};

struct chain {
	const struct step *steps;
	void (*done)(struct machine *m);
	/* `refused`: by who was asked, so that it is known that it was not done. */
	void (*failed)(struct suspend *suspend, bool refused);
};

struct suspend {
	struct machine *m;
	const struct chain *chain;
	size_t step;
	struct order_call *order;
	struct monitor_call *call;
	bool paused, cannot_run;
	uint64_t began_ns;
	char failure[ERROR_MESSAGE_MAX]; /* of what came first; "" */
};

static const struct chain undoing;
#define UNDOING_THAW 4 /* of its steps: of one that was not paused it is the first */

static void enter(struct suspend *suspend, const struct chain *chain, size_t step)
{
	suspend->chain = chain;
	suspend->step = step;
	if (chain->steps[step].begin)
		chain->steps[step].begin(suspend);
	else
		chain->done(suspend->m);
}

static void go_on(struct suspend *suspend)
{
	enter(suspend, suspend->chain, suspend->step + 1);
}

static bool is_at(const struct suspend *suspend, void (*step)(struct suspend *))
{
	return suspend->chain->steps[suspend->step].begin == step;
}

static void fail(struct suspend *suspend, const struct error *err, bool refused)
{
	const char *name = suspend->chain->steps[suspend->step].name;

	log_warn("machine %s: %s: %s", suspend->m->record.name, name, err->message);
	if (!suspend->failure[0])
		snprintf(suspend->failure, sizeof(suspend->failure), "%s: %.*s", name, ERROR_MESSAGE_MAX - 64, err->message);
	suspend->chain->failed(suspend, refused);
}

/* ---- orders to the agent ---- */

static void on_order(void *ctx, const struct order_answer *answer, const struct error *err)
{
	struct suspend *suspend = ctx;

	(void)answer;
	suspend->order = NULL;
	if (err)
		fail(suspend, err, true);
	else
		go_on(suspend);
}

static void order(struct suspend *suspend, const struct order *what, unsigned timeout_ms)
{
	struct machine *m = suspend->m;
	char vsock[512];

	suspend->order = order_call(m->hulld->loop, machine_run_path(m, "vsock.sock", vsock, sizeof(vsock)), what, timeout_ms, on_order, suspend);
}

static void run_hook(struct suspend *suspend)
{
	order(suspend, &(struct order){.verb = ORDER_HOOK, .hook = ORDER_HOOK_BEFORE_SNAPSHOT}, HOOK_TIMEOUT_MS);
}

static void freeze(struct suspend *suspend)
{
	order(suspend, &(struct order){.verb = ORDER_FREEZE}, FREEZE_TIMEOUT_MS);
}

static void thaw(struct suspend *suspend)
{
	order(suspend, &(struct order){.verb = ORDER_THAW}, FREEZE_TIMEOUT_MS);
}

static void set_clock(struct suspend *suspend)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	order(suspend, &(struct order){.verb = ORDER_CLOCK, .unix_ns = now.tv_sec * INT64_C(1000000000) + now.tv_nsec}, CLOCK_TIMEOUT_MS);
}

static void reseed(struct suspend *suspend)
{
	char secret[SEED_CHARACTERS + 1], seed[2 * SEED_CHARACTERS + 1];

	random_base32(secret, SEED_CHARACTERS);
	for (size_t i = 0; i < SEED_CHARACTERS; i++)
		snprintf(seed + 2 * i, 3, "%02x", (unsigned char)secret[i]);
	order(suspend, &(struct order){.verb = ORDER_RESEED, .seed = seed}, CLOCK_TIMEOUT_MS);
	explicit_bzero(secret, sizeof(secret));
	explicit_bzero(seed, sizeof(seed));
}

static void run_hook_after(struct suspend *suspend)
{
	order(suspend, &(struct order){.verb = ORDER_HOOK, .hook = ORDER_HOOK_AFTER_RESTORE}, HOOK_TIMEOUT_MS);
}

/* ---- requests to the monitor ---- */

static void on_call(void *ctx, bool refused, const struct error *err)
{
	struct suspend *suspend = ctx;
	struct error older;

	suspend->call = NULL;
	if (!err) {
		go_on(suspend);
		return;
	}
	if (!refused && err->errnum == ENOENT) {
		error_set(&older, ENOENT, "its monitor was started by an earlier hulld, and cannot be asked: restart the machine");
		err = &older;
	}
	fail(suspend, err, refused);
}

static void call(struct suspend *suspend, const char *method, const char *path, json_t *body)
{
	struct machine *m = suspend->m;
	char socket[512];

	suspend->call = monitor_call(m->hulld->loop, machine_run_path(m, "monitor.sock", socket, sizeof(socket)), method, path, body, on_call, suspend);
}

static void pause_vm(struct suspend *suspend)
{
	suspend->paused = true;
	call(suspend, "PATCH", "/vm", json_pack("{s:s}", "state", "Paused"));
}

/* The next hulld is to find its programs standing still before the guest does. */
static void enter_save(struct suspend *suspend)
{
	if (operation_is(suspend->m, OPERATION_SUSPEND) && !operation_is_in(suspend->m, PHASE_SAVE)) {
		operation_enter(suspend->m, PHASE_SAVE);
		machine_commit(suspend->m);
	}
	go_on(suspend);
}

static void save(struct suspend *suspend)
{
	call(suspend, "PUT", "/snapshot/create", saved_create_request(suspend->m));
}

static void run_vm(struct suspend *suspend)
{
	call(suspend, "PATCH", "/vm", json_pack("{s:s}", "state", "Resumed"));
}

/* A save that an earlier hulld has asked for is over, as the monitor has answered since. */
static void drop(struct suspend *suspend)
{
	struct error err;

	if (saved_drop(suspend->m, &err) < 0)
		fail(suspend, &err, false);
	else
		go_on(suspend);
}

/* ---- saving ---- */

static void check_saved(struct suspend *suspend)
{
	struct error err;

	if (saved_is_whole(suspend->m)) {
		go_on(suspend);
		return;
	}
	error_set(&err, EIO, "its monitor says that it has saved it, and has not");
	fail(suspend, &err, false);
}

static void is_saved(struct machine *m)
{
	supervisor_end_saved(m);
}

static void undo(struct suspend *suspend, bool refused)
{
	if (!refused && !is_at(suspend, pause_vm))
		supervisor_kill(suspend->m, "suspend_failed"); /* who knows what it does? */
	else
		enter(suspend, &undoing, suspend->paused ? 0 : UNDOING_THAW);
}

#define SAVING_SAVE 4
static const struct step saving_steps[] = {{run_hook, "hook before-snapshot"}, {freeze, "freeze"}, {enter_save, "save"}, {pause_vm, "pause"},
	[SAVING_SAVE] = {save, "save"}, {check_saved, "save"}, {NULL, NULL}};
static const struct chain saving = {saving_steps, is_saved, undo};

/* ---- saving what an earlier hulld has begun to save ---- */

/* Its monitor has answered: a save that was asked for before is over, and is not done twice. Where somebody has asked for a resume meanwhile, no
 * phase says how far it had come. */
static void find_saved(struct suspend *suspend)
{
	if (saved_is_whole(suspend->m))
		is_saved(suspend->m);
	else if (operation_is_in(suspend->m, PHASE_SAVE))
		enter(suspend, &saving, SAVING_SAVE);
	else
		go_on(suspend);
}

static void begin_anew(struct machine *m)
{
	enter(m->suspend, &saving, 0);
}

static void runs(struct suspend *suspend)
{
	suspend->paused = suspend->cannot_run;
	go_on(suspend);
}

static const struct step found_steps[] = {
	{pause_vm, "pause"}, {find_saved, "save"}, {run_vm, "resume"}, {runs, "resume"}, {thaw, "thaw"}, {NULL, NULL}};
static const struct chain found = {found_steps, begin_anew, undo};

/* ---- undoing ---- */

static void is_undone(struct machine *m)
{
	char failure[ERROR_MESSAGE_MAX];

	snprintf(failure, sizeof(failure), "%s", suspend_failure(m));
	suspend_forget(m);
	machine_runs_on(m, failure);
}

/* One that cannot even be told to run on is of no use. One that was never paused, as nobody has listened, runs. */
static void undo_failed(struct suspend *suspend, bool refused)
{
	(void)refused;
	if (is_at(suspend, drop) || (is_at(suspend, thaw) && suspend->cannot_run)) {
		supervisor_kill(suspend->m, "suspend_failed");
		return;
	}
	suspend->cannot_run = true;
	go_on(suspend);
}

static const struct step undoing_steps[] = {
	{pause_vm, "pause"}, {drop, "save"}, {run_vm, "resume"}, {runs, "resume"}, [UNDOING_THAW] = {thaw, "thaw"}, {NULL, NULL}};
static const struct chain undoing = {undoing_steps, is_undone, undo_failed};

/* ---- resuming ---- */

static void is_resumed(struct machine *m)
{
	suspend_forget(m);
	supervisor_is_up(m);
}

static void resume_failed(struct suspend *suspend, bool refused)
{
	(void)refused;
	supervisor_kill(suspend->m, "resume_failed");
}

static const struct step restored_steps[] = {
	{set_clock, "clock"}, {reseed, "reseed"}, {run_hook_after, "hook after-restore"}, {thaw, "thaw"}, {NULL, NULL}};
static const struct chain restored = {restored_steps, is_resumed, resume_failed};

/* ---- from outside ---- */

static struct suspend *suspend_of(struct machine *m)
{
	suspend_forget(m);
	m->suspend = calloc(1, sizeof(*m->suspend));
	if (!m->suspend)
		abort();
	m->suspend->m = m;
	m->suspend->began_ns = monotonic_ns();
	return m->suspend;
}

int64_t suspend_timeout_s(const struct machine *m)
{
	int64_t memory_mib = machine_running_spec(m)->memory_mib;

	for (const struct machine *other = m->hulld->machines; other; other = other->next)
		if (other != m && other->record.state == MACHINE_SUSPENDING)
			memory_mib += machine_running_spec(other)->memory_mib;
	return (int64_t)m->hulld->options.start_timeout_s + memory_mib / MIB_PER_S;
}

int64_t suspend_left_ms(const struct machine *m)
{
	int64_t took_ms, left_ms;

	if (!m->suspend || saved_is_whole(m))
		return 0;
	took_ms = (int64_t)((monotonic_ns() - m->suspend->began_ns) / NS_PER_MS);
	left_ms = suspend_timeout_s(m) * MS_PER_S - took_ms;
	return left_ms > 0 ? left_ms : 0;
}

void suspend_begin(struct machine *m)
{
	enter(suspend_of(m), &saving, 0);
}

void suspend_take_up(struct machine *m)
{
	if (saved_is_whole(m))
		is_saved(m);
	else
		enter(suspend_of(m), &found, 0);
}

void suspend_finish_resume(struct machine *m)
{
	enter(suspend_of(m), &restored, 0);
}

void suspend_forget(struct machine *m)
{
	if (!m->suspend)
		return;
	order_cancel(m->suspend->order);
	monitor_call_cancel(m->suspend->call);
	free(m->suspend);
	m->suspend = NULL;
}

bool suspend_is_paused(const struct machine *m)
{
	return m->suspend && m->suspend->paused;
}

const char *suspend_failure(const struct machine *m)
{
	return m->suspend && m->suspend->failure[0] ? m->suspend->failure : NULL;
}
