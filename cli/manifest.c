/* Reading files of machines, volumes and networks. JSON is read by the parser that the API has, and YAML's finds its lines. */
#include "cli/manifest.h"

#include "cli/host_path.h"
#include "cli/output.h"
#include "cli/yaml_read.h"
#include "common/buf.h"
#include "common/checked.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/subnet.h"

#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX (16u << 20)

/* Of a file, while it is read. */
struct source {
	const char *name;
	int document; /* 0: it has one only */
	json_t *lines;
	bool says_something; /* not only comments, or nothing */
};

static int refuse(const struct source *source, const char *path, struct failure *fail, const char *what)
{
	char where[32] = "";

	if (source->document)
		snprintf(where, sizeof(where), " (document %d)", source->document);
	return error_set(&fail->error, EINVAL, "%s:%d%s: %s", source->name, yaml_line(source->lines, path), where, what);
}

static int refuse_machine(const struct source *source, const char *path, const char *name, const char *key, struct failure *fail, const char *what)
{
	cleanup_free char *below = NULL, *said = NULL;

	if (asprintf(&below, "%s%s%s", path, path[0] && key[0] ? "." : "", key) < 0 ||
		asprintf(&said, "%s%s%s: %s", name, name[0] ? ": " : "", key, what) < 0)
		abort();
	return refuse(source, below, fail, said);
}

/* Values of these are texts, and what looks like a number or a word of YAML's would not be one. */
static int check_texts(const struct source *source, const char *path, const char *name, const json_t *spec, const char *key,
	struct failure *fail)
{
	cleanup_free char *below = NULL, *written = NULL;
	const char *item;
	json_t *value;

	json_object_foreach(json_object_get(spec, key), item, value) {
		if (json_is_string(value))
			continue;
		if (asprintf(&below, "%s.%s", key, item) < 0)
			abort();
		refuse_machine(source, path, name, below, fail, "must be a text");
		if (json_is_object(value) || json_is_array(value))
			return -EINVAL;
		written = json_is_integer(value) ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
		return failure_hint(fail, "write it in quotes%s%s%s", written ? ", as \"" : "", written ? written : "", written ? "\"" : "");
	}
	return 0;
}

const struct manifest_words manifest_words[MANIFEST_N_KINDS] = {
	[MANIFEST_VOLUME] = {"volume", "volumes", "Volume", "VolumeSpec"},
	[MANIFEST_NETWORK] = {"network", "networks", "Network", "NetworkSpec"},
	[MANIFEST_MACHINE] = {"machine", "machines", "Machine", "MachineSpec"},
};

const struct manifest_machine *manifest_find(const struct manifest *manifest, enum manifest_kind kind, const char *name)
{
	for (size_t i = 0; i < manifest->n; i++)
		if (manifest->machines[i].kind == kind && strcmp(manifest->machines[i].name, name) == 0)
			return &manifest->machines[i];
	return NULL;
}

static int refuse_twice(const struct source *source, const char *path, const struct manifest_machine *first, struct failure *fail)
{
	cleanup_free char *what = NULL, *first_name = NULL;

	if (asprintf(&first_name, "%s%sname", first->path, first->path[0] ? "." : "") < 0 ||
		asprintf(&what, "a %s of that name is at %s:%d already", manifest_words[first->kind].noun, first->file, yaml_line(first->lines, first_name)) < 0)
		abort();
	return refuse_machine(source, path, first->name, "name", fail, what);
}

/* Folders of the host are found from the file's own. */
static int find_folders(const struct source *source, const char *path, const char *name, json_t *spec, struct failure *fail)
{
	cleanup_free char *copy = strdup(source->name);
	struct error err = {0};

	if (!copy)
		abort();
	if (host_paths_in_full(dirname(copy), json_object_get(spec, "mounts"), &err) == 0)
		return 0;
	return refuse_machine(source, path, name, err.field, fail, err.message);
}

/* It has a name, and texts where there can be nothing else. */
static int check(const struct source *source, enum manifest_kind kind, const char *path, const json_t *value, struct failure *fail)
{
	const json_t *said = json_object_get(value, "name");
	const char *name = json_text(value, "name");
	char what[64];
	int r;

	if (!json_is_object(value)) {
		snprintf(what, sizeof(what), "a %s must be an object", manifest_words[kind].noun);
		return refuse(source, path, fail, what);
	}
	if (!json_is_string(said)) {
		snprintf(what, sizeof(what), "is missing: by it a %s is known", manifest_words[kind].noun);
		return refuse_machine(source, path, "", "name", fail, said ? "must be a text" : what);
	}
	r = check_texts(source, path, name, value, "env", fail);
	if (r == 0)
		r = check_texts(source, path, name, value, "labels", fail);
	return r;
}

static int add(struct manifest *manifest, const struct source *source, enum manifest_kind kind, const char *path, const json_t *value,
	struct failure *fail)
{
	const struct manifest_machine *first;
	struct manifest_machine *machine;
	const char *name = json_text(value, "name");
	int r = check(source, kind, path, value, fail);

	if (r < 0)
		return r;
	first = manifest_find(manifest, kind, name);
	if (first)
		return refuse_twice(source, path, first, fail);
	manifest->machines = realloc(manifest->machines, (manifest->n + 1) * sizeof(*machine));
	if (!manifest->machines)
		abort();
	machine = &manifest->machines[manifest->n++];
	*machine = (struct manifest_machine){.kind = kind, .spec = json_deep_copy(value), .path = strdup(path), .file = strdup(source->name),
		.document = source->document, .lines = json_incref(source->lines)};
	if (!machine->spec || !machine->path || !machine->file)
		abort();
	machine->name = json_text(machine->spec, "name");
	return find_folders(source, path, name, machine->spec, fail);
}

static int add_list(struct manifest *manifest, const struct source *source, enum manifest_kind kind, const char *path, const json_t *list,
	struct failure *fail)
{
	const json_t *value;
	size_t i;
	int r = 0;

	json_array_foreach (list, i, value) {
		cleanup_free char *below = NULL;

		if (r < 0)
			break;
		if (asprintf(&below, "%s[%zu]", path, i) < 0)
			abort();
		r = add(manifest, source, kind, below, value, fail);
	}
	return r;
}

/* What else a service is made of has commands of its own. */
static int hint_at_field(const char *key, struct failure *fail)
{
	static const struct {
		const char *key, *hint;
	} others[] = {
		{"secrets", "files have machines, which name secrets; `hull secret set NAME <FILE` makes one"},
		{"images", "files have machines, which name images; `hull image build` makes one"},
		{"projects", "files have machines; `hull project create` makes a project, and `hull --project NAME apply` its machines"},
		{"webhooks", "files have machines; `hull webhook create` makes a webhook"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (strcmp(key, others[i].key) == 0)
			return failure_hint(fail, "%s", others[i].hint);
	for (enum manifest_kind kind = 0; kind < MANIFEST_N_KINDS; kind++)
		if (nearest_name(key, (const char *const[]){manifest_words[kind].collection, NULL}))
			return failure_hint(fail, "did you mean %s?", manifest_words[kind].collection);
	return -EINVAL;
}

static bool is_collection(const char *key)
{
	for (enum manifest_kind kind = 0; kind < MANIFEST_N_KINDS; kind++)
		if (strcmp(key, manifest_words[kind].collection) == 0)
			return true;
	return false;
}

static bool has_collection(const json_t *value)
{
	for (enum manifest_kind kind = 0; kind < MANIFEST_N_KINDS; kind++)
		if (json_object_get(value, manifest_words[kind].collection))
			return true;
	return false;
}

/* {"volumes": [...], "networks": [...], "machines": [...]}, any of these. */
static int add_collections(struct manifest *manifest, const struct source *source, const json_t *value, struct failure *fail)
{
	const json_t *other;
	const char *key;
	int r = 0;

	json_object_foreach((json_t *)value, key, other)
		if (!is_collection(key)) {
			refuse_machine(source, "", "", key, fail, "is no field of a file; it has `machines`, `volumes` and `networks`, or is a machine, with `name` and `image`");
			return hint_at_field(key, fail);
		}
	for (enum manifest_kind kind = 0; kind < MANIFEST_N_KINDS && r == 0; kind++) {
		const json_t *list = json_object_get(value, manifest_words[kind].collection);
		char what[64];

		snprintf(what, sizeof(what), "%s: must be a list of %s", manifest_words[kind].collection, manifest_words[kind].collection);
		if (list && !json_is_array(list))
			r = refuse(source, manifest_words[kind].collection, fail, what);
	}
	if (r == 0 && !has_collection(value))
		r = refuse(source, "", fail, "must be a machine, or have machines");
	for (enum manifest_kind kind = 0; kind < MANIFEST_N_KINDS && r == 0; kind++)
		r = add_list(manifest, source, kind, manifest_words[kind].collection, json_object_get(value, manifest_words[kind].collection), fail);
	return r;
}

static int add_document(struct manifest *manifest, struct source *source, const json_t *value, struct failure *fail)
{
	if (json_is_null(value))
		return 0; /* nothing between two lines of --- */
	source->says_something = true;
	if (json_is_array(value))
		return add_list(manifest, source, MANIFEST_MACHINE, "", value, fail);
	if (!json_is_object(value))
		return refuse(source, "", fail, "must be a machine, or have machines");
	if (!has_collection(value) && (json_object_get(value, "name") || json_object_get(value, "image")))
		return add(manifest, source, MANIFEST_MACHINE, "", value, fail);
	return add_collections(manifest, source, value, fail);
}

static int read_text(const char *file, struct buf *ret, struct failure *fail)
{
	bool input = strcmp(file, "-") == 0;
	ssize_t n = 1;
	int r = 0;

	if (!input)
		r = buf_read_file(ret, file);
	while (input && n > 0)
		n = buf_read_fd(ret, STDIN_FILENO, 65536);
	if (n < 0)
		r = (int)n;
	if (r < 0)
		return failure_usage(fail, "--file", "cannot read %s: %s", input ? "the input" : file, strerror(-r));
	return 0;
}

static bool looks_like_json(const struct buf *text)
{
	size_t blank = text->len ? strspn(text->data, " \t\r\n") : 0;

	return blank < text->len && (text->data[blank] == '{' || text->data[blank] == '[');
}

/* JSON that YAML's reader cannot read (a character in two halves) has the file's first line for all of it. */
static int read_json(struct manifest *manifest, struct source *source, const struct buf *text, json_t *value, struct failure *fail)
{
	struct yaml_document *documents = NULL;
	size_t n = 0;
	int r;

	source->lines = yaml_read(text->data, text->len, &documents, &n, NULL) == 0 && n ? json_incref(documents[0].lines) : json_pack("{s:i}", "", 1);
	r = add_document(manifest, source, value, fail);
	json_decref(source->lines);
	yaml_documents_free(documents, n);
	return r;
}

static int read_yaml(struct manifest *manifest, struct source *source, const struct buf *text, struct failure *fail)
{
	struct yaml_document *documents = NULL;
	struct error err;
	size_t n = 0;
	int r = yaml_read(text->data ? text->data : "", text->len, &documents, &n, &err);

	if (r < 0)
		return error_set(&fail->error, EINVAL, "%s: %s", source->name, err.message);
	for (size_t i = 0; i < n && r == 0; i++) {
		source->document = n > 1 ? (int)i + 1 : 0;
		source->lines = documents[i].lines;
		r = add_document(manifest, source, documents[i].value, fail);
	}
	yaml_documents_free(documents, n);
	return r;
}

/* `prune`: one that says nothing, as when what should have written it has failed, does not say that all have to go. */
static int read_file(struct manifest *manifest, const char *file, bool prune, struct failure *fail)
{
	struct source source = {.name = strcmp(file, "-") == 0 ? "the input" : file};
	size_t len = strlen(file);
	struct error err;
	struct buf text;
	json_t *json;
	int r;

	buf_init(&text, FILE_MAX);
	r = read_text(file, &text, fail);
	if (r == 0) {
		json = looks_like_json(&text) ? json_parse(text.data, text.len, &err) : NULL;
		if (json)
			r = read_json(manifest, &source, &text, json, fail);
		else if (looks_like_json(&text) && len > 5 && strcmp(file + len - 5, ".json") == 0)
			r = error_set(&fail->error, EINVAL, "%s: %s", file, err.message);
		else
			r = read_yaml(manifest, &source, &text, fail);
		json_decref(json);
		if (r == 0 && prune && !source.says_something) {
			r = error_set(&fail->error, EINVAL, "%s: says nothing, and --prune would delete all machines with the label", source.name);
			failure_hint(fail, "`machines: []` says that there are to be none");
		}
	}
	buf_done(&text);
	return r;
}

/* Are all that it depends on, and that `waiting` has by name, placed? */
static bool is_next(const struct manifest_machine *machine, const json_t *waiting)
{
	const json_t *dependency;
	size_t i;

	json_array_foreach (json_object_get(machine->spec, "depends_on"), i, dependency)
		if (json_object_get(waiting, json_text(dependency, "machine")))
			return false;
	return true;
}

/* A network that wants a certain subnet. */
static bool has_subnet(const struct manifest_machine *machine)
{
	return machine->kind == MANIFEST_NETWORK && json_is_string(json_object_get(machine->spec, "subnet"));
}

/* Moves those that machines name to `sorted`; how many. What a network wants is not to be given to another, that takes any, before. */
static size_t take_others(const struct manifest *manifest, struct manifest_machine *sorted)
{
	size_t n = 0;

	for (enum manifest_kind kind = 0; kind < MANIFEST_MACHINE; kind++)
		for (int wants = 1; wants >= 0; wants--)
			for (size_t i = 0; i < manifest->n; i++)
				if (manifest->machines[i].kind == kind && has_subnet(&manifest->machines[i]) == wants)
					sorted[n++] = manifest->machines[i];
	return n;
}

/* Machines last. In a circle, which the API refuses, machines stay in the files' order. */
static void sort(struct manifest *manifest)
{
	struct manifest_machine *sorted = calloc(manifest->n + 1, sizeof(*sorted));
	json_t *waiting = json_object();
	size_t n, before;

	if (!sorted || !waiting)
		abort();
	n = take_others(manifest, sorted);
	for (size_t i = 0; i < manifest->n; i++)
		if (manifest->machines[i].kind == MANIFEST_MACHINE)
			json_object_set_new(waiting, manifest->machines[i].name, json_true());
	do {
		before = n;
		for (size_t i = 0; i < manifest->n; i++) {
			struct manifest_machine *machine = &manifest->machines[i];

			if (machine->kind != MANIFEST_MACHINE || !json_object_get(waiting, machine->name) || !is_next(machine, waiting))
				continue;
			json_object_del(waiting, machine->name);
			sorted[n++] = *machine;
		}
	} while (n > before);
	for (size_t i = 0; i < manifest->n; i++)
		if (manifest->machines[i].kind == MANIFEST_MACHINE && json_object_get(waiting, manifest->machines[i].name))
			sorted[n++] = manifest->machines[i];
	json_decref(waiting);
	free(manifest->machines);
	manifest->machines = sorted;
}

static int refuse_overlap(const struct manifest_machine *first, const struct manifest_machine *network, struct failure *fail)
{
	cleanup_free char *path = NULL;

	if (asprintf(&path, "%s.subnet", first->path) < 0)
		abort();
	error_set_field(&fail->error, EINVAL, "subnet", "%s overlaps with %s, of network %s at %s:%d", json_text(network->spec, "subnet"),
		json_text(first->spec, "subnet"), first->name, first->file, yaml_line(first->lines, path));
	return manifest_refuse(network, fail);
}

/* hulld, which is asked about one network after the other before any is made, knows nothing of the others. What is no subnet, it refuses. */
static int check_subnets(const struct manifest *manifest, struct failure *fail)
{
	struct subnet subnet, other;
	struct error no_subnet;

	for (size_t i = 0; i < manifest->n; i++) {
		const struct manifest_machine *network = &manifest->machines[i];

		if (!has_subnet(network) || subnet_parse(json_text(network->spec, "subnet"), &subnet, &no_subnet) < 0)
			continue;
		for (size_t j = 0; j < i; j++) {
			const struct manifest_machine *first = &manifest->machines[j];

			if (has_subnet(first) && subnet_parse(json_text(first->spec, "subnet"), &other, &no_subnet) == 0 &&
				subnets_overlap(&subnet, &other))
				return refuse_overlap(first, network, fail);
		}
	}
	return 0;
}

int manifest_read(const struct args *args, struct manifest *ret, struct failure *fail)
{
	const char *file;
	size_t i = 0;
	int r = 0;

	memset(ret, 0, sizeof(*ret));
	if (!args_value(args, "file")) {
		failure_usage(fail, "--file", "is missing");
		return failure_hint(fail, "for example `hull %s -f machines.yaml`", args->command->name);
	}
	while (r == 0 && (file = args_next(args, "file", &i)))
		r = read_file(ret, file, args_flag(args, "prune"), fail);
	if (r < 0)
		return r;
	sort(ret);
	return check_subnets(ret, fail);
}

void manifest_done(struct manifest *manifest)
{
	for (size_t i = 0; i < manifest->n; i++) {
		struct manifest_machine *machine = &manifest->machines[i];

		json_decref(machine->spec);
		json_decref(machine->lines);
		free(machine->file);
		free(machine->path);
	}
	free(manifest->machines);
	memset(manifest, 0, sizeof(*manifest));
}

int manifest_refuse(const struct manifest_machine *machine, struct failure *fail)
{
	struct error told = fail->error;
	cleanup_free char *below = NULL;
	char where[32] = "";

	if (machine->document)
		snprintf(where, sizeof(where), " (document %d)", machine->document);
	if (asprintf(&below, "%s%s%s", machine->path, machine->path[0] && told.field[0] ? "." : "", told.field) < 0)
		abort();
	return error_set(&fail->error, told.errnum, "%s:%d%s: %s: %s%s%s", machine->file, yaml_line(machine->lines, below), where, machine->name,
		told.field, told.field[0] ? ": " : "", told.message);
}
