/* See folders.h. */
#include "api/folders.h"

#include "api/supervisor.h"
#include "api/verdict.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define VIRTIOFSD   "/usr/lib/qemu/virtiofsd" /* Debian 12's, in no PATH */
#define RECORD	    "folders"
#define RECORD_MAX  4096 /* bytes */
#define LOST_MAX    300	 /* bytes of what is said of it */
#define ENDED	    "its virtiofsd has ended"
#define NS_PER_MS   1000000ull
#define CLOSING_MS  10000 /* that a monitor may take to end once it has closed its connection: it flushes disks */

struct folder {
	struct machine *m;
	size_t mount; /* which of the run's */
	struct process *process;
	struct process_id id;
	int gate, ready_fd; /* -1: it has begun; it has said that it is ready */
	struct loop_source *ready;
};

struct folders {
	size_t len, awaited;
	int monitor_gate; /* -1: it is not held */
	struct loop_source *closing; /* one has ended in good order: is the monitor about to? */
	char lost[LOST_MAX];	     /* "": none is */
	struct folder items[];
};

/* ---- who may ---- */

static const struct mount_spec *mount_of(const struct machine *m, size_t i)
{
	return (const struct mount_spec *)machine_running_spec(m)->mounts.items + i;
}

bool folders_has_any(const struct machine_spec *spec)
{
	const struct mount_spec *mounts = spec->mounts.items;

	for (size_t i = 0; i < spec->mounts.len; i++)
		if (mounts[i].host_path)
			return true;
	return false;
}

int folders_check(const struct hulld *hulld, const char *project, const struct machine_spec *spec, struct problem *problem)
{
	const struct mount_spec *mounts = spec->mounts.items;
	char field[40];

	for (size_t i = 0; i < spec->mounts.len; i++) {
		if (!mounts[i].host_path || allowed_folders_find(&hulld->options.mount_allow, project, mounts[i].host_path))
			continue;
		snprintf(field, sizeof(field), "mounts[%zu].host_path", i);
		problem_set(problem, PROBLEM_FORBIDDEN, field, "machines of project %s may not see %.200s of the host", project, mounts[i].host_path);
		return problem_set_hint(problem, getenv("KVMHOST") ? "./quickstart down && HULL_QUICKSTART_SHARE=DIR ./quickstart, or down and `up --share DIR` of kvmhost"
								   : "the host's administrator allows folders: hulld --mount-allow [PROJECT=]DIR");
	}
	return 0;
}

const char *folders_why_not(const struct hulld *hulld)
{
	char program[256];

	/* Its ids are given to who is not root by programs that are: newuidmap(1). */
	if (geteuid() != 0 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1)
		return "hulld is neither root nor may it gain privileges (systemd's NoNewPrivileges=)";
	if (geteuid() != 0 && find_program("newuidmap", program, sizeof(program)) < 0)
		return "hulld is not root, and newuidmap not installed (apt-get install uidmap)";
	if (access(VIRTIOFSD, X_OK) < 0)
		return "virtiofsd is not installed (apt-get install qemu-system-common)";
	return access(hulld->options.virtiofs, X_OK) < 0 ? "hull-virtiofs is not installed" : NULL;
}

/* ---- names ---- */

char *folder_tag(size_t i, char ret[FOLDER_TAG_MAX])
{
	snprintf(ret, FOLDER_TAG_MAX, "mount%zu", i);
	return ret;
}

char *folder_socket_path(const struct machine *m, size_t i, char *ret, size_t size)
{
	char tag[FOLDER_TAG_MAX], name[FOLDER_TAG_MAX + 8];

	snprintf(name, sizeof(name), "%s.sock", folder_tag(i, tag));
	return machine_run_path(m, name, ret, size);
}

/* ---- the record ---- */

static int write_record(const struct machine *m, struct error *err)
{
	const struct folders *folders = m->folders;
	char path[512];
	struct buf text;
	int r;

	buf_init(&text, RECORD_MAX);
	r = buf_printf(&text, "%s\n", m->hulld->boot_id);
	for (size_t i = 0; r == 0 && i < folders->len; i++)
		r = buf_printf(&text, "%zu %d %llu\n", folders->items[i].mount, (int)folders->items[i].id.pid,
			(unsigned long long)folders->items[i].id.start_time);
	r = r < 0 ? error_set(err, -r, "out of memory")
		  : write_file_whole(machine_run_path(m, RECORD, path, sizeof(path)), text.data, text.len, 0600, err);
	buf_done(&text);
	return r;
}

/* The process that serves mounts[mount], by what an earlier hulld has written; pid 0: it is not known. */
static struct process_id read_record(const char *text, const struct machine *m, size_t mount)
{
	size_t boot_id_len = strlen(m->hulld->boot_id), found;
	unsigned long long start_time;
	const char *line;
	int pid;

	if (!text || strncmp(text, m->hulld->boot_id, boot_id_len) != 0)
		return (struct process_id){0};
	for (line = strchr(text, '\n'); line && line[1]; line = strchr(line + 1, '\n'))
		if (sscanf(line + 1, "%zu %d %llu", &found, &pid, &start_time) == 3 && found == mount)
			return (struct process_id){pid, start_time};
	return (struct process_id){0};
}

/* ---- their ends ---- */

static void lose(struct folder *folder, const char *why)
{
	struct folders *folders = folder->m->folders;

	if (folders->lost[0] || folder->m->ending_code[0] || folder->m->record.state == MACHINE_STOPPING)
		return; /* it ends anyhow */
	snprintf(folders->lost, sizeof(folders->lost), "mounts[%zu].host_path: %s", folder->mount, why);
	loop_timer_arm(folders->closing, UINT64_MAX);
	supervisor_lose_folder(folder->m);
}

/* It has said what is wrong, if anything, in its log; hull-virtiofs begins with its own name. */
static void lose_by_status(struct folder *folder, int status)
{
	static const char name[] = "hull-virtiofs: ";
	char line[LOST_MAX - 40];

	verdict_last_line(folder->m, "folders.log", line, sizeof(line));
	if (WIFSIGNALED(status))
		snprintf(line, sizeof(line), "its virtiofsd was ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (!line[0])
		snprintf(line, sizeof(line), ENDED);
	lose(folder, strncmp(line, name, strlen(name)) == 0 ? line + strlen(name) : line);
}

static void on_closing(void *ctx)
{
	struct folders *folders = ((struct machine *)ctx)->folders;

	for (size_t i = 0; i < folders->len; i++)
		if (!folders->items[i].process) {
			lose(&folders->items[i], ENDED);
			return;
		}
}

/* With 0 when the monitor has closed the connection, which is then about to end; or, who knows, when somebody has asked it to. Of one that
 * was adopted nobody knows the status. */
static void on_end(void *ctx, int status)
{
	struct folder *folder = ctx;
	struct folders *folders = folder->m->folders;

	process_free(folder->process);
	folder->process = NULL;
	if (!process_is_running(folder->m->monitor) || folders->lost[0])
		return;
	if (folder->ready_fd < 0 && status <= 0)
		loop_timer_arm(folders->closing, CLOSING_MS * NS_PER_MS);
	else
		lose_by_status(folder, status);
}

/* ---- a start ---- */

static void on_ready(void *ctx, uint32_t events)
{
	struct folder *folder = ctx;
	struct folders *folders = folder->m->folders;
	char said;
	bool is_ready = read_full(folder->ready_fd, &said, 1) == 1;

	(void)events;
	loop_remove(folder->ready);
	folder->ready = NULL;
	if (!is_ready)
		return; /* it ends: on_end() */
	folder->ready_fd = close_fd(folder->ready_fd);
	if (--folders->awaited > 0 || folders->lost[0])
		return;
	process_open_gate(steal_fd(&folders->monitor_gate));
}

static int spawn(struct folder *folder, int socket_fd, int log_fd, struct error *err)
{
	const struct machine *m = folder->m;
	const struct hulld *hulld = m->hulld;
	const struct mount_spec *mount = mount_of(m, folder->mount);
	const char *allowed = allowed_folders_find(&hulld->options.mount_allow, m->record.project, mount->host_path);
	const char *argv[] = {hulld->options.virtiofs, "--socket-fd", "3", "--ready-fd", "4", "--allowed", allowed, "--folder",
		mount->host_path, "--virtiofsd", VIRTIOFSD, mount->read_only ? "--read-only" : NULL, NULL};
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC), theirs = -1;
	int ready[2];

	if (!allowed)
		return error_set(err, EPERM, "mounts[%zu].host_path: is not allowed any more", folder->mount);
	if (null < 0 || pipe2(ready, O_CLOEXEC | O_NONBLOCK) < 0)
		return error_set_errno(err, errno, "mounts[%zu].host_path: cannot start hull-virtiofs", folder->mount);
	folder->ready_fd = ready[0];
	theirs = ready[1];
	folder->process = process_spawn(hulld->loop, argv, (int[]){null, log_fd, log_fd, socket_fd, theirs}, 5, on_end, folder, &folder->id,
		&folder->gate, err);
	if (!folder->process)
		return -err->errnum;
	folder->ready = loop_add_fd(hulld->loop, folder->ready_fd, EPOLLIN, on_ready, folder);
	return folder->ready ? 0 : error_set_errno(err, errno, "cannot watch hull-virtiofs");
}

/* With its socket, which is listened to from now on; the monitor may connect whenever it likes. */
static int spawn_with_socket(struct folder *folder, int log_fd, struct error *err)
{
	char path[512];
	cleanup_close int socket_fd = -1;

	folder_socket_path(folder->m, folder->mount, path, sizeof(path));
	unlink(path);
	socket_fd = unix_listen(path, 1, 0600, err);
	return socket_fd < 0 ? socket_fd : spawn(folder, socket_fd, log_fd, err);
}

/* All of the run's, none of which is there yet. */
static struct folders *folders_new(struct machine *m)
{
	const struct machine_spec *spec = machine_running_spec(m);
	struct folders *folders = calloc(1, sizeof(*folders) + spec->mounts.len * sizeof(folders->items[0]));

	if (!folders)
		abort();
	folders->monitor_gate = -1;
	for (size_t i = 0; i < spec->mounts.len; i++)
		if (mount_of(m, i)->host_path)
			folders->items[folders->len++] = (struct folder){.m = m, .mount = i, .gate = -1, .ready_fd = -1};
	folders->closing = loop_add_timer(m->hulld->loop, on_closing, m);
	if (!folders->closing)
		abort();
	return folders;
}

int folders_spawn(struct machine *m, struct error *err)
{
	char path[512];
	cleanup_close int log_fd = -1;
	int r = 0;

	if (!folders_has_any(machine_running_spec(m)))
		return 0;
	log_fd = open(machine_state_path(m, "folders.log", path, sizeof(path)), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (log_fd < 0)
		return error_set_errno(err, errno, "cannot open %s", path);
	m->folders = folders_new(m);
	for (size_t i = 0; r == 0 && i < m->folders->len; i++)
		r = spawn_with_socket(&m->folders->items[i], log_fd, err);
	m->folders->awaited = m->folders->len;
	return r;
}

int folders_begin(struct machine *m, int monitor_gate, struct error *err)
{
	struct folders *folders = m->folders;

	folders->monitor_gate = monitor_gate;
	if (write_record(m, err) < 0)
		return -err->errnum;
	for (size_t i = 0; i < folders->len; i++)
		process_open_gate(steal_fd(&folders->items[i].gate));
	return 0;
}

/* ---- later ---- */

void folders_adopt(struct machine *m)
{
	struct buf text;
	char path[512];

	if (!folders_has_any(machine_running_spec(m)))
		return;
	m->folders = folders_new(m);
	buf_init(&text, RECORD_MAX);
	buf_read_file(&text, machine_run_path(m, RECORD, path, sizeof(path))); /* without it, none is known */
	for (size_t i = 0; i < m->folders->len; i++) {
		struct folder *folder = &m->folders->items[i];

		folder->id = read_record(text.data, m, folder->mount);
		folder->process = process_adopt(m->hulld->loop, &folder->id, on_end, folder);
		if (!folder->process)
			loop_timer_arm(m->folders->closing, CLOSING_MS * NS_PER_MS);
	}
	buf_done(&text);
}

const char *folders_lost(const struct machine *m)
{
	return m->folders && m->folders->lost[0] ? m->folders->lost : NULL;
}

const char *folders_awaited(const struct machine *m)
{
	const struct folders *folders = m->folders;

	for (size_t i = 0; folders && folders->monitor_gate >= 0 && i < folders->len; i++)
		if (folders->items[i].ready_fd >= 0)
			return mount_of(m, folders->items[i].mount)->host_path;
	return NULL;
}

void folders_release(struct machine *m)
{
	struct folders *folders = m->folders;

	for (size_t i = 0; folders && i < folders->len; i++) {
		struct folder *folder = &folders->items[i];

		process_free(folder->process);
		loop_remove(folder->ready);
		close_fd(folder->ready_fd);
		close_fd(folder->gate);
	}
	if (folders) {
		close_fd(folders->monitor_gate);
		loop_remove(folders->closing);
	}
	free(folders);
	m->folders = NULL;
}

void folders_end(struct machine *m)
{
	struct folders *folders = m->folders;
	char path[512];

	for (size_t i = 0; folders && i < folders->len; i++) {
		process_kill_and_free(folders->items[i].process);
		folders->items[i].process = NULL;
		unlink(folder_socket_path(m, folders->items[i].mount, path, sizeof(path)));
	}
	if (folders)
		unlink(machine_run_path(m, RECORD, path, sizeof(path)));
	folders_release(m);
}
