/* CPUID: whether a guest that was shown one processor can go on with another. */
#include "vmm/cpuid.h"

#include "common/checked.h"

#include <errno.h>
#include <linux/kvm.h>

#define BIT(n) (1u << (n))

enum { EAX, EBX, ECX, EDX };

static const char register_names[][4] = {"EAX", "EBX", "ECX", "EDX"};

/* The words that are features, a bit each, which software may use once it has seen them. */
static const struct word {
	uint32_t leaf, subleaf;
	unsigned reg;
	uint32_t ignored; /* KVM makes these of what the guest has set, or of what the monitor is */
} words[] = {
	{0x1, 0, ECX, BIT(24) | BIT(27) | BIT(31)}, /* TSC deadline, which KVM's offer never has; OSXSAVE; hypervisor */
	{0x1, 0, EDX, BIT(9) | BIT(28)},	    /* APIC, HTT */
	{0x7, 0, EBX, 0},
	{0x7, 0, ECX, BIT(4)}, /* OSPKE */
	{0x7, 0, EDX, 0},
	{0x7, 1, EAX, 0},
	{0x7, 1, EDX, 0},
	{0xd, 0, EAX, 0}, /* state components */
	{0xd, 0, EDX, 0},
	{0xd, 1, EAX, 0},
	{0x80000001, 0, ECX, BIT(1) | BIT(22)}, /* CMP_LEGACY, TOPOEXT */
	{0x80000001, 0, EDX, 0},
	{0x80000008, 0, EBX, 0},
	{0x80000021, 0, EAX, 0},
	{0x40000001, 0, EAX, 0}, /* KVM's own */
};

/* The names that Linux shows, of what hosts of one fleet differ by. */
static const struct {
	uint32_t leaf, subleaf;
	unsigned reg, bit;
	const char *name;
} names[] = {
	{0x1, 0, ECX, 0, "sse3"}, {0x1, 0, ECX, 1, "pclmulqdq"}, {0x1, 0, ECX, 9, "ssse3"}, {0x1, 0, ECX, 12, "fma"},
	{0x1, 0, ECX, 13, "cx16"}, {0x1, 0, ECX, 17, "pcid"}, {0x1, 0, ECX, 19, "sse4_1"}, {0x1, 0, ECX, 20, "sse4_2"},
	{0x1, 0, ECX, 21, "x2apic"}, {0x1, 0, ECX, 22, "movbe"}, {0x1, 0, ECX, 23, "popcnt"}, {0x1, 0, ECX, 25, "aes"},
	{0x1, 0, ECX, 26, "xsave"}, {0x1, 0, ECX, 28, "avx"}, {0x1, 0, ECX, 29, "f16c"}, {0x1, 0, ECX, 30, "rdrand"},
	{0x7, 0, EBX, 0, "fsgsbase"}, {0x7, 0, EBX, 1, "tsc_adjust"}, {0x7, 0, EBX, 3, "bmi1"}, {0x7, 0, EBX, 4, "hle"},
	{0x7, 0, EBX, 5, "avx2"}, {0x7, 0, EBX, 7, "smep"}, {0x7, 0, EBX, 8, "bmi2"}, {0x7, 0, EBX, 9, "erms"},
	{0x7, 0, EBX, 10, "invpcid"}, {0x7, 0, EBX, 11, "rtm"}, {0x7, 0, EBX, 16, "avx512f"}, {0x7, 0, EBX, 17, "avx512dq"},
	{0x7, 0, EBX, 18, "rdseed"}, {0x7, 0, EBX, 19, "adx"}, {0x7, 0, EBX, 20, "smap"}, {0x7, 0, EBX, 21, "avx512ifma"},
	{0x7, 0, EBX, 23, "clflushopt"}, {0x7, 0, EBX, 24, "clwb"}, {0x7, 0, EBX, 28, "avx512cd"}, {0x7, 0, EBX, 29, "sha_ni"},
	{0x7, 0, EBX, 30, "avx512bw"}, {0x7, 0, EBX, 31, "avx512vl"}, {0x7, 0, ECX, 1, "avx512vbmi"}, {0x7, 0, ECX, 2, "umip"},
	{0x7, 0, ECX, 3, "pku"}, {0x7, 0, ECX, 6, "avx512_vbmi2"}, {0x7, 0, ECX, 7, "shstk"}, {0x7, 0, ECX, 8, "gfni"},
	{0x7, 0, ECX, 9, "vaes"}, {0x7, 0, ECX, 10, "vpclmulqdq"}, {0x7, 0, ECX, 11, "avx512_vnni"},
	{0x7, 0, ECX, 12, "avx512_bitalg"}, {0x7, 0, ECX, 14, "avx512_vpopcntdq"}, {0x7, 0, ECX, 16, "la57"},
	{0x7, 0, ECX, 22, "rdpid"}, {0x7, 0, ECX, 27, "movdiri"}, {0x7, 0, ECX, 28, "movdir64b"}, {0x7, 0, EDX, 4, "fsrm"},
	{0x7, 0, EDX, 10, "md_clear"}, {0x7, 0, EDX, 14, "serialize"}, {0x7, 0, EDX, 20, "ibt"}, {0x7, 0, EDX, 22, "amx_bf16"},
	{0x7, 0, EDX, 23, "avx512_fp16"}, {0x7, 0, EDX, 24, "amx_tile"}, {0x7, 0, EDX, 25, "amx_int8"},
	{0x7, 0, EDX, 26, "spec_ctrl"}, {0x7, 0, EDX, 27, "intel_stibp"}, {0x7, 0, EDX, 28, "flush_l1d"},
	{0x7, 0, EDX, 29, "arch_capabilities"}, {0x7, 0, EDX, 31, "spec_ctrl_ssbd"}, {0x7, 1, EAX, 4, "avx_vnni"},
	{0x7, 1, EAX, 5, "avx512_bf16"}, {0xd, 0, EAX, 2, "avx state"}, {0xd, 0, EAX, 9, "pku state"},
	{0xd, 1, EAX, 0, "xsaveopt"}, {0xd, 1, EAX, 1, "xsavec"}, {0xd, 1, EAX, 3, "xsaves"}, {0x80000001, 0, ECX, 5, "abm"},
	{0x80000001, 0, ECX, 6, "sse4a"}, {0x80000001, 0, ECX, 8, "3dnowprefetch"}, {0x80000001, 0, EDX, 20, "nx"},
	{0x80000001, 0, EDX, 26, "pdpe1gb"}, {0x80000001, 0, EDX, 27, "rdtscp"}, {0x80000008, 0, EBX, 0, "clzero"},
	{0x80000008, 0, EBX, 9, "wbnoinvd"}, {0x80000008, 0, EBX, 12, "ibpb"}, {0x80000008, 0, EBX, 14, "ibrs"},
	{0x80000008, 0, EBX, 15, "stibp"}, {0x80000008, 0, EBX, 24, "ssbd"}, {0x40000001, 0, EAX, 3, "kvmclock"},
	{0x40000001, 0, EAX, 5, "steal time"}, {0x40000001, 0, EAX, 24, "kvmclock, stable"},
};

static uint32_t read_word(const struct kvm_cpuid2 *cpuid, const struct word *word)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(cpuid, word->leaf, word->subleaf);

	return !e ? 0 : (const uint32_t[]){e->eax, e->ebx, e->ecx, e->edx}[word->reg];
}

static int refuse(const struct word *word, unsigned bit, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].leaf == word->leaf && names[i].subleaf == word->subleaf && names[i].reg == word->reg &&
			names[i].bit == bit)
			return error_set(err, ENOTSUP, "the guest was shown a processor with %s, which this host does not offer",
				names[i].name);
	return error_set(err, ENOTSUP, "the guest was shown a processor with bit %u of CPUID leaf %#x.%u, %s, which this host does not offer",
		bit, word->leaf, word->subleaf, register_names[word->reg]);
}

int cpuid_check_offered(const struct kvm_cpuid2 *shown, const struct kvm_cpuid2 *offered, struct error *err)
{
	if (cpuid_vendor(shown) != cpuid_vendor(offered))
		return error_set(err, ENOTSUP, "the guest was shown a processor of another maker");
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		uint32_t missing = read_word(shown, &words[i]) & ~read_word(offered, &words[i]) & ~words[i].ignored;

		if (missing)
			return refuse(&words[i], (unsigned)__builtin_ctz(missing), err);
	}
	return 0;
}
