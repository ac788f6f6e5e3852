/* Reads what the kernel says of monitors' processes (Linux, Documentation/filesystems/proc.rst).
 *
 * Theory of operation. The list of readings is the loop's alone. The first has a thread, which touches but its folder and its
 * numbers, and whose last act is to post on_read(); that joins it, and gives the next one a thread. */
#include "api/host_reader.h"

#include "common/buf.h"
#include "common/cleanup.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXT_MAX 16384

struct host_reading {
	struct host_reader *reader;
	struct host_reading *next;
	int folder_fd; /* of the process, and of no other that has its number later; -1: it has ended */
	struct host_stats stats;
	host_reading_fn fn; /* NULL: it was cancelled */
	void *ctx;
};

struct host_reader {
	struct loop *loop;
	struct host_reading *first; /* is being read, the others wait */
	pthread_t thread;
	bool running; /* the thread is to be joined */
};

struct host_reader *host_reader_new(struct loop *loop)
{
	struct host_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		abort();
	reader->loop = loop;
	return reader;
}

static void take_first(struct host_reader *reader)
{
	struct host_reading *reading = reader->first;

	if (reader->running)
		pthread_join(reader->thread, NULL);
	reader->running = false;
	reader->first = reading->next;
	close_fd(reading->folder_fd);
}

void host_reader_free(struct host_reader *reader)
{
	struct host_reading *reading;

	while (reader && (reading = reader->first)) {
		take_first(reader);
		free(reading);
	}
	free(reader);
}

/* ---- the thread ---- */

static void read_file(int folder_fd, const char *file, void (*parse)(const char *text, struct host_stats *ret), struct host_stats *ret)
{
	cleanup_close int fd = openat(folder_fd, file, O_RDONLY | O_CLOEXEC);
	struct buf text;
	ssize_t got;

	if (fd < 0)
		return;
	buf_init(&text, TEXT_MAX);
	do
		got = buf_read_fd(&text, fd, 4096);
	while (got > 0);
	if (got == 0 && buf_append(&text, "", 1) == 0)
		parse(text.data, ret);
	buf_done(&text);
}

static void on_read(void *ctx);

static void *read_process(void *ctx)
{
	struct host_reading *reading = ctx;

	read_file(reading->folder_fd, "stat", host_stats_parse_stat, &reading->stats);
	read_file(reading->folder_fd, "smaps_rollup", host_stats_parse_rollup, &reading->stats);
	read_file(reading->folder_fd, "io", host_stats_parse_io, &reading->stats);
	loop_post(reading->reader->loop, on_read, reading->reader);
	return NULL;
}

/* ---- the loop ---- */

static void begin_first(struct host_reader *reader)
{
	struct host_reading *reading = reader->first;

	if (reading && reading->fn && reading->folder_fd >= 0)
		reader->running = pthread_create(&reader->thread, NULL, read_process, reading) == 0;
	if (reading && !reader->running)
		loop_post(reader->loop, on_read, reader);
}

static void on_read(void *ctx)
{
	struct host_reader *reader = ctx;
	struct host_reading *reading = reader->first;

	take_first(reader);
	begin_first(reader);
	if (reading->fn)
		reading->fn(reading->ctx, &reading->stats);
	free(reading);
}

struct host_reading *host_reader_read(struct host_reader *reader, pid_t pid, host_reading_fn fn, void *ctx)
{
	struct host_reading *reading = calloc(1, sizeof(*reading)), **last = &reader->first;
	char path[32];

	if (!reading)
		abort();
	snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	*reading = (struct host_reading){.reader = reader, .fn = fn, .ctx = ctx, .stats = {-1, -1, -1, -1, -1, -1}};
	reading->folder_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	while (*last)
		last = &(*last)->next;
	*last = reading;
	if (reading == reader->first)
		begin_first(reader);
	return reading;
}

void host_reading_cancel(struct host_reading *reading)
{
	if (reading)
		reading->fn = NULL;
}
