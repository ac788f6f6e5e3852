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
 * a part: temporary file beside it, fsync, rename, fsync of the folder. 0 or -errno with `err` set. */
int write_file_atomic(const char *path, const void *data, size_t len, unsigned mode, struct error *err);
/* The same without fsync, for what is of no use after a crash of the host: it is whole to a reader, and after a crash of this process. */
int write_file_whole(const char *path, const void *data, size_t len, unsigned mode, struct error *err);

/* The same in steps, for a file that is too large to be held: an empty file of mode `mode` beside `path`, open for writing, under a
 * name that is told; then, once it is whole and synced, `path` becomes it, and the folder is synced. When the second fails, the file is gone
 * unless it was the folder that could not be synced. A descriptor, and 0; or -errno with `err` set and nothing left. */
#define FILE_TEMPORARY_MAX 4096
int file_begin(const char *path, unsigned mode, char ret_temporary[FILE_TEMPORARY_MAX], struct error *err);
int file_replace(const char *temporary, const char *path, struct error *err);

/* mkdir -p. 0 (also when it is there) or -errno with `err` set. */
int make_directories(const char *path, unsigned mode, struct error *err);

/* Listens on / connects to a Unix stream socket, close-on-exec, non-blocking when asked. A path longer than
 * sun_path holds is refused with -ENAMETOOLONG. unix_listen replaces a socket that nobody listens on any more and
 * refuses (-EADDRINUSE) one that is alive. Descriptor or -errno with `err` set. */
int unix_listen(const char *path, int backlog, unsigned mode, struct error *err);
int unix_connect(const char *path, int nonblock, struct error *err);

#endif
