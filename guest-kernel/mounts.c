/* See mounts.h. */
#include "guest-kernel/mounts.h"

#include "common/io.h"
#include "guest-kernel/volume.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

static int mount_folder(const struct guest_mount *m, struct error *err)
{
	int r = make_directories(m->path, 0755, err);

	if (r == 0 && mount(m->tag, m->path, "virtiofs", m->read_only ? MS_RDONLY : 0, NULL) < 0)
		r = error_set_errno(err, errno, "mount \"%s\"", m->tag);
	return r;
}

/* What is within another has the longer path. */
static int compare(const void *a, const void *b)
{
	size_t len_a = strlen((*(const struct guest_mount *const *)a)->path), len_b = strlen((*(const struct guest_mount *const *)b)->path);

	return len_a < len_b ? -1 : len_a > len_b;
}

int mounts_enter(const struct guest_config *config, size_t *ret_failed, struct error *err)
{
	const struct guest_mount *items = config->mounts.items, *order[GUEST_MOUNTS_MAX];

	for (size_t i = 0; i < config->mounts.len; i++)
		order[i] = &items[i];
	qsort(order, config->mounts.len, sizeof(order[0]), compare);
	for (size_t i = 0; i < config->mounts.len; i++) {
		const struct guest_mount *m = order[i];

		if ((m->drive ? volume_mount(m, config->user, err) : mount_folder(m, err)) == 0)
			continue;
		*ret_failed = (size_t)(m - items);
		return error_prefix(err, "%s: ", m->path);
	}
	return 0;
}
