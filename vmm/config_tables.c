/* The configuration's field tables: one an object, which reads it, refuses what does not belong, describes it and writes
 * it again (GET /vm/config). Keys, defaults and ranges are Firecracker's; what is Hull's own is `sparse`, so that a client
 * who knows only Firecracker's schema never meets it. */
#include "vmm/config.h"

#include "devices/mmds.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_net.h"
#include "devices/virtio_vhost.h"
#include "vmm/config_cpu.h"
#include "vmm/layout.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>

static int check_id(const char *value, struct error *err)
{
	for (const char *c = value; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '_')
			return error_set(err, EINVAL, "may hold letters, digits and '_' only");
	return 0;
}

bool config_parse_mac(const char *text, uint8_t ret[6])
{
	static const char digits[] = "0123456789abcdef";

	if (strlen(text) != 17)
		return false;
	for (unsigned i = 0; i < 6; i++) {
		const char *high = strchr(digits, tolower((unsigned char)text[3 * i]));
		const char *low = strchr(digits, tolower((unsigned char)text[3 * i + 1]));

		if (!high || !low || (i < 5 && text[3 * i + 2] != ':'))
			return false;
		ret[i] = (uint8_t)((high - digits) << 4 | (low - digits));
	}
	return true;
}

bool config_parse_ipv4(const char *text, uint32_t *ret)
{
	struct in_addr address;

	if (inet_pton(AF_INET, text, &address) != 1)
		return false;
	*ret = ntohl(address.s_addr);
	return true;
}

static int check_mac(const char *value, struct error *err)
{
	uint8_t mac[6];

	if (!config_parse_mac(value, mac))
		return error_set(err, EINVAL, "must be six bytes in hexadecimal, as 06:00:ac:10:00:02");
	if (mac[0] & 1)
		return error_set(err, EINVAL, "is a multicast address");
	return 0;
}

static int check_template(const char *value, struct error *err)
{
	static const char *const known[] = {"C3", "T2", "T2S", "T2CL", "T2A", "V1N1"};

	if (strcmp(value, "None") == 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strcmp(value, known[i]) == 0)
			return error_set(err, ENOTSUP,
				"is %s; of the static templates, which Firecracker has deprecated, there is None only: say "
				"what the processor is like in cpu-config", known[i]);
	return error_set(err, EINVAL, "must be None, not \"%.40s\"", value);
}

static int check_level(const char *value, struct error *err)
{
	enum log_level ignored;

	return config_parse_level(value, &ignored, err);
}

static const char *const huge_page_names[] = {
	[CONFIG_HUGE_PAGES_NONE] = "None",
	[CONFIG_HUGE_PAGES_TRANSPARENT] = "Transparent",
	[CONFIG_HUGE_PAGES_2M] = "2M",
	NULL,
};
static const char *const memory_kind_names[] = {
	[CONFIG_MEMORY_AUTO] = "auto", [CONFIG_MEMORY_SHARED] = "shared", [CONFIG_MEMORY_COW] = "cow", NULL};
static const char *const cache_names[] = {
	[CONFIG_CACHE_UNSAFE] = "Unsafe", [CONFIG_CACHE_WRITEBACK] = "Writeback", NULL};
static const char *const engine_names[] = {
	[CONFIG_ENGINE_SYNC] = "Sync", [CONFIG_ENGINE_ASYNC] = "Async", NULL};

#define BUCKET(member) offsetof(struct token_bucket_config, member)
static const struct json_field bucket_fields[] = {
	{"size", JSON_FIELD_INT, BUCKET(size), .required = true, .max = TOKEN_BUCKET_SIZE_MAX,
		.help = "tokens: bytes, or operations; 0 is no limit"},
	{"refill_time", JSON_FIELD_INT, BUCKET(refill_time), .required = true, .max = TOKEN_BUCKET_REFILL_MS_MAX,
		.help = "milliseconds in which an empty bucket is full again; 0 is no limit"},
	{"one_time_burst", JSON_FIELD_INT, BUCKET(one_time_burst), .nullable = true, .sparse = true,
		.max = TOKEN_BUCKET_SIZE_MAX, .help = "tokens beside the bucket, which do not come back"},
};
static const struct json_table bucket_table = JSON_TABLE("TokenBucket", struct token_bucket_config, bucket_fields);

static const struct json_field limiter_fields[] = {
	{"bandwidth", JSON_FIELD_OPTIONAL, offsetof(struct rate_limiter_config, bandwidth), .nullable = true,
		.sparse = true, .table = &bucket_table},
	{"ops", JSON_FIELD_OPTIONAL, offsetof(struct rate_limiter_config, ops), .nullable = true,
		.sparse = true, .table = &bucket_table},
};
const struct json_table config_rate_limiter_table =
	JSON_TABLE("RateLimiter", struct rate_limiter_config, limiter_fields);

/* Firecracker's own configurations say null for what they do without, so everything that may be absent may be
 * null. */
#define BOOT(member) offsetof(struct config_boot, member)
static const struct json_field boot_fields[] = {
	{"kernel_image_path", JSON_FIELD_STRING, BOOT(kernel_image_path), .required = true, .min = 1,
		.help = "bzImage or ELF vmlinux"},
	{"initrd_path", JSON_FIELD_STRING, BOOT(initrd_path), .nullable = true, .min = 1,
		.help = "cpio archive, which the kernel unpacks"},
	{"initrd_append_path", JSON_FIELD_STRING, BOOT(initrd_append_path), .nullable = true, .min = 1,
		.sparse = true, .help = "cpio archive put behind the initrd"},
	{"boot_args", JSON_FIELD_STRING, BOOT(boot_args), .nullable = true, .max = LAYOUT_CMDLINE_MAX - 1,
		.def_string = "console=ttyS0 reboot=k panic=-1", .help = "kernel command line"},
	{"private_kernel", JSON_FIELD_BOOL, BOOT(private_kernel), .nullable = true, .sparse = true,
		.help = "no page of the kernel's code is another machine's, too"},
};
static const struct json_table boot_table = JSON_TABLE("BootSource", struct config_boot, boot_fields);

#define MACHINE(member) offsetof(struct config_machine, member)
static const struct json_field machine_fields[] = {
	{"vcpu_count", JSON_FIELD_INT, MACHINE(vcpu_count), .required = true, .min = 1,
		.max = CONFIG_VCPUS_MAX},
	{"mem_size_mib", JSON_FIELD_INT, MACHINE(mem_size_mib), .required = true, .min = CONFIG_MEMORY_MIN,
		.max = CONFIG_MEMORY_MAX},
	{"smt", JSON_FIELD_BOOL, MACHINE(smt), .nullable = true, .help = "two threads a core"},
	{"track_dirty_pages", JSON_FIELD_BOOL, MACHINE(track_dirty_pages), .nullable = true,
		.help = "false only"},
	{"huge_pages", JSON_FIELD_ENUM, MACHINE(huge_pages), .nullable = true, .names = huge_page_names,
		.help = "the host pages behind the guest RAM"},
	{"memory_kind", JSON_FIELD_ENUM, MACHINE(memory_kind), .nullable = true, .sparse = true,
		.names = memory_kind_names,
		.help = "shared: others may map it, as vhost-user does; cow: private to the monitor; auto: shared where a vhost-user "
			"back-end is there from the start"},
	{"cpu_template", JSON_FIELD_STRING, MACHINE(cpu_template), .nullable = true, .sparse = true,
		.check = check_template},
	{"gdb_socket_path", JSON_FIELD_STRING, MACHINE(gdb_socket_path), .nullable = true, .sparse = true, .min = 1,
		.help = "Unix socket; the machine waits there for a debugger before its first instruction"},
};
static const struct json_table machine_table =
	JSON_TABLE("MachineConfig", struct config_machine, machine_fields);

#define DRIVE(member) offsetof(struct config_drive, member)
static const struct json_field drive_fields[] = {
	{"drive_id", JSON_FIELD_STRING, DRIVE(drive_id), .required = true, .min = 1, .max = 64,
		.check = check_id,
		.help = "its serial number inside the guest"},
	{"path_on_host", JSON_FIELD_STRING, DRIVE(path_on_host), .nullable = true, .min = 1,
		.help = "raw file or block device"},
	{"is_root_device", JSON_FIELD_BOOL, DRIVE(is_root_device), .required = true,
		.help = "it becomes /dev/vda, and the kernel command line names it"},
	{"is_read_only", JSON_FIELD_BOOL, DRIVE(is_read_only), .nullable = true,
		.help = "the guest cannot write to it"},
	{"partuuid", JSON_FIELD_STRING, DRIVE(partuuid), .nullable = true, .min = 1, .max = 64,
		.help = "of the root device: the partition that is the root"},
	{"cache_type", JSON_FIELD_ENUM, DRIVE(cache_type), .nullable = true, .names = cache_names,
		.def = CONFIG_CACHE_UNSAFE},
	{"io_engine", JSON_FIELD_ENUM, DRIVE(io_engine), .nullable = true, .names = engine_names,
		.def = CONFIG_ENGINE_SYNC},
	{"rate_limiter", JSON_FIELD_OPTIONAL, DRIVE(rate_limiter), .nullable = true,
		.table = &config_rate_limiter_table},
	{"num_queues", JSON_FIELD_INT, DRIVE(num_queues), .nullable = true, .sparse = true, .min = 1, .max = BLK_QUEUES_MAX,
		.def = 1, .help = "more than one: each has a thread of its own; with --enable-pci"},
	{"socket", JSON_FIELD_STRING, DRIVE(socket), .nullable = true, .min = 1,
		.help = "Unix socket of a vhost-user back-end, in place of path_on_host"},
};
static const struct json_table drive_table = JSON_TABLE("Drive", struct config_drive, drive_fields);

#define NET(member) offsetof(struct config_net, member)
static const struct json_field net_fields[] = {
	{"iface_id", JSON_FIELD_STRING, NET(iface_id), .required = true, .min = 1, .max = 64,
		.check = check_id,
		.help = "its name here; the guest MAC is made from it unless given"},
	{"host_dev_name", JSON_FIELD_STRING, NET(host_dev_name), .nullable = true, .min = 1, .max = 15,
		.help = "name of a tap interface; /dev/fd/N: one that this process was started with"},
	{"stream_socket_path", JSON_FIELD_STRING, NET(stream_socket_path), .nullable = true, .min = 1,
		.sparse = true, .help = "Unix socket of passt; /dev/fd/N: a connected one that this process was started with"},
	{"vhost_user_socket", JSON_FIELD_STRING, NET(vhost_user_socket), .nullable = true, .min = 1,
		.sparse = true, .help = "Unix socket of a vhost-user back-end"},
	{"vhost", JSON_FIELD_BOOL, NET(vhost), .nullable = true, .sparse = true,
		.help = "the kernel (vhost-net) moves the tap's frames"},
	{"guest_mac", JSON_FIELD_STRING, NET(guest_mac), .nullable = true, .check = check_mac,
		.help = "six bytes in hexadecimal, as 06:00:ac:10:00:02"},
	{"mtu", JSON_FIELD_INT, NET(mtu), .nullable = true, .sparse = true, .min = 68, .max = 65535,
		.help = "the largest frame that the guest is told of"},
	{"queue_pairs", JSON_FIELD_INT, NET(queue_pairs), .nullable = true, .sparse = true, .min = 1, .max = NET_PAIRS_MAX,
		.def = 1, .help = "more than one: of a tap made with multi_queue, each with a thread; with --enable-pci"},
	{"rx_rate_limiter", JSON_FIELD_OPTIONAL, NET(rx_rate_limiter), .nullable = true,
		.table = &config_rate_limiter_table},
	{"tx_rate_limiter", JSON_FIELD_OPTIONAL, NET(tx_rate_limiter), .nullable = true,
		.table = &config_rate_limiter_table},
};
static const struct json_table net_table = JSON_TABLE("NetworkInterface", struct config_net, net_fields);

#define FILESYSTEM(member) offsetof(struct config_filesystem, member)
static const struct json_field filesystem_fields[] = {
	{"fs_id", JSON_FIELD_STRING, FILESYSTEM(fs_id), .required = true, .min = 1, .max = 64, .check = check_id,
		.help = "its name here"},
	{"tag", JSON_FIELD_STRING, FILESYSTEM(tag), .required = true, .min = 1, .max = VIRTIO_VHOST_TAG_MAX,
		.help = "what the guest mounts it by"},
	{"socket", JSON_FIELD_STRING, FILESYSTEM(socket), .required = true, .min = 1,
		.help = "Unix socket of a vhost-user back-end, as virtiofsd"},
	{"num_request_queues", JSON_FIELD_INT, FILESYSTEM(num_request_queues), .nullable = true, .sparse = true, .min = 1,
		.max = VIRTIO_VHOST_FS_QUEUES_MAX, .def = 1},
};
static const struct json_table filesystem_table =
	JSON_TABLE("Filesystem", struct config_filesystem, filesystem_fields);

#define PMEM(member) offsetof(struct config_pmem, member)
static const struct json_field pmem_fields[] = {
	{"id", JSON_FIELD_STRING, PMEM(id), .required = true, .min = 1, .max = 64, .check = check_id,
		.help = "its name here"},
	{"path_on_host", JSON_FIELD_STRING, PMEM(path_on_host), .required = true, .min = 1,
		.help = "file or block device that the guest has as memory"},
	{"root_device", JSON_FIELD_BOOL, PMEM(root_device), .nullable = true,
		.help = "the kernel command line names it as the root"},
	{"read_only", JSON_FIELD_BOOL, PMEM(read_only), .nullable = true,
		.help = "the guest cannot write to it"},
	{"rate_limiter", JSON_FIELD_OPTIONAL, PMEM(rate_limiter), .nullable = true,
		.table = &config_rate_limiter_table, .help = "of flushes, each of which counts the file's size"},
};
static const struct json_table pmem_table = JSON_TABLE("Pmem", struct config_pmem, pmem_fields);

#define HOTPLUG(member) offsetof(struct config_hotplug_memory, member)
static const struct json_field hotplug_memory_fields[] = {
	{"total_size_mib", JSON_FIELD_INT, HOTPLUG(total_size_mib), .required = true, .min = 1,
		.max = CONFIG_MEMORY_MAX, .help = "the most that can be plugged"},
	{"block_size_mib", JSON_FIELD_INT, HOTPLUG(block_size_mib), .nullable = true, .def = CONFIG_BLOCK_MIN,
		.min = CONFIG_BLOCK_MIN, .max = CONFIG_MEMORY_MAX, .help = "what is plugged and unplugged at once"},
	{"slot_size_mib", JSON_FIELD_INT, HOTPLUG(slot_size_mib), .nullable = true, .def = CONFIG_SLOT_MIN,
		.min = CONFIG_SLOT_MIN, .max = CONFIG_MEMORY_MAX, .help = "what KVM is told of at once"},
};
static const struct json_table hotplug_memory_table =
	JSON_TABLE("MemoryHotplugConfig", struct config_hotplug_memory, hotplug_memory_fields);

#define VSOCK(member) offsetof(struct config_vsock, member)
static const struct json_field vsock_fields[] = {
	{"guest_cid", JSON_FIELD_INT, VSOCK(guest_cid), .required = true, .min = 3, .max = CONFIG_CID_MAX,
		.help = "the address of the guest"},
	{"uds_path", JSON_FIELD_STRING, VSOCK(uds_path), .required = true, .min = 1,
		.help = "Unix socket on which the host connects to the guest"},
	{"vsock_id", JSON_FIELD_STRING, VSOCK(vsock_id), .nullable = true, .check = check_id,
		.help = "taken, and of no effect"},
};
static const struct json_table vsock_table = JSON_TABLE("Vsock", struct config_vsock, vsock_fields);

static const struct json_field entropy_fields[] = {
	{"rate_limiter", JSON_FIELD_OPTIONAL, offsetof(struct config_entropy, rate_limiter), .nullable = true,
		.table = &config_rate_limiter_table},
};
static const struct json_table entropy_table = JSON_TABLE("Entropy", struct config_entropy, entropy_fields);

#define BALLOON(member) offsetof(struct config_balloon, member)
static const struct json_field balloon_fields[] = {
	{"amount_mib", JSON_FIELD_INT, BALLOON(amount_mib), .required = true, .max = CONFIG_MEMORY_MAX,
		.help = "what the guest is to do without"},
	{"deflate_on_oom", JSON_FIELD_BOOL, BALLOON(deflate_on_oom), .required = true,
		.help = "a guest that runs out of memory takes from the balloon"},
	{"stats_polling_interval_s", JSON_FIELD_INT, BALLOON(stats_polling_interval_s), .nullable = true,
		.max = UINT16_MAX, .help = "0: no statistics"},
	{"free_page_hinting", JSON_FIELD_BOOL, BALLOON(free_page_hinting), .nullable = true,
		.help = "the guest can be asked what is free"},
	{"free_page_reporting", JSON_FIELD_BOOL, BALLOON(free_page_reporting), .nullable = true,
		.help = "the guest tells by itself what is free"},
};
static const struct json_table balloon_table = JSON_TABLE("Balloon", struct config_balloon, balloon_fields);

static const struct json_field serial_fields[] = {
	{"serial_out_path", JSON_FIELD_STRING, offsetof(struct config_serial, serial_out_path),
		.nullable = true, .min = 1,
		.help = "file for the output of the console, which is appended to; there is no input then"},
	{"rate_limiter", JSON_FIELD_OPTIONAL, offsetof(struct config_serial, rate_limiter), .nullable = true,
		.table = &bucket_table, .help = "output beyond it is dropped"},
};
static const struct json_table serial_table = JSON_TABLE("Serial", struct config_serial, serial_fields);

static const struct json_field console_fields[] = {
	{"output_path", JSON_FIELD_STRING, offsetof(struct config_console, output_path), .nullable = true, .sparse = true,
		.min = 1, .help = "file or FIFO, without input"},
	{"socket_path", JSON_FIELD_STRING, offsetof(struct config_console, socket_path), .nullable = true, .sparse = true,
		.min = 1, .help = "Unix socket to which a terminal comes"},
};
static const struct json_table console_table = JSON_TABLE("Console", struct config_console, console_fields);

#define LOGGER(member) offsetof(struct config_logger, member)
static const struct json_field logger_fields[] = {
	{"log_path", JSON_FIELD_STRING, LOGGER(log_path), .nullable = true, .min = 1,
		.help = "file or FIFO, which is appended to"},
	{"level", JSON_FIELD_STRING, LOGGER(level), .nullable = true, .check = check_level,
		.help = "Off, Error, Warning, Info, Debug or Trace"},
	{"show_level", JSON_FIELD_BOOL, LOGGER(show_level), .nullable = true,
		.present_offset = LOGGER(has_show_level),
		.help = "each line has its level"},
	{"show_log_origin", JSON_FIELD_BOOL, LOGGER(show_log_origin), .nullable = true,
		.present_offset = LOGGER(has_show_log_origin),
		.help = "each line has the source file and line it comes from"},
	{"module", JSON_FIELD_STRING, LOGGER(module), .nullable = true, .max = LOG_MODULE_MAX - 1,
		.help = "only what source files of this prefix say"},
};
static const struct json_table logger_table = JSON_TABLE("Logger", struct config_logger, logger_fields);

#define METRICS(member) offsetof(struct config_metrics, member)
static const struct json_field metrics_fields[] = {
	{"metrics_path", JSON_FIELD_STRING, METRICS(metrics_path), .required = true, .min = 1,
		.help = "file or FIFO"},
	{"emit_id", JSON_FIELD_BOOL, METRICS(emit_id), .nullable = true, .sparse = true,
		.help = "each line has the id of the machine"},
	{"properties", JSON_FIELD_MAP, METRICS(properties), .nullable = true, .sparse = true, .max = 64,
		.help = "strings that each line has too, by name"},
};
static const struct json_table metrics_table = JSON_TABLE("Metrics", struct config_metrics, metrics_fields);

/* RFC 3927, 2.1: the first and the last 256 addresses of 169.254.0.0/16 are nobody's. */
static int check_link_local(const char *value, struct error *err)
{
	uint32_t address;

	if (!config_parse_ipv4(value, &address))
		return error_set(err, EINVAL, "must be an IPv4 address, as 169.254.169.254");
	if (address >> 16 != 0xa9fe || (address >> 8 & 0xff) == 0 || (address >> 8 & 0xff) == 0xff)
		return error_set(err, EINVAL, "must be link-local: 169.254.1.0 to 169.254.254.255");
	return 0;
}

static const char *const mmds_version_names[] = {[MMDS_V1] = "V1", [MMDS_V2] = "V2", NULL};

#define MMDS(member) offsetof(struct config_mmds, member)
static const struct json_field mmds_fields[] = {
	{"network_interfaces", JSON_FIELD_STRINGS, MMDS(network_interfaces), .required = true, .min = 1,
		.max = LAYOUT_VIRTIO_MAX, .check = check_id, .help = "iface_ids of those on which it answers"},
	{"version", JSON_FIELD_ENUM, MMDS(version), .nullable = true, .names = mmds_version_names, .def = MMDS_V1,
		.help = "V2: who asks must have a token"},
	{"ipv4_address", JSON_FIELD_STRING, MMDS(ipv4_address), .nullable = true, .def_string = "169.254.169.254",
		.check = check_link_local},
	{"imds_compat", JSON_FIELD_BOOL, MMDS(imds_compat), .nullable = true,
		.help = "text as EC2's service, whatever the guest accepts"},
};
static const struct json_table mmds_table = JSON_TABLE("MmdsConfig", struct config_mmds, mmds_fields);

#define CONFIG(member) offsetof(struct config, member)
static const struct json_field config_fields[] = {
	{"boot-source", JSON_FIELD_OBJECT, CONFIG(boot), .required = true, .table = &boot_table},
	{"machine-config", JSON_FIELD_OBJECT, CONFIG(machine), .required = true, .table = &machine_table},
	{"cpu-config", JSON_FIELD_OPTIONAL, CONFIG(cpu), .nullable = true, .table = &config_cpu_table},
	{"drives", JSON_FIELD_ARRAY, CONFIG(drives), .nullable = true, .max = CONFIG_DEVICES_MAX,
		.table = &drive_table},
	{"network-interfaces", JSON_FIELD_ARRAY, CONFIG(nets), .nullable = true, .max = CONFIG_DEVICES_MAX,
		.table = &net_table},
	{"filesystems", JSON_FIELD_ARRAY, CONFIG(filesystems), .nullable = true, .sparse = true,
		.max = CONFIG_DEVICES_MAX, .table = &filesystem_table},
	{"pmem", JSON_FIELD_ARRAY, CONFIG(pmems), .nullable = true, .max = CONFIG_DEVICES_MAX, .table = &pmem_table},
	{"memory-hotplug", JSON_FIELD_OPTIONAL, CONFIG(hotplug_memory), .nullable = true,
		.table = &hotplug_memory_table},
	{"vsock", JSON_FIELD_OPTIONAL, CONFIG(vsock), .nullable = true, .table = &vsock_table},
	{"entropy", JSON_FIELD_OPTIONAL, CONFIG(entropy), .nullable = true, .table = &entropy_table},
	{"balloon", JSON_FIELD_OPTIONAL, CONFIG(balloon), .nullable = true, .table = &balloon_table},
	{"serial", JSON_FIELD_OPTIONAL, CONFIG(serial), .nullable = true, .sparse = true,
		.table = &serial_table},
	{"console", JSON_FIELD_OPTIONAL, CONFIG(console), .nullable = true, .sparse = true,
		.table = &console_table},
	{"logger", JSON_FIELD_OPTIONAL, CONFIG(logger), .nullable = true, .table = &logger_table},
	{"metrics", JSON_FIELD_OPTIONAL, CONFIG(metrics), .nullable = true, .table = &metrics_table},
	{"mmds-config", JSON_FIELD_OPTIONAL, CONFIG(mmds), .nullable = true, .table = &mmds_table},
};
const struct json_table config_table = JSON_TABLE("Configuration", struct config, config_fields);
