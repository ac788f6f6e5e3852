/* Operations: what is asked for later takes the place of what is under way, each ends as what it waits for does, all of it is written with
 * its machine or not at all, and the next hulld goes on with it. */
#include "tests/unit/test.h"

#include "api/operation.h"
#include "api/progress.h"
#include "common/checked.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct world {
	char folder[32], path[64];
	struct hulld hulld;
	struct machine m;
	struct error err;
};

static void insert(struct world *w)
{
	w->m = (struct machine){.hulld = &w->hulld,
		.spec.network = (char *)"default",
		.record = {.id = "mabc", .project = "p", .name = "one", .rootfs = "sha256:aa", .spec = (char *)"{}",
			.image_config = (char *)"{}", .state = MACHINE_CREATED, .exit_status = -1, .created_at = 5}};
	assert_int_equal(store_machine_insert(w->hulld.store, &w->m.record, &w->err), 0);
	machine_index_add(&w->m);
}

static int setup(void **state)
{
	static const char *const projects[] = {"p", "q"};
	struct world *w = calloc(1, sizeof(*w));

	strcpy(w->folder, "/tmp/hull-operations-XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	snprintf(w->path, sizeof(w->path), "%s/hull.db", w->folder);
	w->hulld.store = store_open(w->path, &w->err);
	assert_non_null(w->hulld.store);
	for (size_t i = 0; i < ARRAY_SIZE(projects); i++) {
		struct project_record project = {.quotas = (char *)"{}", .created_at = 1};

		snprintf(project.name, sizeof(project.name), "%s", projects[i]);
		assert_int_equal(store_project_insert(w->hulld.store, &project, &w->err), 0);
	}
	insert(w);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	static const char *const suffixes[] = {"", "-wal", "-shm"};
	struct world *w = *state;
	char name[80];

	operations_free(&w->m);
	machine_index_remove(&w->m);
	store_close(w->hulld.store);
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		snprintf(name, sizeof(name), "%s%s", w->path, suffixes[i]);
		unlink(name);
	}
	rmdir(w->folder);
	free(w);
	return 0;
}

static void commit(struct world *w)
{
	assert_int_equal(operation_commit(&w->m, &w->err), 0);
}

/* As "kind state phase; …", in the order in which they were begun. */
static int list_one(void *ctx, const struct operation_record *record)
{
	size_t len = strlen(ctx);

	snprintf((char *)ctx + len, 1000 - len, "%s %s%s%s; ", operation_kind_names[record->kind], operation_state_names[record->state],
		record->phase[0] ? " " : "", record->phase);
	return 0;
}

static void assert_rows(struct world *w, const char *expected)
{
	char list[1000] = "";

	assert_int_equal(store_operations_each(w->hulld.store, "p", 0, "", list_one, list, &w->err), 0);
	assert_string_equal(list, expected);
}

/* Those begun within one ms are in no order. */
static void begin(struct world *w, enum operation_kind kind, int64_t timeout_ms)
{
	int64_t at = now_ms();

	while (now_ms() == at)
		;
	operation_begin(&w->m, kind, timeout_ms, &(struct operation_origin){.by = REQUESTED_BY_HOST});
}

static int keep(void *ctx, const struct operation_record *record)
{
	char *text = ctx;

	snprintf(text, 2000, "%s %s %s", record->phases, record->error, record->cancelled_by);
	return 0;
}

static const char *row(struct world *w, const char *id)
{
	static char text[2000];

	assert_int_equal(store_operation_get(w->hulld.store, "p", id, keep, text, &w->err), 0);
	return text;
}

static void it_is_written_with_its_machine(void **state)
{
	struct world *w = *state;
	char id[OPERATION_ID_BYTES + 1];

	begin(w, OPERATION_START, 1000);
	snprintf(id, sizeof(id), "%s", operation_latest(&w->m));
	operation_enter(&w->m, PHASE_DISK);
	assert_rows(w, "");
	w->m.record.state = MACHINE_STARTING;
	commit(w);
	assert_rows(w, "start running disk; ");
	operation_enter(&w->m, PHASE_MONITOR);
	operation_enter(&w->m, PHASE_KERNEL);
	operation_enter(&w->m, PHASE_KERNEL);
	assert_rows(w, "start running disk; ");
	operation_machine_is_up(&w->m);
	assert_null(operation_current(&w->m));
	commit(w);
	assert_rows(w, "start succeeded; ");
	assert_non_null(strstr(row(w, id), "\"disk\""));
	assert_non_null(strstr(row(w, id), "\"kernel\""));
	assert_null(strstr(row(w, id), "null"));
	assert_int_equal(store_operation_get(w->hulld.store, "q", id, keep, NULL, &w->err), -ENOENT);
	assert_null(w->m.operations);
	operation_succeed(&w->m); /* nothing is under way */
	operation_enter(&w->m, PHASE_AGENT);
	commit(w);
}

static void a_phase_that_begins_anew_forgets_what_followed(void **state)
{
	struct world *w = *state;

	begin(w, OPERATION_START, 1000);
	operation_enter(&w->m, PHASE_DISK);
	operation_enter(&w->m, PHASE_NETWORK);
	operation_enter(&w->m, PHASE_KERNEL);
	operation_enter(&w->m, PHASE_NETWORK);
	commit(w);
	assert_rows(w, "start running network; ");
	assert_null(strstr(row(w, operation_latest(&w->m)), "kernel"));
	assert_non_null(strstr(row(w, operation_latest(&w->m)), "disk"));
	assert_true(operation_is_in(&w->m, PHASE_NETWORK));
}

static void what_comes_later_takes_its_place_and_the_same_joins_it(void **state)
{
	struct world *w = *state;
	char first[OPERATION_ID_BYTES + 1];

	begin(w, OPERATION_START, 1000);
	snprintf(first, sizeof(first), "%s", operation_latest(&w->m));
	commit(w);
	begin(w, OPERATION_STOP, 60000);
	commit(w);
	assert_rows(w, "start cancelled; stop running; ");
	assert_non_null(strstr(row(w, first), operation_latest(&w->m)));
	operation_begin_or_join(&w->m, OPERATION_STOP, 90000, &(struct operation_origin){.by = REQUESTED_BY_HOST});
	assert_true(operation_time_left_ms(&w->m, INT64_MAX) <= 60000);
	operation_begin_or_join(&w->m, OPERATION_STOP, 1000, &(struct operation_origin){.by = REQUESTED_BY_HOST});
	assert_true(operation_time_left_ms(&w->m, INT64_MAX) <= 1000);
	commit(w);
	assert_rows(w, "start cancelled; stop running; ");
	operation_set_timeout(&w->m, -5);
	assert_int_equal(operation_time_left_ms(&w->m, 100), 0);
	operation_succeed(&w->m);
	commit(w);
	assert_int_equal(operation_time_left_ms(&w->m, 100), 100);
	assert_rows(w, "start cancelled; stop succeeded; ");
}

static void what_cannot_be_written_did_not_happen(void **state)
{
	struct world *w = *state;

	begin(w, OPERATION_START, 1000);
	operation_enter(&w->m, PHASE_KERNEL);
	commit(w);
	snprintf(w->m.record.id, sizeof(w->m.record.id), "gone");
	begin(w, OPERATION_STOP, 1000);
	assert_int_equal(operation_commit(&w->m, &w->err), -ENOENT);
	assert_rows(w, "start running kernel; ");
	operation_undo(&w->m);
	assert_true(operation_is(&w->m, OPERATION_START));
	assert_true(operation_is_in(&w->m, PHASE_KERNEL));
	assert_false(operation_is_cancelled(&w->m));
	/* Nobody undoes an end: it is written with what comes next. */
	operation_fail(&w->m, PROBLEM_TIMEOUT, "too late");
	assert_int_equal(operation_commit(&w->m, &w->err), -ENOENT);
	snprintf(w->m.record.id, sizeof(w->m.record.id), "mabc");
	begin(w, OPERATION_START, 1000);
	operation_undo(&w->m);
	commit(w);
	assert_rows(w, "start failed; ");
	begin(w, OPERATION_START, 1000);
	operation_undo(&w->m);
	operation_undo(&w->m);
	commit(w);
	assert_rows(w, "start failed; ");
}

static void assert_end(struct world *w, enum operation_kind kind, struct machine_end end, bool again, const char *expected)
{
	begin(w, kind, 1000);
	commit(w);
	operation_machine_has_ended(&w->m, &end, again);
	commit(w);
	assert_rows(w, expected);
	while (w->m.operations)
		operation_succeed(&w->m), commit(w);
	assert_true(store_operations_trim(w->hulld.store, "p", 0, 9, &w->err) > 0);
	assert_rows(w, "");
}

static void it_ends_as_its_machine_does(void **state)
{
	const struct machine_end died = {"monitor_died", "", -1, true}, over = {"poweroff", "", 0, false},
				 off = {"poweroff", "", -1, false}, killed = {"killed", "", -1, false};
	struct world *w = *state;

	assert_end(w, OPERATION_START, died, false, "start failed; ");
	assert_end(w, OPERATION_START, over, false, "start succeeded; ");
	assert_end(w, OPERATION_START, off, false, "start failed; ");
	assert_end(w, OPERATION_STOP, died, false, "stop succeeded; ");
	assert_end(w, OPERATION_KILL, killed, false, "kill succeeded; ");
	assert_end(w, OPERATION_RESTART, killed, true, "restart running; ");
	assert_end(w, OPERATION_RESTART, died, false, "restart failed; ");
	assert_end(w, OPERATION_DELETE, killed, false, "delete running ports; ");
	/* A workload that ends as it is saved was not saved, whatever its status; what cannot be resumed is started, and that is part of it. */
	assert_end(w, OPERATION_SUSPEND, over, false, "suspend failed; ");
	assert_end(w, OPERATION_SUSPEND, died, false, "suspend failed; ");
	assert_end(w, OPERATION_RESUME, died, true, "resume running; ");
	assert_end(w, OPERATION_RESUME, died, false, "resume failed; ");
}

static void a_machine_that_goes_ends_it(void **state)
{
	struct world *w = *state;

	begin(w, OPERATION_RESTART, 1000);
	commit(w);
	assert_int_equal(operation_commit_removal(&w->m, &w->err), 0);
	assert_rows(w, "restart cancelled; ");
	machine_index_remove(&w->m);
	insert(w);
	begin(w, OPERATION_DELETE, 1000);
	commit(w);
	assert_int_equal(operation_commit_removal(&w->m, &w->err), 0);
	assert_rows(w, "restart cancelled; delete succeeded; ");
	begin(w, OPERATION_DELETE, 1000);
	assert_int_equal(operation_commit_removal(&w->m, &w->err), -ENOENT);
	assert_null(operation_current(&w->m));
}

static void assert_progress(struct operation_record record, int64_t done, int64_t total)
{
	struct progress progress;

	assert_true(operation_progress(&record, &progress));
	assert_int_equal(progress.done, done);
	assert_int_equal(progress.total, total);
	assert_int_equal(progress.unit, PROGRESS_PHASES);
}

static void how_far_it_is_never_goes_back(void **state)
{
	static const struct {
		enum operation_phase phase;
		int done;
	} steps[] = {{PHASE_CONNECTIONS, 0}, {PHASE_WORKLOAD, 1}, {PHASE_MONITOR_END, 2}, {PHASE_NETWORK, 2}, {PHASE_MONITOR, 3}, {PHASE_KERNEL, 4},
		/* A crash of hulld, or a guest's reset: it begins anew. */
		{PHASE_NETWORK, 4}, {PHASE_MONITOR, 4}, {PHASE_KERNEL, 4}, {PHASE_AGENT, 5},
		/* Somebody has added a check meanwhile. */
		{PHASE_HEALTH, 6}};
	struct world *w = *state;
	struct operation_record record;
	struct progress none;

	begin(w, OPERATION_RESTART, 1000);
	assert_false(operation_progress(operation_current(&w->m), &none));
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		operation_enter(&w->m, steps[i].phase);
		assert_progress(*operation_current(&w->m), steps[i].done, 6);
	}
	commit(w);
	operations_free(&w->m);
	assert_int_equal(operations_load(&w->hulld, &w->err), 0);
	record = *operation_current(&w->m);
	assert_progress(record, 6, 6);
	record.reached = PHASE_KERNEL;
	assert_progress(record, 4, 6);
	record.state = OPERATION_FAILED;
	assert_progress(record, 4, 6);
	record.state = OPERATION_SUCCEEDED;
	assert_progress(record, 6, 6);
}

static void a_suspend_and_a_resume_have_phases_of_their_own(void **state)
{
	struct world *w = *state;

	begin(w, OPERATION_SUSPEND, 1000);
	operation_enter(&w->m, PHASE_HOOK);
	assert_progress(*operation_current(&w->m), 0, 2);
	operation_enter(&w->m, PHASE_SAVE);
	assert_progress(*operation_current(&w->m), 1, 2);
	begin(w, OPERATION_RESUME, 1000); /* which waits for that, in no phase */
	operation_enter(&w->m, PHASE_NETWORK);
	assert_progress(*operation_current(&w->m), 0, 3);
	operation_enter(&w->m, PHASE_MONITOR);
	operation_enter(&w->m, PHASE_AGENT);
	assert_progress(*operation_current(&w->m), 2, 3);
	operation_enter(&w->m, PHASE_NETWORK); /* it is started anew, and boots */
	operation_enter(&w->m, PHASE_KERNEL);
	assert_progress(*operation_current(&w->m), 2, 3);
	operation_machine_is_up(&w->m);
	commit(w);
	assert_rows(w, "suspend cancelled; resume succeeded; ");
}

static void the_next_hulld_goes_on_with_it(void **state)
{
	struct operation_record other = {.id = "opother", .project = "p", .machine = "mgone", .name = "gone", .kind = OPERATION_STOP,
		.phases = "[]", .error = "", .created_at = 6};
	struct world *w = *state;

	begin(w, OPERATION_START, 1000);
	operation_enter(&w->m, PHASE_KERNEL);
	commit(w);
	operations_free(&w->m);
	assert_int_equal(store_operation_put(w->hulld.store, &other, &w->err), 0);
	snprintf(other.id, sizeof(other.id), "opolder");
	snprintf(other.machine, sizeof(other.machine), "mabc");
	other.phases = "nonsense";
	assert_int_equal(store_operation_put(w->hulld.store, &other, &w->err), 0);
	assert_int_equal(operations_load(&w->hulld, &w->err), 0);
	assert_non_null(strstr(row(w, "opother"), "not_found"));
	assert_true(operation_is(&w->m, OPERATION_START));
	assert_true(operation_is_in(&w->m, PHASE_KERNEL));
	operation_machine_is_up(&w->m);
	commit(w);
	assert_rows(w, "stop cancelled; stop failed; start succeeded; ");
	assert_null(w->m.operations);
}

static void old_ones_go_but_none_that_is_under_way(void **state)
{
	struct operation_record record = {.project = "p", .machine = "mabc", .name = "one", .state = OPERATION_SUCCEEDED, .phases = "[]",
		.error = ""};
	struct world *w = *state;

	for (int i = 0; i < 5; i++) {
		snprintf(record.id, sizeof(record.id), "op%d", i);
		record.kind = i;
		record.created_at = i + 1;
		record.state = i == 1 ? OPERATION_RUNNING : OPERATION_SUCCEEDED;
		assert_int_equal(store_operation_put(w->hulld.store, &record, &w->err), 0);
	}
	snprintf(record.id, sizeof(record.id), "opq");
	snprintf(record.project, sizeof(record.project), "q");
	assert_int_equal(store_operation_put(w->hulld.store, &record, &w->err), 0);
	/* Some at a time. */
	assert_int_equal(store_operations_trim(w->hulld.store, "p", 2, 2, &w->err), 1);
	assert_rows(w, "start succeeded; stop running; kill succeeded; delete succeeded; ");
	assert_int_equal(store_operations_trim(w->hulld.store, "q", 2, 2, &w->err), 0);
	assert_int_equal(store_operations_prune(w->hulld.store, 2, 9, &w->err), 1);
	assert_rows(w, "stop running; kill succeeded; delete succeeded; ");
	assert_int_equal(store_operations_prune(w->hulld.store, 6, 2, &w->err), 2);
	assert_rows(w, "stop running; ");
	assert_int_equal(store_operations_prune(w->hulld.store, 5, 2, &w->err), 0);
	assert_int_equal(store_operation_get(w->hulld.store, "q", "opq", keep, (char[2000]){0}, &w->err), 0);
}

static void a_time_is_read_as_it_was_written(void **state)
{
	static const int64_t times[] = {1, 999, 1000, 951826830123, 1795679999999, 4102444800000};
	static const char *const bad[] = {"", "2026", "2026-11-26T08:15:00Z", "yesterday"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
		char *text = format_time(times[i]);

		assert_int_equal(parse_time(text), times[i]);
		free(text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(parse_time(bad[i]), 0);
	assert_int_equal(parse_time(NULL), 0);
}

static void a_phase_knows_when_it_began(void **state)
{
	struct world *w = *state;
	int64_t before = now_ms();

	assert_int_equal(operation_phase_since(&w->m), 0);
	operation_begin(&w->m, OPERATION_START, 0, &operation_by_hulld);
	assert_int_equal(operation_phase_since(&w->m), 0);
	operation_enter(&w->m, PHASE_KERNEL);
	assert_in_range(operation_phase_since(&w->m), before, now_ms());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_time_is_read_as_it_was_written),
		cmocka_unit_test_setup_teardown(a_phase_knows_when_it_began, setup, teardown),
		cmocka_unit_test_setup_teardown(it_is_written_with_its_machine, setup, teardown),
		cmocka_unit_test_setup_teardown(a_phase_that_begins_anew_forgets_what_followed, setup, teardown),
		cmocka_unit_test_setup_teardown(what_comes_later_takes_its_place_and_the_same_joins_it, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_written_did_not_happen, setup, teardown),
		cmocka_unit_test_setup_teardown(it_ends_as_its_machine_does, setup, teardown),
		cmocka_unit_test_setup_teardown(a_machine_that_goes_ends_it, setup, teardown),
		cmocka_unit_test_setup_teardown(how_far_it_is_never_goes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(a_suspend_and_a_resume_have_phases_of_their_own, setup, teardown),
		cmocka_unit_test_setup_teardown(the_next_hulld_goes_on_with_it, setup, teardown),
		cmocka_unit_test_setup_teardown(old_ones_go_but_none_that_is_under_way, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
