# guest-kernel/payloads: guests of one C file, freestanding, for tests and benches. Built with `all`, as they need nothing but the compiler.
PAYLOAD_COMPILE = -std=gnu11 -Wall -Wextra -Wshadow -Wmissing-prototypes -O2 -ffreestanding -fno-pie -fno-stack-protector -fcf-protection=none \
	-fno-asynchronous-unwind-tables -fno-strict-aliasing -mno-red-zone -mgeneral-regs-only -fmacro-prefix-map=$(top_srcdir)/=
PAYLOAD_LINK = -nostdlib -static -no-pie -Wl,-e,_start,-Ttext-segment=0x100000,-z,max-page-size=4096,-z,noexecstack,--build-id=none

# CFLAGS come last, and a distribution's may ask for what needs a C library.
guest-kernel/payloads/%.o: override CFLAGS += -fno-stack-protector -fcf-protection=none

noinst_LIBRARIES += libpayload.a
libpayload_a_SOURCES = \
	guest-kernel/payloads/entry.c \
	guest-kernel/payloads/payload.c guest-kernel/payloads/payload.h \
	guest-kernel/payloads/virtio.c guest-kernel/payloads/virtio.h
libpayload_a_CFLAGS = $(PAYLOAD_COMPILE)

noinst_PROGRAMS += guest-kernel/payloads/hello
guest_kernel_payloads_hello_SOURCES = guest-kernel/payloads/hello.c
guest_kernel_payloads_hello_CFLAGS = $(PAYLOAD_COMPILE)
guest_kernel_payloads_hello_LDFLAGS = $(PAYLOAD_LINK)
guest_kernel_payloads_hello_LDADD = libpayload.a
noinst_PROGRAMS += guest-kernel/payloads/processor
guest_kernel_payloads_processor_SOURCES = guest-kernel/payloads/processor.c
guest_kernel_payloads_processor_CFLAGS = $(PAYLOAD_COMPILE)
guest_kernel_payloads_processor_LDFLAGS = $(PAYLOAD_LINK)
guest_kernel_payloads_processor_LDADD = libpayload.a
noinst_PROGRAMS += guest-kernel/payloads/hostile_queues
guest_kernel_payloads_hostile_queues_SOURCES = guest-kernel/payloads/hostile_queues.c
guest_kernel_payloads_hostile_queues_CFLAGS = $(PAYLOAD_COMPILE)
guest_kernel_payloads_hostile_queues_LDFLAGS = $(PAYLOAD_LINK)
guest_kernel_payloads_hostile_queues_LDADD = libpayload.a
noinst_PROGRAMS += guest-kernel/payloads/hostile_mem
guest_kernel_payloads_hostile_mem_SOURCES = guest-kernel/payloads/hostile_mem.c
guest_kernel_payloads_hostile_mem_CFLAGS = $(PAYLOAD_COMPILE)
guest_kernel_payloads_hostile_mem_LDFLAGS = $(PAYLOAD_LINK)
guest_kernel_payloads_hostile_mem_LDADD = libpayload.a
