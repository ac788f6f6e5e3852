/* cmocka, with the headers it wants before it, and what tests of any kind count. */
#ifndef HULL_TESTS_UNIT_TEST_H
#define HULL_TESTS_UNIT_TEST_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* How many entries a folder has: of /proc/self/fd this process's descriptors, of /proc/self/task its threads, and a few more. */
static inline unsigned count_entries(const char *folder)
{
	DIR *dir = opendir(folder);
	unsigned n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

#endif
