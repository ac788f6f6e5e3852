/* virtio-net over a tap interface. The kernel's virtio_net_hdr is the guest's, so checksum and segmentation
 * offloads pass through, and frames go between the guest's buffers and the kernel without a copy in between. */
#include "devices/net_backend.h"
#include "devices/virtio_net.h"

#include "common/cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define BIT(n)  (1ull << (n))
#define FIELD   "host_dev_name"
#define TUN_DEV "/dev/net/tun"

static int tap_set_features(struct net_backend *backend, uint64_t driver_features)
{
	unsigned offloads = 0;

	/* What the guest may be given, 5.1.3.1: segments only to a guest that takes partial checksums. */
	if (driver_features & BIT(NET_F_GUEST_CSUM)) {
		offloads |= TUN_F_CSUM;
		if (driver_features & BIT(NET_F_GUEST_TSO4))
			offloads |= TUN_F_TSO4;
		if (driver_features & BIT(NET_F_GUEST_TSO6))
			offloads |= TUN_F_TSO6;
	}
	return ioctl(backend->fd, TUNSETOFFLOAD, offloads) < 0 ? -errno : 0;
}

static int tap_attach(struct net_backend *backend, bool attach)
{
	struct ifreq ifr = {.ifr_flags = attach ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

	return ioctl(backend->fd, TUNSETQUEUE, &ifr) < 0 ? -errno : 0;
}

static ssize_t tap_receive(struct net_backend *backend, const struct iovec *iov, int n)
{
	ssize_t got = readv(backend->fd, iov, n);

	if (got >= 0)
		return got;
	return errno == EINTR ? -EAGAIN : -errno;
}

static int tap_send(struct net_backend *backend, const struct iovec *iov, int n)
{
	if (writev(backend->fd, iov, n) >= 0)
		return 0;
	switch (errno) {
	case EAGAIN:
	case EINTR:
		return -EAGAIN;
	case EBADFD: /* the interface was deleted */
	case EBADF:
	case ENODEV:
		return -errno;
	default: /* the interface is down (EIO), the header is nonsense (EINVAL), no memory: dropped */
		return 0;
	}
}

static int tap_flush(struct net_backend *backend)
{
	(void)backend; /* the kernel takes a frame whole or not at all */
	return 0;
}

static void tap_free(struct net_backend *backend)
{
	close_fd(backend->fd);
	free(backend);
}

static const struct net_backend_ops tap_ops = {
        .features = BIT(NET_F_CSUM) | BIT(NET_F_HOST_TSO4) | BIT(NET_F_HOST_TSO6) | BIT(NET_F_GUEST_CSUM) |
                    BIT(NET_F_GUEST_TSO4) | BIT(NET_F_GUEST_TSO6),
        .set_features = tap_set_features,
        .attach = tap_attach,
        .receive = tap_receive,
        .send = tap_send,
        .flush = tap_flush,
        .free = tap_free,
};

struct net_backend *net_tap_new(int tap_fd, struct error *err)
{
	cleanup_close int fd = tap_fd;
	struct net_backend *backend;
	struct ifreq ifr = {0};
	int header_bytes = NET_HEADER_BYTES, little_endian = 1;

	if (ioctl(fd, TUNGETIFF, &ifr) < 0) {
		error_set_field(err, EINVAL, FIELD, "the descriptor is not that of a tap interface");
		return NULL;
	}
	if (!(ifr.ifr_flags & IFF_TAP) || !(ifr.ifr_flags & IFF_VNET_HDR) || !(ifr.ifr_flags & IFF_NO_PI)) {
		error_set_field(err, EINVAL, FIELD,
		        "%.15s is not attached as a tap with IFF_NO_PI and IFF_VNET_HDR", ifr.ifr_name);
		return NULL;
	}
	if (ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) < 0 || ioctl(fd, TUNSETVNETLE, &little_endian) < 0 ||
	        ioctl(fd, TUNSETOFFLOAD, 0u) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
		error_set_errno(err, errno, "cannot set up the tap %.15s", ifr.ifr_name);
		return NULL;
	}
	backend = malloc(sizeof(*backend));
	if (!backend) {
		error_set_errno(err, ENOMEM, "cannot use the tap %.15s", ifr.ifr_name);
		return NULL;
	}
	*backend = (struct net_backend){.ops = &tap_ops, .fd = steal_fd(&fd)};
	return backend;
}

/* What the kernel takes as a name, less what it would take as a pattern ("tap%d"). */
static int check_name(const char *name, struct error *err)
{
	size_t len = strlen(name);

	if (!len)
		return error_set_field(err, EINVAL, FIELD, "must not be empty");
	if (len >= IFNAMSIZ)
		return error_set_field(err, EINVAL, FIELD,
		        "\"%s\" is longer than the %d characters of an interface name", name, IFNAMSIZ - 1);
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return error_set_field(err, EINVAL, FIELD, "\"%s\" is no interface name", name);
	for (size_t i = 0; i < len; i++)
		if (!isgraph((unsigned char)name[i]) || strchr("/:%", name[i]))
			return error_set_field(err, EINVAL, FIELD,
			        "\"%s\" has a character that no interface name has", name);
	return 0;
}

int virtio_net_open_tap(const char *name, bool several, struct error *err)
{
	const short flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	struct ifreq ifr = {.ifr_flags = several ? flags | IFF_MULTI_QUEUE : flags};
	cleanup_close int fd = -1;
	int r, errnum;

	if (net_is_given(name) && several)
		return error_set_field(err, EINVAL, FIELD, "a descriptor is one queue of a tap");
	if (net_is_given(name))
		return net_open_given(name, err);
	r = check_name(name, err);
	if (r < 0)
		return r;
	fd = open(TUN_DEV, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return error_set_field(err, errno, FIELD, "%s: not permitted to open " TUN_DEV, name);
	if (fd < 0)
		return error_set_field(
		        err, errno, FIELD, "%s: cannot open " TUN_DEV ": %s", name, strerror(errno));
	memcpy(ifr.ifr_name, name, strlen(name));
	if (ioctl(fd, TUNSETIFF, &ifr) == 0)
		return steal_fd(&fd);
	errnum = errno; /* if_nametoindex() has one of its own */
	switch (errnum) {
	case EBUSY:
		return error_set_field(err, EBUSY, FIELD, "%s is in use by another program", name);
	case EPERM:
	case EACCES:
		return error_set_field(err, errnum, FIELD,
		        if_nametoindex(name) ? "%s: not permitted to attach to it"
		                             : "%s does not exist and may not be created by this user",
		        name);
	case EINVAL:
		return error_set_field(err, EINVAL, FIELD, several ? "%s is not a tap interface with several queues (multi_queue)" :
				  "%s is not a tap interface with one queue", name);
	default:
		return error_set_field(err, errnum, FIELD, "cannot attach to %s: %s", name, strerror(errnum));
	}
}
