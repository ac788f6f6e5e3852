/* See metrics_volumes.h. Project and name have letters, digits and '-' only: no label needs escaping. */
#include "api/metrics_volumes.h"

#include "api/hulld.h"
#include "api/metrics_machines.h"
#include "api/volume.h"
#include "common/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK_BYTES 512 /* of st_blocks: inode(7) */

struct subject {
	char project[NAME_MAX_BYTES + 1], name[NAME_MAX_BYTES + 1], id[VOLUME_ID_BYTES + 1];
	int64_t size_mib;
};

struct metrics_volumes {
	const struct hulld *hulld; /* for its folders, which stay */
	size_t n, room;
	struct subject *subjects;
};

static int copy(void *ctx, struct volume_record *record)
{
	struct metrics_volumes *volumes = ctx;
	struct subject *subject;

	if (volumes->n == volumes->room) {
		volumes->room = volumes->room ? 2 * volumes->room : 64;
		volumes->subjects = reallocarray(volumes->subjects, volumes->room, sizeof(*volumes->subjects));
		if (!volumes->subjects)
			abort();
	}
	subject = &volumes->subjects[volumes->n++];
	memcpy(subject->project, record->project, sizeof(subject->project));
	memcpy(subject->name, record->name, sizeof(subject->name));
	memcpy(subject->id, record->id, sizeof(subject->id));
	subject->size_mib = record->size_mib;
	volume_record_done(record);
	return 0;
}

struct metrics_volumes *metrics_volumes_new(const struct hulld *hulld)
{
	struct metrics_volumes *volumes = calloc(1, sizeof(*volumes));
	struct error err;

	if (!volumes)
		abort();
	volumes->hulld = hulld;
	if (store_volumes_each(hulld->store, NULL, copy, volumes, &err) < 0)
		log_error_object(&err, "metrics of volumes");
	return volumes;
}

void metrics_volumes_free(struct metrics_volumes *volumes)
{
	if (volumes)
		free(volumes->subjects);
	free(volumes);
}

static void write_sample(FILE *out, const char *name, const struct subject *subject, int64_t value)
{
	fprintf(out, "%s{project=\"%s\",volume=\"%s\"} %" PRId64 "\n", name, subject->project, subject->name, value);
}

void metrics_volumes_write(const struct metrics_volumes *volumes, FILE *out)
{
	char path[VOLUME_PATH_MAX];
	struct stat st;

	metrics_family(out, "hull_volume_size_bytes", "gauge", "Size of a volume.");
	for (size_t i = 0; i < volumes->n; i++)
		write_sample(out, "hull_volume_size_bytes", &volumes->subjects[i], volumes->subjects[i].size_mib << 20);
	metrics_family(out, "hull_volume_used_bytes", "gauge", "What it has of the host's storage; none where its file is missing.");
	for (size_t i = 0; i < volumes->n; i++)
		if (stat(volume_path(volumes->hulld, volumes->subjects[i].id, "ext4", path), &st) == 0)
			write_sample(out, "hull_volume_used_bytes", &volumes->subjects[i], (int64_t)st.st_blocks * BLOCK_BYTES);
}
