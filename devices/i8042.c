/* The keyboard controller and its keyboard.
 *
 *	guest ── 0x64 command ──▶ controller ── reply ──┐
 *	      ── 0x60 data ─────▶ (parameter of a command, else passed on)
 *	                          keyboard ── queue ────┴──▶ output buffer ──▶ 0x60, IRQ 1
 *
 * The controller's replies come before the keyboard's bytes. Each byte that comes to the head of the output
 * buffer raises one edge, if the guest enabled it. */
#include "devices/i8042.h"

#include "common/checked.h"
#include "devices/metrics.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define STATUS_OUTPUT_FULL 0x01
#define STATUS_SYSTEM      0x04
#define STATUS_COMMAND     0x08 /* the last byte went to the command port */
#define STATUS_UNLOCKED    0x10

#define CTR_KBD_INTERRUPT 0x01
#define CTR_SYSTEM        0x04
#define CTR_KBD_DISABLED  0x10
#define CTR_AUX_DISABLED  0x20
#define CTR_TRANSLATE     0x40 /* scan codes of set 2 to set 1 */

enum controller_command {
	CMD_READ_CTR = 0x20,
	CMD_WRITE_CTR = 0x60,
	CMD_AUX_DISABLE = 0xa7,
	CMD_AUX_ENABLE = 0xa8,
	CMD_AUX_TEST = 0xa9,
	CMD_SELF_TEST = 0xaa,
	CMD_KBD_TEST = 0xab,
	CMD_KBD_DISABLE = 0xad,
	CMD_KBD_ENABLE = 0xae,
	CMD_READ_OUTPUT_PORT = 0xd0,
	CMD_WRITE_OUTPUT_PORT = 0xd1,
	CMD_WRITE_KBD_BUFFER = 0xd2,
	CMD_WRITE_AUX_BUFFER = 0xd3,
	CMD_WRITE_AUX = 0xd4,
	CMD_PULSE = 0xf0, /* to 0xff: the low bits that are 0 are pulsed low */
};

#define OUTPUT_PORT_NO_RESET 0x01 /* bit 0 low resets the processor */
#define OUTPUT_PORT_A20      0x02

#define SELF_TEST_PASSED     0x55
#define KBD_PORT_TEST_PASSED 0x00
#define AUX_TEST_FAILED      0x01 /* clock line stuck: there is no port */

enum keyboard_command {
	KBD_SET_LEDS = 0xed,
	KBD_ECHO = 0xee,
	KBD_SCAN_CODE_SET = 0xf0,
	KBD_GET_ID = 0xf2,
	KBD_SET_RATE = 0xf3,
	KBD_ENABLE = 0xf4,
	KBD_DISABLE = 0xf5,
	KBD_DEFAULTS = 0xf6,
	KBD_RESET = 0xff,
};

#define KBD_ACK          0xfa
#define KBD_SELF_TEST_OK 0xaa
#define KBD_SET_2        0x02

#define KBD_QUEUE 32

struct i8042 {
	const struct i8042_ops *ops;
	void *ctx;
	pthread_mutex_t lock; /* guards what follows; a leaf */

	uint8_t ctr;
	uint8_t command;     /* the controller command that waits for its parameter, or 0 */
	uint8_t kbd_command; /* the same of the keyboard */
	bool last_was_command;
	bool scanning;  /* the keyboard sends keys */
	bool signalled; /* the byte at the head of the output buffer has raised its edge */

	bool has_reply;
	uint8_t reply; /* of the controller */
	uint8_t queue[KBD_QUEUE];
	size_t queue_head, queue_len;
	struct i8042_metrics metrics;
};

struct i8042 *i8042_new(const struct i8042_ops *ops, void *ctx)
{
	struct i8042 *dev = calloc(1, sizeof(*dev));

	if (!dev)
		abort();
	dev->ops = ops;
	dev->ctx = ctx;
	/* As firmware leaves it. */
	dev->ctr = CTR_KBD_INTERRUPT | CTR_SYSTEM | CTR_AUX_DISABLED | CTR_TRANSLATE;
	dev->scanning = true;
	pthread_mutex_init(&dev->lock, NULL);
	return dev;
}

void i8042_free(struct i8042 *dev)
{
	if (!dev)
		return;
	pthread_mutex_destroy(&dev->lock);
	free(dev);
}

static bool output_full(const struct i8042 *dev)
{
	return dev->has_reply || (dev->queue_len && !(dev->ctr & CTR_KBD_DISABLED));
}

static void update_interrupt(struct i8042 *dev)
{
	if (!output_full(dev))
		dev->signalled = false;
	else if (!dev->signalled && dev->ctr & CTR_KBD_INTERRUPT) {
		dev->signalled = true;
		dev->ops->interrupt(dev->ctx);
	}
}

static void reply(struct i8042 *dev, uint8_t byte)
{
	dev->has_reply = true;
	dev->reply = byte;
	dev->signalled = false;
}

/* A full queue drops, as a keyboard's does. */
static void enqueue(struct i8042 *dev, uint8_t byte)
{
	if (dev->queue_len < KBD_QUEUE) {
		dev->queue[(dev->queue_head + dev->queue_len) % KBD_QUEUE] = byte;
		dev->queue_len++;
	}
}

static uint8_t read_data(struct i8042 *dev)
{
	uint8_t byte;

	if (!output_full(dev))
		return 0;
	dev->signalled = false;
	if (dev->has_reply) {
		dev->has_reply = false;
		return dev->reply;
	}
	byte = dev->queue[dev->queue_head];
	dev->queue_head = (dev->queue_head + 1) % KBD_QUEUE;
	dev->queue_len--;
	return byte;
}

static uint8_t read_status(const struct i8042 *dev)
{
	return STATUS_UNLOCKED | (output_full(dev) ? STATUS_OUTPUT_FULL : 0) |
	       (dev->ctr & CTR_SYSTEM ? STATUS_SYSTEM : 0) | (dev->last_was_command ? STATUS_COMMAND : 0);
}

static void pulse_reset(struct i8042 *dev)
{
	metric_inc(&dev->metrics.reset_count);
	dev->ops->reset(dev->ctx);
}

static void run_command(struct i8042 *dev, uint8_t command)
{
	dev->command = 0;
	switch (command) {
	case CMD_READ_CTR:
		reply(dev, dev->ctr);
		break;
	case CMD_AUX_DISABLE:
		dev->ctr |= CTR_AUX_DISABLED;
		break;
	case CMD_AUX_ENABLE: /* a driver that looks for the port by switching it on finds that it stays off */
		break;
	case CMD_AUX_TEST:
		reply(dev, AUX_TEST_FAILED);
		break;
	case CMD_SELF_TEST:
		dev->ctr |= CTR_SYSTEM;
		reply(dev, SELF_TEST_PASSED);
		break;
	case CMD_KBD_TEST:
		reply(dev, KBD_PORT_TEST_PASSED);
		break;
	case CMD_KBD_DISABLE:
		dev->ctr |= CTR_KBD_DISABLED;
		break;
	case CMD_KBD_ENABLE:
		dev->ctr &= (uint8_t)~CTR_KBD_DISABLED;
		break;
	case CMD_READ_OUTPUT_PORT:
		reply(dev, OUTPUT_PORT_NO_RESET | OUTPUT_PORT_A20);
		break;
	case CMD_WRITE_CTR:
	case CMD_WRITE_OUTPUT_PORT:
	case CMD_WRITE_KBD_BUFFER:
	case CMD_WRITE_AUX_BUFFER:
	case CMD_WRITE_AUX:
		dev->command = command;
		break;
	default:
		if (command >= CMD_PULSE && !(command & OUTPUT_PORT_NO_RESET))
			pulse_reset(dev);
		break;
	}
}

static void run_parameter(struct i8042 *dev, uint8_t command, uint8_t value)
{
	switch (command) {
	case CMD_WRITE_CTR:
		dev->ctr = value | CTR_AUX_DISABLED;
		break;
	case CMD_WRITE_OUTPUT_PORT:
		if (!(value & OUTPUT_PORT_NO_RESET))
			pulse_reset(dev);
		break;
	case CMD_WRITE_KBD_BUFFER:
	case CMD_WRITE_AUX_BUFFER: /* comes back without the mouse's status bit, by which a driver knows: no
				      mouse */
		reply(dev, value);
		break;
	default: /* CMD_WRITE_AUX: nobody there */
		break;
	}
}

/* The keyboard acknowledges what it is told; almost nothing of it matters to keys that nobody presses. */
static void run_keyboard(struct i8042 *dev, uint8_t value)
{
	uint8_t waiting = dev->kbd_command;

	dev->kbd_command = 0;
	if (waiting) {
		enqueue(dev, KBD_ACK);
		if (waiting == KBD_SCAN_CODE_SET && value == 0)
			enqueue(dev, KBD_SET_2);
		return;
	}
	if (value == KBD_ECHO) {
		enqueue(dev, KBD_ECHO);
		return;
	}
	if (value == KBD_RESET || value == KBD_DEFAULTS)
		dev->queue_len = 0;
	enqueue(dev, KBD_ACK);
	switch (value) {
	case KBD_SET_LEDS:
	case KBD_SCAN_CODE_SET:
	case KBD_SET_RATE:
		dev->kbd_command = value;
		break;
	case KBD_GET_ID: /* MF2: ab 83, the latter translated as if it was a key */
		enqueue(dev, 0xab);
		enqueue(dev, dev->ctr & CTR_TRANSLATE ? 0x41 : 0x83);
		break;
	case KBD_DISABLE:
		dev->scanning = false;
		break;
	case KBD_RESET:
		enqueue(dev, KBD_SELF_TEST_OK);
		dev->scanning = true;
		break;
	case KBD_ENABLE:
	case KBD_DEFAULTS:
		dev->scanning = true;
		break;
	default:
		break;
	}
}

static void write_data(struct i8042 *dev, uint8_t value)
{
	uint8_t command = dev->command;

	dev->command = 0;
	dev->last_was_command = false;
	if (command)
		run_parameter(dev, command, value);
	else
		run_keyboard(dev, value);
}

static bool is_ours(uint64_t offset)
{
	return offset == I8042_OFFSET_DATA || offset == I8042_OFFSET_COMMAND;
}

/* A wide access is, as on the ISA bus, one of each byte; the ports between the two are nobody's. */
void i8042_read(struct i8042 *dev, uint64_t offset, void *data, uint32_t len)
{
	uint8_t *bytes = data;

	pthread_mutex_lock(&dev->lock);
	for (uint32_t i = 0; i < len; i++) {
		metric_inc(is_ours(offset + i) ? &dev->metrics.read_count : &dev->metrics.missed_read_count);
		if (offset + i == I8042_OFFSET_DATA)
			bytes[i] = read_data(dev);
		else if (offset + i == I8042_OFFSET_COMMAND)
			bytes[i] = read_status(dev);
		else
			bytes[i] = 0xff;
	}
	update_interrupt(dev);
	pthread_mutex_unlock(&dev->lock);
}

void i8042_write(struct i8042 *dev, uint64_t offset, const void *data, uint32_t len)
{
	const uint8_t *bytes = data;

	pthread_mutex_lock(&dev->lock);
	for (uint32_t i = 0; i < len; i++) {
		metric_inc(is_ours(offset + i) ? &dev->metrics.write_count : &dev->metrics.missed_write_count);
		if (offset + i == I8042_OFFSET_DATA) {
			write_data(dev, bytes[i]);
		} else if (offset + i == I8042_OFFSET_COMMAND) {
			dev->last_was_command = true;
			run_command(dev, bytes[i]);
		}
	}
	update_interrupt(dev);
	pthread_mutex_unlock(&dev->lock);
}

const struct i8042_metrics *i8042_metrics(const struct i8042 *dev)
{
	return &dev->metrics;
}

int i8042_press_ctrl_alt_del(struct i8042 *dev)
{
	/* Left Ctrl, left Alt and Delete, pressed and released in reverse order. */
	static const uint8_t set_1[] = {0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d};
	static const uint8_t set_2[] = {0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14};
	const uint8_t *keys;
	size_t n;
	int r = 0;

	pthread_mutex_lock(&dev->lock);
	keys = dev->ctr & CTR_TRANSLATE ? set_1 : set_2;
	n = dev->ctr & CTR_TRANSLATE ? sizeof(set_1) : sizeof(set_2);
	if (dev->queue_len || !dev->scanning || dev->ctr & CTR_KBD_DISABLED)
		r = -EBUSY;
	for (size_t i = 0; !r && i < n; i++)
		enqueue(dev, keys[i]);
	update_interrupt(dev);
	pthread_mutex_unlock(&dev->lock);
	return r;
}

void i8042_save(struct i8042 *dev, struct state_writer *w)
{
	uint8_t queue[KBD_QUEUE];

	for (size_t i = 0; i < dev->queue_len; i++)
		queue[i] = dev->queue[(dev->queue_head + i) % KBD_QUEUE];
	state_begin(w, "i8042", 1);
	state_put_u8(w, dev->ctr);
	state_put_u8(w, dev->command);
	state_put_u8(w, dev->kbd_command);
	state_put_u8(w, dev->last_was_command);
	state_put_u8(w, dev->scanning);
	state_put_u8(w, dev->signalled);
	state_put_u8(w, dev->has_reply);
	state_put_u8(w, dev->reply);
	state_put_bytes(w, queue, (uint32_t)dev->queue_len);
	state_end(w);
}

int i8042_load(struct i8042 *dev, struct state_reader *r, struct error *err)
{
	int version = state_begin_section(r, "i8042", 1, err);
	const uint8_t *queue;
	uint32_t queue_len;
	int ret;

	if (version < 0)
		return version;
	dev->ctr = state_get_u8(r);
	dev->command = state_get_u8(r);
	dev->kbd_command = state_get_u8(r);
	dev->last_was_command = state_get_u8(r);
	dev->scanning = state_get_u8(r);
	dev->signalled = state_get_u8(r);
	dev->has_reply = state_get_u8(r);
	dev->reply = state_get_u8(r);
	queue_len = state_get_bytes(r, &queue);
	ret = state_end_section(r, err);
	if (ret < 0)
		return ret;
	if (queue_len > KBD_QUEUE)
		return error_set(err, EINVAL, "i8042: %u bytes in a queue of %d", queue_len, KBD_QUEUE);
	dev->queue_head = 0;
	dev->queue_len = queue_len;
	if (queue_len)
		memcpy(dev->queue, queue, queue_len);
	return 0;
}
