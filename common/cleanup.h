/* Scope-bound ownership: a variable marked `cleanup_*` releases what it holds when it goes out of scope;
 * `steal_*` hands the thing over and leaves the variable empty. */
#ifndef HULL_COMMON_CLEANUP_H
#define HULL_COMMON_CLEANUP_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define cleanup(fn) __attribute__((cleanup(fn)))

/* Defines `fn##_p(type **)`, the form the attribute wants, for a destructor that accepts NULL. */
#define DEFINE_CLEANUP(type, fn)                                                                              \
	static inline void fn##_p(type *p)                                                                    \
	{                                                                                                     \
		fn(*p);                                                                                       \
	}

/* Closes `fd` if it is one (>= 0) and keeps errno. Returns -1, so that `fd = close_fd(fd)` empties it. */
static inline int close_fd(int fd)
{
	int saved = errno;

	if (fd >= 0)
		close(fd);
	errno = saved;
	return -1;
}

static inline void free_p(void *p)
{
	free(*(void **)p);
}

static inline void close_fd_p(int *fd)
{
	close_fd(*fd);
}

static inline void fclose_p(FILE **f)
{
	if (*f)
		fclose(*f);
}

#define cleanup_free   cleanup(free_p)
#define cleanup_close  cleanup(close_fd_p)
#define cleanup_fclose cleanup(fclose_p)

/* Returns the descriptor and leaves -1 behind. */
static inline int steal_fd(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}

/* Returns the pointer and leaves NULL behind: `return steal_ptr(&buf);` */
#define steal_ptr(p)                                                                                          \
	({                                                                                                    \
		__typeof__(*(p)) stolen_ = *(p);                                                              \
		*(p) = NULL;                                                                                  \
		stolen_;                                                                                      \
	})

#endif
