/* Starts the one program the machine is for. */
#include "guest-kernel/workload.h"

#include "common/cleanup.h"
#include "common/io.h"
#include "guest-kernel/passwd.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* Open files: soft, hard. The kernel's own 1024 and 4096 are of another time. */
static const struct rlimit open_files = {.rlim_cur = 65536, .rlim_max = 1048576};

/* What the child tells its parent when it cannot become the workload. */
struct failure {
	int status;
	struct error error;
};

struct environment {
	char **items; /* owned, NULL-terminated */
	size_t len;
};

static void environment_done(struct environment *env)
{
	for (size_t i = 0; i < env->len; i++)
		free(env->items[i]);
	free(env->items);
}

/* `env` has room for the names of the configuration and the defaults: see environment_build(). */
static int environment_add(struct environment *env, const char *name, const char *value)
{
	if (asprintf(&env->items[env->len], "%s=%s", name, value) < 0)
		return -ENOMEM;
	env->items[++env->len] = NULL;
	return 0;
}

static int environment_build(const struct guest_config *config, const char *home, struct environment *env)
{
	const char *const defaults[][2] = {
		{"PATH", DEFAULT_PATH}, {"HOME", home}, {"HOSTNAME", config->hostname}, {"TERM", "linux"}};
	const char *name;
	json_t *value;
	int r = 0;

	env->items = calloc(json_object_size(config->env) + ARRAY_SIZE(defaults) + 1, sizeof *env->items);
	if (!env->items)
		return -ENOMEM;
	json_object_foreach(config->env, name, value)
		if (r == 0)
			r = environment_add(env, name, json_string_value(value));
	for (size_t i = 0; i < ARRAY_SIZE(defaults) && r == 0; i++)
		if (!json_object_get(config->env, defaults[i][0]))
			r = environment_add(env, defaults[i][0], defaults[i][1]);
	return r;
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

/* hull-init is not to be killed for want of memory; its workload is. */
static void set_oom_score(void)
{
	cleanup_close int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0)
		write_full(fd, "0", 1);
}

static int redirect(int output_fd, struct error *err)
{
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return error_set_errno(err, errno, "open /dev/null");
	if (dup2(null, 0) < 0 || dup2(output_fd, 1) < 0 || dup2(output_fd, 2) < 0)
		return error_set_errno(err, errno, "redirect the workload's output");
	return 0;
}

static int prepare_child(
	const struct guest_config *config, const struct passwd_user *user, int output_fd, struct error *err)
{
	sigset_t none;
	int r;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	set_oom_score();
	setrlimit(RLIMIT_NOFILE, &open_files);
	umask(022);
	if (setsid() < 0)
		return error_set_errno(err, errno, "make a session");
	r = redirect(output_fd, err);
	if (r == 0)
		r = become_user(user, err);
	if (r == 0 && chdir(config->workdir) < 0)
		r = error_set_errno(err, errno, "enter workdir %s", config->workdir);
	return r;
}

/* Says why execve() failed for a file that the lookup found. */
static int refuse(const char *path, int errnum, struct failure *ret)
{
	bool missing = errnum == ENOENT || errnum == ENOTDIR;
	bool there = access(path, F_OK) == 0;

	ret->status = missing ? WORKLOAD_STATUS_NOT_FOUND : WORKLOAD_STATUS_NOT_EXECUTABLE;
	if (missing && there)
		return error_set_field(&ret->error, errnum, "command", "%s: its interpreter or loader is missing", path);
	if (missing)
		return error_set_field(&ret->error, errnum, "command", "%s: not found", path);
	return error_set_field(&ret->error, errnum, "command", "%s: %s", path, strerror(errnum));
}

/* As a shell looks commands up: a slash makes it a path, otherwise the first in PATH that can be executed. Returns only
 * on failure. */
static int execute(char **argv, char **env, const char *path, struct failure *ret)
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
	ret->status = denied ? WORKLOAD_STATUS_NOT_EXECUTABLE : WORKLOAD_STATUS_NOT_FOUND;
	if (denied)
		return error_set_field(&ret->error, EACCES, "command", "%s: permission denied", argv[0]);
	return error_set_field(&ret->error, ENOENT, "command", "%s: not found in PATH %s", argv[0], path);
}

static const char *environment_get(const struct environment *env, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < env->len; i++)
		if (strncmp(env->items[i], name, len) == 0 && env->items[i][len] == '=')
			return env->items[i] + len + 1;
	return "";
}

static void __attribute__((noreturn)) child(const struct guest_config *config, const struct passwd_user *user,
	const struct environment *env, int output_fd, int report_fd)
{
	struct failure failure = {.status = WORKLOAD_STATUS_SETUP};

	if (prepare_child(config, user, output_fd, &failure.error) == 0)
		execute(config->command.items, env->items, environment_get(env, "PATH"), &failure);
	write_full(report_fd, &failure, sizeof failure);
	_exit(failure.status);
}

static int spawn(const struct guest_config *config, const struct passwd_user *user, const struct environment *env,
	int output_fd, pid_t *ret_pid, int *ret_status, struct error *err)
{
	struct failure failure;
	int report[2];
	ssize_t n;
	pid_t pid;

	if (pipe2(report, O_CLOEXEC) < 0)
		return error_set_errno(err, errno, "make a pipe");
	pid = fork();
	if (pid == 0)
		child(config, user, env, output_fd, report[1]);
	close_fd(report[1]);
	/* execve() closes the other end: nothing to read means that the program runs. */
	n = pid < 0 ? -errno : read_full(report[0], &failure, sizeof failure);
	close_fd(report[0]);
	if (pid < 0)
		return error_set_errno(err, (int)-n, "fork");
	if (n == (ssize_t)sizeof failure) {
		*ret_status = failure.status;
		*err = failure.error;
		return -failure.error.errnum;
	}
	*ret_pid = pid;
	return 0;
}

int workload_start(
	const struct guest_config *config, int output_fd, pid_t *ret_pid, int *ret_status, struct error *err)
{
	struct environment env = {0};
	struct passwd_user user;
	int r;

	*ret_status = WORKLOAD_STATUS_SETUP;
	r = passwd_lookup("", config->user, &user, err);
	if (r == 0)
		r = make_workdir(config->workdir, &user, err);
	/* Who opens /dev/stdout opens the pipe's inode, and must be allowed to. */
	if (r == 0 && fchown(output_fd, user.uid, user.gid) < 0)
		r = error_set_errno(err, errno, "give the output to the user");
	if (r == 0 && environment_build(config, user.home, &env) < 0)
		r = error_set_errno(err, ENOMEM, "environment");
	if (r == 0)
		r = spawn(config, &user, &env, output_fd, ret_pid, ret_status, err);
	environment_done(&env);
	return r;
}
