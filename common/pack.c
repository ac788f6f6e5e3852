/* Files and folders to a tar stream. */
#include "common/pack.h"

#include "common/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define CHUNK	  (256 * 1024)
#define DEPTH_MAX 512 /* folders: each is open while what is below it is packed */

struct packer {
	const struct tar_sink *sink;
	pack_skipped_fn skipped;
	void *ctx;
	struct error *err;
	dev_t device; /* of what was named */
	char *chunk;
	struct tar_entry entry; /* its name is that of what is being packed */
};

static int pack_at(struct packer *p, int folder, const char *at, unsigned depth);

static int fail(struct packer *p, int errnum)
{
	return error_set_errno(p->err, errnum, "%s", p->entry.name);
}

static int sink_failed(struct packer *p, int r)
{
	return r < 0 ? error_set_errno(p->err, -r, "cannot write the archive") : 0;
}

static void skip(struct packer *p, const char *why)
{
	if (p->skipped)
		p->skipped(p->ctx, p->entry.name, why);
}

static int put_entry(struct packer *p, enum tar_type type, const struct stat *st)
{
	p->entry.type = type;
	p->entry.mode = st->st_mode & 07777;
	p->entry.uid = st->st_uid;
	p->entry.gid = st->st_gid;
	p->entry.size = type == TAR_FILE ? (uint64_t)st->st_size : 0;
	p->entry.mtime = st->st_mtim;
	return sink_failed(p, tar_write_entry(p->sink, &p->entry));
}

/* As many bytes as the header has said: what is appended meanwhile is not wanted. */
static int put_data(struct packer *p, int fd, uint64_t size)
{
	for (uint64_t left = size; left;) {
		ssize_t n = read(fd, p->chunk, left < CHUNK ? (size_t)left : CHUNK);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(p, errno);
		if (n == 0)
			return error_set(p->err, EIO, "%s: became shorter while it was read", p->entry.name);
		r = sink_failed(p, p->sink->write(p->sink->ctx, p->chunk, (size_t)n));
		if (r < 0)
			return r;
		left -= (uint64_t)n;
	}
	return sink_failed(p, tar_write_padding(p->sink, size));
}

/* It may have become another thing since it was looked at: a FIFO does not block. */
static int pack_file(struct packer *p, int folder, const char *at)
{
	cleanup_close int fd = openat(folder, at, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(p, errno);
	if (!S_ISREG(st.st_mode))
		return error_set(p->err, EIO, "%s: became another thing while it was read", p->entry.name);
	r = put_entry(p, TAR_FILE, &st);
	return r < 0 ? r : put_data(p, fd, (uint64_t)st.st_size);
}

static int pack_link(struct packer *p, int folder, const char *at, const struct stat *st)
{
	ssize_t n = readlinkat(folder, at, p->entry.link, sizeof p->entry.link);

	if (n < 0)
		return fail(p, errno);
	if ((size_t)n == sizeof p->entry.link)
		return fail(p, ENAMETOOLONG);
	p->entry.link[n] = '\0';
	return put_entry(p, TAR_SYMLINK, st);
}

static int pack_children(struct packer *p, DIR *dir, unsigned depth)
{
	size_t len = strlen(p->entry.name);
	struct dirent *child;
	int r = 0;

	while (r == 0 && (errno = 0, child = readdir(dir))) {
		if (strcmp(child->d_name, ".") == 0 || strcmp(child->d_name, "..") == 0)
			continue;
		if (len + 1 + strlen(child->d_name) > TAR_NAME_MAX)
			return fail(p, ENAMETOOLONG);
		p->entry.name[len] = '/';
		strcpy(p->entry.name + len + 1, child->d_name);
		r = pack_at(p, dirfd(dir), child->d_name, depth + 1);
		p->entry.name[len] = '\0';
	}
	return r < 0 || !errno ? r : fail(p, errno);
}

static int pack_folder(struct packer *p, int folder, const char *at, unsigned depth)
{
	cleanup_close int fd = openat(folder, at, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	DIR *dir;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(p, errno);
	if (depth == 0)
		p->device = st.st_dev;
	if (depth > DEPTH_MAX)
		return error_set(p->err, ELOOP, "%.200s: there are too many folders in each other", p->entry.name);
	r = put_entry(p, TAR_FOLDER, &st);
	if (r < 0 || st.st_dev != p->device)
		return r;
	dir = fdopendir(fd);
	if (!dir)
		return fail(p, errno);
	fd = -1; /* dir's */
	r = pack_children(p, dir, depth);
	closedir(dir);
	return r;
}

static int pack_at(struct packer *p, int folder, const char *at, unsigned depth)
{
	struct stat st;

	if (fstatat(folder, at, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno == ENOENT && depth) /* gone since the folder was read */
			return 0;
		return depth ? fail(p, errno) : error_set_errno(p->err, errno, "%s", at);
	}
	switch (st.st_mode & S_IFMT) {
	case S_IFREG:
		return pack_file(p, folder, at);
	case S_IFDIR:
		return pack_folder(p, folder, at, depth);
	case S_IFLNK:
		return pack_link(p, folder, at, &st);
	}
	if (depth == 0)
		return error_set(p->err, EOPNOTSUPP, "%s: is no file, folder or link", at);
	if (S_ISSOCK(st.st_mode)) {
		skip(p, "is a socket");
		return 0;
	}
	skip(p, "is a device or FIFO");
	return put_entry(p, TAR_SPECIAL, &st);
}

/* What it is called in the archive. */
static int name_root(const char *path, char ret[TAR_NAME_MAX + 1])
{
	size_t end = strlen(path), begin;

	while (end && path[end - 1] == '/')
		end--;
	for (begin = end; begin && path[begin - 1] != '/'; begin--)
		;
	if (end - begin > TAR_NAME_MAX)
		return -ENAMETOOLONG;
	snprintf(ret, TAR_NAME_MAX + 1, "%.*s", (int)(end - begin), path + begin);
	if (!ret[0] || strcmp(ret, "..") == 0)
		strcpy(ret, ".");
	return 0;
}

int pack(const char *path, const struct tar_sink *sink, pack_skipped_fn skipped, void *ctx, struct error *err)
{
	cleanup_free struct packer *p = calloc(1, sizeof *p);
	cleanup_free char *chunk = malloc(CHUNK);
	int r;

	if (!p || !chunk)
		return error_set(err, ENOMEM, "out of memory");
	*p = (struct packer){.sink = sink, .skipped = skipped, .ctx = ctx, .err = err, .chunk = chunk};
	if (name_root(path, p->entry.name) < 0)
		return error_set_errno(err, ENAMETOOLONG, "%.200s", path);
	r = pack_at(p, AT_FDCWD, path, 0);
	return r < 0 ? r : sink_failed(p, tar_write_end(sink));
}
