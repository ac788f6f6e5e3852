/* Which counter is reported where. The names are Firecracker's, and so a field of a struct that counts is called as it is
 * reported. What Firecracker reports and has no counterpart here is left out. */
#include "vmm/metrics.h"

#include "common/checked.h"
#include "common/log.h"
#include "devices/i8042.h"
#include "devices/uart16550.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_net.h"
#include "devices/virtio_rng.h"
#include "devices/virtio_vsock.h"
#include "vmm/vcpu.h"

#define COUNT(type, field)   {#field, METRIC_COUNT, offsetof(struct type, field)}
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
	COUNT(vcpu_metrics, failures),
};

static const struct metric_field log_fields[] = {
	COUNT(log_metrics, missed_log_count),
};

static const struct metric_field logger_fields[] = {
	COUNT(logger_metrics, missed_metrics_count),
	COUNT(logger_metrics, metrics_fails),
};

#define TABLE(group, fields, type)	  {group, fields, ARRAY_SIZE(fields), sizeof(struct type), false}
#define DEVICE_TABLE(group, fields, type) {group, fields, ARRAY_SIZE(fields), sizeof(struct type), true}

const struct metric_table metric_tables[METRICS_SOURCES] = {
	[METRICS_BLOCK] = DEVICE_TABLE("block", block_fields, blk_metrics),
	[METRICS_NET] = DEVICE_TABLE("net", net_fields, net_metrics),
	[METRICS_VSOCK] = DEVICE_TABLE("vsock", vsock_fields, vsock_metrics),
	[METRICS_ENTROPY] = DEVICE_TABLE("entropy", entropy_fields, rng_metrics),
	[METRICS_INTERRUPTS] = TABLE("interrupts", interrupts_fields, virtio_metrics),
	[METRICS_UART] = TABLE("uart", uart_fields, uart16550_metrics),
	[METRICS_I8042] = TABLE("i8042", i8042_fields, i8042_metrics),
	[METRICS_VCPU] = TABLE("vcpu", vcpu_fields, vcpu_metrics),
	[METRICS_LOG] = TABLE("logger", log_fields, log_metrics),
	[METRICS_LOGGER] = TABLE("logger", logger_fields, logger_metrics),
};
