#include "guest-kernel/folder.h"

#include "common/cleanup.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void folder_delete_contents(int folder_fd, dev_t device)
{
	DIR *folder = fdopendir(folder_fd);
	struct dirent *entry;
	struct stat status;

	if (!folder) {
		close_fd(folder_fd);
		return;
	}
	while ((entry = readdir(folder))) {
		int inner;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
			fstatat(folder_fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0 || status.st_dev != device)
			continue;
		if (!S_ISDIR(status.st_mode)) {
			unlinkat(folder_fd, entry->d_name, 0);
			continue;
		}
		inner = openat(folder_fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (inner >= 0)
			folder_delete_contents(inner, device);
		unlinkat(folder_fd, entry->d_name, AT_REMOVEDIR); /* a mount point stays: EBUSY */
	}
	closedir(folder);
}
