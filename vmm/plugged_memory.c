/* The memory behind virtio-mem: plugged and unplugged where three must agree, the host's mapping, KVM, and lookups. */
#include "vmm/plugged_memory.h"

#include "common/checked.h"
#include "vmm/ram.h"
#include "vmm/vm.h"

#include <errno.h>
#include <string.h>

#define FIELD "total_size_mib"

static uint64_t n_slots(const struct plugged_memory *m)
{
	return m->config.ram->plug_bytes / m->config.slot_bytes;
}

/* Whether any block of a slot is there. */
static bool is_slot_used(const struct plugged_memory *m, uint64_t slot)
{
	uint64_t per_slot = m->config.slot_bytes / m->config.block_bytes;
	bool used = false;

	for (uint64_t block = slot * per_slot; block < (slot + 1) * per_slot && !used; block++)
		used = m->blocks[block / 64] >> (block % 64) & 1;
	return used;
}

/* Where KVM cannot, a slot stays: the host's mapping is what keeps the guest out then. */
static void remove_unused_slots(struct plugged_memory *m, uint64_t offset, uint64_t len)
{
	for (uint64_t slot = offset / m->config.slot_bytes; slot * m->config.slot_bytes < offset + len; slot++)
		if (m->slots[slot] >= 0 && !is_slot_used(m, slot) && vm_remove_slot(m->config.vm, m->slots[slot]) == 0)
			m->slots[slot] = -1;
}

static int add_slots(struct plugged_memory *m, uint64_t offset, uint64_t len)
{
	struct error err;
	int r = 0;

	for (uint64_t slot = offset / m->config.slot_bytes; slot * m->config.slot_bytes < offset + len && r >= 0; slot++) {
		struct gmem_region region = {
			.gpa = m->gpa + slot * m->config.slot_bytes,
			.size_bytes = m->config.slot_bytes,
			.host = m->config.ram->plug_host + slot * m->config.slot_bytes,
		};

		if (m->slots[slot] >= 0)
			continue;
		r = vm_add_slot(m->config.vm, &region, &err);
		if (r >= 0)
			m->slots[slot] = r;
	}
	if (r < 0)
		remove_unused_slots(m, offset, len);
	return r < 0 ? r : 0;
}

static int plug(void *ctx, uint64_t offset, uint64_t len)
{
	struct plugged_memory *m = ctx;
	int r = ram_plug(m->config.ram, offset, len);

	if (r < 0)
		return r;
	r = add_slots(m, offset, len);
	if (r < 0)
		ram_unplug(m->config.ram, offset, len);
	else
		gmem_set_blocks(&m->config.ram->mem, m->gpa, offset, len, true);
	return r;
}

/* Hidden first, then asked for, then gone: devices/gmem.h. */
static int unplug(void *ctx, uint64_t offset, uint64_t len)
{
	struct plugged_memory *m = ctx;
	struct gmem *mem = &m->config.ram->mem;
	int r;

	gmem_set_blocks(mem, m->gpa, offset, len, false);
	r = m->config.is_held(m->config.ctx, m->config.ram->plug_host + offset, len) ? -EBUSY : 0;
	if (r == 0)
		r = ram_unplug(m->config.ram, offset, len);
	if (r < 0)
		gmem_set_blocks(mem, m->gpa, offset, len, true);
	else
		remove_unused_slots(m, offset, len);
	return r;
}

const struct virtio_mem_ops plugged_memory_ops = {plug, unplug};

static int place(struct plugged_memory *m, struct error *err)
{
	struct ram *ram = m->config.ram;
	struct gmem_region region = {
		.size_bytes = ram->plug_bytes,
		.host = ram->plug_host,
		.kind = GMEM_DEVICE,
		.fd = ram->fd,
		.fd_offset = ram->plug_fd_offset,
		.blocks = m->blocks,
		.block_bytes = m->config.block_bytes,
	};
	int r = vm_place(m->config.vm, &ram->mem, ram->plug_bytes, m->config.block_bytes, &m->gpa, err);

	if (r < 0)
		return error_in_field(err, FIELD);
	region.gpa = m->gpa;
	r = gmem_add_region(&ram->mem, &region);
	if (r < 0)
		return error_set_field(err, -r, FIELD, "the machine has no room for more memory: %s", strerror(-r));
	m->in_gmem = true;
	return 0;
}

struct plugged_memory *plugged_memory_new(const struct plugged_memory_config *config, struct error *err)
{
	cleanup(plugged_memory_free_p) struct plugged_memory *m = calloc(1, sizeof(*m));

	if (m) {
		m->config = *config;
		m->blocks = calloc((config->ram->plug_bytes / config->block_bytes + 63) / 64, sizeof(*m->blocks));
		m->slots = malloc(n_slots(m) * sizeof(*m->slots));
	}
	if (!m || !m->blocks || !m->slots) {
		error_set_field(err, ENOMEM, FIELD, "out of memory");
		return NULL;
	}
	for (uint64_t slot = 0; slot < n_slots(m); slot++)
		m->slots[slot] = -1;
	return place(m, err) == 0 ? steal_ptr(&m) : NULL;
}

void plugged_memory_free(struct plugged_memory *m)
{
	if (!m)
		return;
	if (m->in_gmem) {
		gmem_hide(&m->config.ram->mem, m->gpa);
		gmem_remove(&m->config.ram->mem, m->gpa);
	}
	free(m->blocks);
	free(m->slots);
	free(m);
}
