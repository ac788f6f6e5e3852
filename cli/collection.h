/* What is alike in the `list`, `inspect` and `rm` of all that the API has in collections. */
#ifndef HULL_CLI_COLLECTION_H
#define HULL_CLI_COLLECTION_H

#include "cli/args.h"
#include "cli/output.h"

struct collection {
	const char *name;   /* "images": of /v1/images */
	const char *key;    /* what an item is called by: "name" or "id" */
	const char *header; /* of the table, as table_init() takes it */
	void (*add_row)(struct table *table, const json_t *item);
	const char *in_use_hint; /* what to do where one is not removed for that; NULL: what the API says */
};

/* The rows of a table, or with `quiet` what each is called by. */
void collection_print(const struct collection *collection, const json_t *items, bool quiet);

/* Each is a command's `run` (args.h); `list` takes list_options, `inspect` inspect_options; `suffix` is a query for each DELETE, or "". */
int collection_list(const struct collection *collection, const struct args *args, struct failure *fail);
/* Of those that a query asks for. */
int collection_list_where(
	const struct collection *collection, const char *query, const struct args *args, struct failure *fail);
int collection_inspect(const struct collection *collection, const struct args *args, struct failure *fail);
int collection_remove(const struct collection *collection, const char *suffix, const struct args *args, struct failure *fail);

#endif
