/* hull-vmm: runs one virtual machine until it ends, and tells how. */
#include "common/log.h"
#include "vmm/config.h"
#include "vmm/logger.h"
#include "vmm/monitor.h"
#include "vmm/options.h"
#include "vmm/outcome.h"
#include "vmm/snapshot_request.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define EXIT_USAGE 2

/* Descriptors 0 to 2 are taken, be it by /dev/null: nothing opened later can be mistaken for the console or
 * the log. */
static void secure_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	close_fd(fd);
}

static int fail_usage(const struct error *err)
{
	char line[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX + 4];

	fprintf(stderr, "hull-vmm: %s\n", error_line(err, line, sizeof(line)));
	return EXIT_USAGE;
}

/* The machine as the file says, started at once; or none, which clients of the API will describe and start. */
static int read_config(const struct options *options, struct config *ret, struct error *err)
{
	if (options->config_file)
		return config_read_file(options->config_file, ret, err);
	config_init(ret);
	return 0;
}

static int restore(const struct options *options, struct monitor *monitor, struct error *err)
{
	struct snapshot_load load;
	int r = snapshot_read_load_file(options->restore_file, &load, err);

	if (r < 0)
		return err->field[0] ? r : error_in_field(err, "--restore");
	if (!options->api_socket && !load.resume_vm)
		r = error_set_field(err, EINVAL, "resume_vm", "must be true with --no-api: nobody could resume the machine");
	if (r == 0)
		r = monitor_restore(monitor, &load, err);
	json_done(&snapshot_load_table, &load);
	return r;
}

/* Takes `config` over. */
static int run(const struct options *options, struct config *config, struct outcome *ret, struct error *err)
{
	struct monitor monitor;
	int r = monitor_init(&monitor, options, config, err);

	if (r == 0 && options->config_file)
		r = monitor_start(&monitor, err);
	else if (r == 0 && options->restore_file)
		r = restore(options, &monitor, err);
	if (r == 0)
		monitor_run(&monitor, ret);
	monitor_done(&monitor);
	return r;
}

/* A machine that never ran: one line for the person who tried. One that ended: a line in the log. */
static void report(const struct options *options, const struct outcome *outcome, bool ran)
{
	char line[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX + 4];
	int r;

	error_line(&outcome->reason, line, sizeof(line));
	if (!ran)
		fprintf(stderr, "hull-vmm: %s\n", line);
	else
		log_at(outcome->cause == OUTCOME_ERROR ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, "ended: %s", line);
	if (options->status_fd < 0)
		return;
	r = outcome_write(outcome, options->status_fd);
	if (r < 0)
		log_error("the status record cannot be written: %s", strerror(-r));
}

static const char *version_line(const struct options *options)
{
	return options->as_firecracker ? "Firecracker v" OPTIONS_FIRECRACKER_VERSION "\n" : "hull-vmm " HULL_VERSION "\n";
}

int main(int argc, char *argv[])
{
	struct outcome outcome = {.cause = OUTCOME_ERROR, .exit_status = OUTCOME_NO_STATUS};
	struct config config = {0};
	struct options options;
	struct error err = {0};
	int r;

	/* 1. A defined environment: descriptors, and no death by a reader that went away. */
	secure_standard_descriptors();
	signal(SIGPIPE, SIG_IGN);

	/* 2. What is asked for. */
	if (options_parse(argc, argv, &options, &err) < 0)
		return fail_usage(&err);
	if (options.help || options.version) {
		fputs(options.help ? options_usage : version_line(&options), stdout);
		return 0;
	}

	/* 3. The machine's description, and the log it names. */
	r = read_config(&options, &config, &err);
	if (r == 0)
		r = logger_open(&options, config.logger, &err);

	if (r == 0 && options.as_firecracker)
		log_info("Running Firecracker v" OPTIONS_FIRECRACKER_VERSION);

	/* 4. The API's socket, and the machine: made, run to its end, taken apart. */
	if (r == 0)
		r = run(&options, &config, &outcome, &err);

	/* 5. How it went. */
	if (r < 0)
		outcome.reason = err;
	report(&options, &outcome, r == 0);
	config_done(&config);
	return outcome_exit_status(&outcome);
}
