/* What a guest's program sees of its processors and clocks: a static program for a guest's initramfs.
 *
 *	probe msr read|write ADDRESS [TIMES]	through /dev/cpu/0/msr: "value 0x…", "done" or "error N" (an errno)
 *	probe cpuid LEAF SUBLEAF		"eax ebx ecx edx", hexadecimal
 *	probe warps TIMES			"tsc N clock N": how often a processor was behind another
 *	probe clock				"guest: clock", and answers at the serial port's registers, as below
 *	probe ptp [set]				"ahead N": nanoseconds before the host's clock, as /dev/ptp0 compares them; and sets
 *						the wall clock by it */
#define _GNU_SOURCE
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ptp_clock.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

static int move_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

static int64_t now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

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

/* Processors take turns: each finds the clocks where the one before left them, or further on. */

static struct {
	atomic_flag busy;
	uint64_t tsc;
	int64_t clock_ns;
	long times, tsc_warps, clock_warps;
} shared;

static void *take_turns(void *cpu)
{
	if (move_to((int)(intptr_t)cpu) < 0)
		return "no such processor";
	for (long i = 0; i < shared.times; i++) {
		uint64_t tsc;
		int64_t clock_ns;

		while (atomic_flag_test_and_set(&shared.busy))
			sched_yield();
		_mm_lfence();
		tsc = __rdtsc();
		_mm_lfence();
		clock_ns = now_ns(CLOCK_MONOTONIC);
		shared.tsc_warps += tsc < shared.tsc;
		shared.clock_warps += clock_ns < shared.clock_ns;
		shared.tsc = tsc;
		shared.clock_ns = clock_ns;
		atomic_flag_clear(&shared.busy);
	}
	return NULL;
}

static int warps(long times)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t threads[64];

	shared.times = times;
	for (long i = 0; i < n && i < 64; i++)
		pthread_create(&threads[i], NULL, take_turns, (void *)i);
	for (long i = 0; i < n && i < 64; i++) {
		void *why;

		pthread_join(threads[i], &why);
		if (why)
			puts(why);
	}
	printf("tsc %ld clock %ld\n", shared.tsc_warps, shared.clock_warps);
	return 0;
}

/* For each byte that comes, the wall clock goes back: read between the byte's arrival and the answer's first byte, so that a
 * host that notes when it sent and when it heard knows its bounds. A digit is the processor to do it on; 'q' is the end. The
 * kernel's driver is left out: its interrupts and buffers would take longer than what is to be told apart. */

enum { PORT = 0x3f8, IER = PORT + 1, LSR = PORT + 5 };

static void say(const char *text)
{
	for (; *text; text++)
		outb((unsigned char)*text, PORT);
}

static int answer_clock(void)
{
	char text[32];
	unsigned char interrupts;
	int64_t ns;

	if (iopl(3))
		return perror("iopl"), 1;
	interrupts = inb(IER);
	outb(0, IER);
	say("guest: clock\n"); /* what comes from now on is not the driver's any more */
	for (;;) {
		while (!(inb(LSR) & 1))
			;
		text[0] = (char)inb(PORT);
		if (text[0] == 'q' || move_to(text[0] - '0') < 0)
			break;
		ns = now_ns(CLOCK_REALTIME);
		outb('@', PORT);
		snprintf(text, sizeof(text), "%lld\n", (long long)ns);
		say(text);
	}
	outb(interrupts, IER);
	return 0;
}

static int64_t ptp_ns(struct ptp_clock_time t)
{
	return t.sec * 1000000000ll + t.nsec;
}

static int ptp(int sets)
{
	struct ptp_sys_offset_precise offset = {0};
	struct timex step = {.modes = ADJ_SETOFFSET | ADJ_NANO};
	int fd = open("/dev/ptp0", O_RDONLY);
	int64_t ahead;

	if (fd < 0 || ioctl(fd, PTP_SYS_OFFSET_PRECISE, &offset) < 0)
		return perror("/dev/ptp0"), 1;
	ahead = ptp_ns(offset.sys_realtime) - ptp_ns(offset.device);
	printf("ahead %lld\n", (long long)ahead);
	if (!sets)
		return 0;
	step.time.tv_sec = -ahead / 1000000000;
	step.time.tv_usec = -ahead % 1000000000;
	if (step.time.tv_usec < 0) {
		step.time.tv_sec--;
		step.time.tv_usec += 1000000000;
	}
	return adjtimex(&step) < 0 ? perror("adjtimex"), 1 : 0;
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
	if (strcmp(what, "warps") == 0 && argc == 3)
		return warps((long)numbers[0]);
	if (strcmp(what, "clock") == 0)
		return answer_clock();
	if (strcmp(what, "ptp") == 0)
		return ptp(argc > 2);
	return 2;
}
