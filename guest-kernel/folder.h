/* Folders, whole. */
#ifndef HULL_GUEST_FOLDER_H
#define HULL_GUEST_FOLDER_H

#include <sys/types.h>

/* Deletes what the folder holds, as far as it can, on the file system `device` only. Takes the descriptor. */
void folder_delete_contents(int folder_fd, dev_t device);

#endif
