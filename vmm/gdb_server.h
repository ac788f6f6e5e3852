/* Where a debugger comes to: a Unix socket, one debugger at a time. While one is there the machine is its own to stop; when it
 * leaves, or is gone without a word, the machine runs on as if nobody had looked. Loop thread. */
#ifndef HULL_VMM_GDB_SERVER_H
#define HULL_VMM_GDB_SERVER_H

#include "vmm/gdb_target.h"

struct gdb_server;

struct gdb_server_config {
	const char *path;		 /* of the socket, made with mode 0600; borrowed for the call */
	struct gdb_target_config target; /* but for `stopped`, which is the server's own to set; its `ctx` is of the others */
};

/* NULL with `err` set, and nothing left. */
struct gdb_server *gdb_server_new(const struct gdb_server_config *config, struct error *err);
/* vCPUs are gone. A debugger that waits is told that the machine has ended. NULL is fine. */
void gdb_server_free(struct gdb_server *server);

/* Whether guest memory has breakpoints in it, which are not the guest's. NULL is fine. */
bool gdb_server_changes_memory(const struct gdb_server *server);

/* As gdb_target_exit(). vCPU thread. */
bool gdb_server_exit(struct gdb_server *server, struct vcpu *vcpu);

#endif
