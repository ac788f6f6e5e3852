/* The process's life: configured, started, paused and resumed, ended. */
#include "vmm/monitor.h"

#include "common/accounting.h"
#include "common/buf.h"
#include "common/log.h"
#include "common/loop.h"
#include "devices/mmds.h"
#include "vmm/api_server.h"
#include "vmm/machine.h"
#include "vmm/metrics.h"
#include "vmm/options.h"
#include "vmm/outcome.h"
#include "vmm/shutdown.h"
#include "vmm/snapshot_request.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

static enum api_state monitor_state(void *ctx)
{
	return ((struct monitor *)ctx)->state;
}

/* A guest that stands still cannot shut down: it runs on for that. */
static void ask_guest(void *ctx)
{
	struct monitor *monitor = ctx;

	if (monitor->state == API_PAUSED)
		monitor_resume(monitor);
	machine_press_power_button(monitor->machine);
}

static void end_machine(void *ctx, const char *why)
{
	machine_end(((struct monitor *)ctx)->machine, why);
}

static const struct shutdown_ops shutdown_ops = {ask_guest, end_machine};

#define ASK_EVERY_MS 1000

/* Before there is a machine, a signal has nothing to end but the waiting for one. SIGINT is for who will not wait. */
static void signalled(void *ctx, uint32_t signo)
{
	struct monitor *monitor = ctx;

	log_info("%s", signo == SIGTERM ? "SIGTERM" : "SIGINT");
	if (!monitor->machine)
		loop_stop(monitor->loop);
	else if (signo == SIGTERM)
		shutdown_request(monitor->shutdown, "SIGTERM");
	else
		machine_end(monitor->machine, "SIGINT");
}

/* Before the first thread: they inherit that these signals are the loop's. */
static int watch_signals(struct monitor *monitor, struct error *err)
{
	struct shutdown_times times = {monitor->options->shutdown_timeout_s * 1000, ASK_EVERY_MS};

	monitor->sigterm = loop_add_signal(monitor->loop, SIGTERM, signalled, monitor);
	monitor->sigint = loop_add_signal(monitor->loop, SIGINT, signalled, monitor);
	monitor->shutdown = shutdown_new(monitor->loop, times, &shutdown_ops, monitor);
	if (!monitor->sigterm || !monitor->sigint || !monitor->shutdown)
		return error_set_errno(err, errno, "signals cannot be waited for");
	return 0;
}

static void count_requests(struct monitor *monitor)
{
	struct api_metrics *counts = &monitor->api_metrics;

	metrics_add(monitor->metrics, METRICS_API_GET, NULL, monitor, &counts->get);
	metrics_add(monitor->metrics, METRICS_API_PUT, NULL, monitor, &counts->put);
	metrics_add(monitor->metrics, METRICS_API_PATCH, NULL, monitor, &counts->patch);
	metrics_add(monitor->metrics, METRICS_API_LATENCIES, NULL, monitor, &counts->latencies);
	metrics_add(monitor->metrics, METRICS_API_SERVER, NULL, monitor, &counts->server);
}

/* Who starts us may lie. */
static uint64_t since(uint64_t then_us, uint64_t now_us)
{
	return now_us > then_us ? now_us - then_us : 0;
}

/* How long it took to come this far, since whoever started us began to. */
static void measure_startup(struct monitor *monitor)
{
	const struct options *options = monitor->options;

	if (options->start_time_us)
		metric_store(&monitor->api_metrics.server.process_startup_time_us,
			since(options->start_time_us, monotonic_ns() / 1000));
	if (options->start_time_cpu_us)
		metric_store(&monitor->api_metrics.server.process_startup_time_cpu_us,
			since(options->start_time_cpu_us, process_cpu_ns() / 1000) + options->parent_cpu_time_us);
}

static int open_server(struct monitor *monitor, struct error *err)
{
	const struct options *options = monitor->options;

	if (!options->api_socket)
		return 0;
	monitor->server = api_server_new(
		monitor->loop, options->api_socket, options->api_body_bytes_max, &monitor->api, err);
	if (!monitor->server)
		return error_in_field(err, "--api-sock");
	measure_startup(monitor);
	return 0;
}

int monitor_open_metrics(struct monitor *monitor, const struct config_metrics *metrics, struct error *err)
{
	const char *id = metrics->emit_id ? monitor->options->id : NULL;
	int r = metrics_open(monitor->metrics, metrics->metrics_path, id, metrics->properties, err);

	return r < 0 ? error_in_field(err, "metrics_path") : 0;
}

/* Where the command line says, or else the configuration. */
static int open_metrics(struct monitor *monitor, struct error *err)
{
	const char *path = monitor->options->metrics_path;

	if (path && metrics_open(monitor->metrics, path, NULL, NULL, err) < 0)
		return error_in_field(err, "--metrics-path");
	if (!path && monitor->config.metrics && monitor_open_metrics(monitor, monitor->config.metrics, err) < 0)
		return error_in_field(err, "metrics");
	return 0;
}

/* The metadata's first contents. */
static int read_metadata(struct monitor *monitor, const char *path, struct error *err)
{
	cleanup(json_decrefp) json_t *data = NULL;
	struct buf text;
	int r;

	buf_init(&text, OPTIONS_BODY_BYTES_MAX);
	r = buf_read_file(&text, path);
	if (r == -EFBIG)
		error_set(err, EFBIG, "%s has more than %u bytes", path, OPTIONS_BODY_BYTES_MAX);
	else if (r < 0)
		error_set(err, -r, "%s: %s", path, strerror(-r));
	else
		data = json_parse(text.data ? text.data : "", text.len, err);
	buf_done(&text);
	r = data ? mmds_store_put(&monitor->mmds->store, data, err) : -EINVAL;
	return r < 0 ? error_in_field(err, "--metadata") : 0;
}

static int make_mmds(struct monitor *monitor, struct error *err)
{
	const struct options *options = monitor->options;

	monitor->mmds = mmds_new(options->id, options->mmds_bytes_max, err);
	if (!monitor->mmds)
		return -ENOMEM;
	metrics_add(monitor->metrics, METRICS_MMDS, NULL, monitor, &monitor->mmds->metrics);
	return options->metadata_file ? read_metadata(monitor, options->metadata_file, err) : 0;
}

int monitor_init(struct monitor *monitor, const struct options *options, struct config *config, struct error *err)
{
	int r;

	*monitor = (struct monitor){.options = options, .config = *config, .state = API_NOT_STARTED, .pci = options->pci};
	*config = (struct config){0};
	monitor->api = (struct api){monitor_routes, monitor_state, monitor, &monitor->api_metrics};
	monitor->loop = loop_new();
	if (!monitor->loop)
		return error_set_errno(err, errno, "no event loop");
	monitor->metrics = metrics_new(monitor->loop);
	count_requests(monitor);
	r = open_metrics(monitor, err);
	if (r == 0 && monitor->options->accounting_path && accounting_open(monitor->options->accounting_path, err) < 0)
		r = error_in_field(err, "--accounting");
	if (r == 0)
		r = make_mmds(monitor, err);
	if (r == 0)
		r = watch_signals(monitor, err);
	return r == 0 ? open_server(monitor, err) : r;
}

void monitor_done(struct monitor *monitor)
{
	api_server_free(monitor->server);
	machine_free(monitor->machine);
	metrics_free(monitor->metrics);
	mmds_free(monitor->mmds);
	shutdown_free(monitor->shutdown);
	loop_remove(monitor->sigterm);
	loop_remove(monitor->sigint);
	loop_free(monitor->loop);
	config_done(&monitor->config);
}

/* What is configured is settled now. */
static void configure_mmds(struct mmds *mmds, const struct config_mmds *config)
{
	if (!config)
		return;
	mmds->version = config->version;
	mmds->imds_compat = config->imds_compat;
	config_parse_ipv4(config->ipv4_address, &mmds->address); /* check_link_local() has seen it succeed */
}

static struct machine_setup setup_of(const struct monitor *monitor)
{
	return (struct machine_setup){
		.config = &monitor->config,
		.pci = monitor->pci,
		.loop = monitor->loop,
		.metrics = monitor->metrics,
		.mmds = monitor->mmds,
		.output = &monitor->options->output,
		.gdb_socket = monitor->options->gdb_socket,
	};
}

/* Of what is configured by now. */
static int make_machine(struct monitor *monitor, const struct machine_setup *setup, struct error *err)
{
	configure_mmds(monitor->mmds, monitor->config.mmds);
	monitor->machine = machine_new(setup, err);
	return monitor->machine ? 0 : -err->errnum;
}

static void log_start(const struct monitor *monitor, const char *what)
{
	const struct config_machine *config = &monitor->config.machine;

	log_info("%s: %lld vCPU(s), %lld MiB", what, (long long)config->vcpu_count, (long long)config->mem_size_mib);
}

int monitor_start(struct monitor *monitor, struct error *err)
{
	struct machine_setup setup = setup_of(monitor);
	int r;

	if (!monitor->config.boot.kernel_image_path)
		return error_set_field(err, EINVAL, "boot-source", "no kernel has been named to boot");
	config_settle(&monitor->config);
	r = make_machine(monitor, &setup, err);
	if (r < 0)
		return r;
	log_start(monitor, "running");
	machine_start(monitor->machine);
	monitor->state = API_RUNNING;
	return 0;
}

/* Whether a client has described anything of a machine. */
static bool is_described(const struct config *config)
{
	struct config fresh;
	cleanup(json_decrefp) json_t *has = config_get_all(config), *had = NULL;

	config_init(&fresh);
	had = config_get_all(&fresh);
	config_done(&fresh);
	json_object_del(has, "logger");
	json_object_del(has, "metrics");
	json_object_del(had, "logger");
	json_object_del(had, "metrics");
	return !json_equal(has, had);
}

/* Log and metrics are the process's own. */
static void exchange_config(struct config *one, struct config *other)
{
	struct config before = *one;

	*one = *other;
	one->logger = before.logger;
	one->metrics = before.metrics;
	before.logger = other->logger;
	before.metrics = other->metrics;
	*other = before;
}

static int restore(struct monitor *monitor, struct snapshot *snapshot, bool catch_up, struct error *err)
{
	struct machine_setup setup = setup_of(monitor);
	int r;

	setup.pci = snapshot->head.pci;
	setup.snapshot = snapshot;
	setup.catch_up = catch_up;
	exchange_config(&monitor->config, &snapshot->config);
	r = make_machine(monitor, &setup, err);
	if (r < 0)
		exchange_config(&monitor->config, &snapshot->config);
	else
		monitor->pci = setup.pci;
	return r;
}

int monitor_restore(struct monitor *monitor, const struct snapshot_load *load, struct error *err)
{
	struct snapshot_paths paths = snapshot_load_paths(load);
	struct snapshot snapshot;
	int r;

	if (is_described(&monitor->config))
		return error_set(err, EINVAL, "A snapshot is loaded before anything of a machine is described, but for logger and metrics.");
	r = snapshot_open(&paths, &snapshot, err);
	if (r == 0)
		r = snapshot_override(load, &snapshot.config, err);
	if (r == 0)
		r = restore(monitor, &snapshot, load->clock_realtime, err);
	snapshot_done(&snapshot);
	if (r < 0)
		return r;
	log_start(monitor, load->resume_vm ? "restored, running" : "restored, paused");
	machine_start(monitor->machine);
	monitor->state = API_PAUSED;
	if (load->resume_vm)
		monitor_resume(monitor);
	return 0;
}

void monitor_pause(struct monitor *monitor)
{
	if (monitor->state == API_RUNNING)
		machine_pause(monitor->machine);
	monitor->state = API_PAUSED;
}

void monitor_resume(struct monitor *monitor)
{
	if (monitor->state == API_PAUSED)
		machine_resume(monitor->machine);
	monitor->state = API_RUNNING;
}

void monitor_run(struct monitor *monitor, struct outcome *ret)
{
	int r = loop_run(monitor->loop);

	if (monitor->machine) {
		machine_finish(monitor->machine, ret);
		return;
	}
	ret->cause = r < 0 ? OUTCOME_ERROR : OUTCOME_SIGNAL;
	error_set(&ret->reason, r < 0 ? -r : 0, r < 0 ? "the event loop failed" : "a signal, before a machine was started");
}
