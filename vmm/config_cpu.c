/* The CPU template's field tables, and the numbers and bitmaps in its strings. */
#include "vmm/config_cpu.h"

#include "common/buf.h"
#include "common/cleanup.h"
#include "vmm/config.h"

#include <errno.h>
#include <string.h>

/* The digit's value; `base` or more when it is none. */
static unsigned digit(char c, unsigned base)
{
	if (c >= '0' && c <= '9')
		return (unsigned)(c - '0');
	if (c >= 'a' && c <= 'f')
		return (unsigned)(c - 'a') + 10;
	if (c >= 'A' && c <= 'F')
		return (unsigned)(c - 'A') + 10;
	return base;
}

bool config_parse_number(const char *text, uint32_t *ret)
{
	unsigned base = strncmp(text, "0x", 2) == 0 ? 16 : strncmp(text, "0b", 2) == 0 ? 2 : 10;
	uint32_t number = 0;

	if (base != 10)
		text += 2;
	if (!*text)
		return false;
	for (; *text; text++)
		if (digit(*text, base) >= base || !checked_mul(number, base, &number) ||
			!checked_add(number, digit(*text, base), &number))
			return false;
	*ret = number;
	return true;
}

bool config_parse_bits(const char *text, unsigned width, struct config_bits *ret)
{
	struct config_bits bits = {0};
	unsigned n = 0;

	if (strncmp(text, "0b", 2) != 0)
		return false;
	for (text += 2; *text; text++) {
		if (*text == '_')
			continue;
		if (n++ == width || !strchr("01x", *text))
			return false;
		bits.mask = bits.mask << 1 | (*text != 'x');
		bits.value = bits.value << 1 | (*text == '1');
	}
	*ret = bits;
	return n > 0;
}

static int check_number(const char *value, struct error *err)
{
	uint32_t ignored;

	if (config_parse_number(value, &ignored))
		return 0;
	return error_set(err, EINVAL, "must be a number of 32 bits, as 0x1a, 0b11010 or 26");
}

static int check_bits(const char *value, unsigned width, struct error *err)
{
	struct config_bits ignored;

	if (config_parse_bits(value, width, &ignored))
		return 0;
	return error_set(err, EINVAL, "must be 1 to %u of 0, 1 and x behind 0b, the highest bit first", width);
}

static int check_bits32(const char *value, struct error *err)
{
	return check_bits(value, 32, err);
}

static int check_bits64(const char *value, struct error *err)
{
	return check_bits(value, 64, err);
}

static int check_capability(const char *value, struct error *err)
{
	uint32_t ignored;
	const char *number = value + (*value == '!');

	if (digit(*number, 10) < 10 && strspn(number, "0123456789") == strlen(number) &&
		config_parse_number(number, &ignored))
		return 0;
	return error_set(err, EINVAL, "must be the number of a KVM capability, with a ! before one to do without");
}

static const char *const register_names[] = {
	[CONFIG_EAX] = "eax", [CONFIG_EBX] = "ebx", [CONFIG_ECX] = "ecx", [CONFIG_EDX] = "edx", NULL};

static const struct json_field register_fields[] = {
	{"register", JSON_FIELD_ENUM, offsetof(struct config_cpuid_register, reg), .required = true,
		.names = register_names},
	{"bitmap", JSON_FIELD_STRING, offsetof(struct config_cpuid_register, bitmap), .required = true,
		.check = check_bits32},
};
static const struct json_table register_table =
	JSON_TABLE("CpuidRegisterModifier", struct config_cpuid_register, register_fields);

#define LEAF(member) offsetof(struct config_cpuid_leaf, member)
static const struct json_field leaf_fields[] = {
	{"leaf", JSON_FIELD_STRING, LEAF(leaf), .required = true, .check = check_number},
	{"subleaf", JSON_FIELD_STRING, LEAF(subleaf), .required = true, .check = check_number},
	{"flags", JSON_FIELD_INT, LEAF(flags), .required = true, .max = 7,
		.help = "KVM's flags of that leaf, which are in effect whatever stands here"},
	{"modifiers", JSON_FIELD_ARRAY, LEAF(modifiers), .required = true, .table = &register_table},
};
static const struct json_table leaf_table =
	JSON_TABLE("CpuidLeafModifier", struct config_cpuid_leaf, leaf_fields);

static const struct json_field msr_fields[] = {
	{"addr", JSON_FIELD_STRING, offsetof(struct config_msr, addr), .required = true, .check = check_number},
	{"bitmap", JSON_FIELD_STRING, offsetof(struct config_msr, bitmap), .required = true,
		.check = check_bits64},
};
static const struct json_table msr_table = JSON_TABLE("MsrModifier", struct config_msr, msr_fields);

static const struct json_field cpu_fields[] = {
	{"kvm_capabilities", JSON_FIELD_STRINGS, offsetof(struct config_cpu, kvm_capabilities),
		.check = check_capability, .help = "KVM must have these; those with a ! are not asked for"},
	{"cpuid_modifiers", JSON_FIELD_ARRAY, offsetof(struct config_cpu, cpuid_modifiers),
		.max = CONFIG_CPU_LEAVES_MAX, .table = &leaf_table},
	{"msr_modifiers", JSON_FIELD_ARRAY, offsetof(struct config_cpu, msr_modifiers),
		.max = CONFIG_CPU_MSRS_MAX, .table = &msr_table},
};
const struct json_table config_cpu_table = JSON_TABLE("CpuConfig", struct config_cpu, cpu_fields);

static json_t *read_template(const char *path, struct error *err)
{
	json_t *template = NULL;
	struct buf text;
	int r;

	buf_init(&text, CONFIG_FILE_MAX);
	r = buf_read_file(&text, path);
	if (r == -EFBIG)
		error_set(err, EFBIG, "%s has more than %u bytes", path, CONFIG_FILE_MAX);
	else if (r < 0)
		error_set(err, -r, "%s: %s", path, strerror(-r));
	else
		template = json_parse(text.data ? text.data : "", text.len, err);
	buf_done(&text);
	return template;
}

int config_cpu_follow_path(json_t *config, struct error *err)
{
	const json_t *path = json_object_get(config, "cpu-config");
	json_t *template;

	if (!json_is_string(path))
		return 0;
	template = read_template(json_string_value(path), err);
	if (!template) {
		error_in_field(err, "cpu-config");
		return -EINVAL;
	}
	json_object_set_new(config, "cpu-config", template);
	return 0;
}
