/* Loads the kernel modules that came with the initramfs. */
#ifndef HULL_GUEST_MODULES_H
#define HULL_GUEST_MODULES_H

/* `list` names one file a line, relative to `folder`, in load order. A missing list means a kernel with everything
 * built in. What cannot be loaded is said on the console and passed over: what needed it will fail by name. */
void modules_load(const char *folder, const char *list);

#endif
