/* From options to the API's MachineSpec and ExecSpec. */
#ifndef HULL_CLI_SPEC_H
#define HULL_CLI_SPEC_H

#include "cli/args.h"

#include <jansson.h>

/* A new reference in `ret`. Only what the command line alone can decide is refused here; the API knows the rest.
 * 0 or -errno with `fail` set. */
int spec_from_args(const struct args *args, json_t **ret, struct failure *fail);

/* The same for an ExecSpec, of what `hull exec` and `hull run` have in common. */
int exec_spec_from_args(const struct args *args, json_t **ret, struct failure *fail);

/* health.c: adds what --health-… say, when they do. 0 or -errno with `fail` set. */
int spec_add_health(const struct args *args, json_t *spec, struct failure *fail);

/* "KEY=VALUE" into `map`. `field` is the option, for the refusal. */
int spec_add_pair(json_t *map, const char *field, const char *pair, struct failure *fail);

#endif
