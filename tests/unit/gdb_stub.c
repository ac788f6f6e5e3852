/* A debugger's session: each command, and what none may be. */
#include "tests/unit/test.h"

#include "tests/unit/gdb_world.h"

#include <stdbool.h>
#include <stdlib.h>

static int setup(void **state)
{
	struct gdb_world *w = malloc(sizeof(*w));

	gdb_world_init(w);
	for (unsigned i = 0; i < GDB_WORLD_THREADS; i++)
		w->registers[i].rip = 0x1000 * (i + 1);
	for (unsigned i = 0; i < GDB_WORLD_MEMORY; i++)
		w->memory[i] = (uint8_t)i;
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	gdb_world_done(*state);
	free(*state);
	return 0;
}

/* Sends a command; whether the session goes on. */
static bool send(struct gdb_world *w, const char *content, size_t len)
{
	struct buf packet;
	bool goes_on;

	buf_consume(&w->out, w->out.len);
	buf_init(&packet, 4 * GDB_PACKET_MAX);
	assert_int_equal(gdb_packet_append(&packet, content, len), 0);
	goes_on = gdb_stub_receive(&w->stub, packet.data, packet.len);
	buf_done(&packet);
	return goes_on;
}

/* Takes the answer out of `out`, whose acknowledgement comes first. NULL: there is none. */
static const char *answer(struct gdb_world *w, struct gdb_reader *reader)
{
	enum gdb_input last = GDB_INPUT_MORE;

	*reader = (struct gdb_reader){0};
	for (size_t i = 0; i < w->out.len; i++)
		last = gdb_reader_take(reader, (uint8_t)w->out.data[i]);
	return last == GDB_INPUT_PACKET ? reader->content : NULL;
}

static void ask(struct gdb_world *w, const char *command, const char *expected)
{
	struct gdb_reader reader;

	assert_true(send(w, command, strlen(command)));
	assert_non_null(answer(w, &reader));
	assert_string_equal(reader.content, expected);
}

static void test_what_is_on_offer(void **state)
{
	struct gdb_world *w = *state;

	ask(w, "qSupported:multiprocess+;swbreak+",
		"PacketSize=1000;QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+");
	ask(w, "vCont?", "vCont;c;C;s;S");
	ask(w, "qAttached", "1");
	ask(w, "qAttached:1", "1");
	ask(w, "?", "T05thread:1;");
	/* What is not there is answered by nothing. */
	ask(w, "vMustReplyEmpty", "");
	ask(w, "qCRC:0,1", "");
	ask(w, "qSymbol::", "");
	ask(w, "vKill;1", "");
	ask(w, "!", "");
	ask(w, "", "");
}

static void test_acknowledgements_can_be_done_without(void **state)
{
	struct gdb_world *w = *state;

	ask(w, "QStartNoAckMode", "OK");
	assert_memory_equal(w->out.data, "+$OK#9a", 7);
	ask(w, "qC", "QC1");
	assert_int_equal(w->out.data[0], '$');
	buf_consume(&w->out, w->out.len);
	assert_true(gdb_stub_receive(&w->stub, "$qC#00-", 7)); /* broken, and nobody asks again */
	assert_int_equal(w->out.len, 0);
}

static void test_what_came_broken_is_sent_again(void **state)
{
	struct gdb_world *w = *state;
	char first[32];
	size_t len;

	assert_true(gdb_stub_receive(&w->stub, "-", 1)); /* nothing was sent yet */
	assert_int_equal(w->out.len, 0);
	assert_true(gdb_stub_receive(&w->stub, "$qC#b5", 6));
	assert_int_equal(w->out.len, 1);
	assert_int_equal(w->out.data[0], '-');
	ask(w, "qC", "QC1");
	len = w->out.len - 1;
	memcpy(first, w->out.data + 1, len);
	buf_consume(&w->out, w->out.len);
	assert_true(gdb_stub_receive(&w->stub, "-", 1));
	assert_int_equal(w->out.len, len);
	assert_memory_equal(w->out.data, first, len);
}

static void test_threads_are_processors(void **state)
{
	struct gdb_world *w = *state;

	ask(w, "qfThreadInfo", "m1,2,3,4");
	ask(w, "qsThreadInfo", "l");
	ask(w, "qThreadExtraInfo,3", "764350552032"); /* vCPU 2 */
	ask(w, "T4", "OK");
	ask(w, "T5", "E16");
	ask(w, "T-1", "E16");
	ask(w, "Hg3", "OK");
	ask(w, "qC", "QC3");
	ask(w, "Hg0", "OK");
	ask(w, "Hg-1", "OK");
	ask(w, "Hc-1", "OK");
	ask(w, "qC", "QC3");
	ask(w, "Hg5", "E16");
	ask(w, "Hgx", "E16");
	ask(w, "H", "");
	ask(w, "qThreadExtraInfo,9", "E16");
}

static void test_registers(void **state)
{
	struct gdb_world *w = *state;
	struct gdb_reader reader;
	size_t bytes = 17 * 8 + 7 * 4 + 8 * 10 + 8 * 4 + 16 * 16 + 4 + 2 * 8 + 6 * 8;

	assert_true(send(w, "g", 1));
	assert_non_null(answer(w, &reader));
	assert_int_equal(reader.len, 2 * bytes);
	assert_memory_equal(reader.content + 2 * 16 * 8, "0010000000000000", 16);
	ask(w, "Hg2", "OK");
	ask(w, "p10", "0020000000000000");
	ask(w, "P10=efcdab8967452301", "OK");
	assert_int_equal(w->registers[1].rip, 0x0123456789abcdef);
	assert_int_equal(w->registers[0].rip, 0x1000);
	ask(w, "p11", "00000000"); /* eflags */
	ask(w, "P11=02000000", "OK");
	assert_int_equal(w->registers[1].eflags, 2);
	ask(w, "p18", "00000000000000000000"); /* st0 */
	/* Their whole, back again. */
	reader.content[0] = '4';
	memmove(reader.content + 1, reader.content, reader.len + 1);
	reader.content[0] = 'G';
	ask(w, reader.content, "OK");
	assert_int_equal(w->registers[1].rax, 0x40);
	assert_int_equal(w->registers[1].rip, 0x1000);
}

static void test_what_no_register_is(void **state)
{
	struct gdb_world *w = *state;

	ask(w, "p", "E16");
	ask(w, "pzz", "E16");
	ask(w, "p1000", "E02");
	ask(w, "pffffffffffffffff", "E02");
	ask(w, "P10", "E16");
	ask(w, "P10=12", "E16");
	ask(w, "P10=efcdab896745230100", "E16");
	ask(w, "P1000=00", "E02");
	ask(w, "G00", "E16");
	ask(w, "gg", "E16");
	assert_int_equal(w->registers[0].rip, 0x1000);
}

static void test_memory(void **state)
{
	struct gdb_world *w = *state;
	struct gdb_reader reader;

	ask(w, "Hg2", "OK");
	ask(w, "m10,4", "10111213");
	assert_int_equal(w->last_thread, 1);
	ask(w, "m2ffe,10", "feff"); /* to its end */
	ask(w, "m3000,1", "E0e");
	ask(w, "M20,3:aabbcc", "OK");
	assert_memory_equal(w->memory + 0x20, "\xaa\xbb\xcc\x23", 4);
	assert_true(send(w, "X30,4:#$}*", 10));
	assert_non_null(answer(w, &reader));
	assert_string_equal(reader.content, "OK");
	assert_memory_equal(w->memory + 0x30, "#$}*\x34", 5);
	ask(w, "X30,0:", "OK"); /* a debugger asks so whether it may */
	ask(w, "M3000,1:00", "E0e");
	/* More than a packet holds: less is an answer. */
	assert_true(send(w, "m0,10000", 8));
	assert_non_null(answer(w, &reader));
	assert_int_equal(reader.len, GDB_PACKET_MAX);
}

static void test_what_no_range_is(void **state)
{
	static const char *const wrong[] = {"m", "m10", "m10,", "m,4", "m10;4", "m10,4x", "m11111111111111111,1", "M20,3",
		"M20,3:aabb", "M20,3:aabbccdd", "M20,3:aabbcx", "M20,ffffffffffffffff:", "X20,3:ab", "X20,3:abcd", "X20,3",
		"Z0", "Z0,", "Z0,10", "Z,10,1", "Z0,10,1;X"};
	struct gdb_world *w = *state;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		ask(w, wrong[i], "E16");
	assert_int_equal(w->n_breaks, 0);
}

static void test_breakpoints(void **state)
{
	static const enum gdb_break_kind kinds[] = {GDB_BREAK_SOFTWARE, GDB_BREAK_HARDWARE, GDB_WATCH_WRITE, GDB_WATCH_ACCESS};
	struct gdb_world *w = *state;

	ask(w, "Z0,ffffffff81000000,1", "OK");
	ask(w, "Z1,1000,1", "OK");
	ask(w, "Z2,2000,8", "OK");
	ask(w, "Z4,2008,4", "OK");
	assert_int_equal(w->n_breaks, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(w->breaks[i].kind, kinds[i]);
	assert_int_equal(w->breaks[0].address, 0xffffffff81000000);
	assert_int_equal(w->breaks[2].size_bytes, 8);
	ask(w, "z2,2000,8", "OK");
	assert_int_equal(w->n_breaks, 3);
	ask(w, "Z3,2000,8", ""); /* no processor watches reads alone */
	ask(w, "Z9,2000,8", "");
	for (unsigned i = w->n_breaks; i < GDB_WORLD_BREAKS; i++)
		ask(w, "Z0,1,1", "OK");
	ask(w, "Z0,1,1", "E1c");
}

static void assert_resumed(struct gdb_world *w, const char *command, const char *actions)
{
	unsigned before = w->n_resumed;
	struct gdb_stop stop = {.thread = 1, .kind = GDB_STOP_TRAP};
	struct gdb_reader reader;

	assert_true(send(w, command, strlen(command)));
	assert_null(answer(w, &reader));
	assert_int_equal(w->n_resumed, before + 1);
	for (unsigned i = 0; i < GDB_WORLD_THREADS; i++)
		assert_int_equal(w->actions[i], actions[i] == 'c' ? GDB_ACTION_CONTINUE :
			actions[i] == 's' ? GDB_ACTION_STEP : GDB_ACTION_STAY);
	buf_consume(&w->out, w->out.len);
	gdb_stub_stopped(&w->stub, &stop);
	assert_string_equal(answer(w, &reader), "T05thread:2;");
}

static void test_each_thread_does_what_it_is_told(void **state)
{
	struct gdb_world *w = *state;

	assert_resumed(w, "vCont;c", "cccc");
	assert_resumed(w, "vCont;s:2;c", "cscc");
	assert_resumed(w, "vCont;s:3", "--s-");
	assert_resumed(w, "vCont;C05:1;S05:-1", "csss");
	assert_resumed(w, "vCont;s:0", "-s--"); /* any: the one that is spoken of, the last to stop */
	assert_resumed(w, "c", "cccc");
	assert_resumed(w, "s", "-s--");
	assert_resumed(w, "C05", "cccc");
}

static void test_what_resumes_nothing(void **state)
{
	static const char *const wrong[] = {"vCont;", "vCont;x", "vCont;t", "vCont;s:5", "vCont;s:x", "vCont;c:1:2", "vCont;C",
		"vCont;c;", "vCont", "c1000", "s1000", "C", "vCont;r1000,2000:1"};
	struct gdb_world *w = *state;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		ask(w, wrong[i], "E16");
	ask(w, "vContinue", "");
	assert_int_equal(w->n_resumed, 0);
}

static void test_why_it_stopped(void **state)
{
	static const struct {
		struct gdb_stop stop;
		const char *told;
	} cases[] = {
		{{0, GDB_STOP_INTERRUPT, 0}, "T02thread:1;"},
		{{3, GDB_STOP_SOFTWARE, 0}, "T05thread:4;swbreak:;"},
		{{0, GDB_STOP_HARDWARE, 0x10}, "T05thread:1;hwbreak:;"},
		{{1, GDB_STOP_WRITE, 0xffff888000000010}, "T05thread:2;watch:ffff888000000010;"},
		{{1, GDB_STOP_ACCESS, 0x10}, "T05thread:2;awatch:10;"},
	};
	struct gdb_world *w = *state;
	struct gdb_reader reader;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_true(send(w, "c", 1));
		buf_consume(&w->out, w->out.len);
		gdb_stub_stopped(&w->stub, &cases[i].stop);
		assert_string_equal(answer(w, &reader), cases[i].told);
		gdb_stub_stopped(&w->stub, &cases[i].stop); /* nobody waits for it */
		assert_string_equal(answer(w, &reader), cases[i].told);
		ask(w, "?", cases[i].told);
	}
}

static void test_a_running_machine_is_interrupted_and_nothing_else(void **state)
{
	struct gdb_world *w = *state;
	struct gdb_reader reader;

	assert_true(gdb_stub_receive(&w->stub, "\x03", 1)); /* it stands still */
	assert_int_equal(w->n_interrupted, 0);
	assert_true(send(w, "vCont;c", 7));
	ask(w, "g", "E10");
	ask(w, "D", "E10");
	buf_consume(&w->out, w->out.len);
	assert_true(gdb_stub_receive(&w->stub, "\x03", 1));
	assert_int_equal(w->n_interrupted, 1);
	assert_string_equal(answer(w, &reader), "T02thread:3;");
	ask(w, "qC", "QC3");
}

static void test_detach_and_kill_end_the_session(void **state)
{
	struct gdb_world *w = *state;
	struct gdb_reader reader;

	assert_false(send(w, "D", 1));
	assert_string_equal(answer(w, &reader), "OK");
	assert_int_equal(w->n_killed, 0);
	assert_false(send(w, "k", 1));
	assert_null(answer(w, &reader));
	assert_int_equal(w->n_killed, 1);
}

static void test_whoever_sends_too_much_is_no_debugger(void **state)
{
	struct gdb_world *w = *state;
	char content[GDB_PACKET_MAX + 1];

	memset(content, 'x', sizeof(content));
	assert_true(send(w, content, GDB_PACKET_MAX));
	assert_false(send(w, content, sizeof(content)));
}

static void test_a_machine_that_ends_is_told_of(void **state)
{
	struct gdb_world *w = *state;
	struct gdb_reader reader;

	gdb_stub_ended(&w->stub);
	assert_int_equal(w->out.len, 0);
	assert_true(send(w, "c", 1));
	gdb_stub_ended(&w->stub);
	assert_string_equal(answer(w, &reader), "W00");
}

/* Reads it in parts of `step`, as a debugger does. */
static void read_description(struct gdb_world *w, unsigned step, char *ret, size_t size)
{
	struct gdb_reader reader;
	size_t len = 0;
	char command[64];

	do {
		snprintf(command, sizeof(command), "qXfer:features:read:target.xml:%zx,%x", len, step);
		assert_true(send(w, command, strlen(command)));
		assert_non_null(answer(w, &reader));
		assert_true(reader.len >= 1 && len + reader.len < size);
		memcpy(ret + len, reader.content + 1, reader.len - 1);
		len += reader.len - 1;
	} while (reader.content[0] == 'm');
	assert_int_equal(reader.content[0], 'l');
	ret[len] = '\0';
}

static void test_registers_are_described(void **state)
{
	struct gdb_world *w = *state;
	static char whole[4 * GDB_PACKET_MAX], parts[4 * GDB_PACKET_MAX];

	read_description(w, 0xffffff, whole, sizeof(whole));
	read_description(w, 100, parts, sizeof(parts));
	assert_string_equal(whole, parts);
	assert_non_null(strstr(whole, "<feature name=\"org.gnu.gdb.i386.core\">"));
	assert_non_null(strstr(whole, "<reg name=\"rip\" bitsize=\"64\" type=\"code_ptr\"/>"));
	assert_non_null(strstr(whole, "<reg name=\"st7\" bitsize=\"80\" type=\"i387_ext\"/>"));
	assert_non_null(strstr(whole, "<reg name=\"cr3\" bitsize=\"64\" type=\"int\"/>"));
	assert_non_null(strstr(whole, "</target>\n"));
	ask(w, "qXfer:features:read:target.xml:fffff,10", "E16");
	ask(w, "qXfer:features:read:target.xml:0", "E16");
	ask(w, "qXfer:features:read:other.xml:0,10", "");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_what_is_on_offer),
		TEST(test_acknowledgements_can_be_done_without),
		TEST(test_what_came_broken_is_sent_again),
		TEST(test_threads_are_processors),
		TEST(test_registers),
		TEST(test_what_no_register_is),
		TEST(test_memory),
		TEST(test_what_no_range_is),
		TEST(test_breakpoints),
		TEST(test_each_thread_does_what_it_is_told),
		TEST(test_what_resumes_nothing),
		TEST(test_why_it_stopped),
		TEST(test_a_running_machine_is_interrupted_and_nothing_else),
		TEST(test_detach_and_kill_end_the_session),
		TEST(test_whoever_sends_too_much_is_no_debugger),
		TEST(test_a_machine_that_ends_is_told_of),
		TEST(test_registers_are_described),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
