/* A tar archive (ustar, with GNU long names) of the files that go into an image: owned by root, with modes and times that
 * depend on nothing but the recipe, so that the same files make the same image. */
#ifndef HULL_CLI_ARCHIVE_H
#define HULL_CLI_ARCHIVE_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>

#define ARCHIVE_MTIME 1577836800 /* 2020-01-01T00:00:00Z */

/* Text as the regular file `name` (relative). 0 or -errno with `err` set. */
int archive_add_text(int archive, const char *name, const void *text, size_t len, unsigned mode, struct error *err);

/* A file, or a folder and what is below it, as `name` (relative). `from` is looked up in `folder`; with `inside` neither
 * ".." nor a symbolic link on the way may leave it. `mode`: -1 for 0755 or 0644 by what the owner may execute.
 * Symbolic links are kept as they are; anything else is refused. 0 or -errno with `err` set. */
int archive_add_path(int archive, int folder, const char *from, bool inside, const char *name, int mode, struct error *err);

/* The two empty blocks at the end. */
int archive_end(int archive, struct error *err);

#endif
