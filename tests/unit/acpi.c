/* ACPI: tables that add up and point at each other; where iasl is installed, ACPICA's own opinion of them. */
#include "vmm/acpi.h"

#include "common/cleanup.h"
#include "tests/unit/test.h"
#include "vmm/aml.h"
#include "vmm/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY 0x100000ul

struct fixture {
	struct gmem mem;
	uint8_t *ram;
	struct acpi_virtio virtio[LAYOUT_VIRTIO_MAX];
	struct acpi_config config;
	struct error err;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->ram = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_int_equal(gmem_add(&f->mem, 0, MEMORY, f->ram), 0);
	for (unsigned i = 0; i < LAYOUT_VIRTIO_MAX; i++)
		f->virtio[i] = (struct acpi_virtio){LAYOUT_VIRTIO_MMIO + i * 0x1000, LAYOUT_GSI_VIRTIO + i};
	f->config = (struct acpi_config){.n_vcpus = 1, .virtio = f->virtio, .n_virtio = 2, .uart = true};
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	munmap(f->ram, MEMORY);
	free(f);
	return 0;
}

static uint64_t get(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	memcpy(&v, p, n);
	return v;
}

static void assert_sums_to_zero(const uint8_t *p, size_t len)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + p[i]);
	assert_int_equal(sum, 0);
}

/* The table at `gpa`, which must be sound and have this signature. */
static const uint8_t *table_at(const struct fixture *f, gpa_t gpa, const char *signature)
{
	const uint8_t *table = f->ram + gpa;

	assert_in_range(gpa, LAYOUT_ACPI, LAYOUT_ACPI_END - 1);
	assert_memory_equal(table, signature, 4);
	assert_sums_to_zero(table, get(table + 4, 4));
	return table;
}

static const uint8_t *find_table(const struct fixture *f, const char *signature)
{
	const uint8_t *xsdt = table_at(f, get(f->ram + LAYOUT_ACPI + 24, 8), "XSDT");

	for (size_t i = 36; i < get(xsdt + 4, 4); i += 8)
		if (!memcmp(f->ram + get(xsdt + i, 8), signature, 4))
			return table_at(f, get(xsdt + i, 8), signature);
	fail_msg("no %s", signature);
	return NULL;
}

static const uint8_t *find_dsdt(const struct fixture *f)
{
	return table_at(f, get(find_table(f, "FACP") + 140, 8), "DSDT");
}

static void build(struct fixture *f)
{
	gpa_t rsdp = 0;

	assert_int_equal(acpi_build(&f->config, &f->mem, &rsdp, &f->err), 0);
	assert_int_equal(rsdp, LAYOUT_ACPI);
}

static void rsdp_leads_to_every_table(void **state)
{
	struct fixture *f = *state;

	build(f);
	assert_memory_equal(f->ram + LAYOUT_ACPI, "RSD PTR ", 8);
	assert_sums_to_zero(f->ram + LAYOUT_ACPI, 20);
	assert_sums_to_zero(f->ram + LAYOUT_ACPI, 36);
	find_table(f, "FACP");
	find_table(f, "APIC");
	find_dsdt(f);
}

static void fadt_describes_hardware_reduced_acpi(void **state)
{
	struct fixture *f = *state;
	const uint8_t *fadt;
	uint32_t flags;

	build(f);
	fadt = find_table(f, "FACP");
	flags = (uint32_t)get(fadt + 112, 4);
	assert_true(flags & 1u << 20); /* HW_REDUCED_ACPI */
	assert_true(flags & 1u << 10); /* RESET_REG_SUP */
	assert_int_equal(get(fadt + 109, 2), 1 | 2 | 4 | 32); /* ISA, 8042, no VGA, no CMOS clock */
	/* RESET_REG, SLEEP_CONTROL_REG, SLEEP_STATUS_REG */
	assert_int_equal(get(fadt + 120, 8), LAYOUT_PORT_ACPI_SLEEP + 2);
	assert_int_equal(fadt[128], 1);
	assert_int_equal(get(fadt + 248, 8), LAYOUT_PORT_ACPI_SLEEP);
	assert_int_equal(get(fadt + 260, 8), LAYOUT_PORT_ACPI_SLEEP + 1);
}

static void madt_has_every_processor_once(void **state)
{
	struct fixture *f = *state;
	const uint8_t *madt;
	unsigned lapics = 0, ioapics = 0;

	f->config.n_vcpus = 32;
	build(f);
	madt = find_table(f, "APIC");
	assert_int_equal(get(madt + 36, 4), LAYOUT_LAPIC);
	for (size_t i = 44; i < get(madt + 4, 4); i += madt[i + 1]) {
		assert_int_not_equal(madt[i + 1], 0);
		if (madt[i] == 0) {
			assert_int_equal(madt[i + 2], lapics);
			assert_int_equal(madt[i + 3], lapics);
			lapics++;
		} else if (madt[i] == 1) {
			assert_int_equal(get(madt + i + 4, 4), LAYOUT_IOAPIC);
			assert_int_equal(get(madt + i + 8, 4), 0);
			ioapics++;
		}
	}
	assert_int_equal(lapics, 32);
	assert_int_equal(ioapics, 1);
}

static bool dsdt_has(const struct fixture *f, const void *needle, size_t len)
{
	const uint8_t *dsdt = find_dsdt(f);

	return memmem(dsdt, get(dsdt + 4, 4), needle, len);
}

static void dsdt_lists_what_the_machine_has(void **state)
{
	static const uint8_t pnp0501[] = {0x41, 0xd0, 0x05, 0x01};
	/* Memory32Fixed (ReadWrite, 0xd0001000, 0x1000) and an edge-triggered, active-high, exclusive interrupt 6. */
	static const uint8_t second_device[] = {0x86, 9, 0, 1, 0, 0x10, 0, 0xd0, 0, 0x10, 0, 0, 0x89, 6, 0, 3, 1, 6};
	struct fixture *f = *state;

	build(f);
	assert_true(dsdt_has(f, "VR01", 4));
	assert_false(dsdt_has(f, "VR02", 4));
	assert_true(dsdt_has(f, second_device, sizeof(second_device)));
	assert_true(dsdt_has(f, pnp0501, sizeof(pnp0501)));
	assert_true(dsdt_has(f, "QEMU0001", 8));
	assert_true(dsdt_has(f, "ACPI0013", 8));
	assert_true(dsdt_has(f, "VMGENCTR", 8));
	assert_true(dsdt_has(f, "\\_S5_", 5));

	f->config.uart = false;
	f->config.n_virtio = 0;
	build(f);
	assert_false(dsdt_has(f, "VR00", 4));
	assert_false(dsdt_has(f, pnp0501, sizeof(pnp0501)));
}

/* Beside the tables, and never twice the same. */
static void each_generation_is_another(void **state)
{
	struct fixture *f = *state;
	uint8_t first[16], zeroes[16] = {0};

	assert_int_equal(acpi_write_generation(&f->mem, &f->err), 0);
	memcpy(first, f->ram + LAYOUT_VM_GENERATION, sizeof(first));
	assert_memory_not_equal(first, zeroes, sizeof(first));
	assert_int_equal(acpi_write_generation(&f->mem, &f->err), 0);
	assert_memory_not_equal(first, f->ram + LAYOUT_VM_GENERATION, sizeof(first));
	f->mem.regions[0].size_bytes = LAYOUT_VM_GENERATION;
	assert_int_equal(acpi_write_generation(&f->mem, &f->err), -EFAULT);
}

static void impossible_machines_are_refused(void **state)
{
	struct fixture *f = *state;
	gpa_t rsdp = 42;

	f->config.n_vcpus = 0;
	assert_int_equal(acpi_build(&f->config, &f->mem, &rsdp, &f->err), -EINVAL);
	assert_string_equal(f->err.field, "vcpu_count");
	f->config.n_vcpus = ACPI_VCPUS_MAX + 1;
	assert_int_equal(acpi_build(&f->config, &f->mem, &rsdp, &f->err), -EINVAL);
	f->config.n_vcpus = 1;
	f->config.n_virtio = LAYOUT_VIRTIO_MAX + 1;
	assert_int_equal(acpi_build(&f->config, &f->mem, &rsdp, &f->err), -EINVAL);
	f->config.n_virtio = 1;
	f->virtio[0].base = 0x100000000;
	assert_int_equal(acpi_build(&f->config, &f->mem, &rsdp, &f->err), -EINVAL);
	f->virtio[0].base = LAYOUT_VIRTIO_MMIO;
	f->mem.regions[0].size_bytes = LAYOUT_ACPI + 100;
	assert_int_equal(acpi_build(&f->config, &f->mem, &rsdp, &f->err), -EFAULT);
	assert_string_equal(f->err.field, "mem_size_mib");
	assert_int_equal(rsdp, 42);
}

/* 20.2.4: one byte to 63, two to 4095, three beyond; the length counts itself. */
static void package_lengths_take_the_bytes_they_need(void **state)
{
	static const struct {
		size_t content;
		uint8_t encoded[3];
		size_t n;
	} cases[] = {
		{62, {0x3f}, 1},
		{63, {0x41, 0x04}, 2},
		{4093, {0x4f, 0xff}, 2},
		{4094, {0x81, 0x00, 0x01}, 3},
	};
	uint8_t data[8192];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct aml aml;
		size_t mark;
		char text[4096];

		/* A scope (its name: 4 bytes) that holds one named string: 1 + 4 + 1 + text + 1. */
		memset(text, 'a', sizeof(text));
		text[cases[i].content - 4 - 7] = '\0';
		aml_init(&aml, data, sizeof(data));
		mark = aml_begin_scope(&aml, "TEST");
		aml_name_string(&aml, "TEXT", text);
		assert_int_equal(aml.len - mark, cases[i].content);
		aml_end(&aml, mark);
		assert_false(aml.overflow);
		assert_memory_equal(data + 1, cases[i].encoded, cases[i].n);
		assert_memory_equal(data + 1 + cases[i].n, "TEST", 4);
	}
}

static void a_full_buffer_is_reported_and_not_passed(void **state)
{
	uint8_t data[32];

	(void)state;
	memset(data, 0xee, sizeof(data));
	for (size_t size = 0; size < 20; size++) {
		struct aml aml;
		size_t mark;

		aml_init(&aml, data, size);
		mark = aml_begin_device(&aml, "DEV0");
		aml_name_eisa_id(&aml, "_HID", "PNP0C0C");
		aml_end(&aml, mark);
		/* 2 + 1 + 4 for the device, 1 + 4 + 5 for the name. */
		assert_int_equal(aml.overflow, size < 17);
		assert_int_equal(data[size], 0xee);
		memset(data, 0xee, sizeof(data));
	}
}

static void write_table(const uint8_t *table, const char *dir, const char *name)
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(table, get(table + 4, 4), 1, file), 1);
	assert_int_equal(fclose(file), 0);
}

/* Runs `command` and returns what it printed. */
static char *output_of(const char *command, char *buf, size_t size)
{
	FILE *pipe = popen(command, "r");
	size_t n = fread(buf, 1, size - 1, pipe);

	buf[n] = '\0';
	if (pclose(pipe) != 0)
		fail_msg("%s: %s", command, buf);
	return buf;
}

/* Where a name is first used after `at`: within what 31 slots take. */
static const uint8_t *next_use(const uint8_t *at, const char *name)
{
	const uint8_t *found = memmem(at, 1200, name, strlen(name));

	assert_non_null(found);
	return found;
}

static void a_pci_bus_is_described_where_it_is(void **state)
{
	struct fixture *f = *state;
	const uint8_t *mcfg, *dsdt, *slots_changed;

	f->config.pci = true;
	build(f);
	mcfg = find_table(f, "MCFG");
	assert_int_equal(get(mcfg + 4, 4), 60);
	assert_int_equal(get(mcfg + 44, 8), LAYOUT_PCI_ECAM);
	assert_int_equal(get(mcfg + 54, 2), 0); /* bus 0 only */
	dsdt = find_dsdt(f);
	assert_non_null(memmem(dsdt, get(dsdt + 4, 4), "PCI0", 4));
	assert_non_null(memmem(dsdt, get(dsdt + 4, 4), "S31_", 4));
	/* A slot is first asked for what it had, and then looked at for what it has. */
	slots_changed = memmem(dsdt, get(dsdt + 4, 4), "PCHG", 4);
	assert_non_null(slots_changed);
	assert_true(next_use(slots_changed, "ASKD") < next_use(slots_changed, "PLGD"));
	f->config.pci = false;
	build(f);
	dsdt = find_dsdt(f);
	assert_null(memmem(dsdt, get(dsdt + 4, 4), "PCI0", 4));
}

static void iasl_has_nothing_to_say(void **state)
{
	struct fixture *f = *state;
	char dir[] = "/tmp/hull-acpi-XXXXXX", command[256], out[16384];

	if (system("command -v iasl >/dev/null 2>&1") != 0)
		skip();
	f->config.n_vcpus = 32;
	f->config.n_virtio = LAYOUT_VIRTIO_MAX;
	f->config.pci = true;
	build(f);
	assert_non_null(mkdtemp(dir));
	write_table(find_table(f, "FACP"), dir, "facp");
	write_table(find_table(f, "APIC"), dir, "apic");
	write_table(find_table(f, "MCFG"), dir, "mcfg");
	write_table(find_dsdt(f), dir, "dsdt");
	snprintf(command, sizeof(command), "cd %s && iasl -d facp.aml apic.aml mcfg.aml dsdt.aml 2>&1", dir);
	output_of(command, out, sizeof(out));
	if (strcasestr(out, "warning") || strcasestr(out, "error") || strcasestr(out, "invalid"))
		fail_msg("%s", out);
	/* What it took apart it must be able to put together again. */
	snprintf(command, sizeof(command), "cd %s && iasl -we dsdt.dsl 2>&1", dir);
	if (!strstr(output_of(command, out, sizeof(out)), "0 Errors, 0 Warnings"))
		fail_msg("%s", out);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	assert_int_equal(system(command), 0);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(rsdp_leads_to_every_table),
		CASE(fadt_describes_hardware_reduced_acpi),
		CASE(madt_has_every_processor_once),
		CASE(dsdt_lists_what_the_machine_has),
		CASE(impossible_machines_are_refused),
		CASE(each_generation_is_another),
		CASE(package_lengths_take_the_bytes_they_need),
		CASE(a_full_buffer_is_reported_and_not_passed),
		CASE(a_pci_bus_is_described_where_it_is),
		CASE(iasl_has_nothing_to_say),
	};

	return cmocka_run_group_tests_name("acpi", tests, NULL, NULL);
}
