/* Files and folders from a tar stream, whose writer may be hostile.
 *
 * Theory of operation. Each entry's folder is found anew, from `base` downwards, one name at a time and without following a link, so
 * that neither names nor links, the archive's own or ones that somebody puts there meanwhile, lead out. Files and links are made
 * under a name of their own beside, and renamed. Folders are the caller's alone while they are filled; `levels` are those
 * that surround the current entry, and each gets what the archive says of it when the first entry comes that is not below it. */
#include "common/pack.h"

#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define CHUNK	      (64 * 1024) /* so many zeros become a hole */
#define TEMPORARY_MAX 32
#define LEVELS_MAX    512

struct level {
	size_t len; /* of its path, the beginning of unpacker.path */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	struct timespec mtime;
};

struct unpacker {
	const struct unpack_options *options;
	struct tar_reader reader;
	struct error *err;
	int base;
	char name[TAR_NAME_MAX + 1];   /* what the first entry becomes, below base; "": it keeps its name */
	bool only_folder;	       /* which must be a folder then */
	char root[TAR_NAME_MAX + 1];   /* the first entry's own name, clean; others must be below it */
	bool has_root;
	char path[2 * TAR_NAME_MAX + 2]; /* the current entry's, below base; "": base itself */
	char folder[2 * TAR_NAME_MAX + 2]; /* the innermost level's */
	struct level levels[LEVELS_MAX];
	size_t n_levels;
	struct tar_entry entry;
	char chunk[CHUNK];
};

static int fail(struct unpacker *u, int errnum, const char *path)
{
	return error_set_errno(u->err, errnum, "%s", path[0] ? path : u->entry.name);
}

static void skip(struct unpacker *u, const char *why)
{
	if (u->options->skipped)
		u->options->skipped(u->options->ctx, u->entry.name, why);
}

/* ---- where it goes ---- */

/* The folder that `path` is in; missing ones are made. `ret_last` is its last part. */
static int open_parent(struct unpacker *u, const char *path, const char **ret_last)
{
	cleanup_close int fd = fcntl(u->base, F_DUPFD_CLOEXEC, 0);
	char part[TAR_NAME_MAX + 1];
	const char *slash;

	for (; fd >= 0 && (slash = strchr(path, '/')); path = slash + 1) {
		int next;

		snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
		if (mkdirat(fd, part, 0755) < 0 && errno != EEXIST)
			return fail(u, errno, part);
		next = openat(fd, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0 && (errno == ENOTDIR || errno == ELOOP))
			return error_set(u->err, ENOTDIR, "%s: %s is no folder, or a link, which is not followed", u->entry.name, part);
		if (next < 0)
			return fail(u, errno, part);
		close_fd(fd);
		fd = next;
	}
	if (fd < 0)
		return fail(u, errno, path);
	*ret_last = path;
	return steal_fd(&fd);
}

/* A name without "." and needless slashes; -EINVAL for one that leads elsewhere. */
static int clean(const char *name, char ret[TAR_NAME_MAX + 1])
{
	size_t len = 0;

	if (name[0] == '/' || !name[0])
		return -EINVAL;
	while (*name) {
		size_t part = strcspn(name, "/");

		if (part == 2 && name[0] == '.' && name[1] == '.')
			return -EINVAL;
		if (part && !(part == 1 && name[0] == '.')) {
			if (len)
				ret[len++] = '/';
			memcpy(ret + len, name, part);
			len += part;
		}
		name += part + (name[part] == '/');
	}
	ret[len] = '\0';
	return 0;
}

static bool is_below(const char *path, const char *folder, size_t len)
{
	return len == 0 || (strncmp(path, folder, len) == 0 && (path[len] == '/' || path[len] == '\0'));
}

/* Sets u->path. */
static int place(struct unpacker *u)
{
	char name[TAR_NAME_MAX + 1];
	size_t len;

	if (clean(u->entry.name, name) < 0)
		return error_set(u->err, EINVAL, "the archive has \"%.200s\", a name that leads out of it", u->entry.name);
	if (!u->options->into && !u->has_root) {
		u->has_root = true;
		strcpy(u->root, name);
		if (u->only_folder && u->entry.type != TAR_FOLDER)
			return error_set(u->err, ENOTDIR, "%.200s: there is no such folder", u->name);
	}
	len = u->options->into ? 0 : strlen(u->root);
	if (!is_below(name, u->root, len))
		return error_set(u->err, EINVAL, "the archive has \"%.200s\", which is not in \"%.200s\"", u->entry.name, u->root);
	if (u->name[0] && len == 0)
		snprintf(u->path, sizeof u->path, "%s%s%s", u->name, name[0] ? "/" : "", name);
	else
		snprintf(u->path, sizeof u->path, "%s%s", u->name, u->name[0] ? name + len : name);
	return 0;
}

/* ---- what is made ---- */

static mode_t mode_of(const struct unpacker *u, mode_t mode)
{
	return u->options->trust_modes ? mode : mode & 01777;
}

/* What a folder was given. `fd` is a file's or a folder's. */
static int dress(struct unpacker *u, int fd, const struct level *as)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, as->mtime};

	if (u->options->keep_owner && fchown(fd, as->uid, as->gid) < 0)
		return -errno;
	return fchmod(fd, mode_of(u, as->mode)) < 0 || futimens(fd, times) < 0 ? -errno : 0;
}

static struct level level_of(const struct unpacker *u)
{
	const struct tar_entry *e = &u->entry;

	return (struct level){strlen(u->path), e->mode, e->uid, e->gid, e->mtime};
}

static int leave_level(struct unpacker *u)
{
	const struct level *level = &u->levels[--u->n_levels];
	cleanup_close int parent = -1, fd = -1;
	const char *last;
	int r;

	u->folder[level->len] = '\0';
	parent = open_parent(u, u->folder, &last);
	if (parent < 0)
		return parent;
	fd = openat(parent, last, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	r = fd < 0 ? -errno : dress(u, fd, level);
	return r < 0 ? fail(u, -r, u->folder) : 0;
}

static int leave_levels(struct unpacker *u, const char *path)
{
	int r = 0;

	while (r == 0 && u->n_levels && !(path && is_below(path, u->folder, u->levels[u->n_levels - 1].len)))
		r = leave_level(u);
	return r;
}

static int make_folder(struct unpacker *u, int parent, const char *last)
{
	struct stat st;

	if (u->n_levels == LEVELS_MAX)
		return error_set(u->err, ELOOP, "%.200s: there are too many folders in each other", u->path);
	if (mkdirat(parent, last, 0700) < 0 &&
		(errno != EEXIST || fstatat(parent, last, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
			(!S_ISDIR(st.st_mode) && (errno = ENOTDIR))))
		return fail(u, errno, u->path);
	strcpy(u->folder, u->path);
	u->levels[u->n_levels++] = level_of(u);
	return 0;
}

static int copy_data(struct unpacker *u, int fd)
{
	uint64_t offset = 0;
	ssize_t n;

	while ((n = tar_read(&u->reader, u->chunk, CHUNK, u->err)) > 0) {
		bool hole = n == CHUNK && !u->chunk[0] && memcmp(u->chunk, u->chunk + 1, CHUNK - 1) == 0;

		for (ssize_t done = 0; done < n && !hole;) {
			ssize_t wrote = pwrite(fd, u->chunk + done, (size_t)(n - done), (off_t)offset + done);

			if (wrote < 0 && errno != EINTR)
				return fail(u, errno, u->path);
			done += wrote > 0 ? wrote : 0;
		}
		offset += (uint64_t)n;
	}
	if (n < 0)
		return (int)n;
	return ftruncate(fd, (off_t)offset) < 0 ? fail(u, errno, u->path) : 0;
}

static int make_file(struct unpacker *u, int parent, const char *temporary)
{
	cleanup_close int fd = openat(parent, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	struct level as = level_of(u);
	int r;

	if (fd < 0)
		return fail(u, errno, u->path);
	r = copy_data(u, fd);
	if (r == 0 && (r = dress(u, fd, &as)) < 0)
		fail(u, -r, u->path);
	return r;
}

static int make_link(struct unpacker *u, int parent, const char *temporary)
{
	const struct tar_entry *e = &u->entry;
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, e->mtime};

	if (symlinkat(e->link, parent, temporary) < 0)
		return fail(u, errno, u->path);
	if ((u->options->keep_owner && fchownat(parent, temporary, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) < 0) ||
		utimensat(parent, temporary, times, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(u, errno, u->path);
	return 0;
}

/* Under another name, then its own: whole, or not at all. */
static int make_and_rename(struct unpacker *u, int parent, const char *last)
{
	char temporary[TEMPORARY_MAX];
	uint64_t number;
	int r;

	if (getrandom(&number, sizeof number, 0) != sizeof number)
		return fail(u, errno, u->path);
	snprintf(temporary, sizeof temporary, ".hull-cp-%016llx", (unsigned long long)number);
	r = u->entry.type == TAR_FILE ? make_file(u, parent, temporary) : make_link(u, parent, temporary);
	if (r == 0 && renameat(parent, temporary, parent, last) < 0)
		r = fail(u, errno, u->path);
	if (r < 0)
		unlinkat(parent, temporary, 0);
	return r;
}

static int make(struct unpacker *u)
{
	cleanup_close int parent = -1;
	const char *last;
	int r = place(u);

	if (r == 0)
		r = leave_levels(u, u->path);
	if (r < 0)
		return r;
	if (u->entry.type == TAR_SPECIAL) {
		skip(u, "is a device or FIFO");
		return 0;
	}
	if (!u->path[0] && u->entry.type == TAR_FOLDER)
		return 0; /* what the target itself is like was not asked for */
	if (!u->path[0])
		return error_set(u->err, EINVAL, "the archive has a file without a name");
	parent = open_parent(u, u->path, &last);
	if (parent < 0)
		return parent;
	return u->entry.type == TAR_FOLDER ? make_folder(u, parent, last) : make_and_rename(u, parent, last);
}

/* ---- the target ---- */

/* It is no folder: opens what it is in. */
static int open_beside(struct unpacker *u, const char *target)
{
	size_t end = strlen(target), begin;
	cleanup_free char *parent = NULL;

	u->only_folder = end && target[end - 1] == '/';
	while (end > 1 && target[end - 1] == '/')
		end--;
	for (begin = end; begin && target[begin - 1] != '/'; begin--)
		;
	if (end - begin > TAR_NAME_MAX || end == begin || strcmp(target + begin, ".") == 0 || strcmp(target + begin, "..") == 0)
		return error_set_errno(u->err, ENOENT, "%.200s", target);
	snprintf(u->name, sizeof u->name, "%.*s", (int)(end - begin), target + begin);
	parent = begin ? strndup(target, begin) : strdup(".");
	if (!parent)
		return error_set(u->err, ENOMEM, "out of memory");
	u->base = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return u->base < 0 ? error_set_errno(u->err, errno, "%.200s", parent) : 0;
}

static int open_target(struct unpacker *u, const char *target)
{
	u->base = open(target, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (u->base >= 0)
		return 0;
	if (u->options->into || (errno != ENOENT && errno != ENOTDIR) ||
		(errno == ENOTDIR && target[0] && target[strlen(target) - 1] == '/'))
		return error_set_errno(u->err, errno, "%.200s", target);
	return open_beside(u, target);
}

int unpack(const char *target, const struct tar_source *source, const struct unpack_options *options, struct error *err)
{
	cleanup_free struct unpacker *u = calloc(1, sizeof *u);
	struct error unheard;
	int r;

	if (!u)
		return error_set(err, ENOMEM, "out of memory");
	u->options = options;
	u->err = err;
	tar_reader_init(&u->reader, source);
	r = open_target(u, target);
	if (r < 0)
		return r;
	while (r >= 0 && (r = tar_next(&u->reader, &u->entry, err)) > 0)
		r = make(u) < 0 ? -err->errnum : 1;
	if (r < 0)
		u->err = &unheard;
	while (u->n_levels && (r >= 0 || u->err == &unheard))
		if (leave_level(u) < 0 && r >= 0) {
			r = -err->errnum;
			u->err = &unheard;
		}
	if (r == 0 && !options->into && !u->has_root)
		r = error_set(err, EINVAL, "the archive is empty");
	close_fd(u->base);
	return r < 0 ? r : 0;
}
