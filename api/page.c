#include "api/page.h"

#include "common/hex.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const char digits[] = "0123456789abcdef";

/* Two hexadecimal digits a byte. False: it is none of ours. */
static bool decode(const char *cursor, char ret[PAGE_KEY_MAX + 1])
{
	size_t len = strlen(cursor);

	if (len == 0 || len % 2 || len > 2 * PAGE_KEY_MAX || strspn(cursor, digits) != len)
		return false;
	for (size_t i = 0; i < len; i += 2) {
		ret[i / 2] = (char)((strchr(digits, cursor[i]) - digits) << 4 | (strchr(digits, cursor[i + 1]) - digits));
		if (!ret[i / 2])
			return false;
	}
	ret[len / 2] = '\0';
	return true;
}

static json_t *encode(const char *key)
{
	char cursor[2 * PAGE_KEY_MAX + 1];

	hex_encode(key, strlen(key), cursor);
	return json_string(cursor);
}

int page_begin(struct request *req, struct page *ret)
{
	const char *cursor = request_query(req, "cursor");

	*ret = (struct page){0};
	ret->limit = request_query_int(req, "limit", PAGE_LIMIT_MAX);
	if (cursor && !decode(cursor, ret->after)) {
		request_refuse_with(req, PROBLEM_INVALID_FIELD, "cursor", "is none that a list has answered with as next");
		return -ECANCELED;
	}
	ret->items = json_array();
	return 0;
}

bool page_is_full(const struct page *page)
{
	return page->has_more;
}

bool page_has(struct page *page, const char *key)
{
	if (strcmp(key, page->after) <= 0 || page->has_more)
		return false;
	page->has_more = json_array_size(page->items) == (size_t)page->limit;
	return !page->has_more;
}

void page_add(struct page *page, const char *key, json_t *item)
{
	assert(strlen(key) <= PAGE_KEY_MAX);
	snprintf(page->last, sizeof(page->last), "%s", key);
	json_array_append_new(page->items, item);
}

void page_reply(struct page *page, struct request *req)
{
	json_t *body = json_pack("{s:o}", "items", page->items);

	if (page->has_more)
		json_object_set_new(body, "next", encode(page->last));
	page->items = NULL;
	request_reply(req, 200, body);
}

void page_end(struct page *page, struct request *req, int r, const struct error *err)
{
	if (r >= 0) {
		page_reply(page, req);
		return;
	}
	json_decref(page->items);
	page->items = NULL;
	request_refuse_error(req, err);
}

const char *page_time_key(int64_t at, const char *id, char ret[PAGE_KEY_MAX + 1])
{
	snprintf(ret, PAGE_KEY_MAX + 1, "%016" PRIx64 "%s", (uint64_t)at, id);
	return ret;
}
