/* What a person can do about a refusal of the API's, in this program's words. */
#ifndef HULL_CLI_SUGGEST_H
#define HULL_CLI_SUGGEST_H

#include "cli/args.h"

/* Adds a hint to `fail`, or one in the place of the API's, where this program knows better: what it was that is not there, and what is
 * called nearly so; how to start what does not run. May ask the API once more. */
void suggest(const struct args *args, struct failure *fail);

#endif
