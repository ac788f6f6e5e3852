/* The balloon's routes. What is changed of a running one is changed in the configuration first, where the rules stand, and
 * back when the device refuses. */
#include "vmm/api_balloon.h"

#include "devices/virtio_balloon.h"
#include "vmm/devices.h"
#include "vmm/machine.h"
#include "vmm/monitor.h"

#include <errno.h>
#include <linux/virtio_ids.h>

static int no_balloon(struct error *err)
{
	return error_set(err, ENOENT, "No balloon device found.");
}

/* NULL with `err` set. */
static struct virtio_dev *find_balloon(struct monitor *monitor, struct error *err)
{
	struct virtio_dev *dev = devices_find(machine_devices(monitor->machine), VIRTIO_ID_BALLOON, NULL);

	if (!dev)
		no_balloon(err);
	return dev;
}

int balloon_get(void *ctx, struct api_call *call, struct error *err)
{
	const struct config *config = &((struct monitor *)ctx)->config;

	if (!config->balloon)
		return no_balloon(err);
	call->answer = config_get(config, "balloon");
	return 0;
}

int balloon_put(void *ctx, struct api_call *call, struct error *err)
{
	return config_put(&((struct monitor *)ctx)->config, "balloon", call->id, call->body, err);
}

/* `change` is made, by `apply` to the device, or not at all. */
static int change(struct monitor *monitor, const json_t *fields,
	int (*apply)(struct virtio_dev *dev, const struct config_balloon *balloon, struct error *err), struct error *err)
{
	struct virtio_dev *dev = find_balloon(monitor, err);
	cleanup(json_decrefp) json_t *before = NULL;
	int r;

	if (!dev)
		return -ENOENT;
	before = config_get(&monitor->config, "balloon");
	r = config_patch(&monitor->config, "balloon", fields, err);
	if (r < 0)
		return r;
	r = apply(dev, monitor->config.balloon, err);
	if (r < 0)
		config_put(&monitor->config, "balloon", NULL, before, NULL);
	return r;
}

struct balloon_patch {
	int64_t amount_mib;
};

static const struct json_field patch_fields[] = {
	{"amount_mib", JSON_FIELD_INT, offsetof(struct balloon_patch, amount_mib), .required = true,
		.max = CONFIG_MEMORY_MAX},
};
static const struct json_table patch_table = JSON_TABLE("BalloonUpdate", struct balloon_patch, patch_fields);

static int apply_target(struct virtio_dev *dev, const struct config_balloon *balloon, struct error *err)
{
	return virtio_balloon_set_target(dev, (uint32_t)balloon->amount_mib, err);
}

int balloon_patch(void *ctx, struct api_call *call, struct error *err)
{
	struct balloon_patch patch;
	int r = json_read(&patch_table, call->body, &patch, err);

	return r == 0 ? change(ctx, call->body, apply_target, err) : r;
}

struct statistics_patch {
	int64_t stats_polling_interval_s;
};

static const struct json_field statistics_patch_fields[] = {
	{"stats_polling_interval_s", JSON_FIELD_INT, offsetof(struct statistics_patch, stats_polling_interval_s),
		.required = true, .max = UINT16_MAX},
};
static const struct json_table statistics_patch_table =
	JSON_TABLE("BalloonStatsUpdate", struct statistics_patch, statistics_patch_fields);

static int apply_interval(struct virtio_dev *dev, const struct config_balloon *balloon, struct error *err)
{
	return virtio_balloon_set_stats_interval(dev, (uint16_t)balloon->stats_polling_interval_s, err);
}

int balloon_patch_statistics(void *ctx, struct api_call *call, struct error *err)
{
	struct statistics_patch patch;
	int r = json_read(&statistics_patch_table, call->body, &patch, err);

	return r == 0 ? change(ctx, call->body, apply_interval, err) : r;
}

/* By tag. */
static const char *const stat_names[BALLOON_STATS] = {
	"swap_in", "swap_out", "major_faults", "minor_faults", "free_memory", "total_memory", "available_memory",
	"disk_caches", "hugetlb_allocations", "hugetlb_failures", "oom_kill", "alloc_stall", "async_scan", "direct_scan",
	"async_reclaim", "direct_reclaim",
};

/* What the driver has not said is left out. A number of its making that is beyond JSON's here is said to be the greatest. */
int balloon_get_statistics(void *ctx, struct api_call *call, struct error *err)
{
	struct virtio_dev *dev = find_balloon(ctx, err);
	struct balloon_stats stats;
	int r = dev ? virtio_balloon_get_stats(dev, &stats, err) : -ENOENT;

	if (r < 0)
		return r;
	call->answer = json_pack("{s:I, s:I, s:I, s:I}", "target_pages", (json_int_t)stats.target_pages, "actual_pages",
		(json_int_t)stats.actual_pages, "target_mib", (json_int_t)(stats.target_pages / BALLOON_PAGES_PER_MIB),
		"actual_mib", (json_int_t)(stats.actual_pages / BALLOON_PAGES_PER_MIB));
	for (unsigned tag = 0; tag < BALLOON_STATS; tag++)
		if (stats.known >> tag & 1)
			json_object_set_new(call->answer, stat_names[tag],
				json_integer(stats.values[tag] < INT64_MAX ? (json_int_t)stats.values[tag] : INT64_MAX));
	return 0;
}

struct hinting_start {
	bool acknowledge_on_stop;
};

static const struct json_field hinting_start_fields[] = {
	{"acknowledge_on_stop", JSON_FIELD_BOOL, offsetof(struct hinting_start, acknowledge_on_stop), .nullable = true,
		.def = true, .help = "the guest has its free pages back as soon as it has named them all"},
};
static const struct json_table hinting_start_table =
	JSON_TABLE("BalloonStartCmd", struct hinting_start, hinting_start_fields);

int balloon_start_hinting(void *ctx, struct api_call *call, struct error *err)
{
	struct virtio_dev *dev = find_balloon(ctx, err);
	struct hinting_start start = {.acknowledge_on_stop = true};
	int r = dev ? 0 : -ENOENT;

	if (r == 0 && call->body)
		r = json_read(&hinting_start_table, call->body, &start, err);
	return r == 0 ? virtio_balloon_start_hinting(dev, start.acknowledge_on_stop, err) : r;
}

int balloon_stop_hinting(void *ctx, struct api_call *call, struct error *err)
{
	struct virtio_dev *dev = find_balloon(ctx, err);

	(void)call; /* a body is of no meaning to Firecracker either */
	return dev ? virtio_balloon_stop_hinting(dev, err) : -ENOENT;
}

int balloon_get_hinting(void *ctx, struct api_call *call, struct error *err)
{
	struct virtio_dev *dev = find_balloon(ctx, err);
	struct balloon_hinting hinting;
	int r = dev ? virtio_balloon_get_hinting(dev, &hinting, err) : -ENOENT;

	if (r < 0)
		return r;
	call->answer = json_pack("{s:I}", "host_cmd", (json_int_t)hinting.host_cmd);
	json_object_set_new(call->answer, "guest_cmd",
		hinting.has_guest_cmd ? json_integer((json_int_t)hinting.guest_cmd) : json_null());
	return 0;
}
