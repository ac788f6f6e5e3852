/* Writing the tar archive. */
#include "cli/archive.h"

#include "common/cleanup.h"
#include "common/io.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define BLOCK 512
#define DEPTH_MAX 64

/* POSIX.1-2017, pax, "ustar Interchange Format". */
struct ustar {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, linkname[100], magic[6],
		version[2], uname[32], gname[32], devmajor[8], devminor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct ustar) == BLOCK, "one block");

static int write_padded(int fd, const void *data, size_t len, struct error *err)
{
	static const char zeros[BLOCK];
	int r = write_full(fd, data, len);

	if (r == 0 && len % BLOCK)
		r = write_full(fd, zeros, BLOCK - len % BLOCK);
	return r < 0 ? error_set_errno(err, -r, "cannot write the archive of files") : 0;
}

static int write_block(int fd, const char *name, char type, unsigned mode, uint64_t size, const char *link,
	struct error *err)
{
	struct ustar h = {0};
	unsigned sum = 0;

	strncpy(h.name, name, sizeof(h.name) - 1);
	strncpy(h.linkname, link, sizeof(h.linkname) - 1);
	snprintf(h.mode, sizeof(h.mode), "%07o", mode);
	snprintf(h.uid, sizeof(h.uid), "%07o", 0);
	snprintf(h.gid, sizeof(h.gid), "%07o", 0);
	snprintf(h.size, sizeof(h.size), "%011llo", (unsigned long long)size);
	snprintf(h.mtime, sizeof(h.mtime), "%011o", ARCHIVE_MTIME);
	h.type = type;
	memcpy(h.magic, "ustar", 6);
	memcpy(h.version, "00", 2);
	memset(h.checksum, ' ', sizeof(h.checksum));
	for (size_t i = 0; i < sizeof(h); i++)
		sum += ((const unsigned char *)&h)[i];
	snprintf(h.checksum, sizeof(h.checksum), "%06o", sum);
	return write_padded(fd, &h, sizeof(h), err);
}

/* GNU tar's 'L' and 'K': a record before the entry whose content is the name, or link, that does not fit. */
static int write_long(int fd, char type, const char *text, struct error *err)
{
	int r;

	if (strlen(text) < sizeof(((struct ustar *)0)->name))
		return 0;
	r = write_block(fd, "././@LongLink", type, 0644, strlen(text) + 1, "", err);
	return r < 0 ? r : write_padded(fd, text, strlen(text) + 1, err);
}

static int write_entry(int fd, const char *name, char type, unsigned mode, uint64_t size, const char *link,
	struct error *err)
{
	int r;

	if (size >= UINT64_C(1) << 33)
		return error_set(err, EFBIG, "%s: files of 8 GiB and more do not fit", name);
	r = write_long(fd, 'K', link, err);
	if (r == 0)
		r = write_long(fd, 'L', name, err);
	return r < 0 ? r : write_block(fd, name, type, mode, size, link, err);
}

int archive_add_text(int archive, const char *name, const void *text, size_t len, unsigned mode, struct error *err)
{
	int r = write_entry(archive, name, '0', mode, len, "", err);

	return r < 0 ? r : write_padded(archive, text, len, err);
}

static int add_content(int archive, int fd, const char *name, unsigned mode, uint64_t size, struct error *err)
{
	char chunk[128 * BLOCK];
	int r = write_entry(archive, name, '0', mode, size, "", err);

	while (r == 0 && size > 0) {
		size_t want = size < sizeof(chunk) ? (size_t)size : sizeof(chunk);
		ssize_t got = read_full(fd, chunk, want);

		if (got < 0)
			return error_set_errno(err, (int)-got, "cannot read %s", name);
		if ((size_t)got != want)
			return error_set(err, EIO, "%s became shorter while it was read", name);
		r = write_padded(archive, chunk, want, err);
		size -= want;
	}
	return r;
}

static int add_fd(int archive, int fd, const char *name, int mode, int depth, struct error *err);

static int add_link(int archive, int folder, const char *entry, const char *name, struct error *err)
{
	char target[4096];
	ssize_t len = readlinkat(folder, entry, target, sizeof(target) - 1);

	if (len < 0)
		return error_set_errno(err, errno, "cannot read %s", name);
	target[len] = '\0';
	return write_entry(archive, name, '2', 0777, 0, target, err);
}

static int add_member(int archive, int folder, const char *entry, const char *name, int depth, struct error *err)
{
	cleanup_close int fd = openat(folder, entry, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	if (fd < 0 && errno == ELOOP)
		return add_link(archive, folder, entry, name, err);
	if (fd < 0)
		return error_set_errno(err, errno, "cannot open %s", name);
	return add_fd(archive, fd, name, -1, depth, err);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int add_members(int archive, int fd, const char *name, int depth, struct error *err)
{
	struct dirent **list = NULL;
	int n, r = 0;

	if (depth == DEPTH_MAX)
		return error_set(err, ELOOP, "%s: more than %d folders deep", name, DEPTH_MAX);
	n = scandirat(fd, ".", &list, NULL, by_name);
	if (n < 0)
		return error_set_errno(err, errno, "cannot read the folder %s", name);
	for (int i = 0; i < n; i++) {
		const char *entry = list[i]->d_name;
		cleanup_free char *path = NULL;

		if (r == 0 && strcmp(entry, ".") != 0 && strcmp(entry, "..") != 0) {
			r = asprintf(&path, "%s/%s", name, entry) < 0 ? error_set(err, ENOMEM, "out of memory") : 0;
			if (r == 0)
				r = add_member(archive, fd, entry, path, depth + 1, err);
		}
		free(list[i]);
	}
	free(list);
	return r;
}

static int add_fd(int archive, int fd, const char *name, int mode, int depth, struct error *err)
{
	struct stat st;
	unsigned own;
	int r;

	if (fstat(fd, &st) < 0)
		return error_set_errno(err, errno, "cannot stat %s", name);
	own = S_ISDIR(st.st_mode) || (st.st_mode & S_IXUSR) ? 0755 : 0644;
	if (mode >= 0)
		own = (unsigned)mode;
	if (S_ISREG(st.st_mode))
		return add_content(archive, fd, name, own, (uint64_t)st.st_size, err);
	if (!S_ISDIR(st.st_mode))
		return error_set(err, EINVAL, "%s is neither a file nor a folder", name);
	r = write_entry(archive, name, '5', own, 0, "", err);
	return r < 0 ? r : add_members(archive, fd, name, depth, err);
}

int archive_add_path(int archive, int folder, const char *from, bool inside, const char *name, int mode, struct error *err)
{
	struct open_how how = {
		.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
		.resolve = inside ? RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS : 0,
	};
	cleanup_close int fd = (int)syscall(SYS_openat2, folder, from, &how, sizeof(how));

	if (fd < 0 && errno == EXDEV)
		return error_set(err, EXDEV, "\"%s\" is outside the recipe's folder", from);
	if (fd < 0)
		return error_set_errno(err, errno, "cannot open \"%s\"", from);
	return add_fd(archive, fd, name, mode, 0, err);
}

int archive_end(int archive, struct error *err)
{
	static const char zeros[2 * BLOCK];

	return write_padded(archive, zeros, sizeof(zeros), err);
}
