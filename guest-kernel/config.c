/* The guest configuration: its field tables and its reading. */
#include "guest-kernel/config.h"

#include "common/buf.h"
#include "common/exec_spec.h"
#include "common/stop_signal.h"

#include <errno.h>
#include <string.h>

#define CONFIG_BYTES_MAX (4 << 20)

/* An image has up to 1024 variables, and the machine as many of its own. */
#define ENV_MAX 2048

/* VIRTIO_BLK_ID_BYTES: what fits a virtio block device's serial. */
#define SERIAL_BYTES_MAX 20

static const struct json_field root_fields[] = {
	{"image", JSON_FIELD_STRING, offsetof(struct guest_root, image), .required = true, .min = 1,
		.max = SERIAL_BYTES_MAX, .help = "drive with the EROFS image"},
	{"scratch", JSON_FIELD_STRING, offsetof(struct guest_root, scratch), .nullable = true, .min = 1,
		.max = SERIAL_BYTES_MAX, .help = "drive with the ext4 file system that takes the writes"},
};
static const struct json_table root_table = JSON_TABLE("GuestRoot", struct guest_root, root_fields);

/* 5.11.4 of the virtio specification: the tag's field has that many bytes. */
#define TAG_BYTES_MAX 36

static const struct json_field mount_fields[] = {
	{"drive", JSON_FIELD_STRING, offsetof(struct guest_mount, drive), .min = 1, .max = SERIAL_BYTES_MAX,
		.help = "drive with an ext4 file system"},
	{"tag", JSON_FIELD_STRING, offsetof(struct guest_mount, tag), .min = 1, .max = TAG_BYTES_MAX,
		.help = "in its place: of a virtio file system"},
	{"path", JSON_FIELD_STRING, offsetof(struct guest_mount, path), .required = true, .min = 2, .max = 4095,
		.check = exec_check_folder, .help = "where it is mounted"},
	{"read_only", JSON_FIELD_BOOL, offsetof(struct guest_mount, read_only), .help = "mounted so"},
};
static const struct json_table mount_table = JSON_TABLE("GuestMount", struct guest_mount, mount_fields);

static const struct json_field config_fields[] = {
	{"hostname", JSON_FIELD_STRING, offsetof(struct guest_config, hostname), .min = 1, .max = HOSTNAME_BYTES_MAX,
		.def_string = "hull", .check = hostname_check, .help = "the machine's name"},
	{"command", JSON_FIELD_STRINGS, offsetof(struct guest_config, command), .required = true, .min = 1,
		.max = 4096, .item_max = EXEC_ARGUMENT_MAX, .help = "the workload: program and arguments"},
	{"env", JSON_FIELD_MAP, offsetof(struct guest_config, env), .max = ENV_MAX, .check = exec_check_env_name,
		.help = "the workload's environment"},
	{"user", JSON_FIELD_STRING, offsetof(struct guest_config, user), .min = 1, .max = 256, .def_string = "root",
		.help = "name or number, optionally with :group"},
	{"workdir", JSON_FIELD_STRING, offsetof(struct guest_config, workdir), .min = 1, .max = 4095,
		.def_string = "/", .check = exec_check_folder, .help = "where the workload starts"},
	{"root", JSON_FIELD_OBJECT, offsetof(struct guest_config, root), .required = true, .table = &root_table,
		.help = "drives of the root file system"},
	{"mounts", JSON_FIELD_ARRAY, offsetof(struct guest_config, mounts), .table = &mount_table, .max = GUEST_MOUNTS_MAX,
		.help = "what else is mounted in it"},
	{"network", JSON_FIELD_OPTIONAL, offsetof(struct guest_config, network), .nullable = true,
		.table = &guest_network_table, .help = "absent: loopback only"},
	{"attached", JSON_FIELD_BOOL, offsetof(struct guest_config, attached),
		.help = "the workload begins when a client of the host executes it"},
	{"stop_signal", JSON_FIELD_ENUM, offsetof(struct guest_config, stop_signal), .names = stop_signal_names,
		.help = "what asks the workload to end"},
};
const struct json_table guest_config_table = JSON_TABLE("GuestConfig", struct guest_config, config_fields);

int guest_config_stop_signal(const struct guest_config *config)
{
	return stop_signal_number(config->stop_signal);
}

int guest_config_check(const struct guest_config *config, struct error *err)
{
	const struct guest_mount *mounts = config->mounts.items;

	for (size_t i = 0; i < config->mounts.len; i++)
		if (!mounts[i].drive == !mounts[i].tag) {
			error_set(err, EINVAL, "must have a drive or a tag");
			return error_in_field(err, "mounts[%zu]", i);
		}
	return 0;
}

static int config_parse(const struct buf *text, struct guest_config *ret, struct error *err)
{
	struct guest_config config;
	json_t *json = json_parse(text->data, text->len, err);
	int r;

	if (!json)
		return -EINVAL;
	r = json_read(&guest_config_table, json, &config, err);
	json_decref(json);
	if (r < 0)
		return r;
	r = guest_config_check(&config, err);
	if (r < 0) {
		guest_config_done(&config);
		return r;
	}
	*ret = config;
	return 0;
}

int guest_config_read(const char *path, struct guest_config *ret, struct error *err)
{
	struct buf text;
	int r;

	buf_init(&text, CONFIG_BYTES_MAX);
	r = buf_read_file(&text, path);
	if (r < 0)
		error_set_errno(err, -r, "%s", path);
	else
		r = config_parse(&text, ret, err);
	buf_done(&text);
	return r;
}

void guest_config_done(struct guest_config *config)
{
	json_done(&guest_config_table, config);
}
