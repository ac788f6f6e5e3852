/* A file as the guest's memory: what is written reaches it, what may not be is not, and it goes as it came. KVM is played by this
 * file. */
#include "tests/unit/test.h"

#include "common/checked.h"
#include "vmm/pmem_file.h"
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB  (UINT64_C(1) << 20)
#define ADDR UINT64_C(0x180000000)

static struct {
	bool taken, read_only, fails, keeps;
	uint64_t size_bytes;
} slot;

int vm_place(const struct vm *vm, const struct gmem *mem, uint64_t size_bytes, uint64_t align, gpa_t *ret, struct error *err)
{
	(void)vm;
	(void)mem;
	(void)align;
	assert_int_equal(size_bytes % (2 * MIB), 0);
	if (size_bytes > 64 * MIB)
		return error_set(err, ENOMEM, "no room");
	*ret = ADDR;
	return 0;
}

int vm_add_slot(struct vm *vm, const struct gmem_region *memory, struct error *err)
{
	(void)vm;
	if (slot.fails)
		return error_set(err, ENOSPC, "no slot");
	assert_false(slot.taken);
	slot.taken = true;
	slot.read_only = memory->read_only;
	slot.size_bytes = memory->size_bytes;
	return 7;
}

int vm_remove_slot(struct vm *vm, int number)
{
	(void)vm;
	assert_int_equal(number, 7);
	if (slot.keeps)
		return -ENOMEM;
	slot.taken = false;
	return 0;
}

struct fixture {
	char path[64];
	struct gmem mem;
	struct error err;
	int next_fd; /* the one that an open() gets */
};

static int next_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int fd;

	memset(&slot, 0, sizeof(slot));
	strcpy(f->path, "/tmp/hull-pmem.XXXXXX");
	fd = mkstemp(f->path);
	assert_int_equal(write(fd, "first", 5), 5);
	assert_int_equal(pwrite(fd, "last", 4, 2 * MIB + 5000 - 4), 4);
	close(fd);
	f->next_fd = next_fd();
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(next_fd(), f->next_fd); /* no descriptor is left */
	assert_null(gmem_next(&f->mem, NULL));
	assert_int_equal(slot.taken, slot.keeps);
	unlink(f->path);
	free(f);
	return 0;
}

static void the_file_is_memory_and_zeroes_follow(void **state)
{
	struct fixture *f = *state;
	struct pmem_file *file = pmem_file_new(NULL, &f->mem, f->path, false, &f->err);
	char *memory;
	struct stat st;
	int fd = open(f->path, O_RDONLY | O_CLOEXEC);
	char read[5];

	assert_non_null(file);
	assert_int_equal(file->file_bytes, 2 * MIB + 5000);
	assert_int_equal(file->size_bytes, 4 * MIB);
	assert_int_equal(slot.size_bytes, 4 * MIB);
	assert_false(slot.read_only);
	assert_int_equal((uintptr_t)file->host % (2 * MIB), 0);
	memory = gmem_span(&f->mem, ADDR, 4 * MIB);
	assert_ptr_equal(memory, file->host);
	assert_memory_equal(memory, "first", 5);
	assert_memory_equal(memory + file->file_bytes - 4, "last", 4);
	for (uint64_t i = file->file_bytes; i < file->size_bytes; i++)
		assert_int_equal(memory[i], 0);
	memcpy(memory, "other", 5);
	memory[file->size_bytes - 1] = 1;
	assert_int_equal(pread(fd, read, 5, 0), 5);
	assert_memory_equal(read, "other", 5);
	pmem_file_free(file);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 2 * MIB + 5000);
	close(fd);
}

static void a_read_only_one_is_only_read(void **state)
{
	struct fixture *f = *state;
	struct pmem_file *file;

	assert_int_equal(chmod(f->path, 0400), 0);
	file = pmem_file_new(NULL, &f->mem, f->path, true, &f->err);
	assert_non_null(file);
	assert_true(slot.read_only);
	assert_null(gmem_span(&f->mem, ADDR, 1));
	assert_memory_equal(gmem_view(&f->mem, ADDR, 5), "first", 5);
	pmem_file_free(file);
}

static void it_goes_while_the_machine_runs(void **state)
{
	struct fixture *f = *state;
	struct pmem_file *file = pmem_file_new(NULL, &f->mem, f->path, false, &f->err);

	slot.keeps = true; /* KVM cannot now: nothing has changed */
	assert_int_equal(pmem_file_withdraw(file), -ENOMEM);
	assert_non_null(gmem_span(&f->mem, ADDR, 1));
	slot.keeps = false;
	assert_int_equal(pmem_file_withdraw(file), 0);
	assert_null(gmem_view(&f->mem, ADDR, 1));
	assert_memory_equal(file->host, "first", 5); /* a device may be at it still */
	pmem_file_free(file);
	file = pmem_file_new(NULL, &f->mem, f->path, false, &f->err); /* the place is free again */
	assert_non_null(file);
	pmem_file_free(file);
}

static void it_is_locked(void **state)
{
	struct fixture *f = *state;
	struct pmem_file *file = pmem_file_new(NULL, &f->mem, f->path, false, &f->err);
	struct gmem other = {0};

	assert_null(pmem_file_new(NULL, &other, f->path, true, &f->err));
	assert_non_null(strstr(f->err.message, "in use"));
	pmem_file_free(file);
}

static void what_cannot_be_leaves_nothing(void **state)
{
	struct fixture *f = *state;

	assert_null(pmem_file_new(NULL, &f->mem, "/nowhere", false, &f->err));
	assert_string_equal(f->err.field, "path_on_host");
	assert_null(pmem_file_new(NULL, &f->mem, "/tmp", false, &f->err));
	slot.fails = true;
	assert_null(pmem_file_new(NULL, &f->mem, f->path, false, &f->err));
	assert_string_equal(f->err.field, "path_on_host");
	assert_int_equal(truncate(f->path, 65 * MIB), 0);
	assert_null(pmem_file_new(NULL, &f->mem, f->path, false, &f->err));
	assert_int_equal(truncate(f->path, 0), 0);
	assert_null(pmem_file_new(NULL, &f->mem, f->path, false, &f->err));
	assert_non_null(strstr(f->err.message, "is empty"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_file_is_memory_and_zeroes_follow),
		TEST(a_read_only_one_is_only_read),
		TEST(it_goes_while_the_machine_runs),
		TEST(it_is_locked),
		TEST(what_cannot_be_leaves_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
