/* Lists in pages: GET …?limit=N&cursor=C answers {"items": […], "next": C}, without `next` on the last page; without a limit, PAGE_LIMIT_MAX.
 * So what an answer takes, in memory and of the loop's time, does not grow with what there is.
 *
 * A cursor holds the key of the last item that was sent, and the next page begins behind it: what comes and goes meanwhile moves
 * nothing, and what is there all the time is there once. To clients it is opaque. */
#ifndef HULL_API_PAGE_H
#define HULL_API_PAGE_H

#include "api/http.h"

#define PAGE_LIMIT_MAX 1000
#define PAGE_KEY_MAX   253 /* as a host name */

struct page {
	int64_t limit;
	char after[PAGE_KEY_MAX + 1]; /* ""; the first page */
	char last[PAGE_KEY_MAX + 1];
	bool has_more;
	json_t *items; /* owned */
};

/* Reads what `req` asks for. 0, or -ECANCELED having refused. Then page_reply() or page_end(). */
int page_begin(struct request *req, struct page *ret);

/* Is the item with that key (unique, 1 to PAGE_KEY_MAX bytes) on the page? To be asked in the order of the keys, by strcmp(). If so, it
 * is to be added with page_add(). */
bool page_has(struct page *page, const char *key);
/* Takes `item`. */
void page_add(struct page *page, const char *key, json_t *item);
/* The page is full, and there is more. */
bool page_is_full(const struct page *page);
void page_reply(struct page *page, struct request *req);
/* The same when `r`, of what has read the items, is not negative; else refuses with `err`. */
void page_end(struct page *page, struct request *req, int r, const struct error *err);

/* The key of what is listed by its time (ms since 1970), then by its id. Returns `ret`. */
const char *page_time_key(int64_t at, const char *id, char ret[PAGE_KEY_MAX + 1]);

#endif
