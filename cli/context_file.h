/* The files in which contexts are kept: where an API is, what opens it, and which project is meant.
 *
 *	~/.config/hull/context.json		the context "default": what kvmhost(1) and `hull context set` write
 *	~/.config/hull/contexts/NAME.json	the others, of the same form
 *	~/.config/hull/current-context		the name of the one in use; not there: default */
#ifndef HULL_CLI_CONTEXT_FILE_H
#define HULL_CLI_CONTEXT_FILE_H

#include "cli/args.h"
#include "common/cleanup.h"

#define CONTEXT_DEFAULT "default"

struct context_file {
	char *url, *token, *project; /* owned; the last two NULL where there is none */
};

/* Letters, digits, `.`, `_` and `-`, no more than 63. 0 or a usage failure of `field`. */
int context_check_name(const char *name, const char *field, struct failure *fail);

/* Owned by the caller. 0 or -errno with `fail` set. */
int context_file_path(const char *name, char **ret, struct failure *fail);

/* 0, -ENOENT with nothing in `fail`, or -errno with `fail` set. */
int context_file_read(const char *name, struct context_file *ret, struct failure *fail);
void context_file_done(struct context_file *file);
/* Readable by its owner only. 0 or -errno with `fail` set, as below. */
int context_file_write(const char *name, const struct context_file *file, struct failure *fail);
int context_file_remove(const char *name, struct failure *fail);

/* The name of the one in use: owned by the caller. */
int context_current(char **ret, struct failure *fail);
int context_set_current(const char *name, struct failure *fail);

/* All names, CONTEXT_DEFAULT first, the others sorted; ended by NULL. */
int context_names(char ***ret, struct failure *fail);
void context_names_free(char **names);

/* "there is no such context", with the nearest one as a hint. Returns -ENOENT. */
int context_refuse_unknown(const char *name, const char *field, struct failure *fail);

#endif
