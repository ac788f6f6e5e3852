/* Log lines for people, one write() each, to one descriptor. Safe from any thread; a line is never torn (up to 1 KiB) and
 * never more than one line. What the descriptor has no room for is lost and counted: a log that is a non-blocking FIFO holds
 * nothing up.
 *
 *	2026-01-31T12:00:00.123456Z LEVEL name: message				Hull's
 *	2026-01-31T12:00:00.123456789 [name:thread:LEVEL:file:line] message	Firecracker's, LEVEL and file:line if asked for */
#ifndef HULL_COMMON_LOG_H
#define HULL_COMMON_LOG_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_style { LOG_STYLE_HULL, LOG_STYLE_FIRECRACKER };

#define LOG_MODULE_MAX 64 /* bytes */

/* Once, before the first thread: `name` (borrowed, for good) is the program or machine the lines speak of,
 * lines above `level` are dropped. Without it: "hull", LOG_LEVEL_INFO, descriptor 2. */
void log_open(const char *name, enum log_level level, int fd);

/* The rest may follow log_open(), while no other thread logs. */

void log_style(enum log_style style);
void log_set_level(enum log_level level);
/* The log goes to `fd` (owned) from now on; the one before is closed, unless it is standard error. */
void log_set_fd(int fd);
/* In Hull's style the level is always shown, and an origin is put before the message. */
void log_show_level(bool show);
void log_show_origin(bool show);
/* Only lines from source files whose path begins with `prefix` ("devices", "vmm/api"; copied, cut at LOG_MODULE_MAX - 1) are
 * written; "": all. */
void log_set_module(const char *prefix);
/* Where the log is a file, it keeps `bytes`, the newest (0: all). */
void log_limit(uint64_t bytes);

void log_write(enum log_level level, const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
#define log_at(level, ...) log_write(level, __FILE__, __LINE__, __VA_ARGS__)

/* What was logged and reached nobody: a reader that is slow or not there, a full disk. Counts on; any thread. */
struct log_metrics {
	uint64_t missed_log_count;
};
const struct log_metrics *log_metrics(void);

#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* "context: field: message" at LOG_LEVEL_ERROR. */
#define log_error_object(err, context)                                                                       \
	do {                                                                                                 \
		char log_line_[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX + 4];                                     \
                                                                                                             \
		log_error("%s: %s", context, error_line(err, log_line_, sizeof(log_line_)));                 \
	} while (0)

#endif
