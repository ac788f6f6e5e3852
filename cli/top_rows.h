/* What `hull top` shows of the API's MachineStats. */
#ifndef HULL_CLI_TOP_ROWS_H
#define HULL_CLI_TOP_ROWS_H

#include "cli/output.h"

#define TOP_HEADER "NAME|CPU %|MEMORY|LIMIT|PRESSURE|READ/s|WRITE/s|RECEIVED/s|SENT/s|TASKS"

/* Adds a row to a table of TOP_HEADER. `before`: an earlier MachineStats of the same machine, for what is a rate; NULL: none yet.
 * What is not known is "-". */
void top_add_row(struct table *table, const json_t *stats, const json_t *before);

/* The first `rows` lines of `text`, each cut to `columns`, with what clears the rest of a terminal's screen. Owned by the caller;
 * allocation failure aborts. */
char *top_fit(const char *text, unsigned rows, unsigned columns);

#endif
