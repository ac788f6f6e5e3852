/* The guest's clocks.
 *
 * Theory of operation. A guest has two sources of time, and KVM makes both of the host's TSC:
 *
 *	TSC       the host's, plus an offset of the vCPU
 *	kvmclock  nanoseconds since the host started, plus an offset of the machine; the guest computes it of its TSC and a page
 *	          that KVM writes. The wall clock is read once, at boot: the host's CLOCK_REALTIME when kvmclock was zero.
 *
 * As long as all vCPUs have the same TSC offset, and the host's own clock is its TSC, KVM computes one page for all of them
 * (its "master clock"), and the guest reads it without looking whether another processor was ahead. Hence clock_align(). KVM
 * gives vCPUs that are made one after the other the same offset; it is looked at all the same, because what a template writes to
 * MSR 0x10 moves it, and a guest whose TSCs differ finds that out by jumping back in time.
 *
 * In a pause both run on: nobody stops them, and nobody sets them back. A guest that resumes finds that time has passed, as on a
 * machine whose processors were all in system management; its wall clock, deadlines and timeouts are right at once, without
 * anybody in it doing anything. The alternative, to stop kvmclock with the vCPUs and set it (KVM_SET_CLOCK) when they go on, either
 * leaves the wall clock behind by the pause or, with KVM_CLOCK_REALTIME, comes to what is here, less exactly. It is for a guest
 * that goes on elsewhere, on a host with another TSC.
 *
 * What a guest must not believe is that its processors were stuck for so long: the soft lockup watchdog would say so. Hence
 * clock_tell_pause(), a mark in each vCPU's page that the watchdog looks for. */
#include "vmm/clock.h"

#include "common/log.h"
#include "devices/metrics.h"
#include "vmm/vcpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

static int tsc_offset(const struct vcpu *vcpu, unsigned long request, uint64_t *offset)
{
	struct kvm_device_attr attribute = {
		.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset};

	return ioctl(vcpu->fd, request, &attribute);
}

int clock_align(const struct vcpus *vcpus, struct error *err)
{
	uint64_t first, other;

	/* Before Linux 5.16 offsets are KVM's own affair: it guesses from TSCs that are written at about the same time. */
	if (tsc_offset(&vcpus->items[0], KVM_HAS_DEVICE_ATTR, &first) < 0)
		return 0;
	if (tsc_offset(&vcpus->items[0], KVM_GET_DEVICE_ATTR, &first) < 0)
		return error_set_errno(err, errno, "KVM does not give vCPU 0's TSC offset");
	for (unsigned i = 1; i < vcpus->n; i++) {
		if (tsc_offset(&vcpus->items[i], KVM_GET_DEVICE_ATTR, &other) < 0)
			return error_set_errno(err, errno, "KVM does not give vCPU %u's TSC offset", i);
		if (other != first && tsc_offset(&vcpus->items[i], KVM_SET_DEVICE_ATTR, &first) < 0)
			return error_set_errno(err, errno, "KVM does not take vCPU %u's TSC offset", i);
	}
	return 0;
}

void clock_tell_pause(struct vcpus *vcpus)
{
	for (unsigned i = 0; i < vcpus->n; i++) {
		struct vcpu *vcpu = &vcpus->items[i];

		if (ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0) == 0)
			continue;
		metric_inc(&vcpu->metrics.kvmclock_ctrl_fails);
		if (errno != EINVAL) /* this processor's guest uses no kvmclock, or not yet */
			log_warn("vCPU %u cannot be told of the pause: %s", i, strerror(errno));
	}
}
