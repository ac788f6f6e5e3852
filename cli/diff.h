/* What differs between two JSON values, field by field, and how it is shown. */
#ifndef HULL_CLI_DIFF_H
#define HULL_CLI_DIFF_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* Adds to the array `changes` an object for each field that differs: {"field": PATH, "before": …, "after": …}, of which one is absent where
 * it is only in the other. `before` and `after` may be NULL. Objects are looked into; of lists of objects, what is in one of them only. */
void diff_values(const char *path, const json_t *before, const json_t *after, json_t *changes);

/* Is `out` a terminal that shows colours? */
bool diff_in_colour(FILE *out);
/* A line; `note` is put at its end, or "". */
void diff_print(FILE *out, const json_t *change, const char *note, bool colour);
/* "+ machine web": `sign` is +, ~ or -. */
void diff_print_head(FILE *out, char sign, const char *text, bool colour);

#endif
