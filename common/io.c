/* Whole reads and writes, atomic files, folders and Unix sockets. */
#include "common/io.h"

#include "common/cleanup.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* `offset` NULL: from where the descriptor stands. */
static ssize_t read_all(int fd, void *data, size_t len, const uint64_t *offset)
{
	size_t done = 0;

	while (done < len) {
		char *at = (char *)data + done;
		ssize_t got = offset ? pread(fd, at, len - done, (off_t)(*offset + done)) :
				       read(fd, at, len - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		done += (size_t)got;
	}
	return (ssize_t)done;
}

ssize_t read_full(int fd, void *data, size_t len)
{
	return read_all(fd, data, len, NULL);
}

ssize_t pread_full(int fd, void *data, size_t len, uint64_t offset)
{
	return read_all(fd, data, len, &offset);
}

int write_full(int fd, const void *data, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t put = write(fd, (const char *)data + done, len - done);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		done += (size_t)put;
	}
	return 0;
}

/* The folder part of `path` ("." when there is none) into `folder` of PATH_MAX bytes. */
static void folder_of(const char *path, char folder[4096])
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		snprintf(folder, 4096, ".");
	else if (slash == path)
		snprintf(folder, 4096, "/");
	else
		snprintf(folder, 4096, "%.*s", (int)(slash - path), path);
}

static int sync_folder(const char *path)
{
	char folder[4096];
	cleanup_close int fd = -1;

	folder_of(path, folder);
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

int open_append(const char *path, unsigned mode)
{
	const int flags = O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	int fd = open(path, O_WRONLY | O_CREAT | flags, mode);
	struct stat st;

	/* Reading it too, one is there when the FIFO's readers are not: opening it works, and so does writing. */
	if (fd < 0 && errno != ENXIO)
		return -errno;
	if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode)))
		return fd;
	close_fd(fd);
	fd = open(path, O_RDWR | flags);
	return fd < 0 ? -errno : fd;
}

/* A name beside `path`, which may be as long as one can be. False: there is none. */
static bool name_beside(const char *path, const char *suffix, char ret[FILE_TEMPORARY_MAX])
{
	const char *slash = strrchr(path, '/');
	int whole = (int)(slash ? slash + 1 - path : 0), name = NAME_MAX - (int)strlen(suffix);

	return snprintf(ret, FILE_TEMPORARY_MAX, "%.*s%.*s%s", whole, path, name, path + whole, suffix) < FILE_TEMPORARY_MAX;
}

/* How linkat() finds a file without a name. */
static const char *path_of_fd(int fd, char ret[32])
{
	snprintf(ret, 32, "/proc/self/fd/%d", fd);
	return ret;
}

/* Descriptor or -errno. */
static int open_nameless(const char *path)
{
	char folder[4096], found[32];
	int fd;

	folder_of(path, folder);
	fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0 && access(path_of_fd(fd, found), F_OK) < 0)
		fd = close_fd(fd);
	return fd < 0 ? -errno : fd;
}

int new_file_begin(struct new_file *ret, const char *path, unsigned mode, struct error *err)
{
	ret->fd = open_nameless(path);
	ret->temporary[0] = '\0';
	if (ret->fd < 0) {
		if (!name_beside(path, ".XXXXXX", ret->temporary))
			return error_set(err, ENAMETOOLONG, "%s: path too long", path);
		ret->fd = mkostemp(ret->temporary, O_CLOEXEC);
	}
	if (ret->fd < 0)
		return error_set_errno(err, errno, "cannot create %s", ret->temporary);
	if (fchmod(ret->fd, mode) == 0)
		return 0;
	error_set_errno(err, errno, "cannot create %s", path);
	new_file_forget(ret);
	return -err->errnum;
}

void new_file_forget(struct new_file *file)
{
	if (file->fd >= 0 && file->temporary[0])
		unlink(file->temporary);
	file->fd = close_fd(file->fd);
}

/* Gives one that has no name the one that it is to have, if nobody has that, or one beside it. 0 or -errno. */
static int link_nameless(struct new_file *file, const char *path)
{
	char found[32], suffix[16];
	uint32_t random;

	path_of_fd(file->fd, found);
	if (linkat(AT_FDCWD, found, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	while (errno == EEXIST) {
		if (getrandom(&random, sizeof(random), 0) != sizeof(random))
			return -errno;
		snprintf(suffix, sizeof(suffix), ".%06x", random & 0xffffff);
		if (!name_beside(path, suffix, file->temporary))
			return -ENAMETOOLONG;
		if (linkat(AT_FDCWD, found, AT_FDCWD, file->temporary, AT_SYMLINK_FOLLOW) == 0)
			return 0;
	}
	file->temporary[0] = '\0';
	return -errno;
}

/* Gives the file its name; of a failure nothing is left. */
static int name_file(struct new_file *file, const char *path, struct error *err)
{
	int r = file->temporary[0] ? 0 : link_nameless(file, path);

	if (r == 0 && file->temporary[0] && rename(file->temporary, path) < 0)
		r = -errno;
	if (r < 0) {
		new_file_forget(file);
		return error_set_errno(err, -r, "cannot write %s", path);
	}
	file->fd = close_fd(file->fd);
	return 0;
}

static int name_for_good(const char *path, struct error *err)
{
	int r = sync_folder(path);

	return r < 0 ? error_set_errno(err, -r, "cannot write the folder of %s", path) : 0;
}

int new_file_place(struct new_file *file, const char *path, struct error *err)
{
	int r = name_file(file, path, err);

	return r == 0 ? name_for_good(path, err) : r;
}

static int replace_file(const char *path, const void *data, size_t len, unsigned mode, bool durable, struct error *err)
{
	struct new_file file;
	int r = new_file_begin(&file, path, mode, err);

	if (r < 0)
		return r;
	r = write_full(file.fd, data, len);
	if (r == 0 && durable && fsync(file.fd) < 0)
		r = -errno;
	if (r < 0) {
		new_file_forget(&file);
		return error_set_errno(err, -r, "cannot write %s", path);
	}
	r = name_file(&file, path, err);
	return r == 0 && durable ? name_for_good(path, err) : r;
}

int write_file_atomic(const char *path, const void *data, size_t len, unsigned mode, struct error *err)
{
	return replace_file(path, data, len, mode, true, err);
}

int write_file_whole(const char *path, const void *data, size_t len, unsigned mode, struct error *err)
{
	return replace_file(path, data, len, mode, false, err);
}

int make_directories(const char *path, unsigned mode, struct error *err)
{
	cleanup_free char *partial = strdup(path);

	if (!partial)
		return error_set(err, ENOMEM, "out of memory");
	if (mkdir(path, mode) == 0)
		return 0; /* mostly all but the last is there */
	for (char *c = partial + 1; c[-1]; c++) {
		char saved = *c;

		if (saved != '/' && saved != '\0')
			continue;
		*c = '\0';
		if (mkdir(partial, mode) < 0 && errno != EEXIST)
			return error_set_errno(err, errno, "cannot create folder %s", partial);
		*c = saved;
		if (!saved)
			break;
	}
	return 0;
}

static int unix_address(const char *path, struct sockaddr_un *ret, struct error *err)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(ret->sun_path))
		return error_set(err, ENAMETOOLONG, "%s: longer than the %zu bytes a Unix socket's path can have", path,
			sizeof(ret->sun_path) - 1);
	strcpy(ret->sun_path, path);
	return 0;
}

int unix_connect(const char *path, int nonblock, struct error *err)
{
	cleanup_close int fd = -1;
	struct sockaddr_un address;
	int r;

	r = unix_address(path, &address, err);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (nonblock ? SOCK_NONBLOCK : 0), 0);
	if (fd < 0)
		return error_set_errno(err, errno, "cannot create a socket");
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return error_set_errno(err, errno, "cannot connect to %s", path);
	return steal_fd(&fd);
}

/* Whether somebody listens on the socket at `address`, which exists. */
static bool socket_is_alive(const struct sockaddr_un *address)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	/* A full backlog (EAGAIN) has a living owner too. */
	return fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN;
}

int unix_listen(const char *path, int backlog, unsigned mode, struct error *err)
{
	cleanup_close int fd = -1;
	struct sockaddr_un address;
	struct stat st;
	int r;

	r = unix_address(path, &address, err);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_set_errno(err, errno, "cannot create a socket");
	if (lstat(path, &st) == 0) {
		if (!S_ISSOCK(st.st_mode))
			return error_set(err, EEXIST, "%s: exists and is not a socket", path);
		if (socket_is_alive(&address))
			return error_set(err, EADDRINUSE, "%s: another process listens there", path);
		unlink(path);
	}
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return error_set_errno(err, errno, "cannot bind %s", path);
	if (chmod(path, mode) < 0 || listen(fd, backlog) < 0) {
		r = errno;
		unlink(path);
		return error_set_errno(err, r, "cannot listen on %s", path);
	}
	return steal_fd(&fd);
}
