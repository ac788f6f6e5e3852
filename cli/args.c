/* Reading a command line by the table of commands. */
#include "cli/args.h"

#include "common/checked.h"
#include "common/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct option_def common_options[] = {
	{0, "host", "URL", "where the API is: http://ADDRESS:PORT or unix:///PATH"},
	{0, "context", "CONTEXT", "where it is, by a name of `hull context list`"},
	{0, "token", "TOKEN", "bearer token for the API; better in $HULL_TOKEN or `hull context create`"},
	{0, "project", "PROJECT", "which project's things are meant, for the host's administrator"},
	{0, "timeout", "SECONDS", "how long the API may take for all of it (as long as it needs)"},
	{'h', "help", NULL, "show this help"},
	{0},
};

static const struct option_def version_option = {0, "version", NULL, "show this program's version"};

static size_t noun_length(const struct command *command)
{
	const char *space = strchr(command->name, ' ');

	return space ? (size_t)(space - command->name) : 0;
}

bool command_is_noun(const struct command *commands, const char *word)
{
	for (const struct command *c = commands; c->name; c++)
		if (noun_length(c) == strlen(word) && strncmp(c->name, word, strlen(word)) == 0)
			return true;
	return false;
}

const struct command *command_find(const struct command *commands, const char *noun, const char *word)
{
	for (const struct command *c = commands; c->name; c++) {
		size_t len = noun_length(c);

		if (noun) {
			if (len == strlen(noun) && strncmp(c->name, noun, len) == 0 && strcmp(c->name + len + 1, word) == 0)
				return c;
		} else if ((c->short_form && strcmp(c->short_form, word) == 0) || strcmp(c->name, word) == 0) {
			return c;
		}
	}
	return NULL;
}

#define NAMES_MAX 128

/* What other programs call it. */
static const struct {
	const char *word, *command;
} words_of_others[] = {
	{"list", "ps"}, {"ls", "ps"}, {"get", "ps"}, {"status", "ps"}, {"delete", "rm"}, {"remove", "rm"}, {"destroy", "rm"}, {"create", "run -d"},
	{"launch", "run"}, {"build", "image build"}, {"pull", "image build"}, {"import", "image build"}, {"up", "apply"}, {"deploy", "apply"},
	{"down", "stop"}, {"plan", "diff"}, {"login", "context create"}, {"config", "context"}, {"shell", "exec -it MACHINE sh"},
	{"ssh", "exec -it MACHINE sh"}, {"attach", "logs -f"}, {"pause", "freeze"}, {"unpause", "thaw"}, {"hibernate", "suspend"}, {"sleep", "suspend"}, {"wake", "resume"}, {"describe", "inspect"},
	{"show", "inspect"}, {"edit", "update"}, {"set", "update"}, {"copy", "cp"}, {"info", "version"}, {"rename", "update MACHINE --name NAME"},
}, verbs_of_others[] = {
	{"ls", "list"}, {"ps", "list"}, {"get", "inspect"}, {"show", "inspect"}, {"describe", "inspect"}, {"delete", "rm"}, {"remove", "rm"},
	{"add", "create"}, {"new", "create"}, {"make", "create"}, {"put", "set"}, {"edit", "update"},
};

/* A command, without `hull`, or NULL. */
static const char *translate(const struct command *commands, const char *noun, const char *word)
{
	for (size_t i = 0; !noun && i < ARRAY_SIZE(words_of_others); i++)
		if (strcmp(words_of_others[i].word, word) == 0)
			return words_of_others[i].command;
	for (size_t i = 0; noun && i < ARRAY_SIZE(verbs_of_others); i++)
		if (strcmp(verbs_of_others[i].word, word) == 0 && command_find(commands, noun, verbs_of_others[i].command))
			return verbs_of_others[i].command;
	return NULL;
}

/* Refuses a word that is no command, naming the nearest that is one. */
static int refuse_word(const struct command *commands, const char *noun, const char *word, struct failure *fail)
{
	const char *names[NAMES_MAX], *near;
	char nouns[16][32];
	size_t n = 0, n_nouns = 0;

	for (const struct command *c = commands; c->name && n + 2 < NAMES_MAX; c++) {
		size_t len = noun_length(c);

		if (noun && len == strlen(noun) && strncmp(c->name, noun, len) == 0)
			names[n++] = c->name + len + 1;
		if (noun)
			continue;
		if (c->short_form || len == 0)
			names[n++] = c->short_form ? c->short_form : c->name;
		if (len > 0 && len < sizeof(nouns[0]) && n_nouns < ARRAY_SIZE(nouns) && n + 2 < NAMES_MAX &&
			(n_nouns == 0 || strncmp(nouns[n_nouns - 1], c->name, len) != 0)) {
			snprintf(nouns[n_nouns], sizeof(nouns[0]), "%.*s", (int)len, c->name);
			names[n++] = nouns[n_nouns++];
		}
	}
	names[n] = NULL;
	near = translate(commands, noun, word);
	if (!near)
		near = nearest_name(word, names);
	/* Two letters of a short word make any word of it. */
	if (near && strlen(word) < 5 && near[0] != word[0] && !translate(commands, noun, word))
		near = NULL;
	failure_usage(fail, word, "there is no such command");
	if (near)
		failure_hint(fail, "did you mean `hull %s%s%s`?", noun ? noun : "", noun ? " " : "", near);
	else
		failure_hint(fail, "`hull %s%s--help` lists the commands", noun ? noun : "", noun ? " " : "");
	return -EINVAL;
}

static const struct option_def *find_in(const struct option_def *table, const char *name, size_t len, char letter)
{
	for (const struct option_def *o = table; o && o->name; o++)
		if (letter ? o->letter == letter : strlen(o->name) == len && strncmp(o->name, name, len) == 0)
			return o;
	return NULL;
}

static const struct option_def *find_option(
	const struct command *command, const char *name, size_t len, char letter)
{
	const struct option_def *found = find_in(command ? command->options : NULL, name, len, letter);

	if (!found)
		found = find_in(common_options, name, len, letter);
	if (!found && !command && !letter && len == strlen("version") && strncmp(name, "version", len) == 0)
		found = &version_option;
	return found;
}

static int refuse_option(const struct command *command, const char *word, size_t len, struct failure *fail)
{
	const char *names[NAMES_MAX], *near;
	char name[64], shown[72];
	size_t n = 0;

	for (const struct option_def *o = common_options; o->name; o++)
		names[n++] = o->name;
	for (const struct option_def *o = command ? command->options : NULL; o && o->name && n + 1 < NAMES_MAX; o++)
		names[n++] = o->name;
	names[n] = NULL;
	snprintf(shown, sizeof(shown), "%.*s", (int)len, word);
	snprintf(name, sizeof(name), "%s", shown + strspn(shown, "-"));
	near = name[0] && name[1] ? nearest_name(name, names) : NULL;
	if (near && strlen(name) < 5 && near[0] != name[0]) /* as with commands: --port is not --host */
		near = NULL;
	failure_usage(fail, shown, "there is no such option");
	if (near)
		return failure_hint(fail, "did you mean --%s?", near);
	return failure_hint(
		fail, "`hull %s%s--help` lists the options", command ? command->name : "", command ? " " : "");
}

static int keep_option(
	struct args *args, const struct option_def *option, const char *value, struct failure *fail)
{
	if (strcmp(option->name, "help") == 0)
		args->help = true;
	if (option == &version_option)
		args->version = true;
	if (args->n_values == ARGS_VALUES_MAX)
		return failure_usage(fail, option->name, "too many options");
	args->values[args->n_values].option = option;
	args->values[args->n_values++].value = value;
	return 0;
}

/* argv[*i] is "--name", "--name=value": advances *i over a value that is a word of its own. */
static int read_long(struct args *args, int argc, char **argv, int *i, struct failure *fail)
{
	const char *name = argv[*i] + 2, *equals = strchr(name, '='), *value = NULL;
	size_t len = equals ? (size_t)(equals - name) : strlen(name);
	const struct option_def *option = find_option(args->command, name, len, '\0');

	if (!option)
		return refuse_option(args->command, argv[*i], len + 2, fail);
	if (!option->metavar && equals)
		return failure_usage(fail, argv[*i], "--%s takes no value", option->name);
	if (option->metavar && equals)
		value = equals + 1;
	else if (option->metavar && *i + 1 < argc)
		value = argv[++*i];
	else if (option->metavar)
		return failure_usage(fail, argv[*i], "needs a value: --%s %s", option->name, option->metavar);
	return keep_option(args, option, value, fail);
}

/* argv[*i] is a bundle of letters, the last of which may take a value: "-df", "-n5", "-n 5". */
static int read_letters(struct args *args, int argc, char **argv, int *i, struct failure *fail)
{
	for (const char *c = argv[*i] + 1; *c; c++) {
		const struct option_def *option = find_option(args->command, "", 0, *c);
		char shown[3] = {'-', *c, '\0'};
		const char *value = NULL;
		int r;

		if (!option)
			return refuse_option(args->command, shown, 2, fail);
		if (option->metavar && c[1])
			value = c + 1;
		else if (option->metavar && *i + 1 < argc)
			value = argv[++*i];
		else if (option->metavar)
			return failure_usage(fail, shown, "needs a value: -%c %s", *c, option->metavar);
		r = keep_option(args, option, value, fail);
		if (r < 0 || value)
			return r;
	}
	return 0;
}

/* The words that name the command; once it is known, a word is an operand. */
static int read_word(struct args *args, const struct command *commands, char *word, struct failure *fail)
{
	if (!word[0])
		return failure_usage(fail, "\"\"", "an argument is empty");
	if (args->command) {
		args->operands[args->n_operands++] = word;
		return 0;
	}
	if (!args->noun && strcmp(word, "help") == 0) { /* `hull help run` */
		args->help = true;
		return 0;
	}
	if (!args->noun && command_is_noun(commands, word)) {
		args->noun = word;
		return 0;
	}
	args->command = command_find(commands, args->noun, word);
	return args->command ? 0 : refuse_word(commands, args->noun, word, fail);
}

/* With all its operands there, a word is the first of the command for the machine, and what follows is the
 * command's. */
static bool begins_rest(const struct args *args)
{
	const struct command *c = args->command;

	return c && c->takes_command && args->n_operands == (size_t)c->max_operands;
}

static int suggest_usage(const struct command *c, struct failure *fail)
{
	return failure_hint(fail, "usage: hull %s%s%s", c->short_form ? c->short_form : c->name, c->operands[0] ? " " : "", c->operands);
}

static int check_operands(const struct args *args, struct failure *fail)
{
	const struct command *c = args->command;

	if (args->help || args->version)
		return 0;
	if (!c) {
		failure_usage(fail, args->noun ? args->noun : "", args->noun ? "what about it?" : "no command given");
		return failure_hint(fail, "`hull %s%s--help` lists the commands", args->noun ? args->noun : "",
			args->noun ? " " : "");
	}
	if (args->n_operands < (size_t)c->min_operands) {
		failure_usage(fail, c->name, "an argument is missing");
		return suggest_usage(c, fail);
	}
	if (c->max_operands >= 0 && args->n_operands > (size_t)c->max_operands) {
		failure_usage(fail, args->operands[c->max_operands], "one argument too many");
		return suggest_usage(c, fail);
	}
	return 0;
}

int args_parse(struct args *ret, const struct command *commands, int argc, char **argv, struct failure *fail)
{
	int r = 0;

	memset(ret, 0, sizeof(*ret));
	ret->operands = calloc((size_t)argc + 1, sizeof(*ret->operands));
	if (!ret->operands)
		return error_set(&fail->error, ENOMEM, "out of memory");
	for (int i = 1; i < argc && r == 0; i++) {
		if (strcmp(argv[i], "--") == 0) {
			bool to_machine = ret->command && ret->command->takes_command;

			for (i++; i < argc && r == 0; i++) {
				if (to_machine && !ret->rest)
					ret->rest = argv + i;
				if (to_machine)
					ret->n_rest++;
				else
					r = read_word(ret, commands, argv[i], fail);
			}
		} else if (strncmp(argv[i], "--", 2) == 0) {
			r = read_long(ret, argc, argv, &i, fail);
		} else if (argv[i][0] == '-' && argv[i][1]) {
			r = read_letters(ret, argc, argv, &i, fail);
		} else if (begins_rest(ret)) {
			ret->rest = argv + i;
			ret->n_rest = (size_t)(argc - i);
			break;
		} else {
			r = read_word(ret, commands, argv[i], fail);
		}
	}
	return r < 0 ? r : check_operands(ret, fail);
}

void args_done(struct args *args)
{
	free(args->operands);
	args->operands = NULL;
}

static const char *last_value(const struct args *args, const struct option_def *option)
{
	for (size_t i = args->n_values; option && i-- > 0;)
		if (args->values[i].option == option)
			return args->values[i].value;
	return NULL;
}

const char *args_value(const struct args *args, const char *name)
{
	return last_value(args, find_option(args->command, name, strlen(name), '\0'));
}

const char *args_common_value(const struct args *args, const char *name)
{
	return last_value(args, find_in(common_options, name, strlen(name), '\0'));
}

bool args_flag(const struct args *args, const char *name)
{
	for (size_t i = 0; i < args->n_values; i++)
		if (strcmp(args->values[i].option->name, name) == 0)
			return true;
	return false;
}

const char *args_next(const struct args *args, const char *name, size_t *position)
{
	while (*position < args->n_values) {
		size_t i = (*position)++;

		if (strcmp(args->values[i].option->name, name) == 0)
			return args->values[i].value;
	}
	return NULL;
}

static int read_integer(const char *text, const char *name, long long min, long long max, long long def, long long *ret,
	struct failure *fail)
{
	char shown[64], *end;
	long long value;

	*ret = def;
	if (!text)
		return 0;
	snprintf(shown, sizeof(shown), "--%s", name);
	errno = 0;
	value = strtoll(text, &end, 10);
	if (errno || end == text || *end || value < min || value > max)
		return failure_usage(fail, shown, "\"%s\" is not a number from %lld to %lld", text, min, max);
	*ret = value;
	return 0;
}

int args_integer(const struct args *args, const char *name, long long min, long long max, long long def,
	long long *ret, struct failure *fail)
{
	return read_integer(args_value(args, name), name, min, max, def, ret, fail);
}

int args_common_integer(const struct args *args, const char *name, long long min, long long max, long long def,
	long long *ret, struct failure *fail)
{
	return read_integer(args_common_value(args, name), name, min, max, def, ret, fail);
}
