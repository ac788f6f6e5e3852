/* One error, as a person will read it: what was wrong, in which field, in one line.
 *
 * A function that can fail for a reason worth reading takes `struct error *err` as its last parameter and
 * returns 0 or -errno. It fills `err` on failure and leaves it alone on success. The object owns no memory:
 * it lives on the caller's stack and needs no destructor. Whoever gets it either logs or returns it, not both. */
#ifndef HULL_COMMON_ERROR_H
#define HULL_COMMON_ERROR_H

#include <stdarg.h>

#define ERROR_FIELD_MAX	  96
#define ERROR_MESSAGE_MAX 320

struct error {
	int errnum;			 /* positive errno; 0: no error */
	char field[ERROR_FIELD_MAX];	 /* where, as "drives[0].path_on_host"; "" when no field is to blame */
	char message[ERROR_MESSAGE_MAX]; /* why; one line, control characters replaced */
};

/* Each sets `err` (NULL is allowed: nobody wants to read it) and returns -errnum, to be returned at once. */
int error_set(struct error *err, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int error_set_field(struct error *err, int errnum, const char *field, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* As error_set, followed by ": " and the text of errnum. */
int error_set_errno(struct error *err, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "outer" before the field: "host" under "ports[0]" becomes "ports[0].host". Returns -err->errnum. */
int error_in_field(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts context before the message: "cannot read kernel: " … Returns -err->errnum. */
int error_prefix(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The whole line, "field: message" or "message", into `buf` (always terminated). Returns `buf`. */
char *error_line(const struct error *err, char *buf, unsigned long size);

#endif
