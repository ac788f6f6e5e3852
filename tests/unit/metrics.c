/* Metrics: what a line says, that nothing counted is lost or told twice, and that no reader can hold us up. */
#include "tests/unit/test.h"

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/loop.h"
#include "devices/metrics.h"
#include "devices/virtio_blk.h"
#include "vmm/metrics.h"
#include "vmm/vcpu.h"

#include <fcntl.h>
#include <malloc.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

struct world {
	char folder[32], path[64];
	struct loop *loop;
	struct metrics *metrics;
	struct error err;
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	strcpy(w->folder, "/tmp/hull-metrics-XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	snprintf(w->path, sizeof(w->path), "%s/m", w->folder);
	w->loop = loop_new();
	w->metrics = metrics_new(w->loop);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	metrics_free(w->metrics);
	loop_free(w->loop);
	unlink(w->path);
	rmdir(w->folder);
	free(w);
	return 0;
}

static void opens(struct world *w)
{
	assert_int_equal(metrics_open(w->metrics, w->path, NULL, NULL, &w->err), 0);
}

static void flushes(struct world *w)
{
	assert_int_equal(metrics_flush(w->metrics, &w->err), 0);
}

/* The file's line at `index`, 0 the first; NULL when there is none. A new reference. */
static json_t *line_at(const struct world *w, unsigned index)
{
	cleanup_fclose FILE *f = fopen(w->path, "r");
	cleanup_free char *text = NULL;
	json_t *line = NULL;
	size_t size = 0;

	assert_non_null(f);
	for (unsigned i = 0; i <= index; i++)
		if (getline(&text, &size, f) < 0)
			return NULL;
	line = json_loads(text, 0, NULL);
	assert_non_null(line);
	return line;
}

/* "group.field" or "group.field.part" of a line. -1: there is no such number. */
static long long at(const json_t *line, const char *path)
{
	char copy[64], *save = NULL;

	strcpy(copy, path);
	for (char *key = strtok_r(copy, ".", &save); key; key = strtok_r(NULL, ".", &save))
		line = json_object_get(line, key);
	return json_is_integer(line) ? json_integer_value(line) : -1;
}

static void every_group_is_in_every_line(void **state)
{
	struct world *w = *state;
	json_t *line;
	long long age_ms;

	opens(w);
	flushes(w);
	line = line_at(w, 0);
	age_ms = (long long)time(NULL) * 1000 - at(line, "utc_timestamp_ms");
	assert_true(age_ms > -2000 && age_ms < 10000);
	assert_int_equal(at(line, "block.read_count"), 0);
	assert_int_equal(at(line, "block.activate_fails"), 0);
	assert_int_equal(at(line, "block.read_agg.sum_us"), 0);
	assert_int_equal(at(line, "net.rx_bytes_count"), 0);
	assert_int_equal(at(line, "vsock.conns_added"), 0);
	assert_int_equal(at(line, "entropy.entropy_bytes"), 0);
	assert_int_equal(at(line, "interrupts.triggers"), 0);
	assert_int_equal(at(line, "uart.write_count"), 0);
	assert_int_equal(at(line, "i8042.reset_count"), 0);
	assert_int_equal(at(line, "vcpu.exit_io_out"), 0);
	assert_int_equal(at(line, "logger.missed_log_count"), 0);
	assert_int_equal(at(line, "logger.missed_metrics_count"), 0);
	assert_null(json_object_get(line, "id"));
	assert_null(json_object_get(line, "properties"));
	json_decref(line);
}

static void a_counter_is_told_as_what_was_added(void **state)
{
	struct world *w = *state;
	struct vcpu_metrics vcpus[2] = {{.exit_io_in = 3}, {0}};
	const long long expected[] = {5, 0, 1};
	json_t *line;

	opens(w);
	for (unsigned i = 0; i < 2; i++)
		metrics_add(w->metrics, METRICS_VCPU, NULL, vcpus, &vcpus[i]);
	metric_add(&vcpus[1].exit_io_in, 2);
	flushes(w);
	flushes(w);
	metric_inc(&vcpus[0].exit_io_in);
	flushes(w);
	for (unsigned i = 0; i < 3; i++) {
		line = line_at(w, i);
		assert_int_equal(at(line, "vcpu.exit_io_in"), expected[i]);
		json_decref(line);
	}
	metrics_remove(w->metrics, vcpus);
}

static void drives_are_told_one_by_one_and_together(void **state)
{
	struct world *w = *state;
	struct blk_metrics a = {.read_bytes = 4096}, b = {.read_bytes = 512};
	json_t *line;

	opens(w);
	metrics_add(w->metrics, METRICS_BLOCK, "rootfs", &a, &a);
	metrics_add(w->metrics, METRICS_BLOCK, "data", &b, &b);
	metric_record_latency(&a.read_agg, 70);
	metric_record_latency(&a.read_agg, 30);
	metric_record_latency(&b.read_agg, 50);
	flushes(w);
	metric_record_latency(&a.read_agg, 40);
	flushes(w);
	line = line_at(w, 0);
	assert_int_equal(at(line, "block_rootfs.read_bytes"), 4096);
	assert_int_equal(at(line, "block_data.read_bytes"), 512);
	assert_int_equal(at(line, "block.read_bytes"), 4608);
	assert_int_equal(at(line, "block_rootfs.read_agg.min_us"), 30);
	assert_int_equal(at(line, "block_rootfs.read_agg.max_us"), 70);
	assert_int_equal(at(line, "block_rootfs.read_agg.sum_us"), 100);
	assert_int_equal(at(line, "block.read_agg.sum_us"), 150);
	assert_int_equal(at(line, "block.read_agg.min_us"), 0);
	json_decref(line);
	line = line_at(w, 1);
	assert_int_equal(at(line, "block_rootfs.read_agg.sum_us"), 40);
	assert_int_equal(at(line, "block_rootfs.read_agg.min_us"), 30);
	assert_int_equal(at(line, "block.read_bytes"), 0);
	json_decref(line);
	metrics_remove(w->metrics, &a);
	metrics_remove(w->metrics, &b);
}

static void what_is_gone_is_told_once_more(void **state)
{
	struct world *w = *state;
	struct blk_metrics *drive = calloc(1, sizeof(*drive));
	json_t *line;

	opens(w);
	metrics_add(w->metrics, METRICS_BLOCK, "data", drive, drive);
	metric_add(&drive->write_bytes, 10);
	flushes(w);
	metric_add(&drive->write_bytes, 7);
	metrics_remove(w->metrics, drive);
	free(drive);
	flushes(w);
	flushes(w);
	line = line_at(w, 1);
	assert_int_equal(at(line, "block_data.write_bytes"), 7);
	assert_int_equal(at(line, "block.write_bytes"), 7);
	json_decref(line);
	line = line_at(w, 2);
	assert_null(json_object_get(line, "block_data"));
	assert_int_equal(at(line, "block.write_bytes"), 0);
	json_decref(line);
}

static void comes_and_goes(struct world *w, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		struct virtio_dev dev = {.metrics = {.triggers = 2, .config_updates = i}};
		struct blk_metrics drive = {.read_count = 3};

		metric_record_latency(&drive.read_agg, 10 + i);
		metrics_add_device(w->metrics, METRICS_BLOCK, "late", &dev, &drive);
		metrics_remove(w->metrics, &dev);
	}
}

/* What the allocator keeps at hand counts as used, so its figure moves a little; a byte kept by each of a thousand would be more. */
#define SLACK_BYTES 8192

/* Nobody has opened metrics, or their reader does not come. */
static void devices_that_come_and_go_take_no_room(void **state)
{
	struct world *w = *state;
	struct blk_metrics there = {.read_agg = {20, 30, 50}};
	size_t bytes;
	json_t *line;

	comes_and_goes(w, 1);
	bytes = mallinfo2().uordblks; /* 0 under a sanitizer */
	comes_and_goes(w, 1000);
	assert_true(mallinfo2().uordblks < bytes + SLACK_BYTES);
	opens(w);
	comes_and_goes(w, 1);
	bytes = mallinfo2().uordblks;
	comes_and_goes(w, 999);
	assert_true(mallinfo2().uordblks < bytes + SLACK_BYTES);
	metrics_add(w->metrics, METRICS_BLOCK, "late", &there, &there);
	flushes(w);
	metrics_remove(w->metrics, &there);
	flushes(w);
	flushes(w);
	line = line_at(w, 0);
	assert_int_equal(at(line, "block_late.read_count"), 3000);
	assert_int_equal(at(line, "block.read_count"), 3000);
	assert_int_equal(at(line, "block_late.read_agg.min_us"), 10);
	assert_int_equal(at(line, "block_late.read_agg.max_us"), 1008);
	assert_int_equal(at(line, "block_late.read_agg.sum_us"), 10 + 999 * 10 + 998 * 999 / 2 + 50);
	assert_int_equal(at(line, "interrupts.triggers"), 2000);
	json_decref(line);
	line = line_at(w, 2);
	assert_null(json_object_get(line, "block_late"));
	assert_int_equal(at(line, "block.read_count"), 0);
	json_decref(line);
}

static void a_device_is_told_with_what_the_core_counts(void **state)
{
	struct world *w = *state;
	struct virtio_dev dev = {.metrics = {.cfg_fails = 2, .triggers = 9}};
	struct blk_metrics drive = {.flush_count = 1};
	json_t *line;

	opens(w);
	metrics_add_device(w->metrics, METRICS_BLOCK, "data", &dev, &drive);
	flushes(w);
	metrics_remove(w->metrics, &dev);
	line = line_at(w, 0);
	assert_int_equal(at(line, "block_data.cfg_fails"), 2);
	assert_int_equal(at(line, "block_data.flush_count"), 1);
	assert_int_equal(at(line, "block.cfg_fails"), 2);
	assert_int_equal(at(line, "interrupts.triggers"), 9);
	assert_int_equal(at(line, "block_data.triggers"), -1);
	json_decref(line);
}

static void a_line_carries_what_its_reader_asked_for(void **state)
{
	struct world *w = *state;
	json_t *properties = json_pack("{s:s}", "customer", "1234"), *line;

	assert_int_equal(metrics_open(w->metrics, w->path, "vm-7", properties, &w->err), 0);
	json_decref(properties);
	flushes(w);
	line = line_at(w, 0);
	assert_string_equal(json_string_value(json_object_get(line, "id")), "vm-7");
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(line, "properties"), "customer")), "1234");
	json_decref(line);
}

static void lines_are_appended_and_the_end_writes_one(void **state)
{
	struct world *w = *state;
	struct vcpu_metrics vcpu = {.failures = 1};
	json_t *line;

	opens(w);
	flushes(w);
	metrics_add(w->metrics, METRICS_VCPU, NULL, &vcpu, &vcpu);
	metrics_remove(w->metrics, &vcpu);
	metrics_free(w->metrics);
	w->metrics = metrics_new(w->loop);
	line = line_at(w, 1);
	assert_int_equal(at(line, "vcpu.failures"), 1);
	json_decref(line);
	opens(w);
	flushes(w);
	line = line_at(w, 2);
	assert_int_equal(at(line, "vcpu.failures"), 0);
	json_decref(line);
}

static void nowhere_to_write_is_no_failure(void **state)
{
	flushes(*state);
}

static void refuses(struct world *w, const char *path, int errnum)
{
	w->err = (struct error){0};
	assert_int_equal(metrics_open(w->metrics, path, NULL, NULL, &w->err), -errnum);
	assert_true(w->err.message[0]);
}

static void what_cannot_be_written_is_refused(void **state)
{
	struct world *w = *state;

	refuses(w, w->folder, EISDIR);
	refuses(w, "/tmp/hull-there-is-no/such-folder", ENOENT);
	opens(w);
	refuses(w, w->path, EEXIST);
	assert_string_equal(w->err.message, "Reinitialization of metrics not allowed.");
}

static void a_full_disk_is_told(void **state)
{
	struct world *w = *state;

	assert_int_equal(metrics_open(w->metrics, "/dev/full", NULL, NULL, &w->err), 0);
	assert_int_equal(metrics_flush(w->metrics, &w->err), -ENOSPC);
	assert_non_null(strstr(w->err.message, "cannot be written"));
}

static void stop(void *ctx)
{
	loop_stop(ctx);
}

static void run_until(struct world *w, uint64_t deadline_ns)
{
	struct loop_source *timer = loop_add_timer(w->loop, stop, w->loop);

	loop_timer_arm(timer, deadline_ns);
	assert_int_equal(loop_run(w->loop), 0);
	loop_remove(timer);
}

/* All that lies in the FIFO now. */
static void read_fifo(int fd, struct buf *ret)
{
	while (buf_read_fd(ret, fd, 65536) > 0)
		;
}

/* Nobody reads: a flush is refused once the pipe is full, and waits for nothing. Then a reader comes: what it gets is whole
 * lines, and in them all that was counted. */
static void a_reader_that_comes_late_finds_all_counts(void **state)
{
	struct world *w = *state;
	struct vcpu_metrics vcpu = {0};
	struct buf text;
	unsigned flushed = 0, missed = 0, n_lines = 0;
	long long exits = 0, told_missed = 0;
	int fd;

	assert_int_equal(mkfifo(w->path, 0600), 0);
	opens(w);
	metrics_add(w->metrics, METRICS_VCPU, NULL, &vcpu, &vcpu);
	while (missed < 3) {
		metric_inc(&vcpu.exit_io_in);
		flushed++;
		if (metrics_flush(w->metrics, &w->err) == -EAGAIN)
			missed++;
		assert_true(flushed < 1000);
	}
	fd = open(w->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(fd >= 0);
	buf_init(&text, 4 << 20);
	read_fifo(fd, &text);
	run_until(w, 0); /* the rest of the line that was cut short */
	read_fifo(fd, &text);
	flushes(w);
	read_fifo(fd, &text);
	for (char *line = text.data, *end; (end = strchr(line, '\n')); line = end + 1, n_lines++) {
		json_t *json = json_loadb(line, (size_t)(end - line), 0, NULL);

		assert_non_null(json);
		exits += at(json, "vcpu.exit_io_in");
		told_missed += at(json, "logger.missed_metrics_count");
		json_decref(json);
	}
	assert_int_equal(text.data[text.len - 1], '\n');
	assert_int_equal(exits, flushed);
	assert_int_equal(n_lines, flushed - told_missed + 1);
	assert_in_range(told_missed, 2, 3); /* the first refusal left its line on the way */
	metrics_remove(w->metrics, &vcpu);
	buf_done(&text);
	close(fd);
}

/* A log line that a FIFO has no room for is counted, and nothing waits. */
static void log_lines_that_are_lost_are_counted(void **state)
{
	struct world *w = *state;
	uint64_t before = metric_read(&log_metrics()->missed_log_count);
	int pipe_fds[2];
	json_t *line;

	assert_int_equal(pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC), 0);
	log_open("test", LOG_LEVEL_INFO, pipe_fds[1]);
	opens(w);
	flushes(w);
	for (unsigned i = 0; metric_read(&log_metrics()->missed_log_count) == before; i++) {
		assert_true(i < 10000);
		log_info("a line for nobody");
	}
	flushes(w);
	line = line_at(w, 1);
	assert_int_equal(at(line, "logger.missed_log_count"), 1);
	json_decref(line);
	log_open("test", LOG_LEVEL_INFO, STDERR_FILENO);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_group_is_in_every_line),
		TEST(a_counter_is_told_as_what_was_added),
		TEST(drives_are_told_one_by_one_and_together),
		TEST(what_is_gone_is_told_once_more),
		TEST(devices_that_come_and_go_take_no_room),
		TEST(a_device_is_told_with_what_the_core_counts),
		TEST(a_line_carries_what_its_reader_asked_for),
		TEST(lines_are_appended_and_the_end_writes_one),
		TEST(nowhere_to_write_is_no_failure),
		TEST(what_cannot_be_written_is_refused),
		TEST(a_full_disk_is_told),
		TEST(a_reader_that_comes_late_finds_all_counts),
		TEST(log_lines_that_are_lost_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
