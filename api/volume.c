/* Volumes and their files, and who uses them. See volume.h. */
#include "api/volume.h"

#include "api/ext4.h"
#include "api/machine.h"
#include "api/worker.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *volume_path(const struct hulld *hulld, const char *id, const char *kind, char ret[VOLUME_PATH_MAX])
{
	snprintf(ret, VOLUME_PATH_MAX, "%s/volumes/%s%s%s", hulld->options.state, id, *kind ? "." : "", kind);
	return ret;
}

/* ---- removing ---- */

static void remove_file(void *path)
{
	if (unlink(path) < 0 && errno != ENOENT)
		log_warn("cannot remove %s: %s", (char *)path, strerror(errno));
}

void volume_remove_file(struct hulld *hulld, const char *id)
{
	char path[VOLUME_PATH_MAX], *copy = strdup(volume_path(hulld, id, "gone", path));

	if (!copy)
		abort();
	if (worker_begin(&hulld->volume_removals, hulld->loop, remove_file, free, copy) == 0)
		return;
	remove_file(copy);
	free(copy);
}

void volumes_end(struct hulld *hulld)
{
	workers_end(&hulld->volume_removals, free);
}

/* ---- after a restart of hulld ---- */

static void rename_file(const struct hulld *hulld, const char *id, const char *from_kind, const char *to_kind)
{
	char from[VOLUME_PATH_MAX], to[VOLUME_PATH_MAX];

	if (rename(volume_path(hulld, id, from_kind, from), volume_path(hulld, id, to_kind, to)) < 0)
		log_warn("cannot rename %s: %s", from, strerror(errno));
}

/* `name`: of a file in the folder, "<id>.<kind>". */
static int settle_file(struct hulld *hulld, const char *name, struct error *err)
{
	char id[VOLUME_ID_BYTES + 1], path[VOLUME_PATH_MAX];
	const char *kind = name + VOLUME_ID_BYTES + 1;
	int has_row;

	if (strlen(name) <= VOLUME_ID_BYTES || name[VOLUME_ID_BYTES] != '.')
		return 0;
	snprintf(id, sizeof(id), "%.*s", VOLUME_ID_BYTES, name);
	has_row = store_volume_has(hulld->store, id, err);
	if (has_row < 0)
		return has_row;
	volume_path(hulld, id, kind, path);
	if (strcmp(kind, "ext4") == 0 && !has_row)
		log_warn("%s is of no volume that the database knows: it is left", path);
	else if (strcmp(kind, "new") == 0 || strcmp(kind, "gone") == 0)
		has_row ? rename_file(hulld, id, kind, "ext4") : remove_file(path);
	return 0;
}

static int settle_files(struct hulld *hulld, struct error *err)
{
	char path[VOLUME_PATH_MAX];
	DIR *folder = opendir(volume_path(hulld, "", "", path));
	struct dirent *entry;
	int r = 0;

	if (!folder)
		return error_set_errno(err, errno, "cannot read %s", path);
	while (r == 0 && (entry = readdir(folder)))
		r = settle_file(hulld, entry->d_name, err);
	closedir(folder);
	return r;
}

/* The row is on disk; of the file's size nobody has made sure. */
static int settle_size(void *ctx, struct volume_record *record)
{
	char path[VOLUME_PATH_MAX];
	struct stat st;

	volume_path(ctx, record->id, "ext4", path);
	if (stat(path, &st) < 0)
		log_warn("volume %s: %s: %s", record->name, path, strerror(errno));
	else if (st.st_size < (off_t)record->size_mib << 20 && truncate(path, (off_t)record->size_mib << 20) < 0)
		log_warn("cannot make %s larger: %s", path, strerror(errno));
	volume_record_done(record);
	return 0;
}

int volumes_start(struct hulld *hulld, struct error *err)
{
	char path[VOLUME_PATH_MAX];
	int r = make_directories(volume_path(hulld, "", "", path), 0700, err);

	if (r == 0)
		r = settle_files(hulld, err);
	return r < 0 ? r : store_volumes_each(hulld->store, NULL, settle_size, hulld, err);
}

/* ---- who uses them ---- */

static const struct mount_spec *find_mount(const struct machine_spec *spec, const char *name)
{
	const struct mount_spec *mounts = spec->mounts.items;

	for (size_t i = 0; i < spec->mounts.len; i++)
		if (mounts[i].volume && strcmp(mounts[i].volume, name) == 0)
			return &mounts[i];
	return NULL;
}

const struct machine *volume_user(const struct hulld *hulld, const char *project, const char *name)
{
	for (const struct machine *m = hulld->machines; m; m = m->next)
		if (strcmp(m->record.project, project) == 0 && (find_mount(&m->spec, name) || find_mount(machine_running_spec(m), name)))
			return m;
	return NULL;
}

/* Until its monitor is there, one that starts has nothing: it may wait for another, that needs the same volume before. One that is suspended
 * has what it had. */
const struct mount_spec *volume_mount_of(const struct machine *m, const char *name)
{
	bool has = m->record.state == MACHINE_SUSPENDED || m->record.state == MACHINE_RESUMING || (machine_is_active(m) && m->record.monitor.pid > 0);

	return has ? find_mount(machine_running_spec(m), name) : NULL;
}

int volumes_check(struct hulld *hulld, const char *project, const struct machine_spec *spec, struct problem *problem)
{
	const struct mount_spec *mounts = spec->mounts.items;
	struct volume_record record;
	struct error err;
	char field[40];

	for (size_t i = 0; i < spec->mounts.len; i++) {
		if (!mounts[i].volume)
			continue;
		if (store_volume_get(hulld->store, project, mounts[i].volume, &record, &err) == 0) {
			bool named = strcmp(record.name, mounts[i].volume) == 0;

			volume_record_done(&record);
			if (named)
				continue;
			error_set(&err, ENOENT, "there is no volume of the name \"%s\"", mounts[i].volume);
		}
		if (err.errnum != ENOENT)
			return problem_from_error(problem, &err);
		snprintf(field, sizeof(field), "mounts[%zu].volume", i);
		problem_set(problem, PROBLEM_NOT_FOUND, field, "%s", err.message);
		return problem_set_hint(problem, "create it with POST /v1/volumes");
	}
	return 0;
}

int volume_find_file(struct hulld *hulld, const char *project, const char *name, char ret[VOLUME_PATH_MAX], struct error *err)
{
	struct volume_record record;
	int r = store_volume_get(hulld->store, project, name, &record, err);

	if (r < 0)
		return r;
	volume_path(hulld, record.id, "ext4", ret);
	volume_record_done(&record);
	return access(ret, R_OK | W_OK) == 0 ? 0 : error_set_errno(err, errno, "the file of volume %s cannot be used", name);
}

/* Another that has it, unless both only read; NULL: none. */
static const struct machine *find_rival(const struct machine *m, const struct mount_spec *mount)
{
	for (const struct machine *other = m->hulld->machines; other; other = other->next) {
		const struct mount_spec *others;

		if (other == m || strcmp(other->record.project, m->record.project) != 0)
			continue;
		others = volume_mount_of(other, mount->volume);
		if (others && !(others->read_only && mount->read_only))
			return other;
	}
	return NULL;
}

static int check_mount(const struct machine *m, const struct mount_spec *mount, const char *field, struct problem *problem)
{
	const struct machine *rival = find_rival(m, mount);
	char path[VOLUME_PATH_MAX];
	struct error err;

	if (rival) {
		problem_set(problem, PROBLEM_VOLUME_IN_USE, field, "volume %s is attached to machine %s", mount->volume, rival->record.name);
		return problem_set_hint(problem, "stop that first; only machines that all have it read_only share one");
	}
	if (volume_find_file(m->hulld, m->record.project, mount->volume, path, &err) == 0)
		return 0;
	return problem_set(problem, PROBLEM_MACHINE_FAILED, field, "%s", err.message);
}

int volumes_check_start(const struct machine *m, struct problem *problem)
{
	const struct mount_spec *mounts = machine_running_spec(m)->mounts.items;
	char field[40];
	int r = 0;

	for (size_t i = 0; r == 0 && i < machine_running_spec(m)->mounts.len; i++) {
		snprintf(field, sizeof(field), "mounts[%zu].volume", i);
		if (mounts[i].volume)
			r = check_mount(m, &mounts[i], field, problem);
	}
	return r;
}
