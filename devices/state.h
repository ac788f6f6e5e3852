/* Saved device state: named, versioned, checksummed sections of little-endian fields, in memory.
 *
 *	+----------+---------+---------+----------+-----------------+
 *	| name[16] | version | length  | crc32c   | length bytes …  |   one section; sections follow one another
 *	+----------+---------+---------+----------+-----------------+
 *	  NUL-pad    le32      le32      le32 of the payload
 *
 * A device writes its fields in a fixed order and reads them back in that order. A reader is sticky: after the first
 * failure every get returns 0, so a load function checks once, at its end, with state_end_section(). What is loaded
 * is as hostile as what a guest writes: validate before use. */
#ifndef HULL_DEVICES_STATE_H
#define HULL_DEVICES_STATE_H

#include "common/buf.h"
#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

struct state_writer {
	struct buf buf; /* all finished sections, and the one being written */
	size_t section; /* offset of the open section's header; SIZE_MAX when none is open */
};

void state_writer_init(struct state_writer *w);
void state_writer_done(struct state_writer *w);
void state_begin(struct state_writer *w, const char *name, uint32_t version);
void state_put_u8(struct state_writer *w, uint8_t v);
void state_put_u16(struct state_writer *w, uint16_t v);
void state_put_u32(struct state_writer *w, uint32_t v);
void state_put_u64(struct state_writer *w, uint64_t v);
void state_put_bytes(struct state_writer *w, const void *data, uint32_t len); /* length, then the bytes */
void state_end(struct state_writer *w);

struct state_reader {
	const uint8_t *data; /* borrowed */
	size_t len, pos, section_end;
	bool failed;
};

void state_reader_init(struct state_reader *r, const void *data, size_t len);
/* Opens the next section, which must have this name and a version of 1..max_version. The version, or -EINVAL/-ENODATA
 * with `err` set. */
int state_begin_section(struct state_reader *r, const char *name, uint32_t max_version, struct error *err);
uint8_t state_get_u8(struct state_reader *r);
uint16_t state_get_u16(struct state_reader *r);
uint32_t state_get_u32(struct state_reader *r);
uint64_t state_get_u64(struct state_reader *r);
/* Points `*ret` into the reader's data and returns the length; 0 and NULL on failure. */
uint32_t state_get_bytes(struct state_reader *r, const uint8_t **ret);
/* CRC-32C (Castagnoli), as sections have it. */
uint32_t state_checksum(const void *data, size_t len);
/* 0 when every get succeeded and the section is used up exactly, else -EINVAL with `err` set. */
int state_end_section(struct state_reader *r, struct error *err);

#endif
