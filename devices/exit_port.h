/* The port by which hull-init hands over the workload's exit status (guest-kernel/hull_guest.h,
 * HULL_EXIT_PORT). */
#ifndef HULL_DEVICES_EXIT_PORT_H
#define HULL_DEVICES_EXIT_PORT_H

#include "common/cleanup.h"
#include "devices/state.h"

#include <stdbool.h>

#define EXIT_PORT_PORTS 4
#define EXIT_PORT_NONE  (-1)

struct exit_port;

/* Never NULL (allocation failure aborts). */
struct exit_port *exit_port_new(void);
void exit_port_free(struct exit_port *dev); /* NULL is fine */
DEFINE_CLEANUP(struct exit_port *, exit_port_free)

/* Any length, any thread. Only a 32-bit write at offset 0 that carries HULL_EXIT_MAGIC is heard. */
void exit_port_read(struct exit_port *dev, uint64_t offset, void *data, uint32_t len);
void exit_port_write(struct exit_port *dev, uint64_t offset, const void *data, uint32_t len);

/* The last status handed over, 0..255, or EXIT_PORT_NONE. Any thread. */
int exit_port_status(const struct exit_port *dev);
/* Did it come with HULL_EXIT_OUT_OF_MEMORY? Any thread. */
bool exit_port_out_of_memory(const struct exit_port *dev);
/* The index of the one of `mounts` that could not be mounted (HULL_EXIT_NO_MOUNT), and the guest's errno; -1: none has failed. Any thread. */
int exit_port_no_mount(const struct exit_port *dev, int *ret_errnum);

/* vCPUs stopped. Section "exit-port". */
void exit_port_save(struct exit_port *dev, struct state_writer *w);
int exit_port_load(struct exit_port *dev, struct state_reader *r, struct error *err);

#endif
