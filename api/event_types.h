/* What can happen: the closed list of types of events. */
#ifndef HULL_API_EVENT_TYPES_H
#define HULL_API_EVENT_TYPES_H

#include <stdbool.h>
#include <stdint.h>

/* What a filter may name: things, and types. NULL-terminated. */
extern const char *const event_type_words[];

/* Index in the list; -1: there is none of that name. */
int event_type_by_name(const char *name);
/* Is it of a "machine", an "image", …? */
bool event_type_is_of(int type, const char *thing);
/* All that are, as bits. */
uint64_t event_types_of(const char *thing);
/* "machine.running,image" as bits: types, and things for all of theirs. 0 or -EINVAL. */
int event_types_parse(const char *list, uint64_t *ret);

#endif
