/* Counts in a file that another process reads. */
#include "tests/unit/test.h"

#include "common/accounting.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/hull-accounting.XXXXXX";

static const char *in_folder(const char *name)
{
	static char paths[4][sizeof(folder) + 16];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static void what_is_counted_can_be_read(void **state)
{
	struct accounting read;
	struct error err;
	struct stat st;

	(void)state;
	accounting->disk_reads = 7; /* before there is a file: of no one */
	assert_int_equal(accounting_open(in_folder("counts"), &err), 0);
	assert_int_equal(stat(in_folder("counts"), &st), 0);
	assert_int_equal(st.st_size, ACCOUNTING_BYTES);
	assert_int_equal(st.st_mode & 0777, 0600);
	accounting->net_sent_bytes = 5;
	accounting->disk_flushes = UINT64_MAX;
	assert_int_equal(accounting_read(in_folder("counts"), &read), 0);
	assert_int_equal(read.net_sent_bytes, 5);
	assert_int_equal(read.disk_reads, 0);
	assert_true(read.disk_flushes == UINT64_MAX);
}

static void who_counts_next_begins_anew(void **state)
{
	struct accounting read;
	struct error err;

	(void)state;
	assert_int_equal(accounting_open(in_folder("again"), &err), 0);
	accounting->disk_writes = 3;
	assert_int_equal(accounting_open(in_folder("again"), &err), 0);
	assert_int_equal(accounting_read(in_folder("again"), &read), 0);
	assert_int_equal(read.disk_writes, 0);
}

/* As a machine's folder may have it: nothing yet, half of it, another version's, or what somebody has put there. */
static void what_is_no_count_is_not_read(void **state)
{
	struct accounting read = {.version = ACCOUNTING_VERSION + 1};
	struct error err;
	FILE *file;

	(void)state;
	assert_int_equal(accounting_read(in_folder("none"), &read), -ENOENT);
	read.version = ACCOUNTING_VERSION + 1;
	file = fopen(in_folder("other"), "w");
	fwrite(&read, sizeof(read), 1, file);
	fclose(file);
	assert_int_equal(accounting_read(in_folder("other"), &read), -ENODATA);
	assert_int_equal(truncate(in_folder("other"), sizeof(read) / 2), 0);
	assert_int_equal(accounting_read(in_folder("other"), &read), -ENODATA);
	assert_int_equal(symlink(in_folder("counts"), in_folder("link")), 0);
	assert_int_equal(accounting_read(in_folder("link"), &read), -ELOOP);
	assert_int_equal(accounting_open(in_folder("link"), &err), -ELOOP);
	assert_int_equal(accounting_open(in_folder("no/file"), &err), -ENOENT);
	assert_non_null(strstr(err.message, "cannot count in "));
}

static int remove_folder(void **state)
{
	(void)state;
	for (const char *const *name = (const char *const[]){"counts", "again", "other", "link", NULL}; *name; name++)
		unlink(in_folder(*name));
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_counted_can_be_read),
		cmocka_unit_test(who_counts_next_begins_anew),
		cmocka_unit_test(what_is_no_count_is_not_read),
	};

	if (!mkdtemp(folder))
		return 1;
	return cmocka_run_group_tests(tests, NULL, remove_folder);
}
