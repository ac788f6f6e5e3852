/* Log files as streams. One inotify instance wakes the followers; see logs.h. */
#include "api/logs.h"

#include "api/hulld.h"
#include "api/log_age.h"
#include "api/machine.h"
#include "api/machine_http.h"
#include "common/bounded_file.h"
#include "common/cleanup.h"
#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#define TAIL_BLOCK 65536
#define TAIL_MAX   (16 << 20) /* bytes: a guest may write without ever ending a line, and the loop has others to serve */

const char *const log_source_names[] = {"workload", "console", "monitor", NULL};
const char *const log_file_names[] = {"workload.log", "console.log", "vmm.log", NULL};

struct follower {
	struct logs *logs;
	struct request *req;
	char machine_id[MACHINE_ID_BYTES + 1];
	const char *file; /* one of log_file_names */
	off_t gone;	  /* where what is kept of it begins, by its age (log_age.h) */
	int fd;
	int watch; /* of inotify; -1: none */
	bool follow;
	off_t pos;
	struct follower *next;
};

struct logs {
	struct hulld *hulld;
	int inotify_fd;
	struct loop_source *events;
	struct follower *followers;
};

static void on_inotify(void *ctx, uint32_t events)
{
	struct logs *logs = ctx;
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n;

	(void)events;
	while ((n = read(logs->inotify_fd, buf, sizeof(buf))) > 0)
		for (char *p = buf; p < buf + n; p += sizeof(struct inotify_event) + ((struct inotify_event *)p)->len)
			for (struct follower *f = logs->followers; f; f = f->next)
				if (f->watch == ((struct inotify_event *)p)->wd || ((struct inotify_event *)p)->wd == -1)
					request_wake(f->req);
}

struct logs *logs_new(struct hulld *hulld, struct error *err)
{
	struct logs *logs = calloc(1, sizeof(*logs));

	if (!logs) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	logs->hulld = hulld;
	logs->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (logs->inotify_fd >= 0)
		logs->events = loop_add_fd(hulld->loop, logs->inotify_fd, EPOLLIN, on_inotify, logs);
	if (logs->events)
		return logs;
	error_set_errno(err, errno, "cannot watch logs");
	logs_free(logs);
	return NULL;
}

void logs_free(struct logs *logs)
{
	if (!logs)
		return;
	loop_remove(logs->events);
	close_fd(logs->inotify_fd);
	free(logs);
}

void logs_wake(struct logs *logs, const char *machine_id)
{
	for (struct follower *f = logs->followers; f; f = f->next)
		if (strcmp(f->machine_id, machine_id) == 0)
			request_wake(f->req);
}

void logs_have_gone(struct logs *logs, const char *machine_id, const char *file, off_t gone)
{
	for (struct follower *f = logs->followers; f; f = f->next)
		if (strcmp(f->machine_id, machine_id) == 0 && strcmp(f->file, file) == 0)
			f->gone = gone;
}

/* Where the first whole line begins, at `pos` or after it. A line too long to be looked for begins where it is cut. */
static off_t next_line(int fd, off_t pos)
{
	cleanup_free char *block = malloc(TAIL_BLOCK);
	ssize_t n = block ? pread_full(fd, block, TAIL_BLOCK, (uint64_t)pos) : -1;
	const char *end = n > 0 ? memchr(block, '\n', (size_t)n) : NULL;

	return end ? pos + (end + 1 - block) : pos;
}

/* pread() of what the monitor may be cutting at its old end meanwhile: `*pos` goes to what is still there. */
static ssize_t read_kept(int fd, char *buf, size_t max, off_t *pos)
{
	for (;;) {
		ssize_t n = pread(fd, buf, max, *pos);
		off_t kept = bounded_file_kept(fd, *pos);

		if (n < 0 || kept == *pos)
			return n;
		*pos = kept == 0 ? 0 : next_line(fd, kept);
	}
}

/* Where the last `lines` lines begin: counts newlines backwards, a final one not being the start of a line. At most
 * TAIL_MAX before the end, and not before `gone`, where a line begins. */
static int find_tail(int fd, int64_t lines, off_t gone, off_t *ret)
{
	cleanup_free char *block = malloc(TAIL_BLOCK);
	struct stat st;
	off_t end, first;

	if (!block || fstat(fd, &st) < 0)
		return -errno;
	first = bounded_file_kept(fd, gone);
	if (st.st_size - first > TAIL_MAX)
		first = st.st_size - TAIL_MAX;
	for (end = st.st_size; end > first;) {
		off_t start = end - first > TAIL_BLOCK ? end - TAIL_BLOCK : first;
		ssize_t n = pread_full(fd, block, (size_t)(end - start), (uint64_t)start);

		if (n < 0)
			return (int)n;
		for (ssize_t i = n; i-- > 0;)
			if (block[i] == '\n' && start + i + 1 != st.st_size && lines-- <= 1) {
				*ret = start + i + 1;
				return 0;
			}
		end = start;
	}
	*ret = first == gone ? first : next_line(fd, first);
	return 0;
}

static ssize_t follower_read(void *ctx, char *buf, size_t max)
{
	struct follower *f = ctx;
	const struct machine *m = machine_by_id(f->logs->hulld, f->machine_id);
	/* Asked before reading: what an active machine wrote last is then not missed. */
	bool active = m && (machine_has_run(m) || machine_restarts(m));
	off_t from = f->pos < f->gone ? f->gone : f->pos;
	ssize_t n;

	f->pos = from;
	n = read_kept(f->fd, buf, max, &f->pos);
	if (f->pos < from)
		f->gone = 0; /* it was emptied */
	if (n > 0) {
		f->pos += n;
		return n;
	}
	return n == 0 && f->follow && active ? 0 : -1;
}

static void follower_done(void *ctx)
{
	struct follower *f = ctx, **link = &f->logs->followers;
	bool shared = false;

	while (*link != f)
		link = &(*link)->next;
	*link = f->next;
	for (const struct follower *other = f->logs->followers; other; other = other->next)
		shared = shared || other->watch == f->watch;
	if (f->watch >= 0 && !shared)
		inotify_rm_watch(f->logs->inotify_fd, f->watch);
	close_fd(f->fd);
	free(f);
}

static const struct http_stream_ops follower_ops = {follower_read, follower_done};

void logs_reply(
	struct logs *logs, struct request *req, const struct machine *m, const char *file, int64_t tail, bool follow)
{
	struct follower *f = calloc(1, sizeof(*f));
	char path[512];
	int r = 0;

	if (!f)
		abort();
	machine_state_path(m, file, path, sizeof(path));
	/* A machine that was never started has no logs yet; an empty one can be followed. */
	f->fd = open(path, O_RDONLY | O_CLOEXEC | (machine_is_active(m) ? O_CREAT : 0), 0600);
	if (f->fd < 0 && errno != ENOENT)
		r = -errno;
	else if (f->fd < 0)
		f->fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (r == 0 && f->fd >= 0)
		f->gone = (off_t)log_age_gone(m, file, f->fd);
	if (r == 0 && tail >= 0 && f->fd >= 0)
		r = find_tail(f->fd, tail, f->gone, &f->pos);
	if (r == 0 && tail == 0) {
		struct stat st;

		f->pos = fstat(f->fd, &st) == 0 ? st.st_size : 0;
	}
	if (r < 0 || f->fd < 0) {
		request_refuse_with(req, PROBLEM_INTERNAL, NULL, "cannot read %s: %s", file, strerror(r < 0 ? -r : errno));
		close_fd(f->fd);
		free(f);
		return;
	}
	f->logs = logs;
	f->req = req;
	f->file = file;
	f->follow = follow;
	f->watch = follow ? inotify_add_watch(logs->inotify_fd, path, IN_MODIFY) : -1;
	snprintf(f->machine_id, sizeof(f->machine_id), "%s", m->record.id);
	f->next = logs->followers;
	logs->followers = f;
	request_reply_stream(req, &follower_ops, f);
}

void machine_http_logs(struct request *req, void *ctx)
{
	struct hulld *hulld = ctx;
	struct machine *m = machine_http_find(hulld, req);
	const char *source = request_query(req, "source");
	size_t i = 0;

	while (source && log_source_names[i] && strcmp(log_source_names[i], source) != 0)
		i++;
	if (m)
		logs_reply(hulld->logs, req, m, log_file_names[i], request_query_int(req, "tail", -1), request_query_int(req, "follow", 0));
}
