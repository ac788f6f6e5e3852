/* Why a run has ended, by what the monitor and its logs say. See verdict.h. */
#include "api/verdict.h"

#include "api/folders.h"
#include "api/suspend.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define STATUS_MAX 65536 /* bytes of status.json */

void verdict_last_line(const struct machine *m, const char *log, char *ret, size_t size)
{
	char path[512], text[1024];
	cleanup_close int fd = open(machine_state_path(m, log, path, sizeof(path)), O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *line;
	ssize_t n;

	ret[0] = '\0';
	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	n = pread_full(fd, text, sizeof(text) - 1,
		st.st_size > (off_t)sizeof(text) - 1 ? (uint64_t)st.st_size - (sizeof(text) - 1) : 0);
	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\0'))
		n--;
	if (n <= 0)
		return;
	text[n] = '\0';
	line = strrchr(text, '\n');
	line = line ? line + 1 : text;
	line[strnlen(line, size - 1)] = '\0';
	memcpy(ret, line, strlen(line) + 1);
}

/* Its writer was killed, and a journal cannot be replayed on a disk that is read only (guest-kernel/volume.c). */
static bool is_unclean(const struct mount_spec *mount, const struct status_record *status)
{
	return mount->volume && mount->read_only && status->message && strstr(status->message, strerror(EUCLEAN));
}

/* One of `mounts` that hull-init could not mount, by the field of a status record: named as the client knows it. */
static void describe_mount(const struct machine *m, const struct status_record *status, struct machine_end *end)
{
	const struct machine_spec *spec = machine_running_spec(m);
	const struct mount_spec *mount;
	size_t i;

	if (status->cause != STATUS_POWEROFF || !status->field || sscanf(status->field, "mounts[%zu]", &i) != 1 || i >= spec->mounts.len)
		return;
	mount = &((const struct mount_spec *)spec->mounts.items)[i];
	end->failed = true;
	snprintf(end->code, sizeof(end->code), "start_failed");
	snprintf(end->message, sizeof(end->message), "%s %.100s, at %.100s, %s%s", mount->volume ? "volume" : "folder",
		mount->volume ? mount->volume : mount->host_path, mount->path, status->message ? status->message : "",
		is_unclean(mount, status) ? ", as its last writer was killed; start a machine once that mounts it without read_only: that mends it" : "");
}

bool verdict_read_status(const struct machine *m, struct machine_end *end)
{
	struct status_record status;
	struct error err;
	char path[512];
	json_t *value = json_parse_file(machine_state_path(m, "status.json", path, sizeof(path)), STATUS_MAX, &err);
	bool ok = value && json_read(&status_record_table, value, &status, &err) == 0;
	if (value && !ok)
		log_error_object(&err, path);
	json_decref(value);
	if (!ok)
		return false;
	snprintf(end->code, sizeof(end->code), "%s", status_cause_names[status.cause]);
	snprintf(end->message, sizeof(end->message), "%s%s%s", status.field ? status.field : "", status.field ? ": " : "",
		status.message ? status.message : "");
	if (json_is_integer(status.exit_status))
		end->exit_status = (int)(json_integer_value(status.exit_status) & 0xff);
	end->failed = status.cause == STATUS_PANIC || status.cause == STATUS_ERROR;
	describe_mount(m, &status, end);
	json_done(&status_record_table, &status);
	return true;
}

static void describe_death(const struct machine *m, int status, struct machine_end *end)
{
	char line[256];

	verdict_last_line(m, "vmm.log", line, sizeof(line));
	if (status >= 0 && WIFSIGNALED(status))
		snprintf(end->message, sizeof(end->message), "the monitor was ended by signal %d (%s)", WTERMSIG(status),
			strsignal(WTERMSIG(status)));
	else
		snprintf(end->message, sizeof(end->message), "the monitor ended without saying why; its log ends: %s", line);
}

/* It was killed, as it could not be saved, or not go on from that: unless its monitor has ended before, and `said` why. */
static bool describe_suspend(const struct machine *m, bool said, struct machine_end *end)
{
	bool late = strcmp(m->ending_code, "suspend_timeout") == 0;

	if (said && strcmp(end->code, "signal") != 0)
		return false;
	if (!late && strcmp(m->ending_code, "suspend_failed") != 0 && strcmp(m->ending_code, "resume_failed") != 0)
		return false;
	snprintf(end->code, sizeof(end->code), "%s", m->ending_code);
	snprintf(end->message, sizeof(end->message), "%s", late ? "it was not saved in time" : suspend_failure(m) ? suspend_failure(m) : "unknown");
	return true;
}

struct machine_end verdict_of(const struct machine *m, int status)
{
	struct machine_end end = {.exit_status = -1};
	bool said = verdict_read_status(m, &end);
	const char *awaited = folders_awaited(m);
	char line[256];

	if (strcmp(m->ending_code, "start_timeout") == 0) {
		end.failed = true;
		snprintf(end.code, sizeof(end.code), "start_timeout");
		snprintf(end.message, sizeof(end.message), "%.200s did not answer within %u s", awaited ? awaited : "the agent",
			m->hulld->options.start_timeout_s);
	} else if (!said && folders_lost(m)) {
		end.failed = true;
		snprintf(end.code, sizeof(end.code), "%s", m->up ? "folder_lost" : "start_failed");
		snprintf(end.message, sizeof(end.message), "%s", folders_lost(m));
	} else if (!said && strcmp(m->ending_code, "start_failed") == 0) {
		end.failed = true;
		snprintf(end.code, sizeof(end.code), "start_failed");
		verdict_last_line(m, "passt.log", line, sizeof(line));
		snprintf(end.message, sizeof(end.message), "passt ended before the machine was up: %s", line);
	} else if (describe_suspend(m, said, &end)) {
		end.failed = true;
	} else if (m->ending_code[0] && (!said || strcmp(end.code, "signal") == 0)) {
		snprintf(end.code, sizeof(end.code), "%s", m->ending_code);
		snprintf(end.message, sizeof(end.message), "%s",
			strcmp(end.code, "killed") == 0 ? "the monitor was killed" : "stopped before it was up");
	} else if (!said) {
		end.failed = true;
		snprintf(end.code, sizeof(end.code), "monitor_died");
		describe_death(m, status, &end);
	}
	return end;
}
