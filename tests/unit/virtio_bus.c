/* Devices that come and go on the PCI bus, as the guest and the clients of the monitor see it; KVM is played here. */
#include "tests/unit/virtq_driver.h"

#include "common/log.h"
#include "devices/pci_hotplug.h"
#include "devices/virtio_pci.h"
#include "devices/virtio_rng.h"
#include "vmm/bus.h"
#include "vmm/virtio_bus.h"
#include "vmm/vm.h"

#include <linux/pci.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <malloc.h>

#define MSIX_CONTROL (0x40 + PCI_MSIX_FLAGS) /* the capability is the first one */

/* ---- KVM ---- */

static struct {
	unsigned doorbells, messages;
} kvm;

int vm_add_doorbell(struct vm *vm, gpa_t address, uint32_t value, int fd, struct error *err)
{
	(void)vm;
	(void)address;
	(void)value;
	(void)fd;
	(void)err;
	return 0;
}

int vm_add_interrupt(struct vm *vm, uint32_t gsi, int fd, struct error *err)
{
	(void)vm;
	(void)gsi;
	(void)fd;
	(void)err;
	return 0;
}

int vm_connect_doorbell(struct vm *vm, gpa_t address, int fd)
{
	(void)vm;
	(void)address;
	(void)fd;
	kvm.doorbells++;
	return 0;
}

void vm_disconnect_doorbell(struct vm *vm, gpa_t address, int fd)
{
	(void)vm;
	(void)address;
	(void)fd;
	kvm.doorbells--;
}

int vm_connect_message(struct vm *vm, uint32_t gsi, int fd, uint64_t address, uint32_t data)
{
	(void)vm;
	(void)gsi;
	(void)fd;
	(void)address;
	(void)data;
	kvm.messages++;
	return 0;
}

void vm_disconnect_message(struct vm *vm, uint32_t gsi, int fd)
{
	(void)vm;
	(void)gsi;
	(void)fd;
	kvm.messages--;
}

/* ---- time: a guest's patience is over when the test says so ---- */

static struct {
	struct loop_source *timer; /* armed with that delay; NULL: none is */
} asked, told;

void __real_loop_timer_arm(struct loop_source *timer, uint64_t delay_ns);
void __wrap_loop_timer_arm(struct loop_source *timer, uint64_t delay_ns);

void __wrap_loop_timer_arm(struct loop_source *timer, uint64_t delay_ns)
{
	if (timer == asked.timer)
		asked.timer = NULL;
	if (timer == told.timer)
		told.timer = NULL;
	if (delay_ns == VIRTIO_BUS_RELEASE_NS)
		asked.timer = timer;
	else if (delay_ns == VIRTIO_BUS_REMIND_NS)
		told.timer = timer;
	else
		__real_loop_timer_arm(timer, delay_ns);
}

/* ---- the machine around it ---- */

struct world {
	struct guest g;
	struct driver d; /* for its loop */
	struct bus ports, mmio;
	struct virtio_bus bus;
	unsigned changes, removed;
	struct error err;
};

static void slots_changed(void *ctx)
{
	((struct world *)ctx)->changes++;
}

static void removed(void *ctx, struct virtio_dev *dev)
{
	(void)dev;
	((struct world *)ctx)->removed++;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct virtio_bus_config config = {.is_pci = true, .ports = &w->ports, .mmio = &w->mmio, .slots_changed = slots_changed,
		.removed = removed, .ctx = w};

	memset(&kvm, 0, sizeof(kvm));
	asked.timer = told.timer = NULL;
	guest_init(&w->g, 1 << 20);
	w->d.loop = config.loop = loop_new();
	virtio_bus_init(&w->bus, &config);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	virtio_bus_done(&w->bus);
	assert_int_equal(kvm.doorbells, 0);
	assert_int_equal(kvm.messages, 0);
	loop_free(w->d.loop);
	guest_done(&w->g);
	free(w);
	return 0;
}

/* ---- a client's side ---- */

static struct virtio_dev *find(const struct world *w, const char *id)
{
	return virtio_bus_find(&w->bus, VIRTIO_ID_RNG, id);
}

static void plug(struct world *w, const char *id)
{
	struct virtio_dev *dev = virtio_rng_new(NULL, w->d.loop, &w->g.mem, &w->err);

	assert_non_null(dev);
	assert_int_equal(virtio_bus_add(&w->bus, dev, id, &w->err), 0);
	virtio_bus_announce(&w->bus, find(w, id));
}

static void take(struct world *w, const char *id)
{
	virtio_bus_remove(&w->bus, find(w, id));
}

static void time_passes(struct world *w, struct loop_source **timer)
{
	assert_non_null(*timer);
	__real_loop_timer_arm(*timer, 0);
	*timer = NULL;
	driver_run_rounds(&w->d, 3);
}

static void patience_is_over(struct world *w)
{
	time_passes(w, &asked.timer);
}

/* ---- the guest's side ---- */

static uint32_t hotplug(const struct world *w, uint32_t offset)
{
	uint32_t value;

	bus_read(&w->ports, LAYOUT_PORT_PCI_HOTPLUG + offset, &value, sizeof(value));
	return value;
}

static void eject(const struct world *w, unsigned slot)
{
	uint32_t slots = UINT32_C(1) << slot;

	bus_write(&w->ports, LAYOUT_PORT_PCI_HOTPLUG + PCI_HOTPLUG_OFFSET_EJECT, &slots, sizeof(slots));
}

static void set_config(const struct world *w, unsigned slot, uint32_t offset, uint16_t value)
{
	bus_write(&w->mmio, LAYOUT_PCI_ECAM + ((uint64_t)slot << 15) + offset, &value, sizeof(value));
}

static uint16_t vendor(const struct world *w, unsigned slot)
{
	uint16_t value;

	bus_read(&w->mmio, LAYOUT_PCI_ECAM + ((uint64_t)slot << 15) + PCI_VENDOR_ID, &value, sizeof(value));
	return value;
}

static uint64_t place(unsigned slot)
{
	return LAYOUT_PCI_MEMORY + (slot - 1) * VIRTIO_PCI_BAR_BYTES;
}

static void set_register(const struct world *w, unsigned slot, uint32_t offset, uint64_t value, uint32_t len)
{
	bus_write(&w->mmio, place(slot) + offset, &value, len);
}

/* As far as it takes to be in use, with messages. */
static void bring_up(const struct world *w, unsigned slot)
{
	set_config(w, slot, PCI_COMMAND, PCI_COMMAND_MEMORY);
	set_config(w, slot, MSIX_CONTROL, PCI_MSIX_FLAGS_ENABLE);
	set_register(w, slot, 0x4000, 0xfee00000, 8);
	set_register(w, slot, 0x400c, 0, 4);
	set_register(w, slot, VIRTIO_PCI_COMMON_STATUS, VIRTIO_STATUS_ACKNOWLEDGE, 1);
	set_register(w, slot, VIRTIO_PCI_COMMON_STATUS, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER, 1);
}

static void bring_down(const struct world *w, unsigned slot)
{
	set_register(w, slot, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	set_register(w, slot, VIRTIO_PCI_COMMON_STATUS, VIRTIO_STATUS_ACKNOWLEDGE, 1);
}

/* ---- */

static void a_device_in_use_goes_when_the_guest_lets_go(void **state)
{
	struct world *w = *state;

	plug(w, "a");
	assert_int_equal(w->changes, 1);
	assert_int_equal(hotplug(w, PCI_HOTPLUG_OFFSET_PLUGGED), 1 << 1);
	bring_up(w, 1);
	assert_int_equal(kvm.messages, 1);
	take(w, "a");
	take(w, "a"); /* once is enough */
	assert_int_equal(w->changes, 2);
	assert_int_equal(hotplug(w, PCI_HOTPLUG_OFFSET_ASKED), 1 << 1);
	assert_true(virtio_bus_is_leaving(&w->bus, find(w, "a")));
	bring_down(w, 1);
	eject(w, 1);
	driver_run_rounds(&w->d, 2);
	assert_null(find(w, "a"));
	assert_int_equal(w->removed, 1);
	assert_int_equal(vendor(w, 1), 0xffff);
}

static void a_guest_that_does_not_let_go_loses_it(void **state)
{
	struct world *w = *state;

	plug(w, "a");
	bring_up(w, 1);
	take(w, "a");
	patience_is_over(w);
	assert_null(find(w, "a"));
	assert_int_equal(vendor(w, 1), 0xffff);
	eject(w, 1); /* too late */
	driver_run_rounds(&w->d, 2);
	assert_int_equal(w->removed, 1);
}

/* It cannot answer. */
static void while_the_guest_stands_still_no_time_passes(void **state)
{
	struct world *w = *state;

	plug(w, "a");
	plug(w, "b");
	bring_up(w, 1);
	bring_up(w, 2);
	take(w, "a");
	assert_non_null(asked.timer);
	virtio_bus_hold(&w->bus, true);
	assert_null(asked.timer);
	take(w, "b");
	assert_null(asked.timer);
	assert_non_null(find(w, "b"));
	virtio_bus_hold(&w->bus, false);
	assert_non_null(asked.timer);
	eject(w, 1);
	driver_run_rounds(&w->d, 2);
	assert_null(find(w, "a"));
	patience_is_over(w);
	assert_null(find(w, "b"));
}

/* It may have seen the device, and would take the next one in that slot for this one. */
static void a_guest_is_told_of_what_goes_at_once(void **state)
{
	struct world *w = *state;

	plug(w, "a");
	hotplug(w, PCI_HOTPLUG_OFFSET_PLUGGED);
	take(w, "a");
	assert_null(find(w, "a"));
	assert_int_equal(vendor(w, 1), 0xffff);
	assert_int_equal(w->changes, 2);
	assert_int_equal(hotplug(w, PCI_HOTPLUG_OFFSET_ASKED), 1 << 1);
	eject(w, 1);
	driver_run_rounds(&w->d, 2);
	assert_int_equal(w->removed, 1);
}

/* Linux's driver lets the device be a bus master, then resets it and waits, for ever, until its status says so. */
static void a_device_that_a_driver_begins_to_use_is_asked_for(void **state)
{
	struct world *w = *state;

	plug(w, "a");
	set_config(w, 1, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	take(w, "a");
	assert_non_null(find(w, "a"));
	assert_int_equal(vendor(w, 1), 0x1af4);
	eject(w, 1);
	driver_run_rounds(&w->d, 2);
	assert_null(find(w, "a"));
	/* One that it has done with is not. */
	plug(w, "b");
	set_config(w, 2, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	bring_up(w, 2);
	bring_down(w, 2);
	set_config(w, 2, PCI_COMMAND, PCI_COMMAND_MEMORY);
	take(w, "b");
	assert_null(find(w, "b"));
}

static void a_slot_is_used_again_only_after_all_others(void **state)
{
	struct world *w = *state;

	plug(w, "a");
	take(w, "a");
	for (unsigned slot = 2; slot < PCI_SLOTS; slot++) {
		plug(w, "b");
		assert_int_equal(vendor(w, slot), 0x1af4);
		take(w, "b");
	}
	plug(w, "c");
	assert_int_equal(vendor(w, 1), 0x1af4);
}

static void what_nobody_asked_for_is_not_taken(void **state)
{
	struct world *w = *state;

	plug(w, "a");
	bring_up(w, 1);
	for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
		eject(w, slot);
	driver_run_rounds(&w->d, 2);
	assert_non_null(find(w, "a"));
	/* Nor what was let go of before it was asked for: that was another device. */
	eject(w, 1);
	take(w, "a");
	driver_run_rounds(&w->d, 2);
	assert_non_null(find(w, "a"));
	eject(w, 1);
	driver_run_rounds(&w->d, 2);
	assert_null(find(w, "a"));
}

/* One that boots may not have heard. One that never looks is left in peace in the end. */
static void a_guest_that_has_not_looked_is_told_again(void **state)
{
	struct world *w = *state;

	plug(w, "a");
	assert_int_equal(w->changes, 1);
	time_passes(w, &told.timer);
	assert_int_equal(w->changes, 2);
	virtio_bus_hold(&w->bus, true);
	assert_null(told.timer);
	virtio_bus_hold(&w->bus, false);
	time_passes(w, &told.timer);
	assert_int_equal(w->changes, 3);
	hotplug(w, PCI_HOTPLUG_OFFSET_PLUGGED);
	time_passes(w, &told.timer);
	assert_int_equal(w->changes, 3);
	assert_null(told.timer);
	plug(w, "b");
	for (unsigned i = 0; i <= VIRTIO_BUS_REMINDERS; i++)
		time_passes(w, &told.timer);
	assert_int_equal(w->changes, 4 + VIRTIO_BUS_REMINDERS);
	assert_null(told.timer);
}

static void the_bus_is_full_and_has_room_again(void **state)
{
	struct world *w = *state;
	char id[8];

	for (unsigned i = 0; i < VIRTIO_BUS_MAX; i++) {
		snprintf(id, sizeof(id), "d%u", i);
		plug(w, id);
	}
	assert_int_equal(virtio_bus_add(&w->bus, virtio_rng_new(NULL, w->d.loop, &w->g.mem, &w->err), "more", &w->err), -ENOSPC);
	assert_null(find(w, "more"));
	take(w, "d7");
	plug(w, "more");
	assert_int_equal(vendor(w, 8), 0x1af4);
}

/* Every other one is let go of by the guest, rings and registers in use until the end. */
static void come_and_go(struct world *w, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		unsigned slot = 1;

		plug(w, "a");
		while (vendor(w, slot) == 0xffff)
			slot++;
		bring_up(w, slot);
		set_register(w, slot, 0x3000, 0, 2); /* the doorbell */
		take(w, "a");
		if (i % 2)
			eject(w, slot);
		else
			patience_is_over(w);
		driver_run_rounds(&w->d, 1);
		assert_null(find(w, "a"));
	}
}

static void a_thousand_comings_and_goings_leave_nothing(void **state)
{
	struct world *w = *state;
	unsigned fds;
	size_t bytes;

	log_set_level(LOG_LEVEL_ERROR); /* each that is lost is warned of */
	come_and_go(w, 2 * PCI_SLOTS);
	fds = count_entries("/proc/self/fd");
	bytes = mallinfo2().uordblks; /* nothing is counted under a sanitizer, which looks itself */
	come_and_go(w, 1000);
	assert_int_equal(count_entries("/proc/self/fd"), fds);
	assert_int_equal(mallinfo2().uordblks, bytes);
	assert_int_equal(kvm.doorbells, 0);
	assert_int_equal(kvm.messages, 0);
	log_set_level(LOG_LEVEL_INFO);
}

/* ---- saved and loaded ---- */

static void save(struct world *w, struct state_writer *places, struct state_writer *rest)
{
	state_writer_init(places);
	state_writer_init(rest);
	virtio_bus_quiesce(&w->bus);
	virtio_bus_save_places(&w->bus, places);
	virtio_bus_save(&w->bus, rest);
	virtio_bus_resume(&w->bus);
	virtio_bus_done(&w->bus);
}

static void add(struct world *w, const char *id, int expected)
{
	struct virtio_dev *dev = virtio_rng_new(NULL, w->d.loop, &w->g.mem, &w->err);

	assert_int_equal(virtio_bus_add(&w->bus, dev, id, &w->err), expected);
}

static int load_rest(struct world *w, const struct state_writer *rest)
{
	struct state_reader r;
	int result;

	state_reader_init(&r, rest->buf.data, rest->buf.len);
	result = virtio_bus_load(&w->bus, &r, &w->err);
	assert_true(result < 0 || r.pos == r.len);
	return result;
}

/* A machine's devices are made in the order of its configuration, and found where the guest knows them. */
static void a_saved_bus_comes_back_slot_by_slot(void **state)
{
	struct world *w = *state, *other;
	struct state_writer places, rest;
	struct state_reader r;

	plug(w, "a");
	plug(w, "b");
	plug(w, "c");
	take(w, "a"); /* not in use: it goes at once */
	bring_up(w, 3);
	save(w, &places, &rest);
	setup((void **)&other);
	state_reader_init(&r, places.buf.data, places.buf.len);
	assert_int_equal(virtio_bus_load_places(&other->bus, &r, &other->err), 0);
	add(other, "c", 0);
	add(other, "d", -EINVAL); /* it was not there */
	add(other, "b", 0);
	add(other, "b", -EINVAL);
	assert_int_equal(load_rest(other, &rest), 0);
	virtio_bus_resume(&other->bus);
	assert_int_equal(vendor(other, 1), 0xffff);
	assert_int_equal(vendor(other, 2), 0x1af4);
	assert_int_equal(vendor(other, 3), 0x1af4);
	assert_int_equal(find(other, "c")->status, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
	assert_int_equal(find(other, "b")->status, 0);
	assert_int_equal(hotplug(other, PCI_HOTPLUG_OFFSET_PLUGGED), 1 << 1 | 1 << 2 | 1 << 3); /* nobody had looked */
	assert_true(other->changes > 0);					     /* and is told so again */
	plug(other, "e"); /* the round goes on */
	assert_int_equal(vendor(other, 4), 0x1af4);
	teardown((void **)&other);
	state_writer_done(&places);
	state_writer_done(&rest);
}

static void a_saved_device_that_is_not_made_again_is_missed(void **state)
{
	struct world *w = *state, *other;
	struct state_writer places, rest;
	struct state_reader r;

	plug(w, "a");
	save(w, &places, &rest);
	setup((void **)&other);
	state_reader_init(&r, places.buf.data, places.buf.len);
	assert_int_equal(virtio_bus_load_places(&other->bus, &r, &other->err), 0);
	assert_int_equal(load_rest(other, &rest), -EINVAL);
	assert_non_null(strstr(other->err.message, "lacks a device"));
	teardown((void **)&other);
	state_writer_done(&places);
	state_writer_done(&rest);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_device_in_use_goes_when_the_guest_lets_go),
		TEST(a_guest_that_does_not_let_go_loses_it),
		TEST(while_the_guest_stands_still_no_time_passes),
		TEST(a_guest_is_told_of_what_goes_at_once),
		TEST(a_device_that_a_driver_begins_to_use_is_asked_for),
		TEST(a_slot_is_used_again_only_after_all_others),
		TEST(what_nobody_asked_for_is_not_taken),
		TEST(a_guest_that_has_not_looked_is_told_again),
		TEST(the_bus_is_full_and_has_room_again),
		TEST(a_thousand_comings_and_goings_leave_nothing),
		TEST(a_saved_bus_comes_back_slot_by_slot),
		TEST(a_saved_device_that_is_not_made_again_is_missed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
