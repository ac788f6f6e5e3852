/* A file that is written at its end for ever and keeps what is newest: what is older becomes a hole, and its blocks the
 * disk's again. Offsets do not change by that, so readers keep their place, and nothing is renamed or opened anew. */
#ifndef HULL_COMMON_BOUNDED_FILE_H
#define HULL_COMMON_BOUNDED_FILE_H

#include <stdint.h>
#include <sys/types.h>

struct bounded_file {
	uint64_t limit_bytes;       /* 0: none */
	_Atomic uint64_t unchecked; /* bytes written since the file's size was looked at last */
};

struct bounded_file bounded_file(uint64_t limit_bytes);

/* After each write of `bytes` to `fd`. The file then takes no more of the disk than its limit and an eighth. Does nothing to
 * what is no regular file; where the file system makes no holes, the file is emptied instead. From any thread. */
void bounded_file_wrote(struct bounded_file *file, int fd, uint64_t bytes);

/* For readers: `pos`, or where to go on when what was there is gone: behind the hole, or at the start of a file that was
 * emptied. What was read at `pos` *before* this said `pos` was whole. */
off_t bounded_file_kept(int fd, off_t pos);

#endif
