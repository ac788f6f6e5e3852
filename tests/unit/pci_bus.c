/* The PCI bus under processors that do not let go of it. */
#include "tests/unit/test.h"

#include "common/loop.h"
#include "devices/pci.h"
#include "devices/state.h"

#include <linux/pci.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#define SLOT	 1
#define BASE	 0xd8000000u
#define ALONE_NS 50000000ull
#define LATE_S	 10

struct world {
	struct pci_bus bus;
	struct pci_function function;
	unsigned entered; /* atomic */
	bool stop;	  /* atomic */
};

/* Whoever is in stays until the next has come in: between the two of them the bus is never free. One that nobody follows leaves
 * all the same. */
static void stay(void *ctx, uint64_t offset, void *data, uint32_t len)
{
	struct world *w = ctx;
	unsigned me = __atomic_add_fetch(&w->entered, 1, __ATOMIC_SEQ_CST);
	uint64_t until_ns = monotonic_ns() + ALONE_NS;

	(void)offset;
	memset(data, 0, len);
	while (__atomic_load_n(&w->entered, __ATOMIC_SEQ_CST) == me && monotonic_ns() < until_ns)
		sched_yield();
}

static void ignore_write(void *ctx, uint64_t offset, const void *data, uint32_t len)
{
	(void)ctx;
	(void)offset;
	(void)data;
	(void)len;
}

static void ignore_place(void *ctx, bool mapped, uint32_t base)
{
	(void)ctx;
	(void)mapped;
	(void)base;
}

static bool nothing_special(void *ctx, uint32_t offset, void *ret, uint32_t len)
{
	(void)ctx;
	(void)offset;
	(void)ret;
	(void)len;
	return false;
}

static void ignore_config(void *ctx, uint32_t offset, uint32_t len)
{
	(void)ctx;
	(void)offset;
	(void)len;
}

static const struct pci_ops ops = {stay, ignore_write, ignore_place, nothing_special, ignore_config};

static void *processor(void *ctx)
{
	struct world *w = ctx;
	uint32_t value;

	while (!__atomic_load_n(&w->stop, __ATOMIC_SEQ_CST))
		pci_bus_memory_read(&w->bus, BASE, &value, sizeof(value));
	return NULL;
}

static void *unplug(void *ctx)
{
	pci_bus_unplug(&((struct world *)ctx)->bus, SLOT);
	return NULL;
}

static void a_guest_that_hammers_registers_holds_up_nobody(void **state)
{
	static const struct pci_identity identity = {.vendor = 0x1af4, .device = 0x1042};
	const uint16_t decode = PCI_COMMAND_MEMORY;
	struct world w = {0};
	pthread_t processors[2], loop;
	struct timespec deadline;

	(void)state;
	pci_bus_init(&w.bus);
	pci_function_init(&w.function, &identity, 16, &ops, &w);
	pci_bus_plug(&w.bus, SLOT, &w.function, BASE);
	pci_bus_ecam_write(&w.bus, (SLOT << 15) + PCI_COMMAND, &decode, sizeof(decode));
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&processors[i], NULL, processor, &w), 0);
	while (__atomic_load_n(&w.entered, __ATOMIC_SEQ_CST) < 10)
		sched_yield();
	assert_int_equal(pthread_create(&loop, NULL, unplug, &w), 0);
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += LATE_S;
	assert_int_equal(pthread_timedjoin_np(loop, NULL, &deadline), 0);
	__atomic_store_n(&w.stop, true, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(processors[i], NULL);
	pci_bus_done(&w.bus);
}

/* Between the write of CONFIG_ADDRESS and the read of what it points at there may be a move to another host. */
static void a_guest_that_was_about_to_read_reads_on_where_it_is_loaded(void **state)
{
	static const struct pci_identity identity = {.vendor = 0x1af4, .device = 0x1042};
	const uint32_t address = 0x80000000u | SLOT << 11;
	struct world from = {0}, to = {0};
	struct state_writer writer;
	struct state_reader reader;
	struct error err = {0};
	uint32_t ids = 0;

	(void)state;
	pci_bus_init(&from.bus);
	pci_bus_init(&to.bus);
	pci_function_init(&to.function, &identity, 16, &ops, &to);
	pci_bus_plug(&to.bus, SLOT, &to.function, BASE);
	pci_bus_port_write(&from.bus, 0, &address, sizeof(address));
	state_writer_init(&writer);
	pci_bus_save(&from.bus, &writer);
	state_reader_init(&reader, writer.buf.data, writer.buf.len - 1); /* cut short: nothing is taken */
	assert_true(pci_bus_load(&to.bus, &reader, &err) < 0);
	assert_true(err.message[0]);
	assert_int_equal(to.bus.address, 0);
	state_reader_init(&reader, writer.buf.data, writer.buf.len);
	assert_int_equal(pci_bus_load(&to.bus, &reader, &err), 0);
	pci_bus_port_read(&to.bus, 4, &ids, sizeof(ids));
	assert_int_equal(ids, 0x10421af4);
	state_writer_done(&writer);
	pci_bus_done(&from.bus);
	pci_bus_done(&to.bus);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_guest_that_hammers_registers_holds_up_nobody),
		cmocka_unit_test(a_guest_that_was_about_to_read_reads_on_where_it_is_loaded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
