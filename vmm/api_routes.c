/* The API's routes: Firecracker's, and how each is served. */
#include "vmm/machine.h"
#include "vmm/metrics.h"
#include "vmm/monitor.h"

#include "common/checked.h"
#include "common/loop.h"
#include "devices/blk_io.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_net.h"
#include "vmm/api_balloon.h"
#include "vmm/api_hotplug.h"
#include "vmm/api_live.h"
#include "vmm/api_memory.h"
#include "vmm/api_mmds.h"
#include "vmm/api_snapshot.h"
#include "vmm/api_vhost.h"
#include "vmm/boot.h"
#include "vmm/devices_vhost.h"
#include "vmm/logger.h"
#include "vmm/options.h"

#include <errno.h>
#include <string.h>

/* GET */

static int get_instance(void *ctx, struct api_call *call, struct error *err)
{
	static const char *const states[] = {
		[API_NOT_STARTED] = "Not started", [API_RUNNING] = "Running", [API_PAUSED] = "Paused"};
	const struct monitor *monitor = ctx;
	bool as_firecracker = monitor->options->as_firecracker;

	(void)err;
	call->answer = json_pack("{s:s, s:s, s:s, s:s}", "app_name", as_firecracker ? "Firecracker" : "Hull", "id",
		monitor->options->id, "state", states[monitor->state], "vmm_version",
		as_firecracker ? OPTIONS_FIRECRACKER_VERSION : HULL_VERSION);
	return 0;
}

static int get_version(void *ctx, struct api_call *call, struct error *err)
{
	(void)ctx;
	(void)err;
	call->answer = json_pack("{s:s}", "firecracker_version", OPTIONS_FIRECRACKER_VERSION);
	return 0;
}

static int get_config(void *ctx, struct api_call *call, struct error *err)
{
	(void)err;
	call->answer = config_get_all(&((struct monitor *)ctx)->config);
	return 0;
}

static int get_machine_config(void *ctx, struct api_call *call, struct error *err)
{
	(void)err;
	call->answer = config_get(&((struct monitor *)ctx)->config, "machine-config");
	return 0;
}

static bool is_started(const struct monitor *monitor)
{
	return monitor->state != API_NOT_STARTED;
}

/* PUT before the start: a piece of the configuration. */

static int put(void *ctx, struct api_call *call, const char *key, struct error *err)
{
	return config_put(&((struct monitor *)ctx)->config, key, call->id, call->body, err);
}

/* What a client names is looked for when it is named, not only at the start: `look` says what is wrong with it. The piece is
 * put back as it was then. */
static int put_and_look(void *ctx, struct api_call *call, const char *key,
	int (*look)(const struct config *config, const char *id, struct error *err), struct error *err)
{
	struct monitor *monitor = ctx;
	struct config trial;
	int r;

	config_init(&trial);
	r = config_put(&trial, key, call->id, call->body, err);
	if (r == 0)
		r = look(&trial, call->id, err);
	config_done(&trial);
	return r == 0 ? config_put(&monitor->config, key, call->id, call->body, err) : r;
}

static int look_for_boot_files(const struct config *config, const char *id, struct error *err)
{
	const struct config_boot *boot = &config->boot;
	cleanup_close int kernel = -1, initrd = -1, append = -1;
	int r = boot_open_file(boot->kernel_image_path, "kernel_image_path", &kernel, err);

	(void)id;
	if (r == 0)
		r = boot_open_file(boot->initrd_path, "initrd_path", &initrd, err);
	if (r == 0)
		r = boot_open_file(boot->initrd_append_path, "initrd_append_path", &append, err);
	return r;
}

static int look_for_drive(const struct config *config, const char *id, struct error *err)
{
	const struct config_drive *drive = config_drive(config, 0);
	cleanup_close int fd = -1;
	struct blk_geometry geometry;

	(void)id;
	if (drive->socket)
		return devices_vhost_look(drive->socket, err) < 0 ? error_in_field(err, "socket") : 0;
	fd = virtio_blk_open(drive->path_on_host, drive->is_read_only, err);
	return fd < 0 ? fd : blk_geometry_read(fd, drive->path_on_host, drive->is_read_only, &geometry, err);
}

static int look_for_net(const struct config *config, const char *id, struct error *err)
{
	const struct config_net *net = config_net(config, 0);
	cleanup_close int fd = -1;

	(void)id;
	if (net->vhost_user_socket)
		return devices_vhost_look(net->vhost_user_socket, err) < 0 ? error_in_field(err, "vhost_user_socket") : 0;
	if (!net->host_dev_name)
		return 0;
	fd = virtio_net_open_tap(net->host_dev_name, net->queue_pairs > 1, err);
	if (fd < 0 && !err->field[0])
		error_in_field(err, "host_dev_name");
	return fd < 0 ? fd : 0;
}

static int put_boot_source(void *ctx, struct api_call *call, struct error *err)
{
	return put_and_look(ctx, call, "boot-source", look_for_boot_files, err);
}

static int put_machine_config(void *ctx, struct api_call *call, struct error *err)
{
	return put(ctx, call, "machine-config", err);
}

static int put_cpu_config(void *ctx, struct api_call *call, struct error *err)
{
	return put(ctx, call, "cpu-config", err);
}

static int patch_machine_config(void *ctx, struct api_call *call, struct error *err)
{
	if (json_object_size(call->body) == 0)
		return error_set(err, EINVAL, "Empty PATCH request.");
	return config_patch(&((struct monitor *)ctx)->config, "machine-config", call->body, err);
}

static int put_drive(void *ctx, struct api_call *call, struct error *err)
{
	if (is_started(ctx))
		return hotplug_put(ctx, HOTPLUG_DRIVE, call, err);
	return put_and_look(ctx, call, "drives", look_for_drive, err);
}

static int put_net(void *ctx, struct api_call *call, struct error *err)
{
	if (is_started(ctx))
		return hotplug_put(ctx, HOTPLUG_NET, call, err);
	return put_and_look(ctx, call, "network-interfaces", look_for_net, err);
}

static int put_pmem(void *ctx, struct api_call *call, struct error *err)
{
	if (is_started(ctx))
		return hotplug_put(ctx, HOTPLUG_PMEM, call, err);
	return put_and_look(ctx, call, "pmem", look_for_pmem, err);
}

static int put_hotplug_memory(void *ctx, struct api_call *call, struct error *err)
{
	return put(ctx, call, "memory-hotplug", err);
}

static int put_vsock(void *ctx, struct api_call *call, struct error *err)
{
	return put(ctx, call, "vsock", err);
}

static int put_entropy(void *ctx, struct api_call *call, struct error *err)
{
	return put(ctx, call, "entropy", err);
}

static int put_serial(void *ctx, struct api_call *call, struct error *err)
{
	return put(ctx, call, "serial", err);
}

/* Hull's own. */
static int put_console(void *ctx, struct api_call *call, struct error *err)
{
	return put(ctx, call, "console", err);
}

/* What it speaks of changes at once. */
static int put_logger(void *ctx, struct api_call *call, struct error *err)
{
	struct config trial;
	int r;

	config_init(&trial);
	r = config_put(&trial, "logger", call->id, call->body, err);
	if (r == 0)
		r = logger_change(trial.logger, err);
	config_done(&trial);
	return r == 0 ? put(ctx, call, "logger", err) : r;
}

/* It opens its file at once, and can do so once. */
static int put_metrics(void *ctx, struct api_call *call, struct error *err)
{
	struct monitor *monitor = ctx;
	struct config trial;
	int r;

	config_init(&trial);
	r = config_put(&trial, "metrics", call->id, call->body, err);
	if (r == 0)
		r = monitor_open_metrics(monitor, trial.metrics, err);
	config_done(&trial);
	return r == 0 ? put(ctx, call, "metrics", err) : r;
}

/* DELETE before the start takes the piece out again. */

static int remove_item(void *ctx, struct api_call *call, const char *key, struct error *err)
{
	return config_remove(&((struct monitor *)ctx)->config, key, call->id, err);
}

static int delete_drive(void *ctx, struct api_call *call, struct error *err)
{
	if (is_started(ctx))
		return hotplug_delete(ctx, HOTPLUG_DRIVE, call, err);
	return remove_item(ctx, call, "drives", err);
}

static int delete_net(void *ctx, struct api_call *call, struct error *err)
{
	if (is_started(ctx))
		return hotplug_delete(ctx, HOTPLUG_NET, call, err);
	return remove_item(ctx, call, "network-interfaces", err);
}

static int delete_pmem(void *ctx, struct api_call *call, struct error *err)
{
	if (is_started(ctx))
		return hotplug_delete(ctx, HOTPLUG_PMEM, call, err);
	return remove_item(ctx, call, "pmem", err);
}

/* The machine's life. */

struct action {
	int type;
};

enum action_type { ACTION_INSTANCE_START, ACTION_FLUSH_METRICS, ACTION_SEND_CTRL_ALT_DEL };

static const char *const action_names[] = {
	[ACTION_INSTANCE_START] = "InstanceStart",
	[ACTION_FLUSH_METRICS] = "FlushMetrics",
	[ACTION_SEND_CTRL_ALT_DEL] = "SendCtrlAltDel",
	NULL,
};
static const struct json_field action_fields[] = {
	{"action_type", JSON_FIELD_ENUM, offsetof(struct action, type), .required = true, .names = action_names},
};
static const struct json_table action_table = JSON_TABLE("InstanceActionInfo", struct action, action_fields);

static int put_action(void *ctx, struct api_call *call, struct error *err)
{
	struct monitor *monitor = ctx;
	struct action action;
	int r = json_read(&action_table, call->body, &action, err);

	if (r < 0)
		return r;
	switch (action.type) {
	case ACTION_FLUSH_METRICS:
		r = api_check_state(API_STARTED, monitor->state, err);
		return r == 0 ? metrics_flush(monitor->metrics, err) : r;
	case ACTION_SEND_CTRL_ALT_DEL:
		r = api_check_state(API_STARTED, monitor->state, err);
		return r == 0 ? machine_press_ctrl_alt_del(monitor->machine, err) : r;
	case ACTION_INSTANCE_START:
	default:
		r = api_check_state(API_NOT_STARTED, monitor->state, err);
		return r == 0 ? monitor_start(monitor, err) : r;
	}
}

struct vm_state {
	int state;
};

enum { VM_PAUSED, VM_RESUMED };

static const char *const vm_state_names[] = {[VM_PAUSED] = "Paused", [VM_RESUMED] = "Resumed", NULL};
static const struct json_field vm_state_fields[] = {
	{"state", JSON_FIELD_ENUM, offsetof(struct vm_state, state), .required = true, .names = vm_state_names},
};
static const struct json_table vm_state_table = JSON_TABLE("Vm", struct vm_state, vm_state_fields);

static int patch_vm(void *ctx, struct api_call *call, struct error *err)
{
	struct monitor *monitor = ctx;
	__typeof__(monitor->api_metrics.latencies) *latencies = &monitor->api_metrics.latencies;
	struct vm_state wanted;
	uint64_t begun_ns;
	int r = json_read(&vm_state_table, call->body, &wanted, err);

	if (r < 0)
		return r;
	begun_ns = monotonic_ns();
	if (wanted.state == VM_PAUSED)
		monitor_pause(monitor);
	else
		monitor_resume(monitor);
	metric_store(wanted.state == VM_PAUSED ? &latencies->pause_vm : &latencies->resume_vm,
		(monotonic_ns() - begun_ns) / 1000);
	return 0;
}

const struct api_route monitor_routes[] = {
	{HTTP_GET, "/", API_ALWAYS, API_BODY_NONE, get_instance},
	{HTTP_GET, "/version", API_ALWAYS, API_BODY_NONE, get_version},
	{HTTP_GET, "/vm/config", API_ALWAYS, API_BODY_NONE, get_config},
	{HTTP_PATCH, "/vm", API_STARTED, API_BODY_JSON, patch_vm},
	{HTTP_PUT, "/actions", API_ALWAYS, API_BODY_JSON, put_action},
	{HTTP_PUT, "/snapshot/create", API_STARTED, API_BODY_JSON, snapshot_put_create},
	{HTTP_PUT, "/snapshot/load", API_NOT_STARTED, API_BODY_JSON, snapshot_put_load},
	{HTTP_PUT, "/boot-source", API_NOT_STARTED, API_BODY_JSON, put_boot_source},
	{HTTP_GET, "/machine-config", API_ALWAYS, API_BODY_NONE, get_machine_config},
	{HTTP_PUT, "/machine-config", API_NOT_STARTED, API_BODY_JSON, put_machine_config},
	{HTTP_PATCH, "/machine-config", API_NOT_STARTED, API_BODY_JSON, patch_machine_config},
	{HTTP_PUT, "/cpu-config", API_NOT_STARTED, API_BODY_JSON, put_cpu_config},
	{HTTP_PUT, "/drives/{id}", API_ALWAYS, API_BODY_JSON, put_drive},
	{HTTP_PATCH, "/drives/{id}", API_STARTED, API_BODY_JSON, live_patch_drive},
	{HTTP_DELETE, "/drives/{id}", API_ALWAYS, API_BODY_NONE, delete_drive},
	{HTTP_PUT, "/network-interfaces/{id}", API_ALWAYS, API_BODY_JSON, put_net},
	{HTTP_PATCH, "/network-interfaces/{id}", API_STARTED, API_BODY_JSON, live_patch_net},
	{HTTP_DELETE, "/network-interfaces/{id}", API_ALWAYS, API_BODY_NONE, delete_net},
	{HTTP_PUT, "/hull/filesystems/{id}", API_NOT_STARTED, API_BODY_JSON, vhost_put_filesystem},
	{HTTP_DELETE, "/hull/filesystems/{id}", API_NOT_STARTED, API_BODY_NONE, vhost_delete_filesystem},
	{HTTP_PUT, "/pmem/{id}", API_ALWAYS, API_BODY_JSON, put_pmem},
	{HTTP_PATCH, "/pmem/{id}", API_STARTED, API_BODY_JSON, live_patch_pmem},
	{HTTP_DELETE, "/pmem/{id}", API_ALWAYS, API_BODY_NONE, delete_pmem},
	{HTTP_GET, "/hotplug/memory", API_STARTED, API_BODY_NONE, live_get_hotplug_memory},
	{HTTP_PUT, "/hotplug/memory", API_NOT_STARTED, API_BODY_JSON, put_hotplug_memory},
	{HTTP_PATCH, "/hotplug/memory", API_STARTED, API_BODY_JSON, live_patch_hotplug_memory},
	{HTTP_PUT, "/vsock", API_NOT_STARTED, API_BODY_JSON, put_vsock},
	{HTTP_PUT, "/entropy", API_NOT_STARTED, API_BODY_JSON, put_entropy},
	{HTTP_GET, "/balloon", API_ALWAYS, API_BODY_NONE, balloon_get},
	{HTTP_PUT, "/balloon", API_NOT_STARTED, API_BODY_JSON, balloon_put},
	{HTTP_PATCH, "/balloon", API_STARTED, API_BODY_JSON, balloon_patch},
	{HTTP_GET, "/balloon/statistics", API_STARTED, API_BODY_NONE, balloon_get_statistics},
	{HTTP_PATCH, "/balloon/statistics", API_STARTED, API_BODY_JSON, balloon_patch_statistics},
	{HTTP_PATCH, "/balloon/hinting/start", API_STARTED, API_BODY_OPTIONAL, balloon_start_hinting},
	{HTTP_GET, "/balloon/hinting/status", API_STARTED, API_BODY_NONE, balloon_get_hinting},
	{HTTP_PATCH, "/balloon/hinting/stop", API_STARTED, API_BODY_OPTIONAL, balloon_stop_hinting},
	{HTTP_GET, "/mmds", API_ALWAYS, API_BODY_NONE, mmds_get_data},
	{HTTP_PUT, "/mmds", API_ALWAYS, API_BODY_JSON, mmds_put_data},
	{HTTP_PATCH, "/mmds", API_ALWAYS, API_BODY_JSON, mmds_patch_data},
	{HTTP_PUT, "/mmds/config", API_NOT_STARTED, API_BODY_JSON, mmds_put_config},
	{HTTP_PUT, "/logger", API_NOT_STARTED, API_BODY_JSON, put_logger},
	{HTTP_PUT, "/metrics", API_NOT_STARTED, API_BODY_JSON, put_metrics},
	{HTTP_PUT, "/serial", API_NOT_STARTED, API_BODY_JSON, put_serial},
	{HTTP_PUT, "/hull/console", API_NOT_STARTED, API_BODY_JSON, put_console},
	{.path = NULL},
};
