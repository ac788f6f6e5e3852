/* Archives as pax has them, written: a ustar header, and before it an extended one for what does not fit. */
#include "common/tar_header.h"

#include "common/buf.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define EXTENDED_MAX (4 * TAR_NAME_MAX)
#define NS_PER_S     1000000000

static const char zeros[TAR_BLOCK];

/* As octal digits; false when it does not fit. */
static bool put_number(char *field, size_t len, uint64_t value)
{
	field[len - 1] = '\0';
	for (size_t i = len - 1; i-- > 0; value >>= 3)
		field[i] = (char)('0' + (value & 7));
	return value == 0;
}

/* False when it does not fit. */
static bool put_text(char *field, size_t len, const char *text)
{
	size_t n = strlen(text);

	memcpy(field, text, n < len ? n : len);
	return n <= len;
}

/* The record's length counts its own digits. */
static int put_record(struct buf *out, const char *key, const char *value)
{
	size_t len = strlen(key) + strlen(value) + 3, digits = 1;

	for (size_t limit = 10; len + digits >= limit; limit *= 10)
		digits++;
	return buf_printf(out, "%zu %s=", len + digits, key) < 0 || buf_append(out, value, strlen(value)) < 0 ||
			       buf_append(out, "\n", 1) < 0 ?
		       -ENOMEM :
		       0;
}

static int put_time(struct buf *out, const struct timespec *time)
{
	int64_t s = time->tv_sec;
	long ns = time->tv_nsec;
	bool negative = s < 0;
	char text[48];

	if (negative && ns) {
		s++;
		ns = NS_PER_S - ns;
	}
	snprintf(text, sizeof text, "%s%" PRIu64 ".%09ld", negative ? "-" : "", negative ? -(uint64_t)s : (uint64_t)s, ns);
	return put_record(out, "mtime", text);
}

static int put_integer(struct buf *out, const char *key, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof text, "%" PRIu64, value);
	return put_record(out, key, text);
}

/* Fills the header, and says in `extended` what it cannot. */
static int describe(const struct tar_entry *entry, struct tar_header *header, struct buf *extended)
{
	static const char types[] = {[TAR_FILE] = '0', [TAR_FOLDER] = '5', [TAR_SYMLINK] = '2', [TAR_SPECIAL] = '6'};
	uint64_t size = entry->type == TAR_FILE ? entry->size : 0;
	int r = 0;

	memset(header, 0, sizeof *header);
	header->type = types[entry->type];
	if (!put_text(header->name, sizeof header->name, entry->name))
		r = put_record(extended, "path", entry->name);
	if (r == 0 && entry->type == TAR_SYMLINK && !put_text(header->link, sizeof header->link, entry->link))
		r = put_record(extended, "linkpath", entry->link);
	put_number(header->mode, sizeof header->mode, entry->mode & 07777);
	if (!put_number(header->uid, sizeof header->uid, entry->uid) && r == 0)
		r = put_integer(extended, "uid", entry->uid);
	if (!put_number(header->gid, sizeof header->gid, entry->gid) && r == 0)
		r = put_integer(extended, "gid", entry->gid);
	if (!put_number(header->size, sizeof header->size, size) && r == 0)
		r = put_integer(extended, "size", size);
	if ((entry->mtime.tv_sec < 0 || entry->mtime.tv_nsec ||
		    !put_number(header->mtime, sizeof header->mtime, (uint64_t)entry->mtime.tv_sec)) &&
		r == 0)
		r = put_time(extended, &entry->mtime);
	return r;
}

static int write_header(const struct tar_sink *sink, struct tar_header *header)
{
	memcpy(header->magic, "ustar", 6);
	memcpy(header->version, "00", 2);
	snprintf(header->checksum, sizeof header->checksum, "%06o", tar_header_sum(header));
	header->checksum[7] = ' ';
	return sink->write(sink->ctx, header, sizeof *header);
}

static int write_extended(const struct tar_sink *sink, const struct buf *extended)
{
	struct tar_header header = {.type = 'x', .name = "././@PaxHeader"};
	int r;

	put_number(header.mode, sizeof header.mode, 0644);
	put_number(header.uid, sizeof header.uid, 0);
	put_number(header.gid, sizeof header.gid, 0);
	put_number(header.mtime, sizeof header.mtime, 0);
	put_number(header.size, sizeof header.size, extended->len);
	r = write_header(sink, &header);
	if (r == 0)
		r = sink->write(sink->ctx, extended->data, extended->len);
	return r == 0 ? tar_write_padding(sink, extended->len) : r;
}

int tar_write_entry(const struct tar_sink *sink, const struct tar_entry *entry)
{
	struct tar_header header;
	struct buf extended;
	int r;

	buf_init(&extended, EXTENDED_MAX);
	r = describe(entry, &header, &extended);
	if (r == 0 && extended.len)
		r = write_extended(sink, &extended);
	if (r == 0)
		r = write_header(sink, &header);
	buf_done(&extended);
	return r;
}

int tar_write_padding(const struct tar_sink *sink, uint64_t size)
{
	unsigned len = tar_padding(size);

	return len ? sink->write(sink->ctx, zeros, len) : 0;
}

int tar_write_end(const struct tar_sink *sink)
{
	int r = sink->write(sink->ctx, zeros, sizeof zeros);

	return r == 0 ? sink->write(sink->ctx, zeros, sizeof zeros) : r;
}
