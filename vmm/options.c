/* The command line, by one table. */
#include "vmm/options.h"

#include "common/checked.h"
#include "common/json.h"
#include "vmm/api_server.h"
#include "vmm/config.h"
#include "vmm/shutdown.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

const char options_usage[] =
	"usage: hull-vmm --api-sock PATH [--config-file FILE] [OPTION]...\n"
	"       hull-vmm --no-api --config-file FILE [OPTION]...\n"
	"       hull-vmm --api-sock PATH | --no-api --restore FILE [OPTION]...\n"
	"\n"
	"Runs one virtual machine until it ends: described by FILE, and started at once; or put together and started by\n"
	"requests to the socket PATH. Under the name firecracker it takes Firecracker's command line.\n"
	"\n"
	"  --api-sock PATH     Unix socket for Firecracker's REST API (firecracker: /run/firecracker.socket)\n"
	"  --http-api-max-payload-size BYTES  of a request's body (51200)\n"
	"  --metadata FILE     JSON for the metadata service to begin with\n"
	"  --mmds-size-limit BYTES  of the metadata (as --http-api-max-payload-size)\n"
	"  --config-file FILE  the machine, in Firecracker's configuration format\n"
	"  --restore FILE      a machine that was saved, as PUT /snapshot/load has it\n"
	"  --no-api            without a socket\n"
	"  --id ID             its name: letters, digits, '-' and '_'\n"
	"  --log-fd N          descriptor for what the guest sends to host vsock port 1025\n"
	"  --status-fd N       descriptor for one line of JSON at the end: why, and the workload's exit "
	"status\n"
	"  --shutdown-timeout SECONDS  that a guest has to power off when SIGTERM asks for it (30; firecracker: 0)\n"
	"  --gdb-socket PATH   Unix socket at which a debugger (gdb) may attach to the guest\n"
	"  --boot-timer        log how long the boot took when the guest writes 123 to address 0xc0000000\n"
	"  --output-limit MIB  the files of console, log descriptor and log keep this much, the newest\n"
	"  --log-path PATH     file or FIFO for the log, instead of standard error\n"
	"  --level LEVEL       Off, Error, Warning, Info (default), Debug or Trace\n"
	"  --module PREFIX     only what source files whose path begins so have to say: devices, vmm/api ...\n"
	"  --show-level, --show-log-origin  in each line of the log\n"
	"  --metrics-path PATH  file or FIFO for metrics, a line of JSON each minute and at the end\n"
	"  --accounting FILE   what the guest moves through network and disks is counted there, for others to read\n"
	"  --start-time-us N, --start-time-cpu-us N, --parent-cpu-time-us N  for the metrics: when the start began\n"
	"  --no-seccomp        taken and without effect; --seccomp-filter FILE is refused\n"
	"  --enable-pci        virtio devices are on a PCI bus, and can come and go while the guest runs\n"
	"  --version, --help\n";

#define ID_MAX 64
#define OUTPUT_LIMIT_MAX_MIB (1 << 20)
#define FIRECRACKER_SOCKET   "/run/firecracker.socket"

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

static int set_restore_file(struct parsed *p, const char *value, struct error *err)
{
	(void)err;
	p->options.restore_file = value;
	return 0;
}

static int set_no_api(struct parsed *p, const char *value, struct error *err)
{
	(void)value;
	(void)err;
	p->no_api = true;
	return 0;
}

static int set_api_socket(struct parsed *p, const char *value, struct error *err)
{
	if (!*value)
		return error_set(err, EINVAL, "must be a path");
	p->options.api_socket = value;
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

static int parse_number(const char *value, const char *unit, uint64_t max, uint64_t *ret, struct error *err)
{
	char *end;
	unsigned long number;

	errno = 0;
	number = strtoul(value, &end, 10);
	if (errno || !isdigit((unsigned char)*value) || *end || number < 1 || number > max)
		return error_set(err, EINVAL, "must be from 1 to %llu%s, not \"%.40s\"", (unsigned long long)max, unit, value);
	*ret = number;
	return 0;
}

static int set_output_limit(struct parsed *p, const char *value, struct error *err)
{
	uint64_t mib;
	int r = parse_number(value, " MiB", OUTPUT_LIMIT_MAX_MIB, &mib, err);

	if (r == 0)
		p->options.output.limit_bytes = mib << 20;
	return r;
}

/* Where 0 says something of its own. */
static int parse_number_or_0(const char *value, const char *unit, uint64_t max, uint64_t *ret, struct error *err)
{
	if (strcmp(value, "0") != 0)
		return parse_number(value, unit, max, ret, err);
	*ret = 0;
	return 0;
}

static int set_shutdown_timeout(struct parsed *p, const char *value, struct error *err)
{
	return parse_number_or_0(value, " seconds", SHUTDOWN_TIMEOUT_S_MAX, &p->options.shutdown_timeout_s, err);
}

static int set_gdb_socket(struct parsed *p, const char *value, struct error *err)
{
	if (!*value)
		return error_set(err, EINVAL, "must be a path");
	p->options.gdb_socket = value;
	return 0;
}

static int set_boot_timer(struct parsed *p, const char *value, struct error *err)
{
	(void)value;
	(void)err;
	p->options.output.boot_timer = true;
	return 0;
}

static int set_body_bytes(struct parsed *p, const char *value, struct error *err)
{
	uint64_t bytes;
	int r = parse_number(value, " bytes", OPTIONS_BODY_BYTES_MAX, &bytes, err);

	if (r == 0)
		p->options.api_body_bytes_max = bytes;
	return r;
}

static int set_mmds_bytes(struct parsed *p, const char *value, struct error *err)
{
	uint64_t bytes;
	int r = parse_number(value, " bytes", OPTIONS_BODY_BYTES_MAX, &bytes, err);

	if (r == 0)
		p->options.mmds_bytes_max = bytes;
	return r;
}

static int set_metadata_file(struct parsed *p, const char *value, struct error *err)
{
	(void)err;
	p->options.metadata_file = value;
	return 0;
}

/* 0 is "not told", as Firecracker's jailer says it. */
static int parse_microseconds(const char *value, uint64_t *ret, struct error *err)
{
	return parse_number_or_0(value, " microseconds", INT64_MAX, ret, err);
}

static int set_start_time(struct parsed *p, const char *value, struct error *err)
{
	return parse_microseconds(value, &p->options.start_time_us, err);
}

static int set_start_time_cpu(struct parsed *p, const char *value, struct error *err)
{
	return parse_microseconds(value, &p->options.start_time_cpu_us, err);
}

static int set_parent_cpu_time(struct parsed *p, const char *value, struct error *err)
{
	return parse_microseconds(value, &p->options.parent_cpu_time_us, err);
}

/* There is none to be left out. */
static int set_no_seccomp(struct parsed *p, const char *value, struct error *err)
{
	(void)p;
	(void)value;
	(void)err;
	return 0;
}

static int refuse_seccomp_filter(struct parsed *p, const char *value, struct error *err)
{
	(void)p;
	(void)value;
	return error_set(err, ENOTSUP, "filters compiled for Firecracker fit no other program");
}

static int set_level(struct parsed *p, const char *value, struct error *err)
{
	enum log_level ignored;

	p->options.logger.level = (char *)value; /* nobody frees it */
	return config_parse_level(value, &ignored, err);
}

static int set_log_path(struct parsed *p, const char *value, struct error *err)
{
	(void)err;
	p->options.logger.log_path = (char *)value;
	return 0;
}

static int set_module(struct parsed *p, const char *value, struct error *err)
{
	if (strlen(value) >= LOG_MODULE_MAX)
		return error_set(err, EINVAL, "must have %d characters at most", LOG_MODULE_MAX - 1);
	p->options.logger.module = (char *)value;
	return 0;
}

static int set_show_level(struct parsed *p, const char *value, struct error *err)
{
	(void)value;
	(void)err;
	p->options.logger.has_show_level = p->options.logger.show_level = true;
	return 0;
}

static int set_show_log_origin(struct parsed *p, const char *value, struct error *err)
{
	(void)value;
	(void)err;
	p->options.logger.has_show_log_origin = p->options.logger.show_log_origin = true;
	return 0;
}

static int set_metrics_path(struct parsed *p, const char *value, struct error *err)
{
	(void)err;
	p->options.metrics_path = value;
	return 0;
}

static int set_accounting_path(struct parsed *p, const char *value, struct error *err)
{
	(void)err;
	p->options.accounting_path = value;
	return 0;
}

static int set_pci(struct parsed *p, const char *value, struct error *err)
{
	(void)value;
	(void)err;
	p->options.pci = true;
	return 0;
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
	{"--restore", true, set_restore_file},
	{"--no-api", false, set_no_api},
	{"--api-sock", true, set_api_socket},
	{"--http-api-max-payload-size", true, set_body_bytes},
	{"--metadata", true, set_metadata_file},
	{"--mmds-size-limit", true, set_mmds_bytes},
	{"--id", true, set_id},
	{"--log-fd", true, set_log_fd},
	{"--status-fd", true, set_status_fd},
	{"--output-limit", true, set_output_limit},
	{"--shutdown-timeout", true, set_shutdown_timeout},
	{"--gdb-socket", true, set_gdb_socket},
	{"--boot-timer", false, set_boot_timer},
	{"--log-path", true, set_log_path},
	{"--level", true, set_level},
	{"--module", true, set_module},
	{"--show-level", false, set_show_level},
	{"--show-log-origin", false, set_show_log_origin},
	{"--no-seccomp", false, set_no_seccomp},
	{"--seccomp-filter", true, refuse_seccomp_filter},
	{"--start-time-us", true, set_start_time},
	{"--start-time-cpu-us", true, set_start_time_cpu},
	{"--parent-cpu-time-us", true, set_parent_cpu_time},
	{"--metrics-path", true, set_metrics_path},
	{"--accounting", true, set_accounting_path},
	{"--enable-pci", false, set_pci},
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

/* Firecracker's binary by name: a link to this one, or a copy. */
static bool is_firecracker(const char *program)
{
	const char *slash = program ? strrchr(program, '/') : NULL;

	return program && strcmp(slash ? slash + 1 : program, "firecracker") == 0;
}

/* What to serve, and what to run, must be said by one of them at least. */
static int settle(struct parsed *p, struct error *err)
{
	struct options *options = &p->options;

	if (!options->mmds_bytes_max)
		options->mmds_bytes_max = options->api_body_bytes_max;
	if (p->no_api && options->api_socket)
		return error_set_field(err, EINVAL, "--no-api", "and --api-sock exclude one another");
	if (options->config_file && options->restore_file)
		return error_set_field(err, EINVAL, "--restore", "and --config-file exclude one another");
	if (p->no_api && !options->config_file && !options->restore_file)
		return error_set_field(err, EINVAL, "--config-file", "is required with --no-api, or --restore");
	if (!p->no_api && !options->api_socket && options->as_firecracker)
		options->api_socket = FIRECRACKER_SOCKET;
	if (!p->no_api && !options->api_socket)
		return error_set_field(err, EINVAL, "--api-sock", "is required, or --no-api with --config-file or --restore");
	return 0;
}

int options_parse(int argc, char *argv[], struct options *ret, struct error *err)
{
	struct parsed p = {.options = {.as_firecracker = is_firecracker(argv[0]),
				   .id = "hull-vmm",
				   .api_body_bytes_max = API_BODY_BYTES_DEFAULT,
				   .output.log_fd = -1,
				   .shutdown_timeout_s = SHUTDOWN_TIMEOUT_S_DEFAULT,
				   .status_fd = -1}};
	int r = 0;

	if (p.options.as_firecracker) {
		p.options.id = "anonymous-instance";
		p.options.shutdown_timeout_s = 0; /* its clients end it by SIGTERM, and mean it */
	}
	for (int i = 1; i < argc && !p.options.help && !p.options.version; i++) {
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
	}
	if (!p.options.help && !p.options.version)
		r = settle(&p, err);
	if (r == 0)
		*ret = p.options;
	return r;
}
