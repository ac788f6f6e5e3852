/* What a monitor is started with: folders, its configuration, the guest's archive. */
#include "api/supervisor.h"

#include "api/folders.h"
#include "api/networks.h"
#include "api/saved.h"
#include "api/secrets.h"
#include "api/volume.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/stop_signal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define ARCHIVE_MAX (4u << 20) /* bytes; the configuration comes from bodies of less than 1 MiB each */
/* No PCI, keyboard or second UART to look for, no self-tests of ciphers (a stock kernel takes half a second for them). */
#define BOOT_ARGS                                                                                                                          \
	"console=ttyS0 quiet panic=-1 reboot=k pci=off i8042.nokbd 8250.nr_uarts=1 rcupdate.rcu_expedited=1 cryptomgr.notests"
#define GUEST_ADDRESS "10.0.2.15"
#define GUEST_GATEWAY "10.0.2.2"
#define GUEST_DNS     "10.0.2.3"

int launch_make_folders(struct machine *m, struct error *err)
{
	static const char *const sockets[] = {"vsock.sock", "monitor.sock"};
	char path[512];
	int r;

	r = make_directories(machine_state_path(m, "", path, sizeof(path)), 0700, err);
	if (r == 0)
		r = make_directories(machine_run_path(m, "", path, sizeof(path)), 0700, err);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(sockets); i++)
		if (unlink(machine_run_path(m, sockets[i], path, sizeof(path))) < 0 && errno != ENOENT)
			r = error_set_errno(err, errno, "cannot remove %s", path);
	return r;
}

/* The monitor's configuration. */

/* A locally administered address that is the machine's own and stays the same: its network's, or its id's last characters. */
static void make_mac(const struct machine *m, char ret[MAC_TEXT_BYTES])
{
	const char *id = m->record.id + MACHINE_ID_BYTES - 5;

	if (machine_address(m)) {
		address_mac(machine_address(m), ret);
		return;
	}
	snprintf(ret, MAC_TEXT_BYTES, "02:%02x:%02x:%02x:%02x:%02x", id[0], id[1], id[2], id[3], id[4]);
}

/* Of what is mounted by the mounts[i] of the spec. Returns `ret`. */
static char *mount_drive_id(size_t i, char ret[24])
{
	snprintf(ret, 24, "vol%zu", i);
	return ret;
}

static json_t *drive(const char *id, const char *path, bool read_only)
{
	return json_pack("{s:s, s:s, s:b, s:b, s:s, s:s}", "drive_id", id, "path_on_host", path, "is_root_device", 0,
		"is_read_only", read_only, "cache_type", read_only ? "Unsafe" : "Writeback", "io_engine", "Async");
}

/* The folders of the host that it sees, each behind its socket. NULL: none, or out of memory. */
static json_t *filesystems(const struct machine *m)
{
	const struct mount_spec *mounts = machine_running_spec(m)->mounts.items;
	json_t *array = folders_has_any(machine_running_spec(m)) ? json_array() : NULL;
	char tag[FOLDER_TAG_MAX], path[512];

	for (size_t i = 0; array && i < machine_running_spec(m)->mounts.len; i++)
		if (mounts[i].host_path)
			json_array_append_new(array, json_pack("{s:s, s:s, s:s}", "fs_id", folder_tag(i, tag), "tag", tag, "socket",
							folder_socket_path(m, i, path, sizeof(path))));
	return array;
}

static json_t *monitor_config(const struct machine *m)
{
	const struct options *options = &m->hulld->options;
	const struct machine_spec *spec = machine_running_spec(m);
	char blob[BLOB_PATH_MAX], scratch[512], vsock[512], archive[512], end[32], mac[MAC_TEXT_BYTES];
	bool in_memory = spec->secrets.len > 0;
	json_t *config;

	blob_path(m->hulld->blobs, m->record.run_rootfs[0] ? m->record.run_rootfs : m->record.rootfs, blob);
	machine_state_path(m, "scratch.ext4", scratch, sizeof(scratch));
	if (in_memory)
		snprintf(archive, sizeof(archive), "/dev/fd/%d", MONITOR_ARCHIVE_FD);
	else
		machine_state_path(m, "guest.cpio", archive, sizeof(archive));
	machine_run_path(m, "vsock.sock", vsock, sizeof(vsock));
	snprintf(end, sizeof(end), "/dev/fd/%d", MONITOR_NET_FD);
	config = json_pack("{s:{s:s, s:s, s:s, s:s, s:b}, s:{s:I, s:I}, s:[o, o], s:{s:i, s:s}, s:{}}", "boot-source",
		"kernel_image_path", options->kernel, "initrd_path", options->initrd, "initrd_append_path", archive,
		"boot_args", BOOT_ARGS, "private_kernel", strcmp(m->record.project, PROJECT_DEFAULT) != 0, "machine-config",
		"vcpu_count", (json_int_t)spec->cpus, "mem_size_mib", (json_int_t)spec->memory_mib, "drives",
		drive("image", blob, true), drive("scratch", scratch, false), "vsock", "guest_cid", 3, "uds_path", vsock,
		"entropy");
	if (config && network_kind(spec) != NETWORK_NONE) {
		make_mac(m, mac);
		json_object_set_new(config, "network-interfaces",
			json_pack("[{s:s, s:s, s:s}]", "iface_id", "eth0",
				network_kind(spec) == NETWORK_NAMED ? "host_dev_name" : "stream_socket_path", end, "guest_mac", mac));
	}
	if (config && folders_has_any(spec))
		json_object_set_new(config, "filesystems", filesystems(m));
	return config;
}

/* Drives of their own, in the order of the spec. 0 or -errno with `err` set. */
static int add_volumes(const struct machine *m, json_t *config, struct error *err)
{
	const struct machine_spec *spec = machine_running_spec(m);
	const struct mount_spec *mounts = spec->mounts.items;
	char path[VOLUME_PATH_MAX], id[24];

	for (size_t i = 0; i < spec->mounts.len; i++) {
		if (!mounts[i].volume)
			continue;
		if (volume_find_file(m->hulld, m->record.project, mounts[i].volume, path, err) < 0)
			return -err->errnum;
		json_array_append_new(json_object_get(config, "drives"), drive(mount_drive_id(i, id), path, mounts[i].read_only));
	}
	return 0;
}

/* How the guest is reached: by passt, or in its network, whose gateway is a way out of some only. 0 or -errno with `err` set; `*ret` is
 * a new reference, or NULL where it is on none. */
static int guest_network(const struct machine *m, json_t **ret, struct error *err)
{
	const struct machine_spec *spec = machine_running_spec(m);
	char address[ADDRESS_TEXT_BYTES], gateway[ADDRESS_TEXT_BYTES];
	struct network_plan plan;
	int r;

	*ret = NULL;
	if (network_kind(spec) == NETWORK_NONE)
		return 0;
	if (network_kind(spec) == NETWORK_DEFAULT) {
		*ret = json_pack("{s:s, s:s, s:i, s:s, s:[s]}", "interface", "eth0", "address", GUEST_ADDRESS, "prefix", 24, "gateway",
			GUEST_GATEWAY, "dns", GUEST_DNS);
		return 0;
	}
	r = network_find(m->hulld, m->record.project, spec->network, &plan, err);
	if (r < 0)
		return r;
	address_format(subnet_gateway(&plan.subnet), gateway);
	*ret = json_pack("{s:s, s:s, s:i, s:s?, s:[s]}", "interface", "eth0", "address", address_format(machine_address(m), address), "prefix",
		(int)plan.subnet.prefix, "gateway", plan.egress ? gateway : NULL, "dns", gateway);
	return 0;
}

/* The guest's configuration: the machine's spec over the image's (docs/interfaces.md). */

static json_t *guest_mounts(const struct machine_spec *spec)
{
	const struct mount_spec *mounts = spec->mounts.items;
	json_t *list = json_array();

	for (size_t i = 0; i < spec->mounts.len; i++) {
		bool folder = mounts[i].host_path;
		char tag[FOLDER_TAG_MAX], id[24];

		json_array_append_new(list, json_pack("{s:s, s:s, s:b}", folder ? "tag" : "drive",
						    folder ? folder_tag(i, tag) : mount_drive_id(i, id), "path", mounts[i].path, "read_only",
						    mounts[i].read_only));
	}
	return list;
}

static json_t *guest_config(const struct machine *m, const struct image_config *image)
{
	const struct machine_spec *spec = machine_running_spec(m);
	const struct json_strings *command = spec->command.len ? &spec->command : &image->command;
	const char *user = spec->user ? spec->user : image->user;
	const char *workdir = spec->workdir ? spec->workdir : image->workdir;
	json_t *argv = json_array(), *env = json_deep_copy(image->env), *config;

	for (size_t i = 0; i < command->len; i++)
		json_array_append_new(argv, json_string(command->items[i]));
	json_object_update(env, spec->env);
	config = json_pack("{s:s, s:o, s:o, s:{s:s, s:s}, s:s}", "hostname", m->record.name, "command", argv, "env", env,
		"root", "image", "image", "scratch", "scratch", "stop_signal",
		stop_signal_names[spec->stop.signal ? spec->stop.signal - 1 : image->stop_signal]);
	if (config && user)
		json_object_set_new(config, "user", json_string(user));
	if (config && workdir)
		json_object_set_new(config, "workdir", json_string(workdir));
	if (config && spec->mounts.len)
		json_object_set_new(config, "mounts", guest_mounts(spec));
	if (config && m->record.attached)
		json_object_set_new(config, "attached", json_true());
	return config;
}

/* cpio, "newc": six bytes of magic, thirteen 8-digit hexadecimal fields, the name with its NUL, the content; both padded
 * to four bytes (Linux, Documentation/driver-api/early-userspace/buffer-format.rst). */

static int pad(struct buf *archive, size_t align)
{
	static const char zeros[512];

	return buf_append(archive, zeros, (align - archive->len % align) % align);
}

static int append_entry(struct buf *archive, const char *name, unsigned mode, const void *content, size_t len)
{
	unsigned inode = (unsigned)archive->len, links = 1;
	int r = buf_printf(archive, "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x", inode, mode, 0u, 0u,
		links, 0u, len, 0u, 0u, 0u, 0u, strlen(name) + 1, 0u);

	if (r == 0)
		r = buf_append(archive, name, strlen(name) + 1);
	if (r == 0)
		r = pad(archive, 4);
	if (r == 0)
		r = buf_append(archive, content, len);
	return r == 0 ? pad(archive, 4) : r;
}

static int make_archive(struct buf *archive, const char *config, struct error *err)
{
	int r = append_entry(archive, "hull", S_IFDIR | 0755, NULL, 0);

	if (r == 0)
		r = append_entry(archive, "hull/config.json", S_IFREG | 0600, config, strlen(config));
	if (r == 0)
		r = append_entry(archive, "TRAILER!!!", 0, NULL, 0);
	if (r == 0)
		r = pad(archive, 512);
	return r < 0 ? error_set_errno(err, -r, "cannot make the guest's configuration") : 0;
}

/* With what the machine's secrets are. `archive`: initialised. */
static int guest_archive(const struct machine *m, struct buf *archive, struct error *err)
{
	const char *image_config = m->record.run_image_config ? m->record.run_image_config : m->record.image_config;
	json_t *parsed = json_parse(image_config, strlen(image_config), err), *config, *network;
	struct image_config image;
	char *text;
	int r;

	if (!parsed)
		return -err->errnum;
	r = json_read(&image_config_table, parsed, &image, err);
	json_decref(parsed);
	if (r < 0)
		return r;
	config = guest_config(m, &image);
	json_done(&image_config_table, &image);
	r = guest_network(m, &network, err);
	if (network)
		json_object_set_new(config, "network", network);
	if (r == 0 && config)
		r = secrets_add(m->hulld, m->record.project, &machine_running_spec(m)->secrets, json_object_get(config, "env"), err);
	text = config && r == 0 ? json_dumps(config, JSON_COMPACT) : NULL;
	json_decref(config);
	if (r < 0)
		return r;
	if (!text)
		return error_set(err, ENOMEM, "out of memory");
	r = make_archive(archive, text, err);
	explicit_bzero(text, strlen(text));
	free(text);
	return r;
}

static int write_guest(const struct machine *m, struct error *err)
{
	struct buf archive;
	char path[512];
	int r;

	machine_state_path(m, "guest.cpio", path, sizeof(path));
	buf_init(&archive, ARCHIVE_MAX);
	r = guest_archive(m, &archive, err);
	if (r == 0)
		r = write_file_whole(path, archive.data, archive.len, 0600, err);
	buf_done(&archive);
	return r;
}

int launch_archive_fd(const struct machine *m, struct error *err)
{
	cleanup_close int fd = memfd_create("guest", MFD_CLOEXEC);
	struct buf archive;
	int r;

	if (fd < 0)
		return error_set_errno(err, errno, "cannot make the guest's configuration");
	buf_init(&archive, ARCHIVE_MAX);
	archive.secret = true;
	r = guest_archive(m, &archive, err);
	if (r == 0) {
		r = write_full(fd, archive.data, archive.len);
		if (r < 0)
			error_set_errno(err, -r, "cannot make the guest's configuration");
	}
	buf_done(&archive);
	return r < 0 ? r : steal_fd(&fd);
}

static size_t add_words(struct launch_join *ret, size_t n, const char *const *words)
{
	while (*words) {
		assert(n + 1 < ARRAY_SIZE(ret->argv));
		ret->argv[n++] = *words++;
	}
	ret->argv[n] = NULL;
	return n;
}

int launch_join(struct machine *m, const char *const *argv, struct launch_join *ret, struct error *err)
{
	struct network_plan plan;
	size_t n = 0;
	int r;

	ret->is_needed = network_kind(machine_running_spec(m)) == NETWORK_NAMED;
	if (ret->is_needed) {
		r = network_find(m->hulld, m->record.project, machine_running_spec(m)->network, &plan, err);
		if (r == 0)
			r = network_prepare(m, &plan, err);
		if (r < 0)
			return r;
		snprintf(ret->tap_fd, sizeof(ret->tap_fd), "%d", MONITOR_NET_FD);
		snprintf(ret->status_fd, sizeof(ret->status_fd), "%d", MONITOR_STATUS_FD);
		n = add_words(ret, n, (const char *[]){m->hulld->options.network, "join", "--folder",
			network_folder(m->hulld, plan.id, ret->folder, sizeof(ret->folder)), "--subnet", subnet_format(&plan.subnet, ret->subnet),
			"--address", address_format(machine_address(m), ret->address), "--tap-fd", ret->tap_fd, "--status-fd", ret->status_fd, NULL});
		if (plan.egress)
			n = add_words(ret, n, (const char *[]){"--egress", "--passt", m->hulld->passt, NULL});
		n = add_words(ret, n, (const char *[]){"--", NULL});
	}
	add_words(ret, n, argv);
	return 0;
}

/* Takes `config`, NULL where there was no memory for it. */
static int write_config(const char *path, json_t *config, struct error *err)
{
	cleanup_free char *text = config ? json_dumps(config, JSON_INDENT(1)) : NULL;

	json_decref(config);
	if (!text)
		return error_set(err, ENOMEM, "out of memory");
	return write_file_whole(path, text, strlen(text), 0600, err);
}

int launch_prepare_restore(struct machine *m, struct error *err)
{
	char path[512];
	int r = launch_make_folders(m, err);

	if (r == 0 && unlink(machine_run_path(m, "accounting", path, sizeof(path))) < 0 && errno != ENOENT)
		r = error_set_errno(err, errno, "cannot remove %s", path);
	return r < 0 ? r : write_config(machine_run_path(m, "restore.json", path, sizeof(path)), saved_load_request(m), err);
}

bool launch_is_restore(const struct machine *m)
{
	char path[512];

	return access(machine_run_path(m, "restore.json", path, sizeof(path)), F_OK) == 0;
}

bool launch_has_begun(const struct machine *m)
{
	char path[512];

	return !launch_is_restore(m) || access(machine_run_path(m, "accounting", path, sizeof(path)), F_OK) == 0;
}

int launch_prepare(struct machine *m, struct error *err)
{
	char path[512];
	json_t *config;
	int r = launch_make_folders(m, err);

	if (r == 0 && unlink(machine_run_path(m, "restore.json", path, sizeof(path))) < 0 && errno != ENOENT)
		r = error_set_errno(err, errno, "cannot remove %s", path);
	if (r == 0 && !machine_running_spec(m)->secrets.len)
		r = write_guest(m, err);
	if (r < 0)
		return r;
	config = monitor_config(m);
	r = config ? add_volumes(m, config, err) : 0;
	if (r == 0)
		return write_config(machine_state_path(m, "config.json", path, sizeof(path)), config, err);
	json_decref(config);
	return r;
}
