/* Volumes over HTTP, but for their making (volume_create.c). See volume.h. */
#include "api/volume.h"

#include "api/ext4.h"
#include "api/labels.h"
#include "api/machine.h"
#include "api/merge_patch.h"
#include "api/page.h"
#include "api/project.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum volume_state { VOLUME_AVAILABLE, VOLUME_ATTACHED, VOLUME_MISSING };
static const char *const state_names[] = {"available", "attached", "missing", NULL};

/* The spec is first, as in a machine's view. */
struct volume_view {
	struct volume_spec spec;
	char *id, *project;
	int state; /* enum volume_state */
	int64_t used_bytes;
	struct json_strings attached_to;
	char *created_at, *updated_at;
};

#define VOLUME_SPEC_FIELDS                                                                                     \
	{"name", JSON_FIELD_STRING, offsetof(struct volume_spec, name), .required = true, .max = NAME_MAX_BYTES, .check = name_check,      \
		.pattern = NAME_PATTERN, .help = "Unique in the project; it stays."},                                   \
	{"size_mib", JSON_FIELD_INT, offsetof(struct volume_spec, size_mib), .def = 1024, .min = 16, .max = VOLUME_SIZE_MIB_MAX,         \
		.help = "Size in MiB; it may become more, and never less. The host gives what is written only."},       \
	{"labels", JSON_FIELD_MAP, offsetof(struct volume_spec, labels),                                         \
		.help = "Free for clients; 4096 bytes of JSON together."}

static const struct json_field volume_spec_fields[] = {VOLUME_SPEC_FIELDS};
const struct json_table volume_spec_table = JSON_TABLE("VolumeSpec", struct volume_spec, volume_spec_fields);

#define VIEW(name_, type_, member_) .name = (name_), .type = (type_), .offset = offsetof(struct volume_view, member_), .read_only = true
static const struct json_field volume_fields[] = {
	VOLUME_SPEC_FIELDS,
	{VIEW("id", JSON_FIELD_STRING, id), .help = "v and 12 base32 characters."},
	{VIEW("project", JSON_FIELD_STRING, project)},
	{VIEW("state", JSON_FIELD_ENUM, state), .names = state_names,
		.help = "attached: a machine that runs has it; missing: its file has been taken away from the host's disk."},
	{VIEW("used_bytes", JSON_FIELD_INT, used_bytes), .max = INT64_MAX, .help = "What it takes on the host's disk at this moment."},
	{VIEW("attached_to", JSON_FIELD_STRINGS, attached_to), .help = "Names of the machines that run with it."},
	{VIEW("created_at", JSON_FIELD_STRING, created_at)},
	{VIEW("updated_at", JSON_FIELD_STRING, updated_at), .help = "When its size or labels were changed last."},
};
const struct json_table volume_table = JSON_TABLE("Volume", struct volume_view, volume_fields);

/* ---- showing ---- */

/* The machines of a project that may have volumes: looked for once for all that are shown. */
struct users {
	const struct machine **machines; /* owned */
	size_t n;
};

static void find_users(const struct hulld *hulld, const char *project, struct users *ret)
{
	const struct machine **machines = NULL;
	size_t n = 0;

	for (const struct machine *m = hulld->machines; m; m = m->next) {
		if (!machine_running_spec(m)->mounts.len || strcmp(m->record.project, project) != 0)
			continue;
		machines = reallocarray(machines, n + 1, sizeof(const struct machine *));
		if (!machines)
			abort();
		machines[n++] = m;
	}
	*ret = (struct users){machines, n};
}

/* `record.labels` was made by hulld. */
static json_t *read_labels(const struct volume_record *record)
{
	struct error err;
	json_t *labels = json_parse(record->labels, strlen(record->labels), &err);

	return labels ? labels : json_object();
}

static json_t *dump(const struct hulld *hulld, const struct volume_record *record, const struct users *users)
{
	cleanup_free char *created = format_time(record->created_at), *updated = format_time(record->updated_at);
	cleanup_free char **names = calloc(users->n + 1, sizeof(*names));
	struct volume_view view = {.spec = {(char *)record->name, record->size_mib, read_labels(record)}, .id = (char *)record->id,
		.project = (char *)record->project, .attached_to = {names, 0}, .created_at = created, .updated_at = updated};
	char path[VOLUME_PATH_MAX];
	struct stat st;
	json_t *dumped;

	if (!names)
		abort();
	for (size_t i = 0; i < users->n; i++)
		if (volume_mount_of(users->machines[i], record->name))
			names[view.attached_to.len++] = (char *)users->machines[i]->record.name;
	view.state = view.attached_to.len ? VOLUME_ATTACHED : VOLUME_AVAILABLE;
	if (stat(volume_path(hulld, record->id, "ext4", path), &st) == 0 || stat(volume_path(hulld, record->id, "new", path), &st) == 0)
		view.used_bytes = (int64_t)st.st_blocks * 512; /* stat(2) */
	else
		view.state = VOLUME_MISSING;
	dumped = json_dump(&volume_table, &view);
	json_decref(view.spec.labels);
	return dumped;
}

json_t *volume_dump(const struct hulld *hulld, const struct volume_record *record)
{
	struct users users;
	json_t *dumped;

	find_users(hulld, record->project, &users);
	dumped = dump(hulld, record, &users);
	free(users.machines);
	return dumped;
}

/* The project's volume that the path names. False: refused. */
static bool find(struct request *req, struct hulld *hulld, struct volume_record *ret)
{
	struct error err;

	if (store_volume_get(hulld->store, request_project(req), request_param(req), ret, &err) == 0)
		return true;
	request_refuse_lookup(req, &err);
	return false;
}

void volume_http_get(struct request *req, void *ctx)
{
	struct volume_record record;

	if (!find(req, ctx, &record))
		return;
	request_reply_matching(req, volume_dump(ctx, &record));
	volume_record_done(&record);
}

struct listing {
	const struct hulld *hulld;
	struct label_filter labels;
	struct users users;
	struct page page;
};

static int list_one(void *ctx, struct volume_record *record)
{
	struct listing *listing = ctx;
	json_t *labels = read_labels(record);

	if (label_filter_fits(&listing->labels, labels) && page_has(&listing->page, record->name))
		page_add(&listing->page, record->name, dump(listing->hulld, record, &listing->users));
	json_decref(labels);
	volume_record_done(record);
	return 0;
}

void volume_http_list(struct request *req, void *ctx)
{
	struct hulld *hulld = ctx;
	struct listing listing = {.hulld = hulld};
	struct error err;
	int r;

	if (label_filter_read(req, &listing.labels) < 0 || page_begin(req, &listing.page) < 0)
		return;
	find_users(hulld, request_project(req), &listing.users);
	r = store_volumes_each(hulld->store, request_project(req), list_one, &listing, &err);
	free(listing.users.machines);
	page_end(&listing.page, req, r, &err);
}

/* ---- changing ---- */

/* 0, or -ECANCELED with `problem` set. */
static int grow_file(const struct hulld *hulld, const struct volume_record *record, int64_t size_mib, struct problem *problem)
{
	char path[VOLUME_PATH_MAX];
	struct error err;

	if (size_mib <= record->size_mib || truncate(volume_path(hulld, record->id, "ext4", path), (off_t)size_mib << 20) == 0)
		return 0;
	if (errno == EFBIG)
		return problem_set(problem, PROBLEM_INVALID_FIELD, "size_mib", "is more than a file may have on this host");
	error_set_errno(&err, errno, "cannot make the volume's file larger");
	return problem_from_error(problem, &err);
}

static int check_change(
	struct hulld *hulld, const struct volume_record *record, const struct volume_spec *spec, struct problem *problem)
{
	if (strcmp(spec->name, record->name) != 0)
		return problem_set(problem, PROBLEM_INVALID_FIELD, "name", "cannot be changed: machines know it by that");
	if (spec->size_mib < record->size_mib) {
		problem_set(problem, PROBLEM_INVALID_FIELD, "size_mib", "cannot become less than the %lld MiB that it has",
			(long long)record->size_mib);
		return problem_set_hint(problem, "create a smaller one, and copy what is in it with a machine that mounts both");
	}
	return quota_check_volume(hulld, record->project, spec->size_mib - record->size_mib, problem);
}

/* `really`: else nothing is done, and `record` is what it would be. */
static int change(struct hulld *hulld, struct volume_record *record, const struct volume_spec *spec, bool really, struct problem *problem)
{
	char *labels = json_dumps(spec->labels, JSON_COMPACT);
	struct error err;
	int r;

	if (!labels)
		abort();
	r = labels_check_size(labels, problem);
	if (r == 0)
		r = check_change(hulld, record, spec, problem);
	if (r == 0 && really && store_check_room(hulld->store, 0, &err) < 0) /* or the file would be larger, and nobody be charged for it */
		r = problem_from_error(problem, &err);
	if (r == 0 && really)
		r = grow_file(hulld, record, spec->size_mib, problem);
	if (r < 0) {
		free(labels);
		return r;
	}
	free(record->labels);
	record->labels = labels;
	record->size_mib = spec->size_mib;
	record->updated_at = now_ms();
	return really && store_volume_update(hulld->store, record, &err) < 0 ? problem_from_error(problem, &err) : 0;
}

/* What a patch is merged with. */
static char *spec_text(const struct volume_record *record)
{
	struct volume_spec spec = {(char *)record->name, record->size_mib, read_labels(record)};
	char *text = json_dump_text(&volume_spec_table, &spec);

	json_decref(spec.labels);
	return text;
}

void volume_http_patch(struct request *req, void *ctx)
{
	struct volume_record record;
	struct volume_spec spec;
	struct problem problem;
	json_t *document;
	int r;

	if (!find(req, ctx, &record))
		return;
	if (request_check_match(req, volume_dump(ctx, &record)) == 0 && (document = request_read_json(req))) {
		cleanup_free char *before = spec_text(&record);

		r = merge_patch_read(&volume_spec_table, before, document, &spec, &problem);
		json_decref(document);
		if (r == 0) {
			r = change(ctx, &record, &spec, !request_query_int(req, "dry_run", 0), &problem);
			json_done(&volume_spec_table, &spec);
		}
		if (r < 0)
			request_refuse(req, &problem);
		else
			request_reply(req, 200, volume_dump(ctx, &record));
	}
	volume_record_done(&record);
}

/* The file first gets a name that says so: without a row it goes, with one it is given back (volumes_start()). */
static int remove_volume(struct hulld *hulld, const struct volume_record *record, struct error *err)
{
	char from[VOLUME_PATH_MAX], to[VOLUME_PATH_MAX], folder[VOLUME_PATH_MAX];
	int r = ext4_rename(volume_path(hulld, record->id, "ext4", from), volume_path(hulld, record->id, "gone", to),
		volume_path(hulld, "", "", folder));

	if (r < 0 && r != -ENOENT)
		return error_set_errno(err, -r, "cannot remove the volume's file");
	r = store_volume_delete(hulld->store, record->id, err);
	if (r == 0)
		volume_remove_file(hulld, record->id);
	else if (rename(to, from) < 0 && errno != ENOENT)
		log_warn("cannot rename %s: %s", to, strerror(errno));
	return r;
}

void volume_http_delete(struct request *req, void *ctx)
{
	struct hulld *hulld = ctx;
	struct volume_record record;
	const struct machine *user;
	struct problem problem;
	struct error err;

	if (!find(req, hulld, &record))
		return;
	if (request_check_match(req, volume_dump(hulld, &record)) == 0) {
		user = volume_user(hulld, record.project, record.name);
		if (user) {
			problem_set(&problem, PROBLEM_VOLUME_IN_USE, NULL, "machine %s mounts it", user->record.name);
			problem_set_hint(&problem, "delete the machine first, or take the volume from its mounts");
			request_refuse(req, &problem);
		} else if (remove_volume(hulld, &record, &err) < 0) {
			request_refuse_error(req, &err);
		} else {
			request_reply(req, 204, NULL);
		}
	}
	volume_record_done(&record);
}
