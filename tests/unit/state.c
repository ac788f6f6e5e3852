/* Saved state: what is put is what is got, and nothing damaged, cut short or foreign is taken for state. */
#include "tests/unit/test.h"

#include "devices/state.h"

#include <errno.h>
#include <string.h>

static void write_sample(struct state_writer *w)
{
	state_writer_init(w);
	state_begin(w, "first", 3);
	state_put_u8(w, 0x12);
	state_put_u16(w, 0x3456);
	state_put_u32(w, 0x789abcde);
	state_put_u64(w, 0x0123456789abcdef);
	state_put_bytes(w, "bytes", 5);
	state_put_bytes(w, NULL, 0);
	state_end(w);
	state_begin(w, "a-name-of-16-byt", 1);
	state_end(w);
}

static void fields_come_back_in_their_order(void **state)
{
	struct state_writer w;
	struct state_reader r;
	struct error err = {0};
	const uint8_t *bytes;

	(void)state;
	write_sample(&w);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(state_begin_section(&r, "first", 4, &err), 3);
	assert_int_equal(state_get_u8(&r), 0x12);
	assert_int_equal(state_get_u16(&r), 0x3456);
	assert_int_equal(state_get_u32(&r), 0x789abcde);
	assert_int_equal(state_get_u64(&r), 0x0123456789abcdef);
	assert_int_equal(state_get_bytes(&r, &bytes), 5);
	assert_memory_equal(bytes, "bytes", 5);
	assert_int_equal(state_get_bytes(&r, &bytes), 0);
	assert_int_equal(state_end_section(&r, &err), 0);
	assert_int_equal(state_begin_section(&r, "a-name-of-16-byt", 1, &err), 1);
	assert_int_equal(state_end_section(&r, &err), 0);
	assert_int_equal(state_begin_section(&r, "more", 1, &err), -ENODATA);
	state_writer_done(&w);
}

/* The layout is a format that other versions will read: name, version, length, checksum, payload. */
static void the_format_is_as_documented(void **state)
{
	static const uint8_t expected[] = {'x', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 9, 0,
		0, 0,
		/* CRC-32C of "123456789" is 0xe3069283 in every table of checksums */
		0x83, 0x92, 0x06, 0xe3, '1', '2', '3', '4', '5', '6', '7', '8', '9'};
	struct state_writer w;

	(void)state;
	state_writer_init(&w);
	state_begin(&w, "x", 2);
	for (char c = '1'; c <= '9'; c++)
		state_put_u8(&w, (uint8_t)c);
	state_end(&w);
	assert_int_equal(w.buf.len, sizeof(expected));
	assert_memory_equal(w.buf.data, expected, sizeof(expected));
	state_writer_done(&w);
}

static void any_flipped_bit_is_noticed(void **state)
{
	struct state_writer w;
	struct state_reader r;
	size_t first_section;

	(void)state;
	write_sample(&w);
	first_section = w.buf.len - 28;
	for (size_t bit = 0; bit < first_section * 8; bit++) {
		w.buf.data[bit / 8] ^= (char)(1 << bit % 8);
		state_reader_init(&r, w.buf.data, w.buf.len);
		/* Of the header, only a version below the known one is not refused by itself. */
		if (state_begin_section(&r, "first", 3, NULL) >= 0)
			assert_in_range(bit, 16 * 8, 20 * 8 - 1);
		w.buf.data[bit / 8] ^= (char)(1 << bit % 8);
	}
	state_writer_done(&w);
}

static void any_cut_is_noticed(void **state)
{
	struct state_writer w;
	struct state_reader r;
	struct error err = {0};

	(void)state;
	write_sample(&w);
	for (size_t len = 0; len < w.buf.len - 28; len++) {
		state_reader_init(&r, w.buf.data, len);
		assert_int_equal(state_begin_section(&r, "first", 3, &err), -ENODATA);
		assert_int_equal(state_get_u64(&r), 0);
		assert_true(state_end_section(&r, &err) < 0);
	}
	state_writer_done(&w);
}

static void foreign_sections_and_versions_are_refused(void **state)
{
	struct state_writer w;
	struct state_reader r;
	struct error err = {0};

	(void)state;
	write_sample(&w);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(state_begin_section(&r, "second", 3, &err), -EINVAL);
	assert_string_equal(err.message, "saved state has section first where second is expected");
	assert_int_equal(state_begin_section(&r, "firs", 3, &err), -EINVAL);
	assert_int_equal(state_begin_section(&r, "first", 2, &err), -EINVAL);
	assert_string_equal(err.message, "section first is of version 3; 1 to 2 are known");
	assert_int_equal(state_begin_section(&r, "first", 3, &err), 3);
	state_writer_done(&w);
}

static void a_reader_fails_once_and_for_good(void **state)
{
	struct state_writer w;
	struct state_reader r;
	struct error err = {0};
	const uint8_t *bytes;

	(void)state;
	state_writer_init(&w);
	state_begin(&w, "s", 1);
	state_put_u32(&w, 1000); /* the length of bytes that are not there */
	state_put_u8(&w, 7);
	state_end(&w);
	state_begin(&w, "next", 1);
	state_put_u64(&w, UINT64_MAX); /* which a reader of "s" must not reach */
	state_end(&w);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(state_begin_section(&r, "s", 1, &err), 1);
	assert_int_equal(state_get_bytes(&r, &bytes), 0);
	assert_null(bytes);
	assert_int_equal(state_get_u8(&r), 0); /* sticky */
	assert_int_equal(state_end_section(&r, &err), -EINVAL);

	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(state_begin_section(&r, "s", 1, &err), 1);
	assert_int_equal(state_get_u64(&r), 0); /* only 5 bytes are there */
	assert_int_equal(state_end_section(&r, &err), -EINVAL);

	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(state_begin_section(&r, "s", 1, &err), 1);
	assert_int_equal(state_get_u32(&r), 1000);
	assert_int_equal(state_end_section(&r, &err), -EINVAL); /* a byte is left */
	assert_string_equal(err.message, "a section of the saved state holds 1 bytes too many");
	state_writer_done(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_come_back_in_their_order),
		cmocka_unit_test(the_format_is_as_documented),
		cmocka_unit_test(any_flipped_bit_is_noticed),
		cmocka_unit_test(any_cut_is_noticed),
		cmocka_unit_test(foreign_sections_and_versions_are_refused),
		cmocka_unit_test(a_reader_fails_once_and_for_good),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
