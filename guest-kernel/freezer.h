/* Makes all that the machine's user runs stand still, and run on. */
#ifndef HULL_GUEST_FREEZER_H
#define HULL_GUEST_FREEZER_H

#include "common/error.h"
#include "common/loop.h"

#include <stdbool.h>

struct freezer;

/* `fn` is called each time when all of them stand still, later than freezer_freeze(). NULL without memory. Loop thread, as
 * everything here. */
struct freezer *freezer_new(struct loop *loop, loop_fn fn, void *ctx);
void freezer_free(struct freezer *freezer); /* as they are; NULL is fine */

/* Begins, or goes on. 0, or -errno with `err` set and all running. There is no deadline: who has one thaws. */
int freezer_freeze(struct freezer *freezer, struct error *err);
void freezer_thaw(struct freezer *freezer);
/* Do they all stand still? */
bool freezer_is_frozen(const struct freezer *freezer);
/* Are they to? */
bool freezer_is_held(const struct freezer *freezer);

#endif
