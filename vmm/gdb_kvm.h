/* A vCPU's registers between KVM's form and a debugger's. */
#ifndef HULL_VMM_GDB_KVM_H
#define HULL_VMM_GDB_KVM_H

#include "vmm/gdb_registers.h"

/* The vCPU rests. 0 or -errno. */
int gdb_kvm_read(int vcpu_fd, struct gdb_registers *ret);
/* -EINVAL for a segment's selector that is another: what it selects, nobody has said. What KVM refuses may leave the FPU's
 * registers changed and the others as they were. */
int gdb_kvm_write(int vcpu_fd, const struct gdb_registers *registers);

#endif
