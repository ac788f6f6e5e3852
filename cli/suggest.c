/* Hints for what the API has refused. */
#include "cli/suggest.h"

#include "cli/client.h"
#include "cli/output.h"
#include "common/checked.h"
#include "common/cleanup.h"
#include "common/json.h"

#include <stdlib.h>
#include <string.h>

#define WORD_MAX 128

/* Where one looks for what is not there. */
struct kind {
	const char *noun;	/* "image": of `hull image inspect` */
	const char *field;	/* of a refusal that is about one */
	const char *collection; /* of the API */
	const char *key;	/* what one is called by */
	const char *list;	/* the command that lists them */
	const char *otherwise;	/* and what makes one, or "" */
};

static const struct kind kinds[] = {
	{"image", "image", "images", "name", "images", ", `hull image build` makes one"},
	{"certificate", "", "certificates", "hostname", "certificate list", ", `hull certificate set` makes one"},
	{"network", "network", "networks", "name", "network list", ", `hull network create` makes one"},
	{"secret", "secrets", "secrets", "name", "secret list", ", `hull secret set` makes one"},
	{"volume", "mounts", "volumes", "name", "volume list", ", `hull volume create` makes one"},
	{"project", "Hull-Project", "projects", "name", "project list", ""},
	{"token", "", "tokens", "id", "token list", ""},
	{"webhook", "", "webhooks", "id", "webhook list", ""},
	{"operation", "", "operations", "id", "operation list -a", ""},
	{"machine", "", "machines", "name", "ps -a", ""},
};

static bool begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

/* By the field that is to blame (`*ret_named`), or else by what the command is about. A file's place stands before a field in the message. */
static const struct kind *find_kind(const struct args *args, const struct failure *fail, bool *ret_named)
{
	const char *noun = args->command ? args->command->name : "";

	*ret_named = true;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		cleanup_free char *in_message = NULL;

		if (asprintf(&in_message, ": %s", kinds[i].field) < 0)
			abort();
		if (kinds[i].field[0] && (begins(fail->error.field, kinds[i].field) || strstr(fail->error.message, in_message)))
			return &kinds[i];
	}
	*ret_named = false;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (begins(noun, kinds[i].noun) && noun[strlen(kinds[i].noun)] == ' ')
			return &kinds[i];
	return &kinds[ARRAY_SIZE(kinds) - 1];
}

/* What a message has in quotes. */
static bool quoted(const char *message, char ret[WORD_MAX])
{
	const char *begin = strchr(message, '"'), *end = begin ? strchr(begin + 1, '"') : NULL;

	if (!end || end == begin + 1 || end - begin > WORD_MAX)
		return false;
	snprintf(ret, WORD_MAX, "%.*s", (int)(end - begin - 1), begin + 1);
	return true;
}

/* One that is there, and called nearly so; owned by the caller, NULL: none. */
static char *find_near(const struct args *args, const struct kind *kind, const char *word)
{
	struct failure unsaid = {0};
	cleanup(client_free_p) struct client *client = client_new(args, &unsaid);
	cleanup_free const char **names = NULL;
	cleanup_free char *path = NULL;
	json_t *items = NULL, *item;
	const char *near;
	char *found;
	size_t i;

	if (asprintf(&path, "/v1/%s", kind->collection) < 0)
		abort();
	if (!client || client_list(client, path, "", &items, &unsaid) < 0)
		return NULL;
	names = calloc(json_array_size(items) + 1, sizeof(*names));
	if (!names)
		abort();
	json_array_foreach (items, i, item)
		names[i] = json_text(item, kind->key);
	near = nearest_name(word, names);
	found = near ? strdup(near) : NULL;
	json_decref(items);
	return found;
}

static void suggest_one_that_is_there(const struct args *args, struct failure *fail)
{
	bool named;
	const struct kind *kind = find_kind(args, fail, &named);
	cleanup_free char *near = NULL;
	char word[WORD_MAX];

	if (quoted(fail->error.message, word) && strcmp(fail->error.field, "Hull-Project") != 0)
		near = find_near(args, kind, word);
	if (near)
		failure_hint(fail, "did you mean %s? `hull %s` lists what there is", near, kind->list);
	else
		failure_hint(fail, "`hull %s` lists what there is%s", kind->list, named ? kind->otherwise : "");
	if (strcmp(fail->error.field, "Hull-Project") == 0) /* the header, which here is an option or of the context */
		snprintf(fail->error.field, sizeof(fail->error.field), "project");
}

/* Does the API say that it depends on how the machine is? */
static bool is_of_a_state(const char *hint)
{
	static const char *const hints[] = {"this is done in a machine that runs", "what runs can be suspended", "start it", "thaw it first"};

	for (size_t i = 0; i < ARRAY_SIZE(hints); i++)
		if (begins(hint, hints[i]))
			return true;
	return false;
}

/* "machine web is stopped" */
static void suggest_a_way(struct failure *fail)
{
	static const char *const startable[] = {"created", "stopped", "failed"};
	char name[WORD_MAX], state[WORD_MAX];

	if (sscanf(fail->error.message, "machine %127s is %127[a-z]", name, state) != 2)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(startable); i++)
		if (strcmp(state, startable[i]) == 0)
			failure_hint(fail, "`hull start %s` first", name);
	if (strcmp(state, "frozen") == 0)
		failure_hint(fail, "`hull thaw %s` first", name);
	if (strcmp(state, "suspended") == 0 || strcmp(state, "suspending") == 0)
		failure_hint(fail, "`hull resume %s` first", name);
	if (strcmp(state, "starting") == 0 || strcmp(state, "resuming") == 0)
		failure_hint(fail, "`hull wait --healthy %s` waits until it runs", name);
}

void suggest(const struct args *args, struct failure *fail)
{
	/* Of a path in a machine it says nothing. */
	bool in_machine = strcmp(fail->error.field, "path") == 0;
	bool of_routes = begins(fail->hint, "create it with POST") || begins(fail->hint, "set it with PUT");

	if (strcmp(fail->code, "not_found") == 0 && (!fail->hint[0] || of_routes) && !in_machine)
		suggest_one_that_is_there(args, fail);
	else if (strcmp(fail->code, "wrong_state") == 0 && is_of_a_state(fail->hint))
		suggest_a_way(fail);
	else if (strcmp(fail->code, "name_taken") == 0 && !fail->hint[0])
		failure_hint(fail, "choose another name, or take that one away first");
}
