/* Buffers that end, files that are whole, sockets that are refused politely, sums that do not wrap. */
#include "tests/unit/test.h"

#include "common/buf.h"
#include "common/checked.h"
#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static char folder[] = "/tmp/hull-unit-XXXXXX";

static const char *in_folder(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[300];

	(void)state;
	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

static void a_buffer_takes_its_maximum_and_not_a_byte_more(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 1000);
	for (int i = 0; i < 100; i++)
		assert_int_equal(buf_append(&buf, "0123456789", 10), 0);
	assert_int_equal(buf_append(&buf, "x", 1), -EMSGSIZE);
	assert_int_equal(buf_printf(&buf, "%d", 1), -EMSGSIZE);
	assert_int_equal(buf.len, 1000);
	buf_consume(&buf, 995);
	assert_string_equal(buf.data, "56789");
	assert_int_equal(buf_printf(&buf, "-%03d", 7), 0);
	assert_string_equal(buf.data, "56789-007");
	buf_done(&buf);
	buf_done(&buf);
}

static void a_secret_buffer_grows_as_any_other(void **state)
{
	struct buf buf;
	char text[1000];

	(void)state;
	memset(text, 'x', sizeof(text));
	buf_init(&buf, 100000);
	buf.secret = true;
	for (int i = 0; i < 50; i++)
		assert_int_equal(buf_append(&buf, text, sizeof(text)), 0);
	assert_int_equal(buf.len, 50000);
	for (size_t i = 0; i < buf.len; i++)
		assert_int_equal(buf.data[i], 'x');
	assert_int_equal(buf.data[buf.len], '\0');
	buf_done(&buf);
	assert_null(buf.data);
	assert_false(buf.secret);
}

static void a_file_of_just_the_maximum_is_read_a_larger_one_refused(void **state)
{
	struct error err;
	struct buf buf;

	(void)state;
	assert_int_equal(write_file_atomic(in_folder("f"), "12345", 5, 0600, &err), 0);
	buf_init(&buf, 5);
	assert_int_equal(buf_read_file(&buf, in_folder("f")), 0);
	assert_string_equal(buf.data, "12345");
	buf_done(&buf);
	buf_init(&buf, 4);
	assert_int_equal(buf_read_file(&buf, in_folder("f")), -EFBIG);
	buf_done(&buf);
	buf_init(&buf, 4);
	assert_int_equal(buf_read_file(&buf, in_folder("absent")), -ENOENT);
	buf_done(&buf);
}

static void an_atomic_write_replaces_and_leaves_nothing_beside(void **state)
{
	struct error err;
	struct stat st;
	struct buf buf;

	(void)state;
	assert_int_equal(make_directories(in_folder("a/b/c"), 0755, &err), 0);
	assert_int_equal(make_directories(in_folder("a/b/c"), 0755, &err), 0);
	assert_int_equal(write_file_atomic(in_folder("a/b/c/f"), "old", 3, 0600, &err), 0);
	assert_int_equal(write_file_atomic(in_folder("a/b/c/f"), "new", 3, 0640, &err), 0);
	assert_int_equal(stat(in_folder("a/b/c/f"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	buf_init(&buf, 10);
	assert_int_equal(buf_read_file(&buf, in_folder("a/b/c/f")), 0);
	assert_string_equal(buf.data, "new");
	buf_done(&buf);
	assert_int_equal(write_file_whole(in_folder("a/b/c/f"), "newer", 5, 0600, &err), 0);
	buf_init(&buf, 10);
	assert_int_equal(buf_read_file(&buf, in_folder("a/b/c/f")), 0);
	assert_string_equal(buf.data, "newer");
	buf_done(&buf);
	assert_int_equal(unlink(in_folder("a/b/c/f")), 0);
	assert_int_equal(rmdir(in_folder("a/b/c")), 0); /* fails if a temporary file stayed */
	assert_int_equal(write_file_atomic(in_folder("a/none/f"), "x", 1, 0600, &err), -ENOENT);
	assert_int_equal(write_file_whole(in_folder("a/none/f"), "x", 1, 0600, &err), -ENOENT);
	assert_int_equal(write_file_atomic(in_folder("f"), "x", 1, 0600, &err), 0);
	assert_int_equal(make_directories(in_folder("f/g"), 0755, &err), -ENOTDIR);
}

static void a_dead_socket_is_replaced_a_living_one_and_a_file_are_not(void **state)
{
	char long_path[300];
	struct error err;
	int fd, client;

	(void)state;
	fd = unix_listen(in_folder("s"), 4, 0600, &err);
	assert_true(fd >= 0);
	client = unix_connect(in_folder("s"), 0, &err);
	assert_true(client >= 0);
	assert_int_equal(unix_listen(in_folder("s"), 4, 0600, &err), -EADDRINUSE);
	close(fd);
	close(client);
	fd = unix_listen(in_folder("s"), 4, 0600, &err);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(unix_connect(in_folder("s"), 0, &err), -ECONNREFUSED);
	assert_int_equal(write_file_atomic(in_folder("plain"), "x", 1, 0600, &err), 0);
	assert_int_equal(unix_listen(in_folder("plain"), 4, 0600, &err), -EEXIST);
	memset(long_path, 'x', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	assert_int_equal(unix_listen(long_path, 4, 0600, &err), -ENAMETOOLONG);
}

static void ranges_at_the_edge_of_the_address_space(void **state)
{
	uint64_t sum;

	(void)state;
	assert_true(range_fits(0, 0, 0));
	assert_true(range_fits(10, 0, 10));
	assert_true(range_fits(4, 6, 10));
	assert_false(range_fits(5, 6, 10));
	assert_false(range_fits(UINT64_MAX, 2, 10));
	assert_false(range_fits(2, UINT64_MAX, UINT64_MAX));
	assert_false(checked_add(UINT64_MAX, (uint64_t)1, &sum));
	assert_true(checked_mul((uint64_t)3, (uint64_t)5, &sum));
	assert_int_equal(sum, 15);
	assert_int_equal(align_up(4097, 4096), 8192);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_buffer_takes_its_maximum_and_not_a_byte_more),
		cmocka_unit_test(a_secret_buffer_grows_as_any_other),
		cmocka_unit_test(a_file_of_just_the_maximum_is_read_a_larger_one_refused),
		cmocka_unit_test(an_atomic_write_replaces_and_leaves_nothing_beside),
		cmocka_unit_test(a_dead_socket_is_replaced_a_living_one_and_a_file_are_not),
		cmocka_unit_test(ranges_at_the_edge_of_the_address_space),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
