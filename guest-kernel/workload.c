/* Starts the one program the machine is for. */
#include "guest-kernel/workload.h"

#include "common/cleanup.h"
#include "common/io.h"
#include "guest-kernel/cgroup.h"
#include "guest-kernel/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static int start_in(const struct guest_config *config, int cgroup_fd, int output_fd, pid_t *ret_pid, int *ret_status,
	struct error *err)
{
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC), report = -1;
	const struct process_spec spec = {.argv = config->command.items,
		.env = config->env,
		.hostname = config->hostname,
		.user = config->user,
		.workdir = config->workdir,
		.make_workdir = true,
		.stdio = {null, output_fd, output_fd},
		.cgroup_fd = cgroup_fd};
	struct process_failure failure;
	pid_t pid;

	*ret_status = PROCESS_STATUS_SETUP;
	if (null < 0)
		return error_set_errno(err, errno, "open /dev/null");
	report = process_spawn(&spec, &pid, err);
	if (report < 0)
		return report;
	if (read_full(report, &failure, sizeof failure) != (ssize_t)sizeof failure) {
		*ret_pid = pid;
		return 0;
	}
	*ret_status = failure.status;
	*err = failure.error;
	return -failure.error.errnum;
}

/* In a cgroup of its own, so that it can be frozen without us; which stays when our hold on it goes. */
int workload_start(
	const struct guest_config *config, int output_fd, pid_t *ret_pid, int *ret_status, struct error *err)
{
	struct cgroups *cgroups = cgroups_new(WORKLOAD_CGROUPS, WORKLOAD_CGROUP_SHARES);
	struct cgroup *cgroup = cgroups ? cgroup_new(cgroups) : NULL;
	int r = start_in(config, cgroup_fd(cgroup), output_fd, ret_pid, ret_status, err);

	cgroup_free(cgroup);
	cgroups_free(cgroups);
	return r;
}

bool workload_ran_out_of_memory(void)
{
	static const char key[] = "\noom_kill ";
	cleanup_close int fd = open(WORKLOAD_CGROUPS "/memory.events", O_RDONLY | O_CLOEXEC);
	char text[512];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	const char *line;

	if (n < 0)
		return false;
	text[n] = '\0';
	line = strstr(text, key);
	return line && strtoull(line + strlen(key), NULL, 10) > 0;
}
