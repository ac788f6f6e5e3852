/* The processes of a machine's run: how its monitor and its passt are started. Called by supervisor.c, whom both are told of their ends. */
#include "api/supervisor.h"

#include "api/log_age.h"
#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>

static int open_log(const struct machine *m, const char *name, int flags)
{
	char path[512];

	return open(machine_state_path(m, name, path, sizeof(path)), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | flags,
		0600);
}

/* Of one that has secrets, and boots: what is restored has them in its memory. -1: none is needed; else a descriptor, or -errno with `err` set. */
static int open_archive(const struct machine *m, struct error *err)
{
	if (!machine_running_spec(m)->secrets.len || m->record.state == MACHINE_RESUMING)
		return -1;
	return launch_archive_fd(m, err);
}

int supervisor_spawn_monitor(struct machine *m, int net_fd, process_fn on_end, int *ret_gate, struct error *err)
{
	bool restored = m->record.state == MACHINE_RESUMING;
	char config[512], counts[512], socket[512], limit_mib[24];
	const char *argv[] = {m->hulld->options.vmm, restored ? "--restore" : "--config-file",
		restored ? machine_run_path(m, "restore.json", config, sizeof(config)) : machine_state_path(m, "config.json", config, sizeof(config)), "--api-sock",
		machine_run_path(m, "monitor.sock", socket, sizeof(socket)), "--id", m->record.id, "--log-fd", "3", "--status-fd", "4",
		"--output-limit", limit_mib, "--accounting", machine_run_path(m, "accounting", counts, sizeof(counts)),
		/* The agent stops a workload. Where it does not answer, nobody would hear the power button either. */
		"--shutdown-timeout", "0", NULL};
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	cleanup_close int console = open_log(m, "console.log", 0), log = open_log(m, "vmm.log", 0);
	cleanup_close int workload = open_log(m, "workload.log", 0), status = open_log(m, "status.json", O_TRUNC);
	cleanup_close int archive = -1;
	struct launch_join join;

	snprintf(limit_mib, sizeof(limit_mib), "%" PRIu64, log_age_limits(m).bytes >> 20);
	if (null < 0 || console < 0 || log < 0 || workload < 0 || status < 0)
		return error_set_errno(err, errno, "cannot open the machine's logs");
	archive = open_archive(m, err);
	if (archive < -1)
		return -err->errnum;
	if (launch_join(m, argv, &join, err) < 0)
		return -err->errnum;
	m->monitor = process_spawn(m->hulld->loop, join.argv, (int[]){null, console, log, workload, status, net_fd < 0 ? null : net_fd, archive},
		archive >= 0 ? MONITOR_ARCHIVE_FD + 1 : net_fd >= 0 || join.is_needed ? MONITOR_NET_FD + 1 : MONITOR_NET_FD, on_end, m,
		&m->record.monitor, ret_gate, err);
	return m->monitor ? 0 : -err->errnum;
}

bool supervisor_find_passt(struct hulld *hulld)
{
	return access(hulld->passt, X_OK) == 0 || find_program("passt", hulld->passt, sizeof(hulld->passt)) == 0;
}

int supervisor_spawn_passt(struct machine *m, int net_fd, process_fn on_end, int *ret_gate, struct error *err)
{
	const char *argv[] = {m->hulld->passt, "--foreground", "--quiet", "--fd", "3", "--address", "10.0.2.15", "--netmask", "24", "--gateway",
		"10.0.2.2", "--mac-addr", "02:00:00:00:00:02", "--dns-forward", "10.0.2.3",
		/* The gateway's address would be the host's own loopback, and all that listens there. */
		"--no-map-gw", "--ipv4-only", "--no-dhcp", NULL};
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC), log = open_log(m, "passt.log", O_TRUNC);
	int fds[] = {null, log, log, net_fd};

	if (!supervisor_find_passt(m->hulld) || null < 0 || log < 0)
		return error_set(err, ENOENT, "cannot start passt: it is not installed, or its log cannot be opened");
	m->passt = process_spawn(m->hulld->loop, argv, fds, ARRAY_SIZE(fds), on_end, m, &m->record.passt, ret_gate, err);
	return m->passt ? 0 : -err->errnum;
}
