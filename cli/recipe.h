/* IMAGE.json: what an image is made of (docs/interfaces.md). Written by whoever wrote the backend, so not trusted: files
 * come from its own folder only. */
#ifndef HULL_CLI_RECIPE_H
#define HULL_CLI_RECIPE_H

#include "cli/args.h"
#include "common/json.h"

struct recipe_copy {
	char *from;  /* relative to the recipe's folder; on the command line to the current one */
	char *to;    /* absolute, in the image */
	char *owner; /* "user" or "user:group" of the image; NULL: root */
	char *mode;  /* octal; NULL: 0755 for folders and what is executable, else 0644 */
};

struct recipe_config {
	struct json_strings command;
	json_t *env;
	char *user, *workdir;
	int stop_signal; /* an index of stop_signal_names */
	json_t *ports; /* array of port numbers, or NULL */
};

struct recipe {
	char *name;
	struct json_strings packages;
	struct json_array copy; /* of struct recipe_copy */
	struct json_strings run;
	struct recipe_config config;
	json_t *labels;
};
extern const struct json_table recipe_table, recipe_config_table;

/* From --file, or from --package, --copy, --command …; the name given on the command line wins. `*ret_folder` is an open
 * descriptor of the folder that `from` is relative to; `*ret_inside`: and must stay inside of.
 * 0 or -errno with `fail` set. recipe_done() either way. */
int recipe_from_args(struct recipe *ret, int *ret_folder, bool *ret_inside, const struct args *args, struct failure *fail);
void recipe_done(struct recipe *recipe);

#endif
