/* The console's output: it reaches the reader at once, waits for a slow one, and never keeps a vCPU from coming to rest. */
#include "tests/unit/test.h"

#include "vmm/console.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

#define DEADLINE_S 10
#define PIECE	   256u /* the UART's buffer */
#define TOTAL	   (1024 * PIECE) /* several times what a pipe holds */

struct fixture {
	char dir[PATH_MAX], path[PATH_MAX + 8];
	struct loop *loop;
	struct console console;
	struct error err;
	int reader; /* of the FIFO at `path` */
	size_t n_read;
	pthread_t writer;
	bool writing;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");

	snprintf(f->dir, sizeof(f->dir), "%s/hull-console.XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/fifo", f->dir);
	assert_int_equal(mkfifo(f->path, 0600), 0);
	f->reader = open(f->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(f->reader >= 0);
	f->loop = loop_new();
	assert_non_null(f->loop);
	assert_int_equal(console_init(&f->console, f->loop, f->path, 0, &f->err), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->writing) { /* a test has failed */
		console_may_wait(&f->console, false);
		pthread_join(f->writer, NULL);
	}
	console_done(&f->console);
	loop_free(f->loop);
	close_fd(f->reader);
	unlink(f->path);
	assert_int_equal(rmdir(f->dir), 0);
	free(f);
	return 0;
}

/* The byte at `at` of what the guest prints: no two pieces are alike. */
static uint8_t byte_at(size_t at)
{
	return (uint8_t)(at + at / PIECE);
}

static void *print_all(void *ctx)
{
	struct fixture *f = ctx;
	uint8_t piece[PIECE];

	for (size_t at = 0; at < TOTAL; at += PIECE) {
		for (size_t i = 0; i < PIECE; i++)
			piece[i] = byte_at(at + i);
		console_write(&f->console, piece, PIECE);
	}
	return NULL;
}

static void start_writer(struct fixture *f)
{
	assert_int_equal(pthread_create(&f->writer, NULL, print_all, f), 0);
	f->writing = true;
}

static void join_writer(struct fixture *f)
{
	struct timespec deadline;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += DEADLINE_S;
	assert_int_equal(pthread_timedjoin_np(f->writer, NULL, &deadline), 0);
	f->writing = false;
}

/* Until the pipe takes no more, which is when its last page is begun: the writer waits then, or is just about to. */
static void wait_for_full_pipe(struct fixture *f)
{
	uint64_t deadline = monotonic_ns() + DEADLINE_S * 1000000000ull;
	int size = fcntl(f->reader, F_GETPIPE_SZ), held = 0;

	while (held <= size - PIPE_BUF) {
		assert_true(monotonic_ns() < deadline);
		assert_int_equal(ioctl(f->reader, FIONREAD, &held), 0);
		sched_yield();
	}
}

/* Takes what the pipe holds, and checks that it goes on where the last bytes ended. */
static void read_some(void *ctx, uint32_t epoll_events)
{
	struct fixture *f = ctx;
	uint8_t data[1000];
	ssize_t got;

	(void)epoll_events;
	while ((got = read(f->reader, data, sizeof(data))) > 0)
		for (ssize_t i = 0; i < got; i++)
			if (data[i] != byte_at(f->n_read++))
				fail_msg("byte %zu is not the one that was written", f->n_read - 1);
	if (f->n_read == TOTAL)
		loop_stop(f->loop);
}

static void too_late(void *ctx)
{
	loop_stop(ctx);
}

/* Runs the loop with a reader on it until all has arrived. */
static void read_all(struct fixture *f)
{
	struct loop_source *source = loop_add_fd(f->loop, f->reader, EPOLLIN, read_some, f);
	struct loop_source *deadline = loop_add_timer(f->loop, too_late, f->loop);

	loop_timer_arm(deadline, DEADLINE_S * 1000000000ull);
	assert_int_equal(loop_run(f->loop), 0);
	loop_remove(source);
	loop_remove(deadline);
	assert_int_equal(f->n_read, TOTAL);
}

static void what_is_written_arrives_at_once(void **state)
{
	struct fixture *f = *state;
	char got[16];

	console_may_wait(&f->console, true);
	console_write(&f->console, "hello\n", 6); /* no loop runs */
	assert_int_equal(read(f->reader, got, sizeof(got)), 6);
	assert_memory_equal(got, "hello\n", 6);
}

static void a_slow_reader_loses_nothing(void **state)
{
	struct fixture *f = *state;

	console_may_wait(&f->console, true);
	start_writer(f);
	wait_for_full_pipe(f);
	read_all(f);
	join_writer(f);
}

/* As vcpus_pause() and vcpus_resume() do it. */
static void a_pause_ends_the_wait_and_loses_nothing(void **state)
{
	struct fixture *f = *state;

	console_may_wait(&f->console, true);
	start_writer(f);
	wait_for_full_pipe(f);
	console_may_wait(&f->console, false);
	join_writer(f); /* though nobody reads */
	console_may_wait(&f->console, true);
	read_all(f);
}

static void the_backlog_is_bounded(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 16; i++)
		print_all(f);
	assert_true(f->console.backlog.len > 0 && f->console.backlog.len <= 1 << 20);
	read_some(f, 0); /* its start is whole */
}

static void *run_loop(void *loop)
{
	loop_run(loop);
	return NULL;
}

static void a_reader_that_goes_ends_the_wait(void **state)
{
	struct fixture *f = *state;
	pthread_t loop_thread;

	console_may_wait(&f->console, true);
	start_writer(f);
	wait_for_full_pipe(f);
	f->reader = close_fd(f->reader);
	assert_int_equal(pthread_create(&loop_thread, NULL, run_loop, f->loop), 0);
	join_writer(f);
	loop_stop(f->loop);
	pthread_join(loop_thread, NULL);
	assert_true(f->console.out_broken);
}

static void the_end_sends_what_is_taken_without_waiting(void **state)
{
	struct fixture *f = *state;

	print_all(f);
	read_some(f, 0);
	console_done(&f->console);
	assert_true(f->n_read > 0 && f->n_read < TOTAL);
	read_some(f, 0);
	read_some(f, 0);
	assert_int_equal(read(f->reader, f->path, 1), 0); /* and then it is closed */
}

/* The description that the monitor was started with is others' too. */
static void standard_output_is_not_made_non_blocking(void **state)
{
	struct fixture *f = *state;
	int fds[2], saved = dup(STDOUT_FILENO), r;
	char got[8];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	console_done(&f->console);
	fflush(stdout);
	dup2(fds[1], STDOUT_FILENO);
	r = console_init(&f->console, f->loop, NULL, 0, &f->err);
	dup2(saved, STDOUT_FILENO);
	assert_int_equal(r, 0);
	assert_int_equal(fcntl(fds[1], F_GETFL) & O_NONBLOCK, 0);
	assert_int_equal(fcntl(f->console.out_fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	console_write(&f->console, "ok", 2);
	assert_int_equal(read(fds[0], got, sizeof(got)), 2);
	close(fds[0]);
	close(fds[1]);
	close(saved);
}

static void a_file_takes_everything(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	console_done(&f->console);
	assert_int_equal(unlink(f->path), 0);
	assert_int_equal(console_init(&f->console, f->loop, f->path, 0, &f->err), 0);
	console_may_wait(&f->console, true);
	print_all(f);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_size, TOTAL);
}

static void a_file_keeps_what_is_newest(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	console_done(&f->console);
	assert_int_equal(unlink(f->path), 0);
	assert_int_equal(console_init(&f->console, f->loop, f->path, TOTAL / 4, &f->err), 0);
	print_all(f);
	assert_int_equal(stat(f->path, &st), 0);
	assert_int_equal(st.st_size, TOTAL);
	assert_in_range(st.st_blocks * 512, TOTAL / 4, TOTAL / 4 + TOTAL / 32 + 65536);
}

static void a_fifo_without_reader_is_refused(void **state)
{
	struct fixture *f = *state;

	console_done(&f->console);
	f->reader = close_fd(f->reader);
	assert_int_equal(console_init(&f->console, f->loop, f->path, 0, &f->err), -ENXIO);
	assert_string_equal(f->err.field, "serial.serial_out_path");
	assert_non_null(strstr(f->err.message, "nobody reads this FIFO"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_written_arrives_at_once),
		TEST(a_slow_reader_loses_nothing),
		TEST(a_pause_ends_the_wait_and_loses_nothing),
		TEST(the_backlog_is_bounded),
		TEST(a_reader_that_goes_ends_the_wait),
		TEST(the_end_sends_what_is_taken_without_waiting),
		TEST(standard_output_is_not_made_non_blocking),
		TEST(a_file_takes_everything),
		TEST(a_file_keeps_what_is_newest),
		TEST(a_fifo_without_reader_is_refused),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
