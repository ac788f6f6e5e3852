/* Whole reads and writes: they restart on EINTR and short counts, so callers see all or an error. */
#ifndef HULL_COMMON_IO_H
#define HULL_COMMON_IO_H

#include "common/error.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Bytes read: less than `len` only at the end of the file. -errno. */
ssize_t read_full(int fd, void *data, size_t len);
ssize_t pread_full(int fd, void *data, size_t len, uint64_t offset);
/* 0 or -errno. */
int write_full(int fd, const void *data, size_t len);

/* Opens `path` to append to: a file, made with `mode` if there is none, or a FIFO, which needs no reader. Writes never
 * wait: what a FIFO has no room for fails with EAGAIN. Descriptor or -errno. */
int open_append(const char *path, unsigned mode);

/* Replaces `path` with `data` so that a reader, or a crash at any instant, sees the old file or the new one, never
 * a part: a file without its name, fsync, rename, fsync of the folder. 0 or -errno with `err` set. */
int write_file_atomic(const char *path, const void *data, size_t len, unsigned mode, struct error *err);
/* The same without fsync, for what is of no use after a crash of the host: it is whole to a reader, and after a crash of this process. */
int write_file_whole(const char *path, const void *data, size_t len, unsigned mode, struct error *err);

/* The same in steps, for a file that is too large to be held. Until it is whole it has no name, and is gone however this process ends;
 * only where the file system has none like that (O_TMPFILE), it is PATH.XXXXXX beside `path`. */
#define FILE_TEMPORARY_MAX 4096
struct new_file {
	int fd;			/* to be written to; -1: there is none (any more) */
	char temporary[FILE_TEMPORARY_MAX]; /* ""; it has no name */
};

/* An empty one of that mode. 0, or -errno with `err` set and nothing left. */
int new_file_begin(struct new_file *ret, const char *path, unsigned mode, struct error *err);
/* It is whole, and synced: `path` becomes it, and the folder is synced. 0, or -errno with `err` set: it is gone then, unless it was the
 * folder that could not be synced. */
int new_file_place(struct new_file *file, const char *path, struct error *err);
/* It is not to be. One that was placed, or is none, is fine. */
void new_file_forget(struct new_file *file);

/* mkdir -p. 0 (also when it is there) or -errno with `err` set. */
int make_directories(const char *path, unsigned mode, struct error *err);

/* Listens on / connects to a Unix stream socket, close-on-exec, non-blocking when asked. A path longer than
 * sun_path holds is refused with -ENAMETOOLONG. unix_listen replaces a socket that nobody listens on any more and
 * refuses (-EADDRINUSE) one that is alive. Descriptor or -errno with `err` set. */
int unix_listen(const char *path, int backlog, unsigned mode, struct error *err);
int unix_connect(const char *path, int nonblock, struct error *err);

#endif
