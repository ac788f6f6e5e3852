/* Log lines for people: "2026-01-31T12:00:00.123456Z LEVEL name: message", one write() each, to one descriptor.
 * Safe from any thread; a line is never torn (up to 1 KiB) and never more than one line. */
#ifndef HULL_COMMON_LOG_H
#define HULL_COMMON_LOG_H

#include "common/error.h"

#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Once, before the first thread: `name` (borrowed, for good) is the program or machine the lines speak of,
 * lines above `level` are dropped. Without it: "hull", LOG_LEVEL_INFO, descriptor 2. */
void log_open(const char *name, enum log_level level, int fd);

/* After log_open(): where that is a file, it keeps `bytes`, the newest (0: all). */
void log_limit(uint64_t bytes);

void log_at(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What was logged and reached nobody: a reader that is slow or not there, a full disk. Counts on; any thread. */
struct log_metrics {
	uint64_t missed_log_count;
};
const struct log_metrics *log_metrics(void);

/* "context: field: message" at LOG_LEVEL_ERROR. */
void log_error_object(const struct error *err, const char *context);

#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
