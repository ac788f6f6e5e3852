/* Uploading and keeping blobs. See blobs.h for the theory of operation. */
#include "api/blobs.h"

#include "api/hulld.h"
#include "api/image.h"
#include "api/project.h"
#include "api/worker.h"
#include "common/cleanup.h"
#include "common/hex.h"
#include "common/io.h"
#include "common/log.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define TEMPORARY	"upload-" /* no digest begins like this */
#define WRITE_BACK_BYTES (8u << 20)
#define EROFS_OFFSET	1024 /* of the superblock; its first field is the magic, little-endian */
#define EROFS_MAGIC	0xe0f5e1e2u

struct upload {
	struct hulld *hulld;
	struct blobs *blobs;
	struct request *req; /* NULL once the client has gone */
	bool there;	     /* the project has the blob: what comes is dropped */
	int fd;
	char path[BLOB_PATH_MAX];      /* the temporary file; "" when it is gone */
	char digest[DIGEST_HEX_BYTES + 8], project[NAME_MAX_BYTES + 1];
	struct sha256_ctx hash;
	uint64_t written, written_back; /* bytes */
	struct error err;		/* errnum 0: none so far */
	bool refused;			/* with `problem` */
	struct problem problem;
	struct upload *next; /* in blobs->coming */
};

struct blobs {
	struct loop *loop;
	char folder[BLOB_PATH_MAX - DIGEST_HEX_BYTES - 8];
	struct worker *finishing;
	struct upload *coming; /* whose files grow */
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

/* In bytes, or -errno (-ENOENT). */
static int64_t size_of(const struct blobs *blobs, const char *digest)
{
	char path[BLOB_PATH_MAX];
	struct stat st;

	return stat(blob_path(blobs, digest, path), &st) == 0 ? st.st_size : -errno;
}

int64_t blob_size_for(const struct hulld *hulld, const char *project, const char *digest, struct error *err)
{
	int owned = store_blob_is_owned(hulld->store, project, digest, err);

	if (owned < 0)
		return owned;
	return owned ? size_of(hulld->blobs, digest) : -ENOENT;
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

void blobs_each_stale(const struct blobs *blobs, int64_t age_s, void (*fn)(struct hulld *hulld, const char *digest), struct hulld *hulld)
{
	DIR *folder = opendir(blobs->folder);
	struct dirent *entry;

	while (folder && (entry = readdir(folder))) {
		char digest[DIGEST_HEX_BYTES + 8];
		struct stat st;

		if (snprintf(digest, sizeof(digest), "sha256:%s", entry->d_name) < (int)sizeof(digest) &&
			digest_check(digest, NULL) == 0 && fstatat(dirfd(folder), entry->d_name, &st, 0) == 0 &&
			now_ms() / 1000 - st.st_mtime > age_s)
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

static void leave_coming(struct upload *upload)
{
	struct upload **link = &upload->blobs->coming;

	while (*link && *link != upload)
		link = &(*link)->next;
	if (*link)
		*link = upload->next;
}

static void upload_free(void *ctx)
{
	struct upload *upload = ctx;

	leave_coming(upload);
	if (upload->path[0])
		unlink(upload->path);
	close_fd(upload->fd);
	free(upload);
}

/* Of all that the project uploads at this time: when each ends is its client's to choose. */
static int64_t coming_bytes(const struct blobs *blobs, const char *project)
{
	int64_t bytes = 0;

	for (const struct upload *upload = blobs->coming; upload; upload = upload->next)
		if (strcmp(upload->project, project) == 0)
			bytes += (int64_t)upload->written;
	return bytes;
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
	struct hulld *hulld = ctx;
	struct blobs *blobs = hulld->blobs;
	const char *digest = request_param(req);
	struct upload *upload;
	struct error err;
	struct problem problem;
	int64_t size, length;

	if (digest_check(digest, &err) < 0) {
		error_in_field(&err, "digest");
		request_refuse_error(req, &err);
		return NULL;
	}
	size = blob_size_for(hulld, request_project(req), digest, &err);
	if (size < 0 && size != -ENOENT) {
		request_refuse_error(req, &err);
		return NULL;
	}
	if (refuse_without_space(req, blobs))
		return NULL;
	length = request_content_length(req);
	length = (length > 0 ? length : 0) + coming_bytes(blobs, request_project(req));
	if (size < 0 && quota_check_blob(hulld, request_project(req), length, &problem) < 0) {
		request_refuse(req, &problem);
		return NULL;
	}
	upload = calloc(1, sizeof(*upload));
	if (!upload)
		abort();
	upload->hulld = hulld;
	upload->blobs = blobs;
	upload->req = req;
	upload->fd = -1;
	snprintf(upload->digest, sizeof(upload->digest), "%s", digest);
	snprintf(upload->project, sizeof(upload->project), "%s", request_project(req));
	upload->there = size >= 0;
	if (!upload->there) {
		upload->next = blobs->coming;
		blobs->coming = upload;
	}
	sha256_init(&upload->hash);
	if (!upload->there && open_temporary(upload) < 0) {
		request_refuse_error(req, &upload->err);
		upload_free(upload);
		return NULL;
	}
	return upload;
}

/* What is refused takes no room, however long its client goes on. */
static void check_quota(struct upload *upload)
{
	int64_t bytes = coming_bytes(upload->blobs, upload->project);

	upload->refused = quota_check_blob(upload->hulld, upload->project, bytes, &upload->problem) < 0;
	if (!upload->refused)
		return;
	leave_coming(upload);
	if (ftruncate(upload->fd, 0) < 0)
		log_warn("cannot empty %s: %s", upload->path, strerror(errno));
}

static void upload_data(void *ctx, const void *data, size_t len)
{
	struct upload *upload = ctx;
	int r;

	if (upload->there || upload->err.errnum || upload->refused)
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
		check_quota(upload); /* the length was not said, or others came meanwhile */
	}
}

static int check_content(struct upload *upload)
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	char hex[DIGEST_HEX_BYTES + 1];

	sha256_digest(&upload->hash, sizeof(digest), digest);
	hex_encode(digest, sizeof(digest), hex);
	if (strcmp(hex, upload->digest + strlen("sha256:")) == 0)
		return 0;
	request_refuse_with(upload->req, PROBLEM_DIGEST_MISMATCH, "digest", "the %llu bytes received have sha256:%s",
		(unsigned long long)upload->written, hex);
	return -EBADMSG;
}

struct blob_view {
	char *digest;
	int64_t size_bytes;
};

static const struct json_field blob_fields[] = {
	{"digest", JSON_FIELD_STRING, offsetof(struct blob_view, digest), .required = true, .read_only = true, .pattern = DIGEST_PATTERN},
	{"size_bytes", JSON_FIELD_INT, offsetof(struct blob_view, size_bytes), .required = true, .read_only = true, .max = INT64_MAX},
};
const struct json_table blob_table = JSON_TABLE("Blob", struct blob_view, blob_fields);

static void reply(const struct upload *upload, int status, int64_t size_bytes)
{
	request_reply(upload->req, status, json_dump(&blob_table, &(struct blob_view){(char *)upload->digest, size_bytes}));
}

/* On the loop's thread again, after finish(). */
static void on_finished(void *ctx)
{
	struct upload *upload = ctx;

	if (upload->err.errnum && size_of(upload->blobs, upload->digest) < 0)
		image_release_blob(upload->hulld, upload->project, upload->digest);
	if (upload->req && upload->err.errnum)
		request_refuse_error(upload->req, &upload->err);
	else if (upload->req)
		reply(upload, 201, (int64_t)upload->written);
	upload_free(upload);
}

static int fsync_folder(const char *path)
{
	cleanup_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* The worker: makes the file durable, then visible. */
static void finish(void *ctx)
{
	struct upload *upload = ctx;
	char path[BLOB_PATH_MAX];

	/* Where another project has it, what that one's machines have open stays what has the name. */
	if (fsync(upload->fd) < 0 || (renameat2(AT_FDCWD, upload->path, AT_FDCWD, blob_path(upload->blobs, upload->digest, path),
						RENAME_NOREPLACE) < 0 && errno != EEXIST))
		error_set_errno(&upload->err, errno, "cannot keep the blob");
	else if (access(upload->path, F_OK) < 0)
		upload->path[0] = '\0';
	if (!upload->err.errnum && fsync_folder(upload->blobs->folder) < 0)
		error_set_errno(&upload->err, errno, "cannot keep the blob");
}

/* It was when the upload began. */
static void reply_there(const struct upload *upload)
{
	struct error err;
	int64_t size = blob_size_for(upload->hulld, upload->project, upload->digest, &err);

	if (size < 0 && size != -ENOENT)
		request_refuse_error(upload->req, &err);
	else if (size < 0)
		request_refuse_with(upload->req, PROBLEM_NOT_FOUND, "digest", "was there and has been removed meanwhile: upload it again");
	else
		reply(upload, 200, size);
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
	if (!upload->err.errnum && !upload->refused)
		check_quota(upload);
	if (upload->refused) {
		request_refuse(upload->req, &upload->problem);
		upload_free(upload);
		return;
	}
	/* Before the worker begins: from now on nobody removes the file for want of owners. */
	if (upload->err.errnum || check_content(upload) < 0 ||
		store_blob_own(upload->hulld->store, upload->project, upload->digest, (int64_t)upload->written, now_ms(),
			&upload->err) < 0) {
		if (upload->err.errnum)
			request_refuse_error(upload->req, &upload->err);
		upload_free(upload);
		return;
	}
	leave_coming(upload); /* it is among what the project has */
	request_on_gone(upload->req, on_gone, upload);
	r = worker_begin(&upload->blobs->finishing, upload->blobs->loop, finish, on_finished, upload);
	if (r < 0) {
		request_refuse_with(upload->req, PROBLEM_INTERNAL, NULL, "cannot start a thread: %s", strerror(-r));
		upload_free(upload);
	}
}

const struct http_upload_ops blob_upload = {upload_begin, upload_data, upload_end, upload_free};

void blobs_free(struct blobs *blobs)
{
	if (!blobs)
		return;
	workers_end(&blobs->finishing, upload_free);
	free(blobs);
}

void blob_http_head(struct request *req, void *ctx)
{
	const struct hulld *hulld = ctx;
	struct error err;
	int64_t size;

	if (digest_check(request_param(req), &err) < 0) {
		error_in_field(&err, "digest");
		request_refuse_error(req, &err);
		return;
	}
	size = blob_size_for(hulld, request_project(req), request_param(req), &err);
	if (size >= 0)
		request_reply(req, 200, NULL);
	else if (size == -ENOENT)
		request_refuse_with(req, PROBLEM_NOT_FOUND, NULL, "there is no such blob");
	else
		request_refuse_error(req, &err);
}
