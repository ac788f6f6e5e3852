/* The machine's life.
 *
 * Theory of operation. Whatever ends a machine - the guest by a device, a vCPU that cannot go on, machine_end() -
 * calls end(): the first cause counts. end() only requests: it sends the vCPUs to their end and stops the
 * loop, so it can be called on any thread and under a device's lock. machine_finish(), called when the
 * loop has come to its end, joins the vCPUs; machine_free() takes the devices apart, when nobody can be inside them any more. */
#include "vmm/machine.h"

#include "common/log.h"
#include "common/loop.h"
#include "vmm/boot.h"
#include "vmm/clock.h"
#include "vmm/config.h"
#include "vmm/cpuid.h"
#include "vmm/devices.h"
#include "vmm/gdb_server.h"
#include "vmm/kvm_state.h"
#include "vmm/metrics.h"
#include "vmm/outcome.h"
#include "vmm/ram.h"
#include "vmm/snapshot.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#include <errno.h>
#include <string.h>

struct machine {
	struct machine_setup setup;
	uint64_t began_ns, began_cpu_ns;
	struct vm vm;
	struct ram ram;
	struct cpuid_topology topology;
	struct devices devices;
	struct boot_entry entry;
	struct vcpus vcpus;
	bool paused, held;	/* by the API, by the debugger: vCPUs run while neither is so */
	bool at_rest;		/* it was saved, or restored, and has not run since: nor do its devices do anything */
	struct gdb_server *gdb; /* NULL without one */

	pthread_mutex_t lock; /* guards what follows; a leaf */
	bool ended;
	struct outcome outcome;
};

static void end(struct machine *machine, enum outcome_cause cause, const char *message)
{
	bool first;

	pthread_mutex_lock(&machine->lock);
	first = !machine->ended;
	if (first) {
		machine->ended = true;
		machine->outcome.cause = cause;
		error_set(&machine->outcome.reason, cause == OUTCOME_ERROR ? EIO : 0, "%s", message);
	}
	pthread_mutex_unlock(&machine->lock);
	if (!first)
		return;
	vcpus_request_stop(&machine->vcpus);
	loop_stop(machine->setup.loop);
}

static void device_event(void *ctx, enum devices_event event)
{
	static const struct {
		enum outcome_cause cause;
		const char *message;
	} endings[] = {
		[DEVICES_POWER_OFF] = {OUTCOME_POWEROFF, "the guest powered off"},
		[DEVICES_RESET_KEYBOARD] = {OUTCOME_RESET,
			"the guest reset the machine by the keyboard controller"},
		[DEVICES_RESET_ACPI] = {OUTCOME_RESET, "the guest reset the machine by ACPI"},
		[DEVICES_PANIC] = {OUTCOME_PANIC, "the guest's kernel panicked"},
	};

	end(ctx, endings[event].cause, endings[event].message);
}

/* Brings the vCPUs to where they are wanted, from where they were. */
static void settle_vcpus(struct machine *machine)
{
	virtio_bus_hold(&machine->devices.virtio, machine->paused || machine->held);
	if (machine->paused || machine->held) {
		vcpus_pause(&machine->vcpus);
		return;
	}
	clock_tell_pause(&machine->vcpus);
	vcpus_resume(&machine->vcpus);
}

static void hold(void *ctx, bool hold)
{
	struct machine *machine = ctx;

	machine->held = hold;
	settle_vcpus(machine);
}

static void kill_machine(void *ctx)
{
	end(ctx, OUTCOME_SIGNAL, "the debugger killed it");
}

static bool debug_exit(void *ctx, struct vcpu *vcpu)
{
	return gdb_server_exit(((struct machine *)ctx)->gdb, vcpu);
}

static void vcpu_ended(void *ctx, enum vcpu_end how, const char *message)
{
	end(ctx, how == VCPU_END_RESET ? OUTCOME_RESET : OUTCOME_ERROR, message);
}

/* Memory that others map is one file, and who asks for large pages has them, for code too. */
static bool may_map_kernel(const struct machine *machine)
{
	const struct config *config = machine->setup.config;

	return machine->ram.kind == RAM_COW && config->machine.huge_pages == CONFIG_HUGE_PAGES_NONE && !config->boot.private_kernel;
}

static int load_kernel(struct machine *machine, gpa_t rsdp, struct error *err)
{
	const struct config_boot *source = &machine->setup.config->boot;
	cleanup_close int kernel = -1, initrd = -1, append = -1;
	cleanup_free char *command_line = config_command_line(machine->setup.config);
	struct boot_config boot;
	int r = boot_open_file(source->kernel_image_path, "kernel_image_path", &kernel, err);

	if (r == 0)
		r = boot_open_file(source->initrd_path, "initrd_path", &initrd, err);
	if (r == 0)
		r = boot_open_file(source->initrd_append_path, "initrd_append_path", &append, err);
	if (r == 0) {
		boot = (struct boot_config){kernel, initrd, append, command_line, may_map_kernel(machine)};
		r = boot_load(&boot, &machine->ram.mem, rsdp, &machine->entry, err);
	}
	if (r == 0)
		return 0;
	/* What does not fit is the memory's fault, which boot_load() cannot name in full. */
	return error_in_field(
		err, strcmp(err->field, "mem_size_mib") == 0 ? "machine-config" : "boot-source");
}

/* What it was is below it, private pages of this process's over a file that may be others' too; or, where those cannot be, copied. */
static int fill_memory(struct machine *machine, const struct ram_config *config, struct error *err)
{
	const struct snapshot *snapshot = machine->setup.snapshot;

	if (!snapshot || config->base_fd >= 0)
		return 0;
	return memory_file_copy_ram(snapshot->memory_fd, &machine->ram, err);
}

static int make_memory(struct machine *machine, struct error *err)
{
	static const enum ram_pages pages[] = {
		[CONFIG_HUGE_PAGES_NONE] = RAM_PAGES_NORMAL,
		[CONFIG_HUGE_PAGES_TRANSPARENT] = RAM_PAGES_TRANSPARENT_HUGE,
		[CONFIG_HUGE_PAGES_2M] = RAM_PAGES_2M,
	};
	const struct config_machine *config = &machine->setup.config->machine;
	const struct config_hotplug_memory *hotplug = machine->setup.config->hotplug_memory;
	struct ram_config ram = {
		.size_bytes = (uint64_t)config->mem_size_mib << 20,
		.kind = config_shares_memory(machine->setup.config) ? RAM_SHARED : RAM_COW,
		.pages = pages[config->huge_pages],
		.base_fd = -1,
		.plug_bytes = hotplug ? (uint64_t)hotplug->total_size_mib << 20 : 0,
	};
	int r;

	if (machine->setup.snapshot && ram.kind == RAM_COW && ram.pages != RAM_PAGES_2M)
		ram.base_fd = machine->setup.snapshot->memory_fd;
	r = ram_init(&machine->ram, &ram, err);
	if (r == 0)
		r = fill_memory(machine, &ram, err);
	if (r == 0)
		r = vm_add_memory(&machine->vm, &machine->ram.mem, err);
	return r < 0 ? error_in_field(err, "machine-config.mem_size_mib") : 0;
}

static int discard(void *ctx, gpa_t gpa, uint64_t len)
{
	return ram_discard(ctx, gpa, len);
}

static int make_devices(struct machine *machine, struct error *err)
{
	struct devices_config config = {
		.config = machine->setup.config,
		.pci = machine->setup.pci,
		.vm = &machine->vm,
		.loop = machine->setup.loop,
		.mem = &machine->ram.mem,
		.ram = &machine->ram,
		.discard = {discard, &machine->ram, machine->ram.page_bytes},
		.metrics = machine->setup.metrics,
		.mmds = machine->setup.mmds,
		.output = *machine->setup.output,
		.places = machine->setup.snapshot ? &machine->setup.snapshot->reader : NULL,
		.began_ns = machine->began_ns,
		.began_cpu_ns = machine->began_cpu_ns,
		.event = device_event,
		.ctx = machine,
	};

	return devices_init(&machine->devices, &config, err);
}

static int make_tables(struct machine *machine, gpa_t *ret_rsdp, struct error *err)
{
	struct acpi_virtio places[LAYOUT_VIRTIO_MAX];
	struct acpi_config config = {
		.n_vcpus = machine->topology.n_vcpus,
		.virtio = places,
		.n_virtio = virtio_bus_mmio_places(&machine->devices.virtio, places),
		.uart = true,
		.pci = machine->setup.pci,
	};

	return acpi_build(&config, &machine->ram.mem, ret_rsdp, err);
}

static void vcpus_may_wait(void *ctx, bool may_wait)
{
	struct machine *machine = ctx;

	devices_may_wait(&machine->devices, may_wait);
}

static int make_vcpus(struct machine *machine, struct error *err)
{
	struct vcpus_config config = {
		.vm = &machine->vm,
		.ports = &machine->devices.ports,
		.mmio = &machine->devices.mmio,
		.topology = &machine->topology,
		.template = machine->setup.config->cpu,
		.entry = machine->setup.snapshot ? NULL : &machine->entry,
		.may_wait = vcpus_may_wait,
		.debug = debug_exit,
		.ended = vcpu_ended,
		.ctx = machine,
	};

	int r = vcpus_init(&machine->vcpus, &config, err);

	if (r == 0 && !machine->setup.snapshot)
		r = clock_align(&machine->vcpus, err);
	for (unsigned i = 0; r == 0 && i < machine->vcpus.n; i++)
		metrics_add(machine->setup.metrics, METRICS_VCPU, NULL, &machine->vcpus, &machine->vcpus.items[i].metrics);
	return r;
}

static int make_debugger(struct machine *machine, struct error *err)
{
	const char *socket_path = machine->setup.gdb_socket;
	struct gdb_server_config config = {
		.path = socket_path ? socket_path : machine->setup.config->machine.gdb_socket_path,
		.target = {.loop = machine->setup.loop, .vcpus = &machine->vcpus, .mem = &machine->ram.mem,
			.kvm_fd = machine->vm.kvm_fd, .hold = hold, .kill = kill_machine, .ctx = machine},
	};

	if (!config.path)
		return 0;
	machine->gdb = gdb_server_new(&config, err);
	if (!machine->gdb)
		return error_in_field(err, socket_path ? "--gdb-socket" : "machine-config.gdb_socket_path");
	machine->held = !socket_path;
	return 0;
}

/* Stops them for good. */
static void end_vcpus(struct machine *machine)
{
	metrics_remove(machine->setup.metrics, &machine->vcpus);
	vcpus_done(&machine->vcpus);
}

static int set_topology(struct machine *machine, struct error *err)
{
	const struct config_machine *config = &machine->setup.config->machine;

	machine->topology = (struct cpuid_topology){
		.n_vcpus = (unsigned)config->vcpu_count,
		.threads_per_core = config->smt && config->vcpu_count > 1 ? 2 : 1,
		.tsc_deadline = machine->vm.has_tsc_deadline,
	};
	if (machine->topology.n_vcpus > machine->vm.max_vcpus)
		return error_set_field(err, ENOTSUP, "machine-config.vcpu_count",
			"this host's KVM offers %u at most", machine->vm.max_vcpus);
	return 0;
}

/* What a boot begins with is in its memory. */
static int prepare_boot(struct machine *machine, struct error *err)
{
	gpa_t rsdp;
	int r = make_tables(machine, &rsdp, err);

	if (r == 0)
		r = acpi_write_generation(&machine->ram.mem, err);
	return r == 0 ? load_kernel(machine, rsdp, err) : r;
}

/* Interrupts that devices raise anew find their controllers. */
static int load_state(struct machine *machine, struct error *err)
{
	struct snapshot *snapshot = machine->setup.snapshot;
	int r;

	machine->paused = machine->at_rest = true;
	virtio_bus_hold(&machine->devices.virtio, true);
	r = kvm_state_load(&machine->vm, &machine->vcpus, machine->setup.catch_up, &snapshot->reader, err);

	if (r == 0)
		r = devices_load(&machine->devices, snapshot->memory_fd, &snapshot->reader, err);
	if (r == 0)
		r = snapshot_check_end(snapshot, err);
	if (r == 0)
		r = acpi_write_generation(&machine->ram.mem, err);
	if (r < 0)
		return error_in_field(err, "snapshot_path");
	devices_tell_generation(&machine->devices);
	return 0;
}

static int build(struct machine *machine, struct error *err)
{
	int r = vm_init(&machine->vm, machine->setup.config->cpu, err);

	if (r == 0)
		r = set_topology(machine, err);
	if (r == 0)
		r = make_memory(machine, err);
	if (r == 0)
		r = make_devices(machine, err);
	if (r == 0 && !machine->setup.snapshot)
		r = prepare_boot(machine, err);
	if (r == 0)
		r = make_vcpus(machine, err);
	if (r == 0 && machine->setup.snapshot)
		r = load_state(machine, err);
	if (r == 0)
		r = make_debugger(machine, err);
	return r;
}

struct machine *machine_new(const struct machine_setup *setup, struct error *err)
{
	struct machine *machine = calloc(1, sizeof(*machine));

	if (!machine) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	machine->began_ns = monotonic_ns();
	machine->began_cpu_ns = process_cpu_ns();
	machine->setup = *setup;
	machine->vm = (struct vm){.kvm_fd = -1, .fd = -1};
	machine->ram = (struct ram){.fd = -1, .base_fd = -1};
	pthread_mutex_init(&machine->lock, NULL);
	if (build(machine, err) < 0) {
		machine_free(machine);
		return NULL;
	}
	machine->setup.snapshot = NULL;
	return machine;
}

void machine_start(struct machine *machine)
{
	devices_start(&machine->devices);
	if (!machine->held && !machine->paused)
		vcpus_resume(&machine->vcpus);
}

void machine_pause(struct machine *machine)
{
	machine->paused = true;
	settle_vcpus(machine);
}

void machine_resume(struct machine *machine)
{
	machine->paused = false;
	if (machine->at_rest)
		devices_resume(&machine->devices);
	machine->at_rest = false;
	settle_vcpus(machine);
}

static int save(struct machine *machine, const struct snapshot_paths *paths, struct state_writer *w, struct error *err)
{
	struct memory_file_layout memory = {machine->ram.size_bytes, machine->ram.plug_bytes};
	struct snapshot_head head;
	int r = snapshot_begin(w, machine->setup.config, &memory, machine->setup.pci, &head, err);

	if (r == 0) {
		devices_save_places(&machine->devices, w);
		r = kvm_state_save(&machine->vm, &machine->vcpus, w, err);
	}
	if (r == 0)
		devices_save(&machine->devices, w);
	/* As its memory is, so are the disks: also where the host's power fails afterwards. */
	if (r == 0)
		r = devices_sync(&machine->devices, err);
	return r == 0 ? snapshot_commit(paths, w, &machine->ram, &head, err) : r;
}

int machine_save(struct machine *machine, const struct snapshot_paths *paths, struct error *err)
{
	struct state_writer w;
	int r = devices_check_savable(&machine->devices, err);

	if (r == 0 && gdb_server_changes_memory(machine->gdb))
		r = error_set(err, EBUSY, "a debugger has breakpoints in the guest's memory: remove them, or have it detach");
	if (r < 0)
		return r;
	state_writer_init(&w);
	if (!machine->at_rest)
		devices_quiesce(&machine->devices);
	r = save(machine, paths, &w, err);
	/* What would be done now, by whoever goes on from here would be done again. */
	if (r == 0)
		machine->at_rest = true;
	else if (!machine->at_rest)
		devices_resume(&machine->devices);
	state_writer_done(&w);
	return r;
}

void machine_press_power_button(struct machine *machine)
{
	devices_press_power_button(&machine->devices);
}

int machine_press_ctrl_alt_del(struct machine *machine, struct error *err)
{
	if (devices_press_ctrl_alt_del(&machine->devices) == 0)
		return 0;
	return error_set(err, EBUSY, "the guest has not taken earlier keys, or has disabled its keyboard");
}

void machine_end(struct machine *machine, const char *why)
{
	end(machine, OUTCOME_SIGNAL, why);
}

/* What hull-init has handed over beside the exit status. */
static void explain_poweroff(const struct machine *machine, struct error *ret)
{
	int errnum, mount = devices_no_mount(&machine->devices, &errnum);

	if (devices_out_of_memory(&machine->devices))
		error_set(ret, 0, "the workload was killed: out of memory");
	else if (mount >= 0)
		error_set(ret, 0, "cannot be mounted: %s", strerror(errnum));
	if (mount >= 0)
		error_in_field(ret, "mounts[%d]", mount);
}

void machine_finish(struct machine *machine, struct outcome *ret)
{
	end(machine, OUTCOME_ERROR, "the event loop failed"); /* what came first counts */
	end_vcpus(machine);
	*ret = machine->outcome;
	ret->exit_status = devices_exit_status(&machine->devices);
	if (ret->cause == OUTCOME_POWEROFF)
		explain_poweroff(machine, &ret->reason);
}

struct devices *machine_devices(struct machine *machine)
{
	return &machine->devices;
}

void machine_free(struct machine *machine)
{
	if (!machine)
		return;
	end_vcpus(machine);
	gdb_server_free(machine->gdb);
	devices_done(&machine->devices);
	vm_done(&machine->vm);
	ram_done(&machine->ram);
	pthread_mutex_destroy(&machine->lock);
	free(machine);
}
