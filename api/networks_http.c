/* Networks over HTTP. */
#include "api/networks.h"

#include "api/labels.h"
#include "api/merge_patch.h"
#include "api/network/words.h"
#include "api/network_watch.h"
#include "api/page.h"
#include "api/random.h"
#include "common/buf.h"
#include "common/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define POOL_BASE   0x0a580000u /* 10.88.0.0/16, from which a subnet is taken that nobody has asked for, */
#define POOL_PREFIX 24		/* as large as this */
#define POOL_SIZE   256		/* of those */
#define ROUTES_MAX  (1u << 20)

static int check_subnet(const char *value, struct error *err)
{
	struct subnet ignored;

	return subnet_parse(value, &ignored, err);
}

static int check_name(const char *value, struct error *err)
{
	if (network_kind_of(value) != NETWORK_NAMED)
		return error_set(err, EINVAL, "must not be default or none, which every project has");
	return name_check(value, err);
}

#define SPEC_FIELDS                                                                                                            \
	{"name", JSON_FIELD_STRING, offsetof(struct network_spec, name), .required = true, .max = NAME_MAX_BYTES, .check = check_name,     \
		.pattern = "^(?!(default|none)$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"},                                                   \
	{"subnet", JSON_FIELD_STRING, offsetof(struct network_spec, subnet), .max = SUBNET_TEXT_BYTES - 1, .check = check_subnet,               \
		.pattern = "^(10|100|172|192)(\\.(0|[1-9][0-9]{0,2})){3}/2[2-9]$",                                                         \
		.help = "IPv4, private, with a prefix of 22 to 29 bits; one of 10.88.0.0/16 when absent."},                             \
	{"egress", JSON_FIELD_BOOL, offsetof(struct network_spec, egress), .def = true,                                                \
		.help = "Its machines reach what the host reaches; false: each other only."},                                          \
	{"labels", JSON_FIELD_MAP, offsetof(struct network_spec, labels), .help = "Free for clients."}

static const struct json_field spec_fields[] = {SPEC_FIELDS};
const struct json_table network_spec_table = JSON_TABLE("NetworkSpec", struct network_spec, spec_fields);

struct member {
	char *id, *name, *address;
	bool lost;
};

#define TEXT(type_, name_, ...) {#name_, JSON_FIELD_STRING, offsetof(struct type_, name_), .read_only = true, __VA_ARGS__}
static const struct json_field member_fields[] = {
	TEXT(member, id), TEXT(member, name), TEXT(member, address),
	{"lost", JSON_FIELD_BOOL, offsetof(struct member, lost), .read_only = true,
		.help = "It runs, and is not on the network any more, as what held that was ended: it is to be started again."},
};
static const struct json_table member_table = JSON_TABLE("NetworkMachine", struct member, member_fields);

enum state { STATE_IDLE, STATE_ACTIVE, STATE_FAILING };
static const char *const state_names[] = {[STATE_IDLE] = "idle", [STATE_ACTIVE] = "active", [STATE_FAILING] = "failing", NULL};

struct view {
	struct network_spec spec;
	char *id, *project, *gateway, *created_at;
	int state; /* enum state */
	char *reason; /* NULL: nothing is wrong */
	struct json_array machines; /* of struct member */
};

static const struct json_field view_fields[] = {
	SPEC_FIELDS,
	TEXT(view, id, .help = "n and 12 base32 characters."),
	TEXT(view, project),
	TEXT(view, gateway, .help = "Of its machines; their name server, too."),
	{"state", JSON_FIELD_ENUM, offsetof(struct view, state), .read_only = true, .names = state_names,
		.help = "active: a machine runs on it; failing: and not all is well."},
	{"reason", JSON_FIELD_STRING, offsetof(struct view, reason), .read_only = true, .nullable = true, .help = "Why it is failing."},
	{"machines", JSON_FIELD_ARRAY, offsetof(struct view, machines), .read_only = true, .table = &member_table,
		.help = "Those that are on it, by what they run with, or are to."},
	TEXT(view, created_at),
};
const struct json_table network_table = JSON_TABLE("Network", struct view, view_fields);

/* ---- showing ---- */

static bool is_on(const struct machine *m, const struct network_record *record)
{
	return strcmp(m->record.project, record->project) == 0 && strcmp(machine_running_spec(m)->network, record->name) == 0;
}

static void add_members(const struct hulld *hulld, const struct network_record *record, struct view *view)
{
	struct member *members = NULL;
	size_t n = 0;

	for (const struct machine *m = hulld->machines; m; m = m->next) {
		char address[ADDRESS_TEXT_BYTES];

		if (!is_on(m, record) || m->record.state == MACHINE_CREATING)
			continue;
		members = reallocarray(members, n + 1, sizeof(*members));
		if (!members)
			abort();
		members[n].id = (char *)m->record.id;
		members[n].name = (char *)m->record.name;
		members[n].lost = network_has_lost(m);
		members[n++].address = strdup(address_format(machine_address(m), address));
		view->state = machine_is_active(m) ? STATE_ACTIVE : view->state;
	}
	view->machines = (struct json_array){members, n};
}

/* While machines run on it. Owned by the caller; NULL: nothing is wrong. */
static char *find_reason(const struct hulld *hulld, const struct network_record *record, const struct view *view)
{
	const char *fault = network_fault(hulld, record->id);
	const struct member *members = view->machines.items;
	const char *first = NULL;
	char *reason = NULL;
	size_t n = 0;
	int r = 0;

	for (size_t i = 0; i < view->machines.len; i++)
		if (members[i].lost && n++ == 0)
			first = members[i].name;
	if (n > 1)
		r = asprintf(&reason, "what held it has ended: machines %s and %zu more have lost it until they are started again", first, n - 1);
	else if (n == 1)
		r = asprintf(&reason, "what held it has ended: machine %s has lost it until it is started again", first);
	else if (fault && view->state == STATE_ACTIVE)
		r = asprintf(&reason, "%s", fault);
	if (r < 0)
		abort();
	return reason;
}

/* NULL with `err` set: its row is damaged. */
static json_t *dump(const struct hulld *hulld, const struct network_record *record, struct error *err)
{
	cleanup_free char *created = format_time(record->created_at);
	struct view view = {.id = (char *)record->id, .project = (char *)record->project, .created_at = created};
	char gateway[ADDRESS_TEXT_BYTES];
	struct subnet subnet;
	json_t *dumped;

	if (network_read(record, &view.spec, &subnet, err) < 0)
		return NULL;
	view.gateway = address_format(subnet_gateway(&subnet), gateway);
	add_members(hulld, record, &view);
	view.reason = find_reason(hulld, record, &view);
	view.state = view.reason ? STATE_FAILING : view.state;
	dumped = json_dump(&network_table, &view);
	free(view.reason);
	for (size_t i = 0; i < view.machines.len; i++)
		free(((struct member *)view.machines.items)[i].address);
	free(view.machines.items);
	json_done(&network_spec_table, &view.spec);
	return dumped;
}

/* The one that the path names. -errno: refused. */
static int find(struct request *req, struct hulld *hulld, struct network_record *ret)
{
	struct error err;
	int r = store_network_get(hulld->store, request_project(req), request_param(req), ret, &err);

	if (r < 0)
		request_refuse_lookup(req, &err);
	return r;
}

/* ---- subnets ---- */

struct used {
	struct subnet subnets[NETWORKS_MAX];
	char names[NETWORKS_MAX][NAME_MAX_BYTES + 1];
	size_t n;
};

/* One that is damaged keeps its name, and no addresses. */
static int note_subnet(void *ctx, const struct network_record *record)
{
	struct used *used = ctx;
	struct network_spec spec;
	struct error ignored;

	if (used->n >= NETWORKS_MAX)
		return 0;
	if (network_read(record, &spec, &used->subnets[used->n], &ignored) == 0)
		json_done(&network_spec_table, &spec);
	else
		used->subnets[used->n] = (struct subnet){0, 32};
	snprintf(used->names[used->n++], sizeof(used->names[0]), "%s", record->name);
	return 0;
}

/* What the host reaches by a route of its own, and its machines would not any more. The default route is none of these, and no more are the
 * halves, say, that a VPN puts in its place: what is wider than all that is private in one piece (8 bits). */
static bool host_routes(const struct subnet *subnet)
{
	struct buf text;
	bool found = false;
	char *rest = NULL;

	buf_init(&text, ROUTES_MAX);
	if (buf_read_file(&text, "/proc/net/route") == 0)
		for (char *line = strtok_r(text.data, "\n", &rest); line && !found; line = strtok_r(NULL, "\n", &rest)) {
			uint32_t base, mask;

			/* Interface, destination, gateway, flags, counts, metric, mask: numbers in the network's order, as they are in memory. */
			if (sscanf(line, "%*s %" SCNx32 " %*s %*s %*s %*s %*s %" SCNx32, &base, &mask) == 2 &&
				ntohl(mask) >= 0xff000000)
				found = ((ntohl(base) ^ subnet->base) & ntohl(mask) & (UINT32_MAX << (32 - subnet->prefix))) == 0;
		}
	buf_done(&text);
	return found;
}

static const char *overlaps(const struct used *used, const struct subnet *subnet)
{
	for (size_t i = 0; i < used->n; i++)
		if (subnets_overlap(&used->subnets[i], subnet))
			return used->names[i];
	return NULL;
}

/* Others' networks are in namespaces of their own: what subnets they have is nobody's business. */
static int settle_subnet(const struct used *used, struct network_spec *spec, struct problem *problem)
{
	char text[SUBNET_TEXT_BYTES];
	struct subnet subnet;
	const char *other;
	struct error err;

	for (uint32_t i = 0; !spec->subnet && i < POOL_SIZE; i++) {
		subnet = (struct subnet){POOL_BASE + (i << (32 - POOL_PREFIX)), POOL_PREFIX};
		if (!overlaps(used, &subnet) && !host_routes(&subnet))
			spec->subnet = strdup(subnet_format(&subnet, text));
	}
	if (!spec->subnet) {
		problem_set(problem, PROBLEM_INVALID_FIELD, "subnet", "none of 10.88.0.0/16 is free");
		return problem_set_hint(problem, "name one that the host has no route to");
	}
	if (subnet_parse(spec->subnet, &subnet, &err) < 0)
		return problem_from_error(problem, &err);
	other = overlaps(used, &subnet);
	if (other)
		return problem_set(problem, PROBLEM_INVALID_FIELD, "subnet", "overlaps with that of network %s", other);
	if (host_routes(&subnet)) {
		problem_set(problem, PROBLEM_INVALID_FIELD, "subnet", "overlaps with a network that the host is on, or has a route to");
		return problem_set_hint(problem, "choose another, or leave it out");
	}
	return 0;
}

/* ---- changing ---- */

static int create(struct request *req, struct hulld *hulld, struct network_spec *spec, struct network_record *record, struct problem *problem)
{
	struct used used = {.n = 0};
	struct error err;

	if (networks_check_host(hulld, problem) < 0)
		return -ECANCELED;
	if (store_networks_each(hulld->store, request_project(req), note_subnet, &used, &err) < 0)
		return problem_from_error(problem, &err);
	for (size_t i = 0; i < used.n; i++)
		if (strcmp(used.names[i], spec->name) == 0)
			return problem_set(problem, PROBLEM_NAME_TAKEN, "name", "a network \"%s\" exists already", spec->name);
	if (used.n >= NETWORKS_MAX) {
		problem_set(problem, PROBLEM_QUOTA_EXCEEDED, NULL, "a project may have %d networks", NETWORKS_MAX);
		return problem_set_hint(problem, "delete what is not needed");
	}
	if (settle_subnet(&used, spec, problem) < 0)
		return -ECANCELED;
	record->created_at = now_ms();
	record->id[0] = 'n';
	random_base32(record->id + 1, NETWORK_ID_BYTES - 1);
	snprintf(record->project, sizeof(record->project), "%s", request_project(req));
	snprintf(record->name, sizeof(record->name), "%s", spec->name);
	record->spec = json_dump_text(&network_spec_table, spec);
	return 0;
}

/* The row, and the answer, which a repetition with the same key gets. */
static int insert(struct request *req, struct hulld *hulld, const struct network_record *record, json_t *shown, struct error *err)
{
	int r = shown ? store_check_room(hulld->store, strlen(record->spec), err) : -err->errnum;

	if (r == 0)
		r = store_transaction_begin(hulld->store, err);
	if (r < 0)
		return r;
	r = store_network_insert(hulld->store, record, err);
	if (r == 0)
		r = request_keep(req, 201, shown, err);
	return store_transaction_end(hulld->store, r, err);
}

void network_http_create(struct request *req, void *ctx)
{
	struct network_record record = {.id = ""};
	struct network_spec spec;
	struct problem problem;
	struct error err;
	json_t *shown;

	if (request_read(req, &network_spec_table, &spec) < 0)
		return;
	if (create(req, ctx, &spec, &record, &problem) < 0) {
		request_refuse(req, &problem);
	} else {
		shown = dump(ctx, &record, &err);
		if (shown && request_query_int(req, "dry_run", 0))
			request_reply(req, 201, json_incref(shown));
		else if (insert(req, ctx, &record, shown, &err) < 0)
			request_refuse_error(req, &err);
		else
			request_reply(req, 201, json_incref(shown));
		json_decref(shown);
	}
	network_record_done(&record);
	json_done(&network_spec_table, &spec);
}

struct listing {
	const struct hulld *hulld;
	struct label_filter labels;
	struct page page;
	struct error err;
};

static int list_one(void *ctx, const struct network_record *record)
{
	struct listing *listing = ctx;
	json_t *shown;

	shown = dump(listing->hulld, record, &listing->err);
	if (!shown)
		return -listing->err.errnum;
	if (label_filter_fits(&listing->labels, json_object_get(shown, "labels")) && page_has(&listing->page, record->name))
		page_add(&listing->page, record->name, json_incref(shown));
	json_decref(shown);
	return page_is_full(&listing->page);
}

void network_http_list(struct request *req, void *ctx)
{
	struct listing listing = {.hulld = ctx};
	int r;

	if (label_filter_read(req, &listing.labels) < 0 || page_begin(req, &listing.page) < 0)
		return;
	r = store_networks_each(listing.hulld->store, request_project(req), list_one, &listing, &listing.err);
	page_end(&listing.page, req, r, &listing.err);
}

void network_http_get(struct request *req, void *ctx)
{
	struct network_record record;
	struct error err;
	json_t *shown;

	if (find(req, ctx, &record) < 0)
		return;
	shown = dump(ctx, &record, &err);
	if (shown)
		request_reply_matching(req, shown);
	else
		request_refuse_error(req, &err);
	network_record_done(&record);
}

/* Only labels change: machines would have other addresses. A subnet that is not said is any, and so the one that it has. */
static int check_same(const struct network_spec *before, const struct network_spec *spec, struct problem *problem)
{
	const char *field = NULL;

	if (strcmp(before->name, spec->name) != 0)
		field = "name";
	else if (spec->subnet && strcmp(before->subnet, spec->subnet) != 0)
		field = "subnet";
	else if (before->egress != spec->egress)
		field = "egress";
	if (!field)
		return 0;
	problem_set(problem, PROBLEM_INVALID_FIELD, field, "cannot be changed, only labels can");
	return problem_set_hint(problem, "create another network, and give it to the machines");
}

/* `record` becomes what `patch` makes of it. 0, or -ECANCELED with `problem` set. */
static int change(struct network_record *record, const json_t *patch, struct problem *problem)
{
	struct network_spec before, after;
	struct subnet ignored;
	struct error err;
	int r;

	if (network_read(record, &before, &ignored, &err) < 0)
		return problem_from_error(problem, &err);
	r = merge_patch_read(&network_spec_table, record->spec, patch, &after, problem);
	if (r == 0) {
		r = check_same(&before, &after, problem);
		if (r == 0) {
			if (!after.subnet)
				after.subnet = steal_ptr(&before.subnet);
			free(record->spec);
			record->spec = json_dump_text(&network_spec_table, &after);
		}
		json_done(&network_spec_table, &after);
	}
	json_done(&network_spec_table, &before);
	return r;
}

/* It is as the record says from now on, or would be. */
static void reply_changed(struct request *req, struct hulld *hulld, const struct network_record *record)
{
	struct error err;
	json_t *shown = dump(hulld, record, &err);

	if (shown && (request_query_int(req, "dry_run", 0) || store_network_update(hulld->store, record, &err) == 0)) {
		request_reply(req, 200, shown);
	} else {
		json_decref(shown);
		request_refuse_error(req, &err);
	}
}

void network_http_patch(struct request *req, void *ctx)
{
	struct network_record record;
	struct problem problem;
	struct error err;
	json_t *document;

	if (find(req, ctx, &record) < 0)
		return;
	if (request_check_match(req, dump(ctx, &record, &err)) == 0 && (document = request_read_json(req))) {
		if (change(&record, document, &problem) < 0)
			request_refuse(req, &problem);
		else
			reply_changed(req, ctx, &record);
		json_decref(document);
	}
	network_record_done(&record);
}

/* One that has it, or is to have it. */
static const struct machine *find_user(const struct hulld *hulld, const struct network_record *record)
{
	for (const struct machine *m = hulld->machines; m; m = m->next)
		if (strcmp(m->record.project, record->project) == 0 &&
			(strcmp(m->spec.network, record->name) == 0 || is_on(m, record)))
			return m;
	return NULL;
}

void network_http_delete(struct request *req, void *ctx)
{
	struct network_record record;
	struct hulld *hulld = ctx;
	const struct machine *user;
	struct problem problem;
	struct error err;

	if (find(req, hulld, &record) < 0)
		return;
	user = find_user(hulld, &record);
	if (request_check_match(req, dump(hulld, &record, &err)) < 0) {
		; /* refused */
	} else if (user) {
		problem_set(&problem, PROBLEM_NETWORK_IN_USE, NULL, "machine %s is on it", user->record.name);
		problem_set_hint(&problem, strcmp(user->spec.network, record.name) == 0 ? "delete the machine, or give it another network"
										       : "restart the machine: it has another network then");
		request_refuse(req, &problem);
	} else if (store_network_delete(hulld->store, record.project, record.name, &err) < 0) {
		request_refuse_error(req, &err);
	} else {
		network_end(hulld, record.id);
		request_reply(req, 204, NULL);
	}
	network_record_done(&record);
}
