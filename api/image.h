/* Images: a name for a blob and how to run it. Handlers; their context is a struct hulld. */
#ifndef HULL_API_IMAGE_H
#define HULL_API_IMAGE_H

#include "api/http.h"
#include "api/spec.h"

void image_http_create(struct request *req, void *ctx);
void image_http_list(struct request *req, void *ctx);
void image_http_get(struct request *req, void *ctx);
void image_http_delete(struct request *req, void *ctx);

struct hulld;

/* The project's image `name` into `*ret` (json_done(&image_table, …) frees it). 0 or -errno with `err` set: -ENOENT. */
int image_load(struct hulld *hulld, const char *project, const char *name, struct image_view *ret, struct error *err);
/* The project gives up the blob when no image and no machine of it needs it any more; when nobody has it, it is removed. */
void image_release_blob(struct hulld *hulld, const char *project, const char *rootfs);
/* The same for all projects that have it for a day, without needing it. */
void image_release_stale_blob(struct hulld *hulld, const char *rootfs);

#endif
