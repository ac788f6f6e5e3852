/* A custom CPU template: what is well formed, what becomes of a register, and the registers that a guest reaches at all. */
#include "tests/unit/test.h"
#include "common/checked.h"
#include "vmm/config.h"
#include "vmm/config_cpu.h"
#include "vmm/cpu_template.h"
#include "vmm/msr_filter.h"

#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

static void test_numbers(void **state)
{
	static const char *const wrong[] = {"", "0x", "0b", "-1", "+1", " 1", "1 ", "0x1g", "0b12", "12a", "0X1",
		"4294967296", "0x100000000", "0b111111111111111111111111111111111", "1_000"};
	uint32_t n;

	(void)state;
	assert_true(config_parse_number("0x8000001e", &n));
	assert_int_equal(n, 0x8000001e);
	assert_true(config_parse_number("0xFFFFffff", &n));
	assert_int_equal(n, UINT32_MAX);
	assert_true(config_parse_number("0b1000101", &n));
	assert_int_equal(n, 69);
	assert_true(config_parse_number("4294967295", &n));
	assert_int_equal(n, UINT32_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		if (config_parse_number(wrong[i], &n))
			fail_msg("\"%s\" is taken", wrong[i]);
}

static void test_bitmaps(void **state)
{
	static const char *const wrong[] = {"", "0b", "0b_", "0b2", "0bX", "0x1", "01x", "0b 1", "0bxxxx_xxxx_x"};
	struct config_bits bits;

	(void)state;
	assert_true(config_parse_bits("0b0101xxxx", 8, &bits));
	assert_int_equal(bits.mask, 0xf0);
	assert_int_equal(bits.value, 0x50);
	assert_true(config_parse_bits("0b_1_0x_", 8, &bits)); /* what is left out stays */
	assert_int_equal(bits.mask, 6);
	assert_int_equal(bits.value, 4);
	assert_true(config_parse_bits("0b1111111111111111111111111111111111111111111111111111111111111111", 64, &bits));
	assert_true(bits.mask == UINT64_MAX && bits.value == UINT64_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		if (config_parse_bits(wrong[i], 8, &bits))
			fail_msg("\"%s\" is taken", wrong[i]);
}

static int read_template(const char *text, struct config_cpu *ret, struct error *err)
{
	json_t *json = json_parse(text, strlen(text), err);
	int r;

	assert_non_null(json);
	*err = (struct error){0};
	r = json_read(&config_cpu_table, json, ret, err);
	json_decref(json);
	return r;
}

static void test_each_field_is_checked(void **state)
{
#define LEAF(text) "{\"cpuid_modifiers\":[" text "]}"
#define REGISTER(text) LEAF("{\"leaf\":\"1\",\"subleaf\":\"0\",\"flags\":0,\"modifiers\":[" text "]}")
#define MSR(text) "{\"msr_modifiers\":[" text "]}"
	static const struct {
		const char *text, *field, *reason;
	} wrong[] = {
		{"[]", "", "must be an object"},
		{"{\"reg_modifiers\":[]}", "reg_modifiers", "unknown field"},
		{"{\"kvm_capabilities\":[171]}", "kvm_capabilities[0]", "must be a string"},
		{"{\"kvm_capabilities\":[\"1\",\"!\"]}", "kvm_capabilities[1]", "number of a KVM capability"},
		{"{\"kvm_capabilities\":[\"!!1\"]}", "kvm_capabilities[0]", "number of a KVM capability"},
		{"{\"kvm_capabilities\":[\"0x1\"]}", "kvm_capabilities[0]", "number of a KVM capability"},
		{"{\"cpuid_modifiers\":{}}", "cpuid_modifiers", "must be an array"},
		{LEAF("{}"), "cpuid_modifiers[0].leaf", "is required"},
		{LEAF("{\"leaf\":\"0x\",\"subleaf\":\"0\",\"flags\":0,\"modifiers\":[]}"), "cpuid_modifiers[0].leaf",
			"number of 32 bits"},
		{LEAF("{\"leaf\":\"1\",\"subleaf\":\"z\",\"flags\":0,\"modifiers\":[]}"),
			"cpuid_modifiers[0].subleaf", "number of 32 bits"},
		{LEAF("{\"leaf\":\"1\",\"subleaf\":\"0\",\"flags\":8,\"modifiers\":[]}"),
			"cpuid_modifiers[0].flags", "must be 0 to 7"},
		{LEAF("{\"leaf\":\"1\",\"subleaf\":\"0\",\"flags\":0}"), "cpuid_modifiers[0].modifiers", "is required"},
		{REGISTER("{\"register\":\"rax\",\"bitmap\":\"0b1\"}"), "cpuid_modifiers[0].modifiers[0].register",
			"must be one of eax, ebx, ecx, edx"},
		{REGISTER("{\"register\":\"eax\"}"), "cpuid_modifiers[0].modifiers[0].bitmap", "is required"},
		{REGISTER("{\"register\":\"eax\",\"bitmap\":\"0b1_0000_0000_0000_0000_0000_0000_0000_0000\"}"),
			"cpuid_modifiers[0].modifiers[0].bitmap", "1 to 32 of 0, 1 and x"},
		{MSR("{\"addr\":\"0x10a\"}"), "msr_modifiers[0].bitmap", "is required"},
		{MSR("{\"bitmap\":\"0b1\"}"), "msr_modifiers[0].addr", "is required"},
		{MSR("{\"addr\":\"0x10a\",\"bitmap\":\"0b3\"}"), "msr_modifiers[0].bitmap", "1 to 64 of 0, 1 and x"},
	};
	struct config_cpu template;
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_true(read_template(wrong[i].text, &template, &err) < 0);
		assert_string_equal(err.field, wrong[i].field);
		if (!strstr(err.message, wrong[i].reason))
			fail_msg("\"%s\" says nothing of \"%s\"", err.message, wrong[i].reason);
	}
	assert_int_equal(read_template("{}", &template, &err), 0);
	json_done(&config_cpu_table, &template);
}

static void test_registers_are_changed_bit_by_bit(void **state)
{
	static const struct kvm_cpuid_entry2 offer[] = {{0, 0, 0, 0x10, 1, 2, 3}, {1, 0, 0, 0xff, 0xff, 0xff, 0xff},
		{7, 0, 1, 0, 0xf0, 0, 0}, {7, 1, 1, 0, 0xf0, 0, 0}};
	struct kvm_cpuid2 *table = calloc(1, sizeof(*table) + sizeof(offer));
	const struct kvm_cpuid_entry2 *e = table->entries;
	struct config_cpu template;
	struct error err = {0};

	(void)state;
	table->nent = ARRAY_SIZE(offer);
	memcpy(table->entries, offer, sizeof(offer));
	assert_int_equal(
		read_template("{\"cpuid_modifiers\":["
			      "{\"leaf\":\"0x0\",\"subleaf\":\"0x0\",\"flags\":0,\"modifiers\":["
			      "{\"register\":\"eax\",\"bitmap\":\"0b01101\"},{\"register\":\"ebx\",\"bitmap\":\"0b0\"}]},"
			      "{\"leaf\":\"0x1\",\"subleaf\":\"0x0\",\"flags\":1,\"modifiers\":["
			      "{\"register\":\"ecx\",\"bitmap\":\"0b01xx_xxx0\"},{\"register\":\"edx\",\"bitmap\":\"0b0\"}]},"
			      "{\"leaf\":\"0x7\",\"subleaf\":\"0x1\",\"flags\":1,\"modifiers\":["
			      "{\"register\":\"ebx\",\"bitmap\":\"0b1xxxxx1\"}]}]}",
			&template, &err),
		0);
	assert_int_equal(cpu_template_apply(&template, table, &err), 0);
	json_done(&config_cpu_table, &template);
	assert_int_equal(e[0].eax, 0xd);
	assert_int_equal(e[0].ebx, 1); /* the vendor stays */
	assert_int_equal(e[1].eax, 0xff);
	assert_int_equal(e[1].ecx, 0x7e);
	assert_int_equal(e[1].edx, 0xfe);
	assert_int_equal(e[1].flags, 0); /* KVM's own flags too */
	assert_int_equal(e[2].ebx, 0xf0);
	assert_int_equal(e[3].ebx, 0xf1);

	assert_int_equal(read_template("{\"cpuid_modifiers\":[{\"leaf\":\"0x7\",\"subleaf\":\"0x2\",\"flags\":1,"
				       "\"modifiers\":[]}]}", &template, &err), 0);
	assert_true(cpu_template_apply(&template, table, &err) < 0);
	assert_string_equal(err.field, "cpu-config.cpuid_modifiers[0].leaf");
	assert_non_null(strstr(err.message, "offers no leaf 0x7 with subleaf 0x2"));
	json_done(&config_cpu_table, &template);
	assert_int_equal(cpu_template_apply(NULL, table, &err), 0);
	free(table);
}

static void test_capabilities(void **state)
{
	struct config_cpu template;
	struct error err = {0};

	(void)state;
	assert_int_equal(read_template("{\"kvm_capabilities\":[\"!189\",\"56\"]}", &template, &err), 0);
	assert_true(cpu_template_waives(&template, 189));
	assert_false(cpu_template_waives(&template, 56));
	assert_false(cpu_template_waives(NULL, 189));
	assert_true(cpu_template_check(&template, -1, &err) < 0); /* a KVM that has none */
	assert_string_equal(err.field, "cpu-config.kvm_capabilities[1]");
	assert_int_equal(cpu_template_check(NULL, -1, &err), 0);
	json_done(&config_cpu_table, &template);
}

#define BOOT "{\"boot-source\":{\"kernel_image_path\":\"/k\"},\"cpu-config\":"

static void test_in_the_configuration_it_is_there_or_named_by_a_path(void **state)
{
	char path[] = "/tmp/cpu_template.XXXXXX", text[256];
	struct config config;
	struct error err = {0};
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "{\"kvm_capabilities\":[\"1\"]}", 26), 26);
	snprintf(text, sizeof(text), BOOT "\"%s\"}", path);
	assert_int_equal(config_parse(text, strlen(text), &config, &err), 0);
	assert_int_equal(config.cpu->kvm_capabilities.len, 1);
	config_done(&config);
	assert_int_equal(write(fd, "!", 1), 1);
	assert_true(config_parse(text, strlen(text), &config, &err) < 0);
	assert_string_equal(err.field, "cpu-config");
	assert_non_null(strstr(err.message, "not valid JSON"));
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(pwrite(fd, "\"/k\"", 4, 0), 4); /* no path to a path */
	assert_true(config_parse(text, strlen(text), &config, &err) < 0);
	assert_non_null(strstr(err.message, "must be an object"));
	unlink(path);
	close(fd);
	assert_true(config_parse(text, strlen(text), &config, &err) < 0);
	assert_string_equal(err.field, "cpu-config");
	assert_non_null(strstr(err.message, "No such file"));

	strcpy(text, BOOT "{\"kvm_capabilities\":[\"x\"]}}");
	assert_true(config_parse(text, strlen(text), &config, &err) < 0);
	assert_string_equal(err.field, "cpu-config.kvm_capabilities[0]");
}

static void test_the_registers_that_a_guest_reaches(void **state)
{
	static const uint32_t yes[] = {0x10, 0x1b, 0x8b, 0x10a, 0x277, 0x2ff, 0x6e0, 0x4b564d00, 0x4b564d08, 0xc0000080,
		0xc0000103, 0xc0010015, 0xc0011029};
	/* Counters, VMX, SVM, Hyper-V, Xen, trace, SEV, system management, and what is nobody's. */
	static const uint32_t no[] = {0xc1, 0x186, 0x345, 0x38f, 0x480, 0x491, 0x560, 0x570, 0x9e, 0x40000000, 0x40000105,
		0x40000200, 0x4b564d09, 0xc0000104, 0xc0000300, 0xc0010000, 0xc0010114, 0xc0010117, 0xc0010131,
		0xc0010200, 0xc0011030, 0x1000, 0xffffffff, 0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(yes); i++)
		if (!msr_filter_allows(yes[i]))
			fail_msg("%#x is refused", yes[i]);
	for (size_t i = 0; i < ARRAY_SIZE(no); i++)
		if (msr_filter_allows(no[i]))
			fail_msg("%#x is let through", no[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_bitmaps),
		cmocka_unit_test(test_each_field_is_checked),
		cmocka_unit_test(test_registers_are_changed_bit_by_bit),
		cmocka_unit_test(test_capabilities),
		cmocka_unit_test(test_in_the_configuration_it_is_there_or_named_by_a_path),
		cmocka_unit_test(test_the_registers_that_a_guest_reaches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
