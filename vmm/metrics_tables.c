/* Which counter is reported where. The names are Firecracker's, and so a field of a struct that counts is called as it is
 * reported. What Firecracker reports and has no counterpart here is left out. */
#include "vmm/metrics.h"

#include "common/checked.h"
#include "common/log.h"
#include "devices/i8042.h"
#include "devices/mmds.h"
#include "devices/uart16550.h"
#include "devices/virtio_balloon.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_mem.h"
#include "devices/virtio_net.h"
#include "devices/virtio_pmem.h"
#include "devices/virtio_rng.h"
#include "devices/virtio_vhost.h"
#include "devices/virtio_vsock.h"
#include "vmm/api_metrics.h"
#include "vmm/vcpu.h"

#define COUNT(type, field)   {#field, METRIC_COUNT, offsetof(struct type, field)}
#define VALUE(type, field)   {#field, METRIC_VALUE, offsetof(struct type, field)}
#define LATENCY(type, field) {#field, METRIC_LATENCY, offsetof(struct type, field)}

static const struct metric_field virtio_fields[] = {
	COUNT(virtio_metrics, activate_fails),
	COUNT(virtio_metrics, cfg_fails),
};
const struct metric_table metric_virtio_table = {
	NULL, virtio_fields, ARRAY_SIZE(virtio_fields), sizeof(struct virtio_metrics), false};

static const struct metric_field block_fields[] = {
	COUNT(blk_metrics, no_avail_buffer),
	COUNT(blk_metrics, execute_fails),
	COUNT(blk_metrics, invalid_reqs_count),
	COUNT(blk_metrics, flush_count),
	COUNT(blk_metrics, queue_event_count),
	COUNT(blk_metrics, read_bytes),
	COUNT(blk_metrics, write_bytes),
	COUNT(blk_metrics, read_count),
	COUNT(blk_metrics, write_count),
	LATENCY(blk_metrics, read_agg),
	LATENCY(blk_metrics, write_agg),
	COUNT(blk_metrics, io_engine_throttled_events),
	COUNT(blk_metrics, rate_limiter_throttled_events),
};

static const struct metric_field net_fields[] = {
	COUNT(net_metrics, no_rx_avail_buffer),
	COUNT(net_metrics, rx_queue_event_count),
	COUNT(net_metrics, rx_tap_event_count),
	COUNT(net_metrics, rx_bytes_count),
	COUNT(net_metrics, rx_packets_count),
	COUNT(net_metrics, rx_fails),
	COUNT(net_metrics, rx_count),
	COUNT(net_metrics, tap_read_fails),
	COUNT(net_metrics, tap_write_fails),
	COUNT(net_metrics, tx_bytes_count),
	COUNT(net_metrics, tx_malformed_frames),
	COUNT(net_metrics, tx_fails),
	COUNT(net_metrics, tx_count),
	COUNT(net_metrics, tx_packets_count),
	COUNT(net_metrics, tx_queue_event_count),
	COUNT(net_metrics, rx_rate_limiter_throttled),
	COUNT(net_metrics, tx_rate_limiter_throttled),
};

static const struct metric_field vsock_fields[] = {
	COUNT(vsock_metrics, rx_queue_event_count),
	COUNT(vsock_metrics, tx_queue_event_count),
	COUNT(vsock_metrics, rx_bytes_count),
	COUNT(vsock_metrics, tx_bytes_count),
	COUNT(vsock_metrics, rx_packets_count),
	COUNT(vsock_metrics, tx_packets_count),
	COUNT(vsock_metrics, conns_added),
	COUNT(vsock_metrics, conns_killed),
	COUNT(vsock_metrics, conns_removed),
	COUNT(vsock_metrics, tx_write_fails),
	COUNT(vsock_metrics, rx_read_fails),
};

static const struct metric_field entropy_fields[] = {
	COUNT(rng_metrics, entropy_event_fails),
	COUNT(rng_metrics, entropy_event_count),
	COUNT(rng_metrics, entropy_bytes),
	COUNT(rng_metrics, host_rng_fails),
	COUNT(rng_metrics, entropy_rate_limiter_throttled),
};

static const struct metric_field balloon_fields[] = {
	COUNT(balloon_metrics, inflate_count),
	COUNT(balloon_metrics, stats_updates_count),
	COUNT(balloon_metrics, stats_update_fails),
	COUNT(balloon_metrics, deflate_count),
	COUNT(balloon_metrics, event_fails),
	COUNT(balloon_metrics, free_page_report_count),
	COUNT(balloon_metrics, free_page_report_freed),
	COUNT(balloon_metrics, free_page_report_fails),
	COUNT(balloon_metrics, free_page_hint_count),
	COUNT(balloon_metrics, free_page_hint_freed),
	COUNT(balloon_metrics, free_page_hint_fails),
};

/* The last field, and all but the first group, are Hull's. */
static const struct metric_field vhost_fields[] = {
	VALUE(vhost_metrics, init_time_us),
	VALUE(vhost_metrics, activate_time_us),
	VALUE(vhost_metrics, config_change_time_us),
	COUNT(vhost_metrics, backend_fails),
};

static const struct metric_field pmem_fields[] = {
	COUNT(pmem_metrics, event_fails),
	COUNT(pmem_metrics, queue_event_count),
	COUNT(pmem_metrics, rate_limiter_throttled_events),
	COUNT(pmem_metrics, rate_limiter_event_count),
};

static const struct metric_field hotplug_fields[] = {
	COUNT(mem_metrics, queue_event_fails),
	COUNT(mem_metrics, queue_event_count),
	LATENCY(mem_metrics, plug_agg),
	COUNT(mem_metrics, plug_count),
	COUNT(mem_metrics, plug_bytes),
	COUNT(mem_metrics, plug_fails),
	LATENCY(mem_metrics, unplug_agg),
	COUNT(mem_metrics, unplug_count),
	COUNT(mem_metrics, unplug_bytes),
	COUNT(mem_metrics, unplug_fails),
	COUNT(mem_metrics, unplug_discard_fails),
	LATENCY(mem_metrics, unplug_all_agg),
	COUNT(mem_metrics, unplug_all_count),
	COUNT(mem_metrics, unplug_all_fails),
	LATENCY(mem_metrics, state_agg),
	COUNT(mem_metrics, state_count),
	COUNT(mem_metrics, state_fails),
};

static const struct metric_field interrupts_fields[] = {
	COUNT(virtio_metrics, triggers),
	COUNT(virtio_metrics, config_updates),
};

static const struct metric_field uart_fields[] = {
	COUNT(uart16550_metrics, flush_count),
	COUNT(uart16550_metrics, missed_read_count),
	COUNT(uart16550_metrics, missed_write_count),
	COUNT(uart16550_metrics, read_count),
	COUNT(uart16550_metrics, write_count),
};

static const struct metric_field i8042_fields[] = {
	COUNT(i8042_metrics, missed_read_count),
	COUNT(i8042_metrics, missed_write_count),
	COUNT(i8042_metrics, read_count),
	COUNT(i8042_metrics, reset_count),
	COUNT(i8042_metrics, write_count),
};

static const struct metric_field vcpu_fields[] = {
	COUNT(vcpu_metrics, exit_io_in),
	COUNT(vcpu_metrics, exit_io_out),
	COUNT(vcpu_metrics, exit_mmio_read),
	COUNT(vcpu_metrics, exit_mmio_write),
	LATENCY(vcpu_metrics, exit_io_in_agg),
	LATENCY(vcpu_metrics, exit_io_out_agg),
	LATENCY(vcpu_metrics, exit_mmio_read_agg),
	LATENCY(vcpu_metrics, exit_mmio_write_agg),
	COUNT(vcpu_metrics, exit_msr_refused), /* Hull's own */
	COUNT(vcpu_metrics, kvmclock_ctrl_fails),
	COUNT(vcpu_metrics, failures),
};

#define API_AT(part, member) \
	(offsetof(struct api_metrics, part.member) - offsetof(struct api_metrics, part))
#define API_COUNT(part, name) {#name "_count", METRIC_COUNT, API_AT(part, name.count)}
#define API_BOTH(part, name)  API_COUNT(part, name), {#name "_fails", METRIC_COUNT, API_AT(part, name.fails)}
#define API_VALUE(part, name) {#name, METRIC_VALUE, API_AT(part, name)}

static const struct metric_field api_get_fields[] = {
	API_COUNT(get, instance_info),
	API_COUNT(get, machine_cfg),
	API_COUNT(get, mmds),
	API_COUNT(get, vmm_version),
	API_COUNT(get, hotplug_memory),
};

static const struct metric_field api_put_fields[] = {
	API_BOTH(put, actions),
	API_BOTH(put, boot_source),
	API_BOTH(put, drive),
	API_BOTH(put, logger),
	API_BOTH(put, machine_cfg),
	API_BOTH(put, cpu_cfg),
	API_BOTH(put, metrics),
	API_BOTH(put, network),
	API_BOTH(put, mmds),
	API_BOTH(put, vsock),
	API_BOTH(put, pmem),
	API_BOTH(put, serial),
	API_BOTH(put, hotplug_memory),
};

static const struct metric_field api_patch_fields[] = {
	API_BOTH(patch, drive),
	API_BOTH(patch, network),
	API_BOTH(patch, machine_cfg),
	API_BOTH(patch, mmds),
	API_BOTH(patch, hotplug_memory),
	API_BOTH(patch, pmem),
};

static const struct metric_field api_latency_fields[] = {
	API_VALUE(latencies, full_create_snapshot),
	API_VALUE(latencies, load_snapshot),
	API_VALUE(latencies, pause_vm),
	API_VALUE(latencies, resume_vm),
};

static const struct metric_field api_server_fields[] = {
	API_VALUE(server, process_startup_time_us),
	API_VALUE(server, process_startup_time_cpu_us),
};

static const struct metric_field mmds_fields[] = {
	COUNT(mmds_metrics, rx_accepted),
	COUNT(mmds_metrics, rx_accepted_err),
	COUNT(mmds_metrics, rx_accepted_unusual),
	COUNT(mmds_metrics, rx_bad_eth),
	COUNT(mmds_metrics, rx_invalid_token),
	COUNT(mmds_metrics, rx_no_token),
	COUNT(mmds_metrics, rx_count),
	COUNT(mmds_metrics, tx_bytes),
	COUNT(mmds_metrics, tx_count),
	COUNT(mmds_metrics, tx_errors),
	COUNT(mmds_metrics, tx_frames),
	COUNT(mmds_metrics, connections_created),
	COUNT(mmds_metrics, connections_destroyed),
};

static const struct metric_field log_fields[] = {
	COUNT(log_metrics, missed_log_count),
};

static const struct metric_field logger_fields[] = {
	COUNT(logger_metrics, missed_metrics_count),
	COUNT(logger_metrics, metrics_fails),
};

#define TABLE(group, fields, type)	  {group, fields, ARRAY_SIZE(fields), sizeof(struct type), false}
#define API_TABLE(group, fields, part) \
	{group, fields, ARRAY_SIZE(fields), sizeof(((struct api_metrics *)0)->part), false}
#define DEVICE_TABLE(group, fields, type) {group, fields, ARRAY_SIZE(fields), sizeof(struct type), true}

const struct metric_table metric_tables[METRICS_SOURCES] = {
	[METRICS_BLOCK] = DEVICE_TABLE("block", block_fields, blk_metrics),
	[METRICS_NET] = DEVICE_TABLE("net", net_fields, net_metrics),
	[METRICS_VSOCK] = DEVICE_TABLE("vsock", vsock_fields, vsock_metrics),
	[METRICS_ENTROPY] = DEVICE_TABLE("entropy", entropy_fields, rng_metrics),
	[METRICS_BALLOON] = DEVICE_TABLE("balloon", balloon_fields, balloon_metrics),
	[METRICS_VHOST_USER_BLOCK] = DEVICE_TABLE("vhost_user_block", vhost_fields, vhost_metrics),
	[METRICS_VHOST_USER_NET] = DEVICE_TABLE("vhost_user_net", vhost_fields, vhost_metrics),
	[METRICS_VHOST_USER_FS] = DEVICE_TABLE("vhost_user_fs", vhost_fields, vhost_metrics),
	[METRICS_VHOST_NET] = DEVICE_TABLE("vhost_net", vhost_fields, vhost_metrics),
	[METRICS_PMEM] = DEVICE_TABLE("pmem", pmem_fields, pmem_metrics),
	[METRICS_HOTPLUG] = DEVICE_TABLE("memory_hotplug", hotplug_fields, mem_metrics),
	[METRICS_INTERRUPTS] = TABLE("interrupts", interrupts_fields, virtio_metrics),
	[METRICS_UART] = TABLE("uart", uart_fields, uart16550_metrics),
	[METRICS_I8042] = TABLE("i8042", i8042_fields, i8042_metrics),
	[METRICS_VCPU] = TABLE("vcpu", vcpu_fields, vcpu_metrics),
	[METRICS_API_GET] = API_TABLE("get_api_requests", api_get_fields, get),
	[METRICS_API_PUT] = API_TABLE("put_api_requests", api_put_fields, put),
	[METRICS_API_PATCH] = API_TABLE("patch_api_requests", api_patch_fields, patch),
	[METRICS_API_LATENCIES] = API_TABLE("latencies_us", api_latency_fields, latencies),
	[METRICS_API_SERVER] = API_TABLE("api_server", api_server_fields, server),
	[METRICS_MMDS] = TABLE("mmds", mmds_fields, mmds_metrics),
	[METRICS_LOG] = TABLE("logger", log_fields, log_metrics),
	[METRICS_LOGGER] = TABLE("logger", logger_fields, logger_metrics),
};
