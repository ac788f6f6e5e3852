/* The ACPI registers of a hardware-reduced machine: how the guest powers itself off or resets itself, and the event
 * register behind the Generic Event Device.
 *
 *	+0x00  SLEEP_CONTROL_REG (ACPI 6.5, 4.8.3.7)	SLP_EN with SLP_TYP 5 powers off
 *	+0x01  SLEEP_STATUS_REG
 *	+0x02  RESET_REG (4.8.3.6)			the value 1 resets
 *	+0x10  pending events, 32 bits, cleared by reading: ACPI_PM_EVENT_*
 *
 * It has a lock of its own. The callbacks are called with it held and must not call back. */
#ifndef HULL_DEVICES_ACPI_PM_H
#define HULL_DEVICES_ACPI_PM_H

#include "common/cleanup.h"
#include "devices/state.h"

#define ACPI_PM_PORTS 0x14

#define ACPI_PM_OFFSET_SLEEP_CONTROL 0x00
#define ACPI_PM_OFFSET_SLEEP_STATUS  0x01
#define ACPI_PM_OFFSET_RESET         0x02
#define ACPI_PM_OFFSET_EVENTS        0x10

#define ACPI_PM_SLP_TYP_S5  5
#define ACPI_PM_RESET_VALUE 1

#define ACPI_PM_EVENT_POWER_BUTTON 1u
#define ACPI_PM_EVENT_SLEEP_BUTTON 2u
#define ACPI_PM_EVENT_PCI	   4u /* slots have changed: devices/pci_hotplug.h */
#define ACPI_PM_EVENT_GENERATION   8u /* the machine is one of several that go on from one: see acpi_write_generation() */

struct acpi_pm_ops {
	void (*interrupt)(void *ctx); /* the event device's line (GSI 23): one edge */
	void (*power_off)(void *ctx);
	void (*reset)(void *ctx);
};

struct acpi_pm;

/* `ops` and `ctx` are borrowed. Never NULL (allocation failure aborts). */
struct acpi_pm *acpi_pm_new(const struct acpi_pm_ops *ops, void *ctx);
void acpi_pm_free(struct acpi_pm *dev); /* NULL is fine */
DEFINE_CLEANUP(struct acpi_pm *, acpi_pm_free)

/* Access at `offset` < ACPI_PM_PORTS, any length; the gaps read as 0. Any thread. */
void acpi_pm_read(struct acpi_pm *dev, uint64_t offset, void *data, uint32_t len);
void acpi_pm_write(struct acpi_pm *dev, uint64_t offset, const void *data, uint32_t len);

/* Makes `events` (ACPI_PM_EVENT_*) pending and interrupts the guest. Any thread. */
void acpi_pm_raise(struct acpi_pm *dev, uint32_t events);

/* vCPUs stopped. Section "acpi-pm". */
void acpi_pm_save(struct acpi_pm *dev, struct state_writer *w);
int acpi_pm_load(struct acpi_pm *dev, struct state_reader *r, struct error *err);

#endif
