#include "common/bounded_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

/* The limit is looked after once in so many bytes, as parts of the limit. */
#define CHECKS 8

struct bounded_file bounded_file(uint64_t limit_bytes)
{
	/* The first write looks at what an earlier writer left. */
	return (struct bounded_file){.limit_bytes = limit_bytes, .unchecked = limit_bytes};
}

void bounded_file_wrote(struct bounded_file *file, int fd, uint64_t bytes)
{
	struct stat st;
	off_t excess;

	if (file->limit_bytes == 0 || atomic_fetch_add(&file->unchecked, bytes) + bytes < file->limit_bytes / CHECKS)
		return;
	file->unchecked = 0;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size <= file->limit_bytes)
		return;
	excess = st.st_size - (off_t)file->limit_bytes;
	excess -= excess % st.st_blksize; /* a hole consists of whole blocks; a part of one would only be zeroed */
	if (excess > 0 && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, excess) < 0)
		(void)!ftruncate(fd, 0);
}

off_t bounded_file_kept(int fd, off_t pos)
{
	off_t data = lseek(fd, pos, SEEK_DATA);
	struct stat st;

	if (data >= 0 || errno != ENXIO || fstat(fd, &st) < 0)
		return data >= 0 ? data : pos;
	return st.st_size < pos ? 0 : st.st_size; /* no data from `pos` to the end */
}
