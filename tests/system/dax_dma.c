/* dax_dma FILE DISK OFFSET read|write: the disk reads into, or is written from, the pages of FILE that are mapped without a page
 * cache between: 64 KiB at OFFSET of DISK. A guest program of tests/system/test_memory.py. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BYTES 65536

int main(int argc, char **argv)
{
	int reads = argc == 5 && strcmp(argv[4], "read") == 0;
	int file = argc == 5 ? open(argv[1], reads ? O_RDWR : O_RDONLY) : -1;
	int disk = argc == 5 ? open(argv[2], (reads ? O_RDONLY : O_WRONLY) | O_DIRECT) : -1;
	void *pages = mmap(NULL, BYTES, PROT_READ | (reads ? PROT_WRITE : 0), MAP_SHARED, file, 0);
	ssize_t n = -1;

	if (file < 0 || disk < 0 || pages == MAP_FAILED) {
		perror("dax_dma");
		return 2;
	}
	n = reads ? pread(disk, pages, BYTES, atol(argv[3])) : pwrite(disk, pages, BYTES, atol(argv[3]));
	if (n < 0)
		perror("dax_dma");
	printf("guest: dma %s %zd\n", argv[4], n);
	return n == BYTES && (!reads || msync(pages, BYTES, MS_SYNC) == 0) ? 0 : 1;
}
