/* How a guest ends: ACPI's power and reset registers, pvpanic, the exit port. */
#include "tests/unit/test.h"

#include "devices/acpi_pm.h"
#include "devices/exit_port.h"
#include "devices/pvpanic.h"
#include "guest-kernel/hull_guest.h"

#include <errno.h>
#include <string.h>

struct fixture {
	struct acpi_pm *pm;
	struct pvpanic *pvpanic;
	struct exit_port *exit;
	unsigned interrupts, power_offs, resets;
	unsigned panics;
};

static void on_interrupt(void *ctx)
{
	((struct fixture *)ctx)->interrupts++;
}

static void on_power_off(void *ctx)
{
	((struct fixture *)ctx)->power_offs++;
}

static void on_reset(void *ctx)
{
	((struct fixture *)ctx)->resets++;
}

static void on_panic(void *ctx, uint8_t events)
{
	((struct fixture *)ctx)->panics |= events;
}

static const struct acpi_pm_ops pm_ops = {on_interrupt, on_power_off, on_reset};
static const struct pvpanic_ops pvpanic_ops = {on_panic};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->pm = acpi_pm_new(&pm_ops, f);
	f->pvpanic = pvpanic_new(&pvpanic_ops, f);
	f->exit = exit_port_new();
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	acpi_pm_free(f->pm);
	pvpanic_free(f->pvpanic);
	exit_port_free(f->exit);
	free(f);
	return 0;
}

static void pm_out(struct fixture *f, uint64_t offset, uint32_t value, uint32_t len)
{
	acpi_pm_write(f->pm, offset, &value, len);
}

static uint32_t pm_in(struct fixture *f, uint64_t offset, uint32_t len)
{
	uint32_t v = 0;

	acpi_pm_read(f->pm, offset, &v, len);
	return v;
}

static void s5_powers_off_and_other_states_do_not(void **state)
{
	struct fixture *f = *state;

	pm_out(f, 0, 5 << 2, 1); /* without SLP_EN */
	pm_out(f, 0, 0x20 | 3 << 2, 1);
	pm_out(f, 1, 0x20 | 5 << 2, 1); /* the status register */
	assert_int_equal(f->power_offs, 0);
	pm_out(f, 0, 0x20 | 5 << 2, 1);
	assert_int_equal(f->power_offs, 1);
	assert_int_equal(pm_in(f, 0, 1), 0);
	assert_int_equal(pm_in(f, 1, 1), 0);
}

static void the_reset_value_resets(void **state)
{
	struct fixture *f = *state;

	pm_out(f, 2, 0, 1);
	pm_out(f, 2, 6, 1);
	pm_out(f, 2, 1, 4);
	assert_int_equal(f->resets, 0);
	pm_out(f, 2, 1, 1);
	assert_int_equal(f->resets, 1);
}

static void events_interrupt_and_are_cleared_by_reading(void **state)
{
	struct fixture *f = *state;

	acpi_pm_raise(f->pm, ACPI_PM_EVENT_POWER_BUTTON);
	assert_int_equal(f->interrupts, 1);
	assert_int_equal(pm_in(f, 0x10, 1), 0); /* a part of it takes nothing */
	acpi_pm_raise(f->pm, ACPI_PM_EVENT_SLEEP_BUTTON);
	assert_int_equal(pm_in(f, 0x10, 4), 3);
	assert_int_equal(pm_in(f, 0x10, 4), 0);
	acpi_pm_raise(f->pm, 0x80000000);
	assert_int_equal(f->interrupts, 2);
}

static void pending_events_survive_a_move(void **state)
{
	struct fixture *f = *state;
	struct acpi_pm *other = acpi_pm_new(&pm_ops, f);
	struct state_writer w;
	struct state_reader r;
	struct error err;
	uint32_t events = 0;

	acpi_pm_raise(f->pm, ACPI_PM_EVENT_POWER_BUTTON);
	state_writer_init(&w);
	acpi_pm_save(f->pm, &w);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(acpi_pm_load(other, &r, &err), 0);
	acpi_pm_read(other, 0x10, &events, 4);
	assert_int_equal(events, ACPI_PM_EVENT_POWER_BUTTON);
	acpi_pm_free(other);
	state_writer_done(&w);
}

static void pvpanic_tells_what_it_knows_and_hears_no_more(void **state)
{
	struct fixture *f = *state;
	uint8_t v = 0;

	pvpanic_read(f->pvpanic, 0, &v, 1);
	assert_int_equal(v, PVPANIC_PANICKED | PVPANIC_CRASH_LOADED);
	v = 0xfc;
	pvpanic_write(f->pvpanic, 0, &v, 1);
	pvpanic_write(f->pvpanic, 1, &v, 1);
	assert_int_equal(f->panics, 0);
	v = 0xff;
	pvpanic_write(f->pvpanic, 0, &v, 1);
	assert_int_equal(f->panics, 3);
}

static void exit_out(struct fixture *f, uint64_t offset, uint32_t value, uint32_t len)
{
	exit_port_write(f->exit, offset, &value, len);
}

static void exit_status_is_heard_only_with_its_magic(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(exit_port_status(f->exit), EXIT_PORT_NONE);
	exit_out(f, 0, 7, 4);
	exit_out(f, 0, HULL_EXIT_MAGIC | 0x400, 4);
	exit_out(f, 0, HULL_EXIT_MAGIC | 7, 2);
	exit_out(f, 1, HULL_EXIT_MAGIC | 7, 4);
	assert_int_equal(exit_port_status(f->exit), EXIT_PORT_NONE);
	exit_out(f, 0, HULL_EXIT_MAGIC | 7, 4);
	assert_int_equal(exit_port_status(f->exit), 7);
	exit_out(f, 0, HULL_EXIT_MAGIC | 255, 4);
	assert_int_equal(exit_port_status(f->exit), 255);
	assert_false(exit_port_out_of_memory(f->exit));
	exit_out(f, 0, HULL_EXIT_MAGIC | HULL_EXIT_OUT_OF_MEMORY | 137, 4);
	assert_int_equal(exit_port_status(f->exit), 137);
	assert_true(exit_port_out_of_memory(f->exit));
}

static void a_mount_that_failed_is_heard_with_its_reason(void **state)
{
	struct fixture *f = *state;
	int errnum = 0;

	exit_out(f, 0, HULL_EXIT_MAGIC | 125, 4);
	assert_int_equal(exit_port_no_mount(f->exit, &errnum), -1);
	exit_out(f, 0, HULL_EXIT_MAGIC | 117u << HULL_EXIT_ERRNO_SHIFT | 126, 4); /* of no mount */
	assert_int_equal(exit_port_status(f->exit), 125);
	exit_out(f, 0, HULL_EXIT_MAGIC | HULL_EXIT_NO_MOUNT | 3u << HULL_EXIT_MOUNT_SHIFT | 117u << HULL_EXIT_ERRNO_SHIFT | 125, 4);
	assert_int_equal(exit_port_status(f->exit), 125);
	assert_int_equal(exit_port_no_mount(f->exit, &errnum), 3);
	assert_int_equal(errnum, 117);
	assert_false(exit_port_out_of_memory(f->exit));
}

static int move_status(struct fixture *f, uint32_t status, struct error *err)
{
	struct state_writer w;
	struct state_reader r;
	int ret;

	state_writer_init(&w);
	state_begin(&w, "exit-port", 1);
	state_put_u32(&w, status);
	state_end(&w);
	state_reader_init(&r, w.buf.data, w.buf.len);
	ret = exit_port_load(f->exit, &r, err);
	state_writer_done(&w);
	return ret;
}

static void exit_status_survives_a_move_and_nonsense_does_not(void **state)
{
	struct fixture *f = *state;
	struct state_writer w;
	struct state_reader r;
	struct error err;

	exit_out(f, 0, HULL_EXIT_MAGIC | HULL_EXIT_OUT_OF_MEMORY | 42, 4);
	state_writer_init(&w);
	exit_port_save(f->exit, &w);
	exit_out(f, 0, HULL_EXIT_MAGIC | 1, 4);
	state_reader_init(&r, w.buf.data, w.buf.len);
	assert_int_equal(exit_port_load(f->exit, &r, &err), 0);
	assert_int_equal(exit_port_status(f->exit), 42);
	assert_true(exit_port_out_of_memory(f->exit));
	state_writer_done(&w);
	assert_int_equal(move_status(f, 1024, &err), -EINVAL);
	assert_int_equal(move_status(f, 3u << HULL_EXIT_MOUNT_SHIFT, &err), -EINVAL);
	assert_int_equal(exit_port_status(f->exit), 42);
	assert_int_equal(move_status(f, UINT32_MAX, &err), 0);
	assert_false(exit_port_out_of_memory(f->exit));
	assert_int_equal(exit_port_status(f->exit), EXIT_PORT_NONE);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(s5_powers_off_and_other_states_do_not),
		CASE(the_reset_value_resets),
		CASE(events_interrupt_and_are_cleared_by_reading),
		CASE(pending_events_survive_a_move),
		CASE(pvpanic_tells_what_it_knows_and_hears_no_more),
		CASE(exit_status_is_heard_only_with_its_magic),
		CASE(a_mount_that_failed_is_heard_with_its_reason),
		CASE(exit_status_survives_a_move_and_nonsense_does_not),
	};

	return cmocka_run_group_tests_name("power", tests, NULL, NULL);
}
