/* A custom CPU template as its author writes it, in Firecracker's language: `cpu-config` of the configuration. What is read
 * here is well formed; whether this host's KVM can give it is found out by whoever applies it (vmm/cpu_template.h). */
#ifndef HULL_VMM_CONFIG_CPU_H
#define HULL_VMM_CONFIG_CPU_H

#include "common/json.h"

#define CONFIG_CPU_LEAVES_MAX 256 /* as many as KVM takes of each */
#define CONFIG_CPU_MSRS_MAX   256

enum config_register { CONFIG_EAX, CONFIG_EBX, CONFIG_ECX, CONFIG_EDX };

struct config_cpuid_register {
	int reg; /* enum config_register */
	char *bitmap;
};

struct config_cpuid_leaf {
	char *leaf, *subleaf;
	int64_t flags;		     /* KVM's own of that leaf count: they are read, and of no effect */
	struct json_array modifiers; /* struct config_cpuid_register */
};

struct config_msr {
	char *addr, *bitmap;
};

struct config_cpu {
	struct json_strings kvm_capabilities; /* "171": must be there; "!171": is not asked for */
	struct json_array cpuid_modifiers;    /* struct config_cpuid_leaf */
	struct json_array msr_modifiers;      /* struct config_msr */
};

extern const struct json_table config_cpu_table; /* of struct config_cpu */

/* What becomes of a register: the bits of `mask` are those of `value`, the others stay. */
struct config_bits {
	uint64_t mask, value;
};

/* "0x1a", "0b11010" or "26", of 32 bits. */
bool config_parse_number(const char *text, uint32_t *ret);
/* "0b01x": the highest bit first, x for one that stays, as do those before that are left out; '_' anywhere behind "0b", without
 * which "0x1" would be read too. `width` bits at most, 64 or fewer, and one at least. */
bool config_parse_bits(const char *text, unsigned width, struct config_bits *ret);

/* Where the configuration file's `cpu-config` is a path, as Firecracker has it, what is in that file takes its place. 0, or
 * -errno with `err` naming the field. */
int config_cpu_follow_path(json_t *config, struct error *err);

#endif
