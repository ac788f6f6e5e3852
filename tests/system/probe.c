/* What a guest's program sees of its processors: a static program for a guest's initramfs.
 *
 *	probe msr read|write ADDRESS [TIMES]	through /dev/cpu/0/msr: "value 0x…", "done" or "error N" (an errno)
 *	probe cpuid LEAF SUBLEAF		"eax ebx ecx edx", hexadecimal */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int msr(int writes, uint32_t address, long times)
{
	int fd = open("/dev/cpu/0/msr", O_RDWR);
	uint64_t value = 0;
	ssize_t n = 8;

	if (fd < 0)
		return perror("/dev/cpu/0/msr"), 1;
	for (long i = 0; i < times; i++)
		n = writes ? pwrite(fd, &value, 8, address) : pread(fd, &value, 8, address);
	if (n < 0)
		printf("error %d\n", errno);
	else if (writes)
		puts("done");
	else
		printf("value %#llx\n", (unsigned long long)value);
	return 0;
}

static int cpuid(uint32_t leaf, uint32_t subleaf)
{
	uint32_t a, b, c, d;

	__cpuid_count(leaf, subleaf, a, b, c, d);
	printf("%08x %08x %08x %08x\n", a, b, c, d);
	return 0;
}

int main(int argc, char *argv[])
{
	const char *what = argc > 1 ? argv[1] : "";
	unsigned long numbers[4] = {0};

	for (int i = 2; i < argc && i < 6; i++)
		numbers[i - 2] = strtoul(argv[i], NULL, 0);
	if (strcmp(what, "msr") == 0 && argc >= 4)
		return msr(strcmp(argv[2], "write") == 0, (uint32_t)numbers[1], argc > 4 ? (long)numbers[2] : 1);
	if (strcmp(what, "cpuid") == 0 && argc == 4)
		return cpuid((uint32_t)numbers[0], (uint32_t)numbers[1]);
	return 2;
}
