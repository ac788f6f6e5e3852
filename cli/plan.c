/* Making and showing plans.
 *
 * Theory of operation. A field that the file names is to be as the file says, wholly: of an object in it, and of env and labels, what the
 * file has not goes. A field that it does not name is left alone. The patch that says so is tried with dry_run, and what hulld answers is
 * compared with what there is: neither defaults nor other ways of writing a value are differences then, and what cannot be is refused
 * before anything is done. */
#include "cli/plan.h"

#include "cli/diff.h"
#include "cli/output.h"
#include "common/checked.h"
#include "common/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const action_names[PLAN_N_ACTIONS] = {
	[PLAN_NOTHING] = "nothing", [PLAN_CREATE] = "create", [PLAN_CHANGE] = "change", [PLAN_DELETE] = "delete"};

bool plan_is_active(const json_t *machine)
{
	const char *state = json_text(machine, "state");

	return strcmp(state, "running") == 0 || strcmp(state, "starting") == 0 || strcmp(state, "stopping") == 0;
}

/* A network is known by its name only, which stays. */
char *plan_path(enum manifest_kind kind, const json_t *thing, const char *query)
{
	return client_path(manifest_words[kind].collection, json_text(thing, kind == MANIFEST_NETWORK ? "name" : "id"), query);
}

/* ---- bodies ---- */

/* A merge patch that makes `before` be `value`. */
static json_t *replacing(const json_t *value, const json_t *before)
{
	json_t *patch = json_deep_copy(value), *there;
	const char *key;

	if (!patch)
		abort();
	json_object_foreach((json_t *)before, key, there) {
		const json_t *wanted = json_object_get(value, key);

		if (!wanted)
			json_object_set_new(patch, key, json_null());
		else if (json_is_object(wanted) && json_is_object(there))
			json_object_set_new(patch, key, replacing(wanted, there));
	}
	return patch;
}

static json_t *make_patch(const json_t *spec, const json_t *before)
{
	json_t *patch = json_object(), *value;
	const char *key;

	json_object_foreach((json_t *)spec, key, value)
		if (strcmp(key, "name") != 0)
			json_object_set_new(patch, key,
				json_is_object(value) ? replacing(value, json_object_get(before, key)) : json_deep_copy(value));
	return patch;
}

/* null is what it is by default. */
static json_t *without_nulls(const json_t *value)
{
	json_t *copy, *item;
	const char *key;

	if (!json_is_object(value))
		return json_deep_copy(value);
	copy = json_object();
	json_object_foreach((json_t *)value, key, item)
		if (!json_is_null(item))
			json_object_set_new(copy, key, without_nulls(item));
	return copy;
}

/* ---- one machine ---- */

static json_t *shown_field(const json_t *machine, const char *field)
{
	static const char *const health_shown_only[] = {"state", "reason", "since"};
	json_t *value = json_deep_copy(json_object_get(machine, field));

	if (strcmp(field, "health") == 0)
		for (size_t i = 0; i < ARRAY_SIZE(health_shown_only); i++)
			json_object_del(value, health_shown_only[i]);
	return value;
}

/* The same name may be of other content by now. */
static void compare_content(const json_t *before, const json_t *after, json_t *changes)
{
	const json_t *old = json_object_get(before, "rootfs"), *new = json_object_get(after, "rootfs");

	if (before && json_equal(json_object_get(before, "image"), json_object_get(after, "image")) && old && new)
		diff_values("image.rootfs", old, new, changes);
}

static json_t *compare(const json_t *body, const json_t *before, const json_t *after)
{
	json_t *changes = json_array(), *value;
	const char *field;

	json_object_foreach((json_t *)body, field, value) {
		json_t *old = shown_field(before, field), *new = shown_field(after, field);

		if (strcmp(field, "name") != 0)
			diff_values(field, old, new, changes);
		if (strcmp(field, "image") == 0)
			compare_content(before, after, changes);
		json_decref(old);
		json_decref(new);
	}
	return changes;
}

bool plan_still_holds(const struct plan_step *step, const json_t *now)
{
	json_t *changes = step->body ? compare(step->body, step->before, now) : json_array();
	bool same = json_array_size(changes) == 0 && strcmp(json_text(step->before, "id"), json_text(now, "id")) == 0;

	json_decref(changes);
	return same && (step->body || json_equal(json_object_get(step->before, "labels"), json_object_get(now, "labels")));
}

static void add_label(json_t *body, const char *label)
{
	json_t *labels = json_object_get(body, "labels");
	const char *equals = label ? strchr(label, '=') : NULL;
	cleanup_free char *key = equals ? strndup(label, (size_t)(equals - label)) : NULL;

	if (!key)
		return;
	if (!json_is_object(labels))
		json_object_set_new(body, "labels", labels = json_object());
	json_object_set_new(labels, key, json_string(equals + 1));
}

static bool is_to_be_created(const struct plan *plan, enum manifest_kind kind, const char *name)
{
	for (size_t i = 0; i < plan->n; i++)
		if (plan->steps[i].action == PLAN_CREATE && plan->steps[i].kind == kind && strcmp(plan->steps[i].name, name) == 0)
			return true;
	return false;
}

/* Of a list what names, by `key`, nothing that will only be there by then: that is put into `ret_later`. */
static json_t *list_by_now(const struct plan *plan, const json_t *list, enum manifest_kind kind, const char *key, json_t *ret_later)
{
	json_t *there = json_array(), *item;
	size_t i;

	json_array_foreach ((json_t *)list, i, item)
		json_array_append(is_to_be_created(plan, kind, json_text(item, key)) ? ret_later : there, item);
	return there;
}

/* Lists of what is there before. */
static const struct {
	const char *field, *key;
	enum manifest_kind kind;
} lists[] = {{"depends_on", "machine", MANIFEST_MACHINE}, {"mounts", "volume", MANIFEST_VOLUME}};

/* What hulld is asked about: it knows nothing of machines, volumes and networks that will be there by then. Those are put into
 * `ret_later`, by field. */
static json_t *body_by_now(const struct plan *plan, const json_t *body, json_t *ret_later)
{
	json_t *now = json_copy((json_t *)body);

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		json_t *later = json_array();
		json_t *there = list_by_now(plan, json_object_get(body, lists[i].field), lists[i].kind, lists[i].key, later);

		if (json_array_size(later)) {
			json_object_set(now, lists[i].field, there);
			json_object_set(ret_later, lists[i].field, later);
		}
		json_decref(there);
		json_decref(later);
	}
	if (is_to_be_created(plan, MANIFEST_NETWORK, json_text(body, "network"))) {
		json_object_set(ret_later, "network", json_object_get(body, "network"));
		json_object_del(now, "network");
	}
	return now;
}

static void add_pending(json_t *machine, const char *field)
{
	json_t *pending = json_object_get(machine, "pending"), *other;
	size_t i;

	json_array_foreach (pending, i, other)
		if (strcmp(json_string_value(other), field) == 0)
			return;
	json_array_append_new(pending, json_string(field));
}

/* As if it were all there by now. What hulld adds to one that it takes is what it says of any. */
static void add_later(json_t *after, const json_t *later)
{
	const char *field;
	json_t *value;

	json_object_foreach((json_t *)later, field, value) {
		if (!json_is_array(value) || !json_object_get(after, field))
			json_object_set(after, field, value);
		else
			json_array_extend(json_object_get(after, field), value);
		if (plan_is_active(after) && strcmp(field, "depends_on") != 0)
			add_pending(after, field);
	}
}

/* Of a body that is owned now. */
static int ask(struct client *client, const struct plan *plan, struct plan_step *step, json_t *body, const char *label, struct failure *fail)
{
	const char *collection = manifest_words[step->kind].collection;
	cleanup_free char *path = step->before ? plan_path(step->kind, step->before, "?dry_run=1") : NULL;
	cleanup_free char *post = NULL;
	json_t *later = json_object(), *now;
	int r;

	if (asprintf(&post, "/v1/%s?dry_run=1", collection) < 0)
		abort();
	add_label(body, label);
	step->body = body;
	now = body_by_now(plan, body, later);
	if (step->before)
		r = client_patch(client, path, step->etag, now, &step->after, fail);
	else
		r = client_dry_run(client, post, now, &step->after, fail);
	if (r == 0)
		add_later(step->after, later);
	json_decref(now);
	json_decref(later);
	if (r < 0)
		return r;
	json_decref(step->changes);
	step->changes = compare(body, step->before, step->after);
	step->action = !step->before ? PLAN_CREATE : json_array_size(step->changes) ? PLAN_CHANGE : PLAN_NOTHING;
	return 0;
}

static int look(struct client *client, const struct plan *plan, struct plan_step *step, const char *label, struct failure *fail)
{
	cleanup_free char *path = client_path(manifest_words[step->kind].collection, step->name, "");
	int r = client_get_tagged(client, path, &step->before, &step->etag, fail);

	if (r < 0 && strcmp(fail->code, "not_found") != 0)
		return r;
	/* One whose id that is, is another. */
	if (r == 0 && strcmp(json_text(step->before, "name"), step->name) != 0) {
		json_decref(step->before);
		step->before = NULL;
	}
	memset(fail, 0, sizeof(*fail));
	return ask(client, plan, step, step->before ? make_patch(step->wanted->spec, step->before) : without_nulls(step->wanted->spec), label, fail);
}

static void forget(struct plan_step *step)
{
	json_decref(step->before);
	json_decref(step->after);
	json_decref(step->body);
	json_decref(step->changes);
	free(step->etag);
	step->before = step->after = step->body = step->changes = NULL;
	step->etag = NULL;
}

static int plan_machine(struct client *client, const struct plan *plan, const struct manifest_machine *wanted, const char *label,
	struct plan_step *step, struct failure *fail)
{
	unsigned tries = 0;
	int r;

	*step = (struct plan_step){.kind = wanted->kind, .name = wanted->name, .wanted = wanted};
	do {
		forget(step);
		r = look(client, plan, step, label, fail);
	} while (r < 0 && client_tries_again(&tries, fail));
	return r < 0 && (fail->code[0] || fail->error.field[0]) ? manifest_refuse(wanted, fail) : r;
}

/* ---- all ---- */

static struct plan_step *new_step(struct plan *plan)
{
	plan->steps = realloc(plan->steps, (plan->n + 1) * sizeof(*plan->steps));
	if (!plan->steps)
		abort();
	memset(&plan->steps[plan->n], 0, sizeof(*plan->steps));
	return &plan->steps[plan->n++];
}

/* A machine is on it, or will be: one that the file does not make. */
static bool is_named(const struct plan *plan, const char *network)
{
	for (size_t i = 0; i < plan->n; i++)
		if (plan->steps[i].action != PLAN_DELETE && strcmp(json_text(plan->steps[i].after, "network"), network) == 0)
			return true;
	return false;
}

/* Those of a kind that have the label, and are in no file. */
static int find_others(struct client *client, const struct manifest *manifest, enum manifest_kind kind, const char *label, struct plan *plan,
	struct failure *fail)
{
	const char *collection = manifest_words[kind].collection;
	cleanup_free char *escaped = client_escape(label), *list = NULL, *query = NULL;
	json_t *items = NULL, *other;
	size_t i;
	int r;

	if (asprintf(&query, "label=%s", escaped) < 0 || asprintf(&list, "/v1/%s", collection) < 0)
		abort();
	r = client_list(client, list, query, &items, fail);
	json_array_foreach (items, i, other) {
		const char *name = json_text(other, "name");
		cleanup_free char *path = plan_path(kind, other, "");
		struct plan_step *step;

		if (r < 0 || manifest_find(manifest, kind, name) || (kind == MANIFEST_NETWORK && is_named(plan, name)))
			continue;
		step = new_step(plan);
		step->action = PLAN_DELETE;
		step->kind = kind;
		r = client_get_tagged(client, path, &step->before, &step->etag, fail);
		step->name = json_text(step->before, "name");
		if (r < 0 && strcmp(fail->code, "not_found") == 0) {
			memset(fail, 0, sizeof(*fail));
			plan->n--; /* somebody has taken it away */
			r = 0;
		}
	}
	json_decref(items);
	return r;
}

/* A file that says otherwise is not taken for wrong silently. */
static int check_label(const struct manifest *manifest, const char *label, struct failure *fail)
{
	const char *equals = strchr(label, '=');
	cleanup_free char *key = equals ? strndup(label, (size_t)(equals - label)) : NULL;
	json_t *text;

	if (!key || equals == label || !equals[1])
		return failure_usage(fail, "--label", "\"%s\" is not KEY=VALUE", label);
	text = json_string(label);
	if (!text)
		return failure_usage(fail, "--label", "is not UTF-8");
	json_decref(text);
	for (size_t i = 0; i < manifest->n; i++) {
		const json_t *said = json_object_get(json_object_get(manifest->machines[i].spec, "labels"), key);

		if (!said || strcmp(json_string_value(said), equals + 1) == 0)
			continue;
		error_set_field(&fail->error, EINVAL, "labels", "%s is \"%s\" there, and %s by --label", key, json_string_value(said), equals + 1);
		return manifest_refuse(&manifest->machines[i], fail);
	}
	return 0;
}

int plan_make(struct client *client, const struct manifest *manifest, const char *label, bool prune, struct plan *ret, struct failure *fail)
{
	int r = label ? check_label(manifest, label, fail) : 0;

	memset(ret, 0, sizeof(*ret));
	for (size_t i = 0; i < manifest->n && r == 0; i++)
		r = plan_machine(client, ret, &manifest->machines[i], label, new_step(ret), fail);
	if (r == 0 && prune)
		r = find_others(client, manifest, MANIFEST_MACHINE, label, ret, fail);
	if (r == 0 && prune) /* once nobody is on them */
		r = find_others(client, manifest, MANIFEST_NETWORK, label, ret, fail);
	for (size_t i = 0; i < ret->n && r == 0; i++)
		ret->counts[ret->steps[i].action]++;
	return r;
}

void plan_done(struct plan *plan)
{
	for (size_t i = 0; i < plan->n; i++)
		forget(&plan->steps[i]);
	free(plan->steps);
	memset(plan, 0, sizeof(*plan));
}

/* ---- showing ---- */

/* Is the field of that path in `pending`? */
static bool is_pending(const struct plan_step *step, const char *path)
{
	const json_t *pending = json_object_get(step->after, "pending"), *field;
	size_t len = strcspn(path, "."), i;

	json_array_foreach (pending, i, field)
		if (json_string_length(field) == len && strncmp(json_string_value(field), path, len) == 0)
			return true;
	return false;
}

static void print_step(const struct plan_step *step, FILE *out, bool colour)
{
	static const char signs[PLAN_N_ACTIONS] = {[PLAN_CREATE] = '+', [PLAN_CHANGE] = '~', [PLAN_DELETE] = '-'};
	cleanup_free char *head = NULL;
	json_t *change;
	size_t i;

	if (asprintf(&head, "%s %s%s%s%s", manifest_words[step->kind].noun, step->name, step->action == PLAN_DELETE ? " (" : "",
		    step->action == PLAN_DELETE ? json_text(step->before, "state") : "",
		    step->action != PLAN_DELETE ? "" : step->kind == MANIFEST_MACHINE ? "), and what it has written" : ")") < 0)
		abort();
	diff_print_head(out, signs[step->action], head, colour);
	json_array_foreach (step->changes, i, change)
		diff_print(out, change, is_pending(step, json_text(change, "field")) ? "  (at its next start)" : "", colour);
}

void plan_print(const struct plan *plan, FILE *out)
{
	bool colour = diff_in_colour(out);

	for (size_t i = 0; i < plan->n; i++)
		if (plan->steps[i].action != PLAN_NOTHING)
			print_step(&plan->steps[i], out, colour);
}

json_t *plan_describe(const struct plan *plan, bool tried)
{
	json_t *steps = json_array();

	for (size_t i = 0; i < plan->n; i++) {
		const struct plan_step *step = &plan->steps[i];
		json_t *described = json_pack("{s:s, s:s, s:s, s:O*}", "kind", manifest_words[step->kind].noun, "name", step->name, "action", action_names[step->action], "changes", step->changes);

		if (!described)
			abort();
		if (tried)
			json_object_set_new(described, "done", json_boolean(step->done || step->action == PLAN_NOTHING));
		if (json_object_get(step->after, "pending"))
			json_object_set(described, "pending", json_object_get(step->after, "pending"));
		json_array_append_new(steps, described);
	}
	return steps;
}

void plan_print_counts(const struct plan *plan, FILE *out)
{
	fprintf(out, "%zu to create, %zu to change, %zu to delete, %zu as they are\n", plan->counts[PLAN_CREATE], plan->counts[PLAN_CHANGE],
		plan->counts[PLAN_DELETE], plan->counts[PLAN_NOTHING]);
}
