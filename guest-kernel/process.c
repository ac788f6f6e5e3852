/* Makes a process of a description. */
#include "guest-kernel/process.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "guest-kernel/passwd.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* Open files: soft, hard. The kernel's own 1024 and 4096 are of another time. */
static const struct rlimit open_files = {.rlim_cur = 65536, .rlim_max = 1048576};

int process_exit_status(int wait_status)
{
	return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

/* Everything below runs in the child, which frees nothing: it ends, or becomes another program. */

/* What the child is made of. */
struct child {
	const struct process_spec *spec;
	struct passwd_user user;
	char **env; /* NULL-terminated */
	size_t n_env;
	struct process_failure failure;
};

/* `env` has room: see build_environment(). */
static bool add_variable(struct child *child, const char *name, const char *value)
{
	if (asprintf(&child->env[child->n_env], "%s=%s", name, value) < 0)
		return false;
	child->n_env++;
	return true;
}

static int build_environment(struct child *child)
{
	const struct process_spec *spec = child->spec;
	const char *const defaults[][2] = {
		{"PATH", DEFAULT_PATH}, {"HOME", child->user.home}, {"HOSTNAME", spec->hostname}, {"TERM", "linux"}};
	json_t *all = json_deep_copy(spec->env), *value;
	const char *name;
	bool ok = all && (!spec->more_env || json_object_update(all, (json_t *)spec->more_env) == 0);

	if (ok)
		child->env = calloc(json_object_size(all) + ARRAY_SIZE(defaults) + 1, sizeof *child->env);
	ok = ok && child->env;
	if (ok)
		json_object_foreach (all, name, value)
			ok = ok && add_variable(child, name, json_string_value(value));
	for (size_t i = 0; i < ARRAY_SIZE(defaults) && ok; i++)
		if (!json_object_get(all, defaults[i][0]))
			ok = add_variable(child, defaults[i][0], defaults[i][1]);
	return ok ? 0 : error_set_errno(&child->failure.error, ENOMEM, "environment");
}

/* A workdir that the image does not have is made, and belongs to the user: programs expect to write there. */
static int make_workdir(const char *path, const struct passwd_user *user, struct error *err)
{
	struct stat status;
	int r;

	if (stat(path, &status) == 0)
		return S_ISDIR(status.st_mode) ? 0 :
						 error_set_field(err, ENOTDIR, "workdir", "%s is no folder", path);
	r = make_directories(path, 0755, err);
	if (r < 0)
		return error_in_field(err, "workdir");
	if (chown(path, user->uid, user->gid) < 0)
		return error_set_errno(err, errno, "give %s to the user", path);
	return 0;
}

static int become_user(const struct passwd_user *user, struct error *err)
{
	if (setgroups(user->n_groups, user->groups) < 0)
		return error_set_errno(err, errno, "set the supplementary groups");
	if (setresgid(user->gid, user->gid, user->gid) < 0)
		return error_set_errno(err, errno, "become group %u", user->gid);
	if (setresuid(user->uid, user->uid, user->uid) < 0)
		return error_set_errno(err, errno, "become user %u", user->uid);
	return 0;
}

/* Nothing of hull-init's own: its blocked and ignored signals, its immunity from the OOM killer. */
void process_forget_parent(void)
{
	cleanup_close int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	sigset_t none;

	for (int signo = 1; signo < NSIG; signo++)
		signal(signo, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (fd >= 0)
		write_full(fd, "0", 1);
	setrlimit(RLIMIT_NOFILE, &open_files);
	umask(022);
}

/* Who opens /dev/stdout opens the pipe's inode, or the terminal, and must be allowed to. */
static int give_stdio(const struct process_spec *spec, const struct passwd_user *user, struct error *err)
{
	struct stat st;

	for (int i = 0; i < 3; i++) {
		bool terminal = isatty(spec->stdio[i]);

		if (fstat(spec->stdio[i], &st) < 0 || (!S_ISFIFO(st.st_mode) && !terminal))
			continue;
		if (fchown(spec->stdio[i], user->uid, terminal ? (gid_t)-1 : user->gid) < 0)
			return error_set_errno(err, errno, "give the user its input and output");
	}
	return 0;
}

static int redirect(const struct process_spec *spec, struct error *err)
{
	if (setsid() < 0)
		return error_set_errno(err, errno, "make a session");
	for (int i = 0; i < 3; i++)
		if (dup2(spec->stdio[i], i) < 0)
			return error_set_errno(err, errno, "redirect input and output");
	if (spec->terminal && ioctl(0, TIOCSCTTY, 0) < 0)
		return error_set_errno(err, errno, "take the terminal");
	return 0;
}

static int enter_folder(const struct process_spec *spec, const struct passwd_user *user, struct error *err)
{
	int r = spec->make_workdir ? make_workdir(spec->workdir, user, err) : 0;

	if (r == 0)
		r = become_user(user, err);
	if (r == 0 && chdir(spec->workdir) < 0)
		r = error_set_field(err, errno, "workdir", "%s: %s", spec->workdir, strerror(errno));
	return r;
}

/* Says why execve() failed for a file that the lookup found. */
static int refuse(const char *path, int errnum, struct process_failure *ret)
{
	bool missing = errnum == ENOENT || errnum == ENOTDIR;
	bool there = access(path, F_OK) == 0;

	ret->status = missing ? PROCESS_STATUS_NOT_FOUND : PROCESS_STATUS_NOT_EXECUTABLE;
	if (missing && there)
		return error_set_field(&ret->error, errnum, "command", "%s: its interpreter or loader is missing", path);
	if (missing)
		return error_set_field(&ret->error, errnum, "command", "%s: not found", path);
	return error_set_field(&ret->error, errnum, "command", "%s: %s", path, strerror(errnum));
}

/* As a shell looks commands up: a slash makes it a path, otherwise the first in PATH that can be executed.
 * Returns only on failure. */
static int execute(char **argv, char **env, const char *path, struct process_failure *ret)
{
	char file[PATH_MAX];
	bool denied = false;

	if (strchr(argv[0], '/')) {
		execve(argv[0], argv, env);
		return refuse(argv[0], errno, ret);
	}
	for (const char *at = path; argv[0][0]; at++) {
		size_t len = strcspn(at, ":");
		int n = snprintf(file, sizeof file, "%.*s/%s", len ? (int)len : 1, len ? at : ".", argv[0]);

		if (n > 0 && (size_t)n < sizeof file) {
			execve(file, argv, env);
			if (errno == EACCES)
				denied = true;
			else if ((errno != ENOENT && errno != ENOTDIR) || access(file, F_OK) == 0)
				return refuse(file, errno, ret);
		}
		at += len;
		if (!*at)
			break;
	}
	ret->status = denied ? PROCESS_STATUS_NOT_EXECUTABLE : PROCESS_STATUS_NOT_FOUND;
	if (denied)
		return error_set_field(&ret->error, EACCES, "command", "%s: permission denied", argv[0]);
	return error_set_field(&ret->error, ENOENT, "command", "%s: not found in PATH %s", argv[0], path);
}

static const char *get_variable(const struct child *child, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < child->n_env; i++)
		if (strncmp(child->env[i], name, len) == 0 && child->env[i][len] == '=')
			return child->env[i] + len + 1;
	return "";
}

static void __attribute__((noreturn)) run_child(const struct process_spec *spec, int report_fd)
{
	struct child child = {.spec = spec, .failure = {.status = PROCESS_STATUS_SETUP}};
	struct error *err = &child.failure.error;
	int r;

	process_forget_parent();
	r = passwd_lookup("", spec->user, &child.user, err);
	if (r == 0)
		r = give_stdio(spec, &child.user, err);
	if (r == 0)
		r = redirect(spec, err);
	if (r == 0)
		r = build_environment(&child);
	if (r == 0)
		r = enter_folder(spec, &child.user, err);
	if (r == 0)
		execute(spec->argv, child.env, get_variable(&child, "PATH"), &child.failure);
	write_full(report_fd, &child.failure, sizeof child.failure);
	_exit(child.failure.status);
}

/* In its cgroup from the first instant (Linux 5.7): moving there would wait until every processor has passed a quiet state. */
static pid_t fork_into(int cgroup_fd)
{
	struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)cgroup_fd};

	return cgroup_fd < 0 ? fork() : (pid_t)syscall(SYS_clone3, &args, sizeof args);
}

int process_spawn(const struct process_spec *spec, pid_t *ret_pid, struct error *err)
{
	int report[2];
	pid_t pid;

	if (pipe2(report, O_CLOEXEC) < 0)
		return error_set_errno(err, errno, "make a pipe");
	pid = fork_into(spec->cgroup_fd);
	if (pid == 0)
		run_child(spec, report[1]);
	/* execve() closes the other end: nothing to read means that the program runs. */
	close_fd(report[1]);
	if (pid < 0) {
		close_fd(report[0]);
		return error_set_errno(err, errno, "fork");
	}
	*ret_pid = pid;
	return report[0];
}
