/* Uploading and keeping blobs. See blobs.h for the theory of operation. */
#include "api/blobs.h"

#include "api/hulld.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define TEMPORARY	"upload-" /* no digest begins like this */
#define WRITE_BACK_BYTES (8u << 20)
#define STALE_S		86400
#define EROFS_OFFSET	1024 /* of the superblock; its first field is the magic, little-endian */
#define EROFS_MAGIC	0xe0f5e1e2u

struct upload {
	struct blobs *blobs;
	struct request *req; /* NULL once the client has gone */
	bool there;	     /* the blob exists: what comes is dropped */
	int fd;
	char path[BLOB_PATH_MAX];      /* the temporary file; "" when it is gone */
	char digest[DIGEST_HEX_BYTES + 8];
	struct sha256_ctx hash;
	uint64_t written, written_back; /* bytes */
	struct error err;		/* errnum 0: none so far */
	pthread_t thread;
	struct upload *next; /* in blobs->finishing */
};

struct blobs {
	struct loop *loop;
	char folder[BLOB_PATH_MAX - DIGEST_HEX_BYTES - 8];
	struct upload *finishing;
};

static void remove_temporaries(const struct blobs *blobs)
{
	DIR *folder = opendir(blobs->folder);
	struct dirent *entry;

	while (folder && (entry = readdir(folder)))
		if (strncmp(entry->d_name, TEMPORARY, strlen(TEMPORARY)) == 0)
			unlinkat(dirfd(folder), entry->d_name, 0);
	if (folder)
		closedir(folder);
}

struct blobs *blobs_new(struct loop *loop, const char *state, struct error *err)
{
	struct blobs *blobs = calloc(1, sizeof(*blobs));

	if (!blobs) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	blobs->loop = loop;
	if (snprintf(blobs->folder, sizeof(blobs->folder), "%s/blobs/sha256", state) >= (int)sizeof(blobs->folder))
		error_set_field(err, ENAMETOOLONG, "--state", "is too long");
	else if (make_directories(blobs->folder, 0700, err) == 0) {
		remove_temporaries(blobs);
		return blobs;
	}
	free(blobs);
	return NULL;
}

char *blob_path(const struct blobs *blobs, const char *digest, char ret[BLOB_PATH_MAX])
{
	snprintf(ret, BLOB_PATH_MAX, "%s/%s", blobs->folder, digest + strlen("sha256:"));
	return ret;
}

int64_t blob_size(const struct blobs *blobs, const char *digest)
{
	char path[BLOB_PATH_MAX];
	struct stat st;

	return stat(blob_path(blobs, digest, path), &st) == 0 ? st.st_size : -errno;
}

int blob_check_erofs(const struct blobs *blobs, const char *digest, struct error *err)
{
	char path[BLOB_PATH_MAX];
	cleanup_close int fd = open(blob_path(blobs, digest, path), O_RDONLY | O_CLOEXEC);
	uint32_t magic;

	if (fd < 0)
		return error_set_errno(err, errno, "cannot read blob %s", digest);
	if (pread_full(fd, &magic, sizeof(magic), EROFS_OFFSET) != sizeof(magic) || le32toh(magic) != EROFS_MAGIC)
		return error_set(err, EINVAL, "is no EROFS file system");
	return 0;
}

void blobs_each_stale(const struct blobs *blobs, void (*fn)(struct hulld *hulld, const char *digest), struct hulld *hulld)
{
	DIR *folder = opendir(blobs->folder);
	struct dirent *entry;

	while (folder && (entry = readdir(folder))) {
		char digest[DIGEST_HEX_BYTES + 8];
		struct stat st;

		if (snprintf(digest, sizeof(digest), "sha256:%s", entry->d_name) < (int)sizeof(digest) &&
			digest_check(digest, NULL) == 0 && fstatat(dirfd(folder), entry->d_name, &st, 0) == 0 &&
			now_ms() / 1000 - st.st_mtime > STALE_S)
			fn(hulld, digest);
	}
	if (folder)
		closedir(folder);
}

void blob_remove(const struct blobs *blobs, const char *digest)
{
	char path[BLOB_PATH_MAX];

	if (unlink(blob_path(blobs, digest, path)) < 0 && errno != ENOENT)
		log_warn("cannot remove %s: %s", path, strerror(errno));
}

/* Uploading. */

static void upload_free(struct upload *upload)
{
	if (upload->path[0])
		unlink(upload->path);
	close_fd(upload->fd);
	free(upload);
}

static void on_gone(void *ctx)
{
	((struct upload *)ctx)->req = NULL;
}

/* An upload that says how long it is is refused before it fills the disk. */
static bool refuse_without_space(struct request *req, const struct blobs *blobs)
{
	int64_t length = request_content_length(req);
	struct statvfs fs;

	if (length < 0 || statvfs(blobs->folder, &fs) < 0 || (uint64_t)length / fs.f_frsize < fs.f_bavail)
		return false;
	request_refuse_with(req, PROBLEM_INSUFFICIENT_STORAGE, NULL, "%lld bytes do not fit: %llu are free",
		(long long)length, (unsigned long long)fs.f_bavail * fs.f_frsize);
	return true;
}

static int open_temporary(struct upload *upload)
{
	snprintf(upload->path, sizeof(upload->path), "%s/" TEMPORARY "XXXXXX", upload->blobs->folder);
	upload->fd = mkostemp(upload->path, O_CLOEXEC);
	if (upload->fd >= 0)
		return 0;
	upload->path[0] = '\0';
	return error_set_errno(&upload->err, errno, "cannot create a file in %s", upload->blobs->folder);
}

static void *upload_begin(struct request *req, void *ctx)
{
	struct blobs *blobs = ((struct hulld *)ctx)->blobs;
	const char *digest = request_param(req);
	struct upload *upload;
	struct error err;

	if (digest_check(digest, &err) < 0) {
		error_in_field(&err, "digest");
		request_refuse_error(req, &err);
		return NULL;
	}
	if (refuse_without_space(req, blobs))
		return NULL;
	upload = calloc(1, sizeof(*upload));
	if (!upload)
		abort();
	upload->blobs = blobs;
	upload->req = req;
	upload->fd = -1;
	snprintf(upload->digest, sizeof(upload->digest), "%s", digest);
	upload->there = blob_size(blobs, digest) >= 0;
	sha256_init(&upload->hash);
	if (!upload->there && open_temporary(upload) < 0) {
		request_refuse_error(req, &upload->err);
		upload_free(upload);
		return NULL;
	}
	return upload;
}

static void upload_data(void *ctx, const void *data, size_t len)
{
	struct upload *upload = ctx;
	int r;

	if (upload->there || upload->err.errnum)
		return;
	sha256_update(&upload->hash, len, data);
	r = write_full(upload->fd, data, len);
	if (r < 0) {
		error_set_errno(&upload->err, -r, "cannot write the blob");
		return;
	}
	upload->written += len;
	if (upload->written - upload->written_back >= WRITE_BACK_BYTES) {
		/* Only starts it, so that the fsync at the end finds little to do. */
		sync_file_range(upload->fd, (off_t)upload->written_back,
			(off_t)(upload->written - upload->written_back), SYNC_FILE_RANGE_WRITE);
		upload->written_back = upload->written;
	}
}

static int check_content(struct upload *upload)
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	char hex[DIGEST_HEX_BYTES + 1];

	sha256_digest(&upload->hash, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	if (strcmp(hex, upload->digest + strlen("sha256:")) == 0)
		return 0;
	request_refuse_with(upload->req, PROBLEM_DIGEST_MISMATCH, "digest", "the %llu bytes received have sha256:%s",
		(unsigned long long)upload->written, hex);
	return -EBADMSG;
}

/* On the loop's thread again, after finish(). */
static void on_finished(void *ctx)
{
	struct upload *upload = ctx, **link = &upload->blobs->finishing;

	pthread_join(upload->thread, NULL);
	while (*link != upload)
		link = &(*link)->next;
	*link = upload->next;
	if (upload->req && upload->err.errnum)
		request_refuse_error(upload->req, &upload->err);
	else if (upload->req)
		request_reply(upload->req, 201,
			json_pack("{s:s, s:I}", "digest", upload->digest, "size_bytes", (json_int_t)upload->written));
	upload_free(upload);
}

static int fsync_folder(const char *path)
{
	cleanup_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* The thread: makes the file durable, then visible. */
static void *finish(void *ctx)
{
	struct upload *upload = ctx;
	char path[BLOB_PATH_MAX];

	if (fsync(upload->fd) < 0 || rename(upload->path, blob_path(upload->blobs, upload->digest, path)) < 0)
		error_set_errno(&upload->err, errno, "cannot keep the blob");
	else
		upload->path[0] = '\0';
	if (!upload->err.errnum && fsync_folder(upload->blobs->folder) < 0)
		error_set_errno(&upload->err, errno, "cannot keep the blob");
	loop_post(upload->blobs->loop, on_finished, upload);
	return NULL;
}

/* It was when the upload began. */
static void reply_there(const struct upload *upload)
{
	int64_t size = blob_size(upload->blobs, upload->digest);

	if (size < 0)
		request_refuse_with(upload->req, PROBLEM_NOT_FOUND, "digest", "was there and has been removed meanwhile: upload it again");
	else
		request_reply(upload->req, 200,
			json_pack("{s:s, s:I}", "digest", upload->digest, "size_bytes", (json_int_t)size));
}

static void upload_end(void *ctx)
{
	struct upload *upload = ctx;
	int r;

	if (upload->there) {
		reply_there(upload);
		upload_free(upload);
		return;
	}
	if (upload->err.errnum || check_content(upload) < 0) {
		if (upload->err.errnum)
			request_refuse_error(upload->req, &upload->err);
		upload_free(upload);
		return;
	}
	request_on_gone(upload->req, on_gone, upload);
	upload->next = upload->blobs->finishing;
	upload->blobs->finishing = upload;
	r = pthread_create(&upload->thread, NULL, finish, upload);
	if (r) {
		upload->blobs->finishing = upload->next;
		request_refuse_with(upload->req, PROBLEM_INTERNAL, NULL, "cannot start a thread: %s", strerror(r));
		upload_free(upload);
	}
}

static void upload_abort(void *ctx)
{
	upload_free(ctx);
}

const struct http_upload_ops blob_upload = {upload_begin, upload_data, upload_end, upload_abort};

void blobs_free(struct blobs *blobs)
{
	struct upload *upload;

	if (!blobs)
		return;
	while ((upload = blobs->finishing)) {
		pthread_join(upload->thread, NULL);
		blobs->finishing = upload->next;
		upload_free(upload);
	}
	free(blobs);
}

void blob_http_head(struct request *req, void *ctx)
{
	const struct hulld *hulld = ctx;
	struct error err;

	if (digest_check(request_param(req), &err) < 0) {
		error_in_field(&err, "digest");
		request_refuse_error(req, &err);
	} else if (blob_size(hulld->blobs, request_param(req)) < 0) {
		request_refuse_with(req, PROBLEM_NOT_FOUND, NULL, "there is no such blob");
	} else {
		request_reply(req, 200, NULL);
	}
}
