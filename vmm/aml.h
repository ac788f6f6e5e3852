/* Writes ACPI Machine Language (ACPI 6.5, chapter 20) into a buffer of the caller's. It is sticky: what does not fit is
 * dropped and `overflow` set, so a caller checks once, at its end.
 *
 *	size_t device = aml_begin_device(&aml, "COM1");
 *	aml_name_eisa_id(&aml, "_HID", "PNP0501");
 *	aml_end(&aml, device);
 *
 * Names are segments of four characters, or paths from the root such as "\\_SB_" and "\\_SB_.PCI0"; they are the program's own. */
#ifndef HULL_VMM_AML_H
#define HULL_VMM_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
	uint8_t *data; /* borrowed */
	size_t len, size;
	bool overflow;
};

void aml_init(struct aml *aml, uint8_t *data, size_t size);

/* Each begin opens a package (20.2.4), which aml_end() closes with the returned mark; they nest. */
size_t aml_begin_scope(struct aml *aml, const char *path);
size_t aml_begin_device(struct aml *aml, const char *name);
size_t aml_begin_method(struct aml *aml, const char *name, unsigned n_args, bool serialized);
/* If (Local0 & mask) */
size_t aml_begin_if_local0_has(struct aml *aml, uint64_t mask);
void aml_end(struct aml *aml, size_t mark);

/* Name (name, value) */
void aml_name_integer(struct aml *aml, const char *name, uint64_t value);
void aml_name_string(struct aml *aml, const char *name, const char *value);
void aml_name_eisa_id(struct aml *aml, const char *name, const char *id); /* "PNP0501" */
void aml_name_package(struct aml *aml, const char *name, const uint64_t *integers, size_t n);

/* An operation region over I/O ports with `n` 32-bit fields, one behind the other. */
void aml_port_fields32(struct aml *aml, const char *region, uint16_t port, const char *const *fields, size_t n);
/* Local0 = name; name = value */
void aml_store_to_local0(struct aml *aml, const char *name);
void aml_store_integer(struct aml *aml, uint64_t value, const char *name);
void aml_notify(struct aml *aml, const char *device, uint8_t value);
/* method (), which takes no arguments */
void aml_call(struct aml *aml, const char *method);

/* Name (_CRS, ResourceTemplate () { … }) (6.4), from descriptors gathered beforehand. */
struct aml_resources {
	uint8_t data[64];
	size_t len;
};

void aml_add_ports(struct aml_resources *res, uint16_t port, uint8_t n);
void aml_add_memory32(struct aml_resources *res, uint32_t base, uint32_t size);
/* What a bridge passes on to what lies behind it: bus numbers from 0 on, and memory. */
void aml_add_bus_window(struct aml_resources *res, uint16_t n_buses);
void aml_add_memory32_window(struct aml_resources *res, uint32_t base, uint32_t size);
/* Edge-triggered, active high, exclusive. */
void aml_add_interrupt(struct aml_resources *res, uint32_t gsi);
void aml_name_resources(struct aml *aml, const char *name, const struct aml_resources *res);

#endif
