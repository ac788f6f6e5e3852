/* Why a command did not do what it was asked: an error, and what the person can do about it. */
#ifndef HULL_CLI_FAILURE_H
#define HULL_CLI_FAILURE_H

#include "common/error.h"

#include <stdbool.h>

#define EXIT_USAGE	 2
#define EXIT_RUN_FAILED	 125 /* of `hull run`: not the workload's status but Hull's own failure */
#define EXIT_INTERRUPTED 130

struct failure {
	struct error error;
	char hint[320]; /* one line; "" when there is nothing to say */
	char code[40];	/* of the API's problem; "" when the failure is not the API's */
	bool usage;	/* the command line was wrong */
	bool lost;	/* there was no answer: the API was not reached, or went away */
};

/* Adds a hint to a failure whose error is set already. Returns -errnum. */
int failure_hint(struct failure *failure, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A wrong command line: `field` is the option or argument as the person writes it. Returns -EINVAL. */
int failure_usage(struct failure *failure, const char *field, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* "hull: FIELD: REASON" and, when there is one, the hint below it, on standard error. */
void failure_print(const struct failure *failure);

#endif
