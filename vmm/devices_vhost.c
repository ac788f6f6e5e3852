/* From the configuration to a vhost device: the socket connected to, or the tap opened. */
#include "vmm/devices_vhost.h"

#include "common/io.h"
#include "devices/virtio_net.h"
#include "devices/virtio_vhost.h"
#include "vmm/config.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* Whatever was wrong is wrong with `field`, which is the socket at `path`. */
static struct virtio_dev *blame(struct virtio_dev *dev, const char *field, const char *path, struct error *err)
{
	if (!dev && !err->field[0]) {
		if (path)
			error_prefix(err, "%s: ", path);
		error_in_field(err, "%s", field);
	}
	return dev;
}

static struct vhost *connect_to(const char *path, const char *field, struct error *err)
{
	int fd = unix_connect(path, 1, err);
	struct vhost *vhost = fd >= 0 ? vhost_user_new(fd, err) : NULL;

	if (!vhost)
		blame(NULL, field, fd >= 0 ? path : NULL, err); /* who could not connect has named it */
	return vhost;
}

struct virtio_dev *devices_vhost_drive(
	const struct config_drive *drive, struct loop *loop, const struct gmem *mem, struct error *err)
{
	struct vhost *vhost = connect_to(drive->socket, "socket", err);
	bool flush = drive->cache_type == CONFIG_CACHE_WRITEBACK;

	if (!vhost)
		return NULL;
	return blame(virtio_vhost_blk_new(vhost, drive->drive_id, flush, loop, mem, err), "socket", drive->socket, err);
}

static struct virtio_dev *net_on_tap(
	const struct config_net *net, struct loop *loop, const struct gmem *mem, struct error *err)
{
	int tap = virtio_net_open_tap(net->host_dev_name, false, err);
	struct vhost *vhost;

	if (tap < 0)
		return blame(NULL, "host_dev_name", NULL, err);
	vhost = vhost_kernel_net_new(tap, err);
	if (!vhost)
		return blame(NULL, "vhost", NULL, err);
	return blame(virtio_vhost_net_new(vhost, net->iface_id, net->mac, (uint16_t)net->mtu, loop, mem, err), "vhost", NULL, err);
}

struct virtio_dev *devices_vhost_net(
	const struct config_net *net, struct loop *loop, const struct gmem *mem, struct error *err)
{
	const char *path = net->vhost_user_socket;
	struct vhost *vhost;

	if (!path)
		return net_on_tap(net, loop, mem, err);
	vhost = connect_to(path, "vhost_user_socket", err);
	if (!vhost)
		return NULL;
	return blame(virtio_vhost_net_new(vhost, net->iface_id, net->mac, (uint16_t)net->mtu, loop, mem, err),
		"vhost_user_socket", path, err);
}

struct virtio_dev *devices_vhost_filesystem(
	const struct config_filesystem *fs, struct loop *loop, const struct gmem *mem, struct error *err)
{
	struct vhost *vhost = connect_to(fs->socket, "socket", err);

	if (!vhost)
		return NULL;
	return blame(virtio_vhost_fs_new(vhost, fs->fs_id, fs->tag, (uint16_t)fs->num_request_queues, loop, mem, err), "socket",
		fs->socket, err);
}

int devices_vhost_look(const char *path, struct error *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, ENOTSOCK, "%s: is no socket", path);
	return 0;
}
