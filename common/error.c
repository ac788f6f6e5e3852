/* The error object: composing one readable line and keeping it one line. */
#include "common/error.h"

#include <stdio.h>
#include <string.h>

/* Whatever a client or a guest smuggled into the text, it stays one printable line. */
static void keep_one_line(char *text)
{
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
}

static int set_va(struct error *err, int errnum, const char *field, const char *fmt, va_list args)
{
	if (err) {
		err->errnum = errnum;
		snprintf(err->field, sizeof(err->field), "%s", field);
		vsnprintf(err->message, sizeof(err->message), fmt, args);
		keep_one_line(err->field);
		keep_one_line(err->message);
	}
	return -errnum;
}

int error_set(struct error *err, int errnum, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	set_va(err, errnum, "", fmt, args);
	va_end(args);
	return -errnum;
}

int error_set_field(struct error *err, int errnum, const char *field, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	set_va(err, errnum, field, fmt, args);
	va_end(args);
	return -errnum;
}

int error_set_errno(struct error *err, int errnum, const char *fmt, ...)
{
	va_list args;
	size_t len;

	va_start(args, fmt);
	set_va(err, errnum, "", fmt, args);
	va_end(args);
	if (err) {
		len = strlen(err->message);
		snprintf(err->message + len, sizeof(err->message) - len, ": %s", strerror(errnum));
	}
	return -errnum;
}

int error_in_field(struct error *err, const char *fmt, ...)
{
	char outer[ERROR_FIELD_MAX], joined[2 * ERROR_FIELD_MAX];
	va_list args;

	if (!err)
		return 0;
	va_start(args, fmt);
	vsnprintf(outer, sizeof(outer), fmt, args);
	va_end(args);
	/* "[0]" attaches without a dot, as does nothing at all. */
	snprintf(joined, sizeof(joined), "%s%s%s", outer,
		err->field[0] && err->field[0] != '[' && outer[0] ? "." : "", err->field);
	snprintf(err->field, sizeof(err->field), "%.*s", (int)sizeof(err->field) - 1, joined);
	keep_one_line(err->field);
	return -err->errnum;
}

int error_prefix(struct error *err, const char *fmt, ...)
{
	char context[ERROR_MESSAGE_MAX], joined[2 * ERROR_MESSAGE_MAX];
	va_list args;

	if (!err)
		return 0;
	va_start(args, fmt);
	vsnprintf(context, sizeof(context), fmt, args);
	va_end(args);
	snprintf(joined, sizeof(joined), "%s%s", context, err->message);
	snprintf(err->message, sizeof(err->message), "%.*s", (int)sizeof(err->message) - 1, joined);
	keep_one_line(err->message);
	return -err->errnum;
}

char *error_line(const struct error *err, char *buf, unsigned long size)
{
	snprintf(buf, size, "%s%s%s", err->field, err->field[0] ? ": " : "", err->message);
	return buf;
}
