/* A machine's scratch disk: the file system that what it writes goes to, <state>/machines/<id>/scratch.ext4.
 *
 * Theory of operation. An empty ext4 of one size is as good as another: mkfs.ext4 makes one of each size that is asked for, the template
 * <state>/scratch/<MiB>.ext4, and machines get copies of it. A worker copies, which has two descriptors and nothing else. Each of
 * the files is made beside its name, and gets that when it is whole and on disk. Clients choose the sizes, so only some templates are kept;
 * the oldest goes first, and is made anew when it is asked for again. */
#ifndef HULL_API_SCRATCH_H
#define HULL_API_SCRATCH_H

#include "api/hulld.h"

struct machine;
struct scratch;

/* The disk is there when `reason` is NULL; else that is a line, and borrowed. The scratch is freed. Always called later. */
typedef void (*scratch_fn)(void *ctx, const char *reason);

/* Begins to make the disk of `m`, as large as its running spec says, in its folder, which is there. NULL with `err` set. Loop thread, as
 * all here. */
struct scratch *scratch_make(const struct machine *m, scratch_fn fn, void *ctx, struct error *err);
/* `fn` is not called any more, nothing gets the disk's name, and what was made so far is removed. NULL is fine. */
void scratch_cancel(struct scratch *scratch);

/* Removes what a hulld that was killed has left of templates, and makes the folder for them. 0 or -errno with `err` set. */
int scratch_prepare(const struct hulld *hulld, struct error *err);
/* Waits for copies that were cancelled. After all machines have been freed. */
void scratch_wait(struct hulld *hulld);

#endif
