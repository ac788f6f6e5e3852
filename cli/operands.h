/* Commands that do the same to each of several operands. */
#ifndef HULL_CLI_OPERANDS_H
#define HULL_CLI_OPERANDS_H

#include "cli/args.h"

/* 0; or -errno with `fail` set. */
typedef int (*operand_fn)(void *ctx, const char *operand, struct failure *fail);

/* Calls `act` for every operand. All are tried: of several, what fails is told at once, and by its name. 0; 1, when that was so of any;
 * -errno with `fail` set when the only one failed, or the command was interrupted. */
int operands_each(const struct args *args, operand_fn act, void *ctx, struct failure *fail);

#endif
