/* A guest at the three doors of the PCI bus, with a virtio device behind it that moves, interrupts, is saved and loaded
 * meanwhile. Whatever it does, doorbells and vectors are disconnected as often as they are connected.
 *
 * Input: guest memory's first bytes, then steps of 14 bytes:
 *	u8 door (0 ports, 1 ECAM, 2 memory; 3 the device interrupts, 4 it is saved and loaded, 5 the loop runs), u8 log2 of the length,
 *	u32 offset, u64 value; bit 7 of the door: a read */
#include "tests/fuzz/fuzz.h"

#include "common/checked.h"
#include "devices/virtio_pci.h"
#include "devices/virtio_rng.h"

#include <errno.h>
#include <string.h>

#define MEMORY_BYTES 0x10000u
#define INPUT_MEMORY 0x400u
#define STEPS_MAX    400
#define BASE	     0xd8000000u
#define SLOT	     1

struct step {
	uint8_t door, log2_len;
	uint32_t offset;
	uint64_t value;
} __attribute__((packed));

struct world {
	struct gmem mem;
	uint8_t *ram;
	struct loop *loop;
	struct pci_bus bus;
	struct virtio_pci *pci;
	struct virtio_dev *dev;
	unsigned doorbells, vectors;
};

static void connect_doorbell(void *ctx, uint64_t address, int fd)
{
	(void)address;
	CHECK(fd >= 0);
	((struct world *)ctx)->doorbells++;
}

static void disconnect_doorbell(void *ctx, uint64_t address, int fd)
{
	struct world *w = ctx;

	(void)address;
	CHECK(fd >= 0 && w->doorbells > 0);
	w->doorbells--;
}

static int connect_vector(void *ctx, unsigned vector, int fd, uint64_t address, uint32_t data)
{
	(void)fd;
	CHECK(vector < 2);
	if (data == 0xffffffff && address == 0xffffffffffffffff)
		return -EINVAL;
	((struct world *)ctx)->vectors++;
	return 0;
}

static void disconnect_vector(void *ctx, unsigned vector, int fd)
{
	struct world *w = ctx;

	(void)vector;
	(void)fd;
	CHECK(w->vectors > 0);
	w->vectors--;
}

static const struct virtio_pci_ops ops = {connect_doorbell, disconnect_doorbell, connect_vector, disconnect_vector};

static void plug(struct world *w)
{
	struct error err;

	w->dev = virtio_rng_new(NULL, w->loop, &w->mem, &err);
	CHECK(w->dev);
	w->pci = virtio_pci_new(w->dev, w->loop, &ops, w, &err);
	CHECK(w->pci);
	pci_bus_plug(&w->bus, SLOT, virtio_pci_function(w->pci), BASE);
}

static void unplug(struct world *w)
{
	pci_bus_unplug(&w->bus, SLOT);
	CHECK(w->doorbells == 0);
	virtio_pci_free(w->pci);
	CHECK(w->vectors == 0);
}

/* `flaw` turns bits of what was saved. */
static void move_device(struct world *w, uint32_t offset, uint8_t flaw)
{
	struct state_writer state;
	struct state_reader reader;
	struct error err;

	state_writer_init(&state);
	virtio_dev_quiesce(w->dev);
	virtio_pci_save(w->pci, &state);
	unplug(w);
	plug(w);
	((uint8_t *)state.buf.data)[offset % state.buf.len] ^= flaw;
	state_reader_init(&reader, state.buf.data, state.buf.len);
	if (virtio_pci_load(w->pci, &reader, &err) == 0)
		virtio_dev_resume(w->dev);
	state_writer_done(&state);
}

static void run_step(struct world *w, const struct step *step)
{
	uint32_t len = 1u << step->log2_len % 4;
	bool read = step->door & 0x80;
	uint64_t value = step->value;

	switch (step->door & 0x7f) {
	case 0:
		if (read)
			pci_bus_port_read(&w->bus, step->offset % PCI_PORTS, &value, len);
		else
			pci_bus_port_write(&w->bus, step->offset % PCI_PORTS, &value, len);
		break;
	case 1:
		if (read)
			pci_bus_ecam_read(&w->bus, step->offset % PCI_ECAM_BYTES, &value, len);
		else
			pci_bus_ecam_write(&w->bus, step->offset % PCI_ECAM_BYTES, &value, len);
		break;
	case 2:
		if (read)
			pci_bus_memory_read(&w->bus, BASE + (uint64_t)step->offset, &value, len);
		else
			pci_bus_memory_write(&w->bus, BASE + (uint64_t)step->offset, &value, len);
		break;
	case 3:
		virtio_dev_enter(w->dev);
		if (step->offset & 1)
			virtio_dev_interrupt(w->dev, 0);
		else
			virtio_dev_config_changed(w->dev);
		virtio_dev_leave(w->dev);
		break;
	case 4:
		move_device(w, step->offset, (uint8_t)value);
		break;
	case 5:
		fuzz_run_loop(w->loop);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct world w = {0};
	size_t used = len < INPUT_MEMORY ? len : INPUT_MEMORY;
	struct step step;

	w.ram = fuzz_guest_memory(&w.mem, 0, MEMORY_BYTES, 1);
	memcpy(w.ram, data, used);
	w.loop = loop_new();
	CHECK(w.loop);
	pci_bus_init(&w.bus);
	plug(&w);
	for (unsigned n = 0; n < STEPS_MAX && len - used >= sizeof(step); n++, used += sizeof(step)) {
		memcpy(&step, data + used, sizeof(step));
		run_step(&w, &step);
	}
	fuzz_run_loop(w.loop);
	unplug(&w);
	pci_bus_done(&w.bus);
	loop_free(w.loop);
	munmap(w.ram - MEMORY_BYTES, 3 * MEMORY_BYTES);
	return 0;
}
