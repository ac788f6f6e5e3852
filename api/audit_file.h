/* A file of lines that only grows, within bounds: after a day, or a sixteenth of what it may have in all, it gets a number at the end of
 * its name and makes room for the next; the oldest go when all together would be too large, or are too old.
 *
 *	audit.log.00000001, audit.log.00000002, …, audit.log		the oldest first
 *
 * What append() has returned 0 for is the kernel's: it outlives hulld, however that ends, and is lost only with the host's power, where
 * the kernel had not written it yet (some 30 s, vm.dirty_expire_centisecs). What it has refused has left nothing. */
#ifndef HULL_API_AUDIT_FILE_H
#define HULL_API_AUDIT_FILE_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AUDIT_LINE_MAX 8192 /* bytes, with the newline */
#define AUDIT_FILES    16   /* of full size, in its limit */

struct audit_file;

/* `path` is copied, and what is there is gone on with; it must be a regular file (mode 0600), and no link. NULL with `err` set. */
struct audit_file *audit_file_new(const char *path, uint64_t limit_bytes, int64_t days, struct error *err);
void audit_file_free(struct audit_file *file); /* NULL is fine */

/* A line of at most AUDIT_LINE_MAX bytes, the last of which is its newline, at `now` (ms since 1970). 0 or -errno. */
int audit_file_append(struct audit_file *file, const char *line, size_t len, int64_t now);
/* Somebody has moved it away: what follows goes into a new one. */
void audit_file_reopen(struct audit_file *file);
/* Gives yesterday's its number, and removes what is too old. To be called now and then. */
void audit_file_age(struct audit_file *file, int64_t now);

/* Between two lines: in the file that has that number, or will have it, after so many bytes. */
struct audit_place {
	uint64_t number, offset;
};

struct audit_place audit_file_end(const struct audit_file *file);
/* Every line before `place`, the newest first, without its newline, until `fn` returns false or `max_bytes` and the end of a line were
 * seen; `place` is then before the last that it was called with. True: there are more before that. */
bool audit_file_read_back(struct audit_file *file, struct audit_place *place, size_t max_bytes, bool (*fn)(void *ctx, const char *line, size_t len),
	void *ctx);

#endif
