/* hull cp: files and folders between here and a machine.
 *
 * Theory of operation. The API's bodies are tar streams. A child of this process makes one of local files, or local files of one, by the
 * code that the agent in the machine has (common/pack.h); a pipe is between it and the transfer here. What comes from a
 * machine may be hostile. The child ends with the pipe: it does not hear Ctrl-C, so that it can take away what it was writing. */
#include "cli/bar.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "common/io.h"
#include "common/pack.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

const struct option_def cp_options[] = {
	{'q', "quiet", NULL, "say nothing of what is skipped, and draw no progress"},
	{0},
};

/* One of the two operands. */
struct place {
	char *machine; /* NULL: here */
	const char *path;
};

struct half {
	pid_t pid;
	int data_fd, report_fd;
};

/* MACHINE:PATH, where a path that is meant to be here begins with "/" or "./", or has a slash before its colon. */
static void read_place(const char *text, struct place *ret)
{
	const char *colon = strchr(text, ':'), *slash = strchr(text, '/');

	*ret = (struct place){.path = text};
	if (!colon || colon == text || text[0] == '.' || (slash && slash < colon))
		return;
	ret->machine = strndup(text, (size_t)(colon - text));
	if (!ret->machine)
		abort();
	ret->path = colon + 1;
}

static char *api_path(const struct place *place, bool into)
{
	cleanup_free char *absolute = NULL, *query = NULL;
	char *escaped;

	if (asprintf(&absolute, "%s%s", place->path[0] == '/' ? "" : "/", place->path) < 0)
		abort();
	escaped = curl_easy_escape(NULL, absolute, 0);
	if (!escaped || asprintf(&query, "/files?path=%s%s", escaped, into ? "&into=1" : "") < 0)
		abort();
	curl_free(escaped);
	return client_path("machines", place->machine, query);
}

/* ---- the child ---- */

static bool quiet;

static void on_skipped(void *ctx, const char *name, const char *why)
{
	struct error line; /* in which a name's control characters are replaced */

	(void)ctx;
	error_set(&line, EOPNOTSUPP, "%.200s: %s: skipped", name, why);
	if (quiet)
		return;
	bar_make_room();
	fprintf(stderr, "hull: %s\n", line.message);
}

static int write_pipe(void *ctx, const void *data, size_t len)
{
	return write_full(*(int *)ctx, data, len);
}

static ssize_t read_pipe(void *ctx, void *data, size_t len)
{
	return read_full(*(int *)ctx, data, len);
}

static int work(const char *path, bool packs, int fd, struct error *err)
{
	struct tar_sink sink = {write_pipe, &fd};
	struct tar_source source = {read_pipe, &fd};
	struct unpack_options options = {.keep_owner = geteuid() == 0, .skipped = on_skipped};
	char dropped[4096];
	int r = packs ? pack(path, &sink, on_skipped, NULL, err) : unpack(path, &source, &options, err);

	while (r == 0 && !packs && read_full(fd, dropped, sizeof(dropped)) > 0)
		; /* blocks behind the end */
	return r;
}

/* `packs`: the child fills the pipe. 0 or -errno with `fail` set. */
static int half_begin(struct half *ret, const char *path, bool packs, struct failure *fail)
{
	int data[2], report[2];
	struct error err;

	if (pipe2(data, O_CLOEXEC) < 0 || pipe2(report, O_CLOEXEC) < 0 || (ret->pid = fork()) < 0)
		return error_set_errno(&fail->error, errno, "cannot begin to copy");
	if (ret->pid == 0) {
		close_fd(data[packs ? 0 : 1]);
		signal(SIGINT, SIG_IGN);
		signal(SIGTERM, SIG_IGN);
		signal(SIGHUP, SIG_IGN);
		if (work(path, packs, data[packs ? 1 : 0], &err) < 0)
			write_full(report[1], &err, sizeof(err));
		_exit(0);
	}
	close_fd(data[packs ? 1 : 0]);
	close_fd(report[1]);
	ret->data_fd = data[packs ? 0 : 1];
	ret->report_fd = report[0];
	return 0;
}

/* What has become of both: `r` and `fail` are the transfer's. */
static int half_end(struct half *half, int r, bool packs, struct failure *fail)
{
	struct error err;
	bool failed;

	close_fd(half->data_fd);
	failed = read_full(half->report_fd, &err, sizeof(err)) == sizeof(err);
	close_fd(half->report_fd);
	waitpid(half->pid, NULL, 0);
	/* One that fails cuts the other short, whose complaint then says nothing. */
	if (!failed || (r < 0 && (packs ? err.errnum == EPIPE : fail->error.errnum != EPIPE)))
		return r;
	*fail = (struct failure){.error = err};
	return -err.errnum;
}

/* ---- the transfers ---- */

/* What a bar calls it: the end of a path says more than its beginning. */
static const char *label_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return quiet ? NULL : slash && slash[1] ? slash + 1 : path;
}

static int copy_out(struct client *client, const struct place *from, const char *to, struct failure *fail)
{
	cleanup_free char *path = api_path(from, false);
	struct half half;
	int r;

	if (strcmp(to, "-") == 0 && isatty(STDOUT_FILENO))
		return failure_usage(fail, "-", "an archive is not for a terminal");
	if (strcmp(to, "-") == 0)
		return client_download(client, path, STDOUT_FILENO, label_of(from->path), fail);
	r = half_begin(&half, to, false, fail);
	if (r < 0)
		return r;
	r = client_download(client, path, half.data_fd, label_of(from->path), fail);
	return half_end(&half, r, false, fail);
}

/* Of a folder nobody knows; of a file the archive has little more. */
static uint64_t size_of(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
}

static int copy_in(struct client *client, const char *from, const struct place *to, struct failure *fail)
{
	bool archive = strcmp(from, "-") == 0;
	cleanup_free char *path = api_path(to, archive);
	struct half half;
	int r;

	if (archive)
		return client_upload_stream(client, path, STDIN_FILENO, 0, label_of("-"), fail);
	r = half_begin(&half, from, true, fail);
	if (r < 0)
		return r;
	r = client_upload_stream(client, path, half.data_fd, size_of(from), label_of(from), fail);
	return half_end(&half, r, true, fail);
}

int machine_cp_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	struct place from, to;
	int r;

	quiet = args_flag(args, "quiet");
	read_place(args->operands[0], &from);
	read_place(args->operands[1], &to);
	if (!from.machine == !to.machine) {
		failure_usage(fail, "SOURCE TARGET", from.machine ? "both are in machines: one has to be here" : "neither is in a machine");
		r = failure_hint(fail, "what is in a machine is MACHINE:PATH, for example `hull cp web:/etc/hostname .`");
	} else if (!from.path[0] || !to.path[0]) {
		r = failure_usage(fail, from.path[0] ? "TARGET" : "SOURCE", "has no path");
	} else if (!(client = client_new(args, fail))) {
		r = -fail->error.errnum;
	} else {
		signal(SIGPIPE, SIG_IGN);
		r = from.machine ? copy_out(client, &from, to.path, fail) : copy_in(client, from.path, &to, fail);
	}
	/* What is called that by the API is a path in the machine. */
	if (r < 0 && strcmp(fail->error.field, "path") == 0) {
		const char *machine = from.machine ? from.machine : to.machine;

		snprintf(fail->error.field, sizeof(fail->error.field), "%s", machine);
		if (strcmp(fail->code, "not_found") == 0)
			failure_hint(fail, "`hull exec -it %s sh` is a look from inside", machine);
	}
	free(from.machine);
	free(to.machine);
	return r;
}
