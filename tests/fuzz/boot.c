/* Kernel files: whatever they say, boot_load() ends with an entry in memory or a refusal that names the file. */
#include "vmm/boot.h"

#include "vmm/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY (32ul << 20)
#define GUARD  (1ul << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct gmem mem;
static struct boot_config config = {-1, -1, -1, "console=ttyS0", .may_map = true};

/* Guest memory with nothing behind it, an initrd of an odd size, a file that is rewritten for each input. */
static void prepare(void)
{
	uint8_t *ram = mmap(NULL, MEMORY + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (ram == MAP_FAILED || mprotect(ram + MEMORY, GUARD, PROT_NONE) < 0 ||
		gmem_add(&mem, 0, MEMORY, ram) < 0)
		abort();
	config.kernel_fd = memfd_create("kernel", 0);
	config.initrd_fd = memfd_create("initrd", 0);
	if (config.kernel_fd < 0 || config.initrd_fd < 0 || pwrite(config.initrd_fd, "initrd!", 7, 0) != 7)
		abort();
	config.initrd_append_fd = config.initrd_fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct boot_entry entry;
	struct error err = {0};

	if (!mem.n_regions)
		prepare();
	/* Without what is mapped of the file before. */
	if (mmap(gmem_span(&mem, 0, MEMORY), MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		abort();
	if (ftruncate(config.kernel_fd, 0) < 0 || pwrite(config.kernel_fd, data, len, 0) != (ssize_t)len)
		abort();
	if (boot_load(&config, &mem, LAYOUT_ACPI, &entry, &err) == 0) {
		if (entry.rip < LAYOUT_KERNEL || entry.rip >= MEMORY || entry.info >= LAYOUT_KERNEL)
			abort();
	} else if (!err.errnum || !err.field[0] || !err.message[0]) {
		abort();
	}
	return 0;
}
