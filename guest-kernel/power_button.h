/* The machine's power button: the kernel tells of it on generic netlink (family "acpi_event"), which takes no input layer
 * and no device node. */
#ifndef HULL_GUEST_POWER_BUTTON_H
#define HULL_GUEST_POWER_BUTTON_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct power_button;

/* Calls `pressed` whenever it was, on the loop thread. NULL with `err` set; ENOENT: a kernel that has no ACPI. */
struct power_button *power_button_new(struct loop *loop, void (*pressed)(void *ctx), void *ctx, struct error *err);
void power_button_free(struct power_button *button); /* NULL is fine */

/* What the kernel's answer to "which family is that" says: the family's number and its group's. False when it is none. */
bool power_button_parse_family(const void *message, size_t len, uint16_t *ret_family, uint32_t *ret_group);
/* Whether what came from the family tells that the button was pressed. */
bool power_button_parse_event(const void *message, size_t len, uint16_t family);

#endif
