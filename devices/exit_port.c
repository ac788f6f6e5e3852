/* The exit port: see exit_port.h. One number, so an atomic is all the locking there is. */
#include "devices/exit_port.h"

#include "guest-kernel/hull_guest.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define STATUS_MASK 0xffu
#define MOUNT_MASK  (HULL_EXIT_MOUNT_MASK << HULL_EXIT_MOUNT_SHIFT | HULL_EXIT_ERRNO_MASK << HULL_EXIT_ERRNO_SHIFT)
#define HEARD_MASK  (STATUS_MASK | HULL_EXIT_OUT_OF_MEMORY | HULL_EXIT_NO_MOUNT | MOUNT_MASK)

/* What goes with HULL_EXIT_NO_MOUNT goes with nothing else. */
static bool is_whole(uint32_t heard)
{
	return !(heard & ~HEARD_MASK) && (heard & HULL_EXIT_NO_MOUNT || !(heard & MOUNT_MASK));
}

struct exit_port {
	atomic_int heard; /* of HEARD_MASK, or EXIT_PORT_NONE */
};

struct exit_port *exit_port_new(void)
{
	struct exit_port *dev = calloc(1, sizeof(*dev));

	if (!dev)
		abort();
	atomic_init(&dev->heard, EXIT_PORT_NONE);
	return dev;
}

void exit_port_free(struct exit_port *dev)
{
	free(dev);
}

void exit_port_read(struct exit_port *dev, uint64_t offset, void *data, uint32_t len)
{
	(void)dev;
	(void)offset;
	memset(data, 0xff, len);
}

void exit_port_write(struct exit_port *dev, uint64_t offset, const void *data, uint32_t len)
{
	uint32_t value;

	if (offset != 0 || len != sizeof(value))
		return;
	memcpy(&value, data, sizeof(value));
	if ((value & ~HEARD_MASK) == HULL_EXIT_MAGIC && is_whole(value & HEARD_MASK))
		atomic_store(&dev->heard, (int)(value & HEARD_MASK));
}

int exit_port_status(const struct exit_port *dev)
{
	int heard = atomic_load(&dev->heard);

	return heard == EXIT_PORT_NONE ? heard : (int)((unsigned)heard & STATUS_MASK);
}

bool exit_port_out_of_memory(const struct exit_port *dev)
{
	int heard = atomic_load(&dev->heard);

	return heard != EXIT_PORT_NONE && (unsigned)heard & HULL_EXIT_OUT_OF_MEMORY;
}

int exit_port_no_mount(const struct exit_port *dev, int *ret_errnum)
{
	int heard = atomic_load(&dev->heard);

	if (heard == EXIT_PORT_NONE || !((unsigned)heard & HULL_EXIT_NO_MOUNT))
		return -1;
	*ret_errnum = (int)((unsigned)heard >> HULL_EXIT_ERRNO_SHIFT & HULL_EXIT_ERRNO_MASK);
	return (int)((unsigned)heard >> HULL_EXIT_MOUNT_SHIFT & HULL_EXIT_MOUNT_MASK);
}

void exit_port_save(struct exit_port *dev, struct state_writer *w)
{
	state_begin(w, "exit-port", 1);
	state_put_u32(w, (uint32_t)atomic_load(&dev->heard));
	state_end(w);
}

int exit_port_load(struct exit_port *dev, struct state_reader *r, struct error *err)
{
	int version = state_begin_section(r, "exit-port", 1, err);
	uint32_t status;
	int ret;

	if (version < 0)
		return version;
	status = state_get_u32(r);
	ret = state_end_section(r, err);
	if (ret < 0)
		return ret;
	if (status != (uint32_t)EXIT_PORT_NONE && !is_whole(status))
		return error_set(err, EINVAL, "exit-port: status %u is out of range", status);
	atomic_store(&dev->heard, (int)status);
	return 0;
}
