/* Bytes as hexadecimal digits. */
#ifndef HULL_COMMON_HEX_H
#define HULL_COMMON_HEX_H

#include <stddef.h>

/* `ret` gets 2 * len + 1 bytes: lower case, and a NUL. */
void hex_encode(const void *bytes, size_t len, char *ret);

#endif
