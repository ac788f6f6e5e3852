/* Empty ext4 file systems in sparse files, made by mkfs.ext4: for scratch.c and volume_create.c. Loop thread. */
#ifndef HULL_API_EXT4_H
#define HULL_API_EXT4_H

#include "common/error.h"
#include "common/loop.h"

#include <stdint.h>

#define EXT4_REASON_MAX 256

struct ext4_making;

/* Does it have room for what describes more blocks (`resize_inode`)? Of a small one that is four blocks in five. */
enum ext4_kind { EXT4_STAYS, EXT4_GROWS };

/* The file system is there, and on disk, when `reason` is NULL; else that is a line, and borrowed, and there is no file. The making is
 * freed. Always called later. */
typedef void (*ext4_fn)(void *ctx, const char *reason);

/* Begins to make one of `size_mib` at `path`, in the place of what may be there. NULL with `err` set, and no file. */
struct ext4_making *ext4_make(
	struct loop *loop, const char *path, int64_t size_mib, enum ext4_kind kind, ext4_fn fn, void *ctx, struct error *err);
/* `fn` is not called any more, and the file is removed. NULL is fine. */
void ext4_cancel(struct ext4_making *making);

/* A new, empty, sparse file in the place of what may be there. Descriptor or -errno. */
int ext4_make_sparse(const char *path, int64_t size_mib);
/* What has been made in it, or renamed, is on disk then. 0 or -errno. */
int ext4_sync_folder(const char *folder);
/* Both in `folder`, which is on disk then. 0 or -errno. */
int ext4_rename(const char *from, const char *to, const char *folder);

#endif
