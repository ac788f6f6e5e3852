/* How a machine ended, for whoever started the monitor: a line on the status descriptor, and the exit status. */
#ifndef HULL_VMM_OUTCOME_H
#define HULL_VMM_OUTCOME_H

#include "common/error.h"

enum outcome_cause {
	OUTCOME_POWEROFF, /* ACPI S5 */
	OUTCOME_RESET,    /* reboot: i8042, ACPI or a triple fault */
	OUTCOME_PANIC,    /* the guest's kernel said so by pvpanic */
	OUTCOME_SIGNAL,   /* SIGTERM or SIGINT ended the monitor, not the guest */
	OUTCOME_ERROR,    /* the monitor gave up, or never started */
};

#define OUTCOME_NO_STATUS (-1)

struct outcome {
	enum outcome_cause cause;
	int exit_status;     /* the workload's own, or OUTCOME_NO_STATUS */
	struct error reason; /* message, and maybe a field: of the configuration, or the guest's */
};

/* One line of JSON. 0 or -errno. */
int outcome_write(const struct outcome *outcome, int fd);
/* What the monitor exits with. */
int outcome_exit_status(const struct outcome *outcome);

#endif
