/* What nobody can guess, of characters that need no escaping anywhere. */
#ifndef HULL_API_RANDOM_H
#define HULL_API_RANDOM_H

#include <stddef.h>

/* `len` characters (at most 64) of a-z and 2-7, five bits of the kernel's each, and a NUL. */
void random_base32(char *ret, size_t len);

#endif
