/* What is particular to each kind of vhost device: its features, and what its configuration space says. */
#include "devices/virtio_vhost_device.h"

#include "common/checked.h"
#include "devices/net_backend.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ids.h>
#include <string.h>

#define BIT(n) (1ull << (n))

/* ---- blk ---- */

/* 5.2.4 up to the write_zeroes fields, as Firecracker asks for it. What lies behind belongs to features that are not passed on. */
#define BLK_CONFIG_BYTES 60
/* Of num_queues, in there. */
#define BLK_NUM_QUEUES 34

_Static_assert(offsetof(struct virtio_blk_config, num_queues) == BLK_NUM_QUEUES, "5.2.4");

static const struct vhost_kind blk_kind = {
	.name = "vhost-blk",
	.device_id = VIRTIO_ID_BLOCK,
	/* Not CONFIG_WCE: then the driver could write to the configuration space. */
	.features = BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_GEOMETRY) | BIT(VIRTIO_BLK_F_RO) |
		    BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_MQ) |
		    BIT(VIRTIO_BLK_F_DISCARD) | BIT(VIRTIO_BLK_F_WRITE_ZEROES),
	.config_size = BLK_CONFIG_BYTES,
	.config_is_backends = true,
	.num_queues_at = BLK_NUM_QUEUES,
	.answers_all = true,
};

/* As many as the back-end has, and we can serve. */
static uint16_t blk_queues(const struct vhost *backend, const uint8_t config[BLK_CONFIG_BYTES])
{
	uint16_t n;

	if (!(backend->features & BIT(VIRTIO_BLK_F_MQ)))
		return 1;
	memcpy(&n, config + BLK_NUM_QUEUES, sizeof(n));
	n = le16toh(n);
	if (n > backend->queues_max)
		n = backend->queues_max;
	if (n > VIRTIO_QUEUES_MAX)
		n = VIRTIO_QUEUES_MAX;
	return n ? n : 1;
}

struct virtio_dev *virtio_vhost_blk_new(struct vhost *backend, const char *id, bool flush, struct loop *loop,
	const struct gmem *mem, struct error *err)
{
	uint8_t config[BLK_CONFIG_BYTES];
	struct virtio_vhost *v;

	backend->deadline_ns = monotonic_ns() + backend->patience_ns;
	if (backend->ops->read_config(backend, config, sizeof(config), err) < 0) {
		backend->ops->free(backend);
		return NULL;
	}
	v = vhost_device_new(&blk_kind, backend, blk_queues(backend, config), id, loop, mem, err);
	if (!v)
		return NULL;
	vhost_device_set_config(v, config);
	if (!flush)
		v->withheld = BIT(VIRTIO_BLK_F_FLUSH);
	return &v->dev;
}

/* ---- fs ---- */

static const struct vhost_kind fs_kind = {
	.name = "vhost-fs",
	.device_id = VIRTIO_ID_FS,
	.config_size = sizeof(struct virtio_fs_config),
	.answers_all = true,
	.has_sessions = true,
};

struct virtio_dev *virtio_vhost_fs_new(struct vhost *backend, const char *id, const char *tag, uint16_t n_queues,
	struct loop *loop, const struct gmem *mem, struct error *err)
{
	struct virtio_fs_config config = {.num_request_queues = htole32(n_queues)};
	struct virtio_vhost *v;

	/* 5.11.2: one queue of high priority, then those of requests. */
	v = vhost_device_new(&fs_kind, backend, (uint16_t)(1 + n_queues), id, loop, mem, err);
	if (!v)
		return NULL;
	memcpy(config.tag, tag, strnlen(tag, sizeof(config.tag))); /* 5.11.4: padded with NULs, none when it is full */
	vhost_device_set_config(v, &config);
	return &v->dev;
}

/* ---- net ---- */

/* 5.1.4, as far as our features reach. */
struct net_config_space {
	uint8_t mac[6];
	uint16_t status, max_virtqueue_pairs, mtu;
} __attribute__((packed));

static const struct vhost_kind net_kind = {
	.name = "vhost-net",
	.device_id = VIRTIO_ID_NET,
	.features = BIT(NET_F_CSUM) | BIT(NET_F_GUEST_CSUM) | BIT(NET_F_GUEST_TSO4) | BIT(NET_F_GUEST_TSO6) |
		    BIT(NET_F_HOST_TSO4) | BIT(NET_F_HOST_TSO6) | BIT(NET_F_MRG_RXBUF),
	.own_features = BIT(NET_F_MAC) | BIT(NET_F_STATUS) | BIT(NET_F_MTU),
	.config_size = sizeof(struct net_config_space),
	.status_at = offsetof(struct net_config_space, status),
};

struct virtio_dev *virtio_vhost_net_new(struct vhost *backend, const char *id, const uint8_t mac[6], uint16_t mtu,
	struct loop *loop, const struct gmem *mem, struct error *err)
{
	struct net_config_space config = {
		.status = htole16(1), /* VIRTIO_NET_S_LINK_UP */
		.max_virtqueue_pairs = htole16(1),
		.mtu = htole16(mtu),
	};
	struct virtio_vhost *v;

	backend->queues_max = 2; /* of net, some count pairs; all have one */
	v = vhost_device_new(&net_kind, backend, 2, id, loop, mem, err);
	if (!v)
		return NULL;
	memcpy(config.mac, mac, sizeof(config.mac));
	vhost_device_set_config(v, &config);
	v->own_features = net_kind.own_features & ~(mtu ? 0 : BIT(NET_F_MTU));
	return &v->dev;
}
