/* The PCI bus, MSI-X and the virtio transport on them, driven as a guest drives them: through configuration space and the BAR. */
#include "tests/unit/virtio_probe.h"
#include "tests/unit/virtq_driver.h"

#include "devices/msix.h"
#include "devices/pci_hotplug.h"
#include "devices/virtio_pci.h"

#include <errno.h>
#include <linux/pci.h>
#include <linux/virtio_pci.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define SLOT	3
#define BASE	0xd8000000u

/* ---- the owner's side: what is connected where ---- */

struct fixture {
	struct loop *loop;
	struct guest g;
	struct probe *probe;
	struct pci_bus bus;
	struct virtio_pci *pci;
	struct driver_queue q[2];
	uint64_t doorbells[2]; /* by the order of connecting; 0: not connected */
	unsigned n_doorbells;
	uint64_t message_address[3];
	uint32_t message_data[3];
	bool connected[3];
	unsigned connects;
	int connect_result;
	bool freed;
	struct error err;
};

static void connect_doorbell(void *ctx, uint64_t address, int fd)
{
	struct fixture *f = ctx;

	(void)fd;
	assert_true(f->n_doorbells < 2);
	f->doorbells[f->n_doorbells++] = address;
}

static void disconnect_doorbell(void *ctx, uint64_t address, int fd)
{
	struct fixture *f = ctx;

	(void)fd;
	for (unsigned i = 0; i < f->n_doorbells; i++) {
		if (f->doorbells[i] == address) {
			f->doorbells[i] = f->doorbells[--f->n_doorbells];
			return;
		}
	}
	fail_msg("no doorbell at %#llx", (unsigned long long)address);
}

static int connect_vector(void *ctx, unsigned vector, int fd, uint64_t address, uint32_t data)
{
	struct fixture *f = ctx;

	(void)fd;
	assert_false(f->connected[vector]);
	f->connects++;
	if (f->connect_result < 0)
		return f->connect_result;
	f->connected[vector] = true;
	f->message_address[vector] = address;
	f->message_data[vector] = data;
	return 0;
}

static void disconnect_vector(void *ctx, unsigned vector, int fd)
{
	struct fixture *f = ctx;

	(void)fd;
	assert_true(f->connected[vector]);
	f->connected[vector] = false;
}

static const struct virtio_pci_ops ops = {connect_doorbell, disconnect_doorbell, connect_vector, disconnect_vector};

static void make(struct fixture *f)
{
	f->probe = new_probe(&f->g.mem, &f->freed);
	f->pci = virtio_pci_new(&f->probe->dev, f->loop, &ops, f, &f->err);
	assert_non_null(f->pci);
	pci_bus_plug(&f->bus, SLOT, virtio_pci_function(f->pci), BASE);
}

static void unmake(struct fixture *f)
{
	pci_bus_unplug(&f->bus, SLOT);
	assert_int_equal(f->n_doorbells, 0);
	virtio_pci_free(f->pci);
	for (unsigned i = 0; i < 3; i++)
		assert_false(f->connected[i]);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->loop = loop_new();
	guest_init(&f->g, 1 << 20);
	pci_bus_init(&f->bus);
	make(f);
	driver_queue_init(&f->q[0], &f->g, 64);
	driver_queue_init(&f->q[1], &f->g, 128);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	unmake(f);
	pci_bus_done(&f->bus);
	loop_free(f->loop);
	guest_done(&f->g);
	free(f);
	return 0;
}

/* ---- the guest's side ---- */

static uint32_t cfg(struct fixture *f, uint32_t offset, uint32_t len)
{
	uint32_t value = 0;

	pci_bus_ecam_read(&f->bus, (SLOT << 15) + offset, &value, len);
	return value;
}

static void set_cfg(struct fixture *f, uint32_t offset, uint32_t value, uint32_t len)
{
	pci_bus_ecam_write(&f->bus, (SLOT << 15) + offset, &value, len);
}

static uint32_t port(struct fixture *f, uint32_t address)
{
	uint32_t value = 0;

	pci_bus_port_write(&f->bus, 0, &address, 4);
	pci_bus_port_read(&f->bus, 4, &value, 4);
	return value;
}

static uint64_t rd(struct fixture *f, uint64_t offset, uint32_t len)
{
	uint64_t value = 0;

	pci_bus_memory_read(&f->bus, BASE + offset, &value, len);
	return value;
}

static void wr(struct fixture *f, uint64_t offset, uint64_t value, uint32_t len)
{
	pci_bus_memory_write(&f->bus, BASE + offset, &value, len);
}

static void decode(struct fixture *f)
{
	set_cfg(f, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
}

/* The offset of the capability of this id; of a virtio one, of this type. */
static uint32_t capability(struct fixture *f, uint8_t id, uint8_t type)
{
	uint32_t at = cfg(f, PCI_CAPABILITY_LIST, 1);

	for (unsigned n = 0; at && n < 48; n++, at = cfg(f, at + PCI_CAP_LIST_NEXT, 1))
		if (cfg(f, at, 1) == id && (id != PCI_CAP_ID_VNDR || cfg(f, at + 3, 1) == type))
			return at;
	return 0;
}

static void set_queue(struct fixture *f, uint16_t q)
{
	const struct driver_queue *queue = &f->q[q];

	wr(f, VIRTIO_PCI_COMMON_Q_SELECT, q, 2);
	wr(f, VIRTIO_PCI_COMMON_Q_SIZE, queue->size, 2);
	wr(f, VIRTIO_PCI_COMMON_Q_MSIX, q + 1u, 2);
	wr(f, VIRTIO_PCI_COMMON_Q_DESCLO, queue->desc, 4);
	wr(f, VIRTIO_PCI_COMMON_Q_DESCHI, 0, 4);
	wr(f, VIRTIO_PCI_COMMON_Q_AVAILLO, queue->avail, 4);
	wr(f, VIRTIO_PCI_COMMON_Q_AVAILHI, 0, 4);
	wr(f, VIRTIO_PCI_COMMON_Q_USEDLO, queue->used, 4);
	wr(f, VIRTIO_PCI_COMMON_Q_USEDHI, 0, 4);
	wr(f, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
}

static void start(struct fixture *f)
{
	decode(f);
	wr(f, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	wr(f, VIRTIO_PCI_COMMON_STATUS, 1, 1);
	wr(f, VIRTIO_PCI_COMMON_STATUS, 3, 1);
	wr(f, VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
	wr(f, VIRTIO_PCI_COMMON_GF, 1, 4); /* VERSION_1 */
	wr(f, VIRTIO_PCI_COMMON_STATUS, 11, 1);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_STATUS, 1), 11);
	wr(f, VIRTIO_PCI_COMMON_MSIX, 0, 2);
	set_queue(f, 0);
	set_queue(f, 1);
	wr(f, VIRTIO_PCI_COMMON_STATUS, 15, 1);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_STATUS, 1), 15);
}

static void set_entry(struct fixture *f, unsigned vector, uint64_t address, uint32_t data, bool masked)
{
	wr(f, 0x4000 + vector * 16, address, 8);
	wr(f, 0x4008 + vector * 16, data, 4);
	wr(f, 0x400c + vector * 16, masked, 4);
}

static void enable_msix(struct fixture *f, uint16_t control)
{
	set_cfg(f, capability(f, PCI_CAP_ID_MSIX, 0) + PCI_MSIX_FLAGS, control, 2);
}

static void interrupt(struct fixture *f, uint16_t q)
{
	virtio_dev_enter(&f->probe->dev);
	virtio_dev_interrupt(&f->probe->dev, q);
	virtio_dev_leave(&f->probe->dev);
}

static uint64_t count(struct fixture *f, uint16_t q)
{
	uint64_t n = 0;
	int fd;

	virtio_dev_enter(&f->probe->dev);
	fd = f->probe->dev.transport->call_fd(f->probe->dev.transport_ctx, q);
	virtio_dev_leave(&f->probe->dev);
	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

/* ---- configuration space ---- */

static void both_ways_find_the_same(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(cfg(f, PCI_VENDOR_ID, 4), 0x1af4u | (0x1040u + PROBE_DEVICE_ID) << 16);
	assert_int_equal(cfg(f, PCI_REVISION_ID, 1), 1);
	assert_true(cfg(f, PCI_SUBSYSTEM_ID, 2) >= 0x40);
	assert_int_equal(port(f, 0x80000000u | SLOT << 11), cfg(f, 0, 4));
	assert_int_equal(port(f, 0x80000000u), 0x00081b36u);		  /* the bridge */
	assert_int_equal(port(f, SLOT << 11), UINT32_MAX);		  /* not enabled */
	assert_int_equal(port(f, 0x80010000u | SLOT << 11), UINT32_MAX);  /* another bus */
	assert_int_equal(port(f, 0x80000100u | SLOT << 11), UINT32_MAX);  /* another function */
	assert_int_equal(port(f, 0x80000000u | (SLOT + 1) << 11), UINT32_MAX); /* an empty slot */
	assert_int_equal(cfg(f, 0x100, 4), 0); /* no extended capabilities */
	assert_int_equal(cfg(f, 254, 4), 0);   /* across the end */
}

static void what_is_fixed_stays_and_the_bar_tells_its_size(void **state)
{
	struct fixture *f = *state;
	uint32_t id = cfg(f, 0, 4);

	set_cfg(f, 0, 0xffffffff, 4);
	set_cfg(f, PCI_STATUS, 0, 2);
	assert_int_equal(cfg(f, 0, 4), id);
	assert_int_equal(cfg(f, PCI_STATUS, 2), PCI_STATUS_CAP_LIST);
	assert_int_equal(cfg(f, PCI_BASE_ADDRESS_0, 4), BASE);
	set_cfg(f, PCI_BASE_ADDRESS_0, 0xffffffff, 4);
	assert_int_equal(cfg(f, PCI_BASE_ADDRESS_0, 4), ~(VIRTIO_PCI_BAR_BYTES - 1));
	for (uint32_t bar = PCI_BASE_ADDRESS_1; bar <= PCI_BASE_ADDRESS_5; bar += 4) {
		set_cfg(f, bar, 0xffffffff, 4);
		assert_int_equal(cfg(f, bar, 4), 0);
	}
	set_cfg(f, PCI_BASE_ADDRESS_0, BASE, 4);
}

static void registers_and_doorbells_move_with_the_bar(void **state)
{
	struct fixture *f = *state;
	uint32_t value = 0;

	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_NUMQ, 2), 0xffff); /* not decoded yet */
	assert_int_equal(f->n_doorbells, 0);
	decode(f);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_NUMQ, 2), 2);
	assert_int_equal(f->doorbells[0], BASE + 0x3000);
	assert_int_equal(f->doorbells[1], BASE + 0x3004);
	set_cfg(f, PCI_BASE_ADDRESS_0, BASE + 0x10000, 4);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_NUMQ, 2), 0xffff);
	pci_bus_memory_read(&f->bus, BASE + 0x10000 + VIRTIO_PCI_COMMON_NUMQ, &value, 2);
	assert_int_equal(value, 2);
	assert_int_equal(f->n_doorbells, 2);
	assert_true(f->doorbells[0] + f->doorbells[1] == 2 * (BASE + 0x13000ull) + 4);
	set_cfg(f, PCI_COMMAND, 0, 2);
	assert_int_equal(f->n_doorbells, 0);
}

static void capabilities_tell_where_everything_is(void **state)
{
	static const struct {
		uint8_t type;
		uint32_t offset;
	} regions[] = {{VIRTIO_PCI_CAP_COMMON_CFG, 0}, {VIRTIO_PCI_CAP_ISR_CFG, 0x1000},
		{VIRTIO_PCI_CAP_DEVICE_CFG, 0x2000}, {VIRTIO_PCI_CAP_NOTIFY_CFG, 0x3000}, {VIRTIO_PCI_CAP_PCI_CFG, 0}};
	struct fixture *f = *state;
	uint32_t at;

	for (size_t i = 0; i < ARRAY_SIZE(regions); i++) {
		at = capability(f, PCI_CAP_ID_VNDR, regions[i].type);
		assert_true(at);
		assert_int_equal(cfg(f, at + 4, 1), 0); /* BAR 0 */
		assert_int_equal(cfg(f, at + 8, 4), regions[i].offset);
	}
	at = capability(f, PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_NOTIFY_CFG);
	assert_int_equal(cfg(f, at + 16, 4), 4); /* bytes between doorbells */
	at = capability(f, PCI_CAP_ID_MSIX, 0);
	assert_int_equal(cfg(f, at + PCI_MSIX_FLAGS, 2), 2); /* three vectors */
	assert_int_equal(cfg(f, at + PCI_MSIX_TABLE, 4), 0x4000);
	assert_int_equal(cfg(f, at + PCI_MSIX_PBA, 4), 0x5000);
}

/* 4.1.4.9 */
static void the_window_reaches_the_bar_without_mapping_it(void **state)
{
	struct fixture *f = *state;
	uint32_t at = capability(f, PCI_CAP_ID_VNDR, VIRTIO_PCI_CAP_PCI_CFG);

	set_cfg(f, at + 8, VIRTIO_PCI_COMMON_STATUS, 4);
	set_cfg(f, at + 12, 1, 4);
	set_cfg(f, at + 16, 1, 1);
	assert_int_equal(f->probe->dev.status, VIRTIO_STATUS_ACKNOWLEDGE);
	assert_int_equal(cfg(f, at + 16, 1), VIRTIO_STATUS_ACKNOWLEDGE);
	/* Beyond the end, of another width, misaligned, another BAR: nothing. */
	set_cfg(f, at + 8, VIRTIO_PCI_BAR_BYTES, 4);
	set_cfg(f, at + 16, 3, 1);
	set_cfg(f, at + 8, VIRTIO_PCI_COMMON_STATUS, 4);
	set_cfg(f, at + 12, 0xffffffff, 4);
	set_cfg(f, at + 16, 3, 4);
	set_cfg(f, at + 12, 2, 4);
	set_cfg(f, at + 8, 1, 4);
	set_cfg(f, at + 16, 3, 2);
	set_cfg(f, at + 4, 2, 1);
	set_cfg(f, at + 8, VIRTIO_PCI_COMMON_STATUS, 4);
	set_cfg(f, at + 12, 1, 4);
	set_cfg(f, at + 16, 3, 1);
	assert_int_equal(f->probe->dev.status, VIRTIO_STATUS_ACKNOWLEDGE);
}

/* ---- virtio's registers ---- */

static void a_driver_comes_up_and_goes_down(void **state)
{
	struct fixture *f = *state;

	start(f);
	assert_true(f->probe->dev.active);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_DF, 4) & 1u << PROBE_FEATURE, 1u << PROBE_FEATURE);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_NOFF, 2), 1);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_DESCLO, 4), f->q[1].desc);
	/* An enabled queue is not changed any more, nor taken away (4.1.4.3.2). */
	wr(f, VIRTIO_PCI_COMMON_Q_DESCLO, 0, 4);
	wr(f, VIRTIO_PCI_COMMON_Q_SIZE, 8, 2);
	wr(f, VIRTIO_PCI_COMMON_Q_MSIX, 0, 2);
	wr(f, VIRTIO_PCI_COMMON_Q_ENABLE, 0, 2);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_DESCLO, 4), f->q[1].desc);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 128);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), 2);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	wr(f, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	assert_int_equal(f->probe->was_reset, 1);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
	wr(f, VIRTIO_PCI_COMMON_Q_SELECT, 1, 2);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
}

static void registers_are_accessed_whole(void **state)
{
	struct fixture *f = *state;

	decode(f);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_NUMQ, 1), 0);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_NUMQ, 4), 0);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_NUMQ + 1, 2), 0);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_STATUS, 8), 0);
	wr(f, VIRTIO_PCI_COMMON_STATUS, 1, 2);
	wr(f, VIRTIO_PCI_COMMON_STATUS, 1, 4);
	assert_int_equal(f->probe->dev.status, 0);
	for (uint64_t offset = 0; offset < VIRTIO_PCI_BAR_BYTES; offset++) {
		for (uint32_t len = 1; len <= 8; len *= 2) {
			wr(f, offset, UINT64_MAX, len); /* nothing of it may do harm */
			rd(f, offset, len);
		}
	}
	wr(f, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	wr(f, VIRTIO_PCI_COMMON_Q_SELECT, 7, 2); /* there is none */
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
	wr(f, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	/* Vectors beyond the table read back as none (4.1.5.1.2.1). */
	wr(f, VIRTIO_PCI_COMMON_MSIX, 3, 2);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_MSIX, 2), VIRTIO_MSI_NO_VECTOR);
}

static void device_configuration(void **state)
{
	struct fixture *f = *state;

	decode(f);
	memcpy(f->probe->config, "configspace", 12);
	assert_int_equal(rd(f, 0x2000, 4), 0x666e6f63);
	assert_int_equal(rd(f, 0x200a, 4), 0); /* across its end */
	wr(f, 0x2001, 'O', 1);
	assert_int_equal(f->probe->config[1], 'O');
}

/* ---- interrupts ---- */

static void a_message_is_sent_while_its_vector_is_open(void **state)
{
	struct fixture *f = *state;

	start(f);
	set_entry(f, 1, 0xfee00000, 0x31, false);
	assert_int_equal(f->connects, 0);
	enable_msix(f, PCI_MSIX_FLAGS_ENABLE);
	assert_true(f->connected[1] && !f->connected[0] && !f->connected[2]);
	assert_int_equal(f->message_address[1], 0xfee00000);
	assert_int_equal(f->message_data[1], 0x31);
	interrupt(f, 0);
	assert_int_equal(count(f, 0), 1);
	assert_int_equal(rd(f, 0x1000, 1), 0); /* no ISR with messages */
	/* Another message, and then none. */
	set_entry(f, 1, 0xfee01000, 0x32, false);
	assert_int_equal(f->message_address[1], 0xfee01000);
	enable_msix(f, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	assert_false(f->connected[1]);
	enable_msix(f, 0);
	assert_false(f->connected[1]);
	interrupt(f, 0);
	interrupt(f, VIRTIO_INTERRUPT_CONFIG);
	assert_int_equal(rd(f, 0x1000, 1), 3);
	assert_int_equal(rd(f, 0x1000, 1), 0); /* reading has cleared it */
}

static void what_comes_while_masked_is_pending_and_then_sent_once(void **state)
{
	struct fixture *f = *state;

	start(f);
	enable_msix(f, PCI_MSIX_FLAGS_ENABLE);
	set_entry(f, 2, 0xfee00000, 0x33, true);
	assert_int_equal(rd(f, 0x5000, 8), 0);
	interrupt(f, 1);
	interrupt(f, 1);
	assert_int_equal(rd(f, 0x5000, 8), 1u << 2);
	assert_int_equal(rd(f, 0x5000, 4), 1u << 2);
	wr(f, 0x400c + 32, 0, 4);
	assert_true(f->connected[2]);
	assert_int_equal(count(f, 1), 1); /* for KVM to take */
	assert_int_equal(rd(f, 0x5000, 8), 0);
	wr(f, 0x400c + 32, 1, 4);
	assert_int_equal(rd(f, 0x5000, 8), 0);
}

static void a_message_that_the_host_refuses_stays_pending(void **state)
{
	struct fixture *f = *state;

	start(f);
	enable_msix(f, PCI_MSIX_FLAGS_ENABLE);
	f->connect_result = -ENOSPC;
	set_entry(f, 1, 0xfee00000, 0x33, false);
	interrupt(f, 0);
	assert_int_equal(rd(f, 0x5000, 8), 1u << 1);
	f->connect_result = 0;
	wr(f, 0x400c + 16, 0, 4); /* the driver tries again */
	assert_true(f->connected[1]);
	assert_int_equal(count(f, 0), 1);
}

static void doorbells_as_exits_ring_on_the_loop(void **state)
{
	struct fixture *f = *state;
	struct driver d = {.dev = &f->probe->dev, .loop = f->loop};

	start(f);
	wr(f, 0x3004, 1, 2);
	wr(f, 0x3008, 1, 2); /* no such queue */
	wr(f, 0x3001, 1, 2);
	assert_int_equal(f->probe->doorbells[1], 0);
	driver_run_rounds(&d, 2);
	assert_int_equal(f->probe->doorbells[0], 0);
	assert_int_equal(f->probe->doorbells[1], 1);
	/* A device that has handed the descriptor on is not rung. */
	f->probe->dev.transport->listen(f->probe->dev.transport_ctx, 1, false);
	wr(f, 0x3004, 1, 2);
	driver_run_rounds(&d, 2);
	assert_int_equal(f->probe->doorbells[1], 1);
	f->probe->dev.transport->listen(f->probe->dev.transport_ctx, 1, true);
	wr(f, 0x3004, 1, 2);
	driver_run_rounds(&d, 2);
	assert_int_equal(f->probe->doorbells[1], 2);
}

/* ---- save and load ---- */

static void a_running_device_moves(void **state)
{
	struct fixture *f = *state;
	struct state_writer w;
	struct state_reader r;

	start(f);
	set_entry(f, 1, 0xfee00000, 0x31, false);
	set_entry(f, 2, 0xfee00000, 0x32, true);
	enable_msix(f, PCI_MSIX_FLAGS_ENABLE);
	interrupt(f, 1); /* pending */
	f->probe->own_state = 77;
	state_writer_init(&w);
	virtio_dev_quiesce(&f->probe->dev);
	virtio_pci_save(f->pci, &w);
	unmake(f);
	make(f);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(virtio_pci_load(f->pci, &r, &f->err), 0);
	assert_int_equal(f->probe->own_state, 77);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_STATUS, 1), 15); /* it is where it was */
	assert_int_equal(f->n_doorbells, 2);
	assert_true(f->connected[1] && !f->connected[2]);
	assert_int_equal(rd(f, 0x5000, 8), 1u << 2);
	wr(f, VIRTIO_PCI_COMMON_Q_SELECT, 1, 2);
	assert_int_equal(rd(f, VIRTIO_PCI_COMMON_Q_MSIX, 2), 2);
	state_writer_done(&w);
}

static void a_damaged_state_is_refused(void **state)
{
	struct fixture *f = *state;
	struct state_writer w;
	struct state_reader r;

	state_writer_init(&w);
	virtio_pci_save(f->pci, &w);
	for (size_t len = 0; len < w.buf.len; len += 7) {
		state_reader_init(&r, w.buf.data, len);
		assert_true(virtio_pci_load(f->pci, &r, &f->err) < 0);
	}
	state_writer_done(&w);
}

/* ---- hot-plug registers ---- */

static uint32_t ejected_slots;

static void on_ejected(void *ctx, uint32_t slots)
{
	(void)ctx;
	ejected_slots |= slots;
}

static uint32_t hp(struct pci_hotplug *dev, uint64_t offset, uint32_t len)
{
	uint32_t value = 0xa5a5a5a5;

	pci_hotplug_read(dev, offset, &value, len);
	return value;
}

static void slots_are_told_once_and_given_back(void **state)
{
	struct pci_hotplug *dev = pci_hotplug_new(on_ejected, NULL), *other = pci_hotplug_new(on_ejected, NULL);
	const uint32_t slots = 1u << 5;
	struct error err = {0};
	struct state_writer w;
	struct state_reader r;

	(void)state;
	pci_hotplug_plugged(dev, 5);
	pci_hotplug_plugged(dev, 31);
	pci_hotplug_ask(dev, 1);
	assert_int_equal(hp(dev, PCI_HOTPLUG_OFFSET_PLUGGED, 2) & 0xffff, 0); /* in part: nothing, and nothing lost */
	state_writer_init(&w);
	pci_hotplug_save(dev, &w);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(pci_hotplug_load(other, &r, &err), 0);
	state_writer_done(&w);
	assert_int_equal(hp(other, PCI_HOTPLUG_OFFSET_PLUGGED, 4), 1u << 31 | 1u << 5);
	assert_int_equal(hp(dev, PCI_HOTPLUG_OFFSET_PLUGGED, 4), 1u << 31 | 1u << 5);
	assert_int_equal(hp(dev, PCI_HOTPLUG_OFFSET_PLUGGED, 4), 0);
	assert_int_equal(hp(dev, PCI_HOTPLUG_OFFSET_ASKED, 4), 1u << 1);
	assert_int_equal(hp(dev, PCI_HOTPLUG_OFFSET_EJECT, 4), 0);
	pci_hotplug_write(dev, PCI_HOTPLUG_OFFSET_EJECT, &slots, 2);
	pci_hotplug_write(dev, PCI_HOTPLUG_OFFSET_PLUGGED, &slots, 4);
	assert_int_equal(ejected_slots, 0);
	pci_hotplug_write(dev, PCI_HOTPLUG_OFFSET_EJECT, &slots, 4);
	assert_int_equal(ejected_slots, slots);
	pci_hotplug_free(dev);
	pci_hotplug_free(other);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(both_ways_find_the_same),
		TEST(what_is_fixed_stays_and_the_bar_tells_its_size),
		TEST(registers_and_doorbells_move_with_the_bar),
		TEST(capabilities_tell_where_everything_is),
		TEST(the_window_reaches_the_bar_without_mapping_it),
		TEST(a_driver_comes_up_and_goes_down),
		TEST(registers_are_accessed_whole),
		TEST(device_configuration),
		TEST(a_message_is_sent_while_its_vector_is_open),
		TEST(what_comes_while_masked_is_pending_and_then_sent_once),
		TEST(a_message_that_the_host_refuses_stays_pending),
		TEST(doorbells_as_exits_ring_on_the_loop),
		TEST(a_running_device_moves),
		TEST(a_damaged_state_is_refused),
		cmocka_unit_test(slots_are_told_once_and_given_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
