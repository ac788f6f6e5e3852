/* The debugger's protocol as bytes: packets whole, broken, too long; escapes; digits. */
#include "tests/unit/test.h"

#include "vmm/gdb_packet.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* Feeds all of it; what the last byte came to. Nothing may come before. */
static enum gdb_input feed(struct gdb_reader *reader, const char *text, size_t len)
{
	for (size_t i = 0; i + 1 < len; i++)
		assert_int_equal(gdb_reader_take(reader, (uint8_t)text[i]), GDB_INPUT_MORE);
	return gdb_reader_take(reader, (uint8_t)text[len - 1]);
}

#define FEED(reader, text) feed(reader, text, sizeof(text) - 1)

static void test_a_packet_is_taken_apart(void **state)
{
	struct gdb_reader reader = {0};

	(void)state;
	assert_int_equal(FEED(&reader, "$qC#b4"), GDB_INPUT_PACKET);
	assert_string_equal(reader.content, "qC");
	assert_int_equal(reader.len, 2);
	assert_int_equal(FEED(&reader, "$#00"), GDB_INPUT_PACKET);
	assert_int_equal(reader.len, 0);
	assert_int_equal(FEED(&reader, "noise$qC#B4"), GDB_INPUT_PACKET);
}

static void test_what_is_between_packets(void **state)
{
	struct gdb_reader reader = {0};

	(void)state;
	assert_int_equal(FEED(&reader, "+"), GDB_INPUT_ACK);
	assert_int_equal(FEED(&reader, "-"), GDB_INPUT_NACK);
	assert_int_equal(FEED(&reader, "\x03"), GDB_INPUT_INTERRUPT);
	assert_int_equal(FEED(&reader, "x"), GDB_INPUT_MORE);
	assert_int_equal(FEED(&reader, "$X\x03+-#b3"), GDB_INPUT_PACKET);
	assert_string_equal(reader.content, "X\x03+-");
}

static void test_a_wrong_sum_is_broken(void **state)
{
	struct gdb_reader reader = {0};

	(void)state;
	assert_int_equal(FEED(&reader, "$qC#b5"), GDB_INPUT_BROKEN);
	assert_int_equal(FEED(&reader, "$qC#bx"), GDB_INPUT_BROKEN);
	assert_int_equal(FEED(&reader, "$qC#x"), GDB_INPUT_BROKEN);
	assert_int_equal(FEED(&reader, "$qC}#31"), GDB_INPUT_BROKEN); /* nothing to escape */
	assert_int_equal(FEED(&reader, "$cut off$qC#b4"), GDB_INPUT_PACKET);
	assert_string_equal(reader.content, "qC");
}

static void test_escapes_both_ways(void **state)
{
	static const char content[] = "a#b$c}d*e\0f";
	struct gdb_reader reader = {0};
	struct buf out;

	(void)state;
	buf_init(&out, 100);
	assert_int_equal(gdb_packet_append(&out, content, sizeof(content)), 0);
	assert_int_equal(out.data[0], '$');
	assert_int_equal(feed(&reader, out.data, out.len), GDB_INPUT_PACKET);
	assert_int_equal(reader.len, sizeof(content));
	assert_memory_equal(reader.content, content, sizeof(content));
	buf_done(&out);
}

static void test_a_packet_has_its_longest(void **state)
{
	struct gdb_reader reader = {0};
	struct buf out;
	char content[GDB_PACKET_MAX + 1];

	(void)state;
	memset(content, 'x', sizeof(content));
	buf_init(&out, 3 * GDB_PACKET_MAX);
	assert_int_equal(gdb_packet_append(&out, content, GDB_PACKET_MAX), 0);
	assert_int_equal(feed(&reader, out.data, out.len), GDB_INPUT_PACKET);
	assert_int_equal(reader.len, GDB_PACKET_MAX);
	buf_consume(&out, out.len);
	assert_int_equal(gdb_packet_append(&out, content, sizeof(content)), 0);
	assert_int_equal(feed(&reader, out.data, 1 + GDB_PACKET_MAX + 1), GDB_INPUT_TOO_LONG);
	buf_done(&out);
}

static void test_what_does_not_fit_is_not_sent_in_part(void **state)
{
	struct buf out;

	(void)state;
	buf_init(&out, 8);
	assert_int_equal(gdb_packet_append(&out, "12345", 5), -EMSGSIZE);
	assert_int_equal(out.len, 0);
	assert_int_equal(gdb_hex_append(&out, "12345", 5), -EMSGSIZE);
	assert_int_equal(out.len, 0);
	buf_done(&out);
}

static void test_numbers(void **state)
{
	static const struct {
		const char *text;
		bool ok;
		uint64_t number;
		const char *rest;
	} cases[] = {
		{"0", true, 0, ""},
		{"1aF,", true, 0x1af, ","},
		{"ffffffffffffffff:", true, UINT64_MAX, ":"},
		{"00000000000000000001", true, 1, ""},
		{"10000000000000000", false, 0, NULL},
		{"", false, 0, NULL},
		{",1", false, 0, NULL},
		{"-1", false, 0, NULL},
		{"x1", false, 0, NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *at = cases[i].text;
		uint64_t number = 99;

		assert_int_equal(gdb_number_parse(&at, &number), cases[i].ok);
		assert_int_equal(number, cases[i].ok ? cases[i].number : 99);
		assert_string_equal(at, cases[i].ok ? cases[i].rest : cases[i].text);
	}
}

static void test_bytes_in_hexadecimal(void **state)
{
	uint8_t bytes[3] = {0};

	(void)state;
	assert_true(gdb_hex_parse("00aBff", bytes, 3));
	assert_memory_equal(bytes, "\x00\xab\xff", 3);
	assert_false(gdb_hex_parse("00abf", bytes, 3));
	assert_false(gdb_hex_parse("", bytes, 1));
	assert_false(gdb_hex_parse("0g", bytes, 1));
	assert_true(gdb_hex_parse("", bytes, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_packet_is_taken_apart),
		cmocka_unit_test(test_what_is_between_packets),
		cmocka_unit_test(test_a_wrong_sum_is_broken),
		cmocka_unit_test(test_escapes_both_ways),
		cmocka_unit_test(test_a_packet_has_its_longest),
		cmocka_unit_test(test_what_does_not_fit_is_not_sent_in_part),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_bytes_in_hexadecimal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
