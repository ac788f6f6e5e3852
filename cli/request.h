/* What commands have alike that ask the API for something and print what it answers. */
#ifndef HULL_CLI_REQUEST_H
#define HULL_CLI_REQUEST_H

#include "cli/client.h"
#include "cli/output.h"

/* How to print (--output, or `def`), and a client. NULL with `fail` set. */
struct client *request_begin(const struct args *args, enum output_format def, enum output_format *ret, struct failure *fail);

/* One request, and its answer printed: for people its `key`. `body` is taken; NULL: none. 0 or -errno with `fail` set. */
int request_print(const struct args *args, const char *method, const char *path, json_t *body, enum output_format def, const char *key,
	struct failure *fail);

#endif
