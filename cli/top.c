/* hull top: what machines use, again and again.
 *
 * Theory of operation. A sample is a MachineStats of each machine, by its id; a rate needs two. On a terminal one is taken at each
 * interval, and drawn on the other screen, in place; q, or a signal, ends that, and the terminal is as it was in any case. A
 * terminal that changes its size is drawn again, of the same samples. */
#include "cli/commands.h"
#include "cli/machine.h"
#include "cli/top_rows.h"

#include "common/checked.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define INTERVAL_S 2
#define ONCE_MS	   1000 /* between the two samples of one that is printed once */
#define MS_PER_S   1000

const struct option_def top_options[] = {
	OUTPUT_OPTION,
	{0, "once", NULL, "print it once, as where the output is no terminal"},
	{0, "no-stream", NULL, "the same, as Docker calls it"},
	{'i', "interval", "S", "seconds from one look to the next (2)"},
	{0},
};

struct top {
	struct client *client;
	const struct args *args;
	json_t *before, *now; /* MachineStats by id; NULL: not yet */
	int signal_fd;
};

/* ---- samples ---- */

/* One that has ended, or gone, since it was listed is no failure: `required` is one that was named, the first time. */
static int add_sample(struct top *top, const char *machine, bool required, json_t *sample, struct failure *fail)
{
	cleanup_free char *path = client_path("machines", machine, "/stats");
	json_t *stats = NULL;
	int r = client_call(top->client, "GET", path, NULL, &stats, fail);

	if (r == 0)
		r = json_object_set(sample, json_text(stats, "id"), stats) < 0 ? error_set(&fail->error, EPROTO, "the answer has no id") : 0;
	json_decref(stats);
	if (r == 0 || required || (strcmp(fail->code, "wrong_state") != 0 && strcmp(fail->code, "not_found") != 0))
		return r;
	memset(fail, 0, sizeof(*fail));
	return 0;
}

static int add_all(struct top *top, json_t *sample, struct failure *fail)
{
	json_t *machines = NULL, *machine;
	size_t i;
	int r = client_list(top->client, "/v1/machines", "state=running", &machines, fail);

	json_array_foreach (machines, i, machine)
		if (r == 0)
			r = add_sample(top, json_text(machine, "id"), false, sample, fail);
	json_decref(machines);
	return r;
}

static int take_sample(struct top *top, struct failure *fail)
{
	json_t *sample = json_object();
	int r = top->args->n_operands ? 0 : add_all(top, sample, fail);

	for (size_t i = 0; i < top->args->n_operands && r == 0; i++)
		r = add_sample(top, top->args->operands[i], !top->now, sample, fail);
	if (r < 0) {
		json_decref(sample);
		return r;
	}
	json_decref(top->before);
	top->before = top->now;
	top->now = sample;
	return 0;
}

static void print_table(const struct top *top, FILE *out)
{
	const char *id;
	json_t *stats;
	struct table table;

	table_init(&table, TOP_HEADER);
	json_object_foreach (top->now, id, stats)
		top_add_row(&table, stats, json_object_get(top->before, id));
	table_print(&table, out);
	table_done(&table);
}

/* ---- once ---- */

static int print_values(struct top *top, enum output_format format, struct failure *fail)
{
	json_t *list, *stats;
	const char *id;
	int r = take_sample(top, fail);

	if (r < 0)
		return r;
	list = json_array();
	json_object_foreach (top->now, id, stats)
		json_array_append(list, stats);
	print_value(list, format);
	json_decref(list);
	return 0;
}

static int print_once(struct top *top, struct failure *fail)
{
	const struct timespec pause = {.tv_sec = ONCE_MS / MS_PER_S};
	int r = take_sample(top, fail);

	if (r == 0 && json_object_size(top->now)) {
		nanosleep(&pause, NULL);
		r = take_sample(top, fail);
	}
	if (r == 0)
		print_table(top, stdout);
	return r;
}

/* ---- on a terminal ---- */

static void draw(const struct top *top)
{
	struct winsize size = {.ws_row = 24, .ws_col = 80};
	cleanup_free char *text = NULL, *fitted = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		abort();
	print_table(top, out);
	if (fclose(out) != 0)
		abort();
	ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
	fitted = top_fit(text, size.ws_row ? size.ws_row : 24, size.ws_col ? size.ws_col : 80);
	printf("\033[H%s", fitted);
	fflush(stdout);
}

/* Is it to end? */
static bool pressed_quit(void)
{
	char keys[64];
	ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));

	return (n < 0 && errno != EINTR && errno != EAGAIN) || n == 0 || (n > 0 && (memchr(keys, 'q', (size_t)n) || memchr(keys, 'Q', (size_t)n)));
}

static int64_t monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* Until the next look is due: true; false: it is to end. */
static bool wait_for_due(struct top *top, int64_t due_ms)
{
	for (;;) {
		struct pollfd fds[] = {{STDIN_FILENO, POLLIN, 0}, {top->signal_fd, POLLIN, 0}};
		int64_t left_ms = due_ms - monotonic_ms();
		struct signalfd_siginfo info;

		if (left_ms <= 0)
			return true;
		if (poll(fds, ARRAY_SIZE(fds), (int)left_ms) < 0 && errno != EINTR)
			return false;
		if (fds[0].revents && pressed_quit())
			return false;
		if (!fds[1].revents || read(top->signal_fd, &info, sizeof(info)) != sizeof(info))
			continue;
		if (info.ssi_signo != SIGWINCH)
			return false;
		draw(top);
	}
}

static int show(struct top *top, long long interval_s, struct failure *fail)
{
	int r;

	do {
		int64_t due_ms = monotonic_ms() + interval_s * MS_PER_S;

		r = take_sample(top, fail);
		if (r < 0)
			break;
		draw(top);
		if (!wait_for_due(top, due_ms))
			break;
	} while (1);
	if (r == -EINTR) { /* a signal, while a request was under way */
		memset(fail, 0, sizeof(*fail));
		r = 0;
	}
	return r;
}

static int catch_signals(struct top *top, struct failure *fail)
{
	static const int caught[] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH};
	sigset_t set;

	if (client_catch_signals(top->client, fail) < 0)
		return -fail->error.errnum;
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(caught); i++)
		sigaddset(&set, caught[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	top->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return top->signal_fd < 0 ? error_set_errno(&fail->error, errno, "cannot catch signals") : 0;
}

static int show_on_terminal(struct top *top, long long interval_s, struct failure *fail)
{
	struct termios before, changed;
	int r = catch_signals(top, fail);

	if (r < 0)
		return r;
	if (tcgetattr(STDIN_FILENO, &before) < 0)
		return error_set_errno(&fail->error, errno, "cannot ask the terminal");
	changed = before;
	changed.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	/* Stopped, it would leave the terminal as it is. */
	changed.c_cc[VSUSP] = changed.c_cc[VQUIT] = _POSIX_VDISABLE;
	changed.c_cc[VMIN] = 1;
	changed.c_cc[VTIME] = 0;
	tcsetattr(STDIN_FILENO, TCSADRAIN, &changed);
	printf("\033[?1049h\033[?25l"); /* the other screen, without a cursor */
	r = show(top, interval_s, fail);
	printf("\033[?25h\033[?1049l");
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
	close_fd(top->signal_fd);
	return r;
}

int machine_top_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	struct top top = {.args = args};
	long long interval_s;
	enum output_format format;
	int r = output_format(args, OUTPUT_TABLE, &format, fail);

	if (r == 0)
		r = args_integer(args, "interval", 1, 3600, INTERVAL_S, &interval_s, fail);
	if (r < 0)
		return r;
	top.client = client = client_new(args, fail);
	if (!client)
		return -fail->error.errnum;
	if (format != OUTPUT_TABLE)
		r = print_values(&top, format, fail);
	else if (args_flag(args, "once") || args_flag(args, "no-stream") || !isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO))
		r = print_once(&top, fail);
	else
		r = show_on_terminal(&top, interval_s, fail);
	json_decref(top.before);
	json_decref(top.now);
	return r;
}
