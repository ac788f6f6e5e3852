/* A snapshot's files: what is written is what is read, sparse and whole; and whatever is damaged, foreign or asked for wrongly is told apart,
 * with nothing left behind. */
#include "tests/unit/test.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "tests/unit/snapshot_world.h"
#include "vmm/snapshot_request.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MIB  (1u << 20)
#define PAGE 4096u

static char folder[] = "/tmp/hull-snapshot-XXXXXX", state_path[64], memory_path[64];
static struct ram ram;

static const struct snapshot_paths paths = {state_path, memory_path};

static int make_folder(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(state_path, sizeof(state_path), "%s/state", folder);
	snprintf(memory_path, sizeof(memory_path), "%s/memory", folder);
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	unlink(state_path);
	unlink(memory_path);
	return rmdir(folder); /* and nothing else is in it */
}

static void make_ram(enum ram_kind kind, int base_fd, uint64_t plug_bytes)
{
	struct ram_config config = {SNAPSHOT_WORLD_MIB * MIB, kind, RAM_PAGES_NORMAL, base_fd, plug_bytes};
	struct error err = {0};

	if (ram_init(&ram, &config, &err) < 0)
		fail_msg("%s", err.message);
}

static uint8_t *at(uint64_t offset)
{
	return (uint8_t *)ram.host + offset;
}

/* Saves `ram`, with a state that has all sections up to the devices. */
static void save(void)
{
	struct snapshot_head head;
	struct state_writer w;
	struct error err = {0};

	snapshot_world_write(&w, &head);
	if (snapshot_commit(&paths, &w, &ram, &head, &err) < 0)
		fail_msg("%s: %s", err.field, err.message);
	state_writer_done(&w);
}

static void opens(struct snapshot *ret)
{
	struct error err = {0};

	if (snapshot_open(&paths, ret, &err) < 0)
		fail_msg("%s: %s", err.field, err.message);
}

static void is_refused(const char *field, const char *reason)
{
	struct snapshot snapshot;
	struct error err = {0};
	unsigned files = count_entries("/proc/self/fd");

	assert_true(snapshot_open(&paths, &snapshot, &err) < 0);
	if (strcmp(err.field, field) != 0 || !strstr(err.message, reason))
		fail_msg("%s: %s, not %s: %s", err.field, err.message, field, reason);
	assert_int_equal(snapshot.memory_fd, -1);
	assert_int_equal(count_entries("/proc/self/fd"), files);
}

static off_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? -1 : st.st_size;
}

static uint64_t blocks_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	return (uint64_t)st.st_blocks * 512;
}

static void write_pattern(void)
{
	memset(at(0), 1, PAGE);
	memset(at(3 * PAGE), 2, 1);			     /* one byte of a page */
	at(5 * MIB + PAGE - 1)[0] = 3;			     /* the last one */
	memset(at(14 * MIB), 4, 2 * MIB);	     /* to the end */
	memset(at(4 * MIB), 0, MIB);			     /* looked at, and zeroes */
}

static void has_pattern(void)
{
	for (uint64_t i = 0; i < SNAPSHOT_WORLD_MIB * MIB; i++) {
		uint8_t expected = i < PAGE ? 1 : i == 3 * PAGE ? 2 : i == 5 * MIB + PAGE - 1 ? 3 : i >= 14 * MIB ? 4 : 0;

		if (*at(i) != expected)
			fail_msg("byte %#llx is %u, not %u", (unsigned long long)i, *at(i), expected);
	}
}

static void memory_comes_back_whole_and_sparse(void **state)
{
	(void)state;
	for (int kind = RAM_SHARED; kind <= RAM_COW; kind++) {
		struct snapshot snapshot;
		struct error err = {0};

		make_ram((enum ram_kind)kind, -1, 0);
		write_pattern();
		save();
		ram_done(&ram);
		assert_true(blocks_of(memory_path) <= 2 * MIB + 8 * PAGE);
		opens(&snapshot);
		/* Copied … */
		make_ram((enum ram_kind)kind, -1, 0);
		assert_int_equal(memory_file_copy_ram(snapshot.memory_fd, &ram, &err), 0);
		has_pattern();
		ram_done(&ram);
		/* … and mapped, changed, and saved over what it lies on. */
		make_ram(RAM_COW, snapshot.memory_fd, 0);
		snapshot_done(&snapshot);
		memset(at(0), 9, PAGE);
		save();
		memset(at(0), 1, PAGE);
		has_pattern();
		ram_done(&ram);
		assert_true(blocks_of(memory_path) <= 2 * MIB + 8 * PAGE);
		opens(&snapshot);
		make_ram(RAM_COW, snapshot.memory_fd, 0);
		assert_int_equal(*at(0), 9);
		memset(at(0), 1, PAGE);
		has_pattern();
		ram_done(&ram);
		snapshot_done(&snapshot);
	}
}

/* Where a kernel's file lies in the guest's memory, pages that nobody has looked at yet are no zeroes. */
static void what_a_file_is_mapped_for_is_saved(void **state)
{
	char path[] = "/tmp/hull-mapped-XXXXXX";
	cleanup_close int fd = mkstemp(path);
	struct snapshot snapshot;
	uint8_t page[PAGE];

	(void)state;
	unlink(path);
	memset(page, 7, sizeof(page));
	assert_int_equal(write_full(fd, page, sizeof(page)), 0);
	make_ram(RAM_COW, -1, 0);
	assert_ptr_equal(mmap(at(MIB), PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0), at(MIB));
	save();
	ram_done(&ram);
	opens(&snapshot);
	assert_int_equal(pread_full(snapshot.memory_fd, page, 1, MIB + 100), 1);
	assert_int_equal(page[0], 7);
	snapshot_done(&snapshot);
}

static void the_configuration_comes_back_without_what_is_the_monitors(void **state)
{
	struct snapshot snapshot;

	(void)state;
	make_ram(RAM_COW, -1, 0);
	save();
	opens(&snapshot);
	assert_int_equal(snapshot.config.machine.vcpu_count, SNAPSHOT_WORLD_VCPUS);
	assert_string_equal(config_drive(&snapshot.config, 0)->path_on_host, "/disk");
	assert_string_equal(snapshot.config.vsock->uds_path, "/v.sock");
	assert_null(snapshot.config.logger);
	assert_null(snapshot.config.machine.gdb_socket_path);
	assert_true(snapshot.head.pci);
	snapshot_done(&snapshot);
	ram_done(&ram);
}

static void vcpus_and_machine_come_back(void **state)
{
	struct snapshot snapshot;
	struct vcpu_state vcpu;
	struct vm_state vm;
	struct error err = {0};

	(void)state;
	make_ram(RAM_COW, -1, 0);
	save();
	opens(&snapshot);
	for (unsigned i = 0; i < SNAPSHOT_WORLD_VCPUS; i++) {
		assert_int_equal(vcpu_state_read(&vcpu, &snapshot.reader, &err), 0);
		assert_int_equal(vcpu.regs.rip, 0x1000 + i);
		assert_int_equal(vcpu.tsc_khz, 1000000);
		assert_int_equal(vcpu_state_find_msr(&vcpu, 0x10)->data, 12345);
		assert_null(vcpu_state_find_msr(&vcpu, 0x11));
		vcpu_state_done(&vcpu);
	}
	assert_int_equal(vm_state_read(&vm, &snapshot.reader, &err), 0);
	assert_int_equal(vm.clock.clock, 777);
	assert_int_equal(vm.irqchips[2].chip_id, 2);
	assert_int_equal(snapshot_check_end(&snapshot, &err), 0);
	snapshot_done(&snapshot);
	ram_done(&ram);
}

static void write_state(const void *data, size_t len)
{
	struct error err = {0};

	assert_int_equal(write_file_whole(state_path, data, len, 0600, &err), 0);
}

static void a_damaged_state_is_refused(void **state)
{
	static const char other[] = "\x7f" "ELF, and more than the header of a section has";
	struct buf data;

	(void)state;
	make_ram(RAM_COW, -1, 0);
	save();
	ram_done(&ram);
	buf_init(&data, SNAPSHOT_BYTES_MAX);
	assert_int_equal(buf_read_file(&data, state_path), 0);
	write_state("", 0);
	is_refused("snapshot_path", "ends where section snapshot should begin");
	write_state(other, sizeof(other));
	is_refused("snapshot_path", "where snapshot is expected");
	write_state(data.data, 40);
	is_refused("snapshot_path", "section snapshot is cut short");
	data.data[40] ^= 1;
	write_state(data.data, data.len);
	is_refused("snapshot_path", "section snapshot is damaged");
	data.data[40] ^= 1;
	data.data[16] = 9;
	write_state(data.data, data.len);
	is_refused("snapshot_path", "is of version 9");
	data.data[16] = 1;
	write_state(data.data, data.len);
	assert_int_equal(truncate(memory_path, SNAPSHOT_WORLD_MIB * MIB), 0);
	is_refused("mem_backend", "has 16777216 bytes, and the snapshot's memory has 16781312");
	assert_int_equal(truncate(memory_path, SNAPSHOT_WORLD_MIB * MIB + PAGE), 0);
	is_refused("mem_backend", "does not end as a memory file");
	assert_int_equal(unlink(memory_path), 0);
	is_refused("mem_backend", "No such file or directory");
	assert_int_equal(mkfifo(memory_path, 0600), 0);
	is_refused("mem_backend", "is no regular file");
	assert_int_equal(unlink(memory_path), 0);
	assert_int_equal(unlink(state_path), 0);
	is_refused("snapshot_path", "No such file or directory");
	assert_int_equal(mkfifo(state_path, 0600), 0);
	is_refused("snapshot_path", "is no regular file");
	assert_int_equal(unlink(state_path), 0);
	buf_done(&data);
}

static void the_memory_of_another_snapshot_is_refused(void **state)
{
	char kept[80];

	(void)state;
	snprintf(kept, sizeof(kept), "%s/kept", folder);
	make_ram(RAM_COW, -1, 0);
	save();
	assert_int_equal(rename(memory_path, kept), 0);
	save();
	assert_int_equal(rename(kept, memory_path), 0);
	is_refused("mem_backend", "is the memory of another snapshot");
	ram_done(&ram);
}

/* What fails has changed nothing, and leaves nothing. */
static void a_snapshot_that_cannot_be_written_leaves_what_was_there(void **state)
{
	char other_name[80], no_name[80];
	const struct {
		const char *state, *memory, *field;
	} cases[] = {
		{"/none/state", memory_path, "snapshot_path"},
		{state_path, "/none/memory", "mem_file_path"},
		{"/tmp", memory_path, "snapshot_path"}, /* a folder */
		{state_path, "/tmp", "mem_file_path"},
		{no_name, memory_path, "snapshot_path"},
		{state_path, other_name, "mem_file_path"}, /* of one and the same file */
	};

	(void)state;
	snprintf(other_name, sizeof(other_name), "%s/.//state", folder);
	snprintf(no_name, sizeof(no_name), "%s/new/", folder);
	make_ram(RAM_COW, -1, 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct snapshot_paths to = {cases[i].state, cases[i].memory};
		struct snapshot_head head;
		struct state_writer w;
		struct error err = {0};

		assert_int_equal(write_file_whole(state_path, "state", 5, 0600, &err), 0);
		assert_int_equal(write_file_whole(memory_path, "memory", 6, 0600, &err), 0);
		snapshot_world_write(&w, &head);
		assert_true(snapshot_commit(&to, &w, &ram, &head, &err) < 0);
		assert_string_equal(err.field, cases[i].field);
		assert_int_equal(count_entries(folder), 4); /* with . and .. */
		assert_int_equal(size_of(state_path), 5);
		assert_int_equal(size_of(memory_path), 6);
		state_writer_done(&w);
	}
	ram_done(&ram);
}

static void requests_are_checked(void **state)
{
	static const struct {
		bool load;
		const char *body, *field, *reason;
	} cases[] = {
		{false, "{}", "snapshot_path", "required"},
		{false, "{\"snapshot_path\":\"s\"}", "mem_file_path", "required"},
		{false, "{\"snapshot_path\":\"s\",\"mem_file_path\":\"m\",\"snapshot_type\":\"Diff\"}", "snapshot_type", "is Diff"},
		{true, "{}", "snapshot_path", "required"},
		{true, "{\"snapshot_path\":\"s\"}", "mem_backend", "is required"},
		{true, "{\"snapshot_path\":\"s\",\"mem_file_path\":\"m\",\"mem_backend\":{\"backend_type\":\"File\",\"backend_path\":\"m\"}}",
			"mem_backend", "exclude one another"},
		{true, "{\"snapshot_path\":\"s\",\"mem_backend\":{\"backend_type\":\"Uffd\",\"backend_path\":\"m\"}}", "mem_backend.backend_type",
			"is Uffd"},
		{true, "{\"snapshot_path\":\"s\",\"mem_file_path\":\"m\",\"track_dirty_pages\":true}", "track_dirty_pages", "Diff"},
		{true, "{\"snapshot_path\":\"s\",\"mem_file_path\":\"m\",\"enable_diff_snapshots\":true}", "enable_diff_snapshots", "Diff"},
		{true, "{\"snapshot_path\":\"s\",\"mem_file_path\":\"m\",\"network_overrides\":[{\"iface_id\":\"eth0\"}]}",
			"network_overrides[0].host_dev_name", "is required"},
		{true, "{\"snapshot_path\":\"s\",\"mem_file_path\":\"m\",\"vsock_override\":{}}", "vsock_override.uds_path", "required"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_t *body = json_loads(cases[i].body, 0, NULL);
		struct snapshot_create create;
		struct snapshot_load load;
		struct error err = {0};

		assert_non_null(body);
		assert_true((cases[i].load ? snapshot_read_load(body, &load, &err) : snapshot_read_create(body, &create, &err)) < 0);
		if (strcmp(err.field, cases[i].field) != 0 || !strstr(err.message, cases[i].reason))
			fail_msg("%s: %s: %s", cases[i].body, err.field, err.message);
		json_decref(body);
	}
}

static void overrides_change_the_configuration(void **state)
{
	json_t *body = json_loads("{\"snapshot_path\":\"s\",\"mem_file_path\":\"m\",\"huge_pages\":\"Transparent\","
				  "\"network_overrides\":[{\"iface_id\":\"eth0\",\"host_dev_name\":\"tap7\"}],"
				  "\"drive_overrides\":[{\"drive_id\":\"disk\",\"path_on_host\":\"/other\"}],"
				  "\"vsock_override\":{\"uds_path\":\"/w.sock\"}}",
		0, NULL);
	struct snapshot_load load;
	struct config config;
	struct error err = {0};

	(void)state;
	assert_int_equal(snapshot_read_load(body, &load, &err), 0);
	assert_string_equal(snapshot_load_paths(&load).memory, "m");
	snapshot_world_config(&config);
	assert_int_equal(snapshot_override(&load, &config, &err), 0);
	assert_string_equal(config_net(&config, 0)->host_dev_name, "tap7");
	assert_null(config_net(&config, 0)->stream_socket_path);
	assert_string_equal(config_drive(&config, 0)->path_on_host, "/other");
	assert_string_equal(config.vsock->uds_path, "/w.sock");
	assert_int_equal(config.machine.huge_pages, CONFIG_HUGE_PAGES_TRANSPARENT);
	assert_int_equal(config_remove(&config, "drives", "disk", &err), 0);
	assert_true(snapshot_override(&load, &config, &err) < 0);
	assert_string_equal(err.field, "drive_overrides[0]");
	config_done(&config);
	json_done(&snapshot_load_table, &load);
	json_decref(body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_comes_back_whole_and_sparse),
		cmocka_unit_test(what_a_file_is_mapped_for_is_saved),
		cmocka_unit_test(the_configuration_comes_back_without_what_is_the_monitors),
		cmocka_unit_test(vcpus_and_machine_come_back),
		cmocka_unit_test(the_memory_of_another_snapshot_is_refused),
		cmocka_unit_test(a_damaged_state_is_refused),
		cmocka_unit_test(a_snapshot_that_cannot_be_written_leaves_what_was_there),
		cmocka_unit_test(requests_are_checked),
		cmocka_unit_test(overrides_change_the_configuration),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
