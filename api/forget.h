/* What is old, and what deleted projects have left, is forgotten some rows at a time, with pauses: nobody waits for many.
 *
 * Theory of operation. One timer goes from one kind of rows to the next, staying as long as there are any to go, and begins anew an hour
 * later, or when it is told that there is something. A step is a transaction: a hulld that was killed goes on where the last one ended.
 *
 * By their age rows go only once the wall clock is believed: by one that is ahead they would all be old. */
#ifndef HULL_API_FORGET_H
#define HULL_API_FORGET_H

#include "api/hulld.h"

struct forgetter;

/* Begins at once. NULL with `err` set. Loop thread, as the others. */
struct forgetter *forgetter_new(struct hulld *hulld, struct error *err);
void forgetter_free(struct forgetter *forgetter); /* NULL is fine */

/* There may be something, before the hour is over. NULL is fine: nobody forgets yet. */
void forgetter_look(struct forgetter *forgetter);

#endif
