/* Rounds over machines' logs. See log_age.h. */
#include "api/log_age.h"

#include "api/log_clock.h"
#include "api/log_pieces.h"
#include "api/logs.h"
#include "api/machine.h"
#include "api/random.h"
#include "common/bounded_file.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ROUND_NS   (600 * 1000000000ull)
#define AT_ONCE	   4 /* machines, and then: */
#define PAUSE_NS   (10 * 1000000ull)
#define DAY_MS	   (24 * INT64_C(3600000))
#define STORED_MAX 65536

struct log_age {
	struct hulld *hulld;
	struct loop_source *timer;
	const struct machine *next; /* to be looked at in this round; NULL: none is */
	struct log_clock clock;
	int64_t round, before; /* when this round has begun, and the one before: all logs have been looked at since */
};

/* ---- what is stored ---- */

/* NULL: it is not there, or is not ours. */
static json_t *read_stored(const char *path)
{
	struct error ignored;

	return json_parse_file(path, STORED_MAX, &ignored);
}

/* Takes `stored`. */
static void store(const char *path, json_t *stored)
{
	cleanup_free char *text = json_dumps(stored, JSON_COMPACT);
	struct error err;

	json_decref(stored);
	if (!text)
		abort();
	if (write_file_whole(path, text, strlen(text), 0600, &err) < 0)
		log_error_object(&err, "logs are kept for longer");
}

static char *clock_path(const struct log_age *age, char *ret, size_t size)
{
	snprintf(ret, size, "%s/log-clock.json", age->hulld->options.state);
	return ret;
}

static char *pieces_path(const struct machine *m, char *ret, size_t size)
{
	return machine_state_path(m, "logs.json", ret, size);
}

/* ---- one machine ---- */

struct keep log_age_limits(const struct machine *m)
{
	const struct logs_spec *own = &m->spec.logs;
	struct keep keep = m->hulld->options.log_keep;

	if (own->max_mib && (uint64_t)own->max_mib << 20 < keep.bytes)
		keep.bytes = (uint64_t)own->max_mib << 20;
	if (own->max_age_days && own->max_age_days < keep.days)
		keep.days = own->max_age_days;
	return keep;
}

/* The monitor, which keeps it by itself, may have been started with another limit, or have ended. */
static void keep_size(int fd, const struct stat *st, uint64_t limit_bytes)
{
	struct bounded_file file = bounded_file(limit_bytes);

	if ((uint64_t)(st->st_size - bounded_file_kept(fd, 0)) > limit_bytes + limit_bytes / 4)
		bounded_file_wrote(&file, fd, 1);
}

/* True: there is something to be stored. */
static bool look_at_log(const struct machine *m, const char *file, const struct log_moment *moment, struct log_pieces *log)
{
	struct keep keep = log_age_limits(m);
	int64_t age_ms = keep.days * DAY_MS;
	char path[512];
	cleanup_close int fd = open(machine_state_path(m, file, path, sizeof(path)), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	bool changed, dropped;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	keep_size(fd, &st, keep.bytes);
	changed = log_pieces_add(log, &st, moment, age_ms);
	dropped = log_pieces_drop(log, fd, &st, moment, age_ms, !machine_is_active(m));
	if (dropped)
		logs_have_gone(m->hulld->logs, m->record.id, file, (off_t)log->gone);
	return changed || dropped;
}

static void look_at_machine(const struct log_age *age, const struct machine *m)
{
	struct log_moment moment = {age->clock.id, age->clock.now, age->before, now_ms()};
	json_t *stored, *now = json_object();
	bool changed = false;
	char path[512];

	stored = read_stored(pieces_path(m, path, sizeof(path)));
	for (size_t i = 0; log_file_names[i]; i++) {
		struct log_pieces log;

		log_pieces_read(&log, json_object_get(stored, log_file_names[i]));
		changed |= look_at_log(m, log_file_names[i], &moment, &log);
		json_object_set_new(now, log_file_names[i], log_pieces_dump(&log));
	}
	json_decref(stored);
	if (changed)
		store(path, now);
	else
		json_decref(now);
}

/* Of what is begun anew with each run, and nobody else bounds. */
static void keep_helper_log(const struct machine *m, const char *file)
{
	char path[512];
	cleanup_close int fd = open(machine_state_path(m, file, path, sizeof(path)), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		keep_size(fd, &st, log_age_limits(m).bytes);
}

uint64_t log_age_gone(const struct machine *m, const char *file, int fd)
{
	struct log_pieces log;
	json_t *stored;
	char path[512];
	struct stat st;

	stored = read_stored(pieces_path(m, path, sizeof(path)));
	log_pieces_read(&log, json_object_get(stored, file));
	json_decref(stored);
	return fstat(fd, &st) == 0 && st.st_ino == log.inode && (uint64_t)st.st_size >= log.gone ? log.gone : 0;
}

/* ---- rounds ---- */

/* False: nobody knows what time it is yet. */
static bool advance(struct log_age *age)
{
	return log_clock_advance(&age->clock, uptime_ms(), now_ms(), age->hulld->boot_id);
}

/* Once it is known what time it is. */
static void begin_round(struct log_age *age)
{
	char path[512];

	if (!advance(age))
		return;
	age->before = age->round ? age->round : age->clock.now;
	age->round = age->clock.now;
	store(clock_path(age, path, sizeof(path)), log_clock_dump(&age->clock));
	age->next = age->hulld->machines;
}

static void on_timer(void *ctx)
{
	struct log_age *age = ctx;

	if (!age->next)
		begin_round(age);
	for (unsigned n = 0; age->next && n < AT_ONCE; n++) {
		look_at_machine(age, age->next);
		keep_helper_log(age->next, "passt.log");
		keep_helper_log(age->next, "folders.log");
		age->next = age->next->next;
	}
	loop_timer_arm(age->timer, age->next ? PAUSE_NS : ROUND_NS);
}

void log_age_look(struct machine *m)
{
	struct log_age *age = m->hulld->log_age;

	if (advance(age))
		look_at_machine(age, m);
}

void log_age_forget(struct log_age *age, const struct machine *m)
{
	if (age->next == m)
		age->next = m->next;
}

struct log_age *log_age_new(struct hulld *hulld, struct error *err)
{
	struct log_age *age = calloc(1, sizeof(*age));
	json_t *stored;
	char path[512];

	if (!age)
		abort();
	age->hulld = hulld;
	age->timer = loop_add_timer(hulld->loop, on_timer, age);
	if (!age->timer) {
		error_set_errno(err, errno, "cannot make a timer");
		free(age);
		return NULL;
	}
	stored = read_stored(clock_path(age, path, sizeof(path)));
	log_clock_read(&age->clock, stored);
	if (!age->clock.now)
		age->clock.id = random_number();
	age->round = age->clock.now;
	json_decref(stored);
	loop_timer_arm(age->timer, 0);
	return age;
}

void log_age_free(struct log_age *age)
{
	if (!age)
		return;
	loop_remove(age->timer);
	free(age);
}
