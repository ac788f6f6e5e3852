/* PCI bus 0 behind a host bridge: functions found and set up through configuration space, and reached at the place in memory
 * that the guest gives them (PCI Local Bus 3.0, chapter 6; PCI Express 5.0, section 7.2).
 *
 *	ports 0xcf8, 0xcfc ──┐
 *	ECAM page (MCFG)   ──┴▶ pci_bus ──▶ slot 0: the host bridge; 1–31: struct pci_function, by struct pci_ops
 *	memory window      ────────┘        (function 0 of each, type 0 header, BAR 0 in 32-bit memory)
 *
 * Threads: vCPUs come in by the three doors, the loop thread plugs and unplugs. `lock` is held for reading while a function's
 * registers are accessed, so that functions do not wait for one another; for writing while configuration space is written,
 * which may move a function, and while one comes or goes. Whoever waits for writing goes before readers that come later: a guest
 * that never ceases to read must not hold up the loop. It is taken before any lock of a device. */
#ifndef HULL_DEVICES_PCI_H
#define HULL_DEVICES_PCI_H

#include "devices/state.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define PCI_SLOTS	 32 /* slot 0 is the host bridge's */
#define PCI_CONFIG_BYTES 256
#define PCI_ECAM_BYTES	 (1u << 20) /* of one bus: 4 KiB a function */
#define PCI_PORTS	 8

/* Called with the bus's lock held; must not call the bus. */
struct pci_ops {
	/* `len` is 1 to 8, and the access lies inside the BAR. */
	void (*bar_read)(void *ctx, uint64_t offset, void *data, uint32_t len);
	void (*bar_write)(void *ctx, uint64_t offset, const void *data, uint32_t len);
	/* The function's registers are at `base` from now on, or nowhere. */
	void (*placed)(void *ctx, bool mapped, uint32_t base);
	/* What lies in `config` is not all there is to these bytes: true when the function has given them itself. */
	bool (*config_read)(void *ctx, uint32_t offset, void *ret, uint32_t len);
	/* `config` has just been changed there. */
	void (*config_written)(void *ctx, uint32_t offset, uint32_t len);
};

struct pci_function {
	const struct pci_ops *ops; /* borrowed */
	void *ctx;
	uint8_t config[PCI_CONFIG_BYTES]; /* little-endian, as the guest sees it */
	uint8_t writable[PCI_CONFIG_BYTES]; /* the bits of it that the guest may change */
	uint8_t last_capability, capabilities_end; /* offsets; 0: there is none yet */
	uint32_t bar_bytes; /* a power of two >= 16; 0: no BAR */
	bool mapped;
	uint32_t base; /* while mapped */
};

struct pci_bus {
	pthread_rwlock_t lock; /* guards all that follows, and what is in the functions above */
	struct pci_function bridge;
	struct pci_function *slots[PCI_SLOTS]; /* borrowed; NULL: empty */
	uint32_t address; /* CONFIG_ADDRESS, the register at port 0xcf8 */
};

void pci_bus_init(struct pci_bus *bus);
void pci_bus_done(struct pci_bus *bus);

struct pci_identity {
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint8_t revision;
	uint32_t class_code; /* 24 bits */
};

/* A function with these ids, `bar_bytes` of registers and no capabilities yet. */
void pci_function_init(struct pci_function *function, const struct pci_identity *identity, uint32_t bar_bytes,
	const struct pci_ops *ops, void *ctx);
/* Appends a capability (6.7) of `len` bytes, whose first two it fills in; `writable` may be NULL. Its offset. */
uint8_t pci_add_capability(
	struct pci_function *function, uint8_t id, const void *capability, const void *writable, uint8_t len);

/* Puts the function into an empty slot, or takes it out. `base` is where its BAR points at first, as firmware would have it:
 * decoding is off. Loop thread. */
void pci_bus_plug(struct pci_bus *bus, unsigned slot, struct pci_function *function, uint32_t base);
void pci_bus_unplug(struct pci_bus *bus, unsigned slot);

/* Whether the guest lets the slot's function be a bus master (6.2.2), as a driver does before it uses it. Any thread. */
bool pci_bus_is_master(struct pci_bus *bus, unsigned slot);

/* The three doors; any length and alignment that a guest can produce. Offsets are relative to port 0xcf8 and to the ECAM page;
 * `address` is guest-physical. What is not there reads as all ones. Any thread. */
void pci_bus_port_read(struct pci_bus *bus, uint64_t offset, void *data, uint32_t len);
void pci_bus_port_write(struct pci_bus *bus, uint64_t offset, const void *data, uint32_t len);
void pci_bus_ecam_read(struct pci_bus *bus, uint64_t offset, void *data, uint32_t len);
void pci_bus_ecam_write(struct pci_bus *bus, uint64_t offset, const void *data, uint32_t len);
void pci_bus_memory_read(struct pci_bus *bus, uint64_t address, void *data, uint32_t len);
void pci_bus_memory_write(struct pci_bus *bus, uint64_t address, const void *data, uint32_t len);

/* What the guest has written to a function's configuration space. A load places it anew. Inside a section of the caller's;
 * vCPUs stopped. */
void pci_function_save(const struct pci_function *function, struct state_writer *w);
void pci_function_load(struct pci_function *function, struct state_reader *r);

/* The bus's own. Section "pci". */
void pci_bus_save(const struct pci_bus *bus, struct state_writer *w);
int pci_bus_load(struct pci_bus *bus, struct state_reader *r, struct error *err);

#endif
