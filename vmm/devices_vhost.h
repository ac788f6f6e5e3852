/* Devices whose rings a back-end works on, made as the configuration says. Loop thread. */
#ifndef HULL_VMM_DEVICES_VHOST_H
#define HULL_VMM_DEVICES_VHOST_H

#include "common/error.h"

struct config_drive;
struct config_filesystem;
struct config_net;
struct gmem;
struct loop;
struct virtio_dev;

/* Each connects to its back-end, or opens what it needs. `loop` and `mem` are borrowed for the device's life. NULL with `err` set. */
struct virtio_dev *devices_vhost_drive(
	const struct config_drive *drive, struct loop *loop, const struct gmem *mem, struct error *err);
struct virtio_dev *devices_vhost_net(
	const struct config_net *net, struct loop *loop, const struct gmem *mem, struct error *err);
struct virtio_dev *devices_vhost_filesystem(
	const struct config_filesystem *fs, struct loop *loop, const struct gmem *mem, struct error *err);

/* Whether there is a socket at `path`, without connecting to it: some back-ends serve one connection and end. 0, or -errno with
 * `err` set (no field). */
int devices_vhost_look(const char *path, struct error *err);

#endif
