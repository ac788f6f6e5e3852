/* The command line: every option in both spellings, and what is refused. */
#include "tests/unit/test.h"
#include "vmm/options.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ARGV(...)                                                                                            \
	(char *[])                                                                                           \
	{                                                                                                    \
		"hull-vmm", __VA_ARGS__, NULL                                                                \
	}

static int parse(char *argv[], struct options *ret, struct error *err)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	*err = (struct error){0};
	return options_parse(argc, argv, ret, err);
}

static void test_defaults(void **state)
{
	struct options options;
	struct error err;

	(void)state;
	assert_int_equal(parse(ARGV("--config-file", "f", "--no-api"), &options, &err), 0);
	assert_string_equal(options.config_file, "f");
	assert_string_equal(options.id, "hull-vmm");
	assert_int_equal(options.output.log_fd, -1);
	assert_int_equal(options.status_fd, -1);
	assert_int_equal(options.output.limit_bytes, 0);
	assert_int_equal(options.shutdown_timeout_s, 30);
	assert_false(options.output.boot_timer);
	assert_null(options.gdb_socket);
	assert_null(options.logger.level);
	assert_null(options.logger.log_path);
	assert_false(options.logger.has_show_level);
}

static void test_all_of_them(void **state)
{
	struct options options;
	struct error err;
	char number[16], with_equals[32];
	int fd = open("/dev/null", O_WRONLY);

	(void)state;
	snprintf(number, sizeof(number), "%d", fd);
	snprintf(with_equals, sizeof(with_equals), "--log-fd=%d", fd);
	assert_int_equal(parse(ARGV("--no-api", "--config-file=a=b", "--id", "web-1_x", with_equals,
				       "--status-fd", number, "--output-limit=16", "--level=Debug",
				       "--metrics-path", "/m", "--log-path", "/l", "--module=vmm", "--show-level",
				       "--show-log-origin", "--shutdown-timeout", "0", "--boot-timer", "--gdb-socket=/g"),
				 &options, &err),
		0);
	assert_string_equal(options.config_file, "a=b");
	assert_string_equal(options.id, "web-1_x");
	assert_int_equal(options.output.log_fd, fd);
	assert_int_equal(options.status_fd, fd);
	assert_int_equal(options.output.limit_bytes, 16 << 20);
	assert_string_equal(options.metrics_path, "/m");
	assert_string_equal(options.logger.level, "Debug");
	assert_string_equal(options.logger.log_path, "/l");
	assert_string_equal(options.logger.module, "vmm");
	assert_true(options.logger.show_level && options.logger.show_log_origin);
	assert_int_equal(options.shutdown_timeout_s, 0);
	assert_true(options.output.boot_timer);
	assert_string_equal(options.gdb_socket, "/g");
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
}

static void test_help_and_version_ask_for_nothing_else(void **state)
{
	struct options options;
	struct error err;

	(void)state;
	assert_int_equal(parse(ARGV("--help"), &options, &err), 0);
	assert_true(options.help);
	assert_int_equal(parse(ARGV("--version", "--nonsense"), &options, &err), 0);
	assert_true(options.version);
}

static void test_firecracker_by_name(void **state)
{
	struct options options;
	struct error err;
	char *bare[] = {"/usr/bin/firecracker", NULL};
	char *full[] = {"firecracker", "--id", "vm1", "--api-sock=/a", "--no-seccomp", "--start-time-us", "5", "--start-time-cpu-us=0",
		"--parent-cpu-time-us=7", "--http-api-max-payload-size", "1024", NULL};

	(void)state;
	assert_int_equal(parse(bare, &options, &err), 0);
	assert_true(options.as_firecracker);
	assert_string_equal(options.api_socket, "/run/firecracker.socket");
	assert_string_equal(options.id, "anonymous-instance");
	assert_int_equal(options.shutdown_timeout_s, 0);
	assert_int_equal(options.api_body_bytes_max, 51200);
	assert_int_equal(options.mmds_bytes_max, 51200);
	assert_null(options.metadata_file);
	assert_null(options.config_file);
	assert_int_equal(parse(full, &options, &err), 0);
	assert_string_equal(options.api_socket, "/a");
	assert_int_equal(options.api_body_bytes_max, 1024);
	assert_int_equal(options.mmds_bytes_max, 1024);
	assert_int_equal(parse(ARGV("--api-sock=/a", "--mmds-size-limit=77", "--metadata", "/m"), &options, &err), 0);
	assert_int_equal(options.mmds_bytes_max, 77);
	assert_string_equal(options.metadata_file, "/m");
	assert_int_equal(parse(ARGV("--api-sock=/a", "--config-file=f"), &options, &err), 0);
	assert_false(options.as_firecracker);
	assert_true(parse(ARGV("--config-file=f"), &options, &err) < 0);
	assert_string_equal(err.field, "--api-sock");
}

static void test_refusals(void **state)
{
	static const struct {
		char *argument;
		const char *field;
	} cases[] = {
		{"--nonsense", "--nonsense"},
		{"file", "file"},
		{"", ""},
		{"--no-api=1", "--no-api"},
		{"--status-fd=-1", "--status-fd"},
		{"--status-fd=", "--status-fd"},
		{"--status-fd= 1", "--status-fd"},
		{"--status-fd=99999999999999999999", "--status-fd"},
		{"--id=", "--id"},
		{"--id=../x", "--id"},
		{"--level=loud", "--level"},
		{"--log-fd", "--log-fd"},
		{"--output-limit=0", "--output-limit"},
		{"--output-limit=1048577", "--output-limit"},
		{"--output-limit=-1", "--output-limit"},
		{"--output-limit=16M", "--output-limit"},
		{"--shutdown-timeout=86401", "--shutdown-timeout"},
		{"--shutdown-timeout=1s", "--shutdown-timeout"},
		{"--boot-timer=1", "--boot-timer"},
		{"--gdb-socket=", "--gdb-socket"},
		{"--api-sock=/a", "--no-api"},
		{"--api-sock=", "--api-sock"},
		{"--http-api-max-payload-size=0", "--http-api-max-payload-size"},
		{"--mmds-size-limit=0", "--mmds-size-limit"},
		{"--mmds-size-limit=1k", "--mmds-size-limit"},
		{"--metadata", "--metadata"},
		{"--seccomp-filter=f", "--seccomp-filter"},
		{"--start-time-us=now", "--start-time-us"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct options options;
		struct error err;

		assert_true(
			parse(ARGV("--no-api", "--config-file=f", cases[i].argument), &options, &err) < 0);
		assert_string_equal(err.field, cases[i].field);
		assert_true(strlen(err.message) > 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_all_of_them),
		cmocka_unit_test(test_help_and_version_ask_for_nothing_else),
		cmocka_unit_test(test_firecracker_by_name),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
