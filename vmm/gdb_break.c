/* Breakpoints in guest memory and in debug registers. */
#include "vmm/gdb_break.h"

#include <errno.h>
#include <string.h>

#define INT3	   0xcc
#define PAGE_BYTES 4096u

#define DR7_EXACT      0x300u /* LE, GE */
#define DR7_FIXED      0x400u
#define DR7_GLOBAL(i)  (2u << 2 * (i))
#define DR7_TYPE(i, t) ((uint64_t)(t) << (16 + 4 * (i)))
#define DR7_LEN(i, l)  ((uint64_t)(l) << (18 + 4 * (i)))

void gdb_breaks_init(struct gdb_breaks *breaks, const struct gmem *mem)
{
	*breaks = (struct gdb_breaks){.mem = mem};
}

static struct gdb_software_break *find_software(const struct gdb_breaks *breaks, gpa_t gpa)
{
	for (size_t i = 0; i < breaks->n_software; i++)
		if (breaks->software[i].gpa == gpa)
			return (struct gdb_software_break *)&breaks->software[i];
	return NULL;
}

static int insert_software(struct gdb_breaks *breaks, gpa_t gpa)
{
	static const uint8_t int3 = INT3;
	struct gdb_software_break one = {.gpa = gpa};

	if (find_software(breaks, gpa))
		return 0;
	if (breaks->n_software == GDB_SOFTWARE_MAX)
		return -ENOSPC;
	if (gmem_read(breaks->mem, gpa, &one.covers, 1) < 0 || gmem_write(breaks->mem, gpa, &int3, 1) < 0)
		return -EFAULT;
	breaks->software[breaks->n_software++] = one;
	return 0;
}

/* Where the guest has written over it meanwhile, its byte stays. */
static void lift(const struct gdb_breaks *breaks, const struct gdb_software_break *one)
{
	uint8_t now;

	if (gmem_read(breaks->mem, one->gpa, &now, 1) == 0 && now == INT3)
		(void)gmem_write(breaks->mem, one->gpa, &one->covers, 1);
}

static void remove_software(struct gdb_breaks *breaks, gpa_t gpa)
{
	struct gdb_software_break *one = find_software(breaks, gpa);

	if (!one)
		return;
	lift(breaks, one);
	*one = breaks->software[--breaks->n_software];
}

static struct gdb_hardware_break *find_hardware(
	struct gdb_breaks *breaks, enum gdb_break_kind kind, uint64_t address, uint64_t size_bytes)
{
	for (size_t i = 0; i < GDB_HARDWARE_MAX; i++) {
		struct gdb_hardware_break *one = &breaks->hardware[i];

		if (one->used && one->kind == kind && one->address == address && one->size_bytes == size_bytes)
			return one;
	}
	return NULL;
}

static int insert_hardware(struct gdb_breaks *breaks, enum gdb_break_kind kind, uint64_t address, uint64_t size_bytes)
{
	if (size_bytes != 1 && size_bytes != 2 && size_bytes != 4 && size_bytes != 8)
		return -EINVAL;
	if (address % size_bytes)
		return -EINVAL;
	if (find_hardware(breaks, kind, address, size_bytes))
		return 0;
	for (size_t i = 0; i < GDB_HARDWARE_MAX; i++) {
		if (breaks->hardware[i].used)
			continue;
		breaks->hardware[i] = (struct gdb_hardware_break){true, kind, address, (uint8_t)size_bytes};
		return 0;
	}
	return -ENOSPC;
}

int gdb_break_insert(struct gdb_breaks *breaks, const struct gdb_space *space, enum gdb_break_kind kind, uint64_t address,
	uint64_t size_bytes)
{
	gpa_t gpa;

	if (kind == GDB_BREAK_SOFTWARE)
		return space->translate(space->ctx, address, &gpa) < 0 ? -EFAULT : insert_software(breaks, gpa);
	return insert_hardware(breaks, kind, address, kind == GDB_BREAK_HARDWARE ? 1 : size_bytes);
}

int gdb_break_remove(struct gdb_breaks *breaks, const struct gdb_space *space, enum gdb_break_kind kind, uint64_t address,
	uint64_t size_bytes)
{
	struct gdb_hardware_break *one;
	gpa_t gpa;

	if (kind == GDB_BREAK_SOFTWARE) {
		if (space->translate(space->ctx, address, &gpa) < 0)
			return -EFAULT;
		remove_software(breaks, gpa);
		return 0;
	}
	one = find_hardware(breaks, kind, address, kind == GDB_BREAK_HARDWARE ? 1 : size_bytes);
	if (one)
		one->used = false;
	return 0;
}

void gdb_breaks_clear(struct gdb_breaks *breaks)
{
	for (size_t i = 0; i < breaks->n_software; i++)
		lift(breaks, &breaks->software[i]);
	gdb_breaks_init(breaks, breaks->mem);
}

bool gdb_breaks_hit(const struct gdb_breaks *breaks, gpa_t gpa)
{
	return find_software(breaks, gpa) != NULL;
}

bool gdb_breaks_any_software(const struct gdb_breaks *breaks)
{
	return breaks->n_software > 0;
}

bool gdb_breaks_any_hardware(const struct gdb_breaks *breaks)
{
	for (size_t i = 0; i < GDB_HARDWARE_MAX; i++)
		if (breaks->hardware[i].used)
			return true;
	return false;
}

void gdb_debug_registers(const struct gdb_breaks *breaks, uint64_t dr[GDB_HARDWARE_MAX], uint64_t *ret_dr7)
{
	static const uint8_t types[] = {[GDB_BREAK_HARDWARE] = 0, [GDB_WATCH_WRITE] = 1, [GDB_WATCH_ACCESS] = 3};
	static const uint8_t lengths[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};

	*ret_dr7 = DR7_FIXED;
	for (unsigned i = 0; i < GDB_HARDWARE_MAX; i++) {
		const struct gdb_hardware_break *one = &breaks->hardware[i];

		dr[i] = one->used ? one->address : 0;
		if (one->used)
			*ret_dr7 |= DR7_EXACT | DR7_GLOBAL(i) | DR7_TYPE(i, types[one->kind]) |
				    DR7_LEN(i, lengths[one->size_bytes]);
	}
}

/* How much of [address, address + len) lies in the first page. */
static size_t in_page(uint64_t address, size_t len)
{
	size_t left = PAGE_BYTES - (size_t)(address % PAGE_BYTES);

	return len < left ? len : left;
}

/* Puts the guest's own bytes in the place of our breakpoints'. */
static void uncover(const struct gdb_breaks *breaks, gpa_t gpa, uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < breaks->n_software; i++) {
		const struct gdb_software_break *one = &breaks->software[i];

		if (one->gpa >= gpa && one->gpa - gpa < len && bytes[one->gpa - gpa] == INT3)
			bytes[one->gpa - gpa] = one->covers;
	}
}

size_t gdb_memory_read(const struct gdb_breaks *breaks, const struct gdb_space *space, uint64_t address, void *ret, size_t len)
{
	uint8_t *bytes = ret;
	size_t done = 0;

	while (done < len) {
		size_t part = in_page(address + done, len - done);
		gpa_t gpa;

		if (space->translate(space->ctx, address + done, &gpa) < 0 ||
			gmem_read(breaks->mem, gpa, bytes + done, part) < 0)
			break;
		uncover(breaks, gpa, bytes + done, part);
		done += part;
	}
	return done;
}

/* What is written where a breakpoint stands lies below it. */
static int write_in_page(struct gdb_breaks *breaks, gpa_t gpa, const uint8_t *bytes, size_t len)
{
	static const uint8_t int3 = INT3;
	int r = gmem_write(breaks->mem, gpa, bytes, len);

	for (size_t i = 0; i < breaks->n_software && r == 0; i++) {
		struct gdb_software_break *one = &breaks->software[i];

		if (one->gpa < gpa || one->gpa - gpa >= len)
			continue;
		one->covers = bytes[one->gpa - gpa];
		r = gmem_write(breaks->mem, one->gpa, &int3, 1);
	}
	return r;
}

int gdb_memory_write(
	struct gdb_breaks *breaks, const struct gdb_space *space, uint64_t address, const void *data, size_t len)
{
	const uint8_t *bytes = data;
	size_t done = 0;

	while (done < len) {
		size_t part = in_page(address + done, len - done);
		gpa_t gpa;

		if (space->translate(space->ctx, address + done, &gpa) < 0 ||
			write_in_page(breaks, gpa, bytes + done, part) < 0)
			return -EFAULT;
		done += part;
	}
	return 0;
}
