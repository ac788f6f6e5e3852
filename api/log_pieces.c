/* Pieces of logs. See log_pieces.h. */
#include "api/log_pieces.h"

#include "common/cleanup.h"
#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 65536 /* a longer line is cut where the piece ends */

static struct log_piece *last(struct log_pieces *log)
{
	return log->n ? &log->pieces[log->n - 1] : NULL;
}

/* The oldest `n`. */
static void forget(struct log_pieces *log, size_t n)
{
	log->n -= n;
	memmove(log->pieces, log->pieces + n, log->n * sizeof(log->pieces[0]));
}

/* When the file was written last, as far as that can be believed: not before `earliest`. */
static int64_t written_by(const struct stat *st, const struct log_moment *moment, int64_t earliest)
{
	int64_t wall = st->st_mtim.tv_sec * INT64_C(1000) + st->st_mtim.tv_nsec / 1000000, at;

	if (wall > moment->wall)
		return moment->now;
	at = moment->now - (moment->wall - wall);
	return at > earliest ? at : earliest;
}

/* What was timed by a clock that is lost may have been written now, and none was later. True: one was changed. */
static bool correct(struct log_pieces *log, const struct log_moment *moment)
{
	bool lost = log->clock != moment->clock, changed = false;

	for (size_t i = log->n; i-- > 0 && (lost || log->pieces[i].at > moment->now); changed = true)
		log->pieces[i].at = moment->now;
	log->clock = moment->clock;
	return changed;
}

bool log_pieces_add(struct log_pieces *log, const struct stat *st, const struct log_moment *moment, int64_t age_ms)
{
	uint64_t size = (uint64_t)st->st_size;
	bool other = log->inode != st->st_ino || size < log->gone || (log->n && size < last(log)->end);
	int64_t earliest = moment->before;

	if (other)
		*log = (struct log_pieces){.inode = st->st_ino};
	other |= correct(log, moment);
	if (size == (log->n ? last(log)->end : log->gone) || (log->n && moment->now - last(log)->at < age_ms / LOG_PIECES_A_AGE))
		return other;
	if (log->n == LOG_PIECES_MAX)
		forget(log, 1); /* it is kept for as long as what came after it */
	if (log->n && last(log)->at > earliest)
		earliest = last(log)->at;
	log->pieces[log->n++] = (struct log_piece){written_by(st, moment, earliest), size};
	return true;
}

/* Behind the last line that ends in [begin, end), or `end`: what a line that goes on after it has there stays with that. */
static uint64_t last_line_end(int fd, uint64_t begin, uint64_t end)
{
	cleanup_free char *block = malloc(LINE_MAX_BYTES);
	const char *newline;
	ssize_t n;

	if (!block)
		abort();
	if (end - begin > LINE_MAX_BYTES)
		begin = end - LINE_MAX_BYTES;
	n = pread_full(fd, block, (size_t)(end - begin), begin);
	newline = n > 0 ? memrchr(block, '\n', (size_t)n) : NULL;
	return newline ? begin + (uint64_t)(newline + 1 - block) : end;
}

/* 0 or -errno: then it is as it was. `whole`: nothing is left then, nor is anything written now. */
static int take_away(struct log_pieces *log, int fd, uint64_t end, bool whole)
{
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)end) == 0) {
		log->gone = end;
		return 0;
	}
	/* A file system without holes. */
	if (errno != EOPNOTSUPP || !whole || ftruncate(fd, 0) < 0)
		return -errno;
	log->gone = 0;
	return 0;
}

bool log_pieces_drop(struct log_pieces *log, int fd, const struct stat *st, const struct log_moment *moment, int64_t age_ms, bool at_rest)
{
	bool all;
	size_t old = 0;
	uint64_t end;

	while (old < log->n && moment->now - log->pieces[old].at >= age_ms)
		old++;
	if (old == 0)
		return false;
	end = log->pieces[old - 1].end;
	all = end == (uint64_t)st->st_size;
	if (end > log->gone && take_away(log, fd, all ? end : last_line_end(fd, log->gone, end), all && at_rest) < 0)
		return false;
	forget(log, old);
	return true;
}

/* ---- as it is stored ---- */

json_t *log_pieces_dump(const struct log_pieces *log)
{
	json_t *pieces = json_array();

	for (size_t i = 0; i < log->n; i++)
		json_array_append_new(pieces, json_pack("[I, I]", (json_int_t)log->pieces[i].at, (json_int_t)log->pieces[i].end));
	return json_pack("{s:I, s:I, s:I, s:o}", "inode", (json_int_t)log->inode, "gone", (json_int_t)log->gone, "clock", (json_int_t)log->clock,
		"pieces", pieces);
}

/* In their order, with no end before the one before. */
static bool read_pieces(struct log_pieces *ret, const json_t *pieces)
{
	json_t *piece;
	size_t i;

	json_array_foreach (pieces, i, piece) {
		json_int_t at = json_integer_value(json_array_get(piece, 0)), end = json_integer_value(json_array_get(piece, 1));

		if (i == LOG_PIECES_MAX || at <= 0 || end < 0 || (uint64_t)end < ret->gone ||
			(i && ((uint64_t)end < ret->pieces[i - 1].end || at < ret->pieces[i - 1].at)))
			return false;
		ret->pieces[ret->n++] = (struct log_piece){at, (uint64_t)end};
	}
	return true;
}

void log_pieces_read(struct log_pieces *ret, const json_t *stored)
{
	json_int_t inode = json_integer_value(json_object_get(stored, "inode")), gone = json_integer_value(json_object_get(stored, "gone"));

	*ret = (struct log_pieces){.inode = (uint64_t)inode, .gone = gone > 0 ? (uint64_t)gone : 0,
		.clock = json_integer_value(json_object_get(stored, "clock"))};
	if (!read_pieces(ret, json_object_get(stored, "pieces")))
		*ret = (struct log_pieces){0};
}
