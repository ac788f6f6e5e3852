/* Token buckets, exactly. */
#include "devices/rate_limiter.h"

#define NS_PER_MS 1000000u

void token_bucket_init(struct token_bucket *bucket, const struct token_bucket_config *config, uint64_t now_ns)
{
	*bucket = (struct token_bucket){.filled_ns = now_ns};
	if (!config || !config->size || !config->refill_time)
		return;
	bucket->size = (uint64_t)config->size;
	bucket->refill_ns = (uint64_t)config->refill_time * NS_PER_MS;
	bucket->burst = (uint64_t)config->one_time_burst;
	bucket->level = (__int128)bucket->size * bucket->refill_ns;
}

/* In one nanosecond come size / refill_ns tokens: `size` of the level's units. */
static void refill(struct token_bucket *bucket, uint64_t now_ns)
{
	__int128 full = (__int128)bucket->size * bucket->refill_ns;

	if (now_ns <= bucket->filled_ns)
		return;
	/* Neither can overflow: size < 2^63, and times are less than 2^63 ns apart in any machine's life. */
	bucket->level += (__int128)(now_ns - bucket->filled_ns) * bucket->size;
	if (bucket->level > full)
		bucket->level = full;
	bucket->filled_ns = now_ns;
}

static uint64_t delay_ns(struct token_bucket *bucket, uint64_t now_ns)
{
	__int128 missing, ns;

	if (!bucket->size)
		return 0;
	refill(bucket, now_ns);
	missing = (__int128)bucket->refill_ns - bucket->level; /* to one token */
	if (bucket->burst || missing <= 0)
		return 0;
	ns = (missing + bucket->size - 1) / bucket->size;
	return ns < INT64_MAX ? (uint64_t)ns : INT64_MAX;
}

/* A debt has a floor, far below what anybody would wait for, so that no sum of them overflows. */
static void charge(struct token_bucket *bucket, uint64_t tokens, uint64_t now_ns)
{
	const __int128 floor = -((__int128)1 << 125);
	uint64_t of_burst = tokens < bucket->burst ? tokens : bucket->burst;

	if (!bucket->size)
		return;
	refill(bucket, now_ns);
	bucket->burst -= of_burst;
	tokens -= of_burst;
	if (tokens > INT64_MAX)
		tokens = INT64_MAX;
	bucket->level -= (__int128)tokens * bucket->refill_ns;
	if (bucket->level < floor)
		bucket->level = floor;
}

uint64_t token_bucket_take(struct token_bucket *bucket, uint64_t wanted, uint64_t now_ns)
{
	uint64_t whole;

	if (!bucket->size)
		return wanted;
	refill(bucket, now_ns);
	whole = bucket->level > 0 ? (uint64_t)(bucket->level / bucket->refill_ns) : 0;
	if (wanted > whole && wanted - whole > bucket->burst)
		wanted = whole + bucket->burst;
	charge(bucket, wanted, now_ns);
	return wanted;
}

void rate_limiter_init(struct rate_limiter *limiter, const struct rate_limiter_config *config, uint64_t now_ns)
{
	token_bucket_init(&limiter->bandwidth, config ? config->bandwidth : 0, now_ns);
	token_bucket_init(&limiter->ops, config ? config->ops : 0, now_ns);
}

void rate_limiter_update(struct rate_limiter *limiter, const struct rate_limiter_config *config, uint64_t now_ns)
{
	if (config->bandwidth)
		token_bucket_init(&limiter->bandwidth, config->bandwidth, now_ns);
	if (config->ops)
		token_bucket_init(&limiter->ops, config->ops, now_ns);
}

uint64_t rate_limiter_delay_ns(struct rate_limiter *limiter, uint64_t now_ns)
{
	uint64_t bandwidth = delay_ns(&limiter->bandwidth, now_ns), ops = delay_ns(&limiter->ops, now_ns);

	return bandwidth > ops ? bandwidth : ops;
}

void rate_limiter_charge(struct rate_limiter *limiter, uint64_t bytes, uint64_t now_ns)
{
	charge(&limiter->bandwidth, bytes, now_ns);
	charge(&limiter->ops, 1, now_ns);
}
