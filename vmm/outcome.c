/* The status record. */
#include "vmm/outcome.h"

#include "common/cleanup.h"
#include "common/io.h"
#include "common/json.h"

#include <errno.h>
#include <string.h>

static const char *const cause_names[] = {
	[OUTCOME_POWEROFF] = "poweroff",
	[OUTCOME_RESET] = "reset",
	[OUTCOME_PANIC] = "panic",
	[OUTCOME_SIGNAL] = "signal",
	[OUTCOME_ERROR] = "error",
};

int outcome_write(const struct outcome *outcome, int fd)
{
	json_t *record = json_object();
	cleanup_free char *line = NULL, *with_newline = NULL;

	json_object_set_new(record, "cause", json_string(cause_names[outcome->cause]));
	json_object_set_new(record, "exit_status",
		outcome->exit_status == OUTCOME_NO_STATUS ? json_null() : json_integer(outcome->exit_status));
	json_object_set_new(record, "message", json_lossy_string(outcome->reason.message));
	if (outcome->reason.field[0])
		json_object_set_new(record, "field", json_lossy_string(outcome->reason.field));
	line = json_dumps(record, JSON_COMPACT);
	json_decref(record);
	/* With its newline in one write: who reads the pipe gets all of it or nothing. */
	if (!line || asprintf(&with_newline, "%s\n", line) < 0)
		return -ENOMEM;
	return write_full(fd, with_newline, strlen(with_newline));
}

int outcome_exit_status(const struct outcome *outcome)
{
	if (outcome->cause == OUTCOME_ERROR)
		return 1;
	if (outcome->exit_status != OUTCOME_NO_STATUS)
		return outcome->exit_status;
	return outcome->cause == OUTCOME_PANIC;
}
