/* What has to be done so that machines, volumes and networks are as files say they are; hulld is asked, and does nothing yet. */
#ifndef HULL_CLI_PLAN_H
#define HULL_CLI_PLAN_H

#include "cli/client.h"
#include "cli/manifest.h"

enum plan_action {
	PLAN_NOTHING,
	PLAN_CREATE,
	PLAN_CHANGE,
	PLAN_DELETE,
	PLAN_N_ACTIONS,
};

struct plan_step {
	enum plan_action action;
	enum manifest_kind kind;
	const char *name;			/* borrowed from `wanted` or `before` */
	const struct manifest_machine *wanted;	/* NULL: it is to be deleted */
	json_t *before, *after;			/* the Machine, say, that is there, and that would be; NULL: none */
	json_t *body;				/* of the POST or PATCH */
	char *etag;				/* of `before` */
	json_t *changes;			/* diff.h */
	bool done;				/* it is as `after` now */
};

struct plan {
	struct plan_step *steps;
	size_t n;
	size_t counts[PLAN_N_ACTIONS];
};

/* `label` is KEY=VALUE, which all of them get, or NULL; with `prune` those that have it and are in no file are to be deleted, but for volumes, and networks that
 * machines of a file name. 0 or -errno
 * with `fail` set; plan_done() either way. */
int plan_make(struct client *client, const struct manifest *manifest, const char *label, bool prune, struct plan *ret, struct failure *fail);
void plan_done(struct plan *plan);

/* Where the API has `thing`, as it is shown there, and `query`: owned by the caller. */
char *plan_path(enum manifest_kind kind, const json_t *thing, const char *query);

/* Does what is to be changed look in `now` as in step->before? What changes by itself does not count. */
bool plan_still_holds(const struct plan_step *step, const json_t *now);

/* As people read it: a machine and its differences; nothing of those that stay. */
void plan_print(const struct plan *plan, FILE *out);
/* As programs do: a new array of {"kind", "name", "action", "changes", "pending"}, and when it was `tried`, "done". */
json_t *plan_describe(const struct plan *plan, bool tried);
/* "1 to create, 2 to change, 0 to delete, 5 as they are" */
void plan_print_counts(const struct plan *plan, FILE *out);

/* Does it run, or is about to? And has it fields that its run does not have? */
bool plan_is_active(const json_t *machine);

#endif
