/* Where the API is, what opens it, and which project is meant (docs/interfaces.md, "hull: where the API is"). */
#ifndef HULL_CLI_CONTEXT_H
#define HULL_CLI_CONTEXT_H

#include "cli/args.h"
#include "common/cleanup.h"

#define CONTEXT_DEFAULT_URL "unix:///run/hull/hulld.sock"

struct context {
	char *url, *token, *project; /* owned; the last two NULL: none */
	char *source;		     /* owned: who said so, for people */
};

/* 0 or -errno with `fail` set. context_done() either way. */
int context_find(struct context *ret, const struct args *args, struct failure *fail);
void context_done(struct context *context);

/* Is it a URL that a client can use; a token, or the name of a project, that can stand in a line of a request? 0 or -EINVAL with
 * `fail` set. */
int context_check_url(const char *url, struct failure *fail);
int context_check_word(const char *word, const char *field, struct failure *fail);

#endif
