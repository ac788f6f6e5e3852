/* The debugger's commands ("Packets" and "General Query Packets" in GDB's manual), by one table. What is not in it is
 * answered by nothing, as the protocol wants it: the debugger then does without. */
#include "vmm/gdb_stub.h"

#include "common/checked.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define SIGNAL_INTERRUPT 2 /* GDB's numbers */
#define SIGNAL_TRAP	 5

#define ALL_THREADS UINT64_MAX /* in place of an index */

/* What a command comes to. */
enum result {
	ANSWERED, /* stub->content is the answer, be it empty */
	SILENT,	  /* the answer is a stop, later; or there is none */
	OVER,	  /* as ANSWERED, and the session ends */
	GONE,	  /* as SILENT, and it ends */
};

/* ---- answers ---- */

/* An answer that does not fit is none: see send_answer(). */
#define SAY(stub, ...) ((void)buf_printf(&(stub)->content, __VA_ARGS__))

static enum result say_error(struct gdb_stub *stub, int r)
{
	buf_consume(&stub->content, stub->content.len);
	SAY(stub, "E%02x", (unsigned)-r & 0xff);
	return ANSWERED;
}

static enum result say_ok(struct gdb_stub *stub, int r)
{
	if (r < 0)
		return say_error(stub, r);
	SAY(stub, "OK");
	return ANSWERED;
}

static void send_answer(struct gdb_stub *stub)
{
	buf_consume(&stub->sent, stub->sent.len);
	if (gdb_packet_append(&stub->sent, stub->content.data ? stub->content.data : "", stub->content.len) == 0)
		(void)buf_append(stub->out, stub->sent.data, stub->sent.len); /* whoever lets answers pile up misses some */
	buf_consume(&stub->content, stub->content.len);
}

static enum result say_stop(struct gdb_stub *stub)
{
	static const char *const reasons[] = {
		[GDB_STOP_INTERRUPT] = "",
		[GDB_STOP_TRAP] = "",
		[GDB_STOP_SOFTWARE] = "swbreak:;",
		[GDB_STOP_HARDWARE] = "hwbreak:;",
		[GDB_STOP_WRITE] = "watch",
		[GDB_STOP_ACCESS] = "awatch",
	};
	const struct gdb_stop *stop = &stub->stop;

	SAY(stub, "T%02xthread:%x;%s", stop->kind == GDB_STOP_INTERRUPT ? SIGNAL_INTERRUPT : SIGNAL_TRAP,
		stop->thread + 1, reasons[stop->kind]);
	if (stop->kind == GDB_STOP_WRITE || stop->kind == GDB_STOP_ACCESS)
		SAY(stub, ":%llx;", (unsigned long long)stop->address);
	return ANSWERED;
}

/* ---- threads ---- */

/* At `*text`, which moves on: "-1" is all of them, "0" any, which is `any`. False when there is no such thread. */
static bool parse_thread(const struct gdb_stub *stub, const char **text, uint64_t any, uint64_t *ret)
{
	uint64_t id;

	if (strncmp(*text, "-1", 2) == 0) {
		*text += 2;
		*ret = ALL_THREADS;
		return true;
	}
	if (!gdb_number_parse(text, &id) || id > stub->n_threads)
		return false;
	*ret = id == 0 ? any : id - 1;
	return true;
}

static enum result select_thread(struct gdb_stub *stub, const char *args)
{
	bool for_registers = *args == 'g';
	uint64_t thread;

	if (*args != 'g' && *args != 'c')
		return ANSWERED;
	args++;
	if (!parse_thread(stub, &args, stub->thread, &thread) || *args)
		return say_error(stub, -EINVAL);
	if (for_registers && thread != ALL_THREADS)
		stub->thread = (unsigned)thread;
	return say_ok(stub, 0);
}

static enum result is_thread_alive(struct gdb_stub *stub, const char *args)
{
	uint64_t thread;

	return say_ok(stub, parse_thread(stub, &args, 0, &thread) && thread != ALL_THREADS && !*args ? 0 : -EINVAL);
}

static enum result list_threads(struct gdb_stub *stub, const char *args)
{
	(void)args;
	for (unsigned i = 0; i < stub->n_threads; i++)
		SAY(stub, "%c%x", i ? ',' : 'm', i + 1);
	return ANSWERED;
}

static enum result end_of_threads(struct gdb_stub *stub, const char *args)
{
	(void)args;
	SAY(stub, "l");
	return ANSWERED;
}

static enum result name_thread(struct gdb_stub *stub, const char *args)
{
	uint64_t thread;
	char name[32];

	if (!parse_thread(stub, &args, 0, &thread) || thread == ALL_THREADS || *args)
		return say_error(stub, -EINVAL);
	snprintf(name, sizeof(name), "vCPU %u", (unsigned)thread);
	(void)gdb_hex_append(&stub->content, name, strlen(name));
	return ANSWERED;
}

static enum result current_thread(struct gdb_stub *stub, const char *args)
{
	(void)args;
	SAY(stub, "QC%x", stub->thread + 1);
	return ANSWERED;
}

/* ---- registers and memory ---- */

static enum result read_registers(struct gdb_stub *stub, const char *args)
{
	struct gdb_registers registers;
	uint64_t number = 0;
	bool one = *args;
	int r = 0;

	if (one && (!gdb_number_parse(&args, &number) || *args))
		return say_error(stub, -EINVAL);
	r = stub->ops->read_registers(stub->ctx, stub->thread, &registers);
	if (r == 0)
		r = one ? gdb_registers_put(&registers, number, &stub->content)
			: gdb_registers_put_all(&registers, &stub->content);
	return r < 0 ? say_error(stub, r) : ANSWERED;
}

static enum result read_all_registers(struct gdb_stub *stub, const char *args)
{
	return *args ? say_error(stub, -EINVAL) : read_registers(stub, "");
}

static enum result read_one_register(struct gdb_stub *stub, const char *args)
{
	return *args ? read_registers(stub, args) : say_error(stub, -EINVAL);
}

static enum result write_all_registers(struct gdb_stub *stub, const char *args)
{
	struct gdb_registers registers = {0};
	int r = gdb_registers_take_all(&registers, args);

	return say_ok(stub, r < 0 ? r : stub->ops->write_registers(stub->ctx, stub->thread, &registers));
}

static int set_register(struct gdb_stub *stub, uint64_t number, const char *digits)
{
	struct gdb_registers registers;
	int r = stub->ops->read_registers(stub->ctx, stub->thread, &registers);

	if (r == 0)
		r = gdb_registers_take(&registers, number, digits);
	return r < 0 ? r : stub->ops->write_registers(stub->ctx, stub->thread, &registers);
}

static enum result write_one_register(struct gdb_stub *stub, const char *args)
{
	uint64_t number;

	if (!gdb_number_parse(&args, &number) || *args != '=')
		return say_error(stub, -EINVAL);
	return say_ok(stub, set_register(stub, number, args + 1));
}

/* "address,length", and what ends it; `*text` is behind that then. */
static bool parse_range(const char **text, char end, uint64_t *ret_address, uint64_t *ret_len)
{
	if (!gdb_number_parse(text, ret_address) || **text != ',')
		return false;
	++*text;
	if (!gdb_number_parse(text, ret_len) || **text != end)
		return false;
	if (end)
		++*text;
	return true;
}

static enum result read_memory(struct gdb_stub *stub, const char *args)
{
	uint8_t bytes[GDB_PACKET_MAX / 2];
	uint64_t address, len;
	size_t got;

	if (!parse_range(&args, '\0', &address, &len))
		return say_error(stub, -EINVAL);
	if (len > sizeof(bytes))
		len = sizeof(bytes); /* less than was asked for is an answer */
	got = stub->ops->read_memory(stub->ctx, stub->thread, address, bytes, (size_t)len);
	if (got == 0 && len > 0)
		return say_error(stub, -EFAULT);
	(void)gdb_hex_append(&stub->content, bytes, got);
	return ANSWERED;
}

static enum result write_memory(struct gdb_stub *stub, const char *args)
{
	uint8_t bytes[GDB_PACKET_MAX / 2];
	uint64_t address, len;

	if (!parse_range(&args, ':', &address, &len) || len > sizeof(bytes) || strlen(args) != 2 * len ||
		!gdb_hex_parse(args, bytes, (size_t)len))
		return say_error(stub, -EINVAL);
	return say_ok(stub, stub->ops->write_memory(stub->ctx, stub->thread, address, bytes, (size_t)len));
}

/* The same in bytes as they are. */
static enum result write_memory_binary(struct gdb_stub *stub, const char *args)
{
	uint64_t address, len;

	if (!parse_range(&args, ':', &address, &len) ||
		len != stub->reader.len - (size_t)(args - stub->reader.content))
		return say_error(stub, -EINVAL);
	return say_ok(stub, stub->ops->write_memory(stub->ctx, stub->thread, address, args, (size_t)len));
}

/* ---- breakpoints ---- */

/* "kind,address,size"; conditions and commands behind it were not offered. */
static enum result change_break(struct gdb_stub *stub, const char *args,
	int (*change)(void *ctx, unsigned thread, enum gdb_break_kind kind, uint64_t address, uint64_t size_bytes))
{
	uint64_t kind, address, size_bytes;

	if (!gdb_number_parse(&args, &kind) || *args != ',')
		return say_error(stub, -EINVAL);
	args++;
	if (!parse_range(&args, '\0', &address, &size_bytes))
		return say_error(stub, -EINVAL);
	switch (kind) {
	case GDB_BREAK_SOFTWARE:
	case GDB_BREAK_HARDWARE:
	case GDB_WATCH_WRITE:
	case GDB_WATCH_ACCESS:
		return say_ok(stub, change(stub->ctx, stub->thread, (enum gdb_break_kind)kind, address, size_bytes));
	default:
		return ANSWERED; /* not known here */
	}
}

static enum result insert_break(struct gdb_stub *stub, const char *args)
{
	return change_break(stub, args, stub->ops->insert);
}

static enum result remove_break(struct gdb_stub *stub, const char *args)
{
	return change_break(stub, args, stub->ops->remove);
}

/* ---- running ---- */

static enum result resume(struct gdb_stub *stub, const enum gdb_action *actions)
{
	for (unsigned i = 0; i < stub->n_threads; i++) {
		if (actions[i] == GDB_ACTION_STAY)
			continue;
		stub->running = true;
		stub->ops->resume(stub->ctx, actions);
		return SILENT;
	}
	return say_error(stub, -EINVAL);
}

/* One of "c", "s", "C05", "S05": a signal means nothing to a processor. False when it is none of them. */
static bool parse_action(const char **text, enum gdb_action *ret)
{
	char letter = **text;
	uint64_t ignored;

	if (letter != 'c' && letter != 's' && letter != 'C' && letter != 'S')
		return false;
	++*text;
	*ret = letter == 'c' || letter == 'C' ? GDB_ACTION_CONTINUE : GDB_ACTION_STEP;
	return letter == 'c' || letter == 's' || gdb_number_parse(text, &ignored);
}

/* ";action:thread;action:thread…": for each thread the first that is for it counts, one without a thread is for all. */
static enum result resume_by_threads(struct gdb_stub *stub, const char *args)
{
	enum gdb_action actions[GDB_THREADS_MAX] = {GDB_ACTION_STAY}, action;
	uint64_t thread;

	while (*args == ';') {
		args++;
		thread = ALL_THREADS;
		if (!parse_action(&args, &action))
			return say_error(stub, -EINVAL);
		if (*args == ':') {
			args++;
			if (!parse_thread(stub, &args, stub->thread, &thread))
				return say_error(stub, -EINVAL);
		}
		for (unsigned i = 0; i < stub->n_threads; i++)
			if (actions[i] == GDB_ACTION_STAY && (thread == ALL_THREADS || thread == i))
				actions[i] = action;
	}
	return *args ? say_error(stub, -EINVAL) : resume(stub, actions);
}

static enum result tell_actions(struct gdb_stub *stub, const char *args)
{
	(void)args;
	SAY(stub, "vCont;c;C;s;S");
	return ANSWERED;
}

/* For debuggers that do not know the one above: `args` is the letter, too. A new address to go on from is not taken: a
 * debugger that wants one writes the register. */
static enum result resume_simply(struct gdb_stub *stub, const char *args)
{
	enum gdb_action actions[GDB_THREADS_MAX] = {GDB_ACTION_STAY}, action;

	if (!parse_action(&args, &action) || *args)
		return say_error(stub, -EINVAL);
	for (unsigned i = 0; i < stub->n_threads; i++)
		actions[i] = action == GDB_ACTION_STEP && i != stub->thread ? GDB_ACTION_STAY : action;
	return resume(stub, actions);
}

static enum result why_stopped(struct gdb_stub *stub, const char *args)
{
	(void)args;
	return say_stop(stub);
}

static enum result detach(struct gdb_stub *stub, const char *args)
{
	(void)args;
	say_ok(stub, 0);
	return OVER;
}

static enum result kill_machine(struct gdb_stub *stub, const char *args)
{
	(void)args;
	stub->ops->kill(stub->ctx);
	return GONE;
}

/* ---- what is on offer ---- */

static enum result tell_features(struct gdb_stub *stub, const char *args)
{
	(void)args;
	SAY(stub, "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+", GDB_PACKET_MAX);
	return ANSWERED;
}

static enum result start_no_ack_mode(struct gdb_stub *stub, const char *args)
{
	(void)args;
	stub->no_ack = true;
	return say_ok(stub, 0);
}

static enum result is_attached(struct gdb_stub *stub, const char *args)
{
	(void)args;
	SAY(stub, "1"); /* to what was there before: a debugger that leaves lets it run */
	return ANSWERED;
}

/* "offset,length" of the description: 'm' before a part of it, 'l' before the last. */
static enum result describe_registers(struct gdb_stub *stub, const char *args)
{
	struct buf xml;
	uint64_t offset, len;
	size_t left;

	if (!parse_range(&args, '\0', &offset, &len))
		return say_error(stub, -EINVAL);
	buf_init(&xml, 4 * GDB_PACKET_MAX);
	if (gdb_registers_describe(&xml) < 0 || offset > xml.len) {
		buf_done(&xml);
		return say_error(stub, -EINVAL);
	}
	left = xml.len - (size_t)offset;
	if (len > GDB_PACKET_MAX - 1)
		len = GDB_PACKET_MAX - 1;
	SAY(stub, "%c", len < left ? 'm' : 'l');
	(void)buf_append(&stub->content, xml.data + offset, len < left ? (size_t)len : left);
	buf_done(&xml);
	return ANSWERED;
}

/* ---- the table ---- */

#define NOTHING 1

static const struct command {
	const char *name;
	bool keeps_name; /* its function reads the name, too */
	char end;	 /* what must follow the name, if anything follows; 0: anything may, NOTHING: nothing */
	enum result (*run)(struct gdb_stub *stub, const char *args);
} commands[] = {
	{"?", false, 0, why_stopped},
	{"H", false, 0, select_thread},
	{"T", false, 0, is_thread_alive},
	{"g", false, 0, read_all_registers},
	{"G", false, 0, write_all_registers},
	{"p", false, 0, read_one_register},
	{"P", false, 0, write_one_register},
	{"m", false, 0, read_memory},
	{"M", false, 0, write_memory},
	{"X", false, 0, write_memory_binary},
	{"Z", false, 0, insert_break},
	{"z", false, 0, remove_break},
	{"vCont?", false, 0, tell_actions},
	{"vCont", false, ';', resume_by_threads},
	{"c", true, 0, resume_simply},
	{"C", true, 0, resume_simply},
	{"s", true, 0, resume_simply},
	{"S", true, 0, resume_simply},
	{"D", false, 0, detach},
	{"k", false, 0, kill_machine},
	{"qSupported", false, ':', tell_features},
	{"QStartNoAckMode", false, 0, start_no_ack_mode},
	{"qXfer:features:read:target.xml:", false, 0, describe_registers},
	{"qAttached", false, ':', is_attached},
	{"qfThreadInfo", false, 0, list_threads},
	{"qsThreadInfo", false, 0, end_of_threads},
	{"qThreadExtraInfo,", false, 0, name_thread},
	{"qC", false, NOTHING, current_thread},
};

static enum result run_command(struct gdb_stub *stub)
{
	const char *text = stub->reader.content;

	if (stub->running)
		return say_error(stub, -EBUSY); /* all it may do is interrupt */
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		size_t len = strlen(commands[i].name);

		if (strncmp(text, commands[i].name, len) != 0 ||
			(commands[i].end && text[len] && text[len] != commands[i].end))
			continue;
		return commands[i].run(stub, commands[i].keeps_name ? text : text + len);
	}
	return ANSWERED;
}

static bool serve_packet(struct gdb_stub *stub)
{
	bool no_ack = stub->no_ack; /* the command that ends acknowledging is acknowledged itself */
	enum result result;

	if (!no_ack)
		(void)buf_append(stub->out, "+", 1);
	result = run_command(stub);
	if (result == ANSWERED || result == OVER)
		send_answer(stub);
	return result == ANSWERED || result == SILENT;
}

/* ---- the session ---- */

void gdb_stub_init(
	struct gdb_stub *stub, const struct gdb_target_ops *ops, void *ctx, unsigned n_threads, struct buf *out)
{
	assert(n_threads > 0 && n_threads <= GDB_THREADS_MAX);
	*stub = (struct gdb_stub){.ops = ops, .ctx = ctx, .n_threads = n_threads, .out = out, .stop.kind = GDB_STOP_TRAP};
	buf_init(&stub->content, GDB_PACKET_MAX);
	buf_init(&stub->sent, 2 * GDB_PACKET_MAX + 4);
}

void gdb_stub_done(struct gdb_stub *stub)
{
	buf_done(&stub->content);
	buf_done(&stub->sent);
}

bool gdb_stub_receive(struct gdb_stub *stub, const void *data, size_t len)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < len; i++) {
		switch (gdb_reader_take(&stub->reader, bytes[i])) {
		case GDB_INPUT_PACKET:
			if (!serve_packet(stub))
				return false;
			break;
		case GDB_INPUT_BROKEN:
			if (!stub->no_ack)
				(void)buf_append(stub->out, "-", 1);
			break;
		case GDB_INPUT_NACK:
			if (!stub->no_ack && stub->sent.len > 0)
				(void)buf_append(stub->out, stub->sent.data, stub->sent.len);
			break;
		case GDB_INPUT_INTERRUPT:
			if (stub->running)
				stub->ops->interrupt(stub->ctx);
			break;
		case GDB_INPUT_TOO_LONG:
			return false;
		case GDB_INPUT_ACK:
		case GDB_INPUT_MORE:
			break;
		}
	}
	return true;
}

void gdb_stub_stopped(struct gdb_stub *stub, const struct gdb_stop *stop)
{
	if (!stub->running)
		return;
	stub->running = false;
	stub->stop = *stop;
	stub->thread = stop->thread;
	say_stop(stub);
	send_answer(stub);
}

void gdb_stub_ended(struct gdb_stub *stub)
{
	if (!stub->running)
		return;
	SAY(stub, "W00");
	send_answer(stub);
}
