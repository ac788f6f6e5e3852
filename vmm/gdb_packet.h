/* GDB's remote serial protocol, as bytes: what a debugger sends taken apart, what it is sent put together.
 *
 *	$ content # hh		a packet: content with '#', '$', '}' and '*' escaped as '}' and the byte ^ 0x20; the sum of its bytes
 *	+ -			the last packet has come, or has come broken
 *	0x03			the debugger interrupts
 *
 * ("Remote Protocol", an appendix of GDB's manual.) It knows no command. */
#ifndef HULL_VMM_GDB_PACKET_H
#define HULL_VMM_GDB_PACKET_H

#include "common/buf.h"

#include <stdbool.h>
#include <stdint.h>

#define GDB_PACKET_MAX 4096 /* bytes of content, both ways */

enum gdb_input {
	GDB_INPUT_MORE,	     /* nothing is whole yet */
	GDB_INPUT_PACKET,    /* in reader->content, up to the next byte */
	GDB_INPUT_BROKEN,    /* its sum is wrong */
	GDB_INPUT_TOO_LONG,  /* nobody who was told how long a packet may be sends that */
	GDB_INPUT_ACK,
	GDB_INPUT_NACK,
	GDB_INPUT_INTERRUPT,
};

struct gdb_reader {
	int state;
	uint8_t sum, told; /* of the bytes that came; and what the sender says it is */
	bool escaped;
	size_t len;
	char content[GDB_PACKET_MAX + 1]; /* `len` bytes, which may be any; followed by a NUL */
};

/* A zeroed reader is ready. Takes one byte; what lies between packets and means nothing is passed over. */
enum gdb_input gdb_reader_take(struct gdb_reader *reader, uint8_t byte);

/* Appends the packet with that content. 0 or as buf_append(). */
int gdb_packet_append(struct buf *out, const void *content, size_t len);

/* Appends `len` bytes as twice as many hexadecimal digits. 0 or as buf_append(). */
int gdb_hex_append(struct buf *out, const void *data, size_t len);
/* The opposite: `len` bytes from 2 * len digits. False when one is none. */
bool gdb_hex_parse(const char *digits, void *ret, size_t len);

/* A number in hexadecimal at `*text`, which moves on behind it. False when there is none, or one of more than 64 bits. */
bool gdb_number_parse(const char **text, uint64_t *ret);

#endif
