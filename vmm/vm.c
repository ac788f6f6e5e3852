/* Making the machine in KVM. */
#include "vmm/vm.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "vmm/cpu_template.h"
#include "vmm/cpuid.h"
#include "vmm/layout.h"
#include "vmm/msr_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#define KVM_DEVICE "/dev/kvm"

#define SLOTS_AT_LEAST 32 /* where KVM does not say: all versions have had as many */

static int open_kvm(struct error *err)
{
	int fd = open(KVM_DEVICE, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	switch (errno) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return error_set_field(err, errno, KVM_DEVICE,
			"this host offers no virtualization: load kvm-intel or kvm-amd, or run under kvmhost, which "
			"emulates a host that does");
	case EACCES:
	case EPERM:
		return error_set_field(err, errno, KVM_DEVICE,
			"permission denied: the user must be in the group that owns it (kvm)");
	default:
		return error_set_field(err, errno, KVM_DEVICE, "%s", strerror(errno));
	}
}

static int check_capabilities(int kvm_fd, const struct config_cpu *template, struct error *err)
{
	static const struct {
		uint32_t capability;
		const char *name;
	} needed[] = {
		{KVM_CAP_IRQCHIP, "an interrupt controller"},
		{KVM_CAP_USER_MEMORY, "user memory"},
		{KVM_CAP_READONLY_MEM, "read-only memory"},
		{KVM_CAP_SET_TSS_ADDR, "a place for the TSS"},
		{KVM_CAP_SET_IDENTITY_MAP_ADDR, "a place for the identity map"},
		{KVM_CAP_EXT_CPUID, "CPUID"},
		{KVM_CAP_IRQFD, "irqfd"},
		{KVM_CAP_IOEVENTFD, "ioeventfd"},
		{KVM_CAP_IOEVENTFD_ANY_LENGTH, "ioeventfd of any length"},
		{KVM_CAP_IRQ_ROUTING, "interrupt routing"},
		{KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
		{KVM_CAP_X86_USER_SPACE_MSR, "refusing MSRs in user space"},
		{KVM_CAP_X86_MSR_FILTER, "an MSR filter"},
	};
	int version = ioctl(kvm_fd, KVM_GET_API_VERSION, 0);

	if (version < 0)
		return error_set_field(err, errno, KVM_DEVICE, "is not KVM: %s", strerror(errno));
	if (version != KVM_API_VERSION)
		return error_set_field(
			err, ENOTSUP, KVM_DEVICE, "API version %d, not %d", version, KVM_API_VERSION);
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (!cpu_template_waives(template, needed[i].capability) &&
			ioctl(kvm_fd, KVM_CHECK_EXTENSION, (unsigned long)needed[i].capability) <= 0)
			return error_set_field(err, ENOTSUP, KVM_DEVICE,
				"this host's KVM is too old: it lacks %s", needed[i].name);
	return cpu_template_check(template, kvm_fd, err);
}

static int create_machine(int kvm_fd, struct error *err)
{
	int fd;

	do
		fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	while (fd < 0 && errno == EINTR);
	return fd >= 0 ? fd : error_set_errno(err, errno, "KVM cannot make a machine");
}

/* The TSS and the identity map are what an Intel host without unrestricted guest mode runs real mode with;
 * setting them is cheap, and that a host forgives their absence is not to be relied on. There is no PIT:
 * guests have the TSC-deadline timer. */
static int set_up_machine(int vm_fd, struct error *err)
{
	/* Guests are not offered performance counters (vmm/cpuid_features.c); KVM need not keep any for them. Older KVM
	 * cannot be told. */
	struct kvm_enable_cap no_counters = {.cap = KVM_CAP_PMU_CAPABILITY, .args = {KVM_PMU_CAP_DISABLE}};
	uint64_t identity_map = LAYOUT_IDENTITY_MAP;

	ioctl(vm_fd, KVM_ENABLE_CAP, &no_counters);
	if (ioctl(vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
		return error_set_errno(err, errno, "KVM cannot place the identity map");
	if (ioctl(vm_fd, KVM_SET_TSS_ADDR, LAYOUT_TSS) < 0)
		return error_set_errno(err, errno, "KVM cannot place the TSS");
	if (ioctl(vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
		return error_set_errno(err, errno, "KVM cannot make an interrupt controller");
	return msr_filter_install(vm_fd, err);
}

static int init(struct vm *vm, const struct config_cpu *template, struct error *err)
{
	int r = open_kvm(err), size;

	if (r < 0)
		return r;
	vm->kvm_fd = r;
	r = check_capabilities(vm->kvm_fd, template, err);
	if (r < 0)
		return r;
	size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof(struct kvm_run))
		return error_set_errno(
			err, size < 0 ? errno : EINVAL, "KVM does not say how large a vCPU's page is");
	vm->run_size_bytes = (size_t)size;
	size = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	vm->max_vcpus = size > 0 ? (unsigned)size : 1;
	size = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS);
	vm->max_slots = size > 0 ? (unsigned)size : SLOTS_AT_LEAST;
	vm->slots = calloc((vm->max_slots + 63) / 64, sizeof(*vm->slots));
	if (!vm->slots)
		return error_set(err, ENOMEM, "out of memory");
	vm->has_tsc_deadline = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	vm->cpuid = cpuid_supported(vm->kvm_fd, err);
	if (!vm->cpuid)
		return -EIO;
	r = cpu_template_apply(template, vm->cpuid, err);
	if (r < 0)
		return r;
	r = create_machine(vm->kvm_fd, err);
	if (r < 0)
		return r;
	vm->fd = r;
	return set_up_machine(vm->fd, err);
}

int vm_init(struct vm *ret, const struct config_cpu *template, struct error *err)
{
	struct vm vm = {.kvm_fd = -1, .fd = -1};
	int r = init(&vm, template, err);

	if (r < 0)
		vm_done(&vm);
	*ret = vm;
	pthread_mutex_init(&ret->routing_lock, NULL);
	return r;
}

/* With its last descriptor KVM takes a machine apart, and waits for the host's RCU as it does: 10 ms and more, in which whoever
 * started this program waits for its end. What a ring holds is let go by threads of the kernel's own once the ring is closed. Where
 * the host has no rings, this thread waits. */
static void close_machine(int fd)
{
	struct io_uring ring;
	bool has_ring = fd >= 0 && io_uring_queue_init(1, &ring, 0) == 0;

	if (has_ring)
		io_uring_register_files(&ring, &fd, 1);
	close_fd(fd);
	if (has_ring)
		io_uring_queue_exit(&ring);
}

void vm_done(struct vm *vm)
{
	close_machine(vm->fd);
	close_fd(vm->kvm_fd);
	free(vm->cpuid);
	free(vm->slots);
	free(vm->routing);
	*vm = (struct vm){.kvm_fd = -1, .fd = -1};
}

/* One more than the highest guest-physical address that a vCPU of this host can have. */
static gpa_t address_limit(const struct vm *vm)
{
	return UINT64_C(1) << cpuid_physical_address_bits(vm->cpuid);
}

int vm_place(const struct vm *vm, const struct gmem *mem, uint64_t size_bytes, uint64_t align, gpa_t *ret,
	struct error *err)
{
	const struct gmem_region *region = NULL;
	gpa_t at;

	if (align < LAYOUT_DEVICE_MEMORY_ALIGN)
		align = LAYOUT_DEVICE_MEMORY_ALIGN;
	at = align_up(LAYOUT_HIGH_RAM, align);
	/* Ascending: what begins behind a gap that is large enough ends the search, but RAM, which all of it is above. */
	while ((region = gmem_next(mem, region))) {
		if (region->kind != GMEM_RAM && region->gpa >= at && size_bytes <= region->gpa - at)
			break;
		if (region->gpa + region->size_bytes > at)
			at = align_up(region->gpa + region->size_bytes, align);
	}
	if (!range_fits(at, size_bytes, address_limit(vm)))
		return error_set(err, ENOMEM,
			"the host's processor addresses %u bits of guest memory, and %llu MiB more do not fit",
			cpuid_physical_address_bits(vm->cpuid), (unsigned long long)size_bytes >> 20);
	*ret = at;
	return 0;
}

static bool slot_is_taken(const struct vm *vm, unsigned slot)
{
	return vm->slots[slot / 64] >> (slot % 64) & 1;
}

int vm_add_slot(struct vm *vm, const struct gmem_region *memory, struct error *err)
{
	struct kvm_userspace_memory_region slot = {
		.guest_phys_addr = memory->gpa,
		.memory_size = memory->size_bytes,
		.userspace_addr = (uintptr_t)memory->host,
		.flags = memory->read_only ? KVM_MEM_READONLY : 0,
	};

	if (!range_fits(memory->gpa, memory->size_bytes, address_limit(vm)))
		return error_set(err, ENOMEM,
			"the host's processor addresses %u bits of guest memory, which is not enough",
			cpuid_physical_address_bits(vm->cpuid));
	while (slot.slot < vm->max_slots && slot_is_taken(vm, slot.slot))
		slot.slot++;
	if (slot.slot == vm->max_slots)
		return error_set(err, ENOSPC, "KVM has %u memory slots, and all are taken", vm->max_slots);
	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
		return error_set_errno(err, errno, "KVM cannot map %llu MiB",
			(unsigned long long)memory->size_bytes >> 20);
	vm->slots[slot.slot / 64] |= UINT64_C(1) << (slot.slot % 64);
	return (int)slot.slot;
}

int vm_remove_slot(struct vm *vm, int slot)
{
	struct kvm_userspace_memory_region none = {.slot = (uint32_t)slot};

	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &none) < 0)
		return -errno;
	vm->slots[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
	return 0;
}

int vm_add_memory(struct vm *vm, const struct gmem *mem, struct error *err)
{
	const struct gmem_region *region = NULL;
	int r = 0;

	while (r >= 0 && (region = gmem_next(mem, region)))
		r = vm_add_slot(vm, region, err);
	return r < 0 ? r : 0;
}

int vm_add_doorbell(struct vm *vm, gpa_t address, uint32_t value, int fd, struct error *err)
{
	struct kvm_ioeventfd doorbell = {
		.datamatch = value,
		.addr = address,
		.len = sizeof(value),
		.fd = fd,
		.flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
	};

	if (ioctl(vm->fd, KVM_IOEVENTFD, &doorbell) < 0)
		return error_set_errno(err, errno, "KVM cannot register a doorbell");
	return 0;
}

static int doorbell_ioctl(struct vm *vm, gpa_t address, int fd, uint32_t flags)
{
	struct kvm_ioeventfd doorbell = {.addr = address, .fd = fd, .flags = flags};

	return ioctl(vm->fd, KVM_IOEVENTFD, &doorbell) < 0 ? -errno : 0;
}

int vm_connect_doorbell(struct vm *vm, gpa_t address, int fd)
{
	return doorbell_ioctl(vm, address, fd, 0);
}

void vm_disconnect_doorbell(struct vm *vm, gpa_t address, int fd)
{
	doorbell_ioctl(vm, address, fd, KVM_IOEVENTFD_FLAG_DEASSIGN); /* fails only for what was not connected */
}

int vm_add_interrupt(struct vm *vm, uint32_t gsi, int fd, struct error *err)
{
	struct kvm_irqfd interrupt = {.fd = (uint32_t)fd, .gsi = gsi};

	if (ioctl(vm->fd, KVM_IRQFD, &interrupt) < 0)
		return error_set_errno(err, errno, "KVM cannot register interrupt %u", gsi);
	return 0;
}

void vm_pulse(const struct vm *vm, uint32_t gsi)
{
	struct kvm_irq_level line = {.irq = gsi, .level = 1};

	if (ioctl(vm->fd, KVM_IRQ_LINE, &line) < 0)
		log_error("KVM does not take interrupt %u: %s", gsi, strerror(errno));
	line.level = 0;
	ioctl(vm->fd, KVM_IRQ_LINE, &line);
}
