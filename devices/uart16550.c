/* The 16550A. Register names and bits are the National Semiconductor PC16550D data sheet's.
 *
 * The transmitter is infinitely fast: what is written has left at once, so THRE and TEMT are always set. What
 * the guest wrote is gathered to spare the sink a call a byte, and passed on at a line's end, when the buffer
 * is full, when the interrupt enables are written (Linux does so at the end of each burst, by interrupt or
 * polled), or when the line status is read twice without a byte in between (a guest that polls for input). */
#include "devices/uart16550.h"

#include "common/checked.h"
#include "devices/metrics.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

enum uart_register {
	REG_DATA = 0, /* RBR, THR; DLL while LCR.DLAB */
	REG_IER = 1,  /* DLM while LCR.DLAB */
	REG_IIR = 2,  /* FCR when written */
	REG_LCR = 3,
	REG_MCR = 4,
	REG_LSR = 5,
	REG_MSR = 6,
	REG_SCR = 7,
};

#define IER_RX   0x01
#define IER_THRE 0x02
#define IER_LINE 0x04
#define IER_ALL  0x0f

#define IIR_NONE 0x01
#define IIR_THRE 0x02
#define IIR_RX   0x04
#define IIR_LINE 0x06
#define IIR_FIFO 0xc0

#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02

#define LCR_DLAB 0x80

#define MCR_DTR  0x01
#define MCR_RTS  0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10
#define MCR_ALL  0x1f

#define LSR_READY   0x01
#define LSR_OVERRUN 0x02
#define LSR_THRE    0x20
#define LSR_TEMT    0x40

#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RI  0x40
#define MSR_DCD 0x80

#define LCR_8N1        0x03
#define DIVISOR_115200 1

#define TRANSMIT_BUFFER 256

struct uart16550 {
	const struct uart16550_ops *ops;
	void *ctx;
	/* Held by a register access from end to end; guards the transmit buffer. Taken before `lock`, and kept
	 * while the sink takes its time: the other processors wait for the line then, and nobody else. */
	pthread_mutex_t access_lock;
	pthread_mutex_t lock; /* guards what follows, but for the transmit buffer; a leaf */

	uint8_t ier, lcr, mcr, scr, dll, dlm;
	bool fifo;         /* FCR_ENABLE */
	bool overrun;      /* LSR_OVERRUN, until it is read */
	bool thre_pending; /* the THR-empty interrupt, until IIR showed it */
	bool asserted;     /* the interrupt output, as last told */
	bool input_waits;  /* uart16550_receive() took less than it was given */
	bool polled;       /* LSR was read since the last byte was written */

	uint8_t rx[UART16550_FIFO];
	size_t rx_head, rx_len;
	uint8_t tx[TRANSMIT_BUFFER];
	size_t tx_len;
	struct uart16550_metrics metrics;
};

struct uart16550 *uart16550_new(const struct uart16550_ops *ops, void *ctx)
{
	struct uart16550 *uart = calloc(1, sizeof(*uart));

	if (!uart)
		abort();
	uart->ops = ops;
	uart->ctx = ctx;
	uart->lcr = LCR_8N1;
	uart->dll = DIVISOR_115200;
	pthread_mutex_init(&uart->access_lock, NULL);
	pthread_mutex_init(&uart->lock, NULL);
	return uart;
}

static void begin_access(struct uart16550 *uart)
{
	pthread_mutex_lock(&uart->access_lock);
	pthread_mutex_lock(&uart->lock);
}

static void end_access(struct uart16550 *uart)
{
	pthread_mutex_unlock(&uart->lock);
	pthread_mutex_unlock(&uart->access_lock);
}

/* Within an access. Input may come meanwhile. */
static void flush(struct uart16550 *uart)
{
	if (!uart->tx_len)
		return;
	metric_inc(&uart->metrics.flush_count);
	pthread_mutex_unlock(&uart->lock);
	uart->ops->transmit(uart->ctx, uart->tx, uart->tx_len);
	uart->tx_len = 0;
	pthread_mutex_lock(&uart->lock);
}

void uart16550_flush(struct uart16550 *uart)
{
	begin_access(uart);
	flush(uart);
	end_access(uart);
}

void uart16550_free(struct uart16550 *uart)
{
	if (!uart)
		return;
	uart16550_flush(uart);
	pthread_mutex_destroy(&uart->access_lock);
	pthread_mutex_destroy(&uart->lock);
	free(uart);
}

/* The highest pending source, as the low bits of IIR. */
static uint8_t interrupt_id(const struct uart16550 *uart)
{
	if (uart->ier & IER_LINE && uart->overrun)
		return IIR_LINE;
	if (uart->ier & IER_RX && uart->rx_len)
		return IIR_RX;
	if (uart->ier & IER_THRE && uart->thre_pending)
		return IIR_THRE;
	return IIR_NONE;
}

static void update_interrupt(struct uart16550 *uart)
{
	bool assert_now = interrupt_id(uart) != IIR_NONE;

	if (assert_now && !uart->asserted)
		uart->ops->interrupt(uart->ctx);
	uart->asserted = assert_now;
}

static size_t rx_room(const struct uart16550 *uart)
{
	size_t size = uart->fifo ? UART16550_FIFO : 1;

	return size > uart->rx_len ? size - uart->rx_len : 0;
}

static void rx_push(struct uart16550 *uart, uint8_t byte)
{
	uart->rx[(uart->rx_head + uart->rx_len) % UART16550_FIFO] = byte;
	uart->rx_len++;
}

static void rx_has_room(struct uart16550 *uart)
{
	if (!uart->input_waits)
		return;
	uart->input_waits = false;
	if (uart->ops->receive_ready)
		uart->ops->receive_ready(uart->ctx);
}

static void rx_clear(struct uart16550 *uart)
{
	uart->rx_len = 0;
	rx_has_room(uart);
}

static uint8_t rx_pop(struct uart16550 *uart)
{
	uint8_t byte;

	if (!uart->rx_len)
		return 0;
	byte = uart->rx[uart->rx_head];
	uart->rx_head = (uart->rx_head + 1) % UART16550_FIFO;
	uart->rx_len--;
	if (!uart->rx_len)
		rx_has_room(uart);
	return byte;
}

static uint8_t modem_status(const struct uart16550 *uart)
{
	if (!(uart->mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	return (uart->mcr & MCR_RTS ? MSR_CTS : 0) | (uart->mcr & MCR_DTR ? MSR_DSR : 0) |
	       (uart->mcr & MCR_OUT1 ? MSR_RI : 0) | (uart->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static uint8_t read_iir(struct uart16550 *uart)
{
	uint8_t id = interrupt_id(uart);

	if (id == IIR_THRE)
		uart->thre_pending = false;
	return id | (uart->fifo ? IIR_FIFO : 0);
}

static uint8_t read_lsr(struct uart16550 *uart)
{
	uint8_t lsr =
		LSR_THRE | LSR_TEMT | (uart->rx_len ? LSR_READY : 0) | (uart->overrun ? LSR_OVERRUN : 0);

	uart->overrun = false;
	if (uart->polled)
		flush(uart);
	uart->polled = true;
	return lsr;
}

static uint8_t read_register(struct uart16550 *uart, enum uart_register reg)
{
	bool dlab = uart->lcr & LCR_DLAB;

	switch (reg) {
	case REG_DATA:
		return dlab ? uart->dll : rx_pop(uart);
	case REG_IER:
		return dlab ? uart->dlm : uart->ier;
	case REG_IIR:
		return read_iir(uart);
	case REG_LCR:
		return uart->lcr;
	case REG_MCR:
		return uart->mcr;
	case REG_LSR:
		return read_lsr(uart);
	case REG_MSR:
		return modem_status(uart);
	case REG_SCR:
		return uart->scr;
	}
	return 0xff;
}

static void write_data(struct uart16550 *uart, uint8_t byte)
{
	uart->polled = false;
	uart->thre_pending = true;
	if (uart->mcr & MCR_LOOP) {
		if (rx_room(uart))
			rx_push(uart, byte);
		else
			uart->overrun = true;
		return;
	}
	uart->tx[uart->tx_len++] = byte;
	if (byte == '\n' || uart->tx_len == sizeof(uart->tx))
		flush(uart);
}

static void write_ier(struct uart16550 *uart, uint8_t value)
{
	value &= IER_ALL;
	/* Enabling it with the transmitter empty raises it, also when IIR has shown it before. */
	if (value & IER_THRE && !(uart->ier & IER_THRE))
		uart->thre_pending = true;
	uart->ier = value;
	flush(uart);
}

static void write_fcr(struct uart16550 *uart, uint8_t value)
{
	bool enable = value & FCR_ENABLE;

	/* Switching the mode empties the FIFOs; the other bits count only with FCR_ENABLE. */
	if (enable != uart->fifo || (enable && value & FCR_CLEAR_RX))
		rx_clear(uart);
	uart->fifo = enable;
}

static void write_register(struct uart16550 *uart, enum uart_register reg, uint8_t value)
{
	bool dlab = uart->lcr & LCR_DLAB;

	switch (reg) {
	case REG_DATA:
		if (dlab)
			uart->dll = value;
		else
			write_data(uart, value);
		break;
	case REG_IER:
		if (dlab)
			uart->dlm = value;
		else
			write_ier(uart, value);
		break;
	case REG_IIR:
		write_fcr(uart, value);
		break;
	case REG_LCR:
		uart->lcr = value;
		break;
	case REG_MCR:
		uart->mcr = value & MCR_ALL;
		/* Input may have knocked during loopback. */
		if (!(uart->mcr & MCR_LOOP) && rx_room(uart))
			rx_has_room(uart);
		break;
	case REG_SCR:
		uart->scr = value;
		break;
	case REG_LSR: /* a factory test */
	case REG_MSR:
		break;
	}
}

/* An access of `len` bytes: how many of them are registers. */
static uint32_t registers_of(uint64_t offset, uint32_t len, uint64_t *count, uint64_t *missed)
{
	uint32_t n = offset + len > UART16550_PORTS ? (uint32_t)(UART16550_PORTS - offset) : len;

	metric_add(count, n);
	metric_add(missed, len - n);
	return n;
}

/* A wide access is, as on the ISA bus, one of each byte. */
void uart16550_read(struct uart16550 *uart, uint64_t offset, void *data, uint32_t len)
{
	uint8_t *bytes = data;
	uint32_t n = registers_of(offset, len, &uart->metrics.read_count, &uart->metrics.missed_read_count);

	memset(bytes, 0xff, len);
	begin_access(uart);
	for (uint32_t i = 0; i < n; i++)
		bytes[i] = read_register(uart, (enum uart_register)(offset + i));
	update_interrupt(uart);
	end_access(uart);
}

void uart16550_write(struct uart16550 *uart, uint64_t offset, const void *data, uint32_t len)
{
	const uint8_t *bytes = data;
	uint32_t n = registers_of(offset, len, &uart->metrics.write_count, &uart->metrics.missed_write_count);

	begin_access(uart);
	for (uint32_t i = 0; i < n; i++)
		write_register(uart, (enum uart_register)(offset + i), bytes[i]);
	update_interrupt(uart);
	end_access(uart);
}

const struct uart16550_metrics *uart16550_metrics(const struct uart16550 *uart)
{
	return &uart->metrics;
}

size_t uart16550_receive(struct uart16550 *uart, const void *data, size_t len)
{
	const uint8_t *bytes = data;
	size_t n;

	pthread_mutex_lock(&uart->lock);
	/* In loopback the line is cut: the input waits outside. */
	n = uart->mcr & MCR_LOOP ? 0 : rx_room(uart);
	if (n > len)
		n = len;
	for (size_t i = 0; i < n; i++)
		rx_push(uart, bytes[i]);
	uart->input_waits = n < len;
	update_interrupt(uart);
	pthread_mutex_unlock(&uart->lock);
	return n;
}

void uart16550_save(struct uart16550 *uart, struct state_writer *w)
{
	uint8_t rx[UART16550_FIFO];

	uart16550_flush(uart);
	for (size_t i = 0; i < uart->rx_len; i++)
		rx[i] = uart->rx[(uart->rx_head + i) % UART16550_FIFO];
	state_begin(w, "uart16550", 1);
	state_put_u8(w, uart->ier);
	state_put_u8(w, uart->lcr);
	state_put_u8(w, uart->mcr);
	state_put_u8(w, uart->scr);
	state_put_u8(w, uart->dll);
	state_put_u8(w, uart->dlm);
	state_put_u8(w, uart->fifo);
	state_put_u8(w, uart->overrun);
	state_put_u8(w, uart->thre_pending);
	state_put_u8(w, uart->asserted);
	state_put_bytes(w, rx, (uint32_t)uart->rx_len);
	state_end(w);
}

int uart16550_load(struct uart16550 *uart, struct state_reader *r, struct error *err)
{
	int version = state_begin_section(r, "uart16550", 1, err);
	const uint8_t *rx;
	uint32_t rx_len;
	int ret;

	if (version < 0)
		return version;
	uart->ier = state_get_u8(r) & IER_ALL;
	uart->lcr = state_get_u8(r);
	uart->mcr = state_get_u8(r) & MCR_ALL;
	uart->scr = state_get_u8(r);
	uart->dll = state_get_u8(r);
	uart->dlm = state_get_u8(r);
	uart->fifo = state_get_u8(r);
	uart->overrun = state_get_u8(r);
	uart->thre_pending = state_get_u8(r);
	uart->asserted = state_get_u8(r);
	rx_len = state_get_bytes(r, &rx);
	ret = state_end_section(r, err);
	if (ret < 0)
		return ret;
	if (rx_len > UART16550_FIFO)
		return error_set(err, EINVAL, "uart16550: %u bytes in a FIFO of %d", rx_len, UART16550_FIFO);
	uart->rx_head = 0;
	uart->rx_len = rx_len;
	if (rx_len)
		memcpy(uart->rx, rx, rx_len);
	return 0;
}
