/* A machine's saved state that no machine has had: for tests of what reads it. */
#ifndef HULL_TESTS_UNIT_SNAPSHOT_WORLD_H
#define HULL_TESTS_UNIT_SNAPSHOT_WORLD_H

#include "vmm/snapshot.h"
#include "vmm/vcpu_state.h"

#include <stdlib.h>
#include <string.h>

#define SNAPSHOT_WORLD_MIB   16
#define SNAPSHOT_WORLD_VCPUS 2

static inline void snapshot_world_config(struct config *ret)
{
	static const char text[] =
		"{\"boot-source\":{\"kernel_image_path\":\"/kernel\"},\"machine-config\":{\"vcpu_count\":2,\"mem_size_mib\":16,"
		"\"gdb_socket_path\":\"/gdb\"},\"drives\":[{\"drive_id\":\"disk\",\"path_on_host\":\"/disk\",\"is_root_device\":false}],"
		"\"network-interfaces\":[{\"iface_id\":\"eth0\",\"stream_socket_path\":\"/passt\"}],"
		"\"vsock\":{\"guest_cid\":3,\"uds_path\":\"/v.sock\"},\"logger\":{\"level\":\"Info\"}}";

	if (config_parse(text, strlen(text), ret, NULL) < 0)
		abort();
}

static inline void snapshot_world_write_vcpus(struct state_writer *w)
{
	struct vcpu_state vcpu = {.tsc_khz = 1000000, .xsave_bytes = sizeof(struct kvm_xsave)};
	struct vm_state vm = {.clock.clock = 777, .realtime_ns = 888};

	vcpu.cpuid = vcpu_state_new_cpuid(1);
	vcpu.msrs = vcpu_state_new_msrs(1);
	vcpu.xsave = calloc(1, vcpu.xsave_bytes);
	if (!vcpu.cpuid || !vcpu.msrs || !vcpu.xsave)
		abort();
	vcpu.cpuid->nent = vcpu.msrs->nmsrs = 1;
	vcpu.msrs->entries[0].index = 0x10;
	vcpu.msrs->entries[0].data = 12345;
	for (unsigned i = 0; i < SNAPSHOT_WORLD_VCPUS; i++) {
		vcpu.regs.rip = 0x1000 + i;
		vcpu_state_write(&vcpu, w);
	}
	vm_state_write(&vm, w);
	vcpu_state_done(&vcpu);
}

/* All sections but the devices'. `w` is to be freed. */
static inline void snapshot_world_write(struct state_writer *w, struct snapshot_head *ret_head)
{
	struct memory_file_layout memory = {.ram_bytes = (uint64_t)SNAPSHOT_WORLD_MIB << 20};
	struct config config;

	state_writer_init(w);
	snapshot_world_config(&config);
	if (snapshot_begin(w, &config, &memory, true, ret_head, NULL) < 0)
		abort();
	config_done(&config);
	snapshot_world_write_vcpus(w);
}

#endif
