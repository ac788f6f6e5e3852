/* The orders that are carried out at once. */
#include "guest-kernel/order_verbs.h"

#include "guest-kernel/clock.h"
#include "guest-kernel/net.h"
#include "guest-kernel/reseed.h"

#include <errno.h>
#include <string.h>

static int set_clock(const struct order *order, struct order_answer *ret, struct error *err)
{
	int r = clock_set_by_host(&ret->moved_ns, err);

	if (r == -ENOENT && order->unix_ns)
		r = clock_set_to(order->unix_ns, &ret->moved_ns, err);
	return r;
}

static int reseed(const struct order *order, struct error *err)
{
	uint8_t seed[ORDER_SEED_MAX];
	size_t len = order_seed(order, seed);
	int r = reseed_kernel(seed, len, err);

	explicit_bzero(seed, sizeof seed);
	explicit_bzero(order->seed, strlen(order->seed));
	return r;
}

static int set_hostname(struct order *order, struct guest_config *config, struct error *err)
{
	char *before = config->hostname;
	int r;

	config->hostname = order->hostname;
	r = net_set_hostname(config, err);
	if (r < 0) {
		config->hostname = before;
		return r;
	}
	order->hostname = before; /* which is freed with it */
	return 0;
}

static int set_network(struct order *order, struct guest_config *config, struct error *err)
{
	struct guest_network *before = config->network;
	int r;

	config->network = order->network;
	r = net_change(config, before, err);
	if (r < 0) {
		config->network = before;
		return r;
	}
	order->network = before;
	return 0;
}

int order_carry_out(struct order *order, struct guest_config *config, struct order_answer *ret, struct error *err)
{
	switch (order->verb) {
	case ORDER_CLOCK:
		return set_clock(order, ret, err);
	case ORDER_RESEED:
		return reseed(order, err);
	case ORDER_HOSTNAME:
		return set_hostname(order, config, err);
	case ORDER_NETWORK:
		return set_network(order, config, err);
	default:
		return error_set(err, EINVAL, "is nothing to be carried out");
	}
}
