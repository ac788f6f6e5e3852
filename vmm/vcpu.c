/* vCPU threads: making them, the KVM_RUN loop, and stopping them. */
#include "vmm/vcpu.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/loop.h"
#include "devices/metrics.h"
#include "vmm/boot.h"
#include "vmm/cpu_template.h"
#include "vmm/cpuid.h"
#include "vmm/vm.h"

#include <assert.h>
#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

/* A device's deepest path (a virtqueue chain, a log line) takes less than 16 KiB; the C library's own
 * per-thread data lies on the stack too. */
#define STACK_BYTES (128 << 10)

#define KICK_SIGNAL SIGUSR1

#define MSR_REFUSALS_LOGGED 16 /* of each vCPU */

#define MSR_IA32_MISC_ENABLE     0x1a0
#define MISC_ENABLE_FAST_STRING  1
#define MSR_IA32_MTRR_DEF_TYPE   0x2ff
#define MTRR_DEF_TYPE_ENABLE     (1 << 11)
#define MTRR_DEF_TYPE_WRITE_BACK 6

static void kicked(int signo)
{
	(void)signo; /* its arrival is all that counts: KVM_RUN returns EINTR */
}

/* The state firmware would leave: registers for the boot protocol, memory write-back, fast string operations. */
static int set_registers(const struct vcpu *vcpu, const struct boot_entry *entry, struct error *err)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;

	if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
		return error_set_errno(err, errno, "KVM does not give vCPU %u's registers", vcpu->index);
	boot_registers(entry, &regs, &sregs);
	if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
		return error_set_errno(err, errno, "KVM does not take vCPU %u's registers", vcpu->index);
	return 0;
}

static int set_msrs(const struct vcpu *vcpu, struct error *err)
{
	static const struct kvm_msr_entry wanted[] = {
		{.index = MSR_IA32_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRING},
		{.index = MSR_IA32_MTRR_DEF_TYPE, .data = MTRR_DEF_TYPE_ENABLE | MTRR_DEF_TYPE_WRITE_BACK},
	};
	cleanup_free struct kvm_msrs *msrs = calloc(1, sizeof(*msrs) + sizeof(wanted));
	int done;

	if (!msrs)
		return error_set(err, ENOMEM, "out of memory");
	msrs->nmsrs = ARRAY_SIZE(wanted);
	memcpy(msrs->entries, wanted, sizeof(wanted));
	done = ioctl(vcpu->fd, KVM_SET_MSRS, msrs);
	if (done < 0)
		return error_set_errno(err, errno, "KVM does not take vCPU %u's MSRs", vcpu->index);
	if ((size_t)done < ARRAY_SIZE(wanted))
		return error_set(
			err, ENOTSUP, "KVM does not take vCPU %u's MSR %#x", vcpu->index, wanted[done].index);
	return 0;
}

static int set_cpuid(const struct vcpu *vcpu, struct error *err)
{
	const struct vcpus_config *config = &vcpu->group->config;

	cpuid_adapt(config->vm->cpuid, config->topology, vcpu->index);
	if (ioctl(vcpu->fd, KVM_SET_CPUID2, config->vm->cpuid) < 0)
		return error_set_errno(err, errno, "KVM does not take vCPU %u's CPUID", vcpu->index);
	return 0;
}

/* What a processor is when a kernel is entered. */
static int prepare_boot(const struct vcpu *vcpu, struct error *err)
{
	const struct vcpus_config *config = &vcpu->group->config;
	int r = set_cpuid(vcpu, err);

	if (r == 0)
		r = cpu_template_set_msrs(config->template, vcpu->fd, err);
	if (r == 0)
		r = set_msrs(vcpu, err);
	if (r == 0 && vcpu->index == 0)
		r = set_registers(vcpu, config->entry, err);
	return r;
}

static int vcpu_init(struct vcpu *vcpu, struct error *err)
{
	/* What of KVM's own CPUID does not have is not served either. Older KVM cannot be told. */
	struct kvm_enable_cap enforce = {.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = {1}};
	const struct vcpus_config *config = &vcpu->group->config;

	vcpu->fd = ioctl(config->vm->fd, KVM_CREATE_VCPU, (unsigned long)vcpu->index);
	if (vcpu->fd < 0)
		return error_set_errno(err, errno, "KVM cannot make vCPU %u", vcpu->index);
	vcpu->run = mmap(NULL, config->vm->run_size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED) {
		vcpu->run = NULL;
		return error_set_errno(err, errno, "vCPU %u cannot be mapped", vcpu->index);
	}
	ioctl(vcpu->fd, KVM_ENABLE_CAP, &enforce);
	return config->entry ? prepare_boot(vcpu, err) : 0;
}

static void record(uint64_t *count, struct metric_latency *latency, uint64_t begun_ns)
{
	metric_inc(count);
	metric_record_latency(latency, (monotonic_ns() - begun_ns) / 1000);
}

static void serve_port(struct vcpu *vcpu)
{
	const struct vcpus_config *config = &vcpu->group->config;
	struct vcpu_metrics *metrics = &vcpu->metrics;
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	uint64_t begun_ns = monotonic_ns();

	/* A string instruction brings `count` accesses to the same port at once. */
	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT)
			bus_write(config->ports, run->io.port, data, run->io.size);
		else
			bus_read(config->ports, run->io.port, data, run->io.size);
	}
	if (run->io.direction == KVM_EXIT_IO_OUT)
		record(&metrics->exit_io_out, &metrics->exit_io_out_agg, begun_ns);
	else
		record(&metrics->exit_io_in, &metrics->exit_io_in_agg, begun_ns);
}

static void serve_mmio(struct vcpu *vcpu)
{
	const struct vcpus_config *config = &vcpu->group->config;
	struct vcpu_metrics *metrics = &vcpu->metrics;
	struct kvm_run *run = vcpu->run;
	uint64_t begun_ns = monotonic_ns();

	if (run->mmio.is_write) {
		bus_write(config->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
		record(&metrics->exit_mmio_write, &metrics->exit_mmio_write_agg, begun_ns);
	} else {
		bus_read(config->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
		record(&metrics->exit_mmio_read, &metrics->exit_mmio_read_agg, begun_ns);
	}
}

/* One that is not let through (vmm/msr_filter.c), or that KVM does not know: the guest gets #GP. It may try as often as it
 * likes; the first few tell what it looks for. */
static void refuse_msr(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	run->msr.error = 1;
	if (metric_read(&vcpu->metrics.exit_msr_refused) < MSR_REFUSALS_LOGGED)
		log_debug("vCPU %u has no MSR %#x, which the guest %s", vcpu->index, run->msr.index,
			run->exit_reason == KVM_EXIT_X86_RDMSR ? "reads" : "writes");
	metric_inc(&vcpu->metrics.exit_msr_refused);
}

static void want(struct vcpus *group, enum vcpus_wanted wanted);

static void serve_debug(struct vcpu *vcpu)
{
	struct vcpus *group = vcpu->group;

	if (!group->config.debug(group->config.ctx, vcpu))
		return;
	pthread_mutex_lock(&group->lock);
	vcpu->held = true;
	want(group, VCPUS_PAUSE);
	pthread_mutex_unlock(&group->lock);
}

static bool end(const struct vcpu *vcpu, enum vcpu_end end, const char *message)
{
	const struct vcpus_config *config = &vcpu->group->config;

	config->ended(config->ctx, end, message);
	return false;
}

static bool __attribute__((format(printf, 2, 3)))
end_with_error(struct vcpu *vcpu, const char *fmt, ...)
{
	struct kvm_regs regs = {0};
	char message[ERROR_MESSAGE_MAX];
	va_list args;
	size_t len;

	metric_inc(&vcpu->metrics.failures);
	len = (size_t)snprintf(message, sizeof(message), "vCPU %u: ", vcpu->index);
	va_start(args, fmt);
	len += (size_t)vsnprintf(message + len, sizeof(message) - len, fmt, args);
	va_end(args);
	if (len < sizeof(message) && ioctl(vcpu->fd, KVM_GET_REGS, &regs) == 0)
		snprintf(message + len, sizeof(message) - len, ", at RIP %#llx", regs.rip);
	return end(vcpu, VCPU_END_ERROR, message);
}

static const char *internal_error_name(uint32_t suberror)
{
	switch (suberror) {
	case KVM_INTERNAL_ERROR_EMULATION:
		return "an instruction it cannot emulate";
	case KVM_INTERNAL_ERROR_SIMUL_EX:
		return "an exception inside an exception";
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		return "an exit while it delivered an event";
	case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
		return "an exit it did not expect";
	default:
		return "unknown";
	}
}

/* False when this vCPU is not to run again. */
static bool serve_exit(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		serve_port(vcpu);
		return true;
	case KVM_EXIT_MMIO:
		serve_mmio(vcpu);
		return true;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		refuse_msr(vcpu);
		return true;
	case KVM_EXIT_DEBUG:
		serve_debug(vcpu);
		return true;
	case KVM_EXIT_INTR:
	case KVM_EXIT_HLT: /* not with an interrupt controller in KVM */
		return true;
	case KVM_EXIT_SHUTDOWN:
		return end(vcpu, VCPU_END_RESET, "triple fault");
	case KVM_EXIT_SYSTEM_EVENT:
		if (run->system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN ||
			run->system_event.type == KVM_SYSTEM_EVENT_RESET)
			return end(vcpu, VCPU_END_RESET, "system event");
		return end_with_error(vcpu, "system event %u", run->system_event.type);
	case KVM_EXIT_FAIL_ENTRY:
		return end_with_error(vcpu,
			"the processor refused to enter the guest (hardware reason %#llx)",
			run->fail_entry.hardware_entry_failure_reason);
	case KVM_EXIT_INTERNAL_ERROR:
		return end_with_error(vcpu, "KVM internal error %u (%s)", run->internal.suberror,
			internal_error_name(run->internal.suberror));
	default:
		return end_with_error(vcpu, "KVM exit %u, which is not expected", run->exit_reason);
	}
}

/* An access that was served is completed by the next KVM_RUN: let it, without running on, so that the vCPU's
 * registers tell all. An access that KVM splits comes back for its other part. False when this vCPU is not to
 * run again. */
static bool finish_access(struct vcpu *vcpu)
{
	bool may_run = true;

	vcpu->run->immediate_exit = 1;
	while (may_run && ioctl(vcpu->fd, KVM_RUN, 0) == 0)
		may_run = serve_exit(vcpu);
	vcpu->run->immediate_exit = 0;
	return may_run;
}

/* Runs the guest until something else is wanted. False when this vCPU is not to run again. */
static bool run_guest(struct vcpu *vcpu)
{
	while (atomic_load(&vcpu->group->wanted) == VCPUS_RUN && !vcpu->held) {
		if (ioctl(vcpu->fd, KVM_RUN, 0) == 0) {
			if (!serve_exit(vcpu))
				return false;
			continue;
		}
		if (errno == EINTR)
			/* Whoever kicked has changed `wanted` before; a kick that comes after this line is
			 * seen by the next KVM_RUN, or was for a `wanted` the loop's condition will see. */
			vcpu->run->immediate_exit = 0;
		else if (errno == EFAULT)
			return end_with_error(vcpu,
				"it touched memory that is not there: not plugged, or the host has nothing to back it with");
		else if (errno != EAGAIN)
			return end_with_error(vcpu, "KVM_RUN failed: %s", strerror(errno));
	}
	return finish_access(vcpu);
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *vcpu = arg;
	struct vcpus *group = vcpu->group;
	bool may_run = true;
	char name[16];
	sigset_t kick_signal;

	/* Whoever started this program may have blocked it. */
	sigemptyset(&kick_signal);
	sigaddset(&kick_signal, KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &kick_signal, NULL);
	snprintf(name, sizeof(name), "vcpu %u", vcpu->index);
	pthread_setname_np(pthread_self(), name);
	pthread_mutex_lock(&group->lock);
	while (group->wanted != VCPUS_STOP) {
		if (group->wanted == VCPUS_RUN && may_run && !vcpu->held) {
			group->n_resting--;
			pthread_mutex_unlock(&group->lock);
			may_run = run_guest(vcpu);
			pthread_mutex_lock(&group->lock);
			group->n_resting++;
			pthread_cond_broadcast(&group->changed);
		} else {
			pthread_cond_wait(&group->changed, &group->lock);
		}
	}
	pthread_mutex_unlock(&group->lock);
	return NULL;
}

static int start_thread(struct vcpu *vcpu, struct error *err)
{
	pthread_attr_t attributes;
	int r;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	r = pthread_create(&vcpu->thread, &attributes, vcpu_thread, vcpu);
	pthread_attr_destroy(&attributes);
	if (r != 0)
		return error_set_errno(err, r, "no thread for vCPU %u", vcpu->index);
	vcpu->has_thread = true;
	return 0;
}

int vcpus_init(struct vcpus *group, const struct vcpus_config *config, struct error *err)
{
	struct sigaction action = {.sa_handler = kicked};
	int r = 0;

	*group = (struct vcpus){.config = *config, .wanted = VCPUS_PAUSE};
	pthread_mutex_init(&group->lock, NULL);
	pthread_cond_init(&group->changed, NULL);
	group->items = calloc(config->topology->n_vcpus, sizeof(*group->items));
	if (!group->items)
		return error_set(err, ENOMEM, "out of memory");
	sigaction(KICK_SIGNAL, &action, NULL);
	/* All of them are made before the first thread looks: an interrupt to a vCPU that is not there would
	 * be lost. */
	for (; group->n < config->topology->n_vcpus && r == 0; group->n++) {
		group->items[group->n] = (struct vcpu){.group = group, .index = group->n, .fd = -1};
		r = vcpu_init(&group->items[group->n], err);
	}
	group->n_resting = group->n;
	for (unsigned i = 0; i < group->n && r == 0; i++)
		r = start_thread(&group->items[i], err);
	if (r < 0)
		vcpus_done(group);
	return r;
}

/* Makes every thread look at `wanted`, which has just been changed. */
static void kick(struct vcpus *group)
{
	for (unsigned i = 0; i < group->n; i++) {
		struct vcpu *vcpu = &group->items[i];

		if (!vcpu->has_thread || pthread_equal(vcpu->thread, pthread_self()))
			continue;
		vcpu->run->immediate_exit = 1;
		pthread_kill(vcpu->thread, KICK_SIGNAL);
	}
}

/* With the lock held. A stop is final. */
static void want(struct vcpus *group, enum vcpus_wanted wanted)
{
	if (group->wanted == VCPUS_STOP)
		return;
	group->wanted = wanted;
	group->config.may_wait(group->config.ctx, wanted == VCPUS_RUN);
	pthread_cond_broadcast(&group->changed);
	if (wanted != VCPUS_RUN)
		kick(group);
}

void vcpus_resume(struct vcpus *group)
{
	pthread_mutex_lock(&group->lock);
	want(group, VCPUS_RUN);
	pthread_mutex_unlock(&group->lock);
}

void vcpus_pause(struct vcpus *group)
{
	pthread_mutex_lock(&group->lock);
	want(group, VCPUS_PAUSE);
	while (group->wanted == VCPUS_PAUSE && group->n_resting < group->n)
		pthread_cond_wait(&group->changed, &group->lock);
	pthread_mutex_unlock(&group->lock);
}

void vcpus_hold(struct vcpus *group, unsigned index, bool held)
{
	pthread_mutex_lock(&group->lock);
	group->items[index].held = held;
	pthread_mutex_unlock(&group->lock);
}

void vcpus_request_stop(struct vcpus *group)
{
	pthread_mutex_lock(&group->lock);
	want(group, VCPUS_STOP);
	pthread_mutex_unlock(&group->lock);
}

void vcpus_done(struct vcpus *group)
{
	if (!group->items)
		return;
	vcpus_request_stop(group);
	for (unsigned i = 0; i < group->n; i++) {
		struct vcpu *vcpu = &group->items[i];

		if (vcpu->has_thread)
			pthread_join(vcpu->thread, NULL);
		if (vcpu->run)
			munmap(vcpu->run, group->config.vm->run_size_bytes);
		close_fd(vcpu->fd);
	}
	free(group->items);
	pthread_cond_destroy(&group->changed);
	pthread_mutex_destroy(&group->lock);
	*group = (struct vcpus){0};
}
