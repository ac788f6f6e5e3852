/* Projects over HTTP. */
#include "api/project.h"

#include "api/access.h"
#include "api/forget.h"
#include "api/image.h"
#include "api/machine.h"
#include "api/networks.h"
#include "api/page.h"
#include "api/webhook.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DELETE_NS 30000000ull /* others wait; most projects have no more than goes in that time */

#define PROJECT_SPEC_FIELDS                                                                                   \
	{"name", JSON_FIELD_STRING, offsetof(struct project_spec, name), .required = true, .max = NAME_MAX_BYTES,      \
		.check = name_check, .pattern = NAME_PATTERN, .help = "Unique on the host."},                           \
	{"quotas", JSON_FIELD_OBJECT, offsetof(struct project_spec, quotas), .table = &quotas_table}

static const struct json_field project_spec_fields[] = {PROJECT_SPEC_FIELDS};
const struct json_table project_spec_table = JSON_TABLE("ProjectSpec", struct project_spec, project_spec_fields);

#define USED(name_, quota_)                                                                                   \
	{name_, JSON_FIELD_INT, offsetof(struct usage, used) + (quota_) * sizeof(int64_t), .read_only = true, .max = INT64_MAX}

static const struct json_field usage_fields[] = {
	USED("machines", QUOTA_MACHINES), USED("vcpus", QUOTA_VCPUS), USED("memory_mib", QUOTA_MEMORY_MIB),
	USED("disk_mib", QUOTA_DISK_MIB), USED("ports", QUOTA_PORTS),
};
const struct json_table usage_table = JSON_TABLE("Usage", struct usage, usage_fields);

static const struct json_field project_fields[] = {
	PROJECT_SPEC_FIELDS,
	{"usage", JSON_FIELD_OBJECT, offsetof(struct project_view, usage), .table = &usage_table, .read_only = true,
		.help = "What it has of what its quotas bound."},
	{"created_at", JSON_FIELD_STRING, offsetof(struct project_view, created_at), .read_only = true},
};
const struct json_table project_table = JSON_TABLE("Project", struct project_view, project_fields);

/* The API's Project, a new object; NULL with `err` set. */
static json_t *dump(struct hulld *hulld, const struct project_record *record, struct error *err)
{
	cleanup_free char *created = format_time(record->created_at);
	struct project_view view = {.spec.name = (char *)record->name, .created_at = created};

	json_t *dumped = NULL;

	if (quotas_parse(record->quotas, &view.spec.quotas, err) < 0)
		return NULL;
	if (project_usage(hulld, record->name, &view.usage, err) == 0)
		dumped = json_dump(&project_table, &view);
	json_done(&quotas_table, &view.spec.quotas);
	return dumped;
}

static void reply_project(struct request *req, int status, struct hulld *hulld, const struct project_record *record)
{
	struct error err;
	json_t *dumped = dump(hulld, record, &err);

	if (dumped)
		request_reply(req, status, dumped);
	else
		request_refuse_error(req, &err);
}

/* The project that the path names, if the client may know of it. False: refused. */
static bool find(struct request *req, struct hulld *hulld, struct project_record *ret)
{
	const struct client *client = request_client(req);
	struct error err;

	if (!client->is_host && strcmp(client->project, request_param(req)) != 0)
		error_set(&err, ENOENT, "there is no project \"%s\"", request_param(req));
	else if (store_project_get(hulld->store, request_param(req), ret, &err) == 0)
		return true;
	request_refuse_lookup(req, &err);
	return false;
}

/* False: refused. */
static bool find_matching(struct request *req, struct hulld *hulld, struct project_record *ret)
{
	json_t *dumped;
	struct error err;

	if (!find(req, hulld, ret))
		return false;
	dumped = dump(hulld, ret, &err);
	if (!dumped)
		request_refuse_error(req, &err);
	else if (request_check_match(req, dumped) == 0)
		return true;
	project_record_done(ret);
	return false;
}

/* With the answer, `*ret_shown`, a new reference: who asks again is not told that the name is taken. 0 or -errno with `err` set. */
static int insert(struct request *req, struct hulld *hulld, const struct project_record *record, json_t **ret_shown, struct error *err)
{
	int r = store_check_room(hulld->store, strlen(record->quotas), err);

	*ret_shown = NULL;
	if (r == 0)
		r = store_transaction_begin(hulld->store, err);
	if (r < 0)
		return r;
	r = store_project_insert(hulld->store, record, err);
	if (r == 0 && !(*ret_shown = dump(hulld, record, err)))
		r = -err->errnum;
	if (r == 0)
		r = request_keep(req, 201, *ret_shown, err);
	return store_transaction_end(hulld->store, r, err);
}

static void refuse_departing(struct request *req, const struct error *err)
{
	struct problem problem;

	problem_set(&problem, PROBLEM_BUSY, "name", "%s", err->message);
	problem_set_hint(&problem, "ask again in a moment");
	request_refuse(req, &problem);
}

void project_http_create(struct request *req, void *ctx)
{
	struct project_record record = {.created_at = now_ms()};
	struct hulld *hulld = ctx;
	struct project_spec spec;
	struct error err;
	json_t *shown;

	if (request_read(req, &project_spec_table, &spec) < 0)
		return;
	snprintf(record.name, sizeof(record.name), "%s", spec.name);
	record.quotas = json_dump_text(&quotas_table, &spec.quotas);
	json_done(&project_spec_table, &spec);
	if (insert(req, hulld, &record, &shown, &err) == 0)
		request_reply(req, 201, json_incref(shown));
	else if (err.errnum == EEXIST)
		request_refuse_with(req, PROBLEM_NAME_TAKEN, "name", "a project \"%s\" exists already", record.name);
	else if (err.errnum == EBUSY)
		refuse_departing(req, &err);
	else
		request_refuse_error(req, &err);
	json_decref(shown);
	project_record_done(&record);
}

struct listing {
	struct hulld *hulld;
	const struct client *client;
	struct page page;
	struct error err;
};

static int list_one(void *ctx, struct project_record *record)
{
	struct listing *listing = ctx;
	bool seen = listing->client->is_host || strcmp(listing->client->project, record->name) == 0;
	bool wanted = seen && page_has(&listing->page, record->name);
	json_t *dumped = wanted ? dump(listing->hulld, record, &listing->err) : NULL;

	if (dumped)
		page_add(&listing->page, record->name, dumped);
	project_record_done(record);
	return wanted && !dumped ? -listing->err.errnum : 0;
}

void project_http_list(struct request *req, void *ctx)
{
	struct hulld *hulld = ctx;
	struct listing listing = {.hulld = hulld, .client = request_client(req)};

	if (page_begin(req, &listing.page) < 0)
		return;
	page_end(&listing.page, req, store_projects_each(hulld->store, list_one, &listing, &listing.err), &listing.err);
}

void project_http_get(struct request *req, void *ctx)
{
	struct project_record record;

	if (!find_matching(req, ctx, &record))
		return;
	reply_project(req, 200, ctx, &record);
	project_record_done(&record);
}

void project_http_set_quotas(struct request *req, void *ctx)
{
	struct project_record record;
	struct hulld *hulld = ctx;
	struct quotas quotas;
	struct error err;

	if (!find_matching(req, hulld, &record))
		return;
	if (request_read(req, &quotas_table, &quotas) == 0) {
		free(record.quotas);
		record.quotas = json_dump_text(&quotas_table, &quotas);
		json_done(&quotas_table, &quotas);
		if (store_project_update(hulld->store, &record, &err) < 0)
			request_refuse_error(req, &err);
		else
			reply_project(req, 200, hulld, &record);
	}
	project_record_done(&record);
}

int projects_forget(struct hulld *hulld, int64_t now, struct error *err)
{
	(void)now;
	return store_projects_forget(hulld->store, err);
}

static bool is_of_project(const struct client *client, void *project)
{
	return strcmp(client->project, project) == 0;
}

static void release_blob(struct hulld *hulld, const char *digest)
{
	struct error err;

	if (store_count_blob_owners(hulld->store, digest, &err) == 0)
		blob_remove(hulld->blobs, digest);
}

static int refuse_in_use(const struct hulld *hulld, const char *name, struct problem *problem)
{
	const struct machine *m = hulld->machines;
	struct error err;
	int64_t n_volumes;

	if (strcmp(name, PROJECT_DEFAULT) == 0)
		return problem_set(problem, PROBLEM_PROJECT_IN_USE, NULL, "the project %s is always there", name);
	while (m && strcmp(m->record.project, name) != 0)
		m = m->next;
	if (m) {
		problem_set(problem, PROBLEM_PROJECT_IN_USE, NULL, "machine %s is in it", m->record.name);
		return problem_set_hint(problem, "delete its machines first");
	}
	n_volumes = store_count(hulld->store, STORE_VOLUMES, name, &err);
	if (n_volumes < 0)
		return problem_from_error(problem, &err);
	if (n_volumes == 0)
		return 0;
	problem_set(problem, PROBLEM_PROJECT_IN_USE, NULL, "it has volumes");
	return problem_set_hint(problem, "delete them first");
}

static int delete_project(struct hulld *hulld, const char *name, struct error *err)
{
	networks_end(hulld, name); /* it has no machines: nothing is lost should it stay after all */
	return store_project_delete(hulld->store, name, DELETE_NS, err);
}

void project_http_delete(struct request *req, void *ctx)
{
	struct project_record record;
	struct hulld *hulld = ctx;
	struct problem problem;
	struct error err;

	if (!find_matching(req, hulld, &record))
		return;
	if (refuse_in_use(hulld, record.name, &problem) < 0) {
		request_refuse(req, &problem);
	} else if (delete_project(hulld, record.name, &err) < 0) {
		request_refuse_error(req, &err);
	} else {
		request_reply(req, 204, NULL);
		/* Whoever is still at it is not to leave anything behind. */
		http_end_requests(hulld->http, is_of_project, record.name);
		blobs_each_stale(hulld->blobs, -1, release_blob, hulld);
		webhooks_forget(hulld->webhooks, record.name);
		forgetter_look(hulld->forgetter);
	}
	project_record_done(&record);
}
