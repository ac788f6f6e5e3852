/* Counting what devices do.
 *
 * A device counts in a struct of its own, `struct NAME_metrics`, of plain uint64_t fields named as the report names them
 * (Firecracker's names), which lives in the device from its making to its end and is only ever added to:
 *
 *	struct rng_metrics { uint64_t entropy_event_count, entropy_bytes, host_rng_fails; };
 *	const struct rng_metrics *virtio_rng_metrics(const struct virtio_dev *dev);	(in the device's header)
 *
 * vmm/metrics.c has the table of which field is reported where, and says what was added since the last report. Relaxed
 * order is enough: a counter says nothing about other memory. */
#ifndef HULL_DEVICES_METRICS_H
#define HULL_DEVICES_METRICS_H

#include <stdbool.h>
#include <stdint.h>

/* Any thread, with or without a lock. */
static inline void metric_add(uint64_t *metric, uint64_t n)
{
	__atomic_fetch_add(metric, n, __ATOMIC_RELAXED);
}

static inline void metric_inc(uint64_t *metric)
{
	metric_add(metric, 1);
}

/* For what is a value and no count: a duration, a signal that was seen. */
static inline void metric_store(uint64_t *metric, uint64_t value)
{
	__atomic_store_n(metric, value, __ATOMIC_RELAXED);
}

static inline uint64_t metric_read(const uint64_t *metric)
{
	return __atomic_load_n(metric, __ATOMIC_RELAXED);
}

/* How long operations took: reported as {"min_us", "max_us", "sum_us"}. */
struct metric_latency {
	uint64_t min_us, max_us; /* since the beginning; 0 while there was none */
	uint64_t sum_us;
};

/* Any thread: of several at a time, each bound comes from one of them. */
static inline void metric_record_latency(struct metric_latency *latency, uint64_t us)
{
	uint64_t min = metric_read(&latency->min_us), max = metric_read(&latency->max_us);

	while ((min == 0 || us < min) &&
		!__atomic_compare_exchange_n(&latency->min_us, &min, us, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	while (us > max &&
		!__atomic_compare_exchange_n(&latency->max_us, &max, us, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	metric_add(&latency->sum_us, us);
}

#endif
