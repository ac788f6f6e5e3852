/* The virtio transport over PCI: registers, capabilities, and which vector speaks for whom.
 *
 * Theory of operation. Registers are the device's, guarded by its lock; so are the vectors that the driver has chosen. An
 * interrupt is one write to a vector's eventfd (devices/msix.h): no register is read or acknowledged for it. The ISR status
 * is kept for a driver that looks at it instead. */
#include "devices/virtio_pci.h"

#include "common/checked.h"
#include "devices/msix.h"
#include "devices/virtio_transport.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <string.h>

#define VENDOR_ID      0x1af4 /* 4.1.2 */
#define DEVICE_ID_BASE 0x1040
#define SUBSYSTEM_ID   0x40 /* 4.1.2.1: not that of a transitional device */

#define REGION_BYTES   0x1000u
#define REGION_COMMON  0x0000u
#define REGION_ISR     0x1000u
#define REGION_DEVICE  0x2000u
#define REGION_NOTIFY  0x3000u
#define REGION_TABLE   0x4000u
#define REGION_PENDING 0x5000u

#define NOTIFY_MULTIPLIER 4

#define ISR_QUEUE  1u
#define ISR_CONFIG 2u

#define STATE_NAME    "virtio-pci"
#define STATE_VERSION 1

struct virtio_pci {
	struct virtio_dev *dev; /* owned */
	const struct virtio_pci_ops *ops;
	void *ctx;
	struct pci_function function;
	struct msix msix;
	struct virtio_doorbells doorbells;
	bool rings; /* the doorbells are connected, with the BAR at `base` */
	uint32_t base;
	uint8_t msix_capability, window_capability; /* their offsets in configuration space */
	uint8_t isr; /* atomic */
	uint16_t config_vector, queue_vectors[VIRTIO_QUEUES_MAX]; /* under the device's lock */
};

/* ---- interrupts ---- */

static void raise_interrupt(void *ctx, uint16_t q)
{
	struct virtio_pci *pci = ctx;
	uint16_t vector = q == VIRTIO_INTERRUPT_CONFIG ? pci->config_vector : pci->queue_vectors[q];

	if (!msix_is_enabled(&pci->msix))
		__atomic_fetch_or(&pci->isr, q == VIRTIO_INTERRUPT_CONFIG ? ISR_CONFIG : ISR_QUEUE, __ATOMIC_SEQ_CST);
	if (vector != VIRTIO_MSI_NO_VECTOR)
		virtio_signal_fd(msix_fd(&pci->msix, vector));
}

static int kick_fd(void *ctx, uint16_t q)
{
	return ((struct virtio_pci *)ctx)->doorbells.items[q].fd;
}

static void listen_to(void *ctx, uint16_t q, bool listen)
{
	virtio_doorbells_listen(&((struct virtio_pci *)ctx)->doorbells, q, listen);
}

static int call_fd(void *ctx, uint16_t q)
{
	struct virtio_pci *pci = ctx;
	uint16_t vector = pci->queue_vectors[q];

	return vector == VIRTIO_MSI_NO_VECTOR ? -1 : msix_fd(&pci->msix, vector);
}

static const struct virtio_transport transport = {raise_interrupt, kick_fd, listen_to, call_fd};

static int connect_vector(void *ctx, unsigned vector, int fd, uint64_t address, uint32_t data)
{
	struct virtio_pci *pci = ctx;

	return pci->ops->connect_vector(pci->ctx, vector, fd, address, data);
}

static void disconnect_vector(void *ctx, unsigned vector, int fd)
{
	struct virtio_pci *pci = ctx;

	pci->ops->disconnect_vector(pci->ctx, vector, fd);
}

static const struct msix_ops msix_ops = {connect_vector, disconnect_vector};

static void forget_vectors(struct virtio_pci *pci)
{
	pci->config_vector = VIRTIO_MSI_NO_VECTOR;
	for (uint16_t q = 0; q < VIRTIO_QUEUES_MAX; q++)
		pci->queue_vectors[q] = VIRTIO_MSI_NO_VECTOR;
	__atomic_store_n(&pci->isr, 0, __ATOMIC_SEQ_CST);
}

/* 4.1.5.1.2: a vector that is none reads back as NO_VECTOR. */
static uint16_t checked_vector(const struct virtio_pci *pci, uint32_t vector)
{
	return vector < pci->msix.n ? (uint16_t)vector : VIRTIO_MSI_NO_VECTOR;
}

/* ---- common configuration, 4.1.4.3 ---- */

/* The width of the register that begins at `offset`; 0: none does. */
static uint32_t register_width(uint64_t offset)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_STATUS:
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return 1;
	case VIRTIO_PCI_COMMON_MSIX:
	case VIRTIO_PCI_COMMON_NUMQ:
	case VIRTIO_PCI_COMMON_Q_SELECT:
	case VIRTIO_PCI_COMMON_Q_SIZE:
	case VIRTIO_PCI_COMMON_Q_MSIX:
	case VIRTIO_PCI_COMMON_Q_ENABLE:
	case VIRTIO_PCI_COMMON_Q_NOFF:
		return 2;
	case VIRTIO_PCI_COMMON_DFSELECT:
	case VIRTIO_PCI_COMMON_DF:
	case VIRTIO_PCI_COMMON_GFSELECT:
	case VIRTIO_PCI_COMMON_GF:
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		return 4;
	}
	return 0;
}

static uint32_t high(gpa_t address)
{
	return (uint32_t)(address >> 32);
}

/* Of the selected queue. 4.1.4.3: where there is none, its size reads 0. */
static uint32_t read_queue_register(const struct virtio_pci *pci, const struct virtq *vq, uint64_t offset)
{
	uint32_t q = pci->dev->queue_sel;

	if (!vq)
		return offset == VIRTIO_PCI_COMMON_Q_MSIX ? VIRTIO_MSI_NO_VECTOR : 0;
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return vq->size;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		return pci->queue_vectors[q];
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return vq->ready;
	case VIRTIO_PCI_COMMON_Q_NOFF:
		return q;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		return (uint32_t)vq->desc;
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		return high(vq->desc);
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		return (uint32_t)vq->avail;
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		return high(vq->avail);
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		return (uint32_t)vq->used;
	default:
		return high(vq->used);
	}
}

static uint32_t read_common(struct virtio_pci *pci, uint64_t offset)
{
	struct virtio_dev *dev = pci->dev;

	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		return dev->features_sel;
	case VIRTIO_PCI_COMMON_DF:
		return virtio_feature_word(virtio_dev_features(dev), dev->features_sel);
	case VIRTIO_PCI_COMMON_GFSELECT:
		return dev->driver_features_sel;
	case VIRTIO_PCI_COMMON_GF:
		return virtio_feature_word(dev->driver_features, dev->driver_features_sel);
	case VIRTIO_PCI_COMMON_MSIX:
		return pci->config_vector;
	case VIRTIO_PCI_COMMON_NUMQ:
		return dev->ops->n_queues;
	case VIRTIO_PCI_COMMON_STATUS:
		return dev->status;
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return dev->config_generation & 0xff;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		return dev->queue_sel;
	}
	return read_queue_register(pci, virtio_selected_queue(dev), offset);
}

/* 4.1.5.1.3: all of it may change only until the queue is enabled, and enabling cannot be taken back. */
static void write_queue_register(struct virtio_pci *pci, uint64_t offset, uint32_t value)
{
	struct virtq *vq = virtio_selected_queue(pci->dev);

	if (!vq || vq->ready)
		return;
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		virtio_set_queue_size(vq, value);
		break;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		pci->queue_vectors[pci->dev->queue_sel] = checked_vector(pci, value);
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		if (value == 1)
			virtio_set_queue_ready(pci->dev, vq, true);
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		virtio_set_half(&vq->desc, offset == VIRTIO_PCI_COMMON_Q_DESCHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		virtio_set_half(&vq->avail, offset == VIRTIO_PCI_COMMON_Q_AVAILHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		virtio_set_half(&vq->used, offset == VIRTIO_PCI_COMMON_Q_USEDHI, value);
		break;
	}
}

static void write_common(struct virtio_pci *pci, uint64_t offset, uint32_t value)
{
	struct virtio_dev *dev = pci->dev;

	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		dev->features_sel = value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		dev->driver_features_sel = value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		virtio_set_driver_feature_word(dev, value);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		pci->config_vector = checked_vector(pci, value);
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		virtio_dev_set_status(dev, (uint8_t)value);
		if (dev->status == 0)
			forget_vectors(pci);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		dev->queue_sel = value;
		break;
	default:
		write_queue_register(pci, offset, value);
	}
}

/* ---- the BAR ---- */

/* 4.1.3.1: a register is accessed whole; anything else finds nothing there. */
static void read_common_region(struct virtio_pci *pci, uint64_t offset, void *data, uint32_t len)
{
	uint32_t value;

	if (register_width(offset) != len)
		return;
	virtio_dev_enter(pci->dev);
	value = read_common(pci, offset);
	virtio_dev_leave(pci->dev);
	memcpy(data, &value, len);
}

static void write_common_region(struct virtio_pci *pci, uint64_t offset, const void *data, uint32_t len)
{
	uint32_t value = 0;

	if (register_width(offset) != len)
		return;
	memcpy(&value, data, len);
	virtio_dev_enter(pci->dev);
	write_common(pci, offset, value);
	virtio_dev_leave(pci->dev);
}

static void bar_read(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct virtio_pci *pci = ctx;
	uint64_t at = offset % REGION_BYTES;

	memset(data, 0, len);
	switch (offset - at) {
	case REGION_COMMON:
		read_common_region(pci, at, data, len);
		break;
	case REGION_ISR: /* 4.1.4.5: reading clears */
		if (at == 0)
			*(uint8_t *)data = __atomic_exchange_n(&pci->isr, 0, __ATOMIC_SEQ_CST);
		break;
	case REGION_DEVICE:
		virtio_dev_enter(pci->dev);
		virtio_dev_config_read(pci->dev, (uint32_t)at, data, len);
		virtio_dev_leave(pci->dev);
		break;
	case REGION_TABLE:
		msix_table_read(&pci->msix, at, data, len);
		break;
	case REGION_PENDING:
		msix_pending_read(&pci->msix, at, data, len);
		break;
	}
}

static void bar_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	struct virtio_pci *pci = ctx;
	uint64_t at = offset % REGION_BYTES;

	switch (offset - at) {
	case REGION_COMMON:
		write_common_region(pci, at, data, len);
		break;
	case REGION_DEVICE:
		virtio_dev_enter(pci->dev);
		virtio_dev_config_write(pci->dev, (uint32_t)at, data, len);
		virtio_dev_leave(pci->dev);
		break;
	case REGION_NOTIFY: /* where it is an exit: see the window below */
		if (at % NOTIFY_MULTIPLIER == 0)
			virtio_doorbells_ring(&pci->doorbells, (uint32_t)(at / NOTIFY_MULTIPLIER));
		break;
	case REGION_TABLE:
		msix_table_write(&pci->msix, at, data, len);
		break;
	}
}

static void placed(void *ctx, bool mapped, uint32_t base)
{
	struct virtio_pci *pci = ctx;

	for (uint16_t q = 0; q < pci->dev->ops->n_queues; q++) {
		int fd = pci->doorbells.items[q].fd;
		uint64_t offset = REGION_NOTIFY + (uint64_t)q * NOTIFY_MULTIPLIER;

		if (pci->rings)
			pci->ops->disconnect_doorbell(pci->ctx, pci->base + offset, fd);
		if (mapped)
			pci->ops->connect_doorbell(pci->ctx, base + offset, fd);
	}
	pci->rings = mapped;
	pci->base = base;
}

/* ---- configuration space ---- */

/* 4.1.4.9: a window of up to 4 bytes onto the BAR, for who cannot map it. True when the access is one to its data. */
static bool is_window(const struct virtio_pci *pci, uint32_t offset, uint32_t len, uint32_t *ret_bar_offset)
{
	const uint8_t *capability = pci->function.config + pci->window_capability;
	struct virtio_pci_cap window;

	memcpy(&window, capability, sizeof(window));
	*ret_bar_offset = window.offset;
	return offset == pci->window_capability + sizeof(window) && window.length == len && window.bar == 0 &&
	       (len == 1 || len == 2 || len == 4) && window.offset % len == 0 &&
	       range_fits(window.offset, len, VIRTIO_PCI_BAR_BYTES);
}

static bool config_read(void *ctx, uint32_t offset, void *ret, uint32_t len)
{
	struct virtio_pci *pci = ctx;
	uint32_t bar_offset;

	if (!is_window(pci, offset, len, &bar_offset))
		return false;
	bar_read(pci, bar_offset, ret, len);
	return true;
}

static uint16_t message_control(const struct virtio_pci *pci)
{
	uint16_t control;

	memcpy(&control, pci->function.config + pci->msix_capability + PCI_MSIX_FLAGS, sizeof(control));
	return control;
}

static void config_written(void *ctx, uint32_t offset, uint32_t len)
{
	struct virtio_pci *pci = ctx;
	uint32_t bar_offset, control = pci->msix_capability + PCI_MSIX_FLAGS;

	if (is_window(pci, offset, len, &bar_offset))
		bar_write(pci, bar_offset, pci->function.config + offset, len);
	else if (offset < control + 2 && offset + len > control)
		msix_set_control(&pci->msix, message_control(pci));
}

static const struct pci_ops pci_ops = {bar_read, bar_write, placed, config_read, config_written};

static void add_region(struct virtio_pci *pci, uint8_t type, uint32_t offset, uint32_t length)
{
	struct virtio_pci_notify_cap cap = {
		.cap = {.cap_len = sizeof(cap.cap), .cfg_type = type, .offset = offset, .length = length},
		.notify_off_multiplier = NOTIFY_MULTIPLIER,
	};

	if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
		cap.cap.cap_len = sizeof(cap);
	pci_add_capability(&pci->function, PCI_CAP_ID_VNDR, &cap, NULL, cap.cap.cap_len);
}

static void add_window(struct virtio_pci *pci)
{
	static const struct virtio_pci_cfg_cap cap = {
		.cap = {.cap_len = sizeof(cap), .cfg_type = VIRTIO_PCI_CAP_PCI_CFG},
	};
	static const struct virtio_pci_cfg_cap writable = {
		.cap = {.bar = 0xff, .offset = UINT32_MAX, .length = UINT32_MAX},
		.pci_cfg_data = {0xff, 0xff, 0xff, 0xff},
	};

	pci->window_capability = pci_add_capability(&pci->function, PCI_CAP_ID_VNDR, &cap, &writable, sizeof(cap));
}

static void add_msix(struct virtio_pci *pci)
{
	struct {
		uint8_t id, next;
		uint16_t control;
		uint32_t table, pending; /* the low three bits: BAR 0 */
	} cap = {.control = (uint16_t)(pci->msix.n - 1), .table = REGION_TABLE, .pending = REGION_PENDING},
	  writable = {.control = PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL};

	pci->msix_capability = pci_add_capability(&pci->function, PCI_CAP_ID_MSIX, &cap, &writable, sizeof(cap));
}

/* What a guest without a driver shows it as. */
static uint32_t class_code(uint32_t device_id)
{
	switch (device_id) {
	case VIRTIO_ID_NET:
		return 0x020000; /* Ethernet controller */
	case VIRTIO_ID_BLOCK:
		return 0x018000; /* mass storage */
	case VIRTIO_ID_CONSOLE:
		return 0x078000; /* communication controller */
	default:
		return 0xff0000; /* fits no class */
	}
}

static void describe(struct virtio_pci *pci)
{
	uint32_t device_id = pci->dev->ops->device_id;
	struct pci_identity identity = {
		.vendor = VENDOR_ID,
		.device = (uint16_t)(DEVICE_ID_BASE + device_id),
		.subsystem_vendor = VENDOR_ID,
		.subsystem = SUBSYSTEM_ID,
		.revision = 1,
		.class_code = class_code(device_id),
	};

	pci_function_init(&pci->function, &identity, VIRTIO_PCI_BAR_BYTES, &pci_ops, pci);
	add_msix(pci);
	add_region(pci, VIRTIO_PCI_CAP_COMMON_CFG, REGION_COMMON, sizeof(struct virtio_pci_common_cfg));
	add_region(pci, VIRTIO_PCI_CAP_ISR_CFG, REGION_ISR, 1);
	add_region(pci, VIRTIO_PCI_CAP_NOTIFY_CFG, REGION_NOTIFY, NOTIFY_MULTIPLIER * pci->dev->ops->n_queues);
	if (pci->dev->ops->config_size)
		add_region(pci, VIRTIO_PCI_CAP_DEVICE_CFG, REGION_DEVICE, (uint32_t)pci->dev->ops->config_size);
	add_window(pci);
}

/* ---- life ---- */

struct virtio_pci *virtio_pci_new(
	struct virtio_dev *dev, struct loop *loop, const struct virtio_pci_ops *ops, void *ctx, struct error *err)
{
	struct virtio_pci *pci = calloc(1, sizeof(*pci));
	int r;

	if (!pci) {
		error_set_errno(err, ENOMEM, "cannot create a %s device", dev->ops->name);
		virtio_dev_free(dev);
		return NULL;
	}
	pci->dev = dev;
	pci->ops = ops;
	pci->ctx = ctx;
	forget_vectors(pci);
	r = msix_init(&pci->msix, dev->ops->n_queues + 1u, &msix_ops, pci);
	if (r == 0)
		r = virtio_doorbells_init(&pci->doorbells, dev, loop);
	if (r < 0) {
		error_set_errno(err, -r, "cannot create the eventfds of a %s device", dev->ops->name);
		virtio_pci_free(pci);
		return NULL;
	}
	describe(pci);
	dev->transport = &transport;
	dev->transport_ctx = pci;
	return pci;
}

void virtio_pci_free(struct virtio_pci *pci)
{
	if (!pci)
		return;
	virtio_doorbells_silence(&pci->doorbells);
	virtio_dev_free(pci->dev); /* may interrupt once more */
	virtio_doorbells_done(&pci->doorbells);
	msix_done(&pci->msix);
	free(pci);
}

struct pci_function *virtio_pci_function(struct virtio_pci *pci)
{
	return &pci->function;
}

void virtio_pci_save(struct virtio_pci *pci, struct state_writer *w)
{
	state_begin(w, STATE_NAME, STATE_VERSION);
	pci_function_save(&pci->function, w);
	msix_save(&pci->msix, w);
	state_put_u8(w, __atomic_load_n(&pci->isr, __ATOMIC_SEQ_CST));
	state_put_u16(w, pci->config_vector);
	for (uint16_t q = 0; q < pci->dev->ops->n_queues; q++)
		state_put_u16(w, pci->queue_vectors[q]);
	state_end(w);
	virtio_dev_save(pci->dev, w);
}

int virtio_pci_load(struct virtio_pci *pci, struct state_reader *r, struct error *err)
{
	int result = state_begin_section(r, STATE_NAME, STATE_VERSION, err);

	if (result < 0)
		return result;
	pci_function_load(&pci->function, r);
	msix_load(&pci->msix, r);
	__atomic_store_n(&pci->isr, state_get_u8(r), __ATOMIC_SEQ_CST);
	pci->config_vector = checked_vector(pci, state_get_u16(r));
	for (uint16_t q = 0; q < pci->dev->ops->n_queues; q++)
		pci->queue_vectors[q] = checked_vector(pci, state_get_u16(r));
	result = state_end_section(r, err);
	if (result == 0)
		result = virtio_dev_load(pci->dev, r, err);
	if (result == 0)
		msix_set_control(&pci->msix, message_control(pci));
	return result;
}
