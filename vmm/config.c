/* The configuration file: its field tables, and the rules that concern more than one field. */
#include "vmm/config.h"

#include "common/buf.h"
#include "vmm/layout.h"

#include <assert.h>
#include <ctype.h>
#include <string.h>
#include <strings.h>

static int check_id(const char *value, struct error *err)
{
	for (const char *c = value; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '_')
			return error_set(err, EINVAL, "may hold letters, digits and '_' only");
	return 0;
}

/* "06:00:ac:10:00:02", exactly. */
static bool parse_mac(const char *text, uint8_t ret[6])
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

static int check_mac(const char *value, struct error *err)
{
	uint8_t mac[6];

	if (!parse_mac(value, mac))
		return error_set(err, EINVAL, "must be six bytes in hexadecimal, as 06:00:ac:10:00:02");
	if (mac[0] & 1)
		return error_set(err, EINVAL, "is a multicast address");
	return 0;
}

static int check_template(const char *value, struct error *err)
{
	if (strcmp(value, "None") != 0)
		return error_set(err, ENOTSUP, "CPU templates are not supported yet");
	return 0;
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
static const char *const cache_names[] = {
	[CONFIG_CACHE_UNSAFE] = "Unsafe", [CONFIG_CACHE_WRITEBACK] = "Writeback", NULL};
static const char *const engine_names[] = {
	[CONFIG_ENGINE_SYNC] = "Sync", [CONFIG_ENGINE_ASYNC] = "Async", NULL};

/* Firecracker's own configurations say null for what they do without, so everything that may be absent may be
 * null. */
#define BOOT(member) offsetof(struct config_boot, member)
static const struct json_field boot_fields[] = {
	{"kernel_image_path", JSON_FIELD_STRING, BOOT(kernel_image_path), .required = true, .min = 1,
		.help = "bzImage or ELF vmlinux"},
	{"initrd_path", JSON_FIELD_STRING, BOOT(initrd_path), .nullable = true, .min = 1},
	{"initrd_append_path", JSON_FIELD_STRING, BOOT(initrd_append_path), .nullable = true, .min = 1,
		.help = "cpio archive put behind the initrd"},
	{"boot_args", JSON_FIELD_STRING, BOOT(boot_args), .nullable = true, .max = LAYOUT_CMDLINE_MAX - 1,
		.def_string = "console=ttyS0 reboot=k panic=-1", .help = "kernel command line"},
};
static const struct json_table boot_table = JSON_TABLE("BootSource", struct config_boot, boot_fields);

#define MACHINE(member) offsetof(struct config_machine, member)
static const struct json_field machine_fields[] = {
	{"vcpu_count", JSON_FIELD_INT, MACHINE(vcpu_count), .required = true, .min = 1,
		.max = CONFIG_VCPUS_MAX},
	{"mem_size_mib", JSON_FIELD_INT, MACHINE(mem_size_mib), .required = true, .min = CONFIG_MEMORY_MIN,
		.max = CONFIG_MEMORY_MAX},
	{"smt", JSON_FIELD_BOOL, MACHINE(smt), .nullable = true, .help = "two threads a core"},
	{"track_dirty_pages", JSON_FIELD_BOOL, MACHINE(track_dirty_pages), .nullable = true},
	{"huge_pages", JSON_FIELD_ENUM, MACHINE(huge_pages), .nullable = true, .names = huge_page_names},
	{"cpu_template", JSON_FIELD_STRING, MACHINE(cpu_template), .nullable = true, .check = check_template},
};
static const struct json_table machine_table =
	JSON_TABLE("MachineConfig", struct config_machine, machine_fields);

#define DRIVE(member) offsetof(struct config_drive, member)
static const struct json_field drive_fields[] = {
	{"drive_id", JSON_FIELD_STRING, DRIVE(drive_id), .required = true, .min = 1, .max = 64,
		.check = check_id},
	{"path_on_host", JSON_FIELD_STRING, DRIVE(path_on_host), .required = true, .min = 1,
		.help = "raw file or block device"},
	{"is_root_device", JSON_FIELD_BOOL, DRIVE(is_root_device), .required = true},
	{"is_read_only", JSON_FIELD_BOOL, DRIVE(is_read_only), .nullable = true},
	{"partuuid", JSON_FIELD_STRING, DRIVE(partuuid), .nullable = true, .min = 1, .max = 64},
	{"cache_type", JSON_FIELD_ENUM, DRIVE(cache_type), .nullable = true, .names = cache_names,
		.def = CONFIG_CACHE_WRITEBACK},
	{"io_engine", JSON_FIELD_ENUM, DRIVE(io_engine), .nullable = true, .names = engine_names,
		.def = CONFIG_ENGINE_ASYNC},
	{"rate_limiter", JSON_FIELD_ANY, DRIVE(rate_limiter), .nullable = true},
	{"socket", JSON_FIELD_ANY, DRIVE(socket), .nullable = true},
};
static const struct json_table drive_table = JSON_TABLE("Drive", struct config_drive, drive_fields);

#define NET(member) offsetof(struct config_net, member)
static const struct json_field net_fields[] = {
	{"iface_id", JSON_FIELD_STRING, NET(iface_id), .required = true, .min = 1, .max = 64,
		.check = check_id},
	{"host_dev_name", JSON_FIELD_STRING, NET(host_dev_name), .nullable = true, .min = 1, .max = 15,
		.help = "name of a tap interface"},
	{"stream_socket_path", JSON_FIELD_STRING, NET(stream_socket_path), .nullable = true, .min = 1,
		.help = "Unix socket of passt"},
	{"guest_mac", JSON_FIELD_STRING, NET(guest_mac), .nullable = true, .check = check_mac},
	{"mtu", JSON_FIELD_INT, NET(mtu), .nullable = true, .min = 68, .max = 65535},
	{"rx_rate_limiter", JSON_FIELD_ANY, NET(rx_rate_limiter), .nullable = true},
	{"tx_rate_limiter", JSON_FIELD_ANY, NET(tx_rate_limiter), .nullable = true},
};
static const struct json_table net_table = JSON_TABLE("NetworkInterface", struct config_net, net_fields);

#define VSOCK(member) offsetof(struct config_vsock, member)
static const struct json_field vsock_fields[] = {
	{"guest_cid", JSON_FIELD_INT, VSOCK(guest_cid), .required = true, .min = 3, .max = CONFIG_CID_MAX},
	{"uds_path", JSON_FIELD_STRING, VSOCK(uds_path), .required = true, .min = 1},
	{"vsock_id", JSON_FIELD_STRING, VSOCK(vsock_id), .nullable = true, .check = check_id},
};
static const struct json_table vsock_table = JSON_TABLE("Vsock", struct config_vsock, vsock_fields);

static const struct json_field entropy_fields[] = {
	{"rate_limiter", JSON_FIELD_ANY, offsetof(struct config_entropy, rate_limiter), .nullable = true},
};
static const struct json_table entropy_table = JSON_TABLE("Entropy", struct config_entropy, entropy_fields);

static const struct json_field serial_fields[] = {
	{"serial_out_path", JSON_FIELD_STRING, offsetof(struct config_serial, serial_out_path),
		.nullable = true, .min = 1},
	{"rate_limiter", JSON_FIELD_ANY, offsetof(struct config_serial, rate_limiter), .nullable = true},
};
static const struct json_table serial_table = JSON_TABLE("Serial", struct config_serial, serial_fields);

#define LOGGER(member) offsetof(struct config_logger, member)
static const struct json_field logger_fields[] = {
	{"log_path", JSON_FIELD_STRING, LOGGER(log_path), .nullable = true, .min = 1},
	{"level", JSON_FIELD_STRING, LOGGER(level), .nullable = true, .check = check_level},
	{"show_level", JSON_FIELD_BOOL, LOGGER(show_level), .nullable = true},
	{"show_log_origin", JSON_FIELD_BOOL, LOGGER(show_log_origin), .nullable = true},
	{"module", JSON_FIELD_ANY, LOGGER(module), .nullable = true},
};
static const struct json_table logger_table = JSON_TABLE("Logger", struct config_logger, logger_fields);

#define CONFIG(member) offsetof(struct config, member)
#define UNSUPPORTED(n, name)                                                                                 \
	{                                                                                                    \
		name, JSON_FIELD_ANY, CONFIG(unsupported[n]), .nullable = true                               \
	}
static const struct json_field config_fields[] = {
	{"boot-source", JSON_FIELD_OBJECT, CONFIG(boot), .required = true, .table = &boot_table},
	{"machine-config", JSON_FIELD_OBJECT, CONFIG(machine), .required = true, .table = &machine_table},
	{"drives", JSON_FIELD_ARRAY, CONFIG(drives), .nullable = true, .max = LAYOUT_VIRTIO_MAX,
		.table = &drive_table},
	{"network-interfaces", JSON_FIELD_ARRAY, CONFIG(nets), .nullable = true, .max = LAYOUT_VIRTIO_MAX,
		.table = &net_table},
	{"vsock", JSON_FIELD_OPTIONAL, CONFIG(vsock), .nullable = true, .table = &vsock_table},
	{"entropy", JSON_FIELD_OPTIONAL, CONFIG(entropy), .nullable = true, .table = &entropy_table},
	{"serial", JSON_FIELD_OPTIONAL, CONFIG(serial), .nullable = true, .table = &serial_table},
	{"logger", JSON_FIELD_OPTIONAL, CONFIG(logger), .nullable = true, .table = &logger_table},
	UNSUPPORTED(0, "balloon"),
	UNSUPPORTED(1, "cpu-config"),
	UNSUPPORTED(2, "memory-hotplug"),
	UNSUPPORTED(3, "metrics"),
	UNSUPPORTED(4, "mmds-config"),
	UNSUPPORTED(5, "pmem"),
};
static const struct json_table config_table = JSON_TABLE("Configuration", struct config, config_fields);

static const char *const unsupported_names[] = {
	"balloon", "cpu-config", "memory-hotplug", "metrics", "mmds-config", "pmem"};
static_assert(
	ARRAY_SIZE(unsupported_names) == ARRAY_SIZE(((struct config *)0)->unsupported), "one name a key");

const struct config_drive *config_drive(const struct config *config, size_t index)
{
	return (const struct config_drive *)config->drives.items + index;
}

const struct config_net *config_net(const struct config *config, size_t index)
{
	return (const struct config_net *)config->nets.items + index;
}

/* `value` was given for `field`, which Firecracker knows and this monitor does not serve. */
static int refuse_if_given(const json_t *value, const char *field, struct error *err)
{
	return value ? error_set_field(err, ENOTSUP, field, "not supported yet") : 0;
}

static int check_machine(const struct config_machine *machine, struct error *err)
{
	int r = 0;

	if (machine->smt && machine->vcpu_count > 1 && machine->vcpu_count % 2)
		r = error_set_field(err, EINVAL, "vcpu_count", "must be 1 or even with smt, not %lld",
			(long long)machine->vcpu_count);
	else if (machine->track_dirty_pages)
		r = error_set_field(err, ENOTSUP, "track_dirty_pages", "not supported yet");
	else if (machine->huge_pages == CONFIG_HUGE_PAGES_2M && machine->mem_size_mib % 2)
		r = error_set_field(err, EINVAL, "mem_size_mib", "must be even with 2M huge pages, not %lld",
			(long long)machine->mem_size_mib);
	return r < 0 ? error_in_field(err, "machine-config") : 0;
}

static int check_drive(const struct config *config, size_t index, struct error *err)
{
	const struct config_drive *drive = config_drive(config, index);
	int r = refuse_if_given(drive->rate_limiter, "rate_limiter", err);

	if (r == 0)
		r = refuse_if_given(drive->socket, "socket", err);
	for (size_t i = 0; i < index && r == 0; i++) {
		if (strcmp(config_drive(config, i)->drive_id, drive->drive_id) == 0)
			r = error_set_field(err, EEXIST, "drive_id", "\"%s\" is taken by drives[%zu]",
				drive->drive_id, i);
		else if (drive->is_root_device && config_drive(config, i)->is_root_device)
			r = error_set_field(
				err, EEXIST, "is_root_device", "drives[%zu] is the root device already", i);
	}
	return r < 0 ? error_in_field(err, "drives[%zu]", index) : 0;
}

static int check_net(const struct config *config, size_t index, struct error *err)
{
	const struct config_net *net = config_net(config, index);
	int r = refuse_if_given(net->rx_rate_limiter, "rx_rate_limiter", err);

	if (r == 0)
		r = refuse_if_given(net->tx_rate_limiter, "tx_rate_limiter", err);
	if (r == 0 && !net->host_dev_name && !net->stream_socket_path)
		r = error_set_field(err, EINVAL, "host_dev_name", "is required (or stream_socket_path)");
	if (r == 0 && net->host_dev_name && net->stream_socket_path)
		r = error_set_field(
			err, EINVAL, "stream_socket_path", "cannot be given together with host_dev_name");
	for (size_t i = 0; i < index && r == 0; i++)
		if (strcmp(config_net(config, i)->iface_id, net->iface_id) == 0)
			r = error_set_field(err, EEXIST, "iface_id",
				"\"%s\" is taken by network-interfaces[%zu]", net->iface_id, i);
	return r < 0 ? error_in_field(err, "network-interfaces[%zu]", index) : 0;
}

static int check_config(const struct config *config, struct error *err)
{
	size_t n_virtio = config->drives.len + config->nets.len + !!config->vsock + !!config->entropy;
	int r = check_machine(&config->machine, err);

	for (size_t i = 0; i < ARRAY_SIZE(unsupported_names) && r == 0; i++)
		r = refuse_if_given(config->unsupported[i], unsupported_names[i], err);
	for (size_t i = 0; i < config->drives.len && r == 0; i++)
		r = check_drive(config, i, err);
	for (size_t i = 0; i < config->nets.len && r == 0; i++)
		r = check_net(config, i, err);
	if (r == 0 && config->entropy)
		r = refuse_if_given(config->entropy->rate_limiter, "entropy.rate_limiter", err);
	if (r == 0 && config->serial)
		r = refuse_if_given(config->serial->rate_limiter, "serial.rate_limiter", err);
	if (r == 0 && config->logger)
		r = refuse_if_given(config->logger->module, "logger.module", err);
	if (r == 0 && n_virtio > LAYOUT_VIRTIO_MAX)
		r = error_set_field(err, ENOSPC, "drives",
			"%zu devices are configured; a machine has room for %d", n_virtio, LAYOUT_VIRTIO_MAX);
	return r;
}

/* An address that stays the same for the same id and belongs to nobody: locally administered, the rest a hash
 * (FNV-1a). */
static void make_mac(const char *id, uint8_t mac[6])
{
	uint64_t hash = 0xcbf29ce484222325u;

	for (; *id; id++)
		hash = (hash ^ (uint8_t)*id) * 0x100000001b3u;
	mac[0] = 0x06;
	for (unsigned i = 1; i < 6; i++)
		mac[i] = (uint8_t)(hash >> (8 * i));
}

static void settle_macs(struct config *config)
{
	struct config_net *nets = config->nets.items;

	for (size_t i = 0; i < config->nets.len; i++) {
		if (nets[i].guest_mac)
			parse_mac(nets[i].guest_mac, nets[i].mac); /* check_mac() has seen it succeed */
		else
			make_mac(nets[i].iface_id, nets[i].mac);
	}
}

/* The root device becomes /dev/vda: it moves to the front, the others keep their order. */
static void settle_root_device(struct config *config)
{
	struct config_drive *drives = config->drives.items, root;

	for (size_t i = 0; i < config->drives.len; i++)
		drives[i].position = i;
	for (size_t i = 1; i < config->drives.len; i++) {
		if (!drives[i].is_root_device)
			continue;
		root = drives[i];
		memmove(&drives[1], &drives[0], i * sizeof(*drives));
		drives[0] = root;
	}
}

int config_parse(const char *text, size_t len, struct config *ret, struct error *err)
{
	struct config config;
	json_t *json = json_parse(text, len, err);
	int r;

	if (!json)
		return -EINVAL;
	r = json_read(&config_table, json, &config, err);
	json_decref(json);
	if (r < 0)
		return r;
	r = check_config(&config, err);
	if (r < 0) {
		config_done(&config);
		return r;
	}
	settle_macs(&config);
	settle_root_device(&config);
	*ret = config;
	return 0;
}

int config_read_file(const char *path, struct config *ret, struct error *err)
{
	struct buf text;
	int r;

	buf_init(&text, CONFIG_FILE_MAX);
	r = buf_read_file(&text, path);
	if (r == -EFBIG)
		error_set_field(
			err, EFBIG, "--config-file", "%s has more than %u bytes", path, CONFIG_FILE_MAX);
	else if (r < 0)
		error_set_field(err, -r, "--config-file", "%s: %s", path, strerror(-r));
	else
		r = config_parse(text.data ? text.data : "", text.len, ret, err);
	if (r < 0 && err && !err->field[0])
		error_in_field(err, "--config-file");
	buf_done(&text);
	return r;
}

void config_done(struct config *config)
{
	json_done(&config_table, config);
}

int config_parse_level(const char *name, enum log_level *ret, struct error *err)
{
	static const struct {
		const char *name;
		enum log_level level;
	} levels[] = {
		{"Off", LOG_LEVEL_ERROR}, /* why a machine ended is never kept quiet */
		{"Error", LOG_LEVEL_ERROR},
		{"Warning", LOG_LEVEL_WARN},
		{"Warn", LOG_LEVEL_WARN},
		{"Info", LOG_LEVEL_INFO},
		{"Debug", LOG_LEVEL_DEBUG},
		{"Trace", LOG_LEVEL_DEBUG},
	};

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		if (strcasecmp(levels[i].name, name) == 0) {
			*ret = levels[i].level;
			return 0;
		}
	}
	return error_set(
		err, EINVAL, "must be one of Off, Error, Warning, Info, Debug, Trace, not \"%.40s\"", name);
}

char *config_command_line(const struct config *config)
{
	const struct config_drive *root = config->drives.len ? config_drive(config, 0) : NULL;
	const char *mode;
	char *line;
	int len;

	if (!root || !root->is_root_device) {
		len = asprintf(&line, "%s", config->boot.boot_args);
	} else {
		mode = root->is_read_only ? "ro" : "rw";
		if (root->partuuid)
			len = asprintf(&line, "%s root=PARTUUID=%s %s", config->boot.boot_args,
				root->partuuid, mode);
		else
			len = asprintf(&line, "%s root=/dev/vda %s", config->boot.boot_args, mode);
	}
	if (len < 0)
		abort();
	return line;
}
