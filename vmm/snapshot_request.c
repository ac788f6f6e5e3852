/* Requests to save and restore: their fields, by table, and what those cannot say. */
#include "vmm/snapshot_request.h"

#include "common/buf.h"

#include <errno.h>
#include <string.h>

enum { TYPE_FULL, TYPE_DIFF };
enum { BACKEND_FILE, BACKEND_UFFD };

static const char *const type_names[] = {[TYPE_FULL] = "Full", [TYPE_DIFF] = "Diff", NULL};
static const char *const backend_names[] = {[BACKEND_FILE] = "File", [BACKEND_UFFD] = "Uffd", NULL};
static const char *const huge_page_names[] = {
	[CONFIG_HUGE_PAGES_NONE] = "None", [CONFIG_HUGE_PAGES_TRANSPARENT] = "Transparent", [CONFIG_HUGE_PAGES_2M] = "2M", NULL};

#define CREATE(member) offsetof(struct snapshot_create, member)
static const struct json_field create_fields[] = {
	{"snapshot_path", JSON_FIELD_STRING, CREATE(snapshot_path), .required = true, .min = 1, .help = "where the state goes"},
	{"mem_file_path", JSON_FIELD_STRING, CREATE(mem_file_path), .required = true, .min = 1, .help = "where the memory goes"},
	{"snapshot_type", JSON_FIELD_ENUM, CREATE(snapshot_type), .nullable = true, .names = type_names, .help = "Diff is refused"},
};
const struct json_table snapshot_create_table = JSON_TABLE("SnapshotCreateParams", struct snapshot_create, create_fields);

#define BACKEND(member) offsetof(struct snapshot_mem_backend, member)
static const struct json_field backend_fields[] = {
	{"backend_path", JSON_FIELD_STRING, BACKEND(backend_path), .required = true, .min = 1},
	{"backend_type", JSON_FIELD_ENUM, BACKEND(backend_type), .required = true, .names = backend_names},
};
static const struct json_table backend_table = JSON_TABLE("MemoryBackend", struct snapshot_mem_backend, backend_fields);

#define NET(member) offsetof(struct snapshot_net_override, member)
static const struct json_field net_fields[] = {
	{"iface_id", JSON_FIELD_STRING, NET(iface_id), .required = true, .min = 1},
	{"host_dev_name", JSON_FIELD_STRING, NET(host_dev_name), .nullable = true, .min = 1},
	{"stream_socket_path", JSON_FIELD_STRING, NET(stream_socket_path), .nullable = true, .min = 1},
};
static const struct json_table net_table = JSON_TABLE("NetworkOverride", struct snapshot_net_override, net_fields);

#define DRIVE(member) offsetof(struct snapshot_drive_override, member)
static const struct json_field drive_fields[] = {
	{"drive_id", JSON_FIELD_STRING, DRIVE(drive_id), .required = true, .min = 1},
	{"path_on_host", JSON_FIELD_STRING, DRIVE(path_on_host), .required = true, .min = 1},
};
static const struct json_table drive_table = JSON_TABLE("DriveOverride", struct snapshot_drive_override, drive_fields);

static const struct json_field vsock_fields[] = {
	{"uds_path", JSON_FIELD_STRING, offsetof(struct snapshot_vsock_override, uds_path), .required = true, .min = 1},
};
static const struct json_table vsock_table = JSON_TABLE("VsockOverride", struct snapshot_vsock_override, vsock_fields);

#define LOAD(member) offsetof(struct snapshot_load, member)
static const struct json_field load_fields[] = {
	{"snapshot_path", JSON_FIELD_STRING, LOAD(snapshot_path), .required = true, .min = 1, .help = "the state file"},
	{"mem_backend", JSON_FIELD_OPTIONAL, LOAD(mem_backend), .nullable = true, .table = &backend_table,
		.help = "*backend_type*\\*: *File* (*Uffd* is refused); *backend_path*\\*: the memory file"},
	{"mem_file_path", JSON_FIELD_STRING, LOAD(mem_file_path), .nullable = true, .min = 1,
		.help = "the same as a mem_backend of type File, which is given in its place"},
	{"resume_vm", JSON_FIELD_BOOL, LOAD(resume_vm), .nullable = true, .help = "the machine runs at once; else it is paused"},
	{"network_overrides", JSON_FIELD_ARRAY, LOAD(network_overrides), .nullable = true, .max = CONFIG_DEVICES_MAX, .table = &net_table,
		.help = "*iface_id*\\*, and *host_dev_name* or *stream_socket_path* in place of what the interface had"},
	{"drive_overrides", JSON_FIELD_ARRAY, LOAD(drive_overrides), .nullable = true, .max = CONFIG_DEVICES_MAX, .table = &drive_table,
		.help = "*drive_id*\\*, *path_on_host*\\*: another file, not smaller, of the same content"},
	{"vsock_override", JSON_FIELD_OPTIONAL, LOAD(vsock_override), .nullable = true, .table = &vsock_table,
		.help = "*uds_path*\\*"},
	{"clock_realtime", JSON_FIELD_BOOL, LOAD(clock_realtime), .nullable = true,
		.help = "the guest's clocks are ahead by the time that has passed since it was saved"},
	{"huge_pages", JSON_FIELD_ENUM, LOAD(huge_pages), .nullable = true, .names = huge_page_names, .present_offset = LOAD(has_huge_pages),
		.help = "in place of what the machine had"},
	{"track_dirty_pages", JSON_FIELD_BOOL, LOAD(track_dirty_pages), .nullable = true, .help = "false only"},
	{"enable_diff_snapshots", JSON_FIELD_BOOL, LOAD(enable_diff_snapshots), .nullable = true, .help = "the same by its old name"},
};
const struct json_table snapshot_load_table = JSON_TABLE("SnapshotLoadParams", struct snapshot_load, load_fields);

static int check_create(const struct snapshot_create *create, struct error *err)
{
	if (create->snapshot_type == TYPE_DIFF)
		return error_set_field(err, ENOTSUP, "snapshot_type",
			"is Diff: which pages a guest has written to is not kept track of; of a Full one, pages of zeroes take no room");
	return 0;
}

static int check_load(const struct snapshot_load *load, struct error *err)
{
	if (load->mem_backend && load->mem_backend->backend_type == BACKEND_UFFD)
		return error_set_field(err, ENOTSUP, "mem_backend.backend_type",
			"is Uffd: pages come from a File only, which is mapped, and read as the guest looks");
	if (!load->mem_backend == !load->mem_file_path)
		return error_set_field(err, EINVAL, "mem_backend", load->mem_backend ? "and mem_file_path exclude one another" :
											"is required, or mem_file_path");
	if (load->track_dirty_pages || load->enable_diff_snapshots)
		return error_set_field(err, ENOTSUP, load->track_dirty_pages ? "track_dirty_pages" : "enable_diff_snapshots",
			"is true: it is of use for Diff snapshots only, which are not made");
	for (size_t i = 0; i < load->network_overrides.len; i++) {
		const struct snapshot_net_override *net = (const struct snapshot_net_override *)load->network_overrides.items + i;

		if (!net->host_dev_name == !net->stream_socket_path) {
			error_set_field(err, EINVAL, "host_dev_name", net->host_dev_name ? "and stream_socket_path exclude one another" :
											   "is required, or stream_socket_path");
			return error_in_field(err, "network_overrides[%zu]", i);
		}
	}
	return 0;
}

int snapshot_read_create(const json_t *body, struct snapshot_create *ret, struct error *err)
{
	int r = json_read(&snapshot_create_table, body, ret, err);

	if (r < 0)
		return r;
	r = check_create(ret, err);
	if (r < 0)
		json_done(&snapshot_create_table, ret);
	return r;
}

int snapshot_read_load(const json_t *body, struct snapshot_load *ret, struct error *err)
{
	int r = json_read(&snapshot_load_table, body, ret, err);

	if (r < 0)
		return r;
	r = check_load(ret, err);
	if (r < 0)
		json_done(&snapshot_load_table, ret);
	return r;
}

int snapshot_read_load_file(const char *path, struct snapshot_load *ret, struct error *err)
{
	cleanup(json_decrefp) json_t *body = NULL;
	struct buf text;
	int r;

	buf_init(&text, CONFIG_FILE_MAX);
	r = buf_read_file(&text, path);
	if (r < 0)
		error_set(err, -r, "%s: %s", path, r == -EFBIG ? "too large" : strerror(-r));
	else if (!(body = json_parse(text.data ? text.data : "", text.len, err)))
		r = -EINVAL;
	buf_done(&text);
	return r < 0 ? r : snapshot_read_load(body, ret, err);
}

struct snapshot_paths snapshot_load_paths(const struct snapshot_load *load)
{
	return (struct snapshot_paths){
		.state = load->snapshot_path, .memory = load->mem_backend ? load->mem_backend->backend_path : load->mem_file_path};
}

static int override_item(struct config *config, const char *key, const char *id, json_t *changes, struct error *err)
{
	int r = changes ? config_patch_item(config, key, id, changes, err) : error_set(err, ENOMEM, "out of memory");

	json_decref(changes);
	return r;
}

static int override_nets(const struct snapshot_load *load, struct config *config, struct error *err)
{
	for (size_t i = 0; i < load->network_overrides.len; i++) {
		const struct snapshot_net_override *net = (const struct snapshot_net_override *)load->network_overrides.items + i;

		if (override_item(config, "network-interfaces", net->iface_id,
			    json_pack("{s:s?, s:s?}", "host_dev_name", net->host_dev_name, "stream_socket_path", net->stream_socket_path),
			    err) < 0)
			return error_in_field(err, "network_overrides[%zu]", i);
	}
	return 0;
}

static int override_drives(const struct snapshot_load *load, struct config *config, struct error *err)
{
	for (size_t i = 0; i < load->drive_overrides.len; i++) {
		const struct snapshot_drive_override *drive = (const struct snapshot_drive_override *)load->drive_overrides.items + i;

		if (override_item(config, "drives", drive->drive_id, json_pack("{s:s}", "path_on_host", drive->path_on_host), err) < 0)
			return error_in_field(err, "drive_overrides[%zu]", i);
	}
	return 0;
}

static int override_vsock(const struct snapshot_load *load, struct config *config, struct error *err)
{
	cleanup(json_decrefp) json_t *changes = NULL;

	if (!load->vsock_override)
		return 0;
	changes = json_pack("{s:s}", "uds_path", load->vsock_override->uds_path);
	return config_patch(config, "vsock", changes, err) < 0 ? error_in_field(err, "vsock_override") : 0;
}

static int override_huge_pages(const struct snapshot_load *load, struct config *config, struct error *err)
{
	cleanup(json_decrefp) json_t *changes = json_pack("{s:s}", "huge_pages", huge_page_names[load->huge_pages]);

	return load->has_huge_pages ? config_patch(config, "machine-config", changes, err) : 0;
}

int snapshot_override(const struct snapshot_load *load, struct config *config, struct error *err)
{
	int r = override_nets(load, config, err);

	if (r == 0)
		r = override_drives(load, config, err);
	if (r == 0)
		r = override_vsock(load, config, err);
	return r == 0 ? override_huge_pages(load, config, err) : r;
}
