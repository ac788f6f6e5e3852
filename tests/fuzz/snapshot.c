/* A state file that anybody may have made: read as far as that needs no KVM. Whatever it holds, it is taken or refused in one line, and what
 * is taken keeps the rules; a device that was loaded touches no memory but the guest's.
 *
 *	byte 0: 1: section checksums are made right, so that what they protect is looked at    then the file */
#include "tests/fuzz/fuzz.h"

#include "common/log.h"
#include "devices/acpi_pm.h"
#include "devices/exit_port.h"
#include "devices/i8042.h"
#include "devices/uart16550.h"
#include "devices/virtio_mmio.h"
#include "devices/virtio_rng.h"
#include "vmm/cpuid.h"
#include "vmm/snapshot.h"
#include "vmm/vcpu_state.h"

#include <endian.h>

#define BASE	     0x10000ull
#define REGION_BYTES 0x10000ull
#define HEADER_BYTES 28 /* of a section: name, version, length, checksum */
#define LENGTH_AT    20
#define CHECKSUM_AT  24

static struct gmem mem;
static struct loop *loop;

static void nothing(void *ctx)
{
	(void)ctx;
}

static void transmit(void *ctx, const uint8_t *data, size_t len)
{
	(void)ctx;
	(void)data;
	(void)len;
}

static const struct uart16550_ops uart_ops = {nothing, transmit, nothing};
static const struct i8042_ops i8042_ops = {nothing, nothing};
static const struct acpi_pm_ops acpi_pm_ops = {nothing, nothing, nothing};

static void make_checksums_right(char *data, size_t len)
{
	for (size_t at = 0; len - at >= HEADER_BYTES;) {
		uint32_t bytes, sum;

		memcpy(&bytes, data + at + LENGTH_AT, sizeof(bytes));
		bytes = le32toh(bytes);
		if (bytes > len - at - HEADER_BYTES)
			return;
		sum = htole32(state_checksum(data + at + HEADER_BYTES, bytes));
		memcpy(data + at + CHECKSUM_AT, &sum, sizeof(sum));
		at += HEADER_BYTES + bytes;
	}
}

static void check_error(int r, const struct error *err)
{
	CHECK(r <= 0);
	if (r < 0) {
		CHECK(err->errnum == -r && err->message[0]);
		CHECK(!strchr(err->message, '\n'));
	}
}

static int read_vcpus(struct snapshot *snapshot, struct error *err)
{
	int r = 0;

	for (int64_t i = 0; i < snapshot->config.machine.vcpu_count && r == 0; i++) {
		struct vcpu_state vcpu;

		r = vcpu_state_read(&vcpu, &snapshot->reader, err);
		if (r == 0) {
			CHECK(cpuid_check_offered(vcpu.cpuid, vcpu.cpuid, err) == 0);
			CHECK(vcpu.cpuid->nent <= VCPU_STATE_CPUID_MAX && vcpu.msrs->nmsrs <= VCPU_STATE_MSRS_MAX);
			vcpu_state_find_msr(&vcpu, 0x10);
		}
		vcpu_state_done(&vcpu);
	}
	return r;
}

static int read_fixed(struct state_reader *r, struct error *err)
{
	cleanup(uart16550_free_p) struct uart16550 *uart = uart16550_new(&uart_ops, NULL);
	cleanup(i8042_free_p) struct i8042 *keyboard = i8042_new(&i8042_ops, NULL);
	cleanup(acpi_pm_free_p) struct acpi_pm *power = acpi_pm_new(&acpi_pm_ops, NULL);
	cleanup(exit_port_free_p) struct exit_port *port = exit_port_new();
	uint8_t byte = 0;
	int result = uart16550_load(uart, r, err);

	if (result == 0)
		result = i8042_load(keyboard, r, err);
	if (result == 0)
		result = acpi_pm_load(power, r, err);
	if (result == 0)
		result = exit_port_load(port, r, err);
	for (uint64_t i = 0; i < UART16550_PORTS; i++) {
		uart16550_read(uart, i, &byte, 1);
		uart16550_write(uart, i, &byte, 1);
	}
	return result;
}

static int read_virtio(struct state_reader *r, struct error *err)
{
	struct virtio_dev *dev = virtio_rng_new(NULL, loop, &mem, err);
	struct virtio_mmio *mmio = virtio_mmio_new(dev, loop, err);
	int result;

	CHECK(mmio);
	result = virtio_mmio_load(mmio, r, err);
	virtio_dev_resume(dev);
	virtio_dev_doorbell(dev, 0);
	virtio_mmio_free(mmio);
	return result;
}

static int read_all(struct snapshot *snapshot, struct error *err)
{
	struct vm_state vm;
	int r = read_vcpus(snapshot, err);

	if (r == 0)
		r = vm_state_read(&vm, &snapshot->reader, err);
	if (r == 0)
		r = read_fixed(&snapshot->reader, err);
	if (r == 0)
		r = read_virtio(&snapshot->reader, err);
	return r == 0 ? snapshot_check_end(snapshot, err) : r;
}

static void make_world(void)
{
	log_open("fuzz", LOG_LEVEL_ERROR, 2);
	fuzz_guest_memory(&mem, BASE, REGION_BYTES, 2);
	loop = loop_new();
	CHECK(loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct snapshot snapshot;
	struct error err = {0};
	struct buf file;
	int r;

	if (!loop)
		make_world();
	if (!len)
		return 0;
	buf_init(&file, SNAPSHOT_BYTES_MAX);
	CHECK(buf_append(&file, data + 1, len - 1) == 0);
	if (*data & 1)
		make_checksums_right(file.data, file.len);
	r = snapshot_parse(&file, &snapshot, &err);
	CHECK(!file.data);
	if (r == 0) {
		uint64_t mib = (uint64_t)snapshot.config.machine.mem_size_mib;

		CHECK(snapshot.head.memory.ram_bytes == mib << 20);
		r = read_all(&snapshot, &err);
	}
	check_error(r, &err);
	snapshot_done(&snapshot);
	return 0;
}
