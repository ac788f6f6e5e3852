/* How far something is that takes time: so many of so many. It never goes back. */
#ifndef HULL_API_PROGRESS_H
#define HULL_API_PROGRESS_H

#include "common/json.h"

struct machine;
struct operation_record;

enum progress_unit { PROGRESS_PHASES, PROGRESS_MACHINES };

struct progress {
	int64_t done, total;
	int unit; /* enum progress_unit */
};
extern const struct json_table progress_table;

/* An operation enters a phase (enum operation_phase): notes in its record how far that is, and with the first, how far it has to go. */
void operation_progress_enter(struct operation_record *record, const struct machine *m, int phase);
/* False: nobody knows. */
bool operation_progress(const struct operation_record *record, struct progress *ret);

#endif
