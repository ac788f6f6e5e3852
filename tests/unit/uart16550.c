/* The serial port as its driver sees it: what goes out, what comes in, and when it interrupts. */
#include "devices/uart16550.h"

#include "tests/unit/test.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR };

struct fixture {
	struct uart16550 *uart;
	bool input_comes; /* while the next output is under way */
	unsigned interrupts, transmits, readies;
	char sent[1024];
	size_t sent_len;
};

static void on_interrupt(void *ctx)
{
	((struct fixture *)ctx)->interrupts++;
}

static void *another_thread(void *ctx)
{
	uart16550_receive(((struct fixture *)ctx)->uart, "x", 1);
	return NULL;
}

static void receive_elsewhere(struct fixture *f)
{
	struct timespec deadline;
	pthread_t thread;

	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += 10;
	assert_int_equal(pthread_create(&thread, NULL, another_thread, f), 0);
	assert_int_equal(pthread_timedjoin_np(thread, NULL, &deadline), 0);
}

static void on_transmit(void *ctx, const uint8_t *data, size_t len)
{
	struct fixture *f = ctx;

	if (f->input_comes)
		receive_elsewhere(f);
	assert_true(len > 0 && f->sent_len + len < sizeof(f->sent));
	memcpy(f->sent + f->sent_len, data, len);
	f->sent_len += len;
	f->transmits++;
}

static void on_ready(void *ctx)
{
	((struct fixture *)ctx)->readies++;
}

static const struct uart16550_ops ops = {on_interrupt, on_transmit, on_ready};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->uart = uart16550_new(&ops, f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	uart16550_free(f->uart);
	free(f);
	return 0;
}

static uint8_t in(struct fixture *f, unsigned reg)
{
	uint8_t v = 0xee;

	uart16550_read(f->uart, reg, &v, 1);
	return v;
}

static void out(struct fixture *f, unsigned reg, uint8_t v)
{
	uart16550_write(f->uart, reg, &v, 1);
}

static void out_string(struct fixture *f, const char *s)
{
	for (; *s; s++)
		out(f, DATA, (uint8_t)*s);
}

/* The steps of Linux's autoconfig(): enables hold four bits, loopback mirrors the modem lines, FIFOs show. */
static void linux_recognises_a_16550a(void **state)
{
	struct fixture *f = *state;

	out(f, IER, 0);
	assert_int_equal(in(f, IER), 0);
	out(f, IER, 0xff);
	assert_int_equal(in(f, IER), 0x0f);
	out(f, IER, 0);
	out(f, SCR, 0x5a);
	assert_int_equal(in(f, SCR), 0x5a);
	out(f, MCR, 0x1a);
	assert_int_equal(in(f, MSR) & 0xf0, 0x90);
	out(f, MCR, 0);
	assert_int_equal(in(f, MSR), 0xb0);
	assert_int_equal(in(f, IIR), 0x01);
	out(f, FCR, 1);
	assert_int_equal(in(f, IIR), 0xc1);
	assert_int_equal(in(f, LSR), 0x60);
}

/* As its test for chips that do not raise the transmit interrupt again when it is enabled again. */
static void transmit_interrupt_rises_each_time_it_is_enabled(void **state)
{
	struct fixture *f = *state;

	out(f, IER, 2);
	assert_int_equal(f->interrupts, 1);
	assert_int_equal(in(f, IIR), 0x02);
	assert_int_equal(in(f, IIR), 0x01);
	out(f, IER, 0);
	out(f, IER, 2);
	assert_int_equal(f->interrupts, 2);
	assert_int_equal(in(f, IIR), 0x02);
}

static void an_interrupt_is_an_edge(void **state)
{
	struct fixture *f = *state;

	out(f, FCR, 1);
	out(f, IER, 1);
	assert_int_equal(uart16550_receive(f->uart, "a", 1), 1);
	assert_int_equal(uart16550_receive(f->uart, "b", 1), 1);
	assert_int_equal(f->interrupts, 1);
	assert_int_equal(in(f, IIR), 0xc4);
	assert_int_equal(in(f, DATA), 'a');
	assert_int_equal(in(f, DATA), 'b');
	assert_int_equal(in(f, IIR), 0xc1);
	uart16550_receive(f->uart, "c", 1);
	assert_int_equal(f->interrupts, 2);
}

static void nothing_interrupts_while_disabled(void **state)
{
	struct fixture *f = *state;

	out_string(f, "x\n");
	uart16550_receive(f->uart, "y", 1);
	assert_int_equal(f->interrupts, 0);
	assert_int_equal(in(f, IIR), 0x01);
	/* What is pending then rises with the enable. */
	out(f, IER, 1);
	assert_int_equal(f->interrupts, 1);
}

static void input_before_output_in_priority(void **state)
{
	struct fixture *f = *state;

	out(f, IER, 3);
	uart16550_receive(f->uart, "y", 1);
	assert_int_equal(in(f, IIR), 0x04);
	in(f, DATA);
	assert_int_equal(in(f, IIR), 0x02);
	assert_int_equal(in(f, IIR), 0x01);
}

static void a_line_is_passed_on_whole(void **state)
{
	struct fixture *f = *state;

	out_string(f, "hello");
	assert_int_equal(f->transmits, 0);
	out_string(f, " world\n");
	assert_int_equal(f->transmits, 1);
	assert_string_equal(f->sent, "hello world\n");
}

static void an_unfinished_line_is_passed_on_when_the_driver_is_done(void **state)
{
	struct fixture *f = *state;

	/* By interrupt: Linux disables the transmit interrupt when it has nothing more. */
	out_string(f, "login: ");
	out(f, IER, 1);
	assert_string_equal(f->sent, "login: ");
	/* Polled: one look at the line status a byte is sending, two are waiting. */
	in(f, LSR);
	out_string(f, "a");
	in(f, LSR);
	out_string(f, "b");
	assert_string_equal(f->sent, "login: ");
	in(f, LSR);
	in(f, LSR);
	assert_string_equal(f->sent, "login: ab");
}

static void endless_lines_are_passed_on_in_pieces(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 600; i++)
		out(f, DATA, 'x');
	assert_int_equal(f->transmits, 2);
	assert_int_equal(f->sent_len, 512);
	uart16550_flush(f->uart);
	assert_int_equal(f->sent_len, 600);
}

static void receive_takes_what_the_fifo_holds(void **state)
{
	struct fixture *f = *state;
	const char *text = "0123456789abcdefgh";

	assert_int_equal(uart16550_receive(f->uart, text, 18), 1);
	in(f, DATA);
	assert_int_equal(f->readies, 1);
	out(f, FCR, 1);
	assert_int_equal(uart16550_receive(f->uart, text, 18), 16);
	assert_int_equal(f->readies, 1);
	for (unsigned i = 0; i < 16; i++) {
		assert_true(in(f, LSR) & 1);
		assert_int_equal(in(f, DATA), text[i]);
	}
	assert_int_equal(f->readies, 2);
	assert_false(in(f, LSR) & 1);
	assert_int_equal(in(f, DATA), 0);
	assert_int_equal(uart16550_receive(f->uart, text + 16, 2), 2);
	in(f, DATA);
	in(f, DATA);
	assert_int_equal(f->readies, 2); /* it took all: nobody waits */
}

/* Who reads the output may be slow; the thread that brings input has a machine to look after. */
static void input_does_not_wait_for_output(void **state)
{
	struct fixture *f = *state;

	out(f, FCR, 1);
	out(f, IER, 1);
	f->input_comes = true;
	out(f, DATA, '\n');
	f->input_comes = false;
	assert_int_equal(f->sent_len, 1);
	assert_int_equal(f->interrupts, 1);
	assert_int_equal(in(f, DATA), 'x');
}

static void clearing_the_fifo_makes_room(void **state)
{
	struct fixture *f = *state;

	out(f, FCR, 1);
	assert_int_equal(uart16550_receive(f->uart, "0123456789abcdefgh", 18), 16);
	out(f, FCR, 1 | 2);
	assert_int_equal(f->readies, 1);
	assert_false(in(f, LSR) & 1);
}

static void loopback_returns_what_is_sent_and_cuts_the_line(void **state)
{
	struct fixture *f = *state;

	out(f, FCR, 1);
	out(f, MCR, 0x10);
	assert_int_equal(uart16550_receive(f->uart, "x", 1), 0);
	for (unsigned i = 0; i < 16; i++)
		out(f, DATA, (uint8_t)('A' + i));
	assert_int_equal(in(f, LSR), 0x61);
	out(f, DATA, 'Z');
	assert_int_equal(in(f, LSR), 0x63); /* overrun, once */
	assert_int_equal(in(f, LSR), 0x61);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(in(f, DATA), 'A' + i);
	assert_int_equal(f->sent_len, 0);
	f->readies = 0;
	uart16550_receive(f->uart, "x", 1);
	out(f, MCR, 0);
	assert_int_equal(f->readies, 1);
}

static void the_divisor_hides_data_and_enables(void **state)
{
	struct fixture *f = *state;

	out(f, LCR, 0x83);
	out(f, DATA, 0x0c);
	out(f, IER, 0x01);
	assert_int_equal(in(f, DATA), 0x0c);
	assert_int_equal(in(f, IER), 0x01);
	out(f, LCR, 0x03);
	assert_int_equal(in(f, IER), 0);
	uart16550_flush(f->uart);
	assert_int_equal(f->sent_len, 0);
}

static void odd_widths_touch_registers_one_by_one(void **state)
{
	struct fixture *f = *state;
	uint8_t bytes[16];

	memset(bytes, 0, sizeof(bytes));
	uart16550_read(f->uart, 5, bytes, 8);
	assert_int_equal(bytes[0], 0x60);
	assert_int_equal(bytes[1], 0xb0);
	assert_int_equal(bytes[3], 0xff);
	bytes[0] = 0x11;
	bytes[1] = 0x22;
	uart16550_write(f->uart, 7, bytes, 8);
	assert_int_equal(in(f, SCR), 0x11);
	assert_int_equal(in(f, DATA), 0);
}

static void state_survives_in_mid_operation(void **state)
{
	struct fixture *f = *state;
	struct fixture other = {0};
	struct state_writer w;
	struct state_reader r;
	struct error err;

	out(f, FCR, 1);
	out(f, SCR, 0x77);
	out(f, MCR, 0x0b);
	out(f, IER, 3);
	uart16550_receive(f->uart, "abc", 3);
	assert_int_equal(in(f, DATA), 'a');
	out_string(f, "half");
	state_writer_init(&w);
	uart16550_save(f->uart, &w);
	assert_string_equal(f->sent, "half");

	other.uart = uart16550_new(&ops, &other);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(uart16550_load(other.uart, &r, &err), 0);
	assert_int_equal(in(&other, SCR), 0x77);
	assert_int_equal(in(&other, MCR), 0x0b);
	assert_int_equal(in(&other, IIR), 0xc4);
	assert_int_equal(in(&other, DATA), 'b');
	assert_int_equal(in(&other, DATA), 'c');
	assert_int_equal(in(&other, IIR), 0xc2);
	assert_int_equal(other.interrupts, 0); /* the line was up already */
	uart16550_free(other.uart);
	state_writer_done(&w);
}

static void a_state_with_too_much_in_the_fifo_is_refused(void **state)
{
	struct fixture *f = *state;
	uint8_t zeroes[17] = {0};
	struct state_writer w;
	struct state_reader r;
	struct error err;

	state_writer_init(&w);
	state_begin(&w, "uart16550", 1);
	for (unsigned i = 0; i < 10; i++)
		state_put_u8(&w, 0);
	state_put_bytes(&w, zeroes, sizeof(zeroes));
	state_end(&w);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(uart16550_load(f->uart, &r, &err), -EINVAL);
	state_writer_done(&w);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(linux_recognises_a_16550a),
		CASE(transmit_interrupt_rises_each_time_it_is_enabled),
		CASE(an_interrupt_is_an_edge),
		CASE(nothing_interrupts_while_disabled),
		CASE(input_before_output_in_priority),
		CASE(a_line_is_passed_on_whole),
		CASE(an_unfinished_line_is_passed_on_when_the_driver_is_done),
		CASE(endless_lines_are_passed_on_in_pieces),
		CASE(receive_takes_what_the_fifo_holds),
		CASE(input_does_not_wait_for_output),
		CASE(clearing_the_fifo_makes_room),
		CASE(loopback_returns_what_is_sent_and_cuts_the_line),
		CASE(the_divisor_hides_data_and_enables),
		CASE(odd_widths_touch_registers_one_by_one),
		CASE(state_survives_in_mid_operation),
		CASE(a_state_with_too_much_in_the_fifo_is_refused),
	};

	return cmocka_run_group_tests_name("uart16550", tests, NULL, NULL);
}
