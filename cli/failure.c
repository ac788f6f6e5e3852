/* Failures: composing and printing them. */
#include "cli/failure.h"

#include <errno.h>
#include <stdio.h>

int failure_hint(struct failure *failure, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(failure->hint, sizeof(failure->hint), fmt, args);
	va_end(args);
	/* It may come from the API: it stays one line and sends the terminal no commands. */
	for (char *c = failure->hint; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = ' ';
	return -failure->error.errnum;
}

int failure_usage(struct failure *failure, const char *field, const char *fmt, ...)
{
	char reason[ERROR_MESSAGE_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);
	failure->usage = true;
	return error_set_field(&failure->error, EINVAL, field, "%s", reason);
}

void failure_print(const struct failure *failure)
{
	char line[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX + 8];

	fprintf(stderr, "hull: %s\n", error_line(&failure->error, line, sizeof(line)));
	if (failure->hint[0])
		fprintf(stderr, "      %s\n", failure->hint);
}
