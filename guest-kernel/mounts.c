/* See mounts.h. */
#include "guest-kernel/mounts.h"

#include "common/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

static int mount_one(const struct guest_mount *m, struct error *err)
{
	int r = make_directories(m->path, 0755, err);

	if (r == 0 && mount(m->tag, m->path, "virtiofs", m->read_only ? MS_RDONLY : 0, NULL) < 0)
		r = error_set_errno(err, errno, "mount \"%s\" at %s", m->tag, m->path);
	return r;
}

/* What is within another has the longer path. */
static int compare(const void *a, const void *b)
{
	size_t len_a = strlen((*(const struct guest_mount *const *)a)->path), len_b = strlen((*(const struct guest_mount *const *)b)->path);

	return len_a < len_b ? -1 : len_a > len_b;
}

int mounts_enter(const struct json_array *mounts, struct error *err)
{
	const struct guest_mount *items = mounts->items, *order[GUEST_MOUNTS_MAX];
	int r = 0;

	for (size_t i = 0; i < mounts->len; i++)
		order[i] = &items[i];
	qsort(order, mounts->len, sizeof(order[0]), compare);
	for (size_t i = 0; r == 0 && i < mounts->len; i++)
		r = mount_one(order[i], err);
	return r;
}
