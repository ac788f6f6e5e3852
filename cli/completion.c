/* What a shell offers at its Tab key: the scripts that it reads, and what they ask. Commands and options come from the table that is
 * parsed by, names from the API. */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/context_file.h"
#include "cli/output.h"

#include "common/cleanup.h"

#include <errno.h>
#include <string.h>

/* Each asks `hull completion words -- WORD...` with the words up to the cursor, the last of which may be empty, and takes a line for an
 * offer. Where there is none the shell offers files. */
static const char bash_script[] =
	"# hull's completion, for bash: eval \"$(hull completion bash)\"\n"
	"_hull() {\n"
	"	local offer\n"
	"	COMPREPLY=()\n"
	"	while IFS= read -r offer; do\n"
	"		[[ $offer != \"$2\"* ]] || COMPREPLY+=(\"$offer\")\n"
	"	done < <(hull completion words -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null)\n"
	"	[[ ${COMPREPLY-} != *: ]] || compopt -o nospace\n"
	"}\n"
	"complete -o default -F _hull hull\n";
static const char zsh_script[] =
	"#compdef hull\n"
	"# hull's completion, for zsh: eval \"$(hull completion zsh)\", after compinit\n"
	"_hull() {\n"
	"	local -a offers\n"
	"	offers=(${(f)\"$(hull completion words -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)\"})\n"
	"	compadd -a offers || _files\n"
	"}\n"
	"compdef _hull hull\n"
	"[ \"$funcstack[1]\" != _hull ] || _hull\n"; /* loaded by the first key */
static const char fish_script[] =
	"# hull's completion, for fish: hull completion fish | source\n"
	"complete -c hull -a '(hull completion words -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'\n";

static const struct {
	const char *name, *text;
} scripts[] = {{"bash", bash_script}, {"zsh", zsh_script}, {"fish", fish_script}};

/* What the words before the cursor say. */
struct place {
	const char *noun;
	const struct command *command;
	const struct option_def *pending; /* whose value is being typed */
	int operands;			  /* before the cursor */
	bool beyond;			  /* there it is a machine's program that is spelled, or nothing that is known */
};

static const struct option_def *find_option(const struct option_def *table, const char *word)
{
	for (const struct option_def *o = table; o && o->name; o++)
		if (word[1] == '-' ? strcmp(word + 2, o->name) == 0 : o->letter && word[1] == o->letter && !word[2])
			return o;
	return NULL;
}

static void pass_word(struct place *place, const char *word)
{
	const struct option_def *option = NULL;

	if (place->pending) {
		place->pending = NULL;
	} else if (word[0] == '-' && word[1]) {
		if (place->command)
			option = find_option(place->command->options, word);
		if (!option)
			option = find_option(common_options, word);
		place->pending = option && option->metavar ? option : NULL;
	} else if (place->command) {
		place->operands++;
		place->beyond |= place->command->takes_command && place->operands > place->command->max_operands;
	} else if (!place->noun && command_is_noun(hull_commands, word)) {
		place->noun = word;
	} else {
		place->command = command_find(hull_commands, place->noun, word);
		place->beyond = !place->command;
	}
}

static void offer_commands(const char *noun)
{
	size_t len = noun ? strlen(noun) : 0;
	const char *space, *last = "";
	size_t last_len = 0;

	for (const struct command *c = hull_commands; c->name; c++) {
		space = strchr(c->name, ' ');
		if (noun) {
			if (space && (size_t)(space - c->name) == len && strncmp(c->name, noun, len) == 0)
				puts(space + 1);
			continue;
		}
		if (c->short_form)
			puts(c->short_form);
		if (!space) {
			puts(c->name);
		} else if ((size_t)(space - c->name) != last_len || strncmp(c->name, last, last_len) != 0) {
			last = c->name; /* those of a noun stand together */
			last_len = (size_t)(space - c->name);
			printf("%.*s\n", (int)last_len, last);
		}
	}
}

static void offer_options(const struct option_def *table)
{
	for (const struct option_def *o = table; o && o->name; o++)
		printf("--%s\n", o->name);
}

/* The word of a usage line that operand number `n` is, like "MACHINE..." or "[NAME]"; the last where that may be repeated; or "". */
static const char *operand_at(const struct command *command, int n)
{
	const char *word = command->operands, *next;

	while (n-- > 0 && *word) {
		next = strchr(word, ' ');
		if (!next)
			return strstr(word, "...") ? word : "";
		word = next + 1;
	}
	return word + (*word == '[');
}

/* What a shell would take for more than a name is not offered, whatever the API says. */
static bool is_plain(const char *name)
{
	return name[0] && name[0] != '-' && name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")] == '\0';
}

/* An API that does not answer has no names: nobody who presses a key wants to read why. */
static void offer_names(const struct args *args, const char *path, const char *key, const char *behind)
{
	struct failure unsaid = {0};
	cleanup(client_free_p) struct client *client = client_new(args, &unsaid);
	json_t *items = NULL, *item;
	size_t i;

	if (client && client_list(client, path, "", &items, &unsaid) == 0)
		json_array_foreach(items, i, item)
			if (is_plain(json_text(item, key)))
				printf("%s%s\n", json_text(item, key), behind);
	json_decref(items);
}

static void offer_contexts(void)
{
	struct failure unsaid = {0};
	char **names = NULL;

	if (context_names(&names, &unsaid) == 0)
		for (char **name = names; *name; name++)
			puts(*name);
	context_names_free(names);
}

/* What an operand, or an option's value, of that name may be: "MACHINE...", "IMAGE [COMMAND...]". */
static void offer_values(const struct args *args, const char *operand)
{
	static const struct {
		const char *operand, *path, *key, *behind;
	} lists[] = {
		{"MACHINE", "/v1/machines", "name", ""},
		{"IMAGE", "/v1/images", "name", ""},
		{"SOURCE", "/v1/machines", "name", ":"},
		{"TARGET", "/v1/machines", "name", ":"},
		{"PROJECT", "/v1/projects", "name", ""},
		{"NETWORK", "/v1/networks", "name", ""},
		{"SECRET", "/v1/secrets", "name", ""},
		{"VOLUME", "/v1/volumes", "name", ""},
		{"WEBHOOK", "/v1/webhooks", "id", ""},
		{"OPERATION", "/v1/operations", "id", ""},
	};
	size_t len = strspn(operand, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");

	if (strncmp(operand, "VOLUME:", 7) == 0)
		offer_names(args, "/v1/volumes", "name", ":");
	if (operand[len] && operand[len] != ' ' && operand[len] != ']' && strncmp(operand + len, "...", 3) != 0)
		return; /* as IMAGE.json */
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		if (strlen(lists[i].operand) == len && strncmp(operand, lists[i].operand, len) == 0)
			offer_names(args, lists[i].path, lists[i].key, lists[i].behind);
	if (len == 7 && strncmp(operand, "CONTEXT", 7) == 0)
		offer_contexts();
	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]) && strncmp(operand, "SHELL", 5) == 0; i++)
		puts(scripts[i].name);
}

static void offer(const struct args *args)
{
	const char *last = args->n_rest ? args->rest[args->n_rest - 1] : "";
	struct place place = {0};

	for (size_t i = 0; i + 1 < args->n_rest && !place.beyond; i++)
		pass_word(&place, args->rest[i]);
	if (place.beyond)
		return;
	if (place.pending) {
		/* Those of every project are in no list. */
		if (strcmp(place.pending->name, "network") == 0)
			puts("default\nnone");
		offer_values(args, place.pending->metavar);
	} else if (last[0] == '-') {
		if (place.command)
			offer_options(place.command->options);
		offer_options(common_options);
	} else if (place.command) {
		offer_values(args, operand_at(place.command, place.operands));
	} else {
		offer_commands(place.noun);
	}
}

int completion_run(const struct args *args, struct failure *fail)
{
	const char *shell = args->operands[0];

	if (strcmp(shell, "words") == 0) {
		offer(args);
		return 0;
	}
	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
		if (strcmp(shell, scripts[i].name) == 0) {
			fputs(scripts[i].text, stdout);
			return 0;
		}
	failure_hint(fail, "for example `eval \"$(hull completion bash)\"`");
	return failure_usage(fail, "SHELL", "\"%s\" is none of bash, zsh and fish", shell);
}
