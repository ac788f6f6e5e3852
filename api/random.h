/* What nobody can guess. */
#ifndef HULL_API_RANDOM_H
#define HULL_API_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* `len` characters (at most 64) of a-z and 2-7, five bits of the kernel's each, and a NUL: they need no escaping anywhere. */
void random_base32(char *ret, size_t len);
/* 1 to INT64_MAX. */
int64_t random_number(void);

#endif
