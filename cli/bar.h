/* How far something is, in one line on a terminal: the one place that draws it.
 *
 * It is on standard error, and only where that is a terminal which somebody sees: not with TERM=dumb, nor in the background. It
 * has no colours, so that NO_COLOR asks for nothing more, and no escape sequences: it is written over, as long as the terminal is wide, and
 * taken away by blanks. It comes once something takes longer than a moment; at the end, be it by a signal, nothing is left of it. */
#ifndef HULL_CLI_BAR_H
#define HULL_CLI_BAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BAR_LINE_MAX  256
#define BAR_LABEL_MAX 64 /* bytes; longer ones are cut */

struct bar {
	char label[BAR_LABEL_MAX];
	bool on;
	int drawn; /* columns on the screen */
	int64_t begun_ms, next_ms; /* when it began, and when it may be drawn again, on the monotonic clock */
};

/* `label`: what it is about. NULL: nothing is drawn. */
void bar_begin(struct bar *bar, const char *label);
/* To be called before anything else is written, and at the end; a bar all 0 has nothing to end. It may go on then. */
void bar_end(struct bar *bar);
/* For another process that writes to standard error: a bar of whoever began it may be there. */
void bar_make_room(void);

/* Each draws when it is time to. Bytes, or steps, of so many; 0: nobody knows of how many. `what`: is done just now. */
void bar_bytes(struct bar *bar, uint64_t done, uint64_t total);
void bar_steps(struct bar *bar, uint64_t done, uint64_t total, const char *what);

/* The line, of less than `columns`, and 128 at most: "LABEL [####      ] 40% REST", with a bar where `total` is not 0 and it has room. Returns `ret`. */
char *bar_line(char ret[BAR_LINE_MAX], int columns, const char *label, uint64_t done, uint64_t total, const char *rest);

#endif
