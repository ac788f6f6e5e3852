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

/* patch.c: the merge patch of `machine`, as the API shows it, that the options of `hull update` ask for. */
int patch_from_args(const struct args *args, const json_t *machine, json_t **ret, struct failure *fail);

/* What both are made of. Each adds to `spec`, or to the map or list, what its options say. 0 or -errno with `fail` set. */
int spec_add_plain(const struct args *args, json_t *spec, struct failure *fail); /* all but image, env, ports, labels and health */
int spec_add_env_files(const struct args *args, json_t *spec, struct failure *fail); /* `env` is there afterwards */
int spec_add_env(json_t *env, const char *value, struct failure *fail);
int spec_add_port(json_t *ports, const char *text, struct failure *fail);
int spec_add_hostname(json_t *ports, const char *text, struct failure *fail); /* "NAME:GUEST" */

/* health.c: adds what --health-… say, when they do; without a check among them only where there `has_check` already. 0 or -errno with `fail` set. */
int spec_add_health(const struct args *args, bool has_check, json_t *spec, struct failure *fail);

/* depends.c: what --depends-on says over `before`, a list of Dependencies or NULL, when it does. 0 or -errno with `fail` set. */
int spec_add_dependencies(const struct args *args, const json_t *before, json_t *spec, struct failure *fail);

/* "512", "512m" or "2g", in MiB; `field` is what says so, for the refusal. 0 or a usage failure. */
int spec_read_mib(const char *text, const char *field, long long *ret, struct failure *fail);

/* patch.c: of "NAME-", by which `hull update` takes something away, NAME, owned by the caller; NULL: it is none. */
char *spec_removed_name(const char *value);

/* Each value of an option, into an array; and its last one, if there is one, into an object by the option's name. 0 or a usage failure. */
int spec_add_texts(const struct args *args, const char *option, json_t *array, struct failure *fail);
int spec_add_text(const struct args *args, const char *option, json_t *object, struct failure *fail);

/* "KEY=VALUE" into `map`. `field` is the option, for the refusal. */
int spec_add_pair(json_t *map, const char *field, const char *pair, struct failure *fail);

#endif
