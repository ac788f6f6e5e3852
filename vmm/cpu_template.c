/* Applying a custom CPU template. Its strings have been checked (vmm/config_cpu.c): parsing them cannot fail here. */
#include "vmm/cpu_template.h"

#include "common/cleanup.h"
#include "vmm/config_cpu.h"
#include "vmm/cpuid.h"

#include <assert.h>
#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

static uint32_t number(const char *text)
{
	uint32_t ret = 0;
	bool ok = config_parse_number(text, &ret);

	assert(ok);
	(void)ok;
	return ret;
}

static uint64_t change(uint64_t word, const char *bitmap, unsigned width)
{
	struct config_bits bits = {0};
	bool ok = config_parse_bits(bitmap, width, &bits);

	assert(ok);
	(void)ok;
	return (word & ~bits.mask) | bits.value;
}

bool cpu_template_waives(const struct config_cpu *template, uint32_t capability)
{
	for (size_t i = 0; template && i < template->kvm_capabilities.len; i++) {
		const char *text = template->kvm_capabilities.items[i];

		if (*text == '!' && number(text + 1) == capability)
			return true;
	}
	return false;
}

int cpu_template_check(const struct config_cpu *template, int kvm_fd, struct error *err)
{
	for (size_t i = 0; template && i < template->kvm_capabilities.len; i++) {
		const char *text = template->kvm_capabilities.items[i];

		if (*text == '!' || ioctl(kvm_fd, KVM_CHECK_EXTENSION, (unsigned long)number(text)) > 0)
			continue;
		error_set(err, ENOTSUP, "this host's KVM does not have capability %s", text);
		return error_in_field(err, "cpu-config.kvm_capabilities[%zu]", i);
	}
	return 0;
}

/* The vendor stays: KVM cannot make one vendor's processor of another's, and kernels take what they find for granted. */
static bool is_fixed(uint32_t leaf, int reg)
{
	return leaf == CPUID_BASIC && reg != CONFIG_EAX;
}

static void change_register(struct kvm_cpuid_entry2 *e, const struct config_cpuid_register *modifier)
{
	uint32_t *const words[] = {
		[CONFIG_EAX] = &e->eax, [CONFIG_EBX] = &e->ebx, [CONFIG_ECX] = &e->ecx, [CONFIG_EDX] = &e->edx};

	if (!is_fixed(e->function, modifier->reg))
		*words[modifier->reg] = (uint32_t)change(*words[modifier->reg], modifier->bitmap, 32);
}

int cpu_template_apply(const struct config_cpu *template, struct kvm_cpuid2 *cpuid, struct error *err)
{
	const struct config_cpuid_leaf *leaves = template ? template->cpuid_modifiers.items : NULL;

	for (size_t i = 0; template && i < template->cpuid_modifiers.len; i++) {
		const struct config_cpuid_register *modifiers = leaves[i].modifiers.items;
		struct kvm_cpuid_entry2 *e = cpuid_find(cpuid, number(leaves[i].leaf), number(leaves[i].subleaf));

		if (!e) {
			error_set(err, ENOTSUP, "this host's KVM offers no leaf %s with subleaf %s", leaves[i].leaf,
				leaves[i].subleaf);
			return error_in_field(err, "cpu-config.cpuid_modifiers[%zu].leaf", i);
		}
		for (size_t j = 0; j < leaves[i].modifiers.len; j++)
			change_register(e, &modifiers[j]);
	}
	return 0;
}

/* KVM stops at the first that it does not know or does not like: `done` of them are through. */
static int refuse_msr(const struct config_msr *msr, int done, const char *what, struct error *err)
{
	error_set(err, ENOTSUP, "this host's KVM %s MSR %s", what, msr[done].addr);
	return error_in_field(err, "cpu-config.msr_modifiers[%d].addr", done);
}

int cpu_template_set_msrs(const struct config_cpu *template, int vcpu_fd, struct error *err)
{
	const struct config_msr *modifiers = template ? template->msr_modifiers.items : NULL;
	size_t n = template ? template->msr_modifiers.len : 0;
	cleanup_free struct kvm_msrs *msrs = calloc(1, sizeof(*msrs) + n * sizeof(msrs->entries[0]));
	int done;

	if (!msrs)
		return error_set(err, ENOMEM, "out of memory");
	if (!n)
		return 0;
	msrs->nmsrs = (uint32_t)n;
	for (size_t i = 0; i < n; i++)
		msrs->entries[i].index = number(modifiers[i].addr);
	done = ioctl(vcpu_fd, KVM_GET_MSRS, msrs);
	if (done >= 0 && (size_t)done < n)
		return refuse_msr(modifiers, done, "does not have", err);
	for (size_t i = 0; i < n; i++)
		msrs->entries[i].data = change(msrs->entries[i].data, modifiers[i].bitmap, 64);
	if (done >= 0)
		done = ioctl(vcpu_fd, KVM_SET_MSRS, msrs);
	if (done >= 0 && (size_t)done < n)
		return refuse_msr(modifiers, done, "does not take this for", err);
	return done < 0 ? error_set_errno(err, errno, "KVM does not take a template's MSRs") : 0;
}
