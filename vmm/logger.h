/* Where the log goes and what its lines show, as the command line, the configuration file and clients say it. Loop thread. */
#ifndef HULL_VMM_LOGGER_H
#define HULL_VMM_LOGGER_H

#include "common/error.h"

struct config_logger;
struct options;

/* The log's beginning: as the configuration says (NULL: nothing), unless the command line says otherwise. 0, or -errno with
 * `err` naming the field, and the log on standard error. */
int logger_open(const struct options *options, const struct config_logger *config, struct error *err);
/* Changes what `wanted` speaks of; the rest stays as it is. 0, or -errno with `err` naming the field and nothing changed. */
int logger_change(const struct config_logger *wanted, struct error *err);

#endif
