/* Changing devices of a machine that runs.
 *
 * Theory of operation. The configuration is changed first, as every rule stands there; then the device; and when that
 * cannot be, the configuration goes back to what it was. So GET /vm/config always tells what is. */
#include "vmm/api_live.h"

#include "devices/virtio_blk.h"
#include "devices/virtio_net.h"
#include "devices/virtio_vhost.h"
#include "vmm/devices.h"
#include "vmm/machine.h"
#include "vmm/monitor.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>

struct virtio_dev *live_find_device(struct monitor *monitor, uint32_t device_id, const struct api_call *call,
	const char *id_field, const char *id, struct error *err)
{
	struct virtio_dev *dev;

	if (strcmp(id, call->id) != 0) {
		error_set_field(err, EINVAL, id_field, "is \"%.64s\", and the path says \"%s\"", id, call->id);
		return NULL;
	}
	dev = devices_find(machine_devices(monitor->machine), device_id, id);
	if (!dev)
		error_set_field(err, ENOENT, id_field, "there is no \"%s\"", id);
	return dev;
}

struct drive_patch {
	char *drive_id, *path_on_host;
	struct rate_limiter_config *rate_limiter;
};

static const struct json_field drive_patch_fields[] = {
	{"drive_id", JSON_FIELD_STRING, offsetof(struct drive_patch, drive_id), .required = true},
	{"path_on_host", JSON_FIELD_STRING, offsetof(struct drive_patch, path_on_host), .nullable = true,
		.sparse = true, .min = 1},
	{"rate_limiter", JSON_FIELD_OPTIONAL, offsetof(struct drive_patch, rate_limiter), .nullable = true,
		.sparse = true, .table = &config_rate_limiter_table},
};
static const struct json_table drive_patch_table = JSON_TABLE("PartialDrive", struct drive_patch, drive_patch_fields);

static int patch_drive(
	struct monitor *monitor, const struct api_call *call, const struct drive_patch *patch, struct error *err)
{
	cleanup(json_decrefp) json_t *before = config_get_item(&monitor->config, "drives", call->id);
	cleanup(json_decrefp) json_t *changes = json_dump(&drive_patch_table, patch); /* what is null stays as it was */
	struct virtio_dev *dev =
		live_find_device(monitor, VIRTIO_ID_BLOCK, call, "drive_id", patch->drive_id, err);
	int r = dev ? config_patch_item(&monitor->config, "drives", call->id, changes, err) : -ENOENT;

	if (r < 0)
		return r;
	if (json_is_string(json_object_get(before, "socket"))) /* nothing of it can be changed here; it may have changed there */
		return virtio_vhost_reread_config(dev, err);
	if (patch->path_on_host)
		r = virtio_blk_set_file(dev, patch->path_on_host, err);
	if (r < 0)
		config_put(&monitor->config, "drives", call->id, before, NULL);
	else if (patch->rate_limiter)
		virtio_blk_set_limiter(dev, patch->rate_limiter);
	return r;
}

int live_patch_drive(void *ctx, struct api_call *call, struct error *err)
{
	struct drive_patch patch;
	int r = json_read(&drive_patch_table, call->body, &patch, err);

	if (r < 0)
		return r;
	r = patch_drive(ctx, call, &patch, err);
	json_done(&drive_patch_table, &patch);
	return r;
}

struct net_patch {
	char *iface_id;
	struct rate_limiter_config *rx_rate_limiter, *tx_rate_limiter;
};

static const struct json_field net_patch_fields[] = {
	{"iface_id", JSON_FIELD_STRING, offsetof(struct net_patch, iface_id), .required = true},
	{"rx_rate_limiter", JSON_FIELD_OPTIONAL, offsetof(struct net_patch, rx_rate_limiter), .nullable = true,
		.sparse = true, .table = &config_rate_limiter_table},
	{"tx_rate_limiter", JSON_FIELD_OPTIONAL, offsetof(struct net_patch, tx_rate_limiter), .nullable = true,
		.sparse = true, .table = &config_rate_limiter_table},
};
static const struct json_table net_patch_table =
	JSON_TABLE("PartialNetworkInterface", struct net_patch, net_patch_fields);

static int patch_net(
	struct monitor *monitor, const struct api_call *call, const struct net_patch *patch, struct error *err)
{
	cleanup(json_decrefp) json_t *changes = json_dump(&net_patch_table, patch);
	bool limited = patch->rx_rate_limiter || patch->tx_rate_limiter; /* which the rules refuse for vhost */
	struct virtio_dev *dev = live_find_device(monitor, VIRTIO_ID_NET, call, "iface_id", patch->iface_id, err);
	int r = dev ? config_patch_item(&monitor->config, "network-interfaces", call->id, changes, err) : -ENOENT;

	if (r == 0 && limited)
		virtio_net_set_limiters(dev, patch->rx_rate_limiter, patch->tx_rate_limiter);
	return r;
}

int live_patch_net(void *ctx, struct api_call *call, struct error *err)
{
	struct net_patch patch;
	int r = json_read(&net_patch_table, call->body, &patch, err);

	if (r < 0)
		return r;
	r = patch_net(ctx, call, &patch, err);
	json_done(&net_patch_table, &patch);
	return r;
}
