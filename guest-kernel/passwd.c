/* Who the workload runs as, by the image's own /etc/passwd and /etc/group. */
#include "guest-kernel/passwd.h"

#include "common/buf.h"
#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_BYTES_MAX (1 << 20)

/* A piece of text inside the file or the specification, not terminated. */
struct piece {
	const char *start;
	size_t len;
};

/* passwd(5) has 7 fields a line, group(5) has 4. */
enum { PASSWD_NAME, PASSWD_PASSWORD, PASSWD_UID, PASSWD_GID, PASSWD_GECOS, PASSWD_HOME, PASSWD_SHELL, PASSWD_FIELDS };
enum { GROUP_NAME, GROUP_PASSWORD, GROUP_GID, GROUP_MEMBERS, GROUP_FIELDS };

static bool piece_is(struct piece piece, struct piece other)
{
	return piece.len == other.len && memcmp(piece.start, other.start, piece.len) == 0;
}

/* A decimal number below (uid_t)-1, which means "no change" to the kernel. */
static bool piece_to_id(struct piece piece, uint32_t *ret)
{
	uint64_t value = 0;

	if (piece.len == 0 || piece.len > 10)
		return false;
	for (size_t i = 0; i < piece.len; i++) {
		if (piece.start[i] < '0' || piece.start[i] > '9')
			return false;
		value = value * 10 + (uint64_t)(piece.start[i] - '0');
	}
	if (value >= UINT32_MAX)
		return false;
	*ret = (uint32_t)value;
	return true;
}

/* Takes the next line from `*text` and splits it at ':' into exactly `n` fields. Lines of another shape (comments,
 * NIS entries) are passed over. False at the end. */
static bool next_record(const char **text, struct piece *fields, size_t n)
{
	while (**text) {
		const char *at = *text, *end = at + strcspn(at, "\n");
		size_t found = 0;

		*text = *end ? end + 1 : end;
		for (;;) {
			size_t len = 0;

			while (at + len < end && at[len] != ':')
				len++;
			if (found < n)
				fields[found] = (struct piece){at, len};
			found++;
			if (at + len == end)
				break;
			at += len + 1;
		}
		if (found == n && fields[0].len > 0)
			return true;
	}
	return false;
}

/* The first passwd record with this name; failing that, with this number. `record` is filled when true. */
static bool find_user(const char *passwd, struct piece wanted, struct piece *record)
{
	uint32_t id, wanted_id = 0;
	bool numeric = piece_to_id(wanted, &wanted_id);
	const char *text = passwd;

	while (next_record(&text, record, PASSWD_FIELDS))
		if (piece_is(record[PASSWD_NAME], wanted))
			return true;
	text = passwd;
	while (numeric && next_record(&text, record, PASSWD_FIELDS))
		if (piece_to_id(record[PASSWD_UID], &id) && id == wanted_id)
			return true;
	return false;
}

static int resolve_group(struct piece wanted, const char *group, gid_t *ret, struct error *err)
{
	struct piece record[GROUP_FIELDS];

	while (next_record(&group, record, GROUP_FIELDS))
		if (piece_is(record[GROUP_NAME], wanted) && piece_to_id(record[GROUP_GID], ret))
			return 0;
	if (piece_to_id(wanted, ret))
		return 0;
	return error_set_field(err, ENOENT, "user", "no group \"%.*s\" in the image's /etc/group", (int)wanted.len,
		wanted.start);
}

static bool lists_member(struct piece members, struct piece name)
{
	const char *at = members.start, *end = at + members.len;

	while (at < end) {
		const char *comma = memchr(at, ',', (size_t)(end - at));
		size_t len = (size_t)((comma ? comma : end) - at);

		if (piece_is((struct piece){at, len}, name))
			return true;
		at += len + 1;
	}
	return false;
}

static int add_groups(const char *group, struct piece name, struct passwd_user *user, struct error *err)
{
	struct piece record[GROUP_FIELDS];
	gid_t gid;

	while (next_record(&group, record, GROUP_FIELDS)) {
		if (!lists_member(record[GROUP_MEMBERS], name) || !piece_to_id(record[GROUP_GID], &gid) ||
			gid == user->gid)
			continue;
		if (user->n_groups == PASSWD_GROUPS_MAX)
			return error_set_field(err, E2BIG, "user", "\"%.*s\" is in more than %d groups",
				(int)name.len, name.start, PASSWD_GROUPS_MAX);
		user->groups[user->n_groups++] = gid;
	}
	return 0;
}

/* From the record of a user that is listed. */
static int take_record(const struct piece *record, struct passwd_user *user, struct error *err)
{
	struct piece home = record[PASSWD_HOME], name = record[PASSWD_NAME];

	if (!piece_to_id(record[PASSWD_UID], &user->uid) || !piece_to_id(record[PASSWD_GID], &user->gid))
		return error_set_field(err, EINVAL, "user", "the image's /etc/passwd has no numbers for \"%.*s\"",
			(int)name.len, name.start);
	if (home.len > 0 && home.len < sizeof user->home) {
		memcpy(user->home, home.start, home.len);
		user->home[home.len] = '\0';
	}
	return 0;
}

int passwd_resolve(const char *spec, const char *passwd, const char *group, struct passwd_user *ret, struct error *err)
{
	const char *colon = strchr(spec, ':');
	struct piece name = {spec, colon ? (size_t)(colon - spec) : strlen(spec)};
	struct piece record[PASSWD_FIELDS];
	struct passwd_user user = {.home = "/"};
	bool listed;
	int r = 0;

	if (name.len == 0 || (colon && (!colon[1] || strchr(colon + 1, ':'))))
		return error_set_field(err, EINVAL, "user", "\"%s\" is neither \"user\" nor \"user:group\"", spec);
	listed = find_user(passwd, name, record);
	if (listed)
		r = take_record(record, &user, err);
	else if (piece_is(name, (struct piece){"root", 4}))
		strcpy(user.home, "/root"); /* an image without /etc/passwd still has its root */
	else if (!piece_to_id(name, &user.uid))
		r = error_set_field(err, ENOENT, "user", "no user \"%.*s\" in the image's /etc/passwd",
			(int)name.len, name.start);
	if (r == 0 && colon)
		r = resolve_group((struct piece){colon + 1, strlen(colon + 1)}, group, &user.gid, err);
	else if (r == 0 && listed)
		r = add_groups(group, record[PASSWD_NAME], &user, err);
	if (r == 0)
		*ret = user;
	return r;
}

/* The text of a regular file; a FIFO in its place must not hold us up. */
static int read_text(const char *root, const char *name, struct buf *text, struct error *err)
{
	char path[PATH_MAX];
	cleanup_close int fd = -1;
	struct stat status;
	ssize_t n;

	snprintf(path, sizeof path, "%s%s", root, name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return buf_append(text, "", 0);
	if (fd < 0 || fstat(fd, &status) < 0)
		return error_set_errno(err, errno, "the image's %s", name);
	if (!S_ISREG(status.st_mode))
		return error_set(err, EINVAL, "the image's %s is no regular file", name);
	while ((n = buf_read_fd(text, fd, 64 * 1024)) > 0)
		;
	return n < 0 ? error_set_errno(err, (int)-n, "the image's %s", name) : 0;
}

int passwd_lookup(const char *root, const char *spec, struct passwd_user *ret, struct error *err)
{
	struct buf passwd, group;
	int r;

	buf_init(&passwd, FILE_BYTES_MAX);
	buf_init(&group, FILE_BYTES_MAX);
	r = read_text(root, "/etc/passwd", &passwd, err);
	if (r == 0)
		r = read_text(root, "/etc/group", &group, err);
	if (r == 0)
		r = passwd_resolve(spec, passwd.data ? passwd.data : "", group.data ? group.data : "", ret, err);
	buf_done(&passwd);
	buf_done(&group);
	return r;
}
