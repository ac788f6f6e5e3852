/* Finds a disk by the serial the machine's configuration gave it. */
#include "guest-kernel/drive.h"

#include "common/cleanup.h"
#include "common/loop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define NS_PER_MS 1000000ull

/* The kernel's own announcements of devices (group 1): what udev listens to. */
static int open_uevents(void)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);

	if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		fd = close_fd(fd);
	return fd;
}

static bool has_serial(const char *disk, const char *serial)
{
	char path[PATH_MAX], found[64];
	cleanup_close int fd = -1;
	ssize_t n;

	snprintf(path, sizeof path, "/sys/block/%s/serial", disk);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, found, sizeof found - 1);
	if (n < 0)
		return false;
	found[n] = '\0';
	found[strcspn(found, "\n")] = '\0';
	return strcmp(found, serial) == 0;
}

static bool scan(const char *serial, char *ret, size_t size)
{
	DIR *disks = opendir("/sys/block");
	struct dirent *entry;
	bool found = false;

	if (!disks)
		return false;
	while (!found && (entry = readdir(disks))) {
		if (strncmp(entry->d_name, "vd", 2) != 0 || !has_serial(entry->d_name, serial))
			continue;
		snprintf(ret, size, "/dev/%.24s", entry->d_name);
		found = access(ret, F_OK) == 0;
	}
	closedir(disks);
	return found;
}

int drive_find(const char *serial, int timeout_ms, char *ret, size_t size, struct error *err)
{
	uint64_t deadline = monotonic_ns() + (uint64_t)timeout_ms * NS_PER_MS, now;
	cleanup_close int uevents = open_uevents(); /* before the first look, so that nothing falls between */
	char message[4096];

	while (!scan(serial, ret, size)) {
		struct pollfd ready = {.fd = uevents, .events = POLLIN};

		now = monotonic_ns();
		if (now >= deadline)
			return error_set(err, ENODEV, "no disk with the serial \"%s\" within %d ms", serial, timeout_ms);
		/* Without the socket, poll() with a negative descriptor is a bounded wait. */
		poll(&ready, 1, uevents >= 0 ? (int)((deadline - now) / NS_PER_MS) + 1 : 20);
		while (recv(uevents, message, sizeof message, 0) > 0 || (uevents >= 0 && errno == ENOBUFS))
			;
	}
	return 0;
}
