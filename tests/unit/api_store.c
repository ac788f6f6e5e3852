/* The store: what it was given comes back, names are unique, a newer schema is refused. */
#include "tests/unit/test.h"

#include "api/store.h"
#include "common/checked.h"

#include <errno.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
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

static void remove_database(const char *name)
{
	static const char *const suffixes[] = {"", "-wal", "-shm"};
	char file[80];

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		snprintf(file, sizeof(file), "%s%s", name, suffixes[i]);
		unlink(file);
	}
}

static int remove_folder(void **state)
{
	(void)state;
	remove_database(path);
	return rmdir(folder);
}

static struct machine_record example(const char *id, const char *name)
{
	struct machine_record record = {.rootfs = "sha256:aa", .spec = (char *)"{}", .image_config = (char *)"{}",
		.state = MACHINE_CREATED, .exit_status = -1, .created_at = 5};

	snprintf(record.id, sizeof(record.id), "%s", id);
	snprintf(record.project, sizeof(record.project), "%s", PROJECT_DEFAULT);
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
	record.attached = true;
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
	assert_true(back.attached);
	assert_int_equal(back.exit_status, -1);
	machine_record_done(&back);
	assert_null(back.run_spec);
	machine_record_done(&back);
	snprintf(record.name, sizeof(record.name), "other");
	snprintf(record.run_rootfs, sizeof(record.run_rootfs), "sha256:bb");
	record.spec = (char *)"{\"cpus\":2}";
	record.run_spec = record.run_image_config = (char *)"{}";
	assert_int_equal(store_machine_respecify(store, &record, &err), 0);
	assert_int_equal(store_machines_each(store, count_and_keep, &back, &err), 0);
	assert_string_equal(back.name, "other");
	assert_string_equal(back.spec, "{\"cpus\":2}");
	assert_string_equal(back.run_spec, "{}");
	assert_string_equal(back.run_image_config, "{}");
	assert_string_equal(back.run_rootfs, "sha256:bb");
	assert_int_equal(back.monitor.pid, 123);
	machine_record_done(&back);
	assert_int_equal(store_machine_delete(store, "m1", &err), 0);
	assert_int_equal(store_machine_delete(store, "m1", &err), -ENOENT);
	assert_int_equal(store_machine_respecify(store, &record, &err), -ENOENT);
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
	snprintf(two.project, sizeof(two.project), "other");
	assert_int_equal(store_machine_insert(store, &two, &err), 0);
	assert_int_equal(store_machine_delete(store, "m1", &err), 0);
	assert_int_equal(store_machine_delete(store, "m2", &err), 0);
	store_close(store);
}

/* A project has a blob as long as it needs it; what others do with theirs is nothing to it. */
static void a_blob_is_had_by_each_project_for_itself(void **state)
{
	struct machine_record one = example("m1", "one");
	struct error err = {0};
	struct store *store = store_open(path, &err);

	(void)state;
	one.rootfs[0] = 'b';
	assert_int_equal(store_blob_is_owned(store, "default", one.rootfs, &err), 0);
	assert_int_equal(store_blob_own(store, "default", one.rootfs, 100, 5, &err), 0);
	assert_int_equal(store_blob_own(store, "default", one.rootfs, 100, 7, &err), 0);
	assert_int_equal(store_blob_own(store, "other", one.rootfs, 100, 9, &err), 0);
	assert_int_equal(store_count_blob_owners(store, one.rootfs, &err), 2);
	assert_int_equal(store_blob_bytes(store, "default", &err), 100);
	assert_int_equal(store_machine_insert(store, &one, &err), 0);
	assert_int_equal(store_blob_disown(store, "default", one.rootfs, INT64_MAX, &err), 0);
	assert_int_equal(store_blob_is_owned(store, "default", one.rootfs, &err), 1);
	assert_int_equal(store_machine_delete(store, "m1", &err), 0);
	assert_int_equal(store_image_put(store, "other", "i", one.rootfs, "{}", &err), 0);
	assert_int_equal(store_blob_disown_all(store, one.rootfs, 5, &err), 0);
	assert_int_equal(store_count_blob_owners(store, one.rootfs, &err), 2);
	assert_int_equal(store_blob_disown_all(store, one.rootfs, 6, &err), 0);
	assert_int_equal(store_blob_is_owned(store, "default", one.rootfs, &err), 0);
	assert_int_equal(store_blob_is_owned(store, "other", one.rootfs, &err), 1);
	assert_int_equal(store_image_delete(store, "default", "i", &err), -ENOENT);
	assert_int_equal(store_image_delete(store, "other", "i", &err), 0);
	assert_int_equal(store_blob_disown(store, "other", one.rootfs, INT64_MAX, &err), 0);
	assert_int_equal(store_count_blob_owners(store, one.rootfs, &err), 0);
	store_close(store);
}

static int count(void *ctx, struct project_record *record)
{
	project_record_done(record);
	++*(int *)ctx;
	return 0;
}

static void a_project_goes_with_all_that_is_its_own(void **state)
{
	struct project_record project = {.name = "p", .quotas = (char *)"{}", .created_at = 3}, back = {0};
	struct kept_request kept = {0};
	struct error err = {0};
	struct store *store = store_open(path, &err);
	int n = 0;

	(void)state;
	assert_int_equal(store_project_insert(store, &project, &err), 0);
	assert_int_equal(store_project_insert(store, &project, &err), -EEXIST);
	project.quotas = (char *)"{\"machines\":1}";
	assert_int_equal(store_project_update(store, &project, &err), 0);
	assert_int_equal(store_project_get(store, "p", &back, &err), 0);
	assert_string_equal(back.quotas, "{\"machines\":1}");
	assert_int_equal(back.created_at, 3);
	project_record_done(&back);
	assert_int_equal(store_projects_each(store, count, &n, &err), 0);
	assert_int_equal(n, 2); /* and `default` */
	assert_int_equal(store_blob_own(store, "p", "sha256:cc", 1, 1, &err), 0);
	assert_int_equal(store_request_begin(store, "p", "k", "d", 5, 1, &err), 0);
	assert_int_equal(store_request_get(store, "default", "k", " h", &kept, &err), -ENOENT);
	assert_int_equal(store_project_delete(store, "p", 0, &err), 0);
	assert_int_equal(store_project_delete(store, "p", 0, &err), -ENOENT);
	assert_int_equal(store_project_get(store, "p", &back, &err), -ENOENT);
	assert_int_equal(store_project_update(store, &project, &err), -ENOENT);
	assert_int_equal(store_request_get(store, "p", "k", " h", &kept, &err), -ENOENT);
	assert_int_equal(store_count_blob_owners(store, "sha256:cc", &err), 0);
	store_close(store);
}

/* As version 2 left it. */
static const char version_2[] =
	"CREATE TABLE images ("
	" name TEXT PRIMARY KEY NOT NULL, rootfs TEXT NOT NULL, document TEXT NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE machines ("
	" id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, rootfs TEXT NOT NULL, spec TEXT NOT NULL,"
	" image_config TEXT NOT NULL, created_at INTEGER NOT NULL,"
	" state TEXT NOT NULL, cause_code TEXT NOT NULL, cause_message TEXT NOT NULL, exit_status INTEGER NOT NULL,"
	" monitor_pid INTEGER NOT NULL, monitor_start INTEGER NOT NULL, passt_pid INTEGER NOT NULL,"
	" passt_start INTEGER NOT NULL, boot_id TEXT NOT NULL, restarts INTEGER NOT NULL, failures INTEGER NOT NULL,"
	" restart_at INTEGER NOT NULL, stop_timeout_s INTEGER NOT NULL, restart_wanted INTEGER NOT NULL,"
	" started_at INTEGER NOT NULL, stopped_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE INDEX machines_rootfs ON machines (rootfs);"
	"CREATE INDEX images_rootfs ON images (rootfs);"
	"ALTER TABLE machines ADD COLUMN request_key TEXT NOT NULL DEFAULT '';"
	"CREATE TABLE requests (key TEXT PRIMARY KEY NOT NULL, digest TEXT NOT NULL, begun_at INTEGER NOT NULL,"
	" status INTEGER NOT NULL, type TEXT NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE INDEX requests_begun_at ON requests (begun_at);"
	"INSERT INTO images VALUES ('i', 'sha256:aa', '{\"size_bytes\":4096}'), ('j', 'sha256:aa', '{\"size_bytes\":4096}');"
	"INSERT INTO machines VALUES ('m7', 'seven', 'sha256:bb', '{}', '{\"a\":1}', 1, 'running', 'c', 'm', 3, 4, 5, 6, 7, 'b',"
	" 8, 9, 10, 11, 1, 13, 14, 'key'),"
	" ('m8', 'eight', 'sha256:bb', '{}', '{}', 0, 'created', '', '', -1, 0, 0, 0, 0, '', 0, 0, 0, 0, 0, 0, 0, 'cut short');"
	"INSERT INTO requests VALUES ('key', 'd', 7, 201, 't', 'b'), ('cut short', 'd', 0, 0, '', '');"
	"PRAGMA user_version = 2;";

static int find_request(void *ctx, struct machine_record *record)
{
	bool found = strcmp(record->name, "eight") == 0 && record->request == *(int64_t *)ctx;

	machine_record_done(record);
	return found;
}

static void what_is_older_than_projects_is_the_default_projects(void **state)
{
	char old[80];
	struct machine_record back = {0};
	struct kept_request kept = {0};
	struct host_record host;
	struct error err = {0};
	struct store *store;
	int64_t number;
	sqlite3 *db;

	(void)state;
	snprintf(old, sizeof(old), "%s/old.db", folder);
	assert_int_equal(sqlite3_open(old, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, version_2, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	store = store_open(old, &err);
	if (!store)
		fail_msg("%s", err.message);
	assert_int_equal(store_machines_each(store, count_and_keep, &back, &err), 0);
	assert_string_equal(back.project, "default");
	assert_string_equal(back.name, "seven");
	assert_string_equal(back.rootfs, "sha256:bb");
	assert_string_equal(back.image_config, "{\"a\":1}");
	assert_int_equal(back.state, MACHINE_RUNNING);
	assert_int_equal(back.passt.pid, 6);
	assert_int_equal(back.restart_at, 10);
	assert_true(back.restart_wanted);
	assert_int_equal(back.stopped_at, 14);
	assert_null(back.run_spec);
	assert_string_equal(back.run_rootfs, "");
	number = back.request;
	machine_record_done(&back);
	json_decref(store_image_get(store, "default", "j", &err));
	assert_int_equal(store_blob_bytes(store, "default", &err), 4096);
	assert_int_equal(store_blob_is_owned(store, "default", "sha256:bb", &err), 1);
	assert_int_equal(store_request_get(store, "default", "key", " h", &kept, &err), 0);
	assert_int_equal(kept.status, 201);
	assert_true(kept.number > 0);
	assert_int_equal(number, 0); /* the machine is older than the request: it is another's, by the same key */
	kept_request_done(&kept);
	assert_int_equal(store_request_get(store, "default", "cut short", " h", &kept, &err), 0);
	number = kept.number;
	kept_request_done(&kept);
	assert_int_equal(store_machines_each(store, find_request, &number, &err), 1);
	assert_int_equal(store_host_get(store, &host, &err), 0);
	assert_int_equal(host.state, HOST_SERVING);
	assert_int_equal(host.drain_machines, 0);
	store_close(store);
	remove_database(old);
}

static void a_request_is_kept_with_its_answer(void **state)
{
	struct kept_request kept = {0};
	struct error err = {0};
	struct store *store = store_open(path, &err);

	(void)state;
	assert_int_equal(store_request_get(store, "default", "k", " h", &kept, &err), -ENOENT);
	assert_int_equal(store_request_answer(store, "default", "k", 200, "", "", &err), -ENOENT);
	assert_int_equal(store_request_begin(store, "default", "k", "d1", 5, 7, &err), 0);
	assert_int_equal(store_request_begin(store, "default", "k", "d2", 5, 8, &err), -EEXIST);
	assert_int_equal(store_request_get(store, "default", "k", " h", &kept, &err), 0);
	assert_string_equal(kept.digest, "d1");
	assert_int_equal(kept.begun_at, 7);
	assert_int_equal(kept.number, 5);
	assert_int_equal(kept.status, 0);
	kept_request_done(&kept);
	assert_int_equal(store_request_answer(store, "default", "k", 201, "application/json", "{}\n", &err), 0);
	store_close(store);

	store = store_open(path, &err);
	assert_int_equal(store_requests_prune(store, 7, 7, 9, &err), 0);
	assert_int_equal(store_request_begin(store, "default", "ahead", "d", 6, 100, &err), 0);
	assert_int_equal(store_requests_prune(store, 7, 50, 9, &err), 1);
	assert_int_equal(store_requests_prune(store, 7, 50, 9, &err), 0);
	assert_int_equal(store_request_get(store, "default", "ahead", " h", &kept, &err), 0);
	assert_int_equal(kept.begun_at, 50);
	kept_request_done(&kept);
	assert_int_equal(store_request_forget(store, "default", "ahead", " h", &err), 0);
	assert_int_equal(store_request_get(store, "default", "k", " h", &kept, &err), 0);
	assert_int_equal(kept.status, 201);
	assert_string_equal(kept.type, "application/json");
	assert_string_equal(kept.body, "{}\n");
	kept_request_done(&kept);
	assert_int_equal(store_requests_prune(store, 8, 8, 9, &err), 1);
	assert_int_equal(store_request_get(store, "default", "k", " h", &kept, &err), -ENOENT);
	assert_int_equal(store_request_begin(store, "default", "k", "d3", 5, 9, &err), 0);
	assert_int_equal(store_request_forget(store, "default", "k", " h", &err), 0);
	assert_int_equal(store_request_forget(store, "default", "k", " h", &err), -ENOENT);
	assert_int_equal(store_request_begin(store, "default", " h", "d4", 5, 9, &err), 0);
	assert_int_equal(store_request_get(store, "default", "k", " h", &kept, &err), 0);
	assert_string_equal(kept.digest, "d4");
	kept_request_done(&kept);
	assert_int_equal(store_request_forget(store, "default", "k", " h", &err), 0);
	store_close(store);
}

static void begin_some(struct store *store, const char *project, int n)
{
	char key[16];
	struct error err;

	for (int i = 0; i < n; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		assert_int_equal(store_request_begin(store, project, key, "d", i + 1, i, &err), 0);
	}
}

static bool is_kept(struct store *store, const char *project, const char *key)
{
	struct kept_request kept = {0};
	struct error err;
	int r = store_request_get(store, project, key, " h", &kept, &err);

	kept_request_done(&kept);
	return r == 0;
}

/* However many there are, nobody waits for more than a few. */
static void requests_are_forgotten_some_at_a_time(void **state)
{
	const struct project_record other = {.name = "other", .quotas = (char *)"{}", .created_at = 1};
	struct error err = {0};
	struct store *store = store_open(path, &err);

	(void)state;
	assert_int_equal(store_project_insert(store, &other, &err), 0);
	begin_some(store, "default", 10);
	begin_some(store, "other", 4);
	assert_int_equal(store_requests_trim(store, "other", 4, 3, &err), 0);
	assert_int_equal(store_requests_trim(store, "default", 6, 3, &err), 3);
	assert_int_equal(store_requests_trim(store, "default", 6, 3, &err), 1);
	assert_int_equal(store_requests_trim(store, "default", 6, 3, &err), 0);
	assert_false(is_kept(store, "default", "k3"));
	assert_true(is_kept(store, "default", "k4") && is_kept(store, "other", "k0"));
	/* Six and four: those before 7 are k4, k5, k6, and the other's four. */
	for (int left = 7; left > 0; left -= 2)
		assert_int_equal(store_requests_prune(store, 7, 9, 2, &err), left > 2 ? 2 : left);
	assert_int_equal(store_requests_prune(store, 7, 9, 2, &err), 0);
	assert_false(is_kept(store, "default", "k6") || is_kept(store, "other", "k3"));
	assert_true(is_kept(store, "default", "k7") && is_kept(store, "default", "k9"));
	/* Of a clock that was set back to 6. */
	assert_int_equal(store_requests_prune(store, 0, 6, 2, &err), 2);
	assert_int_equal(store_requests_prune(store, 0, 6, 2, &err), 1);
	assert_int_equal(store_requests_prune(store, 0, 6, 2, &err), 0);
	assert_int_equal(store_requests_prune(store, 7, 7, 9, &err), 3);
	store_close(store);
}

static int list_event(void *ctx, const struct event_record *event)
{
	char *list = ctx;

	snprintf(list + strlen(list), 1000 - strlen(list), "%d %s %s;", (int)event->id, event->type, event->name);
	return 0;
}

static void assert_events(struct store *store, const char *project, int64_t after, const char *expected)
{
	char list[1000] = "";
	struct error err;

	assert_int_equal(store_events_each(store, project, after, 100, list_event, list, &err), 0);
	assert_string_equal(list, expected);
}

/* The answer to its deletion waits for no more than a few of its rows; nobody finds the others, and one of the same name waits for them. */
static void what_a_deleted_project_has_left_goes_some_at_a_time(void **state)
{
	const struct project_record gone = {.name = "gone", .quotas = (char *)"{}", .created_at = 1};
	struct project_record back;
	struct error err = {0};
	struct store *store = store_open(path, &err);
	int n, sum = 0;

	(void)state;
	assert_int_equal(store_project_insert(store, &gone, &err), 0);
	begin_some(store, "gone", 200);
	begin_some(store, "default", 3);
	for (char name[] = "a"; name[0] <= 'z'; name[0]++)
		assert_int_equal(store_image_put(store, "gone", name, "sha256:aa", "{}", &err), 0);
	assert_int_equal(store_project_delete(store, "gone", 0, &err), 0);
	assert_int_equal(store_project_delete(store, "gone", 0, &err), -ENOENT);
	assert_int_equal(store_project_get(store, "gone", &back, &err), -ENOENT);
	assert_int_equal(store_project_insert(store, &gone, &err), -EBUSY);
	store_close(store);

	store = store_open(path, &err);
	while ((n = store_projects_forget(store, &err)) > 0) {
		assert_int_equal(store_project_insert(store, &gone, &err), -EBUSY);
		assert_true(n <= 64);
		sum += n;
	}
	assert_int_equal(n, 0);
	assert_true(sum > 100);
	assert_false(is_kept(store, "gone", "k0") || is_kept(store, "gone", "k199"));
	assert_true(is_kept(store, "default", "k0"));
	assert_int_equal(store_project_insert(store, &gone, &err), 0);
	assert_events(store, "gone", 0, "1 project.created gone;");
	assert_int_equal(store_requests_prune(store, 9, 9, 9, &err), 3);
	assert_int_equal(store_project_delete(store, "gone", INT64_MAX, &err), 0);
	assert_int_equal(store_project_insert(store, &gone, &err), 0); /* there was time for all */
	assert_int_equal(store_project_delete(store, "gone", 0, &err), 0);
	store_close(store);
}

static void count_call(void *ctx, const char *project)
{
	assert_string_equal(project, "e");
	++*(int *)ctx;
}

static void what_changes_is_an_event_once_and_what_fails_none(void **state)
{
	struct machine_record one = example("m1", "one");
	struct event_record event = {.project = "e", .type = "machine.healthy", .subject = "m1", .name = "one", .data = "{}"};
	struct error err = {0};
	struct store *store = store_open(path, &err);
	int calls = 0;

	(void)state;
	store_on_event(store, count_call, &calls);
	snprintf(one.project, sizeof(one.project), "e");
	one.state = MACHINE_CREATING;
	assert_int_equal(store_machine_insert(store, &one, &err), 0);
	assert_int_equal(store_machine_update(store, &one, &err), 0);
	assert_events(store, "e", 0, "");
	assert_int_equal(calls, 0);
	one.state = MACHINE_CREATED;
	assert_int_equal(store_machine_update(store, &one, &err), 0);
	one.state = MACHINE_STARTING;
	one.started_at = 5;
	assert_int_equal(store_machine_update(store, &one, &err), 0);
	one.monitor.pid = 7; /* nobody sees it */
	assert_int_equal(store_machine_update(store, &one, &err), 0);
	one.started_at = 6;
	assert_int_equal(store_machine_update(store, &one, &err), 0);
	one.state = MACHINE_FAILED;
	one.restart_at = 9;
	assert_int_equal(store_machine_update(store, &one, &err), 0);
	one.restart_at = 0;
	assert_int_equal(store_machine_update(store, &one, &err), 0);
	assert_int_equal(store_event_insert(store, &event, &err), 0);
	assert_int_equal(store_machine_insert(store, &one, &err), -EEXIST);
	assert_int_equal(store_machine_respecify(store, &one, &err), 0);
	one.spec = (char *)"{\"cpus\":2}";
	assert_int_equal(store_machine_respecify(store, &one, &err), 0);
	assert_int_equal(store_machine_delete(store, "m1", &err), 0);
	assert_events(store, "e", 0,
		"1 machine.created one;2 machine.starting one;3 machine.starting one;4 machine.failed one;"
		"5 machine.restart_scheduled one;6 machine.restart_cancelled one;7 machine.healthy one;"
		"8 machine.updated one;9 machine.deleted one;");
	assert_events(store, "e", 8, "9 machine.deleted one;");
	assert_events(store, "nobody", 0, "");
	assert_true(calls >= 9);
	store_close(store);
}

/* In one transaction, where no file may become longer than `bytes`. */
static int start_and_add(struct store *store, const struct machine_record *started, const struct machine_record *added, rlim_t bytes)
{
	struct rlimit limit = {bytes, RLIM_INFINITY};
	struct error err = {0};
	int r;

	assert_int_equal(store_transaction_begin(store, &err), 0);
	r = store_machine_update(store, started, &err);
	if (r == 0)
		r = store_machine_insert(store, added, &err);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	r = store_transaction_end(store, r, &err);
	limit.rlim_cur = RLIM_INFINITY;
	setrlimit(RLIMIT_FSIZE, &limit);
	return r;
}

static void a_transaction_that_fails_is_nothing_and_the_next_is_whole(void **state)
{
	struct machine_record one = example("m1", "one"), taken = example("m2", "one"), two = example("m2", "two"), back = {0};
	struct error err = {0};
	struct store *store = store_open(path, &err);

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	snprintf(one.project, sizeof(one.project), "t");
	snprintf(taken.project, sizeof(taken.project), "t");
	snprintf(two.project, sizeof(two.project), "t");
	assert_int_equal(store_machine_insert(store, &one, &err), 0);
	one.state = MACHINE_STARTING;
	assert_int_equal(start_and_add(store, &one, &taken, RLIM_INFINITY), -EEXIST);
	assert_int_equal(start_and_add(store, &one, &two, 512), -EIO); /* COMMIT itself */
	assert_events(store, "t", 0, "1 machine.created one;");
	store_close(store);
	store = store_open(path, &err);
	assert_int_equal(store_machines_each(store, count_and_keep, &back, &err), 0);
	assert_string_equal(back.name, "one");
	assert_int_equal(back.state, MACHINE_CREATED);
	machine_record_done(&back);
	assert_int_equal(start_and_add(store, &one, &two, RLIM_INFINITY), 0);
	assert_events(store, "t", 0, "1 machine.created one;2 machine.starting one;3 machine.created two;");
	assert_int_equal(store_machine_delete(store, "m1", &err), 0);
	assert_int_equal(store_machine_delete(store, "m2", &err), 0);
	store_close(store);
}

static void an_event_is_kept_by_age_and_number_and_its_id_never_given_again(void **state)
{
	int64_t before, last;
	struct error err = {0};
	struct store *store = store_open(path, &err);
	int n;

	(void)state;
	assert_int_equal(store_events_prune(store, 0, 2, 4, &err), 4);
	while ((n = store_events_prune(store, 0, 2, 1, &err)) > 0)
		assert_int_equal(n, 1);
	assert_int_equal(n, 0);
	assert_events(store, "e", 0, "8 machine.updated one;9 machine.deleted one;");
	assert_int_equal(store_events_range(store, "e", &before, &last, &err), 0);
	assert_int_equal(before, 7);
	assert_int_equal(last, 9);
	assert_int_equal(store_events_since(store, "e", INT64_MAX, &err), 9);
	assert_int_equal(store_events_since(store, "e", 1, &err), 0);
	assert_int_equal(store_events_prune(store, INT64_MAX, 100, 1, &err), 1);
	assert_in_range(store_events_prune(store, INT64_MAX, 100, 1000, &err), 1, 999);
	assert_int_equal(store_events_prune(store, INT64_MAX, 100, 1000, &err), 0);
	assert_events(store, "e", 0, "");
	store_close(store);

	store = store_open(path, &err);
	assert_int_equal(store_events_range(store, "e", &before, &last, &err), 0);
	assert_int_equal(before, 9);
	assert_int_equal(last, 9);
	assert_int_equal(store_events_range(store, "nobody", &before, &last, &err), 0);
	assert_int_equal(before + last, 0);
	assert_int_equal(store_image_put(store, "e", "i", "sha256:aa", "{}", &err), 0);
	assert_int_equal(store_image_put(store, "e", "i", "sha256:bb", "{}", &err), 0);
	assert_int_equal(store_image_delete(store, "e", "i", &err), 0);
	assert_events(store, "e", 0, "10 image.put i;11 image.put i;12 image.deleted i;");
	store_close(store);
}

static int keep_webhook(void *ctx, struct webhook_record *record)
{
	struct webhook_record *kept = ctx;

	webhook_record_done(kept);
	*kept = *record;
	return 0;
}

static int count_webhook_event(void *ctx, const struct event_record *event)
{
	int *counts = ctx;

	if (strncmp(event->type, "webhook.", 8) == 0)
		counts[event->type[8] == 'c' ? 0 : event->type[8] == 'u' ? 1 : event->type[9] == 'i' ? 2 : 3]++;
	return 0;
}

static void a_webhook_is_kept_and_only_what_it_is_to_be_is_an_event(void **state)
{
	struct webhook_record hook = {.id = "w1", .project = "hooks", .spec = strdup("{\"enabled\":true}"), .sealed = (unsigned char *)strdup("s\1t"),
		.sealed_len = 3, .created_at = 1, .updated_at = 2, .cursor = 3, .missed = 4, .failures = 5, .failing_since = 6, .next_attempt_at = 7,
		.last_attempt_at = 8, .last_delivered_at = 9, .last_status = 10, .last_error = "e", .disabled_reason = ""};
	const struct webhook_record *const both[] = {&hook};
	struct project_record project = {.name = "hooks", .quotas = strdup("{}")};
	struct webhook_record back = {.id = ""};
	struct error err = {0};
	struct store *store = store_open(path, &err);
	int counts[4] = {0};

	(void)state;
	assert_int_equal(store_project_insert(store, &project, &err), 0);
	assert_int_equal(store_webhook_insert(store, &hook, &err), 0);
	hook.cursor = 30;
	snprintf(hook.last_error, sizeof(hook.last_error), "other");
	assert_int_equal(store_webhooks_progress(store, both, 1, &err), 0);
	assert_int_equal(store_webhooks_each(store, keep_webhook, &back, &err), 0);
	assert_string_equal(back.id, "w1");
	assert_string_equal(back.project, "hooks");
	assert_string_equal(back.spec, hook.spec);
	assert_int_equal(back.sealed_len, 3);
	assert_memory_equal(back.sealed, "s\1t", 3);
	assert_int_equal(back.created_at + 10 * back.updated_at + 100 * back.missed + 1000 * back.failures, 5421);
	assert_int_equal(back.failing_since + 10 * back.next_attempt_at + 100 * back.last_attempt_at + 1000 * back.last_delivered_at, 9876);
	assert_int_equal(back.cursor, 30);
	assert_int_equal(back.last_status, 10);
	assert_string_equal(back.last_error, "other");
	free(hook.spec);
	hook.spec = strdup("{\"enabled\":false}");
	snprintf(hook.disabled_reason, sizeof(hook.disabled_reason), "gone");
	assert_int_equal(store_webhook_respecify(store, &hook, &err), 0);
	assert_int_equal(store_webhook_respecify(store, &hook, &err), 0);
	assert_int_equal(store_webhook_delete(store, "w1", &err), 0);
	assert_int_equal(store_webhook_delete(store, "w1", &err), -ENOENT);
	assert_int_equal(store_webhook_respecify(store, &hook, &err), -ENOENT);
	assert_int_equal(store_events_each(store, "hooks", 0, 100, count_webhook_event, counts, &err), 0);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(counts[i], 1); /* created, updated, disabled, deleted */
	assert_int_equal(store_webhook_insert(store, &hook, &err), 0);
	assert_int_equal(store_project_delete(store, "hooks", 0, &err), 0);
	assert_int_equal(store_webhook_delete(store, "w1", &err), -ENOENT);
	webhook_record_done(&back);
	webhook_record_done(&hook);
	project_record_done(&project);
	store_close(store);
}

static void the_host_stays_as_it_was_put(void **state)
{
	struct host_record host = {.state = HOST_DRAINED}, draining = {HOST_DRAINING, 7, 8};
	struct error err;
	struct store *store = store_open(path, &err);
	int64_t before = 0, last = 0;
	char expected[64];

	(void)state;
	assert_non_null(store);
	assert_int_equal(store_host_get(store, &host, &err), 0);
	assert_int_equal(host.state, HOST_SERVING);
	assert_int_equal(store_events_range(store, "default", &before, &last, &err), 0);
	assert_int_equal(store_host_set(store, &draining, &err), 0);
	store_close(store);
	store = store_open(path, &err);
	assert_int_equal(store_host_get(store, &host, &err), 0);
	assert_memory_equal(&host, &draining, sizeof(host));
	snprintf(expected, sizeof(expected), "%d host.draining host;", (int)last + 1);
	assert_events(store, "default", last, expected);
	store_close(store);
}

static int count_certificate(void *ctx, const struct certificate_record *record)
{
	(void)ctx;
	(void)record;
	return 1;
}

static void a_certificate_is_a_projects_own(void **state)
{
	struct certificate_record first = {.project = "default", .hostname = "a.localhost", .certificate = (char *)"one",
		.sealed = (unsigned char *)"\0k", .sealed_len = 2, .created_at = 1, .updated_at = 2};
	struct certificate_record read;
	struct error err = {0};
	struct store *store = store_open(path, &err);

	(void)state;
	assert_int_equal(store_certificate_put(store, &first, &err), 0);
	first.certificate = (char *)"two";
	first.created_at = 9; /* that of the first time stays */
	assert_int_equal(store_certificate_put(store, &first, &err), 0);
	assert_int_equal(store_certificate_get(store, "default", "a.localhost", &read, &err), 0);
	assert_string_equal(read.certificate, "two");
	assert_int_equal(read.created_at, 1);
	assert_int_equal(read.sealed_len, 2);
	assert_memory_equal(read.sealed, first.sealed, 2);
	certificate_record_done(&read);
	assert_int_equal(store_certificate_get_undated(store, &read, &err), 0);
	assert_string_equal(read.hostname, "a.localhost");
	certificate_record_done(&read);
	assert_int_equal(store_certificate_set_date(store, "default", "a.localhost", 77, &err), 0);
	assert_int_equal(store_certificate_get_undated(store, &read, &err), -ENOENT);
	assert_int_equal(store_certificate_refuse(store, "default", "a.localhost", "why", &err), 0);
	assert_int_equal(store_certificate_refuse(store, "other", "a.localhost", "why", &err), -ENOENT);
	assert_int_equal(store_certificate_get(store, "default", "a.localhost", &read, &err), 0);
	assert_int_equal(read.expires_at, 77);
	assert_string_equal(read.refused, "why");
	certificate_record_done(&read);
	assert_int_equal(store_certificates_each(store, "default", "a.localhost", count_certificate, NULL, &err), 0);
	assert_int_equal(store_certificates_each(store, "default", "", count_certificate, NULL, &err), 1);
	assert_int_equal(store_certificate_put(store, &first, &err), 0);
	assert_int_equal(store_certificate_get(store, "default", "a.localhost", &read, &err), 0);
	assert_string_equal(read.refused, "");
	certificate_record_done(&read);
	assert_int_equal(store_certificate_get(store, "other", "a.localhost", &read, &err), -ENOENT);
	assert_int_equal(store_certificate_delete(store, "other", "a.localhost", &err), -ENOENT);
	assert_int_equal(store_certificate_delete(store, "default", "a.localhost", &err), 0);
	assert_int_equal(store_certificate_get(store, "default", "a.localhost", &read, &err), -ENOENT);
	store_close(store);
}

static int keep_network(void *ctx, const struct network_record *record)
{
	char *names = ctx;

	strcat(names, record->name);
	strcat(names, " ");
	return 0;
}

static void a_network_is_a_projects_own_and_machines_have_addresses(void **state)
{
	struct network_record network = {.id = "naaaaaaaaaaaa", .project = "default", .name = "back", .spec = (char *)"{}", .created_at = 7};
	struct network_record other = network, got;
	struct machine_record machine = example("mn", "on-a-network"), kept = {0};
	char names[80] = "";
	struct error err;
	struct store *store = store_open(path, &err);

	(void)state;
	assert_non_null(store);
	assert_int_equal(store_network_insert(store, &network, &err), 0);
	assert_int_equal(store_network_insert(store, &network, &err), -EEXIST);
	snprintf(other.project, sizeof(other.project), "other");
	snprintf(other.id, sizeof(other.id), "nbbbbbbbbbbbb");
	assert_int_equal(store_network_insert(store, &other, &err), 0);
	network.spec = (char *)"{\"labels\":{}}";
	assert_int_equal(store_network_update(store, &network, &err), 0);
	assert_int_equal(store_network_get(store, "default", "back", &got, &err), 0);
	assert_string_equal(got.id, network.id);
	assert_string_equal(got.spec, network.spec);
	assert_int_equal(got.created_at, 7);
	network_record_done(&got);
	assert_int_equal(store_network_get(store, "third", "back", &got, &err), -ENOENT);
	assert_int_equal(store_networks_each(store, "other", keep_network, names, &err), 0);
	assert_string_equal(names, "back ");
	assert_int_equal(store_networks_each(store, NULL, keep_network, names, &err), 0);
	assert_string_equal(names, "back back back ");
	assert_int_equal(store_network_delete(store, "other", "back", &err), 0);
	assert_int_equal(store_network_delete(store, "other", "back", &err), -ENOENT);
	assert_int_equal(store_network_get(store, "default", "back", &got, &err), 0);
	network_record_done(&got);
	assert_int_equal(store_network_delete(store, "default", "back", &err), 0);

	machine.address = 0xc0a80002;
	assert_int_equal(store_machine_insert(store, &machine, &err), 0);
	machine.address = 0xc0a80003;
	machine.run_address = 0xc0a80002;
	assert_int_equal(store_machine_respecify(store, &machine, &err), 0);
	assert_int_equal(store_machines_each(store, count_and_keep, &kept, &err), 0);
	assert_int_equal(kept.address, 0xc0a80003);
	assert_int_equal(kept.run_address, 0xc0a80002);
	machine.run_address = 0;
	assert_int_equal(store_machine_update(store, &machine, &err), 0);
	assert_int_equal(store_machines_each(store, count_and_keep, &kept, &err), 0);
	assert_int_equal(kept.address, 0xc0a80003);
	assert_int_equal(kept.run_address, 0);
	machine_record_done(&kept);
	assert_int_equal(store_machine_delete(store, "mn", &err), 0);
	store_close(store);
}

static off_t size_of(const char *name, const char *suffix)
{
	char file[96];
	struct stat st;

	snprintf(file, sizeof(file), "%s%s", name, suffix);
	return stat(file, &st) == 0 ? st.st_size : 0;
}

/* No file becomes longer than the database and its journal are: as on a full disk. */
static void let_files_grow(const char *name, bool they_may)
{
	off_t db = size_of(name, ""), journal = size_of(name, "-wal");
	struct rlimit limit = {they_may ? RLIM_INFINITY : (rlim_t)(db > journal ? db : journal), RLIM_INFINITY};

	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* What a query that gives one says of a database. */
static int number_of(const char *name, const char *query)
{
	sqlite3_stmt *stmt;
	sqlite3 *db;
	int number;

	assert_int_equal(sqlite3_open(name, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, query, -1, &stmt, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
	number = sqlite3_column_int(stmt, 0);
	sqlite3_finalize(stmt);
	sqlite3_close(db);
	return number;
}

static int free_pages(const char *name)
{
	return number_of(name, "PRAGMA freelist_count");
}

/* JSON of so many bytes; the caller frees. */
static char *text_of(size_t bytes)
{
	char *text = malloc(bytes + 1);

	assert_non_null(text);
	memset(text, 'x', bytes);
	text[0] = text[bytes - 1] = '"';
	text[bytes] = '\0';
	return text;
}

static void a_large_row_takes_no_room_that_is_for_what_ends(void **state)
{
	struct machine_record large = example("m2", "large"), huge = example("m3", "huge");
	struct network_record network = {.id = "n1", .project = "t", .name = "back", .spec = text_of(264 << 10)};
	char *small = text_of(4000), full[80], name[16];
	struct error err = {0};
	struct store *store;
	int r, n = 0;

	(void)state;
	snprintf(full, sizeof(full), "%s.full", path);
	store = store_open(full, &err);
	large.spec = network.spec;
	huge.spec = text_of(1 << 20);
	let_files_grow(full, false);
	while (free_pages(full) > 100) {
		snprintf(name, sizeof(name), "i%d", n++);
		assert_int_equal(store_image_put(store, "t", name, "sha256:aa", small, &err), 0);
	}
	assert_int_equal(store_machine_insert(store, &large, &err), -ENOSPC);
	assert_int_equal(store_transaction_begin(store, &err), 0);
	r = store_network_insert(store, &network, &err);
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(store_transaction_end(store, r, &err), -ENOSPC);
	do {
		snprintf(name, sizeof(name), "i%d", n++);
		r = store_image_put(store, "t", name, "sha256:aa", small, &err);
	} while (r == 0);
	assert_int_equal(r, -ENOSPC);
	assert_in_range(free_pages(full), 60, 70);
	assert_int_equal(store_image_delete(store, "t", "i0", &err), 0);
	/* Where the disk has room, so has the database, also for what is larger than all that it keeps. */
	let_files_grow(full, true);
	usleep(150000); /* as a full disk is not asked all the time */
	assert_int_equal(store_machine_insert(store, &large, &err), 0);
	assert_int_equal(store_machine_insert(store, &huge, &err), 0);
	assert_int_equal(store_check_room(store, strlen(network.spec), &err), 0);
	assert_int_equal(store_transaction_begin(store, &err), 0);
	assert_int_equal(store_transaction_end(store, store_network_insert(store, &network, &err), &err), 0);
	store_close(store);
	remove_database(full);
	free(network.spec);
	free(huge.spec);
	free(small);
}

/* Writes, and copies what it has written into the database's file. */
static void write_as_another_process(const char *name)
{
	sqlite3 *db;

	if (sqlite3_open(name, &db) != SQLITE_OK)
		_exit(1);
	sqlite3_busy_timeout(db, 60000);
	for (int i = 0; i < 8; i++)
		if (sqlite3_exec(db,
			    "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 512) INSERT INTO other SELECT randomblob(16384) FROM n;"
			    "PRAGMA wal_checkpoint", NULL, NULL, NULL) != SQLITE_OK)
			_exit(2);
	_exit(0);
}

static void what_another_process_writes_is_not_written_over(void **state)
{
	char shared[80];
	struct error err = {0};
	struct store *store;
	sqlite3 *db;
	pid_t child;
	int status;

	(void)state;
	snprintf(shared, sizeof(shared), "%s.shared", path);
	store_close(store_open(shared, &err));
	assert_int_equal(sqlite3_open(shared, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "CREATE TABLE other (bytes BLOB)", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	child = fork();
	if (child == 0)
		write_as_another_process(shared);
	store = store_open(shared, &err);
	assert_non_null(store);
	while (waitpid(child, &status, WNOHANG) == 0)
		(void)store_check_room(store, 1 << 20, &err); /* which the other may take at once */
	assert_int_equal(status, 0);
	store_close(store);
	assert_int_equal(number_of(shared, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"), 1);
	remove_database(shared);
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
		cmocka_unit_test(a_blob_is_had_by_each_project_for_itself),
		cmocka_unit_test(a_project_goes_with_all_that_is_its_own),
		cmocka_unit_test(what_is_older_than_projects_is_the_default_projects),
		cmocka_unit_test(a_request_is_kept_with_its_answer),
		cmocka_unit_test(requests_are_forgotten_some_at_a_time),
		cmocka_unit_test(what_a_deleted_project_has_left_goes_some_at_a_time),
		cmocka_unit_test(what_changes_is_an_event_once_and_what_fails_none),
		cmocka_unit_test(a_transaction_that_fails_is_nothing_and_the_next_is_whole),
		cmocka_unit_test(an_event_is_kept_by_age_and_number_and_its_id_never_given_again),
		cmocka_unit_test(a_webhook_is_kept_and_only_what_it_is_to_be_is_an_event),
		cmocka_unit_test(the_host_stays_as_it_was_put),
		cmocka_unit_test(a_certificate_is_a_projects_own),
		cmocka_unit_test(a_network_is_a_projects_own_and_machines_have_addresses),
		cmocka_unit_test(a_large_row_takes_no_room_that_is_for_what_ends),
		cmocka_unit_test(what_another_process_writes_is_not_written_over),
		cmocka_unit_test(a_newer_schema_is_refused),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
