/* The metadata that MMDS gives out: one JSON document with a limit to its size. Loop thread. */
#ifndef HULL_DEVICES_MMDS_STORE_H
#define HULL_DEVICES_MMDS_STORE_H

#include "common/buf.h"
#include "common/error.h"
#include "common/http.h"

#include <jansson.h>
#include <stdbool.h>

struct mmds_store {
	json_t *data; /* owned; NULL until it is put; keys are in order */
	size_t limit; /* bytes of it as compact JSON */
};

void mmds_store_init(struct mmds_store *store, size_t limit_bytes);
void mmds_store_done(struct mmds_store *store);

/* A copy of `data`, its keys in order, takes the place of what was there. 0; -EMSGSIZE with `err` set and nothing changed
 * when it is larger than the limit. */
int mmds_store_put(struct mmds_store *store, const json_t *data, struct error *err);
/* Merges `patch` into it (RFC 7396). The same, and -ENOENT before anything was put. */
int mmds_store_patch(struct mmds_store *store, const json_t *patch, struct error *err);
/* A new reference; {} before anything was put. */
json_t *mmds_store_get(const struct mmds_store *store);

/* What is at `path`, a JSON pointer (RFC 6901) in which slashes may be repeated and one may end it: borrowed; or NULL. */
const json_t *mmds_store_find(const struct mmds_store *store, struct http_text path);

/* Appends a value as compact JSON. 0 or as buf_append(). */
int mmds_put_json(struct buf *out, const json_t *value);
/* Appends it as EC2's metadata service writes it: a string as it is, an object as the lines of its keys, those of objects
 * with a slash. 0, -EOPNOTSUPP for what is neither, or as buf_append(). */
int mmds_put_imds(struct buf *out, const json_t *value);

#endif
