/* The log: composing a line on the stack and writing it at once. */
#include "common/log.h"

#include "common/bounded_file.h"
#include "common/cleanup.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1024

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "ERROR",
	[LOG_LEVEL_WARN] = "WARN",
	[LOG_LEVEL_INFO] = "INFO",
	[LOG_LEVEL_DEBUG] = "DEBUG",
};

/* Written by log_open() and what follows it, before other threads exist; but for the metrics. */
static struct {
	const char *name;
	enum log_level level;
	enum log_style style;
	int fd;
	bool show_level, show_origin;
	char module[LOG_MODULE_MAX];
	struct bounded_file limit;
	struct log_metrics metrics;
} log_state = {.name = "hull", .level = LOG_LEVEL_INFO, .fd = STDERR_FILENO};

void log_open(const char *name, enum log_level level, int fd)
{
	log_state.name = name;
	log_state.level = level;
	log_state.fd = fd;
}

void log_style(enum log_style style)
{
	log_state.style = style;
	tzset(); /* Firecracker's time is local: its rules are read now, while files can be */
}

void log_set_level(enum log_level level)
{
	log_state.level = level;
}

void log_set_fd(int fd)
{
	if (log_state.fd != STDERR_FILENO)
		close_fd(log_state.fd);
	log_state.fd = fd;
}

void log_show_level(bool show)
{
	log_state.show_level = show;
}

void log_show_origin(bool show)
{
	log_state.show_origin = show;
}

void log_set_module(const char *prefix)
{
	snprintf(log_state.module, sizeof(log_state.module), "%s", prefix);
}

void log_limit(uint64_t bytes)
{
	log_state.limit = bounded_file(bytes);
}

static size_t put_time(char *line, size_t size, const struct timespec *now, bool local)
{
	struct tm tm;

	return strftime(line, size, "%Y-%m-%dT%H:%M:%S", local ? localtime_r(&now->tv_sec, &tm) : gmtime_r(&now->tv_sec, &tm));
}

/* What stands before the message. Bytes. */
static size_t put_head(char *line, size_t size, enum log_level level, const char *file, int number)
{
	struct timespec now;
	size_t len;

	clock_gettime(CLOCK_REALTIME, &now);
	len = put_time(line, size, &now, false);
	len += (size_t)snprintf(line + len, size - len, ".%06ldZ %-5s %.64s: ", now.tv_nsec / 1000, level_names[level],
		log_state.name);
	if (log_state.show_origin)
		len += (size_t)snprintf(line + len, size - len, "%.64s:%d: ", file, number);
	return len;
}

static size_t put_firecracker_head(char *line, size_t size, enum log_level level, const char *file, int number)
{
	char thread[16] = "main";
	struct timespec now;
	size_t len;

	if (gettid() != getpid())
		prctl(PR_GET_NAME, thread);
	clock_gettime(CLOCK_REALTIME, &now);
	len = put_time(line, size, &now, true);
	len += (size_t)snprintf(line + len, size - len, ".%09ld [%.64s:%s", now.tv_nsec, log_state.name, thread);
	if (log_state.show_level)
		len += (size_t)snprintf(line + len, size - len, ":%s", level_names[level]);
	if (log_state.show_origin)
		len += (size_t)snprintf(line + len, size - len, ":%.64s:%d", file, number);
	return len + (size_t)snprintf(line + len, size - len, "] ");
}

void log_write(enum log_level level, const char *file, int number, const char *fmt, ...)
{
	char line[LINE_MAX_BYTES];
	va_list args;
	size_t len;

	if (level > log_state.level || strncmp(file, log_state.module, strlen(log_state.module)) != 0)
		return;
	if (log_state.style == LOG_STYLE_FIRECRACKER)
		len = put_firecracker_head(line, sizeof(line), level, file, number);
	else
		len = put_head(line, sizeof(line), level, file, number);
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
