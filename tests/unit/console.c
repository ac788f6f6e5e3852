/* The console: its output reaches the reader at once, waits for a slow one, and never keeps a vCPU from coming to rest; its
 * terminal comes to a socket and leaves it. */
#include "tests/unit/test.h"

#include "common/io.h"
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
	char received[4096];
	size_t n_received, room; /* of the guest's end */
	unsigned n_sent;
	int rounds;
};

/* The guest's end: takes what it has room for. */
static size_t receive(void *ctx, const void *data, size_t len)
{
	struct fixture *f = ctx;

	if (len > f->room)
		len = f->room;
	memcpy(f->received + f->n_received, data, len);
	f->n_received += len;
	f->room -= len;
	return len;
}

static void sent(void *ctx)
{
	((struct fixture *)ctx)->n_sent++;
}

static struct console_guest guest_of(struct fixture *f)
{
	return (struct console_guest){receive, sent, f};
}

static int open_console(struct fixture *f, const char *path, uint64_t limit_bytes)
{
	struct console_guest guest = guest_of(f);

	return console_init(&f->console, f->loop, &guest, path, limit_bytes, &f->err);
}

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
	assert_int_equal(open_console(f, f->path, 0), 0);
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
	r = open_console(f, NULL, 0);
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
	assert_int_equal(open_console(f, f->path, 0), 0);
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
	assert_int_equal(open_console(f, f->path, TOTAL / 4), 0);
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
	assert_int_equal(open_console(f, f->path, 0), -ENXIO);
	assert_non_null(strstr(f->err.message, "nobody reads this FIFO"));
}

static void on_round(void *ctx)
{
	struct fixture *f = ctx;

	if (f->rounds-- > 0)
		loop_post(f->loop, on_round, f);
	else
		loop_stop(f->loop);
}

/* Lets the loop deal `n` times with everything that is ready. */
static void run_rounds(struct fixture *f, int n)
{
	f->rounds = n;
	loop_post(f->loop, on_round, f);
	assert_int_equal(loop_run(f->loop), 0);
}

/* Offers until there is no room. What was taken, which is all of it. */
static size_t offer_until_full(struct fixture *f)
{
	static const char piece[PIECE];
	size_t at = 0;

	while (console_offer(&f->console, piece, PIECE))
		at += PIECE;
	return at + PIECE;
}

static void whoever_offers_is_told_when_to_go_on(void **state)
{
	struct fixture *f = *state;
	size_t taken = offer_until_full(f), n = 0;
	uint64_t deadline = monotonic_ns() + DEADLINE_S * 1000000000ull;
	char data[4096];
	ssize_t got;

	while (f->n_sent == 0) {
		assert_true(monotonic_ns() < deadline);
		while ((got = read(f->reader, data, sizeof(data))) > 0)
			n += (size_t)got;
		run_rounds(f, 1);
	}
	while ((got = read(f->reader, data, sizeof(data))) > 0)
		n += (size_t)got;
	assert_int_equal(n, taken);
	assert_int_equal(f->n_sent, 1);
	assert_true(console_offer(&f->console, "x", 1));
}

/* ---- a socket ---- */

static void listen_at(struct fixture *f)
{
	struct console_guest guest = guest_of(f);

	console_done(&f->console);
	assert_int_equal(unlink(f->path), 0);
	assert_int_equal(console_init_socket(&f->console, f->loop, &guest, f->path, &f->err), 0);
}

static int come(struct fixture *f)
{
	int fd = unix_connect(f->path, 1, &f->err);

	assert_true(fd >= 0);
	run_rounds(f, 3);
	return fd;
}

static void a_terminal_comes_and_goes_and_another_comes(void **state)
{
	struct fixture *f = *state;
	char got[16];
	int fd;

	listen_at(f);
	f->room = sizeof(f->received);
	assert_true(console_offer(&f->console, "nobody", 6));
	for (unsigned i = 0; i < 3; i++) {
		fd = come(f);
		assert_true(console_offer(&f->console, "hello", 5));
		assert_int_equal(read(fd, got, sizeof(got)), 5);
		assert_memory_equal(got, "hello", 5);
		f->n_received = 0;
		assert_int_equal(write(fd, "input", 5), 5);
		run_rounds(f, 3);
		assert_int_equal(f->n_received, 5);
		assert_memory_equal(f->received, "input", 5);
		close(fd);
		run_rounds(f, 3);
		assert_true(console_offer(&f->console, "nobody", 6));
	}
}

static void a_second_terminal_is_turned_away(void **state)
{
	struct fixture *f = *state;
	char got[16];
	int first, second;

	listen_at(f);
	first = come(f);
	second = come(f);
	assert_int_equal(read(second, got, sizeof(got)), 0);
	assert_true(console_offer(&f->console, "hello", 5));
	assert_int_equal(read(first, got, sizeof(got)), 5);
	close(first);
	close(second);
}

/* Its input waits for the guest, so its end is not read. */
static void one_that_left_makes_place_though_the_guest_takes_no_input(void **state)
{
	struct fixture *f = *state;
	char got[16];
	int fd;

	listen_at(f);
	fd = come(f);
	assert_int_equal(write(fd, "lost", 4), 4);
	run_rounds(f, 3);
	close(fd);
	fd = come(f);
	assert_true(console_offer(&f->console, "hello", 5));
	assert_int_equal(read(fd, got, sizeof(got)), 5);
	f->room = sizeof(f->received);
	assert_int_equal(write(fd, "kept", 4), 4);
	run_rounds(f, 3);
	assert_int_equal(f->n_received, 4);
	assert_memory_equal(f->received, "kept", 4);
	close(fd);
}

static void input_waits_for_room(void **state)
{
	struct fixture *f = *state;
	int fd;

	listen_at(f);
	fd = come(f);
	f->room = 2;
	assert_int_equal(write(fd, "input", 5), 5);
	run_rounds(f, 3);
	assert_int_equal(f->n_received, 2);
	f->room = 10;
	console_room(&f->console);
	run_rounds(f, 3);
	assert_int_equal(f->n_received, 5);
	assert_memory_equal(f->received, "input", 5);
	close(fd);
}

static void a_terminal_that_leaves_lets_a_waiting_guest_go_on(void **state)
{
	struct fixture *f = *state;
	int fd;

	listen_at(f);
	fd = come(f);
	offer_until_full(f);
	assert_int_equal(f->n_sent, 0);
	close(fd);
	run_rounds(f, 5);
	assert_int_equal(f->n_sent, 1);
}

static void the_socket_goes_with_the_console(void **state)
{
	struct fixture *f = *state;
	char got[1];
	int fd;

	listen_at(f);
	fd = come(f);
	console_done(&f->console);
	assert_int_equal(access(f->path, F_OK), -1);
	assert_int_equal(read(fd, got, 1), 0);
	close(fd);
	assert_int_equal(open_console(f, NULL, 0), 0);
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
		TEST(whoever_offers_is_told_when_to_go_on),
		TEST(a_terminal_comes_and_goes_and_another_comes),
		TEST(a_second_terminal_is_turned_away),
		TEST(one_that_left_makes_place_though_the_guest_takes_no_input),
		TEST(input_waits_for_room),
		TEST(a_terminal_that_leaves_lets_a_waiting_guest_go_on),
		TEST(the_socket_goes_with_the_console),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
