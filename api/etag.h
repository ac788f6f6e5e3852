/* Entity tags (RFC 9110, sections 8.8.3 and 13.1), by which a client says which state of a resource it means. */
#ifndef HULL_API_ETAG_H
#define HULL_API_ETAG_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define ETAG_BYTES 35 /* 32 hexadecimal digits, quoted, with the NUL */

/* The tag of what a client sees. It is a digest of that (the first half of its SHA-256), and not a counter in the database, because
 * a strong tag has to change with everything that a GET shows: with the state, which is in the row; but also with its health and with
 * whether it is frozen, which are in memory only, and after an upgrade of hulld with fields that are new. A counter would have to be
 * raised at each such place, and one that is forgotten is a 304 that lies. That the tag is back when all is as it was undoes nobody's
 * change (section 8.8.1 allows it). What something takes of the disk at this moment (`used_bytes`) is left out: it changes by itself
 * all the time, and nobody who changes a volume under a machine that writes to it could say which state is meant. */
void etag_of(const json_t *representation, char ret[ETAG_BYTES]);
/* The same of `text`, which json_print() made of it. */
void etag_of_text(const json_t *representation, const char *text, size_t len, char ret[ETAG_BYTES]);

/* Is `etag` in the list that a field of a request holds? 1 or 0, or -EINVAL: it is no list of tags. `*` holds every one. `weak`: by
 * weak comparison, as If-None-Match has it; else strong, as If-Match has it (section 8.8.3.2). */
int etag_list_has(const char *list, const char *etag, bool weak);

#endif
