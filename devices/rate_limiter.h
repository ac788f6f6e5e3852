/* Limits on what a device moves: two token buckets, of bytes and of operations. A device without limits does not ask.
 *
 *	bucket:  `size` tokens at most, filled evenly, all of it in `refill_time` ms; beside it a `one_time_burst` of tokens
 *	         that are used first and never come back. A size or a refill_time of 0 is no limit.
 *
 * Theory of operation. An operation may begin while each bucket has a token, and is charged afterwards, with what it really
 * moved: a bucket may go below zero, and the next operation then waits until it is above. So a request larger than the
 * bucket needs no exception, the length of a frame need not be known before it is read, and over any time t no more is
 * moved than size + one_time_burst + t * size / refill_time and one operation. Levels are kept in tokens times nanoseconds,
 * without rounding, so that a rate does not drift.
 *
 * The time is the caller's, in nanoseconds that do not go back. Not locked: the device's lock. */
#ifndef HULL_DEVICES_RATE_LIMITER_H
#define HULL_DEVICES_RATE_LIMITER_H

#include <stdbool.h>
#include <stdint.h>

#define TOKEN_BUCKET_SIZE_MAX	   INT64_MAX
#define TOKEN_BUCKET_REFILL_MS_MAX INT64_C(1000000000000) /* 31 years: in ns, times a size, it fits 128 bits */

/* As in Firecracker's configuration; none is negative, none larger than the above. */
struct token_bucket_config {
	int64_t size, refill_time /* ms */, one_time_burst;
};

/* Either may be NULL. */
struct rate_limiter_config {
	struct token_bucket_config *bandwidth, *ops;
};

struct token_bucket {
	uint64_t size; /* 0: no limit */
	uint64_t refill_ns;
	uint64_t burst;	   /* tokens */
	__int128 level;	   /* tokens * refill_ns; may be negative */
	uint64_t filled_ns; /* when `level` was right */
};

struct rate_limiter {
	struct token_bucket bandwidth, ops;
};

/* A full bucket; `config` NULL is no limit. */
void token_bucket_init(struct token_bucket *bucket, const struct token_bucket_config *config, uint64_t now_ns);
/* Takes as many of `wanted` tokens as there are: how many. For what drops the rest. */
uint64_t token_bucket_take(struct token_bucket *bucket, uint64_t wanted, uint64_t now_ns);

/* Full buckets. `config` NULL is no limits. */
void rate_limiter_init(struct rate_limiter *limiter, const struct rate_limiter_config *config, uint64_t now_ns);
/* Buckets that are given take the place of the old ones, full; the others go on as they are. */
void rate_limiter_update(struct rate_limiter *limiter, const struct rate_limiter_config *config, uint64_t now_ns);

static inline bool rate_limiter_is_on(const struct rate_limiter *limiter)
{
	return limiter->bandwidth.size || limiter->ops.size;
}

/* 0 when an operation may begin now, else in how many ns. */
uint64_t rate_limiter_delay_ns(struct rate_limiter *limiter, uint64_t now_ns);
/* One operation has moved so many bytes. */
void rate_limiter_charge(struct rate_limiter *limiter, uint64_t bytes, uint64_t now_ns);

#endif
