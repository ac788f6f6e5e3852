/* A hostile client of the agent, and a hostile program that a health check asks: whatever they say, in whatever pieces, the
 * agent keeps its bounds, answers once or not at all, and serves an honest client afterwards. Nothing is carried out, started
 * or connected to.
 *
 *	byte 0: what becomes of a program  byte 1: bytes a piece  byte 2: so many bytes are what an asked port says
 *	then those, and the client's stream */
#include "tests/fuzz/frames.h"

#include "common/exec_spec.h"
#include "common/frame.h"
#include "guest-kernel/dial.h"
#include "guest-kernel/order_verbs.h"
#include "guest-kernel/orders.h"
#include "guest-kernel/process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#define PID	   0x7ffffff0 /* no process has it */
#define TIMEOUT_MS 600000

enum { PROGRAM_RUNS, PROGRAM_ENDS, PROGRAM_FAILS, PROGRAM_REFUSED, PROGRAM_NOT_FORKED, PROGRAM_KINDS };

static struct loop *loop;
static struct orders *orders;
static unsigned kind;
static bool running, killed;
static dial_fn dialled; /* NULL: nobody waits for a connection */
static void *dialled_ctx;

/* In place of the real ones (--wrap). */
int __wrap_process_spawn(const struct process_spec *spec, pid_t *ret_pid, struct error *err);
int __wrap_kill(pid_t pid, int signo);
int __wrap_order_carry_out(struct order *order, struct guest_config *config, struct order_answer *ret, struct error *err);
struct dial *__wrap_dial_new(struct loop *on, uint16_t port, dial_fn fn, void *ctx);
void __wrap_dial_cancel(struct dial *dial);

int __wrap_process_spawn(const struct process_spec *spec, pid_t *ret_pid, struct error *err)
{
	struct process_failure failure = {.status = PROCESS_STATUS_NOT_FOUND};
	int report[2];

	CHECK(spec->argv && spec->argv[0][0] && spec->env && spec->user && spec->workdir[0] == '/');
	if (kind == PROGRAM_NOT_FORKED)
		return error_set_errno(err, EAGAIN, "fork");
	CHECK(pipe2(report, O_CLOEXEC) == 0);
	error_set_field(&failure.error, ENOENT, "command", "no\xc3");
	if (kind == PROGRAM_REFUSED)
		CHECK(write(report[1], &failure, sizeof(failure)) == sizeof(failure));
	else
		CHECK(write(spec->stdio[1], "out\nl\xffst\n\n", 10) == 10);
	close(report[1]);
	running = true;
	killed = false;
	*ret_pid = PID;
	return report[0];
}

int __wrap_kill(pid_t pid, int signo)
{
	CHECK((pid == PID || pid == -PID) && signo == SIGKILL);
	killed = true;
	return 0;
}

int __wrap_order_carry_out(struct order *order, struct guest_config *config, struct order_answer *ret, struct error *err)
{
	uint8_t seed[ORDER_SEED_MAX];

	CHECK(config && order_check(order, err) == 0);
	if (order->verb == ORDER_RESEED)
		CHECK(order_seed(order, seed) >= 16);
	ret->moved_ns = order->unix_ns;
	return kind == PROGRAM_REFUSED ? error_set_errno(err, EPERM, "no") : 0;
}

struct dial *__wrap_dial_new(struct loop *on, uint16_t port, dial_fn fn, void *ctx)
{
	CHECK(on == loop && port != 0 && !dialled);
	if (kind == PROGRAM_NOT_FORKED)
		return NULL;
	dialled = fn;
	dialled_ctx = ctx;
	return (struct dial *)&dialled;
}

void __wrap_dial_cancel(struct dial *dial)
{
	if (dial)
		dialled = NULL;
}

static void prepare(void)
{
	static struct guest_config config = {.hostname = (char *)"fuzz", .user = (char *)"root", .workdir = (char *)"/"};

	signal(SIGPIPE, SIG_IGN);
	config.env = json_object();
	loop = loop_new();
	orders = orders_new(loop, &config);
	CHECK(loop && orders);
}

/* The frame the agent has sent, of which everything makes sense; 0: none. */
static int listen_to(int fd, struct frame_reader *reader)
{
	struct order_answer answer;
	struct exec_refusal refusal;
	struct frame frame;
	struct error err;
	json_t *object;
	int r = frame_read(reader, fd, &frame);

	CHECK(r != -EPROTO);
	if (r <= 0)
		return 0;
	object = json_parse(frame.data, frame.len, &err);
	if (frame.type == HULL_FRAME_ANSWER) {
		CHECK(object && json_read(&order_answer_table, object, &answer, &err) == 0);
		json_done(&order_answer_table, &answer);
	} else {
		CHECK(frame.type == HULL_FRAME_REFUSED && object && json_read(&exec_refusal_table, object, &refusal, &err) == 0);
		json_done(&exec_refusal_table, &refusal);
	}
	json_decref(object);
	return frame.type;
}

static void say(int fd, const uint8_t *data, size_t len, size_t piece)
{
	while (len) {
		size_t part = len < piece ? len : piece;

		if (send(fd, data, part, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break;
		data += part;
		len -= part;
		fuzz_run_loop(loop);
	}
}

/* Whom a health check asks is there, and says this. */
static void be_asked(const uint8_t *data, size_t len, size_t piece)
{
	dial_fn fn = dialled;
	int ends[2];

	if (!fn)
		return;
	dialled = NULL;
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
	fn(dialled_ctx, 0, ends[1]);
	say(ends[0], data, len, piece);
	close(ends[0]);
	fuzz_run_loop(loop);
}

/* Returns the frame the agent sent. */
static int converse(const uint8_t *says, size_t says_len, const uint8_t *data, size_t len, size_t piece)
{
	struct frame_reader reader;
	int ends[2], said;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
	CHECK(orders_serve(orders, ends[1], TIMEOUT_MS) == 0);
	frame_reader_init(&reader, HULL_FRAME_MAX);
	running = false;
	say(ends[0], data, len, piece);
	be_asked(says, says_len, piece);
	if (running && kind != PROGRAM_RUNS) {
		orders_child_ended(orders, PID, kind == PROGRAM_ENDS ? 0 : 3 << 8);
		running = false;
	}
	fuzz_run_loop(loop);
	said = listen_to(ends[0], &reader);
	CHECK(!said || listen_to(ends[0], &reader) == 0);
	close(ends[0]);
	fuzz_run_loop(loop);
	fuzz_run_loop(loop);
	CHECK(!running || killed); /* it went with its client */
	CHECK(!dialled);
	frame_reader_done(&reader);
	return said;
}

static void honest_client(void)
{
	static const char spec[] = "{\"verb\": \"health\", \"health\": {\"http\": {\"port\": 80}}}";
	static const uint8_t page[] = "HTTP/1.1 200 OK\r\n\r\n";
	struct buf stream;

	buf_init(&stream, HULL_SPEC_MAX);
	CHECK(frame_put(&stream, HULL_FRAME_SPEC, spec, sizeof(spec) - 1) == 0);
	kind = PROGRAM_ENDS;
	CHECK(converse(page, sizeof(page) - 1, (const uint8_t *)stream.data, stream.len, stream.len) == HULL_FRAME_ANSWER);
	buf_done(&stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	size_t says_len;

	if (!loop)
		prepare();
	if (len < 3)
		return 0;
	says_len = data[2] < len - 3 ? data[2] : len - 3;
	kind = data[0] % PROGRAM_KINDS;
	converse(data + 3, says_len, data + 3 + says_len, len - 3 - says_len, fuzz_piece(data[1], len));
	orders_thaw(orders);
	if (fuzz_honest_turn())
		honest_client();
	return 0;
}
