/* The store: what it was given comes back, names are unique, a newer schema is refused. */
#include "tests/unit/test.h"

#include "api/store.h"
#include "common/checked.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/hull-store-XXXXXX";
static char path[64];

static int make_folder(void **state)
{
	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/hull.db", folder);
	return 0;
}

static int remove_folder(void **state)
{
	static const char *const suffixes[] = {"", "-wal", "-shm"};
	char name[80];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		snprintf(name, sizeof(name), "%s%s", path, suffixes[i]);
		unlink(name);
	}
	return rmdir(folder);
}

static struct machine_record example(const char *id, const char *name)
{
	struct machine_record record = {.rootfs = "sha256:aa", .spec = (char *)"{}", .image_config = (char *)"{}",
		.state = MACHINE_CREATED, .exit_status = -1, .created_at = 5};

	snprintf(record.id, sizeof(record.id), "%s", id);
	snprintf(record.name, sizeof(record.name), "%s", name);
	return record;
}

static int count_and_keep(void *ctx, struct machine_record *record)
{
	struct machine_record *kept = ctx;

	machine_record_done(kept);
	*kept = *record;
	return 0;
}

static void a_machine_comes_back_as_it_was_updated(void **state)
{
	struct machine_record record = example("m1", "one"), back = {0};
	struct error err = {0};
	struct store *store = store_open(path, &err);

	(void)state;
	assert_non_null(store);
	assert_int_equal(store_machine_insert(store, &record, &err), 0);
	record.state = MACHINE_RUNNING;
	record.monitor = (struct process_id){123, 1ull << 40};
	record.restart_at = 77;
	assert_int_equal(store_machine_update(store, &record, &err), 0);
	store_close(store);

	store = store_open(path, &err);
	assert_non_null(store);
	assert_int_equal(store_machines_each(store, count_and_keep, &back, &err), 0);
	assert_string_equal(back.name, "one");
	assert_int_equal(back.state, MACHINE_RUNNING);
	assert_int_equal(back.monitor.pid, 123);
	assert_true(back.monitor.start_time == 1ull << 40);
	assert_int_equal(back.restart_at, 77);
	assert_int_equal(back.exit_status, -1);
	machine_record_done(&back);
	assert_int_equal(store_machine_delete(store, "m1", &err), 0);
	assert_int_equal(store_machine_delete(store, "m1", &err), -ENOENT);
	assert_int_equal(store_machine_update(store, &record, &err), -ENOENT);
	store_close(store);
}

static void a_name_is_taken_once(void **state)
{
	struct machine_record one = example("m1", "same"), two = example("m2", "same");
	struct error err = {0};
	struct store *store = store_open(path, &err);

	(void)state;
	assert_int_equal(store_machine_insert(store, &one, &err), 0);
	assert_int_equal(store_machine_insert(store, &two, &err), -EEXIST);
	assert_int_equal(store_image_put(store, "i", "sha256:aa", "{}", &err), 0);
	assert_int_equal(store_count_blob_users(store, "sha256:aa", &err), 2);
	assert_int_equal(store_machine_delete(store, "m1", &err), 0);
	assert_int_equal(store_count_blob_users(store, "sha256:aa", &err), 1);
	store_close(store);
}

static void a_request_is_kept_with_its_answer(void **state)
{
	struct kept_request kept = {0};
	struct error err = {0};
	struct store *store = store_open(path, &err);

	(void)state;
	assert_int_equal(store_request_get(store, "k", &kept, &err), -ENOENT);
	assert_int_equal(store_request_answer(store, "k", 200, "", "", &err), -ENOENT);
	assert_int_equal(store_request_begin(store, "k", "d1", 7, &err), 0);
	assert_int_equal(store_request_begin(store, "k", "d2", 8, &err), -EEXIST);
	assert_int_equal(store_request_get(store, "k", &kept, &err), 0);
	assert_string_equal(kept.digest, "d1");
	assert_int_equal(kept.begun_at, 7);
	assert_int_equal(kept.status, 0);
	kept_request_done(&kept);
	assert_int_equal(store_request_answer(store, "k", 201, "application/json", "{}\n", &err), 0);
	store_close(store);

	store = store_open(path, &err);
	assert_int_equal(store_requests_prune(store, 7, &err), 0);
	assert_int_equal(store_request_get(store, "k", &kept, &err), 0);
	assert_int_equal(kept.status, 201);
	assert_string_equal(kept.type, "application/json");
	assert_string_equal(kept.body, "{}\n");
	kept_request_done(&kept);
	assert_int_equal(store_requests_prune(store, 8, &err), 0);
	assert_int_equal(store_request_get(store, "k", &kept, &err), -ENOENT);
	assert_int_equal(store_request_begin(store, "k", "d3", 9, &err), 0);
	assert_int_equal(store_request_forget(store, "k", &err), 0);
	assert_int_equal(store_request_forget(store, "k", &err), -ENOENT);
	store_close(store);
}

static void a_newer_schema_is_refused(void **state)
{
	struct error err = {0};
	sqlite3 *db;

	(void)state;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	assert_null(store_open(path, &err));
	assert_non_null(strstr(err.message, "newer hulld"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_machine_comes_back_as_it_was_updated),
		cmocka_unit_test(a_name_is_taken_once),
		cmocka_unit_test(a_request_is_kept_with_its_answer),
		cmocka_unit_test(a_newer_schema_is_refused),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
