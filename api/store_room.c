/* Room for what ends, changes state and deletes, also when the disk is full. See store.h.
 *
 * Theory of operation. The database has free pages of its own, RESERVE of them where the disk allows: they have blocks
 * (where the file system can give them ahead), and no guest and no log can take them. What makes more is refused where fewer than FEW would be left; these are for what makes
 * less, about a hundred changes, which on the way leave free pages themselves. The journal has its room likewise: it is never cut, and
 * the reserve has gone through it. */
#include "api/store_private.h"

#include "common/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define PAGE_BYTES 4096 /* SQLite's usual */
#define RESERVE	   512	/* pages, 2 MiB: what there is at first, and the journal has had room for, or after what took many; */
#define REFILL	   256	/* what there is again, when there are less than */
#define LOW	   128	/* these: others wait for it; a row may need more */
#define FEW	   64
#define SLACK	   8		/* pages, of what the database needs to have the others */
#define AGAIN_NS   100000000ull /* after the disk was full */

static int64_t number(struct store *store, enum store_statement which)
{
	struct error ignored;

	return store_number(store, store_begin(store, which), &ignored);
}

/* Blocks behind the database's last page, before there are pages in the journal that need some. Not by writing there: what another process
 * has copied from the journal meanwhile, somebody's shell, is to stay. A file system without fallocate() promises nothing. */
static bool extend(const struct store *store, int64_t bytes)
{
	struct stat st;
	int r = 0;

	if (fstat(store->room_fd, &st) < 0)
		return false;
	do
		r = st.st_size < bytes ? fallocate(store->room_fd, 0, st.st_size, bytes - st.st_size) : 0;
	while (r < 0 && errno == EINTR);
	return r == 0 || errno == EOPNOTSUPP || errno == ENOSYS;
}

/* A row of zeroes that goes again leaves its pages, which are written (secure_delete). */
static int fill(struct store *store, int64_t pages, struct error *err)
{
	sqlite3_stmt *stmt = store_begin(store, ROOM_FILL);
	int r;

	sqlite3_bind_int64(stmt, 1, pages * PAGE_BYTES);
	r = store_commit(store, stmt, err);
	return r < 0 ? r : store_commit(store, store_begin(store, ROOM_EMPTY), err);
}

/* What there has to be before a row of so many bytes, the most of which are in pages that have nothing else (and a link to the next). */
static int64_t pages_before(size_t row_bytes)
{
	return FEW + (int64_t)(row_bytes / (PAGE_BYTES - sizeof(uint32_t)));
}

/* `least`: pages that there have to be. */
static void make_room(struct store *store, int64_t least)
{
	int64_t there = number(store, ROOM_FREE), pages = there < FEW ? RESERVE : REFILL;
	struct error err;
	int r = -ENOSPC;

	if (pages < least)
		pages = least;
	if (there >= (least > LOW ? least : LOW) || !sqlite3_get_autocommit(store->db) || monotonic_ns() < store->full_until_ns)
		return;
	if (extend(store, (number(store, ROOM_PAGES) + pages - there + SLACK) * PAGE_BYTES))
		r = store_commit(store, store_begin(store, TRANSACTION_BEGIN), &err);
	if (r == 0)
		r = store_transaction_end(store, fill(store, pages, &err), &err);
	if (r < 0)
		store->full_until_ns = monotonic_ns() + AGAIN_NS;
}

void store_make_room(struct store *store)
{
	make_room(store, LOW);
}

int store_check_room(struct store *store, size_t row_bytes, struct error *err)
{
	int64_t least = pages_before(row_bytes);

	make_room(store, least);
	if (number(store, ROOM_FREE) >= least)
		return 0;
	return error_set(err, ENOSPC, "the disk is full: the room that the database has left is for what ends or deletes something");
}
