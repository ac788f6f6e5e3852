/* The ACPI tables. Section numbers are ACPI 6.5's.
 *
 *	LAYOUT_ACPI  RSDP ──▶ XSDT ──▶ FADT ──▶ DSDT	(each on a 16-byte boundary, one behind the other)
 *			       ├────▶ MADT
 *			       └────▶ MCFG, with a PCI bus */
#include "vmm/acpi.h"

#include "common/checked.h"
#include "devices/acpi_pm.h"
#include "devices/pci.h"
#include "vmm/acpi_pci.h"
#include "vmm/aml.h"
#include "vmm/layout.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

_Static_assert(LAYOUT_PORT_GED == LAYOUT_PORT_ACPI_SLEEP + ACPI_PM_OFFSET_EVENTS, "the two are one device");

#define OEM_ID       "HULL  "
#define OEM_TABLE_ID "HULLVM  "
#define CREATOR_ID   "HULL"

#define TABLE_ALIGNMENT 16
#define TABLES_MAX	3 /* that the XSDT points to */
#define DSDT_BYTES_MAX  8192

#define UART_PORTS     8
#define IO_ACCESS_BYTE 1
#define SPACE_IO       1

#define VIRTIO_PAGE_BYTES 0x1000

struct acpi_rsdp { /* 5.2.5.3 */
	char signature[8];
	uint8_t checksum; /* of the first 20 bytes */
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt;
	uint32_t length;
	uint64_t xsdt;
	uint8_t extended_checksum;
	uint8_t reserved[3];
} __attribute__((packed));

struct acpi_header { /* 5.2.6 */
	char signature[4];
	uint32_t length;
	uint8_t revision;
	uint8_t checksum;
	char oem_id[6];
	char oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __attribute__((packed));

struct acpi_gas { /* 5.2.3.2, generic address structure */
	uint8_t space, bit_width, bit_offset, access_size;
	uint64_t address;
} __attribute__((packed));

struct acpi_xsdt {
	struct acpi_header header;
	uint64_t tables[TABLES_MAX];
} __attribute__((packed));

/* 5.2.9. What hardware-reduced ACPI ignores is left out of the names and stays 0. */
struct acpi_fadt {
	struct acpi_header header;
	uint32_t firmware_ctrl;
	uint32_t dsdt;
	uint8_t reserved1[65];
	uint16_t iapc_boot_arch; /* at 109 */
	uint8_t reserved2;
	uint32_t flags;
	struct acpi_gas reset_reg; /* at 116 */
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor_revision; /* at 131 */
	uint64_t x_firmware_ctrl;
	uint64_t x_dsdt; /* at 140 */
	struct acpi_gas ignored[8];
	struct acpi_gas sleep_control; /* at 244 */
	struct acpi_gas sleep_status;
	uint64_t hypervisor_vendor; /* at 268 */
} __attribute__((packed));

_Static_assert(sizeof(struct acpi_rsdp) == 36, "RSDP, 5.2.5.3");
_Static_assert(sizeof(struct acpi_header) == 36, "table header, 5.2.6");
_Static_assert(offsetof(struct acpi_fadt, iapc_boot_arch) == 109, "FADT, 5.2.9");
_Static_assert(offsetof(struct acpi_fadt, reset_reg) == 116, "FADT, 5.2.9");
_Static_assert(offsetof(struct acpi_fadt, x_dsdt) == 140, "FADT, 5.2.9");
_Static_assert(offsetof(struct acpi_fadt, sleep_control) == 244, "FADT, 5.2.9");
_Static_assert(sizeof(struct acpi_fadt) == 276, "FADT, 5.2.9");

/* FADT flags (5.2.9, table 5.10): WBINVD works; C1 works on every processor; buttons are devices, not fixed
 * hardware. */
#define FADT_WBINVD        (1u << 0)
#define FADT_PROC_C1       (1u << 2)
#define FADT_PWR_BUTTON    (1u << 4)
#define FADT_SLP_BUTTON    (1u << 5)
#define FADT_RESET_REG_SUP (1u << 10)
#define FADT_HW_REDUCED    (1u << 20)

/* IAPC_BOOT_ARCH (5.2.9.3) */
#define BOOT_ARCH_LEGACY_DEVICES (1u << 0)
#define BOOT_ARCH_8042           (1u << 1)
#define BOOT_ARCH_NO_VGA         (1u << 2)
#define BOOT_ARCH_NO_CMOS_RTC    (1u << 5)

struct acpi_madt { /* 5.2.12 */
	struct acpi_header header;
	uint32_t lapic_address;
	uint32_t flags; /* PCAT_COMPAT clear: no 8259 to be set up */
} __attribute__((packed));

struct madt_lapic { /* 5.2.12.2 */
	uint8_t type, length, processor_uid, apic_id;
	uint32_t flags;
} __attribute__((packed));

struct madt_ioapic { /* 5.2.12.3 */
	uint8_t type, length, id, reserved;
	uint32_t address, gsi_base;
} __attribute__((packed));

struct madt_lapic_nmi { /* 5.2.12.7 */
	uint8_t type, length, processor_uid;
	uint16_t flags;
	uint8_t lint;
} __attribute__((packed));

#define MADT_LAPIC         0
#define MADT_IOAPIC        1
#define MADT_LAPIC_NMI     4
#define MADT_LAPIC_ENABLED 1
#define MADT_ALL_UIDS      0xff
#define MADT_NMI_EDGE_HIGH 0x5

#define MADT_BYTES_MAX                                                                                       \
	(sizeof(struct acpi_madt) + ACPI_VCPUS_MAX * sizeof(struct madt_lapic) +                             \
		sizeof(struct madt_ioapic) + sizeof(struct madt_lapic_nmi))

struct acpi_mcfg { /* PCI Firmware 3.2, 4.1.2 */
	struct acpi_header header;
	uint64_t reserved1;
	uint64_t base; /* one allocation: of segment 0 */
	uint16_t segment;
	uint8_t first_bus, last_bus;
	uint32_t reserved2;
} __attribute__((packed));

_Static_assert(sizeof(struct acpi_mcfg) == 60, "MCFG with one allocation");

/* Where the next table goes. Sticky, as aml is. */
struct table_writer {
	const struct gmem *mem;
	gpa_t next;
	int error; /* 0 or -errno */
};

/* The byte that makes `len` bytes sum to 0. */
static uint8_t checksum(const void *data, size_t len)
{
	const uint8_t *bytes = data;
	uint8_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += bytes[i];
	return (uint8_t)-sum;
}

static void init_header(struct acpi_header *header, const char *signature, uint8_t revision)
{
	*header = (struct acpi_header){.revision = revision, .oem_revision = 1, .creator_revision = 1};
	memcpy(header->signature, signature, sizeof(header->signature));
	memcpy(header->oem_id, OEM_ID, sizeof(header->oem_id));
	memcpy(header->oem_table_id, OEM_TABLE_ID, sizeof(header->oem_table_id));
	memcpy(header->creator_id, CREATOR_ID, sizeof(header->creator_id));
}

/* Fills in length and checksum of the table that begins with `header`, writes it and returns where it lies. */
static gpa_t write_table(struct table_writer *w, struct acpi_header *header, size_t len)
{
	gpa_t gpa = w->next;

	if (!range_fits(gpa - LAYOUT_ACPI, len, LAYOUT_ACPI_END - LAYOUT_ACPI))
		w->error = -ENOSPC;
	if (w->error)
		return 0;
	header->length = (uint32_t)len;
	header->checksum = 0;
	header->checksum = checksum(header, len);
	w->error = gmem_write(w->mem, gpa, header, len);
	w->next = align_up(gpa + len, TABLE_ALIGNMENT);
	return gpa;
}

static struct acpi_gas io_byte(uint16_t port)
{
	return (struct acpi_gas){
		.space = SPACE_IO, .bit_width = 8, .access_size = IO_ACCESS_BYTE, .address = port};
}

static void describe_virtio(struct aml *aml, const struct acpi_virtio *virtio, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct aml_resources res = {0};
		char name[8];
		size_t device;

		snprintf(name, sizeof(name), "VR%02u", i % 100);
		aml_add_memory32(&res, (uint32_t)virtio[i].base, VIRTIO_PAGE_BYTES);
		aml_add_interrupt(&res, virtio[i].gsi);
		device = aml_begin_device(aml, name);
		aml_name_string(aml, "_HID", "LNRO0005"); /* Linux's drivers/virtio/virtio_mmio.c */
		aml_name_integer(aml, "_UID", i);
		aml_name_resources(aml, "_CRS", &res);
		aml_end(aml, device);
	}
}

static void describe_uart(struct aml *aml)
{
	struct aml_resources res = {0};
	size_t device;

	aml_add_ports(&res, LAYOUT_PORT_UART, UART_PORTS);
	aml_add_interrupt(&res, LAYOUT_GSI_UART);
	device = aml_begin_device(aml, "COM1");
	aml_name_eisa_id(aml, "_HID", "PNP0501");
	aml_name_integer(aml, "_UID", 1);
	aml_name_resources(aml, "_CRS", &res);
	aml_end(aml, device);
}

static void describe_keyboard(struct aml *aml)
{
	struct aml_resources res = {0};
	size_t device;

	aml_add_ports(&res, LAYOUT_PORT_I8042, 1);
	aml_add_ports(&res, LAYOUT_PORT_I8042 + 4, 1);
	aml_add_interrupt(&res, 1);
	device = aml_begin_device(aml, "KBD_");
	aml_name_eisa_id(aml, "_HID", "PNP0303");
	aml_name_resources(aml, "_CRS", &res);
	aml_end(aml, device);
}

static void describe_pvpanic(struct aml *aml)
{
	struct aml_resources res = {0};
	size_t device;

	aml_add_ports(&res, LAYOUT_PORT_PVPANIC, 1);
	device = aml_begin_device(aml, "PEVT");
	aml_name_string(aml, "_HID", "QEMU0001"); /* QEMU's docs/specs/pvpanic.rst */
	aml_name_resources(aml, "_CRS", &res);
	aml_end(aml, device);
}

/* Of its two compatible names the one that has the form of such a name; drivers know both. ADDR is where the generation is. */
static void describe_generation(struct aml *aml)
{
	static const uint64_t address[] = {LAYOUT_VM_GENERATION, 0};
	size_t device = aml_begin_device(aml, "VGEN");

	aml_name_string(aml, "_HID", "HULL0001");
	aml_name_string(aml, "_CID", "VMGENCTR");
	aml_name_string(aml, "_DDN", "VM_Gen_Counter");
	aml_name_package(aml, "ADDR", address, ARRAY_SIZE(address));
	aml_end(aml, device);
}

static void describe_button(struct aml *aml, const char *name, const char *id)
{
	size_t device = aml_begin_device(aml, name);

	aml_name_eisa_id(aml, "_HID", id);
	aml_end(aml, device);
}

/* 5.6.9, the Generic Event Device: one edge says "look"; _EVT reads (and by that clears) what happened. */
static void describe_event_device(struct aml *aml, bool pci)
{
	static const char *const registers[] = {"EVTS"};
	static const struct {
		uint32_t event;
		const char *device;
	} events[] = {{ACPI_PM_EVENT_POWER_BUTTON, "PWRB"}, {ACPI_PM_EVENT_SLEEP_BUTTON, "SLPB"}, {ACPI_PM_EVENT_GENERATION, "VGEN"}};
	const uint8_t happened = 0x80; /* 5.6.6, table 5.157: a button was pressed; and the generation has changed */
	struct aml_resources res = {0};
	size_t device, method, branch;

	describe_button(aml, "PWRB", "PNP0C0C");
	describe_button(aml, "SLPB", "PNP0C0E");

	aml_add_interrupt(&res, LAYOUT_GSI_GED);
	device = aml_begin_device(aml, "GED_");
	aml_name_string(aml, "_HID", "ACPI0013");
	aml_name_resources(aml, "_CRS", &res);
	aml_port_fields32(aml, "EREG", LAYOUT_PORT_GED, registers, ARRAY_SIZE(registers));
	method = aml_begin_method(aml, "_EVT", 1, true);
	aml_store_to_local0(aml, "EVTS");
	for (size_t i = 0; i < ARRAY_SIZE(events); i++) {
		branch = aml_begin_if_local0_has(aml, events[i].event);
		aml_notify(aml, events[i].device, happened);
		aml_end(aml, branch);
	}
	if (pci) {
		branch = aml_begin_if_local0_has(aml, ACPI_PM_EVENT_PCI);
		aml_call(aml, ACPI_PCI_SLOTS_CHANGED);
		aml_end(aml, branch);
	}
	aml_end(aml, method);
	aml_end(aml, device);
}

static gpa_t write_dsdt(struct table_writer *w, const struct acpi_config *config)
{
	static const uint64_t s5[] = {ACPI_PM_SLP_TYP_S5, 0, 0, 0};
	struct {
		struct acpi_header header;
		uint8_t aml[DSDT_BYTES_MAX];
	} __attribute__((packed)) dsdt;
	struct aml aml;
	size_t scope;

	init_header(&dsdt.header, "DSDT", 2);
	aml_init(&aml, dsdt.aml, sizeof(dsdt.aml));
	scope = aml_begin_scope(&aml, "\\_SB_");
	describe_virtio(&aml, config->virtio, config->n_virtio);
	if (config->uart)
		describe_uart(&aml);
	describe_keyboard(&aml);
	describe_pvpanic(&aml);
	describe_generation(&aml);
	if (config->pci)
		acpi_pci_describe(&aml);
	describe_event_device(&aml, config->pci);
	aml_end(&aml, scope);
	aml_name_package(&aml, "\\_S5_", s5, ARRAY_SIZE(s5));
	if (aml.overflow)
		w->error = -ENOSPC;
	return write_table(w, &dsdt.header, sizeof(dsdt.header) + aml.len);
}

static gpa_t write_fadt(struct table_writer *w, gpa_t dsdt)
{
	struct acpi_fadt fadt = {
		.dsdt = (uint32_t)dsdt, /* below 1 MiB */
		.x_dsdt = dsdt,
		.iapc_boot_arch =
			BOOT_ARCH_LEGACY_DEVICES | BOOT_ARCH_8042 | BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_CMOS_RTC,
		.flags = FADT_WBINVD | FADT_PROC_C1 | FADT_PWR_BUTTON | FADT_SLP_BUTTON | FADT_RESET_REG_SUP |
			 FADT_HW_REDUCED,
		.reset_reg = io_byte(LAYOUT_PORT_ACPI_SLEEP + ACPI_PM_OFFSET_RESET),
		.reset_value = ACPI_PM_RESET_VALUE,
		.minor_revision = 5,
		.sleep_control = io_byte(LAYOUT_PORT_ACPI_SLEEP + ACPI_PM_OFFSET_SLEEP_CONTROL),
		.sleep_status = io_byte(LAYOUT_PORT_ACPI_SLEEP + ACPI_PM_OFFSET_SLEEP_STATUS),
	};

	init_header(&fadt.header, "FACP", 6);
	memcpy(&fadt.hypervisor_vendor, "HULL", 4);
	return write_table(w, &fadt.header, sizeof(fadt));
}

/* ISA interrupts are wired as the architecture assumes (edge, active high, GSI = IRQ): no source overrides. */
static gpa_t write_madt(struct table_writer *w, unsigned n_vcpus)
{
	uint8_t table[MADT_BYTES_MAX], *p = table;
	struct acpi_madt madt = {.lapic_address = LAYOUT_LAPIC};
	struct madt_ioapic ioapic = {.type = MADT_IOAPIC, .length = sizeof(ioapic), .address = LAYOUT_IOAPIC};
	struct madt_lapic_nmi nmi = {.type = MADT_LAPIC_NMI,
		.length = sizeof(nmi),
		.processor_uid = MADT_ALL_UIDS,
		.flags = MADT_NMI_EDGE_HIGH,
		.lint = 1};

	init_header(&madt.header, "APIC", 5);
	p = mempcpy(p, &madt, sizeof(madt));
	for (unsigned i = 0; i < n_vcpus; i++) {
		struct madt_lapic lapic = {.type = MADT_LAPIC,
			.length = sizeof(lapic),
			.processor_uid = (uint8_t)i,
			.apic_id = (uint8_t)i,
			.flags = MADT_LAPIC_ENABLED};

		p = mempcpy(p, &lapic, sizeof(lapic));
	}
	p = mempcpy(p, &ioapic, sizeof(ioapic));
	p = mempcpy(p, &nmi, sizeof(nmi));
	return write_table(w, (struct acpi_header *)table, (size_t)(p - table));
}

static gpa_t write_mcfg(struct table_writer *w)
{
	struct acpi_mcfg mcfg = {.base = LAYOUT_PCI_ECAM};

	init_header(&mcfg.header, "MCFG", 1);
	return write_table(w, &mcfg.header, sizeof(mcfg));
}

static gpa_t write_xsdt(struct table_writer *w, const gpa_t *tables, size_t n)
{
	struct acpi_xsdt xsdt = {0};

	init_header(&xsdt.header, "XSDT", 1);
	for (size_t i = 0; i < n; i++)
		xsdt.tables[i] = tables[i];
	return write_table(w, &xsdt.header, sizeof(xsdt.header) + n * sizeof(xsdt.tables[0]));
}

static int write_rsdp(const struct gmem *mem, gpa_t xsdt)
{
	struct acpi_rsdp rsdp = {.revision = 2, .length = sizeof(rsdp), .xsdt = xsdt};

	memcpy(rsdp.signature, "RSD PTR ", sizeof(rsdp.signature));
	memcpy(rsdp.oem_id, OEM_ID, sizeof(rsdp.oem_id));
	rsdp.checksum = checksum(&rsdp, offsetof(struct acpi_rsdp, length));
	rsdp.extended_checksum = checksum(&rsdp, sizeof(rsdp));
	return gmem_write(mem, LAYOUT_ACPI, &rsdp, sizeof(rsdp));
}

static int check_config(const struct acpi_config *config, struct error *err)
{
	if (!config->n_vcpus || config->n_vcpus > ACPI_VCPUS_MAX)
		return error_set_field(
			err, EINVAL, "vcpu_count", "ACPI describes 1 to %d processors", ACPI_VCPUS_MAX);
	if (config->n_virtio > LAYOUT_VIRTIO_MAX)
		return error_set(
			err, EINVAL, "%u virtio devices; %d at most", config->n_virtio, LAYOUT_VIRTIO_MAX);
	for (unsigned i = 0; i < config->n_virtio; i++)
		if (!range_fits(config->virtio[i].base, VIRTIO_PAGE_BYTES, UINT32_MAX))
			return error_set(err, EINVAL, "virtio device %u at %#" PRIx64 ": not below 4 GiB", i,
				config->virtio[i].base);
	return 0;
}

int acpi_build(const struct acpi_config *config, const struct gmem *mem, gpa_t *ret_rsdp, struct error *err)
{
	struct table_writer w = {
		.mem = mem, .next = align_up(LAYOUT_ACPI + sizeof(struct acpi_rsdp), TABLE_ALIGNMENT)};
	gpa_t tables[TABLES_MAX], xsdt;
	size_t n = 0;
	int r;

	r = check_config(config, err);
	if (r < 0)
		return r;
	tables[n++] = write_fadt(&w, write_dsdt(&w, config));
	tables[n++] = write_madt(&w, config->n_vcpus);
	if (config->pci)
		tables[n++] = write_mcfg(&w);
	xsdt = write_xsdt(&w, tables, n);
	if (!w.error)
		w.error = write_rsdp(mem, xsdt);
	if (w.error)
		return error_set_field(err, -w.error, "mem_size_mib", "leaves no room for the ACPI tables");
	*ret_rsdp = LAYOUT_ACPI;
	return 0;
}

int acpi_write_generation(const struct gmem *mem, struct error *err)
{
	uint8_t id[16];

	if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id))
		return error_set_errno(err, errno, "the host gives no random numbers");
	if (gmem_write(mem, LAYOUT_VM_GENERATION, id, sizeof(id)) < 0)
		return error_set(err, EFAULT, "the guest's memory has no place for its generation");
	return 0;
}
