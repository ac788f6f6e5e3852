/* Operations over HTTP. What is shown is what is in the database, and so what events have told. */
#include "api/operation.h"

#include "api/hulld.h"
#include "api/page.h"
#include "api/progress.h"
#include "common/cleanup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S 1000000000ull

struct subject_view {
	char *id, *name;
};

struct operation_view {
	char *id, *project;
	int kind, state;
	struct subject_view subject;
	char *phase;
	struct progress *progress;
	json_t *phases, *error;
	char *requested_by, *cancelled_by, *created_at, *deadline, *ended_at;
};

static const struct json_field subject_fields[] = {
	{"id", JSON_FIELD_STRING, offsetof(struct subject_view, id), .read_only = true},
	{"name", JSON_FIELD_STRING, offsetof(struct subject_view, name), .read_only = true, .help = "It had when this began."},
};
static const struct json_table subject_table = JSON_TABLE("OperationSubject", struct subject_view, subject_fields);

static const struct json_field operation_fields[] = {
	{"id", JSON_FIELD_STRING, offsetof(struct operation_view, id), .read_only = true, .help = "op and 12 base32 characters."},
	{"project", JSON_FIELD_STRING, offsetof(struct operation_view, project), .read_only = true},
	{"kind", JSON_FIELD_ENUM, offsetof(struct operation_view, kind), .names = operation_kind_names, .read_only = true},
	{"state", JSON_FIELD_ENUM, offsetof(struct operation_view, state), .names = operation_state_names, .read_only = true},
	{"subject", JSON_FIELD_OBJECT, offsetof(struct operation_view, subject), .table = &subject_table, .read_only = true,
		.help = "The machine."},
	{"phase", JSON_FIELD_STRING, offsetof(struct operation_view, phase), .read_only = true, .nullable = true,
		.help = "The one it is in: workload, monitor_end, ports (of an end); disk, network, monitor, kernel, agent, health (of a "
			"start)."},
	{"progress", JSON_FIELD_OPTIONAL, offsetof(struct operation_view, progress), .table = &progress_table, .read_only = true,
		.nullable = true, .help = "Phases that are over, of those that it takes; null where nobody knows. It never goes back."},
	{"phases", JSON_FIELD_ANY, offsetof(struct operation_view, phases), .read_only = true,
		.schema = "{\"type\": \"array\", \"items\": {\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\"}, "
			  "\"started_at\": {\"type\": \"string\"}, \"ended_at\": {\"type\": [\"string\", \"null\"]}}, "
			  "\"required\": [\"name\", \"started_at\", \"ended_at\"], \"additionalProperties\": false}}",
		.help = "Those it has come to: when each began, and ended."},
	{"deadline", JSON_FIELD_STRING, offsetof(struct operation_view, deadline), .read_only = true,
		.help = "When what it waits for is ended by force."},
	{"error", JSON_FIELD_ANY, offsetof(struct operation_view, error), .read_only = true, .nullable = true,
		.schema = "{\"$ref\": \"#/components/schemas/Problem\"}", .help = "Why it failed."},
	{"requested_by", JSON_FIELD_STRING, offsetof(struct operation_view, requested_by), .read_only = true,
		.help = "The id of a token; host: the host's administrator; hulld: by itself."},
	{"cancelled_by", JSON_FIELD_STRING, offsetof(struct operation_view, cancelled_by), .read_only = true, .nullable = true,
		.help = "The same, or the id of the operation that took its place."},
	{"created_at", JSON_FIELD_STRING, offsetof(struct operation_view, created_at), .read_only = true},
	{"ended_at", JSON_FIELD_STRING, offsetof(struct operation_view, ended_at), .read_only = true, .nullable = true},
};
const struct json_table operation_table = JSON_TABLE("Operation", struct operation_view, operation_fields);

static json_t *parse_or(const char *text, json_t *otherwise)
{
	struct error err;
	json_t *parsed = text[0] ? json_parse(text, strlen(text), &err) : NULL;

	if (!parsed)
		return otherwise;
	json_decref(otherwise);
	return parsed;
}

static json_t *dump(const struct operation_record *record)
{
	cleanup_free char *created = format_time(record->created_at), *deadline = format_time(record->deadline);
	cleanup_free char *ended = format_time(record->ended_at);
	struct progress progress;
	bool is_known = operation_progress(record, &progress);
	struct operation_view view = {
		.id = (char *)record->id,
		.project = (char *)record->project,
		.kind = record->kind,
		.state = record->state,
		.subject = {(char *)record->machine, (char *)record->name},
		.phase = record->phase[0] ? (char *)record->phase : NULL,
		.progress = is_known ? &progress : NULL,
		.phases = parse_or(record->phases, json_array()),
		.error = parse_or(record->error, NULL),
		.requested_by = (char *)record->requested_by,
		.cancelled_by = record->cancelled_by[0] ? (char *)record->cancelled_by : NULL,
		.created_at = created,
		.deadline = deadline,
		.ended_at = ended,
	};
	json_t *dumped = json_dump(&operation_table, &view);

	json_decref(view.phases);
	json_decref(view.error);
	return dumped;
}

/* Lists. */

struct list {
	struct page page;
	const char *machine; /* id or name; NULL: any */
	unsigned kinds, states;
};

/* Of those of `names` that the query has, bits; all, where it has none. It is known that there are such names. */
static unsigned read_names(const struct request *req, const char *query, const char *const *names)
{
	const char *text = request_query(req, query);
	unsigned bits = 0;

	for (; text; text = *text ? text + 1 : NULL) {
		size_t len = strcspn(text, ",");

		for (unsigned i = 0; names[i]; i++)
			if (strlen(names[i]) == len && strncmp(names[i], text, len) == 0)
				bits |= 1u << i;
		text += len;
	}
	return bits ? bits : ~0u;
}

static bool fits(const struct list *list, const struct operation_record *record)
{
	if (!(list->kinds & 1u << record->kind) || !(list->states & 1u << record->state))
		return false;
	return !list->machine || strcmp(list->machine, record->machine) == 0 || strcmp(list->machine, record->name) == 0;
}

static int list_one(void *ctx, const struct operation_record *record)
{
	char key[PAGE_KEY_MAX + 1];
	struct list *list = ctx;

	if (fits(list, record) && page_has(&list->page, page_time_key(record->created_at, record->id, key)))
		page_add(&list->page, key, dump(record));
	return page_is_full(&list->page);
}

/* Takes a key of page_time_key() apart. */
static const char *read_key(const char *key, int64_t *ret_at)
{
	char at[17];

	snprintf(at, sizeof(at), "%.16s", key);
	*ret_at = (int64_t)strtoull(at, NULL, 16);
	return key + strlen(at);
}

void operation_http_list(struct request *req, void *ctx)
{
	const struct hulld *hulld = ctx;
	struct list list = {.machine = request_query(req, "machine"), .kinds = read_names(req, "kind", operation_kind_names),
		.states = read_names(req, "state", operation_state_names)};
	struct error err;
	const char *after_id;
	int64_t after_at;

	if (page_begin(req, &list.page) < 0)
		return;
	after_id = read_key(list.page.after, &after_at);
	page_end(&list.page, req, store_operations_each(hulld->store, request_project(req), after_at, after_id, list_one, &list, &err), &err);
}

/* One. */

struct found {
	json_t *dumped; /* owned */
	int state;
	char machine[MACHINE_ID_BYTES + 1];
};

static int take(void *ctx, const struct operation_record *record)
{
	struct found *found = ctx;

	*found = (struct found){.dumped = dump(record), .state = record->state};
	snprintf(found->machine, sizeof(found->machine), "%s", record->machine);
	return 0;
}

/* Before it is known whether the request has been done already. False: refused. */
static bool find_as_it_is(struct request *req, const struct hulld *hulld, struct found *ret)
{
	struct error err;
	int r = store_operation_get(hulld->store, request_project(req), request_param(req), take, ret, &err);

	if (r == -ENOENT)
		request_refuse_with(req, PROBLEM_NOT_FOUND, NULL, "there is no operation \"%s\"", request_param(req));
	else if (r < 0)
		request_refuse_error(req, &err);
	return r == 0;
}

static int check_match(struct request *req, const struct found *found)
{
	return request_condition(req) ? request_check_match(req, json_incref(found->dumped)) : 0;
}

/* False: refused. */
static bool find(struct request *req, const struct hulld *hulld, struct found *ret)
{
	if (!find_as_it_is(req, hulld, ret))
		return false;
	if (check_match(req, ret) == 0)
		return true;
	json_decref(ret->dumped);
	return false;
}

void operation_http_get(struct request *req, void *ctx)
{
	struct found found;

	if (find(req, ctx, &found))
		request_reply(req, 200, found.dumped);
}

/* As it is by now. */
static void reply(struct request *req, const struct hulld *hulld)
{
	struct found found;

	if (find_as_it_is(req, hulld, &found))
		request_reply(req, 200, found.dumped);
}

/* Also one that has ended so: whoever asks again gets what they asked for. */
static bool is_cancelled(const struct found *found)
{
	return found->state == OPERATION_CANCELLED;
}

static void cancel_and_reply(struct request *req, struct hulld *hulld, const struct found *found)
{
	struct machine *m = machine_by_id(hulld, found->machine);
	const struct operation_record *current = m ? operation_current(m) : NULL;
	struct problem problem;

	if (!current || strcmp(current->id, request_param(req)) != 0)
		request_refuse_with(req, PROBLEM_WRONG_STATE, NULL, "operation %s has %s", request_param(req),
			operation_state_names[found->state]);
	else if (machine_cancel(m, operation_asker(request_client(req)), &problem) < 0)
		request_refuse(req, &problem);
	else
		reply(req, hulld);
}

void operation_http_cancel(struct request *req, void *ctx)
{
	struct hulld *hulld = ctx;
	struct found found;

	if (!find_as_it_is(req, hulld, &found))
		return;
	if (is_cancelled(&found))
		reply(req, hulld);
	else if (check_match(req, &found) == 0)
		cancel_and_reply(req, hulld, &found);
	json_decref(found.dumped);
}

/* Waiting. */

struct operation_waiter {
	struct hulld *hulld;
	struct request *req;
	struct loop_source *timer;
	struct operation_waiter *next, **prev;
};

static void waiter_free(struct operation_waiter *waiter)
{
	*waiter->prev = waiter->next;
	if (waiter->next)
		waiter->next->prev = waiter->prev;
	loop_remove(waiter->timer);
	free(waiter);
}

static void on_gone(void *ctx)
{
	waiter_free(ctx);
}

static void on_timer(void *ctx)
{
	struct operation_waiter *waiter = ctx;

	request_refuse_with(waiter->req, PROBLEM_TIMEOUT, NULL, "operation %s is still under way", request_param(waiter->req));
	waiter_free(waiter);
}

void operation_tell(struct operation_waiter **waiters)
{
	while (*waiters) {
		struct operation_waiter *waiter = *waiters;

		reply(waiter->req, waiter->hulld);
		waiter_free(waiter);
	}
}

void operation_http_wait(struct request *req, void *ctx)
{
	struct operation_waiter *waiter, **list;
	struct hulld *hulld = ctx;
	int64_t timeout_s = request_query_int(req, "timeout_s", -1);
	struct found found;

	if (!find(req, hulld, &found))
		return;
	list = operation_waiters(hulld, request_param(req));
	if (found.state != OPERATION_RUNNING || !list) {
		request_reply(req, 200, found.dumped);
		return;
	}
	json_decref(found.dumped);
	waiter = calloc(1, sizeof(*waiter));
	if (!waiter)
		abort();
	*waiter = (struct operation_waiter){hulld, req, loop_add_timer(hulld->loop, on_timer, waiter), *list, list};
	if (!waiter->timer)
		abort();
	if (*list)
		(*list)->prev = &waiter->next;
	*list = waiter;
	loop_timer_arm(waiter->timer, timeout_s < 0 ? UINT64_MAX : (uint64_t)timeout_s * NS_PER_S);
	request_on_gone(req, on_gone, waiter);
}
