/* Setting the clock by KVM's own, a PTP clock (Linux's include/uapi/linux/ptp_clock.h). */
#include "guest-kernel/clock.h"

#include "common/cleanup.h"
#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ptp_clock.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timex.h>
#include <time.h>

#define NS_PER_S INT64_C(1000000000)
#define CLOCKS	 4 /* looked at: a machine has one */
#define NAME	 "KVM virtual PTP\n"

/* The KVM clock's descriptor, or -errno: -ENOENT when no clock is it. */
static int open_clock(void)
{
	char path[64], name[sizeof(NAME)];

	for (unsigned i = 0; i < CLOCKS; i++) {
		cleanup_close int fd = -1;
		ssize_t n;

		snprintf(path, sizeof(path), "/sys/class/ptp/ptp%u/clock_name", i);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n = fd < 0 ? -1 : read(fd, name, sizeof(name));
		if (n != (ssize_t)strlen(NAME) || memcmp(name, NAME, (size_t)n) != 0)
			continue;
		snprintf(path, sizeof(path), "/dev/ptp%u", i);
		n = open(path, O_RDONLY | O_CLOEXEC);
		return n < 0 ? -errno : (int)n;
	}
	return -ENOENT;
}

static int64_t to_ns(struct ptp_clock_time time)
{
	return time.sec * NS_PER_S + time.nsec;
}

/* Adds to the wall clock; what runs meanwhile is not lost, as it would be by reading and setting it. */
static int step(int64_t ns)
{
	struct timex timex = {.modes = ADJ_SETOFFSET | ADJ_NANO};
	int64_t rest = ns % NS_PER_S;

	timex.time.tv_sec = ns / NS_PER_S - (rest < 0);
	timex.time.tv_usec = rest < 0 ? rest + NS_PER_S : rest;
	return adjtimex(&timex) < 0 ? -errno : 0;
}

int clock_set_to(int64_t unix_ns, int64_t *ret_moved_ns, struct error *err)
{
	struct timespec now;
	int r;

	clock_gettime(CLOCK_REALTIME, &now);
	*ret_moved_ns = unix_ns - (now.tv_sec * NS_PER_S + now.tv_nsec);
	r = step(*ret_moved_ns);
	return r < 0 ? error_set_errno(err, -r, "the clock cannot be set") : 0;
}

int clock_set_by_host(int64_t *ret_moved_ns, struct error *err)
{
	struct ptp_sys_offset_precise offset = {0};
	cleanup_close int fd = open_clock();
	int r;

	if (fd < 0)
		return error_set(err, -fd, "the kernel has no clock of KVM's (ptp_kvm)");
	if (ioctl(fd, PTP_SYS_OFFSET_PRECISE, &offset) < 0)
		return error_set_errno(err, errno, "KVM does not tell the host's time");
	*ret_moved_ns = to_ns(offset.device) - to_ns(offset.sys_realtime);
	r = step(*ret_moved_ns);
	return r < 0 ? error_set_errno(err, -r, "the clock cannot be set") : 0;
}
