/* A ustar header (POSIX.1-2017, pax, "ustar Interchange Format"): what tar.c and tar_write.c share. Nobody else's. */
#ifndef HULL_COMMON_TAR_HEADER_H
#define HULL_COMMON_TAR_HEADER_H

#include "common/tar.h"

#include <assert.h>

struct tar_header {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
	char magic[6], version[2], uname[32], gname[32], major[8], minor[8], prefix[155], unused[12];
};
static_assert(sizeof(struct tar_header) == TAR_BLOCK, "a header is a block");

/* Bytes behind `size` bytes, to the next block. */
static inline unsigned tar_padding(uint64_t size)
{
	return (unsigned)(-size & (TAR_BLOCK - 1));
}

/* Of all bytes, the sum's own being blanks. */
static inline unsigned tar_header_sum(const struct tar_header *header)
{
	const unsigned char *at = (const unsigned char *)header;
	unsigned sum = 0;

	for (size_t i = 0; i < sizeof *header; i++)
		sum += i - offsetof(struct tar_header, checksum) < sizeof header->checksum ? ' ' : at[i];
	return sum;
}

#endif
