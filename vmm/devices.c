/* Making the devices: the fixed ones at their ports, then a virtio device for each drive, network interface, shared folder and pmem, memory
 * that is plugged, the vsock, the entropy source and the balloon, in this order. */
#include "vmm/devices.h"

#include "common/io.h"
#include "devices/acpi_pm.h"
#include "devices/exit_port.h"
#include "devices/i8042.h"
#include "devices/mmds.h"
#include "devices/pvpanic.h"
#include "devices/uart16550.h"
#include "devices/virtio_balloon.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_console.h"
#include "devices/virtio_mem.h"
#include "devices/virtio_net.h"
#include "devices/virtio_pmem.h"
#include "devices/virtio_rng.h"
#include "devices/virtio_vhost.h"
#include "devices/virtio_vsock.h"
#include "guest-kernel/hull_guest.h"
#include "vmm/devices_vhost.h"
#include "vmm/metrics.h"
#include "vmm/vm.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>

#define GSI_KEYBOARD  1
#define I8042_PORTS   5 /* 0x60 to 0x64 */
#define PVPANIC_PORTS 1

DEFINE_BUS_OPS(uart16550, uart16550_read, uart16550_write)
DEFINE_BUS_OPS(i8042, i8042_read, i8042_write)
DEFINE_BUS_OPS(pvpanic, pvpanic_read, pvpanic_write)
DEFINE_BUS_OPS(acpi_pm, acpi_pm_read, acpi_pm_write)
DEFINE_BUS_OPS(exit_port, exit_port_read, exit_port_write)
DEFINE_BUS_OPS(boot_timer, boot_timer_read, boot_timer_write)

/* What the fixed devices call. */

static void uart_interrupt(void *ctx)
{
	vm_pulse(((struct devices *)ctx)->config.vm, LAYOUT_GSI_UART);
}

static void uart_transmit(void *ctx, const uint8_t *data, size_t len)
{
	struct devices *devices = ctx;

	/* A guest that says more than it may is not slowed down: what is too much is lost. */
	len = token_bucket_take(&devices->console_bucket, len, monotonic_ns());
	console_write(&devices->console, data, len);
}

static void uart_receive_ready(void *ctx)
{
	console_room(&((struct devices *)ctx)->console);
}

static size_t uart_receive(void *ctx, const void *data, size_t len)
{
	return uart16550_receive(((struct devices *)ctx)->uart, data, len);
}

static const struct uart16550_ops uart_ops = {uart_interrupt, uart_transmit, uart_receive_ready};

static void event(struct devices *devices, enum devices_event what)
{
	devices->config.event(devices->config.ctx, what);
}

static void i8042_interrupt(void *ctx)
{
	vm_pulse(((struct devices *)ctx)->config.vm, GSI_KEYBOARD);
}

static void i8042_reset(void *ctx)
{
	event(ctx, DEVICES_RESET_KEYBOARD);
}

static const struct i8042_ops i8042_ops = {i8042_interrupt, i8042_reset};

static void acpi_interrupt(void *ctx)
{
	vm_pulse(((struct devices *)ctx)->config.vm, LAYOUT_GSI_GED);
}

static void acpi_power_off(void *ctx)
{
	event(ctx, DEVICES_POWER_OFF);
}

static void acpi_reset(void *ctx)
{
	event(ctx, DEVICES_RESET_ACPI);
}

static const struct acpi_pm_ops acpi_pm_ops = {acpi_interrupt, acpi_power_off, acpi_reset};

static void pvpanic_event(void *ctx, uint8_t events)
{
	if (events & PVPANIC_PANICKED)
		event(ctx, DEVICES_PANIC);
}

static const struct pvpanic_ops pvpanic_ops = {pvpanic_event};

/* In Firecracker's words, by which people look for it. */
static void booted(void *ctx)
{
	const struct devices_config *config = &((struct devices *)ctx)->config;
	unsigned long long us = (monotonic_ns() - config->began_ns) / 1000;
	unsigned long long cpu_us = (process_cpu_ns() - config->began_cpu_ns) / 1000;

	log_info("Guest-boot-time = %6llu us %llu ms, %6llu CPU us %llu CPU ms", us, us / 1000, cpu_us, cpu_us / 1000);
}

static int add_ports(
	struct devices *devices, uint64_t base, uint64_t n, const struct bus_ops *ops, void *device)
{
	int r = bus_add(&devices->ports, base, n, ops, device);

	assert(r == 0); /* vmm/layout.h has them disjoint */
	return r;
}

static void make_fixed(struct devices *d)
{
	d->uart = uart16550_new(&uart_ops, d);
	d->i8042 = i8042_new(&i8042_ops, d);
	d->pvpanic = pvpanic_new(&pvpanic_ops, d);
	d->acpi_pm = acpi_pm_new(&acpi_pm_ops, d);
	d->exit_port = exit_port_new();
	add_ports(d, LAYOUT_PORT_UART, UART16550_PORTS, &uart16550_bus_ops, d->uart);
	add_ports(d, LAYOUT_PORT_I8042, I8042_PORTS, &i8042_bus_ops, d->i8042);
	add_ports(d, LAYOUT_PORT_PVPANIC, PVPANIC_PORTS, &pvpanic_bus_ops, d->pvpanic);
	add_ports(d, LAYOUT_PORT_ACPI_SLEEP, ACPI_PM_PORTS, &acpi_pm_bus_ops, d->acpi_pm);
	add_ports(d, HULL_EXIT_PORT, EXIT_PORT_PORTS, &exit_port_bus_ops, d->exit_port);
	metrics_add(d->config.metrics, METRICS_UART, NULL, d, uart16550_metrics(d->uart));
	metrics_add(d->config.metrics, METRICS_I8042, NULL, d, i8042_metrics(d->i8042));
}

static void make_boot_timer(struct devices *d)
{
	int r;

	if (!d->config.output.boot_timer)
		return;
	boot_timer_init(&d->boot_timer, booted, d);
	r = bus_add(&d->mmio, LAYOUT_BOOT_TIMER, BOOT_TIMER_SIZE, &boot_timer_bus_ops, &d->boot_timer);
	assert(r == 0);
}

/* What the bus of the virtio devices calls. */

static void slots_changed(void *ctx)
{
	acpi_pm_raise(((struct devices *)ctx)->acpi_pm, ACPI_PM_EVENT_PCI);
}

static void removed(void *ctx, struct virtio_dev *dev)
{
	metrics_remove(((struct devices *)ctx)->config.metrics, dev);
}

static void make_virtio_bus(struct devices *d)
{
	struct virtio_bus_config config = {
		.is_pci = d->config.pci,
		.vm = d->config.vm,
		.loop = d->config.loop,
		.ports = &d->ports,
		.mmio = &d->mmio,
		.slots_changed = slots_changed,
		.removed = removed,
		.ctx = d,
	};

	virtio_bus_init(&d->virtio, &config);
}

/* Puts `dev` (taken over, also on failure) on the bus, and reports what it counts, in `counted`, as the source's, under `id`. */
static int add_virtio(struct devices *devices, struct virtio_dev *dev, enum metrics_source source,
	const char *id, const void *counted, struct error *err)
{
	int r = virtio_bus_add(&devices->virtio, dev, id, err);

	if (r == 0)
		metrics_add_device(devices->config.metrics, source, id, dev, counted);
	return r;
}

/* Threads interrupt by messages: virtio-mmio has one line for all queues, which is the loop thread's to pulse. */
static int check_queues(const struct devices *devices, const char *field, int64_t n, struct error *err)
{
	if (n == 1 || devices->config.pci)
		return 0;
	return error_set_field(err, ENOTSUP, field, "is %lld: more than one needs --enable-pci", (long long)n);
}

static int make_drive(struct devices *devices, const struct config_drive *drive, struct error *err)
{
	struct virtio_blk_config blk = {
		.id = drive->drive_id,
		.path = drive->path_on_host,
		.read_only = drive->is_read_only,
		.cache = drive->cache_type == CONFIG_CACHE_UNSAFE ? BLK_CACHE_UNSAFE : BLK_CACHE_WRITEBACK,
		.engine = drive->io_engine == CONFIG_ENGINE_SYNC ? BLK_ENGINE_SYNC : BLK_ENGINE_ASYNC,
		.limiter = drive->rate_limiter,
		.n_queues = (uint16_t)drive->num_queues,
	};
	struct virtio_dev *dev;
	int r = check_queues(devices, "num_queues", drive->num_queues, err);

	if (r < 0)
		return r;

	if (drive->socket) {
		dev = devices_vhost_drive(drive, devices->config.loop, devices->config.mem, err);
		return dev ? add_virtio(devices, dev, METRICS_VHOST_USER_BLOCK, drive->drive_id, virtio_vhost_metrics(dev), err) : -EIO;
	}
	blk.fd = virtio_blk_open(blk.path, blk.read_only, err);
	if (blk.fd < 0)
		return blk.fd;
	dev = virtio_blk_new(&blk, devices->config.loop, devices->config.mem, err);
	return dev ? add_virtio(devices, dev, METRICS_BLOCK, blk.id, virtio_blk_metrics(dev), err) : -EIO;
}

static int make_vhost_net(struct devices *devices, const struct config_net *net, struct error *err)
{
	struct virtio_dev *dev = devices_vhost_net(net, devices->config.loop, devices->config.mem, err);
	enum metrics_source source = net->vhost ? METRICS_VHOST_NET : METRICS_VHOST_USER_NET;

	return dev ? add_virtio(devices, dev, source, net->iface_id, virtio_vhost_metrics(dev), err) : -EIO;
}

static int make_filesystem(struct devices *devices, const struct config_filesystem *fs, struct error *err)
{
	struct virtio_dev *dev = devices_vhost_filesystem(fs, devices->config.loop, devices->config.mem, err);

	return dev ? add_virtio(devices, dev, METRICS_VHOST_USER_FS, fs->fs_id, virtio_vhost_metrics(dev), err) : -EIO;
}

/* Each pair has a queue of the tap's; `config` gets the descriptors. 0, or -errno with none of them left open. */
static int open_net(const struct config_net *net, struct virtio_net_config *config, struct error *err)
{
	const char *field = net->host_dev_name ? "host_dev_name" : "stream_socket_path";

	for (config->n_pairs = 0; config->n_pairs < net->queue_pairs; config->n_pairs++) {
		int fd = net->host_dev_name ? virtio_net_open_tap(net->host_dev_name, net->queue_pairs > 1, err) :
					      virtio_net_open_stream(net->stream_socket_path, err);

		if (fd < 0) {
			while (config->n_pairs)
				close_fd(config->fds[--config->n_pairs]);
			return err->field[0] ? fd : error_in_field(err, "%s", field);
		}
		config->fds[config->n_pairs] = fd;
	}
	return 0;
}

static int make_net(struct devices *devices, const struct config_net *net, struct error *err)
{
	struct virtio_net_config config = {
		.id = net->iface_id,
		.kind = net->host_dev_name ? NET_BACKEND_TAP : NET_BACKEND_STREAM,
		.mtu = (uint16_t)net->mtu,
		.rx_limiter = net->rx_rate_limiter,
		.tx_limiter = net->tx_rate_limiter,
	};
	struct virtio_dev *dev;
	int r = check_queues(devices, "queue_pairs", net->queue_pairs, err);

	memcpy(config.mac, net->mac, sizeof(config.mac));
	if (r == 0)
		r = open_net(net, &config, err);
	if (r < 0)
		return r;
	if (config_net_has_mmds(devices->config.config, net)) {
		config.interceptor = mmds_stack_new(devices->config.mmds);
		if (!config.interceptor) {
			close_fd(config.fds[0]); /* the only one: see the rules */
			return error_set(err, ENOMEM, "out of memory");
		}
	}
	dev = virtio_net_new(&config, devices->config.loop, devices->config.mem, err);
	return dev ? add_virtio(devices, dev, METRICS_NET, config.id, virtio_net_metrics(dev), err) : -EIO;
}

static int make_pmem(struct devices *devices, const struct config_pmem *pmem, struct error *err)
{
	struct virtio_dev *dev = devices_memory_pmem(devices, pmem, err);

	return dev ? add_virtio(devices, dev, METRICS_PMEM, pmem->id, virtio_pmem_metrics(dev), err) : -EIO;
}

static int make_hotplug_memory(struct devices *devices, const struct config_hotplug_memory *memory, struct error *err)
{
	struct virtio_dev *dev = devices_memory_hotplug(devices, memory, err);

	return dev ? add_virtio(devices, dev, METRICS_HOTPLUG, NULL, virtio_mem_metrics(dev), err) : -EIO;
}

static int make_vsock(struct devices *devices, const struct config_vsock *vsock, struct error *err)
{
	struct virtio_vsock_sink log = {.port = HULL_VSOCK_PORT_LOG, .fd = devices->config.output.log_fd,
		.limit_bytes = devices->config.output.limit_bytes};
	struct virtio_vsock_config config = {
		.guest_cid = (uint32_t)vsock->guest_cid,
		.uds_path = vsock->uds_path,
		.sinks = &log,
		.n_sinks = log.fd >= 0,
	};
	struct virtio_dev *dev = virtio_vsock_new(&config, devices->config.loop, devices->config.mem, err);

	return dev ? add_virtio(devices, dev, METRICS_VSOCK, NULL, virtio_vsock_metrics(dev), err) : -EIO;
}

static int make_entropy(struct devices *devices, const struct config_entropy *entropy, struct error *err)
{
	struct virtio_dev *dev =
		virtio_rng_new(entropy->rate_limiter, devices->config.loop, devices->config.mem, err);

	return dev ? add_virtio(devices, dev, METRICS_ENTROPY, NULL, virtio_rng_metrics(dev), err) : -EIO;
}

/* The drives that are, or are not, the root device. */
static int make_drives(struct devices *devices, bool root, struct error *err)
{
	const struct config *config = devices->config.config;

	for (size_t i = 0; i < config->drives.len; i++) {
		const struct config_drive *drive = config_drive(config, i);

		if (drive->is_root_device == root && make_drive(devices, drive, err) < 0)
			return error_in_field(err, "drives[%zu]", i);
	}
	return 0;
}

static int make_balloon(struct devices *devices, const struct config_balloon *balloon, struct error *err)
{
	struct balloon_config config = {
		.target_mib = (uint32_t)balloon->amount_mib,
		.deflate_on_oom = balloon->deflate_on_oom,
		.stats_interval_s = (uint16_t)balloon->stats_polling_interval_s,
		.hinting = balloon->free_page_hinting,
		.reporting = balloon->free_page_reporting,
		.discard = devices->config.discard,
	};
	struct virtio_dev *dev = virtio_balloon_new(&config, devices->config.loop, devices->config.mem, err);

	return dev ? add_virtio(devices, dev, METRICS_BALLOON, NULL, virtio_balloon_metrics(dev), err) : -EIO;
}

static int make_interface(struct devices *devices, const struct config_net *net, struct error *err)
{
	return config_net_is_vhost(net) ? make_vhost_net(devices, net, err) : make_net(devices, net, err);
}

/* What the virtio console and its host end call. */

static bool hvc_transmit(void *ctx, const void *data, size_t len)
{
	return console_offer(&((struct devices *)ctx)->virtio_console, data, len);
}

static void hvc_receive_ready(void *ctx)
{
	console_room(&((struct devices *)ctx)->virtio_console);
}

static const struct virtio_console_ops hvc_ops = {hvc_transmit, hvc_receive_ready};

static size_t hvc_receive(void *ctx, const void *data, size_t len)
{
	return virtio_console_receive(((struct devices *)ctx)->hvc, data, len);
}

static void hvc_sent(void *ctx)
{
	virtio_console_room(((struct devices *)ctx)->hvc);
}

static int make_console(struct devices *devices, const struct config_console *config, struct error *err)
{
	const struct console_guest guest = {hvc_receive, hvc_sent, devices};
	struct console *console = &devices->virtio_console;
	struct loop *loop = devices->config.loop;
	int r;

	if (config->socket_path)
		r = console_init_socket(console, loop, &guest, config->socket_path, err);
	else
		r = console_init(
			console, loop, &guest, config->output_path, devices->config.output.limit_bytes, err);
	if (r < 0)
		return error_in_field(err, config->socket_path ? "socket_path" : "output_path");
	devices->hvc = virtio_console_new(&hvc_ops, devices, loop, devices->config.mem, err);
	return devices->hvc ? virtio_bus_add(&devices->virtio, devices->hvc, NULL, err) : -EIO;
}

static int make_virtio(struct devices *devices, struct error *err)
{
	const struct config *config = devices->config.config;
	int r = make_drives(devices, true, err); /* it becomes /dev/vda */

	if (r >= 0)
		r = make_drives(devices, false, err);
	for (size_t i = 0; i < config->nets.len && r >= 0; i++) {
		const struct config_net *net = config_net(config, i);

		r = make_interface(devices, net, err);
		if (r < 0)
			error_in_field(err, "network-interfaces[%zu]", i);
	}
	for (size_t i = 0; i < config->filesystems.len && r >= 0; i++) {
		r = make_filesystem(devices, config_filesystem(config, i), err);
		if (r < 0)
			error_in_field(err, "filesystems[%zu]", i);
	}
	for (size_t i = 0; i < config->pmems.len && r >= 0; i++) {
		r = make_pmem(devices, config_pmem(config, i), err);
		if (r < 0)
			error_in_field(err, "pmem[%zu]", i);
	}
	if (config->hotplug_memory && r >= 0) {
		r = make_hotplug_memory(devices, config->hotplug_memory, err);
		if (r < 0)
			error_in_field(err, "memory-hotplug");
	}
	if (config->vsock && r >= 0) {
		r = make_vsock(devices, config->vsock, err);
		if (r < 0)
			error_in_field(err, "vsock");
	}
	if (config->entropy && r >= 0) {
		r = make_entropy(devices, config->entropy, err);
		if (r < 0)
			error_in_field(err, "entropy");
	}
	if (config->balloon && r >= 0) {
		r = make_balloon(devices, config->balloon, err);
		if (r < 0)
			error_in_field(err, "balloon");
	}
	if (config->console && r >= 0) {
		r = make_console(devices, config->console, err);
		if (r < 0)
			error_in_field(err, "console");
	}
	return r;
}

int devices_init(struct devices *devices, const struct devices_config *config, struct error *err)
{
	const struct console_guest guest = {.receive = uart_receive, .ctx = devices};
	const struct config_serial *serial = config->config->serial;
	int r;

	*devices = (struct devices){.config = *config};
	r = console_init(&devices->console, config->loop, &guest, serial ? serial->serial_out_path : NULL,
		config->output.limit_bytes, err);
	if (r < 0)
		return serial && serial->serial_out_path ? error_in_field(err, "serial.serial_out_path") : r;
	token_bucket_init(&devices->console_bucket, serial ? serial->rate_limiter : NULL, monotonic_ns());
	devices->mmio.stray_write = devices_memory_stray_write;
	devices->mmio.stray_ctx = devices;
	make_fixed(devices);
	make_boot_timer(devices);
	make_virtio_bus(devices);
	r = config->places ? virtio_bus_load_places(&devices->virtio, config->places, err) : 0;
	if (r == 0)
		r = make_virtio(devices, err);
	devices->config.places = NULL;
	if (r < 0)
		devices_done(devices);
	return r;
}

/* The guest is to look at what has been made while it ran. */
static void announce(struct devices *devices, uint32_t device_id, const char *id)
{
	virtio_bus_announce(&devices->virtio, devices_find(devices, device_id, id));
}

int devices_plug_drive(struct devices *devices, const char *id, struct error *err)
{
	const struct config_drive *drive = config_find_drive(devices->config.config, id);
	int r;

	if (drive->is_root_device)
		return error_set_field(err, EINVAL, "is_root_device", "the guest has started with its root device, or without");
	r = make_drive(devices, drive, err);
	if (r == 0)
		announce(devices, VIRTIO_ID_BLOCK, id);
	return r;
}

int devices_plug_net(struct devices *devices, const char *id, struct error *err)
{
	int r = make_interface(devices, config_find_net(devices->config.config, id), err);

	if (r == 0)
		announce(devices, VIRTIO_ID_NET, id);
	return r;
}

int devices_plug_pmem(struct devices *devices, const char *id, struct error *err)
{
	const struct config_pmem *pmem = config_find_pmem(devices->config.config, id);
	int r;

	if (pmem->root_device)
		return error_set_field(err, EINVAL, "root_device", "the guest has started with its root device, or without");
	r = make_pmem(devices, pmem, err);
	if (r == 0)
		announce(devices, VIRTIO_ID_PMEM, id);
	return r;
}

void devices_done(struct devices *devices)
{
	virtio_bus_done(&devices->virtio);
	devices_memory_done(devices);
	metrics_remove(devices->config.metrics, devices);
	exit_port_free(devices->exit_port);
	acpi_pm_free(devices->acpi_pm);
	pvpanic_free(devices->pvpanic);
	i8042_free(devices->i8042);
	uart16550_free(devices->uart);
	console_done(&devices->virtio_console);
	console_done(&devices->console);
	*devices = (struct devices){0};
}

void devices_start(struct devices *devices)
{
	const struct config_serial *serial = devices->config.config->serial;

	if (!serial || !serial->serial_out_path)
		console_read_standard_input(&devices->console);
}

void devices_may_wait(struct devices *devices, bool may_wait)
{
	console_may_wait(&devices->console, may_wait);
}

void devices_press_power_button(struct devices *devices)
{
	acpi_pm_raise(devices->acpi_pm, ACPI_PM_EVENT_POWER_BUTTON);
}

void devices_tell_generation(struct devices *devices)
{
	acpi_pm_raise(devices->acpi_pm, ACPI_PM_EVENT_GENERATION);
}

int devices_press_ctrl_alt_del(struct devices *devices)
{
	return i8042_press_ctrl_alt_del(devices->i8042);
}

int devices_exit_status(const struct devices *devices)
{
	int status = exit_port_status(devices->exit_port);

	return status == EXIT_PORT_NONE ? -1 : status;
}

bool devices_out_of_memory(const struct devices *devices)
{
	return exit_port_out_of_memory(devices->exit_port);
}

int devices_no_mount(const struct devices *devices, int *ret_errnum)
{
	return exit_port_no_mount(devices->exit_port, ret_errnum);
}
