/* The metadata document: kept, changed, and read by paths. */
#include "devices/mmds_store.h"

#include "common/cleanup.h"

#include <errno.h>
#include <string.h>

void mmds_store_init(struct mmds_store *store, size_t limit_bytes)
{
	*store = (struct mmds_store){.limit = limit_bytes};
}

void mmds_store_done(struct mmds_store *store)
{
	json_decref(store->data);
	store->data = NULL;
}

/* There is nothing better to do without memory for what is in memory already. */
static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static int compare_keys(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static json_t *copy_sorted(const json_t *value);

static json_t *copy_object(const json_t *object)
{
	cleanup_free const char **keys = must(calloc(json_object_size(object) + 1, sizeof(*keys)));
	json_t *copy = must(json_object()), *value;
	const char *key;
	size_t n = 0;

	json_object_foreach((json_t *)object, key, value)
		keys[n++] = key;
	qsort(keys, n, sizeof(*keys), compare_keys);
	for (size_t i = 0; i < n; i++)
		if (json_object_set_new(copy, keys[i], copy_sorted(json_object_get(object, keys[i]))) < 0)
			abort();
	return copy;
}

/* What is read many times is sorted once. A new reference. */
static json_t *copy_sorted(const json_t *value)
{
	json_t *copy, *item;
	size_t i;

	if (json_is_object(value))
		return copy_object(value);
	if (!json_is_array(value))
		return json_incref((json_t *)value);
	copy = must(json_array());
	json_array_foreach(value, i, item)
		if (json_array_append_new(copy, copy_sorted(item)) < 0)
			abort();
	return copy;
}

static bool has_fraction(const json_t *value)
{
	const char *key;
	json_t *item;
	size_t i;

	json_object_foreach((json_t *)value, key, item)
		if (has_fraction(item))
			return true;
	json_array_foreach(value, i, item)
		if (has_fraction(item))
			return true;
	return json_is_real(value);
}

/* 17 digits always read back as the same number, 15 look as the number was written: they are used when they do, too. */
static char *json_text(const json_t *value)
{
	const size_t flags = JSON_COMPACT | JSON_ENCODE_ANY;
	char *text = must(json_dumps(value, flags | JSON_REAL_PRECISION(15)));
	json_t *again;
	bool same;

	if (!has_fraction(value))
		return text;
	again = json_loads(text, JSON_DECODE_ANY, NULL);
	same = json_equal(again, value);
	json_decref(again);
	if (same)
		return text;
	free(text);
	return must(json_dumps(value, flags | JSON_REAL_PRECISION(17)));
}

static int check_size(const struct mmds_store *store, const json_t *data, struct error *err)
{
	cleanup_free char *text = json_text(data);
	size_t len = strlen(text);

	if (len <= store->limit)
		return 0;
	return error_set(err, EMSGSIZE, "the metadata would have %zu bytes; the data store holds %zu", len, store->limit);
}

int mmds_store_put(struct mmds_store *store, const json_t *data, struct error *err)
{
	int r = check_size(store, data, err);

	if (r < 0)
		return r;
	json_decref(store->data);
	store->data = copy_sorted(data);
	return 0;
}

/* RFC 7396, 2: `target` (taken over; NULL is none) with the patch merged into it. */
static json_t *merge(json_t *target, const json_t *patch)
{
	const char *key;
	json_t *value;

	if (!json_is_object(patch)) {
		json_decref(target);
		return must(json_deep_copy(patch));
	}
	if (!json_is_object(target)) {
		json_decref(target);
		target = must(json_object());
	}
	json_object_foreach((json_t *)patch, key, value) {
		if (json_is_null(value))
			json_object_del(target, key);
		else if (json_object_set_new(target, key, merge(json_incref(json_object_get(target, key)), value)) < 0)
			abort();
	}
	return target;
}

int mmds_store_patch(struct mmds_store *store, const json_t *patch, struct error *err)
{
	json_t *merged;
	int r;

	if (!store->data)
		return error_set(err, ENOENT, "The MMDS data store is not initialized.");
	merged = merge(must(json_deep_copy(store->data)), patch);
	r = mmds_store_put(store, merged, err);
	json_decref(merged);
	return r;
}

json_t *mmds_store_get(const struct mmds_store *store)
{
	return store->data && !json_is_null(store->data) ? json_incref(store->data) : must(json_object());
}

/* Paths. */

/* The next part of a path, behind any number of slashes. False at its end. */
static bool next_part(struct http_text *path, struct http_text *ret)
{
	const char *slash;

	while (path->len && *path->data == '/') {
		path->data++;
		path->len--;
	}
	if (!path->len)
		return false;
	slash = memchr(path->data, '/', path->len);
	*ret = (struct http_text){path->data, slash ? (size_t)(slash - path->data) : path->len};
	path->data += ret->len;
	path->len -= ret->len;
	return true;
}

/* RFC 6901, 4: `~1` is a slash, `~0` a tilde. To be freed. */
static char *unescape(struct http_text part)
{
	char *key = must(malloc(part.len + 1)), *to = key;

	for (size_t i = 0; i < part.len; i++) {
		if (part.data[i] == '~' && i + 1 < part.len && (part.data[i + 1] == '0' || part.data[i + 1] == '1'))
			*to++ = part.data[++i] == '1' ? '/' : '~';
		else
			*to++ = part.data[i];
	}
	*to = '\0';
	return key;
}

/* The same: digits without a zero before them. NULL for anything else. */
static const json_t *array_item(const json_t *array, struct http_text part)
{
	size_t index = 0;

	if (part.len > 1 && part.data[0] == '0')
		return NULL;
	for (size_t i = 0; i < part.len; i++) {
		if (part.data[i] < '0' || part.data[i] > '9' || index > json_array_size(array))
			return NULL;
		index = index * 10 + (size_t)(part.data[i] - '0');
	}
	return json_array_get(array, index);
}

const json_t *mmds_store_find(const struct mmds_store *store, struct http_text path)
{
	const json_t *value = store->data;
	struct http_text part;

	while (value && next_part(&path, &part)) {
		cleanup_free char *key = unescape(part);

		value = json_is_array(value) ? array_item(value, part) : json_object_get(value, key);
	}
	return value;
}

/* Formats. */

int mmds_put_json(struct buf *out, const json_t *value)
{
	cleanup_free char *text = json_text(value);

	return buf_append(out, text, strlen(text));
}

static int put_keys(struct buf *out, const json_t *object)
{
	const char *key, *between = "";
	json_t *value;
	int r = 0;

	json_object_foreach((json_t *)object, key, value) {
		r = buf_printf(out, "%s%s%s", between, key, json_is_object(value) ? "/" : "");
		if (r < 0)
			break;
		between = "\n";
	}
	return r;
}

int mmds_put_imds(struct buf *out, const json_t *value)
{
	if (json_is_object(value))
		return put_keys(out, value);
	if (json_is_string(value))
		return buf_append(out, json_string_value(value), json_string_length(value));
	return -EOPNOTSUPP;
}
