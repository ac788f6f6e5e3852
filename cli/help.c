/* Help, printed from the table that is parsed by. */
#include "cli/args.h"

#include <string.h>

static void print_options(FILE *out, const struct option_def *table)
{
	for (const struct option_def *o = table; o && o->name; o++) {
		char left[64], letter[8] = "    ";

		if (o->letter)
			snprintf(letter, sizeof(letter), "-%c, ", o->letter);
		snprintf(left, sizeof(left), "%s--%s%s%s", letter, o->name, o->metavar ? " " : "",
			o->metavar ? o->metavar : "");
		fprintf(out, "  %-28s %s\n", left, o->help);
	}
}

static void print_line(FILE *out, const struct command *c)
{
	char left[64];

	snprintf(left, sizeof(left), "%s", c->name);
	fprintf(out, "  %-18s %-9s %s\n", left, c->short_form ? c->short_form : "", c->summary);
}

void help_overview(FILE *out, const struct command *commands)
{
	fprintf(out, "Usage: hull COMMAND [OPTION]... [ARGUMENT]...\n\n"
		     "Runs backends in machines of their own.\n\nCommands, and their short forms:\n");
	for (const struct command *c = commands; c->name; c++)
		print_line(out, c);
	fprintf(out, "\nOptions of every command:\n");
	print_options(out, common_options);
	fprintf(out, "\n`hull COMMAND --help` tells more.\n");
}

void help_noun(FILE *out, const struct command *commands, const char *noun)
{
	size_t len = strlen(noun);

	fprintf(out, "Usage: hull %s VERB [OPTION]... [ARGUMENT]...\n\nVerbs, and their short forms:\n", noun);
	for (const struct command *c = commands; c->name; c++)
		if (strncmp(c->name, noun, len) == 0 && c->name[len] == ' ')
			print_line(out, c);
}

void help_command(FILE *out, const struct command *c)
{
	fprintf(out, "Usage: hull %s [OPTION]...%s%s\n", c->name, c->operands[0] ? " " : "", c->operands);
	if (c->short_form)
		fprintf(out, "       hull %s …\n", c->short_form);
	fprintf(out, "\n%s.\n\nOptions:\n", c->summary);
	print_options(out, c->options);
	print_options(out, common_options);
}
