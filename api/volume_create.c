/* POST /v1/volumes. See volume.h for what is when on disk. */
#include "api/volume.h"

#include "api/ext4.h"
#include "api/labels.h"
#include "api/project.h"
#include "api/random.h"
#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PROJECT_CREATIONS_MAX 8

struct volume_creation {
	struct hulld *hulld;
	struct request *req;
	struct volume_record record;
	struct ext4_making *making;
	struct volume_creation *next, **prev;
};

static void creation_free(struct volume_creation *creation)
{
	*creation->prev = creation->next;
	if (creation->next)
		creation->next->prev = creation->prev;
	volume_record_done(&creation->record);
	free(creation);
}

/* Who asks again begins anew. */
static void on_gone(void *ctx)
{
	struct volume_creation *creation = ctx;

	ext4_cancel(creation->making);
	creation_free(creation);
}

/* May there be such a volume? 0, or -ECANCELED with `problem` set. */
static int check(struct hulld *hulld, const struct volume_record *record, struct problem *problem)
{
	struct volume_record named;
	struct error err;
	int r = store_volume_get(hulld->store, record->project, record->name, &named, &err);

	if (r == 0) {
		volume_record_done(&named);
		return problem_set(problem, PROBLEM_NAME_TAKEN, "name", "a volume \"%s\" exists already", record->name);
	}
	if (r != -ENOENT)
		return problem_from_error(problem, &err);
	r = quota_check_row(hulld, record->project, STORE_VOLUMES, problem);
	return r < 0 ? r : quota_check_volume(hulld, record->project, record->size_mib, problem);
}

/* With the answer, so that who asks again is not told that the name is taken. 0 or -errno with `err` set. */
static int insert(struct volume_creation *creation, json_t *shown, struct error *err)
{
	struct store *store = creation->hulld->store;
	int r = store_transaction_begin(store, err);

	if (r < 0)
		return r;
	r = store_volume_insert(store, &creation->record, err);
	if (r == 0)
		r = request_keep(creation->req, 201, shown, err);
	return store_transaction_end(store, r, err);
}

/* The file is there. Others may have come meanwhile, with the same name, too. */
static int finish(struct volume_creation *creation, json_t **ret_shown, struct problem *problem)
{
	struct volume_record *record = &creation->record;
	char from[VOLUME_PATH_MAX], to[VOLUME_PATH_MAX], folder[VOLUME_PATH_MAX];
	struct hulld *hulld = creation->hulld;
	struct error err;
	int r = check(hulld, record, problem);

	volume_path(hulld, record->id, "new", from);
	volume_path(hulld, record->id, "ext4", to);
	if (r == 0 && (r = ext4_sync_folder(volume_path(hulld, "", "", folder))) < 0) {
		error_set_errno(&err, -r, "cannot make the volume");
		problem_from_error(problem, &err);
	}
	record->created_at = record->updated_at = now_ms();
	*ret_shown = volume_dump(hulld, record);
	if (r == 0 && (r = insert(creation, *ret_shown, &err)) < 0)
		problem_from_error(problem, &err);
	if (r < 0)
		unlink(from);
	else if (rename(from, to) < 0) /* the next hulld will */
		log_warn("cannot rename %s: %s", from, strerror(errno));
	return r;
}

static void on_made(void *ctx, const char *reason)
{
	struct volume_creation *creation = ctx;
	struct request *req = creation->req;
	json_t *shown = NULL;
	struct problem problem;

	if (reason)
		request_refuse_with(req, PROBLEM_INTERNAL, NULL, "cannot make the volume: %s", reason);
	else if (finish(creation, &shown, &problem) < 0)
		request_refuse(req, &problem);
	else
		request_reply(req, 201, json_incref(shown));
	json_decref(shown);
	creation_free(creation);
}

static void refuse_making(struct request *req, const struct error *err)
{
	if (err->errnum == EFBIG)
		request_refuse_with(req, PROBLEM_INVALID_FIELD, "size_mib", "is more than a file may have on this host");
	else
		request_refuse_error(req, err);
}

static void begin(struct request *req, struct hulld *hulld, struct volume_record *record)
{
	struct volume_creation *creation = malloc(sizeof(*creation));
	char path[VOLUME_PATH_MAX];
	struct error err;

	if (!creation)
		abort();
	*creation = (struct volume_creation){.hulld = hulld, .req = req, .record = *record, .next = hulld->volume_creations,
		.prev = &hulld->volume_creations};
	if (creation->next)
		creation->next->prev = &creation->next;
	hulld->volume_creations = creation;
	creation->making = ext4_make(
		hulld->loop, volume_path(hulld, record->id, "new", path), record->size_mib, EXT4_GROWS, on_made, creation, &err);
	if (creation->making) {
		request_on_gone(req, on_gone, creation);
		return;
	}
	refuse_making(req, &err);
	creation_free(creation);
}

static bool is_busy(const struct hulld *hulld, const char *project)
{
	int n = 0;

	for (const struct volume_creation *other = hulld->volume_creations; other; other = other->next)
		n += strcmp(other->record.project, project) == 0;
	return n >= PROJECT_CREATIONS_MAX;
}

/* What there would be, its id made up. */
static void reply_plan(struct request *req, const struct hulld *hulld, struct volume_record *record)
{
	json_t *shown;

	record->created_at = record->updated_at = now_ms();
	shown = volume_dump(hulld, record);
	json_object_set_new(shown, "state", json_string("available"));
	request_reply(req, 201, shown);
	volume_record_done(record);
}

void volume_http_create(struct request *req, void *ctx)
{
	struct volume_record record = {.labels = NULL};
	struct volume_spec spec;
	struct problem problem;

	if (request_read(req, &volume_spec_table, &spec) < 0)
		return;
	record.id[0] = 'v';
	random_base32(record.id + 1, VOLUME_ID_BYTES - 1);
	snprintf(record.project, sizeof(record.project), "%s", request_project(req));
	snprintf(record.name, sizeof(record.name), "%s", spec.name);
	record.size_mib = spec.size_mib;
	record.labels = json_dumps(spec.labels, JSON_COMPACT);
	json_done(&volume_spec_table, &spec);
	if (!record.labels)
		abort();
	if (is_busy(ctx, record.project)) {
		request_refuse_with(req, PROBLEM_BUSY, NULL, "%d volumes are being made already", PROJECT_CREATIONS_MAX);
		volume_record_done(&record);
	} else if (labels_check_size(record.labels, &problem) < 0 || check(ctx, &record, &problem) < 0) {
		request_refuse(req, &problem);
		volume_record_done(&record);
	} else if (request_query_int(req, "dry_run", 0)) {
		reply_plan(req, ctx, &record);
	} else {
		begin(req, ctx, &record);
	}
}
