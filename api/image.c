/* Images over HTTP and in the store, where each is one document: what the API shows. */
#include "api/image.h"

#include "api/hulld.h"
#include "api/machine.h"
#include "api/page.h"
#include "api/project.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The document is the API's Image; its read-only fields are what json_read() would refuse. */
int image_load(struct hulld *hulld, const char *project, const char *name, struct image_view *ret, struct error *err)
{
	json_t *document = store_image_get(hulld->store, project, name, err);
	int r;

	if (!document)
		return -err->errnum;
	memset(ret, 0, sizeof(*ret));
	ret->size_bytes = json_integer_value(json_object_get(document, "size_bytes"));
	json_object_del(document, "size_bytes");
	json_object_del(document, "created_at");
	r = json_read(&image_spec_table, document, &ret->spec, err);
	json_decref(document);
	return r < 0 ? error_set(err, EIO, "image %s is damaged in the database", name) : 0;
}

static void release(struct hulld *hulld, const char *rootfs, int disowned, struct error *err)
{
	int owners = disowned < 0 ? disowned : store_count_blob_owners(hulld->store, rootfs, err);

	if (owners < 0)
		log_error_object(err, "a blob is kept");
	else if (owners == 0)
		blob_remove(hulld->blobs, rootfs);
}

void image_release_blob(struct hulld *hulld, const char *project, const char *rootfs)
{
	struct error err;

	release(hulld, rootfs, store_blob_disown(hulld->store, project, rootfs, INT64_MAX, &err), &err);
}

void image_release_stale_blob(struct hulld *hulld, const char *rootfs)
{
	struct error err;

	release(hulld, rootfs, store_blob_disown_all(hulld->store, rootfs, now_ms() - BLOB_STALE_S * 1000, &err), &err);
}

static int check_rootfs(struct hulld *hulld, const char *project, const char *rootfs, int64_t *ret_size, struct problem *problem)
{
	struct error err;

	*ret_size = blob_size_for(hulld, project, rootfs, &err);
	if (*ret_size < 0 && *ret_size != -ENOENT)
		return problem_from_error(problem, &err);
	if (*ret_size < 0) {
		problem_set(problem, PROBLEM_NOT_FOUND, "rootfs", "there is no such blob");
		return problem_set_hint(problem, "upload it with PUT /v1/blobs/%s", rootfs);
	}
	if (blob_check_erofs(hulld->blobs, rootfs, &err) < 0) {
		error_in_field(&err, "rootfs");
		return problem_from_error(problem, &err);
	}
	return 0;
}

static int keep_image(struct hulld *hulld, const char *project, const struct image_view *image, struct error *err)
{
	cleanup_free char *text = json_dump_text(&image_table, image);

	return store_image_put(hulld->store, project, image->spec.name, image->spec.rootfs, text, err);
}

static int create(struct hulld *hulld, const char *project, struct image_view *image, struct problem *problem)
{
	struct image_view old = {0};
	struct error err;
	int r;

	if (image_spec_check(&image->spec, &err) < 0)
		return problem_from_error(problem, &err);
	r = check_rootfs(hulld, project, image->spec.rootfs, &image->size_bytes, problem);
	if (r < 0)
		return r;
	image->created_at = format_time(now_ms());
	if (image_load(hulld, project, image->spec.name, &old, &err) < 0 && err.errnum != ENOENT)
		return problem_from_error(problem, &err);
	if (!old.spec.name && quota_check_row(hulld, project, STORE_IMAGES, problem) < 0)
		return -ECANCELED;
	r = keep_image(hulld, project, image, &err);
	if (r < 0)
		problem_from_error(problem, &err);
	else if (old.spec.rootfs && strcmp(old.spec.rootfs, image->spec.rootfs) != 0)
		image_release_blob(hulld, project, old.spec.rootfs);
	json_done(&image_table, &old);
	return r;
}

void image_http_create(struct request *req, void *ctx)
{
	struct image_view image = {0};
	struct problem problem;

	if (request_read(req, &image_spec_table, &image.spec) < 0)
		return;
	if (create(ctx, request_project(req), &image, &problem) < 0)
		request_refuse(req, &problem);
	else
		request_reply(req, 201, json_dump(&image_table, &image));
	json_done(&image_table, &image);
}

void image_http_list(struct request *req, void *ctx)
{
	struct hulld *hulld = ctx;
	struct error err;
	json_t *images, *image;
	struct page page;
	size_t i;

	if (page_begin(req, &page) < 0)
		return;
	images = store_images(hulld->store, request_project(req), &err);
	json_array_foreach(images, i, image) {
		const char *name = json_string_value(json_object_get(image, "name"));

		if (name && page_has(&page, name))
			page_add(&page, name, json_incref(image));
	}
	page_end(&page, req, images ? 0 : -1, &err);
	json_decref(images);
}

static void refuse_missing(struct request *req, const struct error *err)
{
	if (err->errnum == ENOENT)
		request_refuse_with(req, PROBLEM_NOT_FOUND, NULL, "%s", err->message);
	else
		request_refuse_error(req, err);
}

void image_http_get(struct request *req, void *ctx)
{
	struct hulld *hulld = ctx;
	struct error err;
	json_t *image = store_image_get(hulld->store, request_project(req), request_param(req), &err);

	if (image)
		request_reply_matching(req, image);
	else
		refuse_missing(req, &err);
}

void image_http_delete(struct request *req, void *ctx)
{
	struct hulld *hulld = ctx;
	const struct machine *user;
	struct image_view image;
	json_t *document;
	struct problem problem;
	struct error err;

	document = store_image_get(hulld->store, request_project(req), request_param(req), &err);
	if (!document || image_load(hulld, request_project(req), request_param(req), &image, &err) < 0) {
		refuse_missing(req, &err);
		json_decref(document);
		return;
	}
	if (request_check_match(req, document) < 0) {
		json_done(&image_table, &image);
		return;
	}
	user = request_query_int(req, "force", 0) ? NULL : machine_using_image(hulld, request_project(req), image.spec.name);
	if (user) {
		problem_set(&problem, PROBLEM_IMAGE_IN_USE, NULL, "machine %s was created from image %s", user->record.name,
			image.spec.name);
		problem_set_hint(&problem, "delete the machine, or repeat with ?force=1: machines keep what they need");
		request_refuse(req, &problem);
	} else if (store_image_delete(hulld->store, request_project(req), image.spec.name, &err) < 0) {
		request_refuse_error(req, &err);
	} else {
		image_release_blob(hulld, request_project(req), image.spec.rootfs);
		request_reply(req, 204, NULL);
	}
	json_done(&image_table, &image);
}
