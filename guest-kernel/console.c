/* hull-init's own voice on the console. */
#include "guest-kernel/console.h"

#include "common/cleanup.h"
#include "common/io.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int console_open(struct error *err)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);

	if (fd < 0)
		return error_set_errno(err, errno, "open /dev/console");
	/* The kernel may have started us without stdio, and then this is 0, 1 or 2 itself. */
	for (int target = 0; target <= 2; target++)
		if (fd != target && dup2(fd, target) < 0)
			return error_set_errno(err, errno, "make /dev/console descriptor %d", target);
	if (fd > 2)
		close_fd(fd);
	return 0;
}

void console_say(const char *fmt, ...)
{
	static const char prefix[] = "hull-init: ";
	char line[512];
	size_t len = sizeof prefix - 1;
	va_list ap;
	int n;

	memcpy(line, prefix, len);
	va_start(ap, fmt);
	n = vsnprintf(line + len, sizeof line - len - 1, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	len += (size_t)n < sizeof line - len - 1 ? (size_t)n : sizeof line - len - 2;
	line[len++] = '\n';
	write_full(2, line, len);
}
