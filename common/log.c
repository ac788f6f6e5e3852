/* The log: composing a line on the stack and writing it at once. */
#include "common/log.h"

#include "common/bounded_file.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1024

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "ERROR",
	[LOG_LEVEL_WARN] = "WARN ",
	[LOG_LEVEL_INFO] = "INFO ",
	[LOG_LEVEL_DEBUG] = "DEBUG",
};

/* Written once by log_open, before other threads exist. */
static struct {
	const char *name;
	enum log_level level;
	int fd;
	struct bounded_file limit;
	struct log_metrics metrics;
} log_state = {.name = "hull", .level = LOG_LEVEL_INFO, .fd = STDERR_FILENO};

void log_open(const char *name, enum log_level level, int fd)
{
	log_state.name = name;
	log_state.level = level;
	log_state.fd = fd;
}

void log_limit(uint64_t bytes)
{
	log_state.limit = bounded_file(bytes);
}

static size_t put_time(char *line, size_t size)
{
	struct timespec now;
	struct tm utc;
	size_t len;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	len = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &utc);
	return len + (size_t)snprintf(line + len, size - len, ".%06ldZ ", now.tv_nsec / 1000);
}

void log_at(enum log_level level, const char *fmt, ...)
{
	char line[LINE_MAX_BYTES];
	va_list args;
	size_t len;

	if (level > log_state.level)
		return;
	len = put_time(line, sizeof(line));
	len += (size_t)snprintf(line + len, sizeof(line) - len, "%s %.64s: ", level_names[level], log_state.name);
	va_start(args, fmt);
	vsnprintf(line + len, sizeof(line) - len - 1, fmt, args);
	va_end(args);
	for (; line[len]; len++)
		if ((unsigned char)line[len] < 0x20)
			line[len] = '?';
	line[len++] = '\n';
	/* A log that cannot be written has nobody to be told. A line fits a pipe as a whole or not at all. */
	if (write(log_state.fd, line, len) > 0)
		bounded_file_wrote(&log_state.limit, log_state.fd, len);
	else
		__atomic_fetch_add(&log_state.metrics.missed_log_count, 1, __ATOMIC_RELAXED);
}

const struct log_metrics *log_metrics(void)
{
	return &log_state.metrics;
}

void log_error_object(const struct error *err, const char *context)
{
	char line[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX + 4];

	log_error("%s: %s", context, error_line(err, line, sizeof(line)));
}
