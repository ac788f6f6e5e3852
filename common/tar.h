/* Archives as tar and pax have them (POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"), read and written as
 * streams with bounded memory. What is read may be hostile: every length is checked before it is believed. */
#ifndef HULL_COMMON_TAR_H
#define HULL_COMMON_TAR_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define TAR_BLOCK    512
#define TAR_NAME_MAX 4095 /* bytes */

enum tar_type { TAR_FILE, TAR_FOLDER, TAR_SYMLINK, TAR_SPECIAL /* a device or FIFO, of which nothing else is known */ };

struct tar_entry {
	enum tar_type type;
	char name[TAR_NAME_MAX + 1]; /* whatever was written: see unpack.c for what is taken */
	char link[TAR_NAME_MAX + 1]; /* of a SYMLINK */
	mode_t mode;		     /* permission bits, 07777 at most */
	uid_t uid;
	gid_t gid;
	uint64_t size; /* bytes, of a FILE */
	struct timespec mtime;
};

struct tar_source {
	/* Fills `data`: fewer than `len` bytes only at the end; -errno. */
	ssize_t (*read)(void *ctx, void *data, size_t len);
	void *ctx;
};

struct tar_sink {
	int (*write)(void *ctx, const void *data, size_t len); /* all of it: 0 or -errno */
	void *ctx;
};

struct tar_reader {
	const struct tar_source *source; /* borrowed */
	uint64_t left;			 /* of the current entry's data */
	unsigned padding;		 /* bytes behind them */
};

void tar_reader_init(struct tar_reader *reader, const struct tar_source *source);
/* The next entry, what is left of the one before being skipped: 1 with `ret` set; 0 at the archive's end, which must be marked; -errno
 * with `err` set. */
int tar_next(struct tar_reader *reader, struct tar_entry *ret, struct error *err);
/* Bytes of the current entry: `len`, or fewer at their end, 0 afterwards; -errno with `err` set, also when the archive ends before. */
ssize_t tar_read(struct tar_reader *reader, void *data, size_t len, struct error *err);

/* Each 0 or -errno of the sink. After an entry with a size come as many bytes, and tar_write_padding(). */
int tar_write_entry(const struct tar_sink *sink, const struct tar_entry *entry);
int tar_write_padding(const struct tar_sink *sink, uint64_t size);
int tar_write_end(const struct tar_sink *sink);

#endif
