/* hull-init's own voice: lines on /dev/console, each beginning with "hull-init: ". */
#ifndef HULL_GUEST_CONSOLE_H
#define HULL_GUEST_CONSOLE_H

#include "common/error.h"

/* Makes /dev/console the descriptors 0, 1 and 2. 0 or -errno with `err` set. Needs /dev. */
int console_open(struct error *err);

/* One line to descriptor 2. Never fails: there is nobody to tell. */
void console_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
