/* Files and folders from and to a tar stream, as `hull cp` and the agent in a machine exchange them. Both ends are the same code. */
#ifndef HULL_COMMON_PACK_H
#define HULL_COMMON_PACK_H

#include "common/tar.h"

/* Something that is not copied, and why; called as it is met. */
typedef void (*pack_skipped_fn)(void *ctx, const char *name, const char *why);

/* Writes `path` to `sink`, a folder with all below it, under the last part of its name; "." for one that ends in "/." (its content is
 * meant, and not it) or has no name. Links are not followed, but one that `path` names with a slash behind. Folders on which other
 * file systems are mounted are empty; sockets are skipped, devices and FIFOs only named. `skipped` may be NULL. 0, or -errno with
 * `err` set; the stream is then without an end. */
int pack(const char *path, const struct tar_sink *sink, pack_skipped_fn skipped, void *ctx, struct error *err);

struct unpack_options {
	bool into;	  /* `target` is a folder, and the archive may have any number of things for it */
	bool keep_owner;  /* who may not give files away wants none of it */
	bool trust_modes; /* set-user-ID and set-group-ID too */
	pack_skipped_fn skipped; /* may be NULL */
	void *ctx;
};

/* Makes of `source` what it has. Where `target` is a folder it gets the archive's first entry and what is below that, else (and then its
 * parent must be there) that entry becomes `target`. Nothing outside is touched, whatever the archive's names and links say, and whatever
 * links are there already: none is followed below `target`. A file is under its name whole or not at all. 0, or -errno with `err`
 * set: what is whole by then is left. */
int unpack(const char *target, const struct tar_source *source, const struct unpack_options *options, struct error *err);

#endif
