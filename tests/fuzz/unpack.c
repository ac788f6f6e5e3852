/* A hostile archive, from a machine or for one: whatever is in it, and however it is cut, nothing appears beside the target, no part of a
 * file is left, and no permission that was not to be given is. What was made can be packed again.
 *
 *	byte 0: 1: into, 2: the target is there  then the archive, of which the sums of headers are put right */
#include "tests/fuzz/fuzz.h"

#include "common/pack.h"
#include "common/tar_header.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char outer[40];
static bool prepared; /* not what the name ends with: one of 62 that mkdtemp() gives ends with X, too */

struct stream {
	const uint8_t *data;
	size_t left;
};

static ssize_t read_stream(void *ctx, void *data, size_t len)
{
	struct stream *s = ctx;
	size_t part = s->left < len ? s->left : len;

	memcpy(data, s->data, part);
	s->data += part;
	s->left -= part;
	return (ssize_t)part;
}

static int write_nowhere(void *ctx, const void *data, size_t len)
{
	(void)data;
	*(size_t *)ctx += len;
	return 0;
}

static int look(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)ftw;
	if (type == FTW_NS)
		return 0; /* in a folder that may be read, but not searched: by who is not root */
	CHECK(S_ISLNK(st->st_mode) || !(st->st_mode & 06000));
	CHECK(!strstr(path, ".hull-cp-"));
	return 0;
}

static bool is_closed; /* there is a folder that could not be looked into */

/* Who is not root erases only what is in folders that allow that; what is in one shows once it does. */
static int open_up(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)ftw;
	is_closed |= type == FTW_DNR;
	return type == FTW_D || type == FTW_DNR ? chmod(path, 0700) : 0;
}

static int erase(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type;
	return ftw->level ? remove(path) : 0;
}

static void be_gone(void)
{
	rmdir(outer);
}

static void prepare(void)
{
	/* In memory, where there is room for that: most of what this target does is making files and removing them. */
	strcpy(outer, "/dev/shm/hull-fuzz-unpack-XXXXXX");
	if (!mkdtemp(outer)) {
		strcpy(outer, "/tmp/hull-fuzz-unpack-XXXXXX");
		CHECK(mkdtemp(outer));
	}
	atexit(be_gone);
	prepared = true;
}

/* Only the target is in `outer`. */
static void look_around(void)
{
	DIR *dir = opendir(outer);
	struct dirent *entry;

	CHECK(dir);
	while ((entry = readdir(dir)))
		CHECK(entry->d_name[0] == '.' || strcmp(entry->d_name, "target") == 0);
	closedir(dir);
}

static void mend_sums(uint8_t *data, size_t len)
{
	for (; len >= TAR_BLOCK; data += TAR_BLOCK, len -= TAR_BLOCK) {
		struct tar_header *header = (struct tar_header *)data;

		if (memcmp(header->magic, "usta", 4) == 0)
			snprintf(header->checksum, sizeof header->checksum, "%06o", tar_header_sum(header));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct unpack_options options = {.into = len && data[0] & 1};
	char target[sizeof outer + 16];
	struct tar_source source;
	struct tar_sink sink;
	struct stream stream;
	struct error err;
	size_t packed = 0;
	uint8_t *copy;

	if (!prepared)
		prepare();
	if (len < 2)
		return 0;
	copy = malloc(len);
	CHECK(copy);
	memcpy(copy, data, len);
	mend_sums(copy + 1, len - 1);
	stream = (struct stream){copy + 1, len - 1};
	source = (struct tar_source){read_stream, &stream};
	snprintf(target, sizeof target, "%s/target", outer);
	CHECK(!(data[0] & 2) || mkdir(target, 0700) == 0);
	err.errnum = 0;
	CHECK(unpack(target, &source, &options, &err) == -err.errnum);
	look_around();
	CHECK(nftw(outer, look, 16, FTW_PHYS) == 0);
	sink = (struct tar_sink){write_nowhere, &packed};
	if (access(target, F_OK) == 0)
		pack(target, &sink, NULL, NULL, &err); /* a folder may have become one that we cannot read */
	do {
		is_closed = false;
		CHECK(nftw(outer, open_up, 16, FTW_PHYS) == 0);
	} while (is_closed);
	CHECK(nftw(outer, erase, 16, FTW_DEPTH | FTW_PHYS) == 0);
	free(copy);
	return 0;
}
