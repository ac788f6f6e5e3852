/* Composing a line from all that counts, and writing it without ever waiting.
 *
 * Theory of operation. Each source is remembered with what was told of it: the difference is what a line says. A line is
 * composed only when the one before has left: a reader that is slow, or not there, loses lines, no counts. */
#include "vmm/metrics.h"

#include "common/buf.h"
#include "common/checked.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/io.h"
#include "devices/metrics.h"
#include "devices/virtio.h"

#include <errno.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#define INTERVAL_NS (60 * UINT64_C(1000000000))
#define LINE_MAX_BYTES (4u << 20) /* 256 devices and their properties fit many times */

struct source {
	TAILQ_ENTRY(source) entry;
	const struct metric_table *table;
	const char *group;
	char *key;	     /* owned: "GROUP_ID"; NULL: in the group alone */
	const void *owner;   /* NULL once it is removed */
	const void *counted; /* borrowed, or `left` */
	void *left;	     /* owned: its last counts, once the source is gone */
	char *told;	     /* owned: what `counted` was when it was told */
};

struct metrics {
	struct loop *loop;
	struct loop_source *timer;
	struct loop_source *writable; /* NULL when `fd` is a file */
	int fd;			      /* -1: not opened */
	char *id;		      /* owned; may be NULL */
	json_t *properties;	      /* owned; may be NULL */
	struct buf line;	      /* on its way out */
	struct logger_metrics counts;
	TAILQ_HEAD(, source) sources;
};

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

/* ---- what counts ---- */

static void add(struct metrics *metrics, const struct metric_table *table, const char *group, const char *id,
	const void *owner, const void *counted)
{
	struct source *source = must(calloc(1, sizeof(*source)));

	source->table = table;
	source->group = group;
	source->owner = owner;
	source->counted = counted;
	source->told = must(calloc(1, table->size));
	if (id && asprintf(&source->key, "%s_%s", group, id) < 0)
		abort();
	TAILQ_INSERT_TAIL(&metrics->sources, source, entry);
}

void metrics_add(struct metrics *metrics, enum metrics_source source, const char *id, const void *owner,
	const void *counted)
{
	add(metrics, &metric_tables[source], metric_tables[source].group, id, owner, counted);
}

void metrics_add_device(struct metrics *metrics, enum metrics_source source, const char *id,
	const struct virtio_dev *dev, const void *counted)
{
	metrics_add(metrics, source, id, dev, counted);
	add(metrics, &metric_virtio_table, metric_tables[source].group, id, dev, &dev->metrics);
	metrics_add(metrics, METRICS_INTERRUPTS, NULL, dev, &dev->metrics);
}

/* The bytes of a struct that counts on, copied counter by counter. */
static void *copy_counts(const void *counted, size_t size)
{
	uint64_t *copy = must(calloc(1, size));

	for (size_t i = 0; i < size / sizeof(*copy); i++)
		copy[i] = metric_read((const uint64_t *)counted + i);
	return copy;
}

static void free_source(struct metrics *metrics, struct source *source)
{
	TAILQ_REMOVE(&metrics->sources, source, entry);
	free(source->key);
	free(source->left);
	free(source->told);
	free(source);
}

/* What was added to the counter at `offset` since it was told; it is told now. */
static uint64_t take(struct source *source, size_t offset)
{
	uint64_t *told = (uint64_t *)(source->told + offset);
	uint64_t now = metric_read((const uint64_t *)((const char *)source->counted + offset));
	uint64_t added = now - *told;

	*told = now;
	return added;
}

/* Of two that say the least and the most of something; 0 is none. */
static uint64_t least(uint64_t a, uint64_t b)
{
	return !a || (b && b < a) ? b : a;
}

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static void hand_over_field(struct source *source, const struct metric_field *field, struct source *heir)
{
	const void *from = (const char *)source->counted + field->offset;
	void *to = (char *)heir->left + field->offset;
	const struct metric_latency *latency = from;
	struct metric_latency *sum = to;

	switch (field->kind) {
	case METRIC_COUNT:
		*(uint64_t *)to += take(source, field->offset);
		break;
	case METRIC_VALUE:
		*(uint64_t *)to = metric_read(from);
		break;
	case METRIC_LATENCY:
		sum->min_us = least(sum->min_us, metric_read(&latency->min_us));
		sum->max_us = most(sum->max_us, metric_read(&latency->max_us));
		sum->sum_us += take(source, field->offset + offsetof(struct metric_latency, sum_us));
		break;
	}
}

/* One that is gone already and of the same name: devices that come and go between two lines are one there. NULL: none. */
static struct source *find_heir(const struct metrics *metrics, const struct source *source)
{
	struct source *heir;

	TAILQ_FOREACH(heir, &metrics->sources, entry)
		if (heir->left && heir->table == source->table && heir->group == source->group &&
			(heir->key && source->key ? strcmp(heir->key, source->key) == 0 : heir->key == source->key))
			return heir;
	return NULL;
}

/* With nowhere to tell it, nothing is kept of it. */
static void remove_source(struct metrics *metrics, struct source *source)
{
	struct source *heir = metrics->fd >= 0 ? find_heir(metrics, source) : NULL;

	if (metrics->fd >= 0 && !heir) {
		source->owner = NULL;
		source->counted = source->left = copy_counts(source->counted, source->table->size);
		return;
	}
	for (size_t i = 0; heir && i < source->table->n_fields; i++)
		hand_over_field(source, &source->table->fields[i], heir);
	free_source(metrics, source);
}

void metrics_remove(struct metrics *metrics, const void *owner)
{
	struct source *source, *next;

	if (!metrics || !owner)
		return;
	for (source = TAILQ_FIRST(&metrics->sources); source; source = next) {
		next = TAILQ_NEXT(source, entry);
		if (source->owner == owner)
			remove_source(metrics, source);
	}
}

/* ---- a line ---- */

static json_t *object_at(json_t *parent, const char *key)
{
	json_t *object = json_object_get(parent, key);

	if (!object) {
		object = json_object();
		json_object_set_new(parent, key, object);
	}
	return object;
}

static void add_number(json_t *object, const char *name, uint64_t n)
{
	json_int_t before = json_integer_value(json_object_get(object, name));

	json_object_set_new(object, name, json_integer(before + (json_int_t)n));
}

static void add_latency(json_t *object, const char *name, uint64_t min_us, uint64_t max_us, uint64_t sum_us)
{
	json_t *latency = object_at(object, name);
	uint64_t min_before = (uint64_t)json_integer_value(json_object_get(latency, "min_us"));
	uint64_t max_before = (uint64_t)json_integer_value(json_object_get(latency, "max_us"));

	json_object_set_new(latency, "min_us", json_integer((json_int_t)least(min_before, min_us)));
	json_object_set_new(latency, "max_us", json_integer((json_int_t)most(max_before, max_us)));
	add_number(latency, "sum_us", sum_us);
}

/* `alone`: the object of one device, or NULL; `group`: of all of its kind, where least and most say nothing. */
static void report_field(struct source *source, const struct metric_field *field, json_t *alone, json_t *group)
{
	const char *at = (const char *)source->counted + field->offset;
	const struct metric_latency *latency = (const struct metric_latency *)at;
	uint64_t n;

	switch (field->kind) {
	case METRIC_COUNT:
	case METRIC_VALUE:
		n = field->kind == METRIC_COUNT ? take(source, field->offset) : metric_read((const uint64_t *)at);
		add_number(group, field->name, n);
		if (alone)
			add_number(alone, field->name, n);
		break;
	case METRIC_LATENCY:
		n = take(source, field->offset + offsetof(struct metric_latency, sum_us));
		add_latency(group, field->name, alone ? 0 : metric_read(&latency->min_us),
			alone ? 0 : metric_read(&latency->max_us), n);
		if (alone)
			add_latency(alone, field->name, metric_read(&latency->min_us),
				metric_read(&latency->max_us), n);
		break;
	}
}

static void report_source(struct source *source, json_t *line)
{
	json_t *alone = source->key ? object_at(line, source->key) : NULL;
	json_t *group = object_at(line, source->group);

	for (size_t i = 0; i < source->table->n_fields; i++)
		report_field(source, &source->table->fields[i], alone, group);
}

/* All that can be counted, at zero: a reader finds every name in every line. */
static void report_zeroes(const struct metric_table *table, const char *group, json_t *line)
{
	json_t *object = object_at(line, group);

	for (size_t i = 0; i < table->n_fields; i++) {
		if (table->fields[i].kind == METRIC_LATENCY)
			add_latency(object, table->fields[i].name, 0, 0, 0);
		else
			add_number(object, table->fields[i].name, 0);
	}
}

static json_t *compose(struct metrics *metrics)
{
	struct source *source, *next;
	struct timespec now;
	json_t *line = must(json_object());

	clock_gettime(CLOCK_REALTIME, &now);
	add_number(line, "utc_timestamp_ms", (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
	if (metrics->id)
		json_object_set_new(line, "id", json_string(metrics->id));
	if (metrics->properties)
		json_object_set(line, "properties", metrics->properties);
	for (size_t i = 0; i < METRICS_SOURCES; i++) {
		report_zeroes(&metric_tables[i], metric_tables[i].group, line);
		if (metric_tables[i].is_device)
			report_zeroes(&metric_virtio_table, metric_tables[i].group, line);
	}
	for (source = TAILQ_FIRST(&metrics->sources); source; source = next) {
		next = TAILQ_NEXT(source, entry);
		report_source(source, line);
		if (source->left)
			free_source(metrics, source);
	}
	return line;
}

/* ---- writing it ---- */

/* Writes what the reader takes now. 0, or -errno with the rest still there. */
static int drain(struct metrics *metrics)
{
	while (metrics->line.len > 0) {
		ssize_t put = write(metrics->fd, metrics->line.data, metrics->line.len);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		buf_consume(&metrics->line, (size_t)put);
	}
	return 0;
}

static void writable(void *ctx, uint32_t epoll_events)
{
	struct metrics *metrics = ctx;
	int r = drain(metrics);

	(void)epoll_events;
	if (r != -EAGAIN)
		loop_set_events(metrics->writable, 0);
	if (r < 0 && r != -EAGAIN)
		metric_inc(&metrics->counts.metrics_fails);
}

static int put_line(struct metrics *metrics)
{
	json_t *line = compose(metrics);
	cleanup_free char *text = must(json_dumps(line, JSON_COMPACT));
	int r = buf_printf(&metrics->line, "%s\n", text);

	json_decref(line);
	return r < 0 ? r : drain(metrics);
}

int metrics_flush(struct metrics *metrics, struct error *err)
{
	int r;

	if (metrics->fd < 0)
		return 0;
	r = drain(metrics);
	if (r < 0)
		metric_inc(&metrics->counts.missed_metrics_count);
	else
		r = put_line(metrics);
	if (r == -EAGAIN && metrics->writable) {
		loop_set_events(metrics->writable, EPOLLOUT);
		return error_set(err, EAGAIN, "the reader of the metrics has not taken them yet");
	}
	if (r < 0) {
		metric_inc(&metrics->counts.metrics_fails);
		return error_set(err, -r, "the metrics cannot be written: %s", strerror(-r));
	}
	return 0;
}

static void interval_over(void *ctx)
{
	struct metrics *metrics = ctx;
	struct error err = {0};
	int r = metrics_flush(metrics, &err);

	if (r < 0 && r != -EAGAIN)
		log_error_object(&err, "metrics");
	loop_timer_arm(metrics->timer, INTERVAL_NS);
}

int metrics_open(
	struct metrics *metrics, const char *path, const char *id, const json_t *properties, struct error *err)
{
	int fd;

	if (metrics->fd >= 0)
		return error_set(err, EEXIST, "Reinitialization of metrics not allowed.");
	fd = open_append(path, 0600);
	if (fd < 0)
		return error_set(err, -fd, "%s: %s", path, strerror(-fd));
	metrics->timer = loop_add_timer(metrics->loop, interval_over, metrics);
	if (!metrics->timer) {
		close_fd(fd);
		return error_set_errno(err, errno, "metrics cannot be written in time");
	}
	metrics->fd = fd;
	/* A regular file cannot be waited for, and need not be. */
	metrics->writable = loop_add_fd(metrics->loop, fd, 0, writable, metrics);
	metrics->id = id ? must(strdup(id)) : NULL;
	metrics->properties = json_object_size(properties) ? must(json_deep_copy(properties)) : NULL;
	loop_timer_arm(metrics->timer, INTERVAL_NS);
	return 0;
}

/* ---- its life ---- */

struct metrics *metrics_new(struct loop *loop)
{
	struct metrics *metrics = must(calloc(1, sizeof(*metrics)));

	metrics->loop = loop;
	metrics->fd = -1;
	TAILQ_INIT(&metrics->sources);
	buf_init(&metrics->line, LINE_MAX_BYTES);
	metrics_add(metrics, METRICS_LOGGER, NULL, metrics, &metrics->counts);
	metrics_add(metrics, METRICS_LOG, NULL, metrics, log_metrics());
	return metrics;
}

void metrics_free(struct metrics *metrics)
{
	struct error err = {0};

	if (!metrics)
		return;
	if (metrics_flush(metrics, &err) < 0)
		log_warn("the last metrics are lost: %s", err.message);
	while (!TAILQ_EMPTY(&metrics->sources))
		free_source(metrics, TAILQ_FIRST(&metrics->sources));
	loop_remove(metrics->timer);
	loop_remove(metrics->writable);
	close_fd(metrics->fd);
	buf_done(&metrics->line);
	json_decref(metrics->properties);
	free(metrics->id);
	free(metrics);
}
