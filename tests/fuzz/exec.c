/* A hostile client of the agent: whatever it sends after EXEC, in whatever pieces, the agent keeps its
 * bounds, ends programs of which it lost the client, and serves an honest client afterwards. No program is
 * started: a pipe that knows what it would say is.
 *
 *	byte 0: what becomes of the program  byte 1: bytes a piece  then the client's stream */
#include "tests/fuzz/frames.h"

#include "common/frame.h"
#include "guest-kernel/exec.h"
#include "guest-kernel/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#define PID 0x7ffffff0 /* no process has it */

enum { PROGRAM_RUNS, PROGRAM_ENDS, PROGRAM_NOT_FOUND, PROGRAM_REFUSED, PROGRAM_NOT_FORKED, PROGRAM_KINDS };

static struct loop *loop;
static struct execs *execs;
static unsigned kind;
static bool running; /* as far as anybody was told */
static bool killed;

/* In place of the real ones (--wrap). */
int __wrap_process_spawn(const struct process_spec *spec, pid_t *ret_pid, struct error *err);
int __wrap_kill(pid_t pid, int signo);

int __wrap_process_spawn(const struct process_spec *spec, pid_t *ret_pid, struct error *err)
{
	struct process_failure failure = {.status = kind == PROGRAM_REFUSED ? PROCESS_STATUS_SETUP : PROCESS_STATUS_NOT_FOUND};
	int report[2];

	CHECK(spec->argv && spec->argv[0] && spec->env && spec->user && spec->workdir[0] == '/');
	if (kind == PROGRAM_NOT_FORKED)
		return error_set_errno(err, EAGAIN, "fork");
	CHECK(pipe2(report, O_CLOEXEC) == 0);
	error_set_field(&failure.error, ENOENT, "user", "nobody");
	if (kind == PROGRAM_NOT_FOUND || kind == PROGRAM_REFUSED)
		CHECK(write(report[1], &failure, sizeof(failure)) == sizeof(failure));
	else
		CHECK(write(spec->stdio[1], "out", 3) == 3 && write(spec->stdio[2], "err", 3) == 3);
	close(report[1]);
	running = true;
	killed = false;
	*ret_pid = PID;
	return report[0];
}

int __wrap_kill(pid_t pid, int signo)
{
	CHECK(pid == PID || pid == -PID);
	killed = killed || signo == SIGKILL;
	return 0;
}

static void prepare(void)
{
	static struct guest_config config = {.hostname = (char *)"fuzz", .user = (char *)"root", .workdir = (char *)"/"};

	signal(SIGPIPE, SIG_IGN);
	config.env = json_object();
	loop = loop_new();
	execs = execs_new(loop, &config);
	CHECK(loop && execs);
}

/* Reads what the agent says, as far as it makes sense. Returns the last frame's type; 0: none. */
static int listen_to(int fd, struct frame_reader *reader)
{
	struct frame frame;
	int r, last = 0;

	while ((r = frame_read(reader, fd, &frame)) > 0) {
		CHECK(frame.type >= HULL_FRAME_STARTED && frame.type <= HULL_FRAME_EXIT);
		last = frame.type;
	}
	CHECK(r != -EPROTO);
	return last;
}

/* Returns the last frame the agent sent. */
static int converse(const uint8_t *data, size_t len, size_t piece)
{
	struct frame_reader reader;
	int ends[2], last = 0, now;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
	CHECK(execs_serve(execs, ends[1]) == 0);
	frame_reader_init(&reader, HULL_FRAME_MAX);
	running = false;
	while (len) {
		size_t part = len < piece ? len : piece;

		if (send(ends[0], data, part, MSG_NOSIGNAL) < 0)
			break;
		data += part;
		len -= part;
		fuzz_run_loop(loop);
		now = listen_to(ends[0], &reader);
		last = now ? now : last;
	}
	if (running && kind != PROGRAM_RUNS) {
		execs_child_ended(execs, PID, 0);
		running = false;
	}
	fuzz_run_loop(loop);
	now = listen_to(ends[0], &reader);
	last = now ? now : last;
	close(ends[0]);
	fuzz_run_loop(loop);
	fuzz_run_loop(loop);
	CHECK(!running || killed); /* it went with its client */
	frame_reader_done(&reader);
	return last;
}

static void honest_client(void)
{
	static const char spec[] = "{\"command\": [\"true\"]}";
	struct buf stream;

	buf_init(&stream, HULL_SPEC_MAX);
	CHECK(frame_put(&stream, HULL_FRAME_SPEC, spec, sizeof(spec) - 1) == 0);
	CHECK(frame_put(&stream, HULL_FRAME_STDIN, "in", 2) == 0);
	CHECK(frame_put(&stream, HULL_FRAME_STDIN_EOF, NULL, 0) == 0);
	kind = PROGRAM_ENDS;
	CHECK(converse((const uint8_t *)stream.data, stream.len, stream.len) == HULL_FRAME_EXIT);
	buf_done(&stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!loop)
		prepare();
	if (len < 2)
		return 0;
	kind = data[0] % PROGRAM_KINDS;
	converse(data + 2, len - 2, fuzz_piece(data[1], len));
	if (fuzz_honest_turn())
		honest_client();
	return 0;
}
