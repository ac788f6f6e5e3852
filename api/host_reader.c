/* Reads what the kernel says of monitors' processes (Linux, Documentation/filesystems/proc.rst).
 *
 * Theory of operation. The list of readings is the loop's alone. The first is a worker's, which touches but its folder and its
 * numbers; on_read() gives the next one a worker. */
#include "api/host_reader.h"

#include "api/worker.h"
#include "common/buf.h"
#include "common/cleanup.h"

#include <fcntl.h>
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
	struct worker *worker;
};

struct host_reader *host_reader_new(struct loop *loop)
{
	struct host_reader *reader = calloc(1, sizeof(*reader));

	if (!reader)
		abort();
	reader->loop = loop;
	return reader;
}

static struct host_reading *take_first(struct host_reader *reader)
{
	struct host_reading *reading = reader->first;

	reader->first = reading->next;
	close_fd(reading->folder_fd);
	return reading;
}

void host_reader_free(struct host_reader *reader)
{
	if (!reader)
		return;
	workers_end(&reader->worker, NULL);
	while (reader->first)
		free(take_first(reader));
	free(reader);
}

/* ---- the worker ---- */

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

static void read_process(void *ctx)
{
	struct host_reading *reading = ctx;

	read_file(reading->folder_fd, "stat", host_stats_parse_stat, &reading->stats);
	read_file(reading->folder_fd, "smaps_rollup", host_stats_parse_rollup, &reading->stats);
	read_file(reading->folder_fd, "io", host_stats_parse_io, &reading->stats);
}

/* ---- the loop ---- */

static void on_read(void *ctx);

static void begin_first(struct host_reader *reader)
{
	struct host_reading *reading = reader->first;

	if (!reading)
		return;
	if (!reading->fn || reading->folder_fd < 0 ||
		worker_begin(&reader->worker, reader->loop, read_process, on_read, reading) < 0)
		loop_post(reader->loop, on_read, reading);
}

static void on_read(void *ctx)
{
	struct host_reader *reader = ((struct host_reading *)ctx)->reader;
	struct host_reading *reading = take_first(reader);

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
