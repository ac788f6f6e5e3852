/* The AML encoder. Section numbers are ACPI 6.5's. */
#include "vmm/aml.h"

#include <assert.h>
#include <string.h>

/* 20.3, "AML Byte Stream Byte Values" */
#define OP_ZERO       0x00
#define OP_ONE        0x01
#define OP_NAME       0x08
#define OP_BYTE       0x0a
#define OP_WORD       0x0b
#define OP_DWORD      0x0c
#define OP_STRING     0x0d
#define OP_QWORD      0x0e
#define OP_SCOPE      0x10
#define OP_BUFFER     0x11
#define OP_PACKAGE    0x12
#define OP_METHOD     0x14
#define PREFIX_DUAL   0x2e
#define PREFIX_MULTI  0x2f
#define OP_EXT        0x5b
#define OP_EXT_REGION 0x80
#define OP_EXT_FIELD  0x81
#define OP_EXT_DEVICE 0x82
#define OP_LOCAL0     0x60
#define OP_STORE      0x70
#define OP_AND        0x7b
#define OP_NOTIFY     0x86
#define OP_IF         0xa0

#define METHOD_SERIALIZED 0x08
#define REGION_SYSTEM_IO  0x01
#define FIELD_DWORD_ACC   0x03 /* no lock, preserve */

#define NAME_SEGMENT 4

/* 20.2.4: one byte up to 63, else a nibble and one to three bytes. */
#define PACKAGE_LENGTH_MAX 4

void aml_init(struct aml *aml, uint8_t *data, size_t size)
{
	*aml = (struct aml){.data = data, .size = size};
}

static void put(struct aml *aml, const void *data, size_t len)
{
	if (aml->overflow || len > aml->size - aml->len) {
		aml->overflow = true;
		return;
	}
	memcpy(aml->data + aml->len, data, len);
	aml->len += len;
}

static void put_u8(struct aml *aml, uint8_t byte)
{
	put(aml, &byte, 1);
}

/* 20.2.2: a segment, or from the root one to three of them. */
static void put_name(struct aml *aml, const char *name)
{
	size_t n;

	if (*name == '\\') {
		put_u8(aml, (uint8_t)*name++);
		n = (strlen(name) + 1) / (NAME_SEGMENT + 1);
		if (n == 2)
			put_u8(aml, PREFIX_DUAL);
		if (n > 2) {
			put_u8(aml, PREFIX_MULTI);
			put_u8(aml, (uint8_t)n);
		}
		for (; n > 1; n--, name += NAME_SEGMENT + 1)
			put(aml, name, NAME_SEGMENT);
	}
	assert(strlen(name) == NAME_SEGMENT);
	put(aml, name, NAME_SEGMENT);
}

static size_t encode_package_length(uint8_t ret[PACKAGE_LENGTH_MAX], size_t content)
{
	/* The length counts its own bytes. */
	if (content + 1 < 1u << 6) {
		ret[0] = (uint8_t)(content + 1);
		return 1;
	}
	for (size_t extra = 1;; extra++) {
		size_t total = content + 1 + extra;

		if (extra < 3 && total >= 1u << (4 + 8 * extra))
			continue;
		ret[0] = (uint8_t)(extra << 6 | (total & 0xf));
		for (size_t i = 1; i <= extra; i++)
			ret[i] = (uint8_t)(total >> (4 + 8 * (i - 1)));
		return 1 + extra;
	}
}

/* The package's content is written first; its length is pushed in before it once it is known. */
void aml_end(struct aml *aml, size_t mark)
{
	uint8_t length[PACKAGE_LENGTH_MAX];
	size_t content, n;

	if (aml->overflow)
		return;
	content = aml->len - mark;
	n = encode_package_length(length, content);
	put(aml, length, n);
	if (aml->overflow)
		return;
	memmove(aml->data + mark + n, aml->data + mark, content);
	memcpy(aml->data + mark, length, n);
}

size_t aml_begin_scope(struct aml *aml, const char *path)
{
	size_t mark;

	put_u8(aml, OP_SCOPE);
	mark = aml->len;
	put_name(aml, path);
	return mark;
}

size_t aml_begin_device(struct aml *aml, const char *name)
{
	size_t mark;

	put_u8(aml, OP_EXT);
	put_u8(aml, OP_EXT_DEVICE);
	mark = aml->len;
	put_name(aml, name);
	return mark;
}

size_t aml_begin_method(struct aml *aml, const char *name, unsigned n_args, bool serialized)
{
	size_t mark;

	put_u8(aml, OP_METHOD);
	mark = aml->len;
	put_name(aml, name);
	put_u8(aml, (uint8_t)(n_args | (serialized ? METHOD_SERIALIZED : 0)));
	return mark;
}

static void put_integer(struct aml *aml, uint64_t value)
{
	uint8_t bytes[8];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(value >> (8 * i));
	if (value == 0)
		put_u8(aml, OP_ZERO);
	else if (value == 1)
		put_u8(aml, OP_ONE);
	else if (value <= UINT8_MAX) {
		put_u8(aml, OP_BYTE);
		put(aml, bytes, 1);
	} else if (value <= UINT16_MAX) {
		put_u8(aml, OP_WORD);
		put(aml, bytes, 2);
	} else if (value <= UINT32_MAX) {
		put_u8(aml, OP_DWORD);
		put(aml, bytes, 4);
	} else {
		put_u8(aml, OP_QWORD);
		put(aml, bytes, 8);
	}
}

size_t aml_begin_if_local0_has(struct aml *aml, uint64_t mask)
{
	size_t mark;

	put_u8(aml, OP_IF);
	mark = aml->len;
	put_u8(aml, OP_AND);
	put_u8(aml, OP_LOCAL0);
	put_integer(aml, mask);
	put_u8(aml, OP_ZERO); /* And's target: nowhere */
	return mark;
}

static void begin_name(struct aml *aml, const char *name)
{
	put_u8(aml, OP_NAME);
	put_name(aml, name);
}

void aml_name_integer(struct aml *aml, const char *name, uint64_t value)
{
	begin_name(aml, name);
	put_integer(aml, value);
}

void aml_name_string(struct aml *aml, const char *name, const char *value)
{
	begin_name(aml, name);
	put_u8(aml, OP_STRING);
	put(aml, value, strlen(value) + 1);
}

static uint32_t hex_digit(char c)
{
	return (uint32_t)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* 19.3.4: three letters of five bits and four hexadecimal digits, big-endian. */
void aml_name_eisa_id(struct aml *aml, const char *name, const char *id)
{
	uint32_t value = 0;
	uint8_t bytes[4];

	assert(strlen(id) == 7);
	for (size_t i = 0; i < 3; i++)
		value = value << 5 | (uint32_t)(id[i] - '@');
	for (size_t i = 3; i < 7; i++)
		value = value << 4 | hex_digit(id[i]);
	for (size_t i = 0; i < 4; i++)
		bytes[i] = (uint8_t)(value >> (24 - 8 * i));
	begin_name(aml, name);
	put_u8(aml, OP_DWORD);
	put(aml, bytes, sizeof(bytes));
}

void aml_name_package(struct aml *aml, const char *name, const uint64_t *integers, size_t n)
{
	size_t mark;

	begin_name(aml, name);
	put_u8(aml, OP_PACKAGE);
	mark = aml->len;
	put_u8(aml, (uint8_t)n);
	for (size_t i = 0; i < n; i++)
		put_integer(aml, integers[i]);
	aml_end(aml, mark);
}

void aml_port_fields32(struct aml *aml, const char *region, uint16_t port, const char *const *fields, size_t n)
{
	size_t mark;

	put_u8(aml, OP_EXT);
	put_u8(aml, OP_EXT_REGION);
	put_name(aml, region);
	put_u8(aml, REGION_SYSTEM_IO);
	put_integer(aml, port);
	put_integer(aml, 4 * n);

	put_u8(aml, OP_EXT);
	put_u8(aml, OP_EXT_FIELD);
	mark = aml->len;
	put_name(aml, region);
	put_u8(aml, FIELD_DWORD_ACC);
	for (size_t i = 0; i < n; i++) {
		put_name(aml, fields[i]);
		put_u8(aml, 32); /* bits, as a package length: one byte below 64 */
	}
	aml_end(aml, mark);
}

void aml_store_to_local0(struct aml *aml, const char *name)
{
	put_u8(aml, OP_STORE);
	put_name(aml, name);
	put_u8(aml, OP_LOCAL0);
}

void aml_store_integer(struct aml *aml, uint64_t value, const char *name)
{
	put_u8(aml, OP_STORE);
	put_integer(aml, value);
	put_name(aml, name);
}

void aml_call(struct aml *aml, const char *method)
{
	put_name(aml, method);
}

void aml_notify(struct aml *aml, const char *device, uint8_t value)
{
	put_u8(aml, OP_NOTIFY);
	put_name(aml, device);
	put_integer(aml, value);
}

static void add(struct aml_resources *res, const uint8_t *data, size_t len)
{
	assert(res->len + len <= sizeof(res->data));
	memcpy(res->data + res->len, data, len);
	res->len += len;
}

/* 6.4.2.5, I/O port descriptor: 16-bit decode, fixed. */
void aml_add_ports(struct aml_resources *res, uint16_t port, uint8_t n)
{
	const uint8_t lo = port & 0xff, hi = (uint8_t)(port >> 8);
	const uint8_t data[] = {0x47, 0x01, lo, hi, lo, hi, 0x01, n};

	add(res, data, sizeof(data));
}

static void put_le(uint8_t *p, uint32_t value, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(value >> (8 * i));
}

/* 6.4.3.4, 32-bit fixed memory range, writable. */
void aml_add_memory32(struct aml_resources *res, uint32_t base, uint32_t size)
{
	uint8_t data[12] = {0x86, 9, 0, 0x01};

	put_le(data + 4, base, 4);
	put_le(data + 8, size, 4);
	add(res, data, sizeof(data));
}

/* 6.4.3.5.3, word address space: bus numbers, produced; both ends fixed. */
void aml_add_bus_window(struct aml_resources *res, uint16_t n_buses)
{
	uint8_t data[16] = {0x88, 13, 0, 2, 0x0c, 0};

	put_le(data + 10, n_buses - 1u, 2); /* the last */
	put_le(data + 14, n_buses, 2);
	add(res, data, sizeof(data));
}

/* 6.4.3.5.2, dword address space: memory, produced; both ends fixed; not cacheable, writable. */
void aml_add_memory32_window(struct aml_resources *res, uint32_t base, uint32_t size)
{
	uint8_t data[26] = {0x87, 23, 0, 0, 0x0c, 0x01};

	put_le(data + 10, base, 4);
	put_le(data + 14, base + (size - 1), 4); /* the last */
	put_le(data + 22, size, 4);
	add(res, data, sizeof(data));
}

/* 6.4.3.6, extended interrupt descriptor: consumer, edge, active high, exclusive; one number. */
void aml_add_interrupt(struct aml_resources *res, uint32_t gsi)
{
	uint8_t data[9] = {0x89, 6, 0, 0x03, 1};

	put_le(data + 5, gsi, 4);
	add(res, data, sizeof(data));
}

void aml_name_resources(struct aml *aml, const char *name, const struct aml_resources *res)
{
	static const uint8_t end_tag[] = {0x79, 0}; /* 6.4.2.9; checksum 0: not computed */
	size_t mark;

	begin_name(aml, name);
	put_u8(aml, OP_BUFFER);
	mark = aml->len;
	put_integer(aml, res->len + sizeof(end_tag));
	put(aml, res->data, res->len);
	put(aml, end_tag, sizeof(end_tag));
	aml_end(aml, mark);
}
