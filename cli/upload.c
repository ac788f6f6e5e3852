/* Uploads, with their progress on a terminal. */
#include "cli/transfer.h"
#include "common/io.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

static size_t on_want_data(char *data, size_t size, size_t n, void *ctx)
{
	struct transfer *t = ctx;
	ssize_t got = pread_full(t->in, data, size * n, t->in_offset);

	if (got < 0)
		return CURL_READFUNC_ABORT;
	t->in_offset += (uint64_t)got;
	return (size_t)got;
}

static size_t on_want_stream(char *data, size_t size, size_t n, void *ctx)
{
	struct transfer *t = ctx;
	ssize_t got;

	do
		got = read(t->in, data, size * n);
	while (got < 0 && errno == EINTR);
	return got < 0 ? CURL_READFUNC_ABORT : (size_t)got;
}

/* Of something whose size nobody knows. */
static int on_stream_progress(void *ctx, curl_off_t dl_total, curl_off_t dl, curl_off_t total, curl_off_t sent)
{
	struct transfer *t = ctx;
	int64_t mib = sent >> 20;

	(void)dl_total, (void)dl, (void)total;
	if (!t->label || mib / 16 == t->drawn_mib / 16)
		return 0;
	t->drawn_mib = mib;
	fprintf(stderr, "\r%s %" PRId64 " MiB", t->label, mib);
	return 0;
}

static int on_progress(void *ctx, curl_off_t dl_total, curl_off_t dl, curl_off_t total, curl_off_t sent)
{
	struct transfer *t = ctx;
	int percent = total > 0 ? (int)(sent * 100 / total) : 0;
	static const char bar[] = "########################################";

	(void)dl_total, (void)dl;
	if (!t->label || total <= 0 || percent == t->drawn)
		return 0;
	t->drawn = percent;
	fprintf(stderr, "\r%s [%-40.*s] %3d%%%s", t->label, percent * 40 / 100, bar, percent, percent == 100 ? "\n" : "");
	return 0;
}

/* A PUT of what `read` takes from `fd`, shown by `progress` on a terminal. */
static void upload_init(struct transfer *t, struct client *client, const char *path, int fd, const char *label, const char *type,
	curl_read_callback read, curl_xferinfo_callback progress)
{
	transfer_init(t, client, "PUT", path);
	t->in = fd;
	t->label = isatty(STDERR_FILENO) ? label : NULL;
	curl_easy_setopt(t->easy, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(t->easy, CURLOPT_READFUNCTION, read);
	curl_easy_setopt(t->easy, CURLOPT_READDATA, t);
	curl_easy_setopt(t->easy, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(t->easy, CURLOPT_XFERINFOFUNCTION, progress);
	curl_easy_setopt(t->easy, CURLOPT_XFERINFODATA, t);
	transfer_add_header(t, type);
}

int client_upload_stream(struct client *client, const char *path, int fd, const char *label, struct failure *fail)
{
	struct transfer t;
	int r;

	upload_init(&t, client, path, fd, label, "Content-Type: application/x-tar", on_want_stream, on_stream_progress);
	r = transfer_finish(&t, fail);
	if (t.drawn_mib)
		fputc('\n', stderr);
	transfer_done(&t);
	return r;
}

int client_upload(struct client *client, const char *path, int fd, uint64_t size, const char *label,
	struct failure *fail)
{
	struct transfer t;
	int r;

	upload_init(&t, client, path, fd, label, "Content-Type: application/octet-stream", on_want_data, on_progress);
	curl_easy_setopt(t.easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)size);
	r = transfer_finish(&t, fail);
	transfer_done(&t);
	return r;
}
