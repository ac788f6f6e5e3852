/* The stages of an image build; cli/image_build.c says how they follow each other. */
#ifndef HULL_CLI_IMAGE_BUILD_H
#define HULL_CLI_IMAGE_BUILD_H

#include "cli/recipe.h"
#include "cli/subprocess.h"

#define PATH_MAX_TEXT	4096
#define DIGEST_TEXT_MAX 80
#define BUILD_SUITE	"bookworm"
/* Packages that were installed longer ago are installed anew: security updates must find their way in. */
#define BUILD_CACHE_MAX_AGE_S (7 * 86400)

struct build {
	struct recipe recipe;
	int source_folder; /* what the recipe's files are relative to */
	bool inside;	   /* … and must not leave */
	bool no_cache, verbose;
	int signal_fd;
	char folder[256];	   /* temporary; "" before it exists */
	char files[PATH_MAX_TEXT]; /* the tar with the recipe's own files, from build_files() on */
	char base[PATH_MAX_TEXT];  /* the tar with the packages installed, from build_packages() on */
	struct buf log;		   /* what mmdebstrap said */
};

/* Sets build->files. It comes first: what the recipe names wrongly is told before the long part. 0 or -errno with `fail` set. */
int build_files(struct build *build, struct failure *fail);

/* Sets build->base, from the cache or by installing. 0 or -errno with `fail` set. */
int build_packages(struct build *build, struct failure *fail);

/* Makes FOLDER/image.erofs of build->base and build->files. 0 or -errno with `fail` set. */
int build_image(struct build *build, struct failure *fail);

/* "sha256:<hex>" and the size of a file. 0 or -errno with `err` set. */
int build_digest(const char *path, char ret[DIGEST_TEXT_MAX], uint64_t *ret_size_bytes, struct error *err);

#endif
