/* Saved device state: writing and reading sections of little-endian fields. */
#include "devices/state.h"

#include "common/checked.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAME_SIZE   16
#define HEADER_SIZE (NAME_SIZE + 3 * sizeof(uint32_t))

/* No device holds more than its queues' worth of state; this only bounds a bug. */
#define STATE_MAX_BYTES (64u << 20)

/* Half a byte at a time: a few kilobytes of state do not need a faster one. */
uint32_t state_checksum(const void *data, size_t len)
{
	static const uint32_t nibble[16] = {0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc,
		0x5125dad3, 0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
		0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
	uint32_t crc = ~0u;

	for (const uint8_t *byte = data, *end = byte + len; byte < end; byte++) {
		crc ^= *byte;
		crc = crc >> 4 ^ nibble[crc & 15];
		crc = crc >> 4 ^ nibble[crc & 15];
	}
	return ~crc;
}

void state_writer_init(struct state_writer *w)
{
	buf_init(&w->buf, STATE_MAX_BYTES);
	w->section = SIZE_MAX;
}

void state_writer_done(struct state_writer *w)
{
	buf_done(&w->buf);
}

/* A snapshot cannot be half written: out of memory ends the monitor here, as everywhere allocation has no answer. */
static void append(struct state_writer *w, const void *data, size_t len)
{
	if (w->section == SIZE_MAX || buf_append(&w->buf, data, len) < 0)
		abort();
}

static void store_u32(struct state_writer *w, size_t offset, uint32_t v)
{
	v = htole32(v);
	memcpy(w->buf.data + offset, &v, sizeof(v));
}

void state_begin(struct state_writer *w, const char *name, uint32_t version)
{
	char header[HEADER_SIZE] = {0};

	if (w->section != SIZE_MAX || strlen(name) > NAME_SIZE)
		abort();
	memcpy(header, name, strlen(name));
	w->section = w->buf.len;
	append(w, header, sizeof(header));
	store_u32(w, w->section + NAME_SIZE, version);
}

void state_put_u8(struct state_writer *w, uint8_t v)
{
	append(w, &v, sizeof(v));
}

void state_put_u16(struct state_writer *w, uint16_t v)
{
	v = htole16(v);
	append(w, &v, sizeof(v));
}

void state_put_u32(struct state_writer *w, uint32_t v)
{
	v = htole32(v);
	append(w, &v, sizeof(v));
}

void state_put_u64(struct state_writer *w, uint64_t v)
{
	v = htole64(v);
	append(w, &v, sizeof(v));
}

void state_put_bytes(struct state_writer *w, const void *data, uint32_t len)
{
	state_put_u32(w, len);
	if (len > 0)
		append(w, data, len);
}

void state_end(struct state_writer *w)
{
	size_t payload = w->section + HEADER_SIZE, len = w->buf.len - payload;

	store_u32(w, w->section + NAME_SIZE + 4, (uint32_t)len);
	store_u32(w, w->section + NAME_SIZE + 8, state_checksum(w->buf.data + payload, len));
	w->section = SIZE_MAX;
}

void state_reader_init(struct state_reader *r, const void *data, size_t len)
{
	*r = (struct state_reader){.data = data, .len = len};
}

static uint32_t fetch_u32(const uint8_t *data)
{
	uint32_t v;

	memcpy(&v, data, sizeof(v));
	return le32toh(v);
}

int state_begin_section(struct state_reader *r, const char *name, uint32_t max_version, struct error *err)
{
	const uint8_t *header = r->data + r->pos;
	char expected[NAME_SIZE] = {0};
	uint32_t version, len;

	memcpy(expected, name, strnlen(name, NAME_SIZE));
	r->section_end = r->pos;
	r->failed = true; /* until the section proves to be what it should be */
	if (r->len - r->pos < HEADER_SIZE)
		return error_set(err, ENODATA, "saved state ends where section %s should begin", name);
	if (memcmp(header, expected, NAME_SIZE) != 0)
		return error_set(err, EINVAL, "saved state has section %.*s where %s is expected", NAME_SIZE,
			(const char *)header, name);
	version = fetch_u32(header + NAME_SIZE);
	len = fetch_u32(header + NAME_SIZE + 4);
	if (version < 1 || version > max_version)
		return error_set(err, EINVAL, "section %s is of version %u; 1 to %u are known", name, version,
			max_version);
	if (len > r->len - r->pos - HEADER_SIZE)
		return error_set(err, ENODATA, "section %s is cut short", name);
	if (state_checksum(header + HEADER_SIZE, len) != fetch_u32(header + NAME_SIZE + 8))
		return error_set(err, EINVAL, "section %s is damaged: its checksum does not match", name);
	r->pos += HEADER_SIZE;
	r->section_end = r->pos + len;
	r->failed = false;
	return (int)version;
}

static const uint8_t *take(struct state_reader *r, size_t len)
{
	const uint8_t *data = r->data + r->pos;

	if (r->failed || len > r->section_end - r->pos) {
		r->failed = true;
		return NULL;
	}
	r->pos += len;
	return data;
}

uint8_t state_get_u8(struct state_reader *r)
{
	const uint8_t *data = take(r, 1);

	return data ? *data : 0;
}

uint16_t state_get_u16(struct state_reader *r)
{
	const uint8_t *data = take(r, sizeof(uint16_t));
	uint16_t v = 0;

	if (data)
		memcpy(&v, data, sizeof(v));
	return le16toh(v);
}

uint32_t state_get_u32(struct state_reader *r)
{
	const uint8_t *data = take(r, sizeof(uint32_t));

	return data ? fetch_u32(data) : 0;
}

uint64_t state_get_u64(struct state_reader *r)
{
	const uint8_t *data = take(r, sizeof(uint64_t));
	uint64_t v = 0;

	if (data)
		memcpy(&v, data, sizeof(v));
	return le64toh(v);
}

uint32_t state_get_bytes(struct state_reader *r, const uint8_t **ret)
{
	uint32_t len = state_get_u32(r);

	*ret = take(r, len);
	return *ret ? len : 0;
}

int state_end_section(struct state_reader *r, struct error *err)
{
	size_t left = r->section_end - r->pos;

	if (r->failed)
		return error_set(err, EINVAL, "a section of the saved state holds less than it should");
	if (left > 0)
		return error_set(err, EINVAL, "a section of the saved state holds %zu bytes too many", left);
	return 0;
}
