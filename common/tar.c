/* Archives as tar and pax have them, read. tar_write.c writes them. */
#include "common/tar.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/tar_header.h"

#include <errno.h>
#include <string.h>

#define EXTENDED_MAX (64u << 10) /* bytes of a pax header, or a long name */
#define NS_PER_S     1000000000
#define SECONDS_MAX  (INT64_MAX / 4)

static const char cut_short[] = "the archive is cut short";

void tar_reader_init(struct tar_reader *reader, const struct tar_source *source)
{
	*reader = (struct tar_reader){.source = source};
}

/* All of it or an error. */
static int read_whole(struct tar_reader *reader, void *data, size_t len, struct error *err)
{
	ssize_t n = reader->source->read(reader->source->ctx, data, len);

	if (n < 0)
		return error_set_errno(err, (int)-n, "cannot read the archive");
	return (size_t)n == len ? 0 : error_set(err, EINVAL, "%s", cut_short);
}

static int skip(struct tar_reader *reader, uint64_t len, struct error *err)
{
	char dropped[8192];
	int r = 0;

	for (; len && r == 0; len -= len < sizeof dropped ? len : sizeof dropped)
		r = read_whole(reader, dropped, len < sizeof dropped ? (size_t)len : sizeof dropped, err);
	return r;
}

ssize_t tar_read(struct tar_reader *reader, void *data, size_t len, struct error *err)
{
	size_t part = reader->left < len ? (size_t)reader->left : len;
	int r = read_whole(reader, data, part, err);

	if (r == 0)
		reader->left -= part;
	return r < 0 ? r : (ssize_t)part;
}

/* ---- fields ---- */

/* Octal digits, with blanks before and a blank or NUL after; or, with the first bit set, a big-endian number (GNU). */
static int parse_number(const char *field, size_t len, uint64_t *ret)
{
	const unsigned char *at = (const unsigned char *)field;
	uint64_t value = 0;
	size_t i = 0;

	if (at[0] & 0x80) {
		value = at[0] & 0x7f;
		for (i = 1; i < len; i++) {
			if (value >> 55)
				return -EINVAL;
			value = value << 8 | at[i];
		}
		*ret = value;
		return 0;
	}
	while (i < len && at[i] == ' ')
		i++;
	for (; i < len && at[i] >= '0' && at[i] <= '7'; i++) {
		if (value >> 60)
			return -EINVAL;
		value = value << 3 | (uint64_t)(at[i] - '0');
	}
	if (i < len && at[i] != ' ' && at[i] != '\0')
		return -EINVAL;
	*ret = value;
	return 0;
}

static bool sum_is_right(const struct tar_header *header)
{
	uint64_t sum;

	return parse_number(header->checksum, sizeof header->checksum, &sum) == 0 && sum == tar_header_sum(header);
}

/* Decimal digits only, as pax has them. */
static int parse_decimal(const char *text, size_t len, uint64_t *ret)
{
	uint64_t value = 0;

	for (size_t i = 0; i < len; i++)
		if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(value, 10, &value) ||
			__builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
			return -EINVAL;
	*ret = value;
	return len ? 0 : -EINVAL;
}

/* [-]SECONDS[.FRACTION], of which nine digits count. */
static int parse_time(const char *text, size_t len, struct timespec *ret)
{
	bool negative = len && text[0] == '-';
	const char *at = text + negative, *end = text + len, *dot = memchr(at, '.', (size_t)(end - at));
	long ns = 0, unit = NS_PER_S / 10;
	uint64_t seconds;

	if (parse_decimal(at, (size_t)((dot ? dot : end) - at), &seconds) < 0 || seconds > SECONDS_MAX)
		return -EINVAL;
	for (at = dot ? dot + 1 : end; at < end; at++, unit /= 10) {
		if (*at < '0' || *at > '9')
			return -EINVAL;
		ns += (*at - '0') * unit;
	}
	*ret = (struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = ns};
	if (negative && ns)
		*ret = (struct timespec){.tv_sec = -(time_t)seconds - 1, .tv_nsec = NS_PER_S - ns};
	else if (negative)
		ret->tv_sec = -(time_t)seconds;
	return 0;
}

static int take_text(char ret[TAR_NAME_MAX + 1], const char *text, size_t len)
{
	if (len > TAR_NAME_MAX || memchr(text, '\0', len))
		return -EINVAL;
	memcpy(ret, text, len);
	ret[len] = '\0';
	return 0;
}

/* ---- extended headers ---- */

/* What extended headers have said of the next entry. */
struct extended {
	bool has_name, has_link, has_size, has_mtime, has_uid, has_gid;
	struct tar_entry entry;
};

static int take_id(const char *value, size_t len, bool *ret_has, uint32_t *ret)
{
	uint64_t number;

	if (parse_decimal(value, len, &number) < 0 || number >= UINT32_MAX)
		return -EINVAL;
	*ret = (uint32_t)number;
	*ret_has = true;
	return 0;
}

static int take_record(struct extended *x, const char *key, size_t key_len, const char *value, size_t len)
{
#define IS(name) (key_len == sizeof(name) - 1 && memcmp(key, name, key_len) == 0)
	if (IS("path")) {
		x->has_name = true;
		return take_text(x->entry.name, value, len);
	}
	if (IS("linkpath")) {
		x->has_link = true;
		return take_text(x->entry.link, value, len);
	}
	if (IS("size")) {
		x->has_size = true;
		return parse_decimal(value, len, &x->entry.size);
	}
	if (IS("mtime")) {
		x->has_mtime = true;
		return parse_time(value, len, &x->entry.mtime);
	}
	if (IS("uid"))
		return take_id(value, len, &x->has_uid, &x->entry.uid);
	if (IS("gid"))
		return take_id(value, len, &x->has_gid, &x->entry.gid);
#undef IS
	/* Its data would be something else than the file's. */
	return key_len > 10 && memcmp(key, "GNU.sparse", 10) == 0 ? -EOPNOTSUPP : 0;
}

/* Records are "LENGTH KEY=VALUE\n", the length that of the whole record. */
static int take_records(struct extended *x, const char *text, size_t len)
{
	int r = 0;

	while (len && r == 0) {
		const char *space = memchr(text, ' ', len < 20 ? len : 20), *equals;
		uint64_t record;

		if (!space || parse_decimal(text, (size_t)(space - text), &record) < 0 || record > len ||
			record < (size_t)(space - text) + 4 || text[record - 1] != '\n')
			return -EINVAL;
		equals = memchr(space, '=', (size_t)(text + record - space));
		if (!equals)
			return -EINVAL;
		r = take_record(x, space + 1, (size_t)(equals - space - 1), equals + 1,
			(size_t)(text + record - 1 - (equals + 1)));
		text += record;
		len -= record;
	}
	return r;
}

/* GNU's long names end with a NUL. */
static int take_long_name(char ret[TAR_NAME_MAX + 1], const char *text, size_t len)
{
	return take_text(ret, text, strnlen(text, len));
}

static int take_extended(struct tar_reader *reader, char type, uint64_t size, struct extended *x, struct error *err)
{
	cleanup_free char *text = NULL;
	int r;

	if (size > EXTENDED_MAX)
		return error_set(err, EINVAL, "the archive has a header of %llu bytes", (unsigned long long)size);
	text = malloc(size + 1);
	if (!text)
		return error_set(err, ENOMEM, "out of memory");
	r = read_whole(reader, text, size, err);
	if (r == 0)
		r = skip(reader, tar_padding(size), err);
	if (r < 0)
		return r;
	if (type == 'x')
		r = take_records(x, text, size);
	else if (type == 'L' || type == 'K') {
		*(type == 'L' ? &x->has_name : &x->has_link) = true;
		r = take_long_name(type == 'L' ? x->entry.name : x->entry.link, text, size);
	} /* 'g' says nothing of one entry */
	if (r == -EOPNOTSUPP)
		return error_set(err, EOPNOTSUPP, "the archive has files with holes in a form that is not taken");
	return r < 0 ? error_set(err, EINVAL, "the archive has an extended header that makes no sense") : 0;
}

/* ---- entries ---- */

static int take_type(const struct tar_header *header, struct tar_entry *ret, struct error *err)
{
	switch (header->type) {
	case '\0':
	case '0':
	case '7':
		ret->type = TAR_FILE;
		return 0;
	case '2':
		ret->type = TAR_SYMLINK;
		return 0;
	case '3':
	case '4':
	case '6':
		ret->type = TAR_SPECIAL;
		return 0;
	case '5':
		ret->type = TAR_FOLDER;
		return 0;
	case '1':
		return error_set(err, EOPNOTSUPP, "the archive has hard links, which are not taken (tar --hard-dereference)");
	default:
		return error_set(err, EOPNOTSUPP, "the archive has an entry of type %d, which is not taken", header->type);
	}
}

static void take_names(const struct tar_header *header, struct tar_entry *ret)
{
	bool posix = memcmp(header->magic, "ustar", 6) == 0; /* GNU's has a blank there, and no prefix */

	snprintf(ret->name, sizeof ret->name, "%.*s%s%.*s", posix ? (int)sizeof header->prefix : 0, header->prefix,
		posix && header->prefix[0] ? "/" : "", (int)sizeof header->name, header->name);
	snprintf(ret->link, sizeof ret->link, "%.*s", (int)sizeof header->link, header->link);
}

static void lay_over(const struct extended *x, struct tar_entry *ret)
{
	if (x->has_name)
		memcpy(ret->name, x->entry.name, sizeof ret->name);
	if (x->has_link)
		memcpy(ret->link, x->entry.link, sizeof ret->link);
	if (x->has_size)
		ret->size = x->entry.size;
	if (x->has_mtime)
		ret->mtime = x->entry.mtime;
	if (x->has_uid)
		ret->uid = x->entry.uid;
	if (x->has_gid)
		ret->gid = x->entry.gid;
}

static int take_entry(
	const struct tar_header *header, const struct extended *x, struct tar_entry *ret, struct error *err)
{
	uint64_t mode, uid, gid, size, mtime;
	int r = take_type(header, ret, err);

	if (r < 0)
		return r;
	if (parse_number(header->mode, sizeof header->mode, &mode) < 0 ||
		parse_number(header->size, sizeof header->size, &size) < 0)
		return error_set(err, EINVAL, "the archive has a header that makes no sense");
	/* What these cannot say, GNU's tar writes as a negative number; a pax header has it then. */
	if (parse_number(header->uid, sizeof header->uid, &uid) < 0 || uid >= UINT32_MAX)
		uid = 0;
	if (parse_number(header->gid, sizeof header->gid, &gid) < 0 || gid >= UINT32_MAX)
		gid = 0;
	if (parse_number(header->mtime, sizeof header->mtime, &mtime) < 0 || mtime > SECONDS_MAX)
		mtime = 0;
	take_names(header, ret);
	ret->mode = (mode_t)(mode & 07777);
	ret->uid = (uid_t)uid;
	ret->gid = (gid_t)gid;
	ret->size = size;
	ret->mtime = (struct timespec){.tv_sec = (time_t)mtime};
	lay_over(x, ret);
	if (ret->type != TAR_FILE)
		ret->size = 0;
	return ret->size <= INT64_MAX - TAR_BLOCK ? 0 : error_set(err, EINVAL, "the archive has a file that is too large");
}

int tar_next(struct tar_reader *reader, struct tar_entry *ret, struct error *err)
{
	static const char zeros[TAR_BLOCK];
	struct extended x = {0};
	struct tar_header header;
	uint64_t size;
	int r = skip(reader, reader->left + reader->padding, err);

	reader->left = reader->padding = 0;
	while (r == 0) {
		r = read_whole(reader, &header, sizeof header, err);
		if (r < 0)
			return r;
		if (memcmp(&header, zeros, sizeof zeros) == 0)
			return 0;
		if (!sum_is_right(&header))
			return error_set(err, EINVAL, "this is no tar archive, or a damaged one");
		if (!strchr("xgLK", header.type) || !header.type)
			break;
		if (parse_number(header.size, sizeof header.size, &size) < 0)
			return error_set(err, EINVAL, "the archive has a header that makes no sense");
		r = take_extended(reader, header.type, size, &x, err);
	}
	if (r == 0)
		r = take_entry(&header, &x, ret, err);
	if (r < 0)
		return r;
	reader->left = ret->size;
	reader->padding = tar_padding(ret->size);
	return 1;
}
