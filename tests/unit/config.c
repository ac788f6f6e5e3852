/* The configuration: what each key means when it is there, what it means when it is not, and what is refused. */
#include "tests/unit/test.h"
#include "devices/mmds.h"
#include "vmm/config.h"

#include <string.h>

#define BOOT    "\"boot-source\":{\"kernel_image_path\":\"/k\"}"
#define MACHINE "\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":128}"

static int parse(const char *text, struct config *ret, struct error *err)
{
	*err = (struct error){0};
	return config_parse(text, strlen(text), ret, err);
}

static void refuses(const char *text, const char *field, const char *reason)
{
	struct config config;
	struct error err;

	assert_true(parse(text, &config, &err) < 0);
	assert_string_equal(err.field, field);
	if (!strstr(err.message, reason))
		fail_msg("\"%s\" says nothing of \"%s\"", err.message, reason);
}

static void test_the_least_there_can_be(void **state)
{
	struct config config;
	struct error err;

	(void)state;
	assert_int_equal(parse("{" BOOT "}", &config, &err), 0);
	assert_int_equal(config.machine.mem_size_mib, 128);
	assert_string_equal(config.boot.kernel_image_path, "/k");
	assert_null(config.boot.initrd_path);
	assert_string_equal(config.boot.boot_args, "console=ttyS0 reboot=k panic=-1");
	assert_false(config.boot.private_kernel);
	assert_int_equal(config.machine.vcpu_count, 1);
	assert_false(config.machine.smt);
	assert_int_equal(config.machine.huge_pages, CONFIG_HUGE_PAGES_NONE);
	assert_int_equal(config.drives.len + config.nets.len, 0);
	assert_null(config.vsock);
	assert_null(config.entropy);
	config_done(&config);
}

/* As Firecracker's own examples write it. */
static void test_null_is_absent(void **state)
{
	struct config config;
	struct error err;

	(void)state;
	assert_int_equal(
		parse("{\"boot-source\":{\"kernel_image_path\":\"/"
		      "k\",\"initrd_path\":null,\"boot_args\":null},"
		      "\"drives\":null,\"machine-config\":{\"vcpu_count\":2,\"mem_size_mib\":1024,\"smt\":"
		      "false,"
		      "\"cpu_template\":\"None\",\"huge_pages\":\"None\",\"track_dirty_pages\":false},"
		      "\"cpu-config\":null,\"balloon\":null,\"network-interfaces\":[],\"vsock\":null,"
		      "\"logger\":null,\"metrics\":null,\"mmds-config\":null,\"entropy\":null,\"pmem\":null}",
			&config, &err),
		0);
	config_done(&config);
}

static void test_drives(void **state)
{
	struct config config;
	struct error err;
	char *line;

	(void)state;
	assert_int_equal(parse("{" BOOT "," MACHINE ",\"drives\":["
			       "{\"drive_id\":\"a\",\"path_on_host\":\"/a\",\"is_root_device\":false},"
			       "{\"drive_id\":\"b\",\"path_on_host\":\"/"
			       "b\",\"is_root_device\":false,\"is_read_only\":true,"
			       "\"cache_type\":\"Writeback\",\"io_engine\":\"Async\",\"num_queues\":8},"
			       "{\"drive_id\":\"r\",\"path_on_host\":\"/r\",\"is_root_device\":true}]}",
				 &config, &err),
		0);
	assert_int_equal(config.drives.len, 3);
	assert_string_equal(config_drive(&config, 0)->drive_id, "a");
	assert_string_equal(config_drive(&config, 1)->drive_id, "b");
	assert_ptr_equal(config_root_drive(&config), config_drive(&config, 2));
	assert_int_equal(config_drive(&config, 0)->cache_type, CONFIG_CACHE_UNSAFE); /* Firecracker's defaults */
	assert_int_equal(config_drive(&config, 0)->io_engine, CONFIG_ENGINE_SYNC);
	assert_int_equal(config_drive(&config, 1)->cache_type, CONFIG_CACHE_WRITEBACK);
	assert_int_equal(config_drive(&config, 1)->io_engine, CONFIG_ENGINE_ASYNC);
	assert_int_equal(config_drive(&config, 0)->num_queues, 1);
	assert_int_equal(config_drive(&config, 1)->num_queues, 8);
	assert_true(config_drive(&config, 1)->is_read_only);
	line = config_command_line(&config);
	assert_string_equal(line, "console=ttyS0 reboot=k panic=-1 root=/dev/vda rw");
	free(line);
	config_done(&config);
	refuses("{" BOOT "," MACHINE
		",\"drives\":[{\"drive_id\":\"a\",\"path_on_host\":\"/a\",\"is_root_device\":true},"
		"{\"drive_id\":\"b\",\"path_on_host\":\"/b\",\"is_root_device\":true}]}",
		"drives[1].is_root_device", "already");
	refuses("{" BOOT "," MACHINE ",\"drives\":[{\"drive_id\":\"a\",\"path_on_host\":\"/a\"}]}",
		"drives[0].is_root_device", "required");
	refuses("{" BOOT "," MACHINE
		",\"drives\":[{\"drive_id\":\"a\",\"path_on_host\":\"\",\"is_root_device\":true}]}",
		"drives[0].path_on_host", "empty");
	refuses("{" BOOT ",\"drives\":[{\"drive_id\":\"a\",\"path_on_host\":\"/a\",\"is_root_device\":true,\"num_queues\":9}]}",
		"drives[0].num_queues", "must be 1 to 8");
	refuses("{" BOOT ",\"drives\":[{\"drive_id\":\"a\",\"path_on_host\":\"/a\",\"is_root_device\":true,\"num_queues\":0}]}",
		"drives[0].num_queues", "must be 1 to 8");
	refuses("{" BOOT ",\"drives\":[{\"drive_id\":\"a\",\"socket\":\"/a\",\"is_root_device\":true,\"num_queues\":2}]}",
		"drives[0].num_queues", "it is the back-end's to say");
}

static void test_a_root_device_can_be_a_partition(void **state)
{
	struct config config;
	struct error err;
	char *line;

	(void)state;
	assert_int_equal(
		parse("{" MACHINE ",\"boot-source\":{\"kernel_image_path\":\"/k\",\"boot_args\":\"quiet\"},"
		      "\"drives\":[{\"drive_id\":\"r\",\"path_on_host\":\"/r\",\"is_root_device\":true,"
		      "\"is_read_only\":true,\"partuuid\":\"0eaa91a0-01\"}]}",
			&config, &err),
		0);
	line = config_command_line(&config);
	assert_string_equal(line, "quiet root=PARTUUID=0eaa91a0-01 ro");
	free(line);
	config_done(&config);
}

static void test_networks(void **state)
{
	static const uint8_t given[] = {0x06, 0, 0xac, 0x10, 0, 0x02};
	struct config config;
	struct error err;

	(void)state;
	assert_int_equal(parse("{" BOOT "," MACHINE ",\"network-interfaces\":["
			       "{\"iface_id\":\"eth0\",\"host_dev_name\":\"tap0\",\"guest_mac\":\"06:00:AC:"
			       "10:00:02\"},"
			       "{\"iface_id\":\"eth1\",\"stream_socket_path\":\"/s\",\"mtu\":1500},"
			       "{\"iface_id\":\"eth2\",\"stream_socket_path\":\"/t\"}]}",
				 &config, &err),
		0);
	assert_memory_equal(config_net(&config, 0)->mac, given, 6);
	assert_int_equal(config_net(&config, 1)->mtu, 1500);
	assert_int_equal(config_net(&config, 1)->queue_pairs, 1);
	assert_int_equal(config_net(&config, 1)->mac[0] & 3, 2); /* locally administered, not multicast */
	assert_memory_not_equal(config_net(&config, 1)->mac, config_net(&config, 2)->mac, 6);
	config_done(&config);
	refuses("{" BOOT "," MACHINE ",\"network-interfaces\":[{\"iface_id\":\"e\"}]}",
		"network-interfaces[0].host_dev_name", "required");
	for (unsigned i = 0; i < 4; i++) {
		static const char *const wrong[] = {
			"06:00:ac:10:00:0g", "06-00-ac-10-00-02", " 6:00:ac:10:00:02", "0x:00:ac:10:00:02"};
		char text[256];

		snprintf(text, sizeof(text),
			"{" BOOT "," MACHINE ",\"network-interfaces\":[{\"iface_id\":\"e\",\"host_dev_name\":"
					     "\"t\",\"guest_mac\":\"%s\"}]}",
			wrong[i]);
		refuses(text, "network-interfaces[0].guest_mac", "six bytes");
	}
	refuses("{" BOOT "," MACHINE ",\"network-interfaces\":[{\"iface_id\":\"e\",\"host_dev_name\":\"t\","
				     "\"guest_mac\":\"01:00:00:00:00:00\"}]}",
		"network-interfaces[0].guest_mac", "multicast");
}

static void test_an_interface_has_several_pairs_of_queues(void **state)
{
	static const struct {
		const char *fields, *why;
	} wrong[] = {
		{"\"host_dev_name\":\"t\",\"queue_pairs\":0", "must be 1 to 8"},
		{"\"host_dev_name\":\"t\",\"queue_pairs\":9", "must be 1 to 8"},
		{"\"stream_socket_path\":\"/s\",\"queue_pairs\":2", "given with stream_socket_path"},
		{"\"vhost_user_socket\":\"/s\",\"queue_pairs\":2", "given with vhost_user_socket"},
		{"\"host_dev_name\":\"t\",\"vhost\":true,\"queue_pairs\":2", "given with vhost:"},
	};
	struct config config;
	struct error err;

	(void)state;
	assert_int_equal(parse("{" BOOT ",\"network-interfaces\":[{\"iface_id\":\"e\",\"host_dev_name\":\"t\",\"queue_pairs\":8}]}", &config,
				 &err),
		0);
	assert_int_equal(config_net(&config, 0)->queue_pairs, 8);
	config_done(&config);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		char text[256];

		snprintf(text, sizeof(text), "{" BOOT ",\"network-interfaces\":[{\"iface_id\":\"e\",%s}]}", wrong[i].fields);
		refuses(text, "network-interfaces[0].queue_pairs", wrong[i].why);
	}
	refuses("{" BOOT ",\"network-interfaces\":[{\"iface_id\":\"e\",\"host_dev_name\":\"t\",\"queue_pairs\":2}],"
		"\"mmds-config\":{\"network_interfaces\":[\"e\"]}}",
		"mmds-config.network_interfaces", "has 2 queue_pairs: the service answers on one");
}

#define ETH0 "\"network-interfaces\":[{\"iface_id\":\"e\",\"host_dev_name\":\"t\"}]"

static void test_metadata_service(void **state)
{
	static const char *const wrong[] = {"10.0.0.1", "169.254.0.255", "169.254.255.0", "169.254.1", "169.254.1.1 ", "0xa9fea9fe", ""};
	struct config config;
	struct error err;
	uint32_t address;

	(void)state;
	assert_int_equal(parse("{" BOOT "," ETH0 ",\"mmds-config\":{\"network_interfaces\":[\"e\"],\"version\":\"V2\"}}", &config, &err), 0);
	assert_int_equal(config.mmds->version, MMDS_V2);
	assert_false(config.mmds->imds_compat);
	assert_true(config_parse_ipv4(config.mmds->ipv4_address, &address));
	assert_int_equal(address, MMDS_ADDRESS_DEFAULT);
	assert_true(config_net_has_mmds(&config, config_net(&config, 0)));
	config_done(&config);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		char text[256];

		snprintf(text, sizeof(text), "{" BOOT "," ETH0 ",\"mmds-config\":{\"network_interfaces\":[\"e\"],\"ipv4_address\":\"%s\"}}",
			wrong[i]);
		refuses(text, "mmds-config.ipv4_address", i < 3 ? "link-local" : "must be an IPv4 address");
	}
	refuses("{" BOOT "," ETH0 ",\"mmds-config\":{\"network_interfaces\":[\"f\"]}}", "mmds-config.network_interfaces", "names \"f\"");
	refuses("{" BOOT ",\"network-interfaces\":[{\"iface_id\":\"e\",\"host_dev_name\":\"t\",\"vhost\":true}],"
		"\"mmds-config\":{\"network_interfaces\":[\"e\"]}}",
		"mmds-config.network_interfaces", "given with vhost: its frames go past this process");
	refuses("{" BOOT ",\"network-interfaces\":[{\"iface_id\":\"e\",\"vhost_user_socket\":\"/s\"}],"
		"\"mmds-config\":{\"network_interfaces\":[\"e\"]}}",
		"mmds-config.network_interfaces", "given with vhost_user_socket");
	refuses("{" BOOT "," ETH0 ",\"mmds-config\":{\"network_interfaces\":[]}}", "mmds-config.network_interfaces", "must not be empty");
}

static void test_pmem(void **state)
{
	struct config config;
	struct error err;
	char *line;

	(void)state;
	assert_int_equal(parse("{" BOOT "," MACHINE ",\"drives\":[{\"drive_id\":\"a\",\"path_on_host\":\"/a\",\"is_root_device\":false}],"
			       "\"pmem\":[{\"id\":\"a\",\"path_on_host\":\"/a\"},"
			       "{\"id\":\"b\",\"path_on_host\":\"/b\",\"root_device\":true,\"read_only\":true,"
			       "\"rate_limiter\":{\"ops\":{\"size\":1,\"refill_time\":100}}}]}",
				 &config, &err),
		0);
	assert_int_equal(config.pmems.len, 2);
	assert_false(config_pmem(&config, 0)->root_device || config_pmem(&config, 0)->read_only);
	assert_null(config_pmem(&config, 0)->rate_limiter);
	assert_int_equal(config_pmem(&config, 1)->rate_limiter->ops->refill_time, 100);
	line = config_command_line(&config);
	assert_string_equal(line, "console=ttyS0 reboot=k panic=-1 root=/dev/pmem1 ro");
	free(line);
	config_done(&config);
	refuses("{" BOOT "," MACHINE ",\"pmem\":[{\"path_on_host\":\"/a\"}]}", "pmem[0].id", "required");
	refuses("{" BOOT "," MACHINE ",\"pmem\":[{\"id\":\"a\"}]}", "pmem[0].path_on_host", "required");
	refuses("{" BOOT "," MACHINE ",\"pmem\":[{\"id\":\"a-b\",\"path_on_host\":\"/a\"}]}", "pmem[0].id", "letters");
	refuses("{" BOOT "," MACHINE ",\"pmem\":[{\"id\":\"a\",\"path_on_host\":\"/a\"},"
		"{\"id\":\"a\",\"path_on_host\":\"/b\"}]}",
		"pmem[1].id", "taken by pmem[0]");
	refuses("{" BOOT "," MACHINE ",\"pmem\":[{\"id\":\"a\",\"path_on_host\":\"/a\",\"root_device\":true},"
		"{\"id\":\"b\",\"path_on_host\":\"/b\",\"root_device\":true}]}",
		"pmem[1].root_device", "pmem[0] is the root device already");
	refuses("{" BOOT "," MACHINE ",\"pmem\":[{\"id\":\"a\",\"path_on_host\":\"/a\",\"root_device\":true}],"
		"\"drives\":[{\"drive_id\":\"r\",\"path_on_host\":\"/a\",\"is_root_device\":true}]}",
		"pmem[0].root_device", "drive \"r\" is the root device already");
}

static void test_memory_that_is_plugged(void **state)
{
	static const struct {
		const char *object, *field, *reason;
	} wrong[] = {
		{"{}", "memory-hotplug.total_size_mib", "required"},
		{"{\"total_size_mib\":1024,\"block_size_mib\":1}", "memory-hotplug.block_size_mib", "must be 2 to"},
		{"{\"total_size_mib\":1024,\"block_size_mib\":6}", "memory-hotplug.block_size_mib", "power of two"},
		{"{\"total_size_mib\":1024,\"slot_size_mib\":64}", "memory-hotplug.slot_size_mib", "must be 128 to"},
		{"{\"total_size_mib\":1024,\"block_size_mib\":4,\"slot_size_mib\":130}", "memory-hotplug.slot_size_mib",
			"multiple of block_size_mib"},
		{"{\"total_size_mib\":64}", "memory-hotplug.total_size_mib", "multiple of slot_size_mib"},
		{"{\"total_size_mib\":1000}", "memory-hotplug.total_size_mib", "multiple of slot_size_mib"},
		{"{\"total_size_mib\":1024,\"requested_size_mib\":2}", "memory-hotplug.requested_size_mib", "unknown"},
	};
	struct config config;
	struct error err;

	(void)state;
	assert_int_equal(parse("{" BOOT "," MACHINE ",\"memory-hotplug\":{\"total_size_mib\":1024}}", &config, &err), 0);
	assert_int_equal(config.hotplug_memory->total_size_mib, 1024);
	assert_int_equal(config.hotplug_memory->block_size_mib, 2);
	assert_int_equal(config.hotplug_memory->slot_size_mib, 128);
	config_done(&config);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		char text[512];

		snprintf(text, sizeof(text), "{" BOOT "," MACHINE ",\"memory-hotplug\":%s}", wrong[i].object);
		refuses(text, wrong[i].field, wrong[i].reason);
	}
}

static void test_sizes(void **state)
{
	(void)state;
	refuses("{" BOOT ",\"machine-config\":{\"vcpu_count\":33,\"mem_size_mib\":128}}",
		"machine-config.vcpu_count", "1 to 32");
	refuses("{" BOOT ",\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":15}}",
		"machine-config.mem_size_mib", "16 to");
	refuses("{" BOOT ",\"machine-config\":{\"vcpu_count\":3,\"mem_size_mib\":128,\"smt\":true}}",
		"machine-config.vcpu_count", "even");
	refuses("{" BOOT ",\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":129,\"huge_pages\":\"2M\"}}",
		"machine-config.mem_size_mib", "even");
	refuses("{" BOOT ",\"machine-config\":{\"vcpu_count\":1}}", "machine-config.mem_size_mib", "required");
}

static void test_a_kernel_of_its_own(void **state)
{
	struct config config;
	struct error err;

	(void)state;
	assert_int_equal(parse("{\"boot-source\":{\"kernel_image_path\":\"/k\",\"private_kernel\":true}," MACHINE "}", &config, &err), 0);
	assert_true(config.boot.private_kernel);
	config_done(&config);
	refuses("{\"boot-source\":{\"kernel_image_path\":\"/k\",\"private_kernel\":1}," MACHINE "}", "boot-source.private_kernel", "true or false");
}

static void test_kinds_of_memory(void **state)
{
	static const char *const given[] = {"\"shared\"", "\"cow\"", "\"auto\"", "null"};
	static const int kinds[] = {CONFIG_MEMORY_SHARED, CONFIG_MEMORY_COW, CONFIG_MEMORY_AUTO, CONFIG_MEMORY_AUTO};
	struct config config;
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(given); i++) {
		char text[256];

		snprintf(text, sizeof(text),
			"{" BOOT ",\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":128,\"memory_kind\":%s}}",
			given[i]);
		assert_int_equal(parse(text, &config, &err), 0);
		assert_int_equal(config.machine.memory_kind, kinds[i]);
		assert_int_equal(config_shares_memory(&config), kinds[i] == CONFIG_MEMORY_SHARED);
		config_done(&config);
	}
	refuses("{" BOOT ",\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":128,\"memory_kind\":\"private\"}}",
		"machine-config.memory_kind", "must be one of auto, shared, cow");
	refuses("{" BOOT ",\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":128,\"memory_kind\":\"cow\"},"
		"\"drives\":[{\"drive_id\":\"a\",\"path_on_host\":\"/a\",\"is_root_device\":false,\"socket\":\"/s\"}]}",
		"drives[0].socket", "private to the monitor: use shared");
}

static void test_what_shares_the_memory(void **state)
{
	static const char *const pieces[] = {
		"\"drives\":[{\"drive_id\":\"a\",\"is_root_device\":false,\"path_on_host\":\"/a\"}]",
		"\"network-interfaces\":[{\"iface_id\":\"a\",\"host_dev_name\":\"tap0\",\"vhost\":true}]",
		"\"drives\":[{\"drive_id\":\"a\",\"is_root_device\":false,\"socket\":\"/s\"}]",
		"\"network-interfaces\":[{\"iface_id\":\"a\",\"vhost_user_socket\":\"/s\"}]",
		"\"filesystems\":[{\"fs_id\":\"a\",\"tag\":\"a\",\"socket\":\"/s\"}]",
	};
	struct config config;
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		char text[512];

		snprintf(text, sizeof(text), "{" BOOT ",%s}", pieces[i]);
		assert_int_equal(parse(text, &config, &err), 0);
		assert_int_equal(config_shares_memory(&config), i >= 2); /* the kernel's vhost-net is no other process */
		config_done(&config);
	}
}

static void test_balloon(void **state)
{
	static const struct {
		const char *balloon, *field, *reason;
	} wrong[] = {
		{"{\"deflate_on_oom\":true}", "balloon.amount_mib", "required"},
		{"{\"amount_mib\":1}", "balloon.deflate_on_oom", "required"},
		{"{\"amount_mib\":129,\"deflate_on_oom\":true}", "balloon.amount_mib", "128 MiB"},
		{"{\"amount_mib\":-1,\"deflate_on_oom\":true}", "balloon.amount_mib", "must be 0"},
		{"{\"amount_mib\":1,\"deflate_on_oom\":1}", "balloon.deflate_on_oom", "true or false"},
		{"{\"amount_mib\":1,\"deflate_on_oom\":true,\"stats_polling_interval_s\":65536}",
			"balloon.stats_polling_interval_s", "must be 0 to 65535"},
		{"{\"amount_mib\":1,\"deflate_on_oom\":true,\"free_page_hinting\":0}", "balloon.free_page_hinting", "true or false"},
		{"{\"amount_mib\":1,\"deflate_on_oom\":true,\"free_page_reporting\":\"\"}",
			"balloon.free_page_reporting", "true or false"},
		{"{\"amount_mib\":1,\"deflate_on_oom\":true,\"free_page_report\":true}", "balloon.free_page_report", "unknown"},
	};
	struct config config;
	struct error err;

	(void)state;
	assert_int_equal(parse("{" BOOT "," MACHINE ",\"balloon\":{\"amount_mib\":128,\"deflate_on_oom\":true}}", &config, &err), 0);
	assert_int_equal(config.balloon->amount_mib, 128);
	assert_true(config.balloon->deflate_on_oom);
	assert_int_equal(config.balloon->stats_polling_interval_s, 0);
	assert_false(config.balloon->free_page_hinting || config.balloon->free_page_reporting);
	config_done(&config);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		char text[512];

		snprintf(text, sizeof(text), "{" BOOT "," MACHINE ",\"balloon\":%s}", wrong[i].balloon);
		refuses(text, wrong[i].field, wrong[i].reason);
	}
}

static void test_a_console(void **state)
{
	struct config config;
	struct error err;

	(void)state;
	assert_int_equal(parse("{" BOOT ",\"console\":{\"socket_path\":\"/s\",\"output_path\":null}}", &config, &err), 0);
	assert_string_equal(config.console->socket_path, "/s");
	assert_null(config.console->output_path);
	config_done(&config);
	refuses("{" BOOT ",\"console\":{}}", "console.output_path", "is required (or socket_path)");
	refuses("{" BOOT ",\"console\":{\"socket_path\":\"/s\",\"output_path\":\"/o\"}}", "console.socket_path",
		"cannot be given together");
	refuses("{" BOOT ",\"console\":{\"socket_path\":\"\"}}", "console.socket_path", "must not be empty");
}

static void test_a_debuggers_socket(void **state)
{
	struct config config;
	struct error err;

	(void)state;
	assert_int_equal(parse("{" BOOT ",\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":128,"
			       "\"gdb_socket_path\":\"/g\"}}", &config, &err), 0);
	assert_string_equal(config.machine.gdb_socket_path, "/g");
	config_done(&config);
	assert_int_equal(parse("{" BOOT "," MACHINE "}", &config, &err), 0);
	assert_null(config.machine.gdb_socket_path);
	config_done(&config);
}

static void test_more_devices_than_there_is_room_for(void **state)
{
	char text[4096] = "{" BOOT "," MACHINE ",\"entropy\":{},\"drives\":[";
	size_t len = strlen(text);

	(void)state;
	for (unsigned i = 0; i < CONFIG_DEVICES_MAX; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len,
			"%s{\"drive_id\":\"d%u\",\"path_on_host\":\"/d\",\"is_root_device\":false}",
			i ? "," : "", i);
	snprintf(text + len, sizeof(text) - len, "]}");
	refuses(text, "drives", "32 devices");
}

static void test_levels(void **state)
{
	enum log_level level;
	struct error err = {0};

	(void)state;
	assert_int_equal(config_parse_level("wArNiNg", &level, &err), 0);
	assert_int_equal(level, LOG_LEVEL_WARN);
	assert_int_equal(config_parse_level("Trace", &level, &err), 0);
	assert_int_equal(level, LOG_LEVEL_DEBUG);
	assert_true(config_parse_level("", &level, &err) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_least_there_can_be),
		cmocka_unit_test(test_null_is_absent),
		cmocka_unit_test(test_drives),
		cmocka_unit_test(test_a_root_device_can_be_a_partition),
		cmocka_unit_test(test_networks),
		cmocka_unit_test(test_an_interface_has_several_pairs_of_queues),
		cmocka_unit_test(test_metadata_service),
		cmocka_unit_test(test_pmem),
		cmocka_unit_test(test_memory_that_is_plugged),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_a_kernel_of_its_own),
		cmocka_unit_test(test_kinds_of_memory),
		cmocka_unit_test(test_what_shares_the_memory),
		cmocka_unit_test(test_balloon),
		cmocka_unit_test(test_a_console),
		cmocka_unit_test(test_a_debuggers_socket),
		cmocka_unit_test(test_more_devices_than_there_is_room_for),
		cmocka_unit_test(test_levels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
