/* What to run in a machine, and why it was refused: the objects that the API's clients, hulld and the agent
 * exchange. */
#ifndef HULL_COMMON_EXEC_SPEC_H
#define HULL_COMMON_EXEC_SPEC_H

#include "common/json.h"

#define EXEC_ARGUMENT_MAX 131071 /* bytes: what Linux takes as one (MAX_ARG_STRLEN, with its NUL) */

struct exec_spec {
	struct json_strings command; /* none: */
	bool workload;		     /* the machine's own, which waits for it */
	json_t *env;		     /* laid over the workload's */
	char *user, *workdir;	     /* NULL: the workload's */
	bool tty;
	int64_t rows, columns; /* of the terminal */
};
extern const struct json_table exec_spec_table;

struct exec_refusal {
	int64_t errnum; /* of Linux */
	char *field;	/* "" when none is to blame */
	char *message;
};
extern const struct json_table exec_refusal_table;
/* One of an error, in which names may have been cut in the middle of a character: a new object, or NULL without memory. */
json_t *exec_refusal_dump(const struct error *err);

/* What the table cannot say: that there is a command, or the workload, which has user and folder of its own. 0, or -ENODATA or
 * -EINVAL with `err` set. */
int exec_spec_check(const struct exec_spec *spec, struct error *err);

/* A variable's name ends up before a '=' in a program's environment. 0 or -EINVAL with `err` set. */
int exec_check_env_name(const char *name, struct error *err);
int exec_check_folder(const char *path, struct error *err);

/* What they take. */
#define EXEC_ENV_NAME_PATTERN "^[^=\\u0000]+$"
#define EXEC_FOLDER_PATTERN   "^/[^\\u0000]*$"

#endif
