/* How old what is in a log: pieces, each with the time by which all of it had been written, so that what is too old can go.
 *
 *	0            gone                end            end
 *	|  a hole    |  piece, by `at`   |  piece       |  not in a piece yet
 *
 * Times are milliseconds of a log_clock. The file is written by others, at its end, all the time; what has gone is a hole (bounded_file.h), so
 * that offsets, and with them readers' places, stay. The hole ends where a line begins, not where a block does: what is left of the old in its
 * last block are zeros, and `gone` is what readers go by. */
#ifndef HULL_API_LOG_PIECES_H
#define HULL_API_LOG_PIECES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#define LOG_PIECES_MAX	64
#define LOG_PIECES_A_AGE 32 /* so many make up what is kept: one goes when it is this part of that too old, at the latest */

struct log_piece {
	int64_t at;   /* all of it was written by then */
	uint64_t end; /* offset in the file */
};

struct log_pieces {
	uint64_t inode; /* 0: of no file yet */
	uint64_t gone;	/* what lies before is not there any more */
	int64_t clock;	/* log_clock.id: whose times these are */
	size_t n;
	struct log_piece pieces[LOG_PIECES_MAX]; /* the oldest first */
};

/* When a log is looked at. */
struct log_moment {
	int64_t clock; /* log_clock.id */
	int64_t now;
	int64_t before; /* when logs were looked at before that: what was written since has come since */
	int64_t wall;	/* the wall clock, for the file's own time; nothing is older by it than `before` */
};

/* Takes up what has come since. `age_ms`: how long it is kept. True: there is something to be stored. */
bool log_pieces_add(struct log_pieces *log, const struct stat *st, const struct log_moment *moment, int64_t age_ms);

/* Takes away of `fd`, which is open for both, what is older than `age_ms`. `at_rest`: nobody writes it now, so that it may be emptied where
 * the file system makes no holes. True: there is something to be stored. */
bool log_pieces_drop(struct log_pieces *log, int fd, const struct stat *st, const struct log_moment *moment, int64_t age_ms, bool at_rest);

/* As it is stored; a new object. What is not of that form is a log without pieces. */
json_t *log_pieces_dump(const struct log_pieces *log);
void log_pieces_read(struct log_pieces *ret, const json_t *stored);

#endif
