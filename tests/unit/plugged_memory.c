/* The memory behind virtio-mem: what is plugged is there for lookups, KVM and the host's mapping alike, and what is not is not,
 * also when one of them fails. KVM is played by this file. */
#include "tests/unit/test.h"

#include "common/checked.h"
#include "vmm/plugged_memory.h"
#include "vmm/ram.h"
#include "vmm/vm.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB   (UINT64_C(1) << 20)
#define BLOCK (2 * MIB)
#define SLOT  (8 * MIB)
#define ADDR  UINT64_C(0x100000000)

static struct {
	struct {
		bool taken;
		gpa_t gpa;
		const uint8_t *host;
	} slots[4];
	unsigned n;
	int fail_from; /* slots that KVM has, at most; -1: no limit */
	bool keeps;    /* KVM takes no slot away */
} kvm;

int vm_place(const struct vm *vm, const struct gmem *mem, uint64_t size_bytes, uint64_t align, gpa_t *ret, struct error *err)
{
	(void)vm;
	(void)mem;
	(void)err;
	assert_int_equal(align, BLOCK);
	assert_int_equal(size_bytes % SLOT, 0);
	*ret = ADDR;
	return 0;
}

int vm_add_slot(struct vm *vm, const struct gmem_region *memory, struct error *err)
{
	int i = 0;

	(void)vm;
	if (kvm.fail_from >= 0 && kvm.n >= (unsigned)kvm.fail_from)
		return error_set(err, ENOSPC, "KVM has no more");
	while (kvm.slots[i].taken)
		i++;
	kvm.slots[i].taken = true;
	kvm.slots[i].gpa = memory->gpa;
	kvm.slots[i].host = memory->host;
	assert_int_equal(memory->size_bytes, SLOT);
	assert_int_equal(memory->gpa % SLOT, 0);
	kvm.n++;
	return i;
}

int vm_remove_slot(struct vm *vm, int slot)
{
	(void)vm;
	if (kvm.keeps)
		return -ENOMEM;
	assert_true(kvm.slots[slot].taken);
	kvm.slots[slot].taken = false;
	kvm.n--;
	return 0;
}

struct fixture {
	struct ram ram;
	struct plugged_memory *m;
	const void *held; /* by a device */
	struct error err;
};

static bool is_held(void *ctx, const void *host, uint64_t len)
{
	const struct fixture *f = ctx;

	return virtq_overlaps(f->held, f->held ? 1 : 0, host, len);
}

static int setup(struct fixture *f, enum ram_kind kind)
{
	struct ram_config ram = {.size_bytes = 4 * MIB, .kind = kind, .base_fd = -1, .plug_bytes = 3 * SLOT};
	struct plugged_memory_config config = {
		.ram = &f->ram, .block_bytes = BLOCK, .slot_bytes = SLOT, .is_held = is_held, .ctx = f};

	memset(&kvm, 0, sizeof(kvm));
	kvm.fail_from = -1;
	assert_int_equal(ram_init(&f->ram, &ram, &f->err), 0);
	f->m = plugged_memory_new(&config, &f->err);
	assert_non_null(f->m);
	return 0;
}

static int setup_shared(void **state)
{
	*state = calloc(1, sizeof(struct fixture));
	return setup(*state, RAM_SHARED);
}

static int setup_cow(void **state)
{
	*state = calloc(1, sizeof(struct fixture));
	return setup(*state, RAM_COW);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	plugged_memory_free(f->m);
	assert_null(gmem_span(&f->ram.mem, ADDR, 1));
	ram_done(&f->ram);
	free(f);
	return 0;
}

static int plug(struct fixture *f, unsigned first, unsigned n)
{
	return plugged_memory_ops.plug(f->m, first * BLOCK, n * BLOCK);
}

static int unplug(struct fixture *f, unsigned first, unsigned n)
{
	return plugged_memory_ops.unplug(f->m, first * BLOCK, n * BLOCK);
}

/* Whether this process may read and write there: the kernel tells, without a signal. */
static bool is_accessible(const void *host)
{
	int ends[2];
	bool is;

	assert_int_equal(pipe(ends), 0);
	is = write(ends[1], host, 1) == 1;
	assert_true(is || errno == EFAULT);
	close(ends[0]);
	close(ends[1]);
	return is;
}

/* What all three say of each block: "x" there, "." not. */
static void is_there(struct fixture *f, const char *blocks)
{
	for (unsigned i = 0; blocks[i]; i++) {
		bool there = blocks[i] == 'x';

		assert_int_equal(!!gmem_span(&f->ram.mem, ADDR + i * BLOCK, BLOCK), there);
		assert_int_equal(is_accessible(f->ram.plug_host + i * BLOCK), there);
		assert_int_equal(is_accessible(f->ram.plug_host + (i + 1) * BLOCK - 1), there);
	}
}

static uint64_t held_bytes(struct fixture *f)
{
	uint64_t pages = 3 * SLOT / 4096, held = 0;
	unsigned char *resident = calloc(pages, 1);
	struct stat file;

	if (f->ram.kind == RAM_SHARED) {
		assert_int_equal(fstat(f->ram.fd, &file), 0);
		held = (uint64_t)file.st_blocks * 512;
	} else {
		assert_int_equal(mincore(f->ram.plug_host, 3 * SLOT, resident), 0);
		for (uint64_t i = 0; i < pages; i++)
			held += (resident[i] & 1) * 4096;
	}
	free(resident);
	return held;
}

static void nothing_is_there_at_first(void **state)
{
	struct fixture *f = *state;

	is_there(f, "............");
	assert_int_equal(kvm.n, 0);
	assert_int_equal(held_bytes(f), 0);
	assert_int_equal((uintptr_t)f->ram.plug_host % BLOCK, 0);
}

static void kvm_has_the_slots_where_something_is(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(plug(f, 1, 2), 0);
	is_there(f, ".xx.........");
	assert_int_equal(kvm.n, 1);
	assert_int_equal(kvm.slots[0].gpa, ADDR);
	assert_ptr_equal(kvm.slots[0].host, f->ram.plug_host);
	assert_int_equal(plug(f, 3, 6), 0);
	is_there(f, ".xxxxxxxx...");
	assert_int_equal(kvm.n, 3);
	assert_int_equal(unplug(f, 2, 6), 0);
	is_there(f, ".x......x...");
	assert_int_equal(kvm.n, 2);
	assert_int_equal(unplug(f, 1, 1), 0);
	assert_int_equal(unplug(f, 8, 1), 0);
	is_there(f, "............");
	assert_int_equal(kvm.n, 0);
}

static void what_is_unplugged_is_the_hosts_again(void **state)
{
	struct fixture *f = *state;
	gpa_t gpa = ADDR + 3 * BLOCK;

	assert_int_equal(plug(f, 3, 3), 0);
	memset(gmem_span(&f->ram.mem, gpa, 3 * BLOCK), 0xaa, 3 * BLOCK);
	assert_int_equal(held_bytes(f), 3 * BLOCK);
	/* What the balloon gives back goes, where it is there. */
	assert_int_equal(ram_discard(&f->ram, gpa, MIB), 0);
	assert_int_equal(ram_discard(&f->ram, ADDR, BLOCK), -EFAULT);
	assert_int_equal(held_bytes(f), 3 * BLOCK - MIB);
	assert_int_equal(unplug(f, 3, 2), 0);
	assert_int_equal(held_bytes(f), BLOCK);
	assert_int_equal(unplug(f, 5, 1), 0);
	assert_int_equal(held_bytes(f), 0);
	assert_int_equal(plug(f, 3, 3), 0);
	for (uint64_t i = 0; i < 3 * BLOCK; i += 4096)
		assert_int_equal(*(uint8_t *)gmem_span(&f->ram.mem, gpa + i, 1), 0);
}

static void what_a_device_is_at_stays(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(plug(f, 0, 4), 0);
	f->held = f->ram.plug_host + 2 * BLOCK;
	assert_int_equal(unplug(f, 1, 2), -EBUSY);
	is_there(f, "xxxx........");
	assert_int_equal(unplug(f, 0, 2), 0);
	f->held = NULL;
	assert_int_equal(unplug(f, 2, 2), 0);
	assert_int_equal(kvm.n, 0);
}

static void a_slot_that_kvm_does_not_give_changes_nothing(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(plug(f, 0, 1), 0);
	kvm.fail_from = 2;
	assert_int_equal(plug(f, 1, 11), -ENOSPC); /* it gives the second, and not the third */
	is_there(f, "x...........");
	assert_int_equal(kvm.n, 1);
	assert_int_equal(held_bytes(f), 2 * 4096); /* what is_there() has looked at */
	assert_int_equal(plug(f, 1, 5), 0);
	is_there(f, "xxxxxx......");
}

/* Its slot stays, but the guest finds nothing in it: the mapping refuses. */
static void a_slot_that_kvm_does_not_take_back_is_used_again(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(plug(f, 0, 4), 0);
	kvm.keeps = true;
	assert_int_equal(unplug(f, 0, 4), 0);
	is_there(f, "............");
	assert_int_equal(plug(f, 2, 1), 0);
	assert_int_equal(kvm.n, 1);
	kvm.keeps = false;
	assert_int_equal(unplug(f, 2, 1), 0);
	assert_int_equal(kvm.n, 0);
}

#define BOTH(name)                                                                     \
	cmocka_unit_test_setup_teardown(name, setup_shared, teardown),                 \
		{#name " (cow)", name, setup_cow, teardown, NULL}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(nothing_is_there_at_first),
		BOTH(kvm_has_the_slots_where_something_is),
		BOTH(what_is_unplugged_is_the_hosts_again),
		BOTH(what_a_device_is_at_stays),
		BOTH(a_slot_that_kvm_does_not_give_changes_nothing),
		BOTH(a_slot_that_kvm_does_not_take_back_is_used_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
