/* The keyboard controller: the driver's probing is answered, the reset line resets, keys arrive. */
#include "devices/i8042.h"

#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

struct fixture {
	struct i8042 *dev;
	unsigned interrupts, resets;
};

static void on_interrupt(void *ctx)
{
	((struct fixture *)ctx)->interrupts++;
}

static void on_reset(void *ctx)
{
	((struct fixture *)ctx)->resets++;
}

static const struct i8042_ops ops = {on_interrupt, on_reset};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->dev = i8042_new(&ops, f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	i8042_free(f->dev);
	free(f);
	return 0;
}

static uint8_t status(struct fixture *f)
{
	uint8_t v;

	i8042_read(f->dev, I8042_OFFSET_COMMAND, &v, 1);
	return v;
}

static uint8_t data(struct fixture *f)
{
	uint8_t v;

	i8042_read(f->dev, I8042_OFFSET_DATA, &v, 1);
	return v;
}

static void command(struct fixture *f, uint8_t v)
{
	i8042_write(f->dev, I8042_OFFSET_COMMAND, &v, 1);
}

static void send(struct fixture *f, uint8_t v)
{
	i8042_write(f->dev, I8042_OFFSET_DATA, &v, 1);
}

static void assert_output(struct fixture *f, const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		assert_true(status(f) & 1);
		assert_int_equal(data(f), (uint8_t)bytes[i]);
	}
	assert_false(status(f) & 1);
}

static void controller_passes_its_tests(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(status(f), 0x14);
	command(f, 0xaa);
	assert_output(f, "\x55", 1);
	command(f, 0xab);
	assert_output(f, "\x00", 1);
	command(f, 0xd0);
	assert_output(f, "\x03", 1);
}

static void control_register_is_kept_but_for_the_mouse(void **state)
{
	struct fixture *f = *state;

	command(f, 0x20);
	assert_output(f, "\x65", 1);
	command(f, 0x60);
	send(f, 0x54);
	command(f, 0x20);
	assert_output(f, "\x74", 1);
}

static void there_is_no_mouse_and_that_is_said_at_once(void **state)
{
	struct fixture *f = *state;

	command(f, 0xa9);
	assert_true(data(f) != 0);
	command(f, 0xd3);
	send(f, 0x5a);
	assert_int_equal(status(f) & 0x21, 0x01); /* it comes back, but not as the mouse's */
	assert_int_equal(data(f), 0x5a);
	command(f, 0xd4);
	send(f, 0xff);
	assert_false(status(f) & 1);
}

static void keyboard_answers_the_drivers_probing(void **state)
{
	struct fixture *f = *state;

	send(f, 0xf2);
	assert_output(f, "\xfa\xab\x41", 3);
	send(f, 0xed);
	assert_output(f, "\xfa", 1);
	send(f, 0x00);
	assert_output(f, "\xfa", 1);
	send(f, 0xf0);
	assert_output(f, "\xfa", 1);
	send(f, 0x00);
	assert_output(f, "\xfa\x02", 2);
	send(f, 0xee);
	assert_output(f, "\xee", 1);
	send(f, 0xff);
	assert_output(f, "\xfa\xaa", 2);
	command(f, 0x60);
	send(f, 0x05); /* not translated */
	send(f, 0xf2);
	assert_output(f, "\xfa\xab\x83", 3);
}

static void each_byte_raises_one_edge(void **state)
{
	struct fixture *f = *state;

	send(f, 0xf2);
	assert_int_equal(f->interrupts, 1);
	status(f);
	assert_int_equal(f->interrupts, 1);
	data(f);
	assert_int_equal(f->interrupts, 2);
	data(f);
	assert_int_equal(f->interrupts, 3);
	data(f);
	assert_int_equal(f->interrupts, 3);
	/* Disabled, none; pending when it is enabled again, one. */
	command(f, 0x60);
	send(f, 0x64);
	send(f, 0xee);
	assert_int_equal(f->interrupts, 3);
	command(f, 0x60);
	send(f, 0x65);
	assert_int_equal(f->interrupts, 4);
}

static void a_reply_comes_before_keys(void **state)
{
	struct fixture *f = *state;

	send(f, 0xee);
	command(f, 0xaa);
	assert_output(f, "\x55\xee", 2);
}

static void disabled_keyboard_holds_its_bytes(void **state)
{
	struct fixture *f = *state;

	command(f, 0xad);
	send(f, 0xee);
	assert_false(status(f) & 1);
	assert_int_equal(data(f), 0);
	command(f, 0xae);
	assert_output(f, "\xee", 1);
}

static void the_reset_line_resets(void **state)
{
	struct fixture *f = *state;

	command(f, 0xff); /* pulses nothing */
	command(f, 0xd1);
	send(f, 0x03);
	assert_int_equal(f->resets, 0);
	command(f, 0xfe);
	assert_int_equal(f->resets, 1);
	command(f, 0xd1);
	send(f, 0x02);
	assert_int_equal(f->resets, 2);
}

static void ctrl_alt_del_is_typed_once(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(i8042_press_ctrl_alt_del(f->dev), 0);
	assert_int_equal(i8042_press_ctrl_alt_del(f->dev), -EBUSY);
	assert_output(f, "\x1d\x38\xe0\x53\xe0\xd3\xb8\x9d", 8);
	assert_int_equal(f->interrupts, 8);
	send(f, 0xf5);
	assert_output(f, "\xfa", 1);
	assert_int_equal(i8042_press_ctrl_alt_del(f->dev), -EBUSY);
	send(f, 0xf4);
	assert_output(f, "\xfa", 1);
	command(f, 0x60);
	send(f, 0x05);
	assert_int_equal(i8042_press_ctrl_alt_del(f->dev), 0);
	assert_output(f, "\x14\x11\xe0\x71\xe0\xf0\x71\xf0\x11\xf0\x14", 11);
}

static void a_storm_fills_the_queue_and_no_more(void **state)
{
	struct fixture *f = *state;
	unsigned n = 0;

	for (unsigned i = 0; i < 1000; i++)
		send(f, 0xee);
	for (; status(f) & 1; n++)
		data(f);
	assert_int_equal(n, 32);
}

static void other_ports_and_widths_are_harmless(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[8];

	i8042_read(f->dev, 1, bytes, 1);
	assert_int_equal(bytes[0], 0xff);
	i8042_read(f->dev, 0, bytes, 8);
	assert_int_equal(bytes[0], 0);
	assert_int_equal(bytes[4], 0x14);
	assert_int_equal(bytes[7], 0xff);
	memset(bytes, 0, sizeof(bytes));
	i8042_write(f->dev, 2, bytes, 2);
	assert_int_equal(i8042_metrics(f->dev)->missed_write_count, 2);
	assert_int_equal(status(f), 0x14);
}

static void state_survives_in_mid_operation(void **state)
{
	struct fixture *f = *state;
	struct fixture other = {0};
	struct state_writer w;
	struct state_reader r;
	struct error err;

	send(f, 0xf2);
	assert_int_equal(data(f), 0xfa);
	command(f, 0x60); /* its parameter comes after the move */
	state_writer_init(&w);
	i8042_save(f->dev, &w);
	other.dev = i8042_new(&ops, &other);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(i8042_load(other.dev, &r, &err), 0);
	assert_int_equal(other.interrupts, 0);
	send(&other, 0x45);
	assert_output(&other, "\xab\x41", 2);
	command(&other, 0x20);
	assert_output(&other, "\x65", 1);
	i8042_free(other.dev);

	/* One bit more, and it is not taken. */
	w.buf.data[w.buf.len - 1] ^= 1;
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_not_equal(i8042_load(f->dev, &r, &err), 0);
	state_writer_done(&w);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(controller_passes_its_tests),
		CASE(control_register_is_kept_but_for_the_mouse),
		CASE(there_is_no_mouse_and_that_is_said_at_once),
		CASE(keyboard_answers_the_drivers_probing),
		CASE(each_byte_raises_one_edge),
		CASE(a_reply_comes_before_keys),
		CASE(disabled_keyboard_holds_its_bytes),
		CASE(the_reset_line_resets),
		CASE(ctrl_alt_del_is_typed_once),
		CASE(a_storm_fills_the_queue_and_no_more),
		CASE(other_ports_and_widths_are_harmless),
		CASE(state_survives_in_mid_operation),
	};

	return cmocka_run_group_tests_name("i8042", tests, NULL, NULL);
}
