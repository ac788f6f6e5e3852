/* hull apply, hull diff: machines, and the volumes and networks that they name, as files say they are. */
#include "cli/bar.h"
#include "cli/commands.h"
#include "cli/machine.h"
#include "cli/manifest.h"
#include "cli/output.h"
#include "cli/plan.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define EXIT_DIFFERENT	1

#define FILE_OPTION {'f', "file", "FILE", "machines, volumes, networks, in JSON or YAML; -: the input; may be repeated"}
#define LABEL_OPTION {'l', "label", "KEY=VALUE", "give all of them that label"}
#define PRUNE_OPTION {0, "prune", NULL, "with -l: delete machines and networks that have that label and are in no file"}

const struct option_def apply_options[] = {
	FILE_OPTION,
	LABEL_OPTION,
	PRUNE_OPTION,
	{0, "dry-run", NULL, "show what would change, and change nothing"},
	{'y', "yes", NULL, "do not ask"},
	{0, "no-start", NULL, "do not start machines that never were started"},
	{0, "restart", NULL, "start those again that run without what was changed"},
	{0, "wait", NULL, "until all that run are healthy"},
	OUTPUT_OPTION,
	QUIET_OPTION("print the names of what was changed only"),
	{0},
};
const struct option_def diff_options[] = {
	FILE_OPTION,
	LABEL_OPTION,
	PRUNE_OPTION,
	OUTPUT_OPTION,
	{0},
};

/* What is waited for, of how many. */
struct going {
	struct bar bar;
	const char *name;
	size_t n, of;
};

struct apply {
	struct client *client;
	const struct args *args;
	bool told; /* people are told what is done */
	struct going *going;
};

/* ---- doing it ---- */

static void tell(const struct apply *apply, const struct plan_step *step, const char *what)
{
	bar_end(&apply->going->bar);
	if (apply->told && args_flag(apply->args, "quiet"))
		printf("%s\n", step->name);
	else if (apply->told)
		printf("%s: %s\n", step->name, what);
	fflush(stdout);
}

static int delete(struct client *client, const struct plan_step *step, struct failure *fail)
{
	cleanup_free char *path = plan_path(step->kind, step->before, step->kind == MANIFEST_MACHINE ? "?force=1" : "");

	return client_delete(client, path, step->etag, fail);
}

static int patch(struct client *client, struct plan_step *step, struct failure *fail)
{
	cleanup_free char *path = plan_path(step->kind, step->before, "");
	json_t *after = NULL;
	int r = client_patch(client, path, step->etag, step->body, &after, fail);

	if (r == 0) {
		json_decref(step->after);
		step->after = after;
	}
	return r;
}

/* It is another than was looked at: has only what changes by itself? */
static int look_again(struct client *client, struct plan_step *step, struct failure *fail)
{
	cleanup_free char *path = plan_path(step->kind, step->before, "");
	json_t *now = NULL;
	char *etag = NULL;
	bool holds;
	int r = client_get_tagged(client, path, &now, &etag, fail);

	if (r < 0)
		return r;
	holds = plan_still_holds(step, now);
	json_decref(now);
	free(step->etag);
	step->etag = etag;
	if (holds)
		return 0;
	error_set(&fail->error, EBUSY, "somebody else has changed it at the same time; it is left as it is");
	return failure_hint(fail, "the same command shows what differs now");
}

/* Changes or deletes it, if it is still as it was shown. */
static int change(struct client *client, struct plan_step *step, struct failure *fail)
{
	unsigned tries = 0;
	int r;

	for (;;) {
		r = step->action == PLAN_DELETE ? delete(client, step, fail) : patch(client, step, fail);
		if (r == 0 || !client_tries_again(&tries, fail))
			return r;
		r = look_again(client, step, fail);
		if (r < 0)
			return r;
	}
}

static int create(struct client *client, struct plan_step *step, struct failure *fail)
{
	cleanup_free char *path = NULL;
	json_t *after = NULL;
	int r;

	if (asprintf(&path, "/v1/%s", manifest_words[step->kind].collection) < 0)
		abort();
	r = client_call(client, "POST", path, step->body, &after, fail);
	if (r == 0) {
		json_decref(step->after);
		step->after = after;
	}
	return r;
}

static bool is_to_be_started(const struct args *args, const struct plan_step *step)
{
	return strcmp(json_text(step->after, "state"), "created") == 0 && !args_flag(args, "no-start");
}

/* One that is suspended is in a run, too: it loses what it was. */
static bool is_to_be_restarted(const struct args *args, const struct plan_step *step)
{
	return args_flag(args, "restart") && json_array_size(json_object_get(step->after, "pending"));
}

/* One that was never started is; one that runs without what was changed is started again, if that was asked for. */
static int set_going(const struct apply *apply, const struct plan_step *step, bool *ret_done, struct failure *fail)
{
	const char *id = json_text(step->after, "id");
	cleanup_free char *start = client_path("machines", id, "/start");

	*ret_done = false;
	if (step->kind != MANIFEST_MACHINE)
		return 0;
	if (is_to_be_started(apply->args, step)) {
		*ret_done = true;
		return client_call(apply->client, "POST", start, NULL, NULL, fail);
	}
	if (!is_to_be_restarted(apply->args, step))
		return 0;
	*ret_done = true;
	return machine_restart(apply->client, id, NULL, fail);
}

/* What was done, and what is not so yet; owned by the caller. "" when there is nothing to say. */
static char *describe(const struct plan_step *step, bool going)
{
	static const char *const done[PLAN_N_ACTIONS] = {
		[PLAN_NOTHING] = "", [PLAN_CREATE] = "created", [PLAN_CHANGE] = "changed", [PLAN_DELETE] = "deleted"};
	const json_t *pending = json_object_get(step->after, "pending"), *field;
	const char *state = json_text(step->after, "state"), *between = step->action == PLAN_NOTHING ? "" : ", ";
	bool is_suspended = strcmp(state, "suspended") == 0;
	char *text = NULL;
	size_t len, i;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		abort();
	fputs(done[step->action], out);
	if (going)
		fprintf(out, "%s%s", between, json_array_size(pending) ? "started again" : "started");
	else if (json_is_true(json_object_get(step->after, "asleep")) && (strcmp(state, "stopped") == 0 || is_suspended))
		fprintf(out, "%sasleep", between);
	else if (strcmp(state, "stopped") == 0 || strcmp(state, "failed") == 0)
		fprintf(out, "%s%s, as it was: `hull start %s`", between, state, step->name);
	else if (is_suspended && !json_array_size(pending))
		fprintf(out, "%ssuspended, as it was: `hull resume %s`", between, step->name);
	else
		json_array_foreach (pending, i, field)
			fprintf(out, "%s%s%s", i ? ", " : between, i ? "" : "at its next start, or with --restart: ", json_string_value(field));
	if (fclose(out) != 0)
		abort();
	return text;
}

static int do_step(const struct apply *apply, struct plan_step *step, struct failure *fail)
{
	cleanup_free char *what = NULL;
	bool going = false;
	int r = step->action == PLAN_CREATE ? create(apply->client, step, fail)
		: step->action == PLAN_NOTHING ? 0
					       : change(apply->client, step, fail);

	/* Somebody else has taken it away. */
	if (r < 0 && step->action == PLAN_DELETE && strcmp(fail->code, "not_found") == 0) {
		memset(fail, 0, sizeof(*fail));
		r = 0;
	}
	step->done = r == 0;
	if (r < 0 && (fail->code[0] || fail->error.errnum == EBUSY))
		return step->wanted ? manifest_refuse(step->wanted, fail) : error_prefix(&fail->error, "%s: ", step->name);
	if (r == 0 && step->action != PLAN_DELETE) {
		r = set_going(apply, step, &going, fail);
		if (r < 0)
			return error_prefix(&fail->error, "%s was %s, and cannot be started: ", step->name,
				step->action == PLAN_CREATE ? "created" : step->action == PLAN_CHANGE ? "changed" : "there");
	}
	if (r < 0)
		return r;
	what = describe(step, going);
	if (step->action != PLAN_NOTHING || going)
		tell(apply, step, what);
	else if (what[0] && !args_flag(apply->args, "quiet"))
		tell(apply, step, what);
	return 0;
}

static void on_waiting(void *ctx)
{
	struct going *going = ctx;
	char what[128];

	snprintf(what, sizeof(what), "%s is waited for", going->name);
	bar_steps(&going->bar, going->n, going->of, what);
}

static void tell_undone(const struct plan *plan, size_t failed)
{
	bool any = false;

	for (size_t i = failed; i < plan->n; i++)
		if (plan->steps[i].action != PLAN_NOTHING && !plan->steps[i].done) {
			fprintf(stderr, "%s%s", any ? ", " : "hull: not done: ", plan->steps[i].name);
			any = true;
		}
	if (any)
		fputc('\n', stderr);
}

static int wait_for_all(const struct apply *apply, const struct plan *plan, struct failure *fail)
{
	int r = 0;

	for (size_t i = 0; i < plan->n && r == 0; i++) {
		const struct plan_step *step = &plan->steps[i];
		json_t *machine = NULL;

		if (step->action == PLAN_DELETE || (!plan_is_active(step->after) && !is_to_be_started(apply->args, step) && !is_to_be_restarted(apply->args, step)))
			continue;
		apply->going->n = i;
		apply->going->name = step->name;
		r = machine_wait_healthy(apply->client, json_text(step->after, "id"), &machine, fail);
		bar_end(&apply->going->bar);
		if (r == 0 && apply->told && !args_flag(apply->args, "quiet"))
			printf("%s: %s\n", step->name, json_object_get(machine, "health") ? "healthy" : "running");
		json_decref(machine);
	}
	return r;
}

static int do_all(const struct apply *apply, struct plan *plan, struct failure *fail)
{
	int r = 0;

	bar_begin(&apply->going->bar, "apply");
	apply->going->of = plan->n;
	client_while_waiting(apply->client, on_waiting, apply->going);
	for (size_t i = 0; i < plan->n && r == 0; i++) {
		apply->going->n = i;
		apply->going->name = plan->steps[i].name;
		r = do_step(apply, &plan->steps[i], fail);
		bar_end(&apply->going->bar);
		if (r < 0)
			tell_undone(plan, i);
	}
	if (r == 0 && args_flag(apply->args, "wait"))
		r = wait_for_all(apply, plan, fail);
	client_while_waiting(apply->client, NULL, NULL);
	return r;
}

/* ---- deciding ---- */

/* Machines are waiting for a start, or a new one, though nothing of them is to change. */
static bool has_to_start(const struct args *args, const struct plan *plan)
{
	for (size_t i = 0; i < plan->n; i++)
		if (plan->steps[i].action == PLAN_NOTHING && (is_to_be_started(args, &plan->steps[i]) || is_to_be_restarted(args, &plan->steps[i])))
			return true;
	return false;
}

/* 1: yes, 0: no, or a usage failure. */
static int ask(const struct args *args, const struct plan *plan, struct failure *fail)
{
	char answer[16] = "";

	if (args_flag(args, "yes"))
		return 1;
	if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
		failure_usage(fail, "--yes", "is needed where nobody can be asked");
		return failure_hint(fail, "`hull diff` shows what would change");
	}
	plan_print_counts(plan, stderr);
	fprintf(stderr, "Do it? [y/N] ");
	return fgets(answer, sizeof(answer), stdin) && (strcasecmp(answer, "y\n") == 0 || strcasecmp(answer, "yes\n") == 0);
}

static int check_args(const struct args *args, enum output_format *ret_format, struct failure *fail)
{
	int r = output_format(args, OUTPUT_TABLE, ret_format, fail);

	if (r == 0 && args_flag(args, "prune") && !args_value(args, "label")) {
		failure_usage(fail, "--prune", "needs --label KEY=VALUE, which says whose machines are meant");
		return failure_hint(fail, "for example --prune -l app=shop");
	}
	return r;
}

static int make(const struct args *args, struct client **ret_client, struct manifest *manifest, struct plan *plan, struct failure *fail)
{
	int r = manifest_read(args, manifest, fail);

	*ret_client = r == 0 ? client_new(args, fail) : NULL;
	if (r == 0 && !*ret_client)
		return -fail->error.errnum;
	if (r == 0)
		r = manifest_strip(manifest, *ret_client, fail);
	return r < 0 ? r : plan_make(*ret_client, manifest, args_value(args, "label"), args_flag(args, "prune"), plan, fail);
}

/* `ret_tried`: something may have been done. */
static int apply_plan(const struct apply *apply, struct plan *plan, bool *ret_tried, struct failure *fail)
{
	const struct args *args = apply->args;
	bool changes = plan->counts[PLAN_NOTHING] < plan->n;
	int r;

	if (apply->told && !args_flag(args, "quiet"))
		plan_print(plan, stdout);
	fflush(stdout);
	if (args_flag(args, "dry-run")) {
		if (apply->told && !args_flag(args, "quiet"))
			plan_print_counts(plan, stdout);
		return 0;
	}
	if (!changes && !has_to_start(args, plan) && apply->told && !args_flag(args, "quiet"))
		printf("nothing to change: %zu as they are\n", plan->counts[PLAN_NOTHING]);
	r = changes ? ask(args, plan, fail) : 1;
	*ret_tried = r > 0;
	if (r > 0)
		return do_all(apply, plan, fail);
	if (r == 0) {
		fprintf(stderr, "hull: nothing was done\n");
		r = 1;
	}
	return r;
}

int apply_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	struct manifest manifest = {0};
	struct plan plan = {0};
	enum output_format format;
	struct going going = {0};
	struct apply apply = {.args = args, .going = &going};
	bool tried = false;
	json_t *described;
	int r = check_args(args, &format, fail);

	if (r == 0)
		r = make(args, &client, &manifest, &plan, fail);
	if (r == 0) {
		apply.client = client;
		apply.told = format == OUTPUT_TABLE;
		r = apply_plan(&apply, &plan, &tried, fail);
	}
	/* Also of what has failed on the way. */
	if ((r == 0 || tried) && format != OUTPUT_TABLE) {
		described = plan_describe(&plan, tried);
		print_value(described, format);
		json_decref(described);
	}
	plan_done(&plan);
	manifest_done(&manifest);
	return r;
}

int diff_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	struct manifest manifest = {0};
	struct plan plan = {0};
	enum output_format format;
	json_t *described;
	int r = check_args(args, &format, fail);

	if (r == 0)
		r = make(args, &client, &manifest, &plan, fail);
	if (r == 0 && format == OUTPUT_TABLE) {
		plan_print(&plan, stdout);
	} else if (r == 0) {
		described = plan_describe(&plan, false);
		print_value(described, format);
		json_decref(described);
	}
	if (r == 0 && plan.counts[PLAN_NOTHING] < plan.n)
		r = EXIT_DIFFERENT;
	plan_done(&plan);
	manifest_done(&manifest);
	return r;
}
