/* What is made of the kernels' files, inside and on the host; what hulld takes of a machine's answer; what `hull top` shows. */
#include "tests/unit/test.h"

#include "api/host_stats.h"
#include "cli/top_rows.h"
#include "common/guest_stats.h"
#include "guest-kernel/stats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void memory_and_load_are_read(void **state)
{
	struct guest_stats stats;

	(void)state;
	stats_parse_memory("MemTotal:         246924 kB\nMemFree:  1 kB\nMemAvailable:  200000 kB\nSwapTotal:  0 kB\n", &stats);
	assert_int_equal(stats.memory_total_bytes, 246924 * 1024ll);
	assert_int_equal(stats.memory_available_bytes, 200000 * 1024ll);
	assert_int_equal(stats.swap_total_bytes, 0);
	assert_int_equal(stats.swap_free_bytes, -1);
	stats_parse_memory("MemTotal: 99999999999999999999 kB\nMemAvailable: 9223372036854775807 kB\n", &stats);
	assert_int_equal(stats.memory_total_bytes, -1);
	assert_int_equal(stats.memory_available_bytes, -1);
	stats_parse_load("0.07 12.34 3 1/66 77\n", &stats);
	assert_int_equal(stats.load_1m_hundredths, 7);
	assert_int_equal(stats.load_5m_hundredths, 1234);
	assert_int_equal(stats.load_15m_hundredths, 300);
	stats_parse_load("", &stats);
	assert_int_equal(stats.load_1m_hundredths, -1);
}

static void pressure_is_read_where_there_is_any(void **state)
{
	struct guest_pressure *pressure;

	(void)state;
	pressure = stats_parse_pressure("some avg10=1.50 avg60=0.00 avg300=0.00 total=123\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=45\n");
	assert_int_equal(pressure->some_avg10_hundredths, 150);
	assert_int_equal(pressure->some_us, 123);
	assert_int_equal(pressure->full_avg10_hundredths, 25);
	assert_int_equal(pressure->full_us, 45);
	free(pressure);
	pressure = stats_parse_pressure("some avg10= total=\n");
	assert_int_equal(pressure->some_us, -1);
	assert_int_equal(pressure->full_us, -1);
	free(pressure);
	assert_null(stats_parse_pressure(""));
}

static void whole_disks_and_interfaces_but_the_loopback_are_counted(void **state)
{
	char disks[] = " 254 0 vda 10 0 8 1 20 0 16 1 0 1 1\n 254 1 vda1 9 0 8 1 2 0 3 1\n 7 0 loop0 9 0 8 1 2 0 3 1\n 254 16 vdb 1\n"
		       " 259 0 pmem0 1 0 2 1 3 0 4 1\n";
	char net[] = "Inter-|   Receive  |  Transmit\n face |bytes packets|bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"
		     "  eth0:1000 10 0 0 0 0 0 0 2000 20 0 0 0 0 0 0\n \001x:1 2 0 0 0 0 0 0 3 4 0\n";
	struct guest_stats stats = {0};
	struct guest_disk *disk;
	struct guest_interface *interface;

	(void)state;
	stats_parse_disks(disks, &stats);
	stats_parse_interfaces(net, &stats);
	disk = stats.disks.items;
	assert_int_equal(stats.disks.len, 2);
	assert_string_equal(disk[0].name, "vda");
	assert_int_equal(disk[0].read_bytes, 8 * 512);
	assert_int_equal(disk[0].writes, 20);
	assert_int_equal(disk[0].written_bytes, 16 * 512);
	assert_string_equal(disk[1].name, "pmem0");
	interface = stats.interfaces.items;
	assert_int_equal(stats.interfaces.len, 2);
	assert_string_equal(interface[0].name, "eth0");
	assert_int_equal(interface[0].received_packets, 10);
	assert_int_equal(interface[0].sent_bytes, 2000);
	assert_string_equal(interface[1].name, "?x");
	json_done(&guest_stats_table, &stats);
}

static void add_path(void *ctx, const char *path)
{
	strcat(strcat(ctx, path), " ");
}

/* Who has FUSE on the way to it, or has it on a server, cannot make the agent wait. */
static void only_file_systems_of_the_kernel_right_in_the_root_are_asked(void **state)
{
	char text[] = "1 1 0:2 / / rw - rootfs rootfs rw\n30 1 0:25 / / rw,relatime - overlay overlay rw,lowerdir=/image\n"
		      "31 30 0:26 / /proc rw - proc proc rw\n32 30 0:27 / /run rw shared:1 - tmpfs tmpfs rw\n"
		      "33 30 0:28 / /mnt/f rw - fuse.evil evil rw\n34 33 0:29 / /mnt/f/deep rw - ext4 /dev/vdc rw\n"
		      "35 30 0:30 / /a\\040b rw - ext4 /dev/vdd rw\n36 30 0:31 / /n rw - nfs4 server:/ rw\nodd\n"
		      "40 30 0:32 / /c rw - ext4 /dev/vde rw\n41 40 0:33 / /c rw - fuse.evil evil rw\n"
		      "42 30 0:34 / /w/c rw - ext4 /dev/vdf rw\n43 30 0:35 / /w rw - fuse.evil evil rw\n44 30 0:36 / /ww rw - ext4 /dev/vdg rw\n37 30 - ext4\n";
	char paths[256] = "";

	(void)state;
	stats_parse_mounts(text, add_path, paths);
	assert_string_equal(paths, "/ /run /a b /ww ");
}

static void this_machine_has_numbers_that_hulld_takes(void **state)
{
	struct stats_source source;
	struct guest_stats stats, again;
	struct error err;
	json_t *dumped;

	(void)state;
	stats_source_open(&source);
	stats_read(&source, &stats);
	stats_source_close(&source);
	assert_true(stats.uptime_ms > 0 && stats.memory_total_bytes > 0);
	dumped = json_dump(&guest_stats_table, &stats);
	assert_int_equal(json_read(&guest_stats_table, dumped, &again, &err), 0);
	assert_int_equal(again.memory_total_bytes, stats.memory_total_bytes);
	json_decref(dumped);
	json_done(&guest_stats_table, &stats);
	json_done(&guest_stats_table, &again);
	source = (struct stats_source){-1, -1};
	stats_read(&source, &stats);
	assert_int_equal(stats.memory_total_bytes, -1);
	json_done(&guest_stats_table, &stats);
}

static void what_no_agent_sends_is_refused(void **state)
{
	static const struct {
		const char *text, *field;
	} cases[] = {
		{"{\"uptime_ms\": -1}", "uptime_ms"},
		{"{\"uptime_ms\": 1.5}", "uptime_ms"},
		{"{\"more\": 1}", "more"},
		{"{\"disks\": [{\"name\": \"v\\u001b[2J\"}]}", "disks[0].name"},
		{"{\"disks\": [{\"name\": \"\"}]}", "disks[0].name"},
		{"{\"interfaces\": [{}]}", "interfaces[0].name"},
		{"{\"filesystems\": {}}", "filesystems"},
		{"{\"workload\": {\"tasks\": \"many\"}}", "workload.tasks"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err;
		json_t *object = json_parse(cases[i].text, strlen(cases[i].text), &err);
		struct guest_stats stats;

		assert_true(json_read(&guest_stats_table, object, &stats, &err) < 0);
		assert_string_equal(err.field, cases[i].field);
		json_decref(object);
	}
}

static void a_monitors_files_are_read(void **state)
{
	struct host_stats stats = {-1, -1, -1, -1, -1, -1};

	(void)state;
	host_stats_parse_stat("7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 5 0 100 1 1", &stats);
	assert_int_equal(stats.cpu_us, 2000000);
	assert_int_equal(stats.threads, 5);
	assert_int_equal(stats.rss_bytes, sysconf(_SC_PAGESIZE));
	host_stats_parse_rollup("00-ff ---p 0 0 0 [rollup]\nRss:       100 kB\nPss:        60 kB\nPss_Dirty:  1 kB\n", &stats);
	assert_int_equal(stats.rss_bytes, 102400);
	assert_int_equal(stats.pss_bytes, 61440);
	host_stats_parse_io("rchar: 1\nread_bytes: 4096\nwrite_bytes: 8192\n", &stats);
	assert_int_equal(stats.read_bytes, 4096);
	assert_int_equal(stats.written_bytes, 8192);
	stats.cpu_us = -1;
	host_stats_parse_stat("7 (cut", &stats);
	assert_int_equal(stats.cpu_us, -1);
	/* What is not there changes nothing. */
	host_stats_parse_rollup("", &stats);
	assert_int_equal(stats.rss_bytes, 102400);
}

static void a_process_is_known_by_its_start(void **state)
{
	(void)state;
	assert_int_equal(host_stats_start_time("7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 5 0 100 1 1"), 100);
	assert_int_equal(host_stats_start_time("7 (a) Z 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 5 0 100 1 1"), 0);
	assert_int_equal(host_stats_start_time("7 (a) S 1 7"), 0);
	assert_int_equal(host_stats_start_time(""), 0);
}

static void shows(const json_t *stats, const json_t *before, const char *expected)
{
	char *text = NULL;
	struct table table;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	table_init(&table, TOP_HEADER);
	top_add_row(&table, stats, before);
	for (size_t i = table.n_columns; i < table.n_cells; i++)
		fprintf(out, "%s|", table.cells[i]);
	fclose(out);
	assert_string_equal(text, expected);
	table_done(&table);
	free(text);
}

static void top_shows_rates_of_what_it_has_seen_twice(void **state)
{
	json_t *before = json_pack("{s:s, s:i, s:i, s:{s:i}, s:{s:[{s:i, s:i}]}}", "name", "web", "at_unix_ms", 1000, "memory_limit_bytes",
		256 << 20, "host", "cpu_us", 100, "guest", "disks", "read_bytes", 0, "written_bytes", 10);
	json_t *now = json_pack("{s:s, s:i, s:i, s:{s:i}, s:{s:i, s:i, s:{s:i}, s:{s:i}, s:[{s:i, s:i}]}}", "name", "web", "at_unix_ms", 3000,
		"memory_limit_bytes", 256 << 20, "host", "cpu_us", 1000100, "guest", "memory_total_bytes", 200 << 20,
		"memory_available_bytes", 100 << 20, "memory_pressure", "some_avg10_hundredths", 250, "workload", "tasks", 3, "disks",
		"read_bytes", 4096, "written_bytes", 10);
	json_t *silent = json_pack("{s:s, s:i, s:s}", "name", "web", "at_unix_ms", 1000, "guest_reason", "no\033answer");

	(void)state;
	shows(now, before, "web|50.0|100 MiB|256 MiB|2.5%|2 KiB|0 B|-|-|3|");
	shows(now, NULL, "web|-|100 MiB|256 MiB|2.5%|-|-|-|-|3|");
	shows(before, now, "web|-|-|256 MiB|-|-|-|-|-|-|");
	shows(silent, NULL, "web|-|-|0 B|-|-|-|-|-|- (no?answer)|");
	json_decref(before);
	json_decref(now);
	json_decref(silent);
}

static void a_screen_is_not_overrun(void **state)
{
	char *text = top_fit("abc\nd\303\251f\nghi\n", 2, 2);

	(void)state;
	assert_string_equal(text, "ab\033[K\r\nd\303\251\033[K\033[J");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_and_load_are_read),
		cmocka_unit_test(pressure_is_read_where_there_is_any),
		cmocka_unit_test(whole_disks_and_interfaces_but_the_loopback_are_counted),
		cmocka_unit_test(only_file_systems_of_the_kernel_right_in_the_root_are_asked),
		cmocka_unit_test(this_machine_has_numbers_that_hulld_takes),
		cmocka_unit_test(what_no_agent_sends_is_refused),
		cmocka_unit_test(a_monitors_files_are_read),
		cmocka_unit_test(a_process_is_known_by_its_start),
		cmocka_unit_test(top_shows_rates_of_what_it_has_seen_twice),
		cmocka_unit_test(a_screen_is_not_overrun),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
