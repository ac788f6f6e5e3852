/* Content-addressed files: blobs/sha256/<hex> below the state folder. A name exists only with the right content.
 *
 * Theory of operation. Bytes are hashed and written as they arrive, on the loop's thread, to a temporary file beside
 * the blobs; writing back is started every few MiB. The last part, fsync and rename, can take seconds and is done by a
 * worker, which touches nothing but that file. Temporary files that a
 * crash left are removed at the next start; so are blobs that nobody has used for a day.
 *
 * Projects share a blob's bytes, and do not know it: each has to upload it, whole, to have it, and what it has not uploaded
 * is not there for it. Who has what is in the database (store.h), written before the file has its name. */
#ifndef HULL_API_BLOBS_H
#define HULL_API_BLOBS_H

#include "api/http.h"

struct blobs;
struct hulld;

#define BLOB_PATH_MAX 512
#define BLOB_STALE_S  86400 /* what nobody has needed for that long goes */

/* `state` is the state folder (absolute, borrowed). NULL with `err` set. */
struct blobs *blobs_new(struct loop *loop, const char *state, struct error *err);
/* Waits for uploads that are being finished. After http_free(). NULL is fine. */
void blobs_free(struct blobs *blobs);

/* Where the blob is or would be; `digest` has passed digest_check(). Returns `ret`. */
char *blob_path(const struct blobs *blobs, const char *digest, char ret[BLOB_PATH_MAX]);
/* Its size in bytes, or -errno: -ENOENT when the project has not uploaded it, whoever else has; of all others `err` is set. */
int64_t blob_size_for(const struct hulld *hulld, const char *project, const char *digest, struct error *err);
/* Does it begin like an EROFS file system? 0, or -EINVAL with `err` set. */
int blob_check_erofs(const struct blobs *blobs, const char *digest, struct error *err);
/* Calls `fn`, which may remove it, with the digest of each blob older than `age_s` (-1: of all). By BLOB_STALE_S, an upload
 * that no image came for, or one whose last user was removed when hulld was killed, is found. */
void blobs_each_stale(const struct blobs *blobs, int64_t age_s, void (*fn)(struct hulld *hulld, const char *digest),
	struct hulld *hulld);
/* Removes it; no blob is no error. */
void blob_remove(const struct blobs *blobs, const char *digest);

/* Routes; their context is a struct hulld. */
extern const struct http_upload_ops blob_upload;
extern const struct json_table blob_table; /* what it answers */
void blob_http_head(struct request *req, void *ctx);

#endif
