/* The debugger's protocol, byte by byte. */
#include "vmm/gdb_packet.h"

#include <string.h>

enum state { BETWEEN, CONTENT, SUM_HIGH, SUM_LOW };

#define INTERRUPT 0x03
#define ESCAPE	  '}'
#define ESCAPE_BY 0x20

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static void begin(struct gdb_reader *reader)
{
	reader->state = CONTENT;
	reader->sum = 0;
	reader->escaped = false;
	reader->len = 0;
}

static enum gdb_input take_between(struct gdb_reader *reader, uint8_t byte)
{
	switch (byte) {
	case '$':
		begin(reader);
		return GDB_INPUT_MORE;
	case '+':
		return GDB_INPUT_ACK;
	case '-':
		return GDB_INPUT_NACK;
	case INTERRUPT:
		return GDB_INPUT_INTERRUPT;
	default:
		return GDB_INPUT_MORE;
	}
}

static enum gdb_input take_content(struct gdb_reader *reader, uint8_t byte)
{
	if (byte == '#') {
		reader->state = SUM_HIGH;
		return GDB_INPUT_MORE;
	}
	if (byte == '$') { /* the one before was cut off */
		begin(reader);
		return GDB_INPUT_MORE;
	}
	reader->sum = (uint8_t)(reader->sum + byte);
	if (byte == ESCAPE && !reader->escaped) {
		reader->escaped = true;
		return GDB_INPUT_MORE;
	}
	if (reader->len == GDB_PACKET_MAX) {
		reader->state = BETWEEN;
		return GDB_INPUT_TOO_LONG;
	}
	reader->content[reader->len++] = (char)(reader->escaped ? byte ^ ESCAPE_BY : byte);
	reader->escaped = false;
	return GDB_INPUT_MORE;
}

static enum gdb_input take_sum(struct gdb_reader *reader, uint8_t byte)
{
	int value = digit_value((char)byte);

	if (value < 0) {
		reader->state = BETWEEN;
		return GDB_INPUT_BROKEN;
	}
	if (reader->state == SUM_HIGH) {
		reader->told = (uint8_t)(value << 4);
		reader->state = SUM_LOW;
		return GDB_INPUT_MORE;
	}
	reader->state = BETWEEN;
	reader->content[reader->len] = '\0';
	return (reader->told | value) == reader->sum && !reader->escaped ? GDB_INPUT_PACKET : GDB_INPUT_BROKEN;
}

enum gdb_input gdb_reader_take(struct gdb_reader *reader, uint8_t byte)
{
	switch (reader->state) {
	case BETWEEN:
		return take_between(reader, byte);
	case CONTENT:
		return take_content(reader, byte);
	default:
		return take_sum(reader, byte);
	}
}

/* All of it or nothing. */
int gdb_packet_append(struct buf *out, const void *content, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const char *bytes = content;
	size_t begun = out->len;
	uint8_t sum = 0;
	char *put;
	int r = buf_reserve(out, 2 * len + 4);

	if (r < 0)
		return r;
	put = out->data + begun;
	*put++ = '$';
	for (size_t i = 0; i < len; i++) {
		char byte = bytes[i];

		if (memchr("#$}*", byte, 4)) {
			*put++ = ESCAPE;
			sum = (uint8_t)(sum + ESCAPE);
			byte ^= ESCAPE_BY;
		}
		*put++ = byte;
		sum = (uint8_t)(sum + (uint8_t)byte);
	}
	*put++ = '#';
	*put++ = digits[sum >> 4];
	*put++ = digits[sum & 15];
	out->len = (size_t)(put - out->data);
	return 0;
}

int gdb_hex_append(struct buf *out, const void *data, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *bytes = data;
	int r = buf_reserve(out, 2 * len);

	if (r < 0)
		return r;
	for (size_t i = 0; i < len; i++) {
		out->data[out->len++] = digits[bytes[i] >> 4];
		out->data[out->len++] = digits[bytes[i] & 15];
	}
	return 0;
}

bool gdb_hex_parse(const char *digits, void *ret, size_t len)
{
	uint8_t *bytes = ret;

	for (size_t i = 0; i < len; i++) {
		int high = digit_value(digits[2 * i]), low = high < 0 ? -1 : digit_value(digits[2 * i + 1]);

		if (low < 0)
			return false;
		bytes[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

bool gdb_number_parse(const char **text, uint64_t *ret)
{
	const char *at = *text;
	uint64_t number = 0;
	int value;

	for (; (value = digit_value(*at)) >= 0; at++) {
		if (number >> 60)
			return false;
		number = number << 4 | (uint64_t)value;
	}
	if (at == *text)
		return false;
	*ret = number;
	*text = at;
	return true;
}
