#include "cli/bar.h"

#include "cli/output.h"
#include "common/checked.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define MOMENT_MS   300
#define EVERY_MS    100
#define BAR_MAX	    40 /* columns inside the brackets */
#define BAR_MIN	    10
#define COLUMNS	    80
#define ECHO_COLUMNS 2 /* "^C" */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static int terminal_columns(void)
{
	struct winsize size;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : COLUMNS;
}

static bool is_seen(void)
{
	const char *term = getenv("TERM");

	return isatty(STDERR_FILENO) && term && term[0] && strcmp(term, "dumb") != 0;
}

/* Of a terminal that is not this session's nobody knows. */
static bool in_front(void)
{
	pid_t front = tcgetpgrp(STDERR_FILENO);

	return front < 0 || front == getpgrp();
}

void bar_begin(struct bar *bar, const char *label)
{
	int64_t now = now_ms();

	*bar = (struct bar){.on = label && is_seen(), .begun_ms = now, .next_ms = now + MOMENT_MS};
	snprintf(bar->label, sizeof(bar->label), "%s", label ? label : "");
}

/* A character is a column, and what is no part of one takes none. */
static int columns_of(const char *text)
{
	int n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

/* The first `columns` of it, without what would move the cursor. */
static size_t put_text(char *ret, size_t size, const char *text, int columns)
{
	size_t len = 0;

	for (; *text && len + 1 < size; text++) {
		columns -= ((unsigned char)*text & 0xc0) != 0x80;
		if (columns < 0)
			break;
		ret[len++] = (unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text;
	}
	ret[len] = '\0';
	return len;
}

/* "[####      ]  40% ", or less of it where there is no room; "" where nobody knows. */
static void put_bar(char *ret, size_t size, int room, uint64_t done, uint64_t total)
{
	static const char full[] = "########################################";
	int inside = room - 8 < BAR_MAX ? room - 8 : BAR_MAX; /* beside it: "[] 100% " */
	double part = total && done < total ? (double)done / (double)total : 1;

	ret[0] = '\0';
	if (!total)
		return;
	if (inside >= BAR_MIN)
		snprintf(ret, size, "[%-*.*s] %3d%% ", inside, (int)(part * inside), full, (int)(part * 100));
	else
		snprintf(ret, size, "%3d%% ", (int)(part * 100));
}

char *bar_line(char ret[BAR_LINE_MAX], int columns, const char *label, uint64_t done, uint64_t total, const char *rest)
{
	int most = columns - 1 < BAR_LINE_MAX / 2 ? columns - 1 : BAR_LINE_MAX / 2;
	char name[BAR_LABEL_MAX], bar[BAR_MAX + 16], line[2 * BAR_LINE_MAX];

	put_text(name, sizeof(name), label, most > 0 ? most / 3 : 0);
	put_bar(bar, sizeof(bar), most - columns_of(name) - 1 - columns_of(rest), done, total);
	snprintf(line, sizeof(line), "%s %s%.*s", name, bar, BAR_LINE_MAX, rest);
	put_text(ret, BAR_LINE_MAX, line, most > 0 ? most : 0);
	return ret;
}

/* ---- on the screen ---- */

static volatile sig_atomic_t on_screen; /* columns: there is one at a time */

static void clear(int columns)
{
	char line[BAR_LINE_MAX + 2];

	if (columns <= 0)
		return;
	if (columns > BAR_LINE_MAX)
		columns = BAR_LINE_MAX; /* no bar is as long */
	memset(line, ' ', sizeof(line));
	line[0] = line[columns + 1] = '\r';
	(void)!write(STDERR_FILENO, line, (size_t)columns + 2);
}

/* The signal's usual effect comes after this. The terminal may have shown what was pressed. */
static void on_signal(int signo)
{
	clear(on_screen ? on_screen + ECHO_COLUMNS : 0);
	raise(signo);
}

/* Those that end this process, as they are: who waits for them by other means ends the bar. */
static void watch_signals(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	struct sigaction usual, ours = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		if (sigaction(signals[i], NULL, &usual) == 0 && usual.sa_handler == SIG_DFL)
			sigaction(signals[i], &ours, NULL);
}

void bar_end(struct bar *bar)
{
	if (!bar->drawn)
		return; /* what is there may be another's */
	clear(bar->drawn);
	on_screen = bar->drawn = 0;
}

void bar_make_room(void)
{
	if (is_seen())
		clear(terminal_columns() - 1);
}

/* Over what is there. */
static void draw(struct bar *bar, uint64_t done, uint64_t total, const char *rest)
{
	char line[BAR_LINE_MAX];
	int columns = columns_of(bar_line(line, terminal_columns() - ECHO_COLUMNS, bar->label, done, total, rest));

	if (!bar->drawn)
		watch_signals();
	on_screen = columns > bar->drawn ? columns : bar->drawn;
	fprintf(stderr, "\r%s%*s", line, bar->drawn > columns ? bar->drawn - columns : 0, "");
	bar->drawn = columns;
}

static bool is_due(struct bar *bar)
{
	int64_t now = bar->on ? now_ms() : 0;

	if (!bar->on || now < bar->next_ms || !in_front())
		return false;
	bar->next_ms = now + EVERY_MS;
	return true;
}

void bar_bytes(struct bar *bar, uint64_t done, uint64_t total)
{
	char some[SIZE_MAX_TEXT], all[SIZE_MAX_TEXT], rest[2 * SIZE_MAX_TEXT + 8];

	if (!is_due(bar))
		return;
	snprintf(rest, sizeof(rest), "%s%s%s", size_text(done, some), total ? " of " : "", total ? size_text(total, all) : "");
	draw(bar, done, total, rest);
}

void bar_steps(struct bar *bar, uint64_t done, uint64_t total, const char *what)
{
	char rest[BAR_LINE_MAX];

	if (!is_due(bar))
		return;
	snprintf(rest, sizeof(rest), "%.200s, %lld s", what, (long long)((now_ms() - bar->begun_ms) / 1000));
	draw(bar, done, total, rest);
}
