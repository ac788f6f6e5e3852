/* Uploads, and how far they are. */
#include "cli/transfer.h"
#include "common/io.h"

#include <errno.h>
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

static int on_progress(void *ctx, curl_off_t dl_total, curl_off_t dl, curl_off_t total, curl_off_t sent)
{
	struct transfer *t = ctx;
	uint64_t done = (uint64_t)sent;

	(void)dl_total, (void)dl, (void)total;
	bar_bytes(&t->bar, t->total && done > t->total ? t->total : done, t->total);
	return 0;
}

/* A PUT of what `read` takes from `fd`, some `size` bytes. */
static void upload_init(struct transfer *t, struct client *client, const char *path, int fd, uint64_t size, const char *label,
	const char *type, curl_read_callback read)
{
	transfer_init(t, client, "PUT", path);
	transfer_show(t, label, size, on_progress);
	t->in = fd;
	curl_easy_setopt(t->easy, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(t->easy, CURLOPT_READFUNCTION, read);
	curl_easy_setopt(t->easy, CURLOPT_READDATA, t);
	transfer_add_header(t, type);
}

int client_upload_stream(struct client *client, const char *path, int fd, uint64_t size, const char *label, struct failure *fail)
{
	struct transfer t;
	int r;

	upload_init(&t, client, path, fd, size, label, "Content-Type: application/x-tar", on_want_stream);
	r = transfer_finish(&t, fail);
	transfer_done(&t);
	return r;
}

int client_upload(struct client *client, const char *path, int fd, uint64_t size, const char *label,
	struct failure *fail)
{
	struct transfer t;
	int r;

	upload_init(&t, client, path, fd, size, label, "Content-Type: application/octet-stream", on_want_data);
	curl_easy_setopt(t.easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)size);
	r = transfer_finish(&t, fail);
	transfer_done(&t);
	return r;
}
