/* Whole reads and writes, atomic files, folders and Unix sockets. */
#include "common/io.h"

#include "common/cleanup.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
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

int file_begin(const char *path, unsigned mode, char ret_temporary[FILE_TEMPORARY_MAX], struct error *err)
{
	const char *slash = strrchr(path, '/');
	int whole = (int)(slash ? slash + 1 - path : 0), name = NAME_MAX - (int)sizeof(".XXXXXX") + 1;
	cleanup_close int fd = -1;
	int r;

	/* A name may be as long as one can be. */
	if (snprintf(ret_temporary, FILE_TEMPORARY_MAX, "%.*s%.*s.XXXXXX", whole, path, name, path + whole) >= FILE_TEMPORARY_MAX)
		return error_set(err, ENAMETOOLONG, "%s: path too long", path);
	fd = mkostemp(ret_temporary, O_CLOEXEC);
	if (fd < 0)
		return error_set_errno(err, errno, "cannot create %s", ret_temporary);
	if (fchmod(fd, mode) == 0)
		return steal_fd(&fd);
	r = error_set_errno(err, errno, "cannot create %s", path);
	unlink(ret_temporary);
	return r;
}

/* Gives the file its name; of a failure nothing is left. */
static int name_file(const char *temporary, const char *path, struct error *err)
{
	int r;

	if (rename(temporary, path) == 0)
		return 0;
	r = error_set_errno(err, errno, "cannot write %s", path);
	unlink(temporary);
	return r;
}

static int name_for_good(const char *path, struct error *err)
{
	int r = sync_folder(path);

	return r < 0 ? error_set_errno(err, -r, "cannot write the folder of %s", path) : 0;
}

int file_replace(const char *temporary, const char *path, struct error *err)
{
	int r = name_file(temporary, path, err);

	return r == 0 ? name_for_good(path, err) : r;
}

static int replace_file(const char *path, const void *data, size_t len, unsigned mode, bool durable, struct error *err)
{
	char temporary[FILE_TEMPORARY_MAX];
	cleanup_close int fd = file_begin(path, mode, temporary, err);
	int r;

	if (fd < 0)
		return fd;
	r = write_full(fd, data, len);
	if (r == 0 && durable && fsync(fd) < 0)
		r = -errno;
	if (r < 0) {
		unlink(temporary);
		return error_set_errno(err, -r, "cannot write %s", path);
	}
	r = name_file(temporary, path, err);
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
