/* Guest RAM, laid out below and above the device hole (vmm/layout.h), of one of two kinds:
 *
 *	shared	one memfd, mapped once. Others may map it too (vhost-user). What the guest gives back leaves as holes.
 *	cow	private pages over a base that others may have as well: a sealed memfd, a file, or nothing but zeroes. The
 *		base stays as it is; what the guest has written is this process's alone, so nobody else can be shown it. What
 *		the guest gives back falls back to the base.
 *
 * Either way the host's mappings stay for the life of the RAM: what was given back is there again, a fresh page, as soon as
 * somebody looks. */
#ifndef HULL_VMM_RAM_H
#define HULL_VMM_RAM_H

#include "common/error.h"
#include "devices/gmem.h"

enum ram_kind { RAM_SHARED, RAM_COW };
enum ram_pages { RAM_PAGES_NORMAL, RAM_PAGES_TRANSPARENT_HUGE, RAM_PAGES_2M };

struct ram_config {
	uint64_t size_bytes; /* a multiple of the page size */
	enum ram_kind kind;
	enum ram_pages pages;
	int base_fd; /* of kind cow: its base, of size_bytes at least; borrowed for the call. -1: zeroes */
	uint64_t plug_bytes; /* what can be plugged besides, a multiple of 2 MiB */
};

struct ram {
	struct gmem mem; /* the regions, at their guest-physical addresses */
	enum ram_kind kind;
	int fd;     /* owned: the memfd, for whoever shall share the memory; -1 of kind cow */
	void *host; /* owned: the mapping */
	uint64_t size_bytes;
	uint64_t page_bytes; /* what the host gives and takes back at once */
	/* What can be plugged: of the same kind and pages; addresses that nobody can access while it is not. In no region of `mem`,
	 * but that its owner adds one. */
	uint8_t *plug_host;   /* owned; at a multiple of 2 MiB */
	uint64_t plug_bytes;
	uint64_t plug_fd_offset; /* where it begins in `fd` */
	int base_fd; /* owned: of kind cow, what lies below it; -1: zeroes */
};

/* Where, in a file of such a RAM, what can be plugged begins. */
uint64_t ram_plug_fd_offset(uint64_t size_bytes);

/* Nothing is touched: the host gives pages as the guest uses them. 0, or -errno with `err` set (no field) and `ret` as
 * ram_done() leaves it. */
int ram_init(struct ram *ret, const struct ram_config *config, struct error *err);
void ram_done(struct ram *ram);

/* The host has these bytes back, as far as they make up whole pages of its own; when somebody looks there again they read as
 * zeroes, or of kind cow as the base. 0; -EFAULT when not all of it is RAM: then what comes before has been given back; or
 * another -errno. Loop thread, or with a device's lock held, as for every lookup (devices/gmem.h). */
int ram_discard(const struct ram *ram, gpa_t gpa, uint64_t len);

/* Whole blocks of 2 MiB or more, `offset` bytes into what can be plugged, can be accessed from now on, and read as zeroes. 0, or
 * -errno: the host has no room for it. Loop thread, both. */
int ram_plug(struct ram *ram, uint64_t offset, uint64_t len);
/* They cannot be accessed any more, whoever tries: a vCPU or the kernel on a device's behalf is told, this process is killed. 0; 1
 * when the host could not have them back; or -errno, and nothing has changed. */
int ram_unplug(struct ram *ram, uint64_t offset, uint64_t len);

/* `size_bytes` of this process's addresses at a multiple of 2 MiB, where the host's large pages begin, that nobody can access. NULL
 * with errno set; to be given back by munmap(). */
void *ram_reserve_addresses(uint64_t size_bytes);

#endif
