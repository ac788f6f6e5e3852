/* Loads the kernel modules that came with the initramfs. */
#include "guest-kernel/modules.h"

#include "common/cleanup.h"
#include "guest-kernel/console.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/syscall.h>

static void load(const char *folder, const char *name)
{
	char path[PATH_MAX];
	cleanup_close int fd = -1;

	snprintf(path, sizeof path, "%s/%s", folder, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	/* ENODEV: the driver looked and the hardware is not there (pvpanic, crc32c-intel). EEXIST: built in. */
	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST && errno != ENODEV))
		console_say("cannot load module %s: %s", name, strerror(errno));
}

void modules_load(const char *folder, const char *list)
{
	cleanup_fclose FILE *names = fopen(list, "re");
	char name[NAME_MAX + 2];

	if (!names)
		return;
	while (fgets(name, sizeof name, names)) {
		name[strcspn(name, "\n")] = '\0';
		if (*name)
			load(folder, name);
	}
}
