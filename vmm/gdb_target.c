/* Debugging by KVM_SET_GUEST_DEBUG. */
#include "vmm/gdb_target.h"

#include "common/log.h"
#include "common/loop.h"
#include "vmm/gdb_kvm.h"
#include "vmm/vcpu.h"

#include <cpuid.h>
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

/* Exceptions, and bits of DR6 (AMD64 manual, volume 2, 8.2 and 13.1.1.3). */
#define VECTOR_DEBUG	  1
#define VECTOR_BREAKPOINT 3
#define DR6_STEP	  (1u << 14)

#define PAGE_MASK UINT64_C(0xfff)

static unsigned n_threads(const struct gdb_target *target)
{
	return target->config.vcpus->n;
}

static int vcpu_fd(const struct gdb_target *target, unsigned thread)
{
	return target->config.vcpus->items[thread].fd;
}

/* QEMU's emulation of an AMD processor does not let INT3 leave a guest, whatever KVM asks for: it would be the guest's own,
 * and the end of its kernel. (Before QEMU 9.1 it does not load a guest's debug registers either: a hardware breakpoint is met
 * where KVM emulates the instruction, and a watchpoint never.) */
static bool host_is_emulated(void)
{
	unsigned eax, ebx, ecx, edx, name[3];

	__cpuid(1, eax, ebx, ecx, edx);
	if (!(ecx >> 31)) /* no hypervisor, so no leaf of its own */
		return false;
	__cpuid(0x40000000, eax, name[0], name[1], name[2]);
	return memcmp(name, "TCGTCGTCGTCG", sizeof(name)) == 0;
}

int gdb_target_init(struct gdb_target *target, const struct gdb_target_config *config, struct error *err)
{
	int flags;

	if (ioctl(config->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG) <= 0)
		return error_set(err, ENOTSUP, "this host's KVM cannot debug a guest");
	*target = (struct gdb_target){.config = *config};
	flags = ioctl(config->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG2);
	target->has_software = !host_is_emulated();
	target->blocks_interrupts = flags > 0 && flags & KVM_GUESTDBG_BLOCKIRQ;
	gdb_breaks_init(&target->breaks, config->mem);
	return 0;
}

/* ---- what KVM is to watch ---- */

/* Any thread: a vCPU's own, or the loop's while it rests. `inject`: an exception that the guest is to be given. */
static void watch(const struct gdb_target *target, unsigned thread, uint32_t inject)
{
	struct kvm_guest_debug debug = {.control = inject};

	if (target->attached || inject)
		debug.control |= KVM_GUESTDBG_ENABLE;
	if (target->breaks.n_software > 0)
		debug.control |= KVM_GUESTDBG_USE_SW_BP;
	if (gdb_breaks_any_hardware(&target->breaks)) {
		uint64_t dr[GDB_HARDWARE_MAX], dr7;

		gdb_debug_registers(&target->breaks, dr, &dr7);
		for (unsigned i = 0; i < GDB_HARDWARE_MAX; i++)
			debug.arch.debugreg[i] = dr[i];
		debug.arch.debugreg[7] = dr7;
		debug.control |= KVM_GUESTDBG_USE_HW_BP;
	}
	if (target->actions[thread] == GDB_ACTION_STEP)
		debug.control |= KVM_GUESTDBG_SINGLESTEP | (target->blocks_interrupts ? KVM_GUESTDBG_BLOCKIRQ : 0);
	if (ioctl(vcpu_fd(target, thread), KVM_SET_GUEST_DEBUG, &debug) < 0)
		log_error("KVM does not debug vCPU %u: %s", thread, strerror(errno));
}

static void watch_all(const struct gdb_target *target)
{
	for (unsigned i = 0; i < n_threads(target); i++) {
		watch(target, i, 0);
		vcpus_hold(target->config.vcpus, i, target->actions[i] == GDB_ACTION_STAY);
	}
}

/* ---- why a vCPU stopped ---- */

struct place {
	const struct gdb_target *target;
	unsigned thread;
};

/* As that vCPU's page tables have it now. */
static int translate(void *ctx, uint64_t address, gpa_t *ret)
{
	const struct place *place = ctx;
	struct kvm_translation translation = {.linear_address = address};

	if (ioctl(vcpu_fd(place->target, place->thread), KVM_TRANSLATE, &translation) < 0 || !translation.valid)
		return -EFAULT;
	*ret = (translation.physical_address & ~PAGE_MASK) | (address & PAGE_MASK);
	return 0;
}

static bool hit_software(const struct gdb_target *target, unsigned thread, uint64_t pc)
{
	struct place place = {target, thread};
	gpa_t gpa;

	return translate(&place, pc, &gpa) == 0 && gdb_breaks_hit(&target->breaks, gpa);
}

static bool hit_hardware(const struct gdb_target *target, uint64_t dr6, struct gdb_stop *stop)
{
	static const enum gdb_stop_kind kinds[] = {
		[GDB_BREAK_HARDWARE] = GDB_STOP_HARDWARE,
		[GDB_WATCH_WRITE] = GDB_STOP_WRITE,
		[GDB_WATCH_ACCESS] = GDB_STOP_ACCESS,
	};

	for (unsigned i = 0; i < GDB_HARDWARE_MAX; i++) {
		const struct gdb_hardware_break *one = &target->breaks.hardware[i];

		if (!one->used || !(dr6 >> i & 1))
			continue;
		stop->kind = kinds[one->kind];
		stop->address = one->address;
		return true;
	}
	return false;
}

/* False: the debugger did not ask for that. */
static bool understand(const struct gdb_target *target, const struct vcpu *vcpu, struct gdb_stop *stop)
{
	const struct kvm_debug_exit_arch *exit = &vcpu->run->debug.arch;

	*stop = (struct gdb_stop){.thread = vcpu->index, .kind = GDB_STOP_SOFTWARE};
	if (exit->exception == VECTOR_BREAKPOINT)
		return hit_software(target, vcpu->index, exit->pc);
	if (exit->exception != VECTOR_DEBUG)
		return false;
	if (hit_hardware(target, exit->dr6, stop))
		return true;
	stop->kind = GDB_STOP_TRAP;
	return exit->dr6 & DR6_STEP && target->actions[vcpu->index] == GDB_ACTION_STEP;
}

/* A breakpoint or a step of the guest's own, which it waits for. */
static void pass_on(const struct gdb_target *target, const struct vcpu *vcpu)
{
	const struct kvm_debug_exit_arch *exit = &vcpu->run->debug.arch;
	struct kvm_debugregs registers;

	if (exit->exception == VECTOR_BREAKPOINT) {
		watch(target, vcpu->index, KVM_GUESTDBG_INJECT_BP);
		return;
	}
	if (ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &registers) == 0) {
		registers.dr6 |= exit->dr6;
		ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &registers);
	}
	watch(target, vcpu->index, KVM_GUESTDBG_INJECT_DB);
}

/* ---- stopping ---- */

static bool any_pending(const struct gdb_target *target)
{
	for (unsigned i = 0; i < n_threads(target); i++)
		if (target->stops[i].pending)
			return true;
	return false;
}

static bool is_watch(const struct gdb_stop *stop)
{
	return stop->kind == GDB_STOP_WRITE || stop->kind == GDB_STOP_ACCESS;
}

/* All vCPUs rest. Tells one of the stops, or `otherwise` when there is none. */
static void tell_stop(struct gdb_target *target, struct gdb_stop otherwise)
{
	struct gdb_stop told = otherwise;
	bool found = false;

	for (unsigned i = 0; i < n_threads(target); i++) {
		if (!target->stops[i].pending || (found && is_watch(&target->stops[i].stop)))
			continue;
		target->stops[i].pending = false;
		if (!found)
			told = target->stops[i].stop;
		found = true;
	}
	target->running = false;
	target->config.stopped(target->config.ctx, &told);
}

/* Posted by vCPUs. What they stopped for may have been told meanwhile, or the debugger may be gone. */
static void look_for_stops(void *ctx)
{
	struct gdb_target *target = ctx;

	if (!target->running || !any_pending(target))
		return;
	target->config.hold(target->config.ctx, true);
	tell_stop(target, (struct gdb_stop){.kind = GDB_STOP_TRAP});
}

bool gdb_target_exit(struct gdb_target *target, struct vcpu *vcpu)
{
	struct gdb_stop stop;

	if (!understand(target, vcpu, &stop)) {
		pass_on(target, vcpu);
		return false;
	}
	target->stops[vcpu->index].stop = stop;
	target->stops[vcpu->index].pending = true;
	loop_post(target->config.loop, look_for_stops, target);
	return true;
}

/* ---- what the debugger asks for ---- */

static int read_registers(void *ctx, unsigned thread, struct gdb_registers *ret)
{
	return gdb_kvm_read(vcpu_fd(ctx, thread), ret);
}

static int write_registers(void *ctx, unsigned thread, const struct gdb_registers *registers)
{
	return gdb_kvm_write(vcpu_fd(ctx, thread), registers);
}

static size_t read_memory(void *ctx, unsigned thread, uint64_t address, void *ret, size_t len)
{
	struct gdb_target *target = ctx;
	struct place place = {target, thread};
	struct gdb_space space = {translate, &place};

	return gdb_memory_read(&target->breaks, &space, address, ret, len);
}

static int write_memory(void *ctx, unsigned thread, uint64_t address, const void *data, size_t len)
{
	struct gdb_target *target = ctx;
	struct place place = {target, thread};
	struct gdb_space space = {translate, &place};

	return gdb_memory_write(&target->breaks, &space, address, data, len);
}

static int insert(void *ctx, unsigned thread, enum gdb_break_kind kind, uint64_t address, uint64_t size_bytes)
{
	struct gdb_target *target = ctx;
	struct place place = {target, thread};
	struct gdb_space space = {translate, &place};

	if (kind == GDB_BREAK_SOFTWARE && !target->has_software) {
		log_warn("on this emulated host a software breakpoint does not stop a guest: use a hardware breakpoint");
		return -ENOTSUP;
	}
	return gdb_break_insert(&target->breaks, &space, kind, address, size_bytes);
}

static int remove_break(void *ctx, unsigned thread, enum gdb_break_kind kind, uint64_t address, uint64_t size_bytes)
{
	struct gdb_target *target = ctx;
	struct place place = {target, thread};
	struct gdb_space space = {translate, &place};

	return gdb_break_remove(&target->breaks, &space, kind, address, size_bytes);
}

static void resume(void *ctx, const enum gdb_action *actions)
{
	struct gdb_target *target = ctx;

	memcpy(target->actions, actions, n_threads(target) * sizeof(*actions));
	target->running = true;
	if (any_pending(target)) { /* of the last time: it stands still at once */
		loop_post(target->config.loop, look_for_stops, target);
		return;
	}
	watch_all(target);
	target->config.hold(target->config.ctx, false);
}

static void interrupt(void *ctx)
{
	struct gdb_target *target = ctx;
	struct gdb_stop stop = {.kind = GDB_STOP_INTERRUPT};

	if (!target->running)
		return;
	target->config.hold(target->config.ctx, true);
	while (target->actions[stop.thread] == GDB_ACTION_STAY)
		stop.thread++; /* one of them was to run */
	tell_stop(target, stop);
}

static void kill_machine(void *ctx)
{
	struct gdb_target *target = ctx;

	target->config.kill(target->config.ctx);
}

const struct gdb_target_ops gdb_target_ops = {
	.read_registers = read_registers,
	.write_registers = write_registers,
	.read_memory = read_memory,
	.write_memory = write_memory,
	.insert = insert,
	.remove = remove_break,
	.resume = resume,
	.interrupt = interrupt,
	.kill = kill_machine,
};

static void set_attached(struct gdb_target *target, bool attached)
{
	target->config.hold(target->config.ctx, true);
	target->attached = attached;
	target->running = false;
	gdb_breaks_clear(&target->breaks);
	for (unsigned i = 0; i < n_threads(target); i++) {
		target->stops[i].pending = false;
		target->actions[i] = GDB_ACTION_CONTINUE;
	}
	watch_all(target);
}

void gdb_target_attach(struct gdb_target *target)
{
	set_attached(target, true);
}

void gdb_target_detach(struct gdb_target *target)
{
	set_attached(target, false);
	target->config.hold(target->config.ctx, false);
}
