/* The configuration file, and the rules that concern more than one field. */
#include "vmm/config.h"

#include "common/buf.h"
#include "vmm/config_cpu.h"
#include "vmm/config_items.h"
#include "vmm/layout.h"

#include <string.h>
#include <strings.h>

const struct config_drive *config_drive(const struct config *config, size_t index)
{
	return (const struct config_drive *)config->drives.items + index;
}

const struct config_drive *config_root_drive(const struct config *config)
{
	for (size_t i = 0; i < config->drives.len; i++)
		if (config_drive(config, i)->is_root_device)
			return config_drive(config, i);
	return NULL;
}

const struct config_net *config_net(const struct config *config, size_t index)
{
	return (const struct config_net *)config->nets.items + index;
}

const struct config_filesystem *config_filesystem(const struct config *config, size_t index)
{
	return (const struct config_filesystem *)config->filesystems.items + index;
}

bool config_net_is_vhost(const struct config_net *net)
{
	return net->vhost || net->vhost_user_socket;
}

const struct config_pmem *config_pmem(const struct config *config, size_t index)
{
	return (const struct config_pmem *)config->pmems.items + index;
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

bool config_shares_memory(const struct config *config)
{
	bool shares = config->filesystems.len > 0;

	if (config->machine.memory_kind != CONFIG_MEMORY_AUTO)
		return config->machine.memory_kind == CONFIG_MEMORY_SHARED;
	for (size_t i = 0; i < config->drives.len && !shares; i++)
		shares = config_drive(config, i)->socket;
	for (size_t i = 0; i < config->nets.len && !shares; i++)
		shares = config_net(config, i)->vhost_user_socket;
	return shares;
}

/* `field` asks for a back-end that is to map the machine's memory. */
static int check_vhost_user(const struct config *config, const char *field, struct error *err)
{
	if (config->machine.memory_kind == CONFIG_MEMORY_COW)
		return error_set_field(err, EINVAL, field,
			"vhost-user maps the guest's memory, and of memory_kind cow it is private to the monitor: use shared");
	return 0;
}

/* Where a drive is, and what cannot be said of one that is a back-end's. */
static int check_drive_source(const struct config_drive *drive, struct error *err)
{
	if (!drive->path_on_host && !drive->socket)
		return error_set_field(err, EINVAL, "path_on_host", "is required (or socket)");
	if (!drive->socket)
		return 0;
	if (drive->path_on_host)
		return error_set_field(err, EINVAL, "path_on_host", "cannot be given together with socket");
	if (drive->is_read_only)
		return error_set_field(err, EINVAL, "is_read_only", "cannot be given with socket: it is the back-end's to say");
	if (drive->io_engine != CONFIG_ENGINE_SYNC)
		return error_set_field(err, EINVAL, "io_engine", "cannot be given with socket: the back-end has its own");
	if (drive->num_queues != 1)
		return error_set_field(err, EINVAL, "num_queues", "cannot be given with socket: it is the back-end's to say");
	if (drive->rate_limiter)
		return error_set_field(err, EINVAL, "rate_limiter",
			"cannot be given with socket: requests go to the back-end past this process");
	return 0;
}

static int check_drive(const struct config *config, size_t index, struct error *err)
{
	const struct config_drive *drive = config_drive(config, index);
	int r = drive->socket ? check_vhost_user(config, "socket", err) : 0;

	if (r == 0)
		r = check_drive_source(drive, err);

	for (size_t i = 0; i < index && r == 0; i++)
		if (drive->is_root_device && config_drive(config, i)->is_root_device)
			r = error_set_field(
				err, EEXIST, "is_root_device", "drives[%zu] is the root device already", i);
	return r < 0 ? error_in_field(err, "drives[%zu]", index) : 0;
}

/* What moves an interface's frames, and what cannot be said where it is not this process. */
static int check_net_source(const struct config_net *net, struct error *err)
{
	if (!net->host_dev_name && !net->stream_socket_path && !net->vhost_user_socket)
		return error_set_field(
			err, EINVAL, "host_dev_name", "is required (or stream_socket_path, or vhost_user_socket)");
	if (net->host_dev_name && net->stream_socket_path)
		return error_set_field(err, EINVAL, "stream_socket_path", "cannot be given together with host_dev_name");
	if (net->vhost_user_socket && (net->host_dev_name || net->stream_socket_path))
		return error_set_field(err, EINVAL, "vhost_user_socket", "cannot be given together with %s",
			net->host_dev_name ? "host_dev_name" : "stream_socket_path");
	if (net->vhost && !net->host_dev_name)
		return error_set_field(err, EINVAL, "vhost", "needs host_dev_name: the kernel moves frames of taps only");
	if (net->queue_pairs != 1 && net->stream_socket_path)
		return error_set_field(err, EINVAL, "queue_pairs", "cannot be given with stream_socket_path: it is one stream of frames");
	if (net->queue_pairs != 1 && config_net_is_vhost(net))
		return error_set_field(err, EINVAL, "queue_pairs", "cannot be given with %s: frames go past this process",
			net->vhost ? "vhost" : "vhost_user_socket");
	if (config_net_is_vhost(net) && (net->rx_rate_limiter || net->tx_rate_limiter))
		return error_set_field(err, EINVAL, net->rx_rate_limiter ? "rx_rate_limiter" : "tx_rate_limiter",
			"cannot be given with %s: frames go past this process", net->vhost ? "vhost" : "vhost_user_socket");
	return 0;
}

static int check_net(const struct config *config, size_t index, struct error *err)
{
	const struct config_net *net = config_net(config, index);
	int r = check_net_source(net, err);

	if (r == 0 && net->vhost_user_socket)
		r = check_vhost_user(config, "vhost_user_socket", err);
	return r < 0 ? error_in_field(err, "network-interfaces[%zu]", index) : 0;
}

static int check_balloon(const struct config *config, struct error *err)
{
	int64_t has = config->machine.mem_size_mib;

	if (!config->balloon || config->balloon->amount_mib <= has)
		return 0;
	error_set_field(err, EINVAL, "amount_mib", "is %lld: too large for a machine of %lld MiB",
		(long long)config->balloon->amount_mib, (long long)has);
	return error_in_field(err, "balloon");
}

static int check_filesystem(const struct config *config, size_t index, struct error *err)
{
	const struct config_filesystem *fs = config_filesystem(config, index);
	int r = check_vhost_user(config, "socket", err);

	for (size_t i = 0; i < index && r == 0; i++)
		if (strcmp(config_filesystem(config, i)->tag, fs->tag) == 0)
			r = error_set_field(err, EEXIST, "tag", "\"%s\" is taken by filesystems[%zu]", fs->tag, i);
	return r < 0 ? error_in_field(err, "filesystems[%zu]", index) : 0;
}

static int check_mmds(const struct config *config, struct error *err)
{
	const struct json_strings *ids = config->mmds ? &config->mmds->network_interfaces : NULL;

	for (size_t i = 0; ids && i < ids->len; i++) {
		const struct config_net *net = config_find_net(config, ids->items[i]);

		if (!net)
			return error_set_field(err, ENOENT, "mmds-config.network_interfaces",
				"names \"%s\", and no network interface has that id", ids->items[i]);
		if (config_net_is_vhost(net))
			return error_set_field(err, EINVAL, "mmds-config.network_interfaces",
				"names \"%s\", which is given with %s: its frames go past this process", ids->items[i],
				net->vhost ? "vhost" : "vhost_user_socket");
		if (net->queue_pairs != 1)
			return error_set_field(err, EINVAL, "mmds-config.network_interfaces",
				"names \"%s\", which has %lld queue_pairs: the service answers on one", ids->items[i],
				(long long)net->queue_pairs);
	}
	return 0;
}

bool config_net_has_mmds(const struct config *config, const struct config_net *net)
{
	const struct json_strings *ids = config->mmds ? &config->mmds->network_interfaces : NULL;

	for (size_t i = 0; ids && i < ids->len; i++)
		if (strcmp(ids->items[i], net->iface_id) == 0)
			return true;
	return false;
}

static int check_pmem(const struct config *config, size_t index, struct error *err)
{
	const struct config_pmem *pmem = config_pmem(config, index);
	int r = 0;

	for (size_t i = 0; i < index && r == 0; i++)
		if (pmem->root_device && config_pmem(config, i)->root_device)
			r = error_set_field(err, EEXIST, "root_device", "pmem[%zu] is the root device already", i);
	if (r == 0 && pmem->root_device && config_root_drive(config))
		r = error_set_field(err, EEXIST, "root_device", "drive \"%s\" is the root device already",
			config_root_drive(config)->drive_id);
	return r < 0 ? error_in_field(err, "pmem[%zu]", index) : 0;
}

static int check_hotplug_memory(const struct config_hotplug_memory *memory, struct error *err)
{
	long long total = memory->total_size_mib, block = memory->block_size_mib, slot = memory->slot_size_mib;
	int r = 0;

	if (block & (block - 1))
		r = error_set_field(err, EINVAL, "block_size_mib", "must be a power of two, not %lld", block);
	else if (slot % block)
		r = error_set_field(err, EINVAL, "slot_size_mib", "must be a multiple of block_size_mib, %lld, not %lld",
			block, slot);
	else if (total < slot || total % slot)
		r = error_set_field(err, EINVAL, "total_size_mib", "must be a multiple of slot_size_mib, %lld, not %lld",
			slot, total);
	return r < 0 ? error_in_field(err, "memory-hotplug") : 0;
}

static int check_console(const struct config_console *console, struct error *err)
{
	int r = 0;

	if (!console->output_path && !console->socket_path)
		r = error_set_field(err, EINVAL, "output_path", "is required (or socket_path)");
	else if (console->output_path && console->socket_path)
		r = error_set_field(err, EINVAL, "socket_path", "cannot be given together with output_path");
	return r < 0 ? error_in_field(err, "console") : 0;
}

int config_check(const struct config *config, struct error *err)
{
	size_t n_virtio = config->drives.len + config->nets.len + config->filesystems.len + config->pmems.len +
			  !!config->hotplug_memory + !!config->vsock + !!config->entropy + !!config->balloon + !!config->console;
	int r = check_machine(&config->machine, err);

	if (r == 0)
		r = config_check_ids(config, err);
	for (size_t i = 0; i < config->drives.len && r == 0; i++)
		r = check_drive(config, i, err);
	for (size_t i = 0; i < config->nets.len && r == 0; i++)
		r = check_net(config, i, err);
	if (r == 0)
		r = check_balloon(config, err);
	for (size_t i = 0; i < config->filesystems.len && r == 0; i++)
		r = check_filesystem(config, i, err);
	if (r == 0)
		r = check_mmds(config, err);
	for (size_t i = 0; i < config->pmems.len && r == 0; i++)
		r = check_pmem(config, i, err);
	if (r == 0 && config->hotplug_memory)
		r = check_hotplug_memory(config->hotplug_memory, err);
	if (r == 0 && config->console)
		r = check_console(config->console, err);
	if (r == 0 && n_virtio > CONFIG_DEVICES_MAX)
		r = error_set_field(err, ENOSPC, "drives",
			"%zu devices are configured; a machine has room for %d", n_virtio, CONFIG_DEVICES_MAX);
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

void config_settle(struct config *config)
{
	struct config_net *nets = config->nets.items;

	for (size_t i = 0; i < config->nets.len; i++) {
		if (nets[i].guest_mac)
			config_parse_mac(nets[i].guest_mac, nets[i].mac); /* check_mac() has seen it succeed */
		else
			make_mac(nets[i].iface_id, nets[i].mac);
	}
}

/* Firecracker's default, where the file has none. */
static void default_machine(json_t *json)
{
	if (json_is_object(json) && !json_object_get(json, "machine-config"))
		json_object_set_new(json, "machine-config",
			json_pack("{s:i, s:i}", "vcpu_count", 1, "mem_size_mib", CONFIG_MEMORY_DEFAULT));
}

/* Takes `json` over. */
static int read_whole(json_t *json, struct config *ret, struct error *err)
{
	struct config config;
	int r = json_read(&config_table, json, &config, err);

	json_decref(json);
	if (r < 0)
		return r;
	r = config_check(&config, err);
	if (r < 0) {
		config_done(&config);
		return r;
	}
	config_settle(&config);
	*ret = config;
	return 0;
}

int config_parse_object(const char *text, size_t len, struct config *ret, struct error *err)
{
	json_t *json = json_parse(text, len, err);

	return json ? read_whole(json, ret, err) : -EINVAL;
}

int config_parse(const char *text, size_t len, struct config *ret, struct error *err)
{
	json_t *json = json_parse(text, len, err);
	int r;

	if (!json)
		return -EINVAL;
	default_machine(json);
	r = config_cpu_follow_path(json, err);
	if (r == 0)
		return read_whole(json, ret, err);
	json_decref(json);
	return r;
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

/* What a root device adds to the command line: to be freed; NULL without one. */
static char *root_arguments(const struct config *config)
{
	const struct config_drive *drive = config_root_drive(config);
	char *arguments = NULL;
	int len = 0;

	if (drive)
		len = asprintf(&arguments, "root=%s%s %s", drive->partuuid ? "PARTUUID=" : "/dev/vda",
			drive->partuuid ? drive->partuuid : "", drive->is_read_only ? "ro" : "rw");
	for (size_t i = 0; i < config->pmems.len && !arguments; i++)
		if (config_pmem(config, i)->root_device)
			len = asprintf(&arguments, "root=/dev/pmem%zu %s", i,
				config_pmem(config, i)->read_only ? "ro" : "rw");
	if (len < 0)
		abort();
	return arguments;
}

char *config_command_line(const struct config *config)
{
	cleanup_free char *root = root_arguments(config);
	char *line;

	if (asprintf(&line, "%s%s%s", config->boot.boot_args, root ? " " : "", root ? root : "") < 0)
		abort();
	return line;
}
