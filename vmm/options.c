/* The command line, by one table. */
#include "vmm/options.h"

#include "common/checked.h"
#include "common/json.h"
#include "vmm/config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

const char options_usage[] =
	"usage: hull-vmm --config-file FILE --no-api [--id ID] [--log-fd N] [--status-fd N]\n"
	"                [--output-limit MIB] [--level LEVEL]\n"
	"\n"
	"Runs one virtual machine, described by FILE, until it ends.\n"
	"\n"
	"  --config-file FILE  the machine, in Firecracker's configuration format\n"
	"  --no-api            without a socket to control it (required: there is none yet)\n"
	"  --id ID             its name in the log: letters, digits, '-' and '_'\n"
	"  --log-fd N          descriptor for what the guest sends to host vsock port 1025\n"
	"  --status-fd N       descriptor for one line of JSON at the end: why, and the workload's exit "
	"status\n"
	"  --output-limit MIB  the files of console, log descriptor and log keep this much, the newest\n"
	"  --level LEVEL       Off, Error, Warning, Info (default), Debug or Trace\n"
	"  --version, --help\n";

#define ID_MAX 64
#define OUTPUT_LIMIT_MAX_MIB (1 << 20)

struct parsed {
	struct options options;
	bool no_api;
};

static int set_config_file(struct parsed *p, const char *value, struct error *err)
{
	(void)err;
	p->options.config_file = value;
	return 0;
}

static int set_no_api(struct parsed *p, const char *value, struct error *err)
{
	(void)value;
	(void)err;
	p->no_api = true;
	return 0;
}

static int set_id(struct parsed *p, const char *value, struct error *err)
{
	if (!*value || strlen(value) > ID_MAX)
		return error_set(err, EINVAL, "must have 1 to %d characters", ID_MAX);
	for (const char *c = value; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '-' && *c != '_')
			return error_set(err, EINVAL, "may hold letters, digits, '-' and '_' only");
	p->options.id = value;
	return 0;
}

/* A descriptor that was handed over by the parent: it must be open for writing. */
static int parse_fd(const char *value, int *ret, struct error *err)
{
	char *end;
	long fd;
	int flags;

	errno = 0;
	fd = strtol(value, &end, 10);
	if (errno || !isdigit((unsigned char)*value) || *end || fd > INT32_MAX)
		return error_set(err, EINVAL, "must be a descriptor's number, not \"%.40s\"", value);
	flags = fcntl((int)fd, F_GETFL);
	if (flags < 0)
		return error_set(err, EINVAL, "descriptor %ld is not open", fd);
	if ((flags & O_ACCMODE) == O_RDONLY)
		return error_set(err, EINVAL, "descriptor %ld is not open for writing", fd);
	if (fd > 2)
		fcntl((int)fd, F_SETFD, FD_CLOEXEC);
	*ret = (int)fd;
	return 0;
}

static int set_log_fd(struct parsed *p, const char *value, struct error *err)
{
	return parse_fd(value, &p->options.output.log_fd, err);
}

static int set_status_fd(struct parsed *p, const char *value, struct error *err)
{
	return parse_fd(value, &p->options.status_fd, err);
}

static int set_output_limit(struct parsed *p, const char *value, struct error *err)
{
	char *end;
	unsigned long mib;

	errno = 0;
	mib = strtoul(value, &end, 10);
	if (errno || !isdigit((unsigned char)*value) || *end || mib < 1 || mib > OUTPUT_LIMIT_MAX_MIB)
		return error_set(err, EINVAL, "must be from 1 to %d MiB, not \"%.40s\"", OUTPUT_LIMIT_MAX_MIB, value);
	p->options.output.limit_bytes = (uint64_t)mib << 20;
	return 0;
}

static int set_level(struct parsed *p, const char *value, struct error *err)
{
	p->options.level_given = true;
	return config_parse_level(value, &p->options.level, err);
}

static int set_help(struct parsed *p, const char *value, struct error *err)
{
	(void)value;
	(void)err;
	p->options.help = true;
	return 0;
}

static int set_version(struct parsed *p, const char *value, struct error *err)
{
	(void)value;
	(void)err;
	p->options.version = true;
	return 0;
}

static const struct option_entry {
	const char *name;
	bool takes_value;
	int (*set)(struct parsed *p, const char *value, struct error *err);
} option_table[] = {
	{"--config-file", true, set_config_file},
	{"--no-api", false, set_no_api},
	{"--id", true, set_id},
	{"--log-fd", true, set_log_fd},
	{"--status-fd", true, set_status_fd},
	{"--output-limit", true, set_output_limit},
	{"--level", true, set_level},
	{"--help", false, set_help},
	{"--version", false, set_version},
};

/* "--name" or "--name=…", whose value's place goes to `ret_value` (NULL without). NULL with `err` set. */
static const struct option_entry *find_option(const char *argument, const char **ret_value, struct error *err)
{
	const char *names[ARRAY_SIZE(option_table) + 1] = {NULL};
	size_t len = strcspn(argument, "=");
	char name[32];

	*ret_value = argument[len] ? argument + len + 1 : NULL;
	for (size_t i = 0; i < ARRAY_SIZE(option_table); i++) {
		names[i] = option_table[i].name;
		if (strlen(names[i]) == len && memcmp(names[i], argument, len) == 0)
			return &option_table[i];
	}
	snprintf(name, sizeof(name), "%.*s", (int)len, argument);
	if (nearest_name(name, names))
		error_set_field(
			err, EINVAL, name, "unknown option; did you mean %s?", nearest_name(name, names));
	else
		error_set_field(err, EINVAL, name, "unknown option");
	return NULL;
}

int options_parse(int argc, char *argv[], struct options *ret, struct error *err)
{
	struct parsed p = {
		.options = {.id = "hull-vmm", .output.log_fd = -1, .status_fd = -1, .level = LOG_LEVEL_INFO}};

	for (int i = 1; i < argc; i++) {
		const char *value;
		const struct option_entry *option = find_option(argv[i], &value, err);

		if (!option)
			return -EINVAL;
		if (option->takes_value && !value)
			value = argv[++i]; /* argv ends with NULL */
		else if (!option->takes_value && value)
			return error_set_field(err, EINVAL, option->name, "takes no value");
		if (option->takes_value && !value)
			return error_set_field(err, EINVAL, option->name, "needs a value");
		if (option->set(&p, value, err) < 0)
			return error_in_field(err, "%s", option->name);
		if (p.options.help || p.options.version)
			break;
	}
	if (!p.options.help && !p.options.version) {
		if (!p.options.config_file)
			return error_set_field(err, EINVAL, "--config-file", "is required");
		if (!p.no_api)
			return error_set_field(
				err, EINVAL, "--no-api", "is required: there is no API socket yet");
	}
	*ret = p.options;
	return 0;
}
