/* The command line by table: one table of commands drives parsing, help and usage, so that nothing is said twice. */
#ifndef HULL_CLI_ARGS_H
#define HULL_CLI_ARGS_H

#include "cli/failure.h"

#include <stddef.h>
#include <stdio.h>

struct args;

struct option_def {
	char letter;	     /* '\0': the long form only */
	const char *name;    /* without the dashes; NULL ends a table */
	const char *metavar; /* NULL: a flag */
	const char *help;
};

struct command {
	const char *name;      /* "machine list": a noun and a verb, or one word */
	const char *short_form; /* "ps"; NULL: none */
	const char *operands;  /* as the usage line shows them; "" when there are none */
	int min_operands, max_operands; /* max -1: any number */
	bool takes_command;    /* what follows the operands, or "--", is a command to run in the machine */
	const struct option_def *options; /* NULL: only the common ones */
	const char *summary;   /* one sentence */
	int failure_status;    /* exit status on failure; 0: 1 */
	/* Exit status, or -errno with `fail` set. */
	int (*run)(const struct args *args, struct failure *fail);
};

#define ARGS_VALUES_MAX 256

struct args {
	const struct command *command; /* NULL: none was named (only with --help or --version) */
	const char *noun;	       /* `hull machine --help`: the noun; else NULL */
	bool help, version;
	struct {
		const struct option_def *option;
		const char *value; /* borrowed from argv; NULL for a flag */
	} values[ARGS_VALUES_MAX];
	size_t n_values;
	char **operands; /* owned array of borrowed strings */
	size_t n_operands;
	char **rest; /* the command for the machine; borrowed */
	size_t n_rest;
};

/* Options every command takes. A command may have one of the same name, which then is meant behind its name. */
extern const struct option_def common_options[];

/* The command that `word` names: its short form, its one word, or with `noun` (NULL: none) its verb. NULL: there is none. */
const struct command *command_find(const struct command *commands, const char *noun, const char *word);
bool command_is_noun(const struct command *commands, const char *word);

/* Reads argv[1..] by `commands` (ended by a NULL name). Options may stand before, between and after operands.
 * 0, or -EINVAL with a usage failure. args_done() either way. */
int args_parse(struct args *ret, const struct command *commands, int argc, char **argv, struct failure *fail);
void args_done(struct args *args);

/* The last value given; NULL when there was none. The command's own option, where it has one of that name. */
const char *args_value(const struct args *args, const char *name);
/* Of the option that every command takes. */
const char *args_common_value(const struct args *args, const char *name);
bool args_flag(const struct args *args, const char *name);
/* Values of a repeated option in order: start with *position = 0; NULL at the end. */
const char *args_next(const struct args *args, const char *name, size_t *position);
/* An integer option within [min, max]; `def` when it was not given. 0 or a usage failure. */
int args_integer(const struct args *args, const char *name, long long min, long long max, long long def,
	long long *ret, struct failure *fail);
int args_common_integer(const struct args *args, const char *name, long long min, long long max, long long def,
	long long *ret, struct failure *fail);

void help_overview(FILE *out, const struct command *commands);
void help_noun(FILE *out, const struct command *commands, const char *noun);
void help_command(FILE *out, const struct command *command);

#endif
