/* What the host tells a machine to do at once. */
#include "common/order.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define SEED_MIN 16 /* bytes: less would be no secret */

const char *const order_verb_names[] = {
	[ORDER_HEALTH] = "health",
	[ORDER_FREEZE] = "freeze",
	[ORDER_THAW] = "thaw",
	[ORDER_CLOCK] = "clock",
	[ORDER_RESEED] = "reseed",
	[ORDER_HOSTNAME] = "hostname",
	[ORDER_NETWORK] = "network",
	[ORDER_HOOK] = "hook",
	[ORDER_STATS] = "stats",
	NULL,
};
static_assert(ARRAY_SIZE(order_verb_names) == ORDER_N_VERBS + 1, "every verb has a name");

const char *const order_hook_names[] = {
	[ORDER_HOOK_NONE] = "none",
	[ORDER_HOOK_BEFORE_SNAPSHOT] = "before-snapshot",
	[ORDER_HOOK_AFTER_RESTORE] = "after-restore",
	NULL,
};

static int check_seed(const char *seed, struct error *err)
{
	size_t len = strlen(seed);

	if (len % 2 || strspn(seed, "0123456789abcdef") != len)
		return error_set(err, EINVAL, "must be bytes in lower-case hexadecimal");
	return 0;
}

static const struct json_field order_fields[] = {
	{"verb", JSON_FIELD_ENUM, offsetof(struct order, verb), .required = true, .names = order_verb_names},
	{"health", JSON_FIELD_OPTIONAL, offsetof(struct order, health), .table = &health_check_table},
	{"unix_ns", JSON_FIELD_INT, offsetof(struct order, unix_ns), .sparse = true, .min = 1, .max = INT64_MAX},
	{"seed", JSON_FIELD_STRING, offsetof(struct order, seed), .min = 2 * SEED_MIN, .max = 2 * ORDER_SEED_MAX, .check = check_seed},
	{"hostname", JSON_FIELD_STRING, offsetof(struct order, hostname), .min = 1, .max = HOSTNAME_BYTES_MAX,
		.check = hostname_check},
	{"network", JSON_FIELD_OPTIONAL, offsetof(struct order, network), .table = &guest_network_table},
	{"hook", JSON_FIELD_ENUM, offsetof(struct order, hook), .sparse = true, .names = order_hook_names},
};
const struct json_table order_table = JSON_TABLE("Order", struct order, order_fields);

static const struct json_field answer_fields[] = {
	{"frozen", JSON_FIELD_BOOL, offsetof(struct order_answer, frozen), .required = true},
	{"healthy", JSON_FIELD_BOOL, offsetof(struct order_answer, healthy), .sparse = true},
	{"reason", JSON_FIELD_STRING, offsetof(struct order_answer, reason), .max = ORDER_REASON_MAX},
	{"moved_ns", JSON_FIELD_INT, offsetof(struct order_answer, moved_ns), .sparse = true, .min = INT64_MIN, .max = INT64_MAX},
	{"ran", JSON_FIELD_BOOL, offsetof(struct order_answer, ran), .sparse = true},
	{"stats", JSON_FIELD_OPTIONAL, offsetof(struct order_answer, stats), .table = &guest_stats_table},
};
const struct json_table order_answer_table = JSON_TABLE("OrderAnswer", struct order_answer, answer_fields);

int order_check(const struct order *order, struct error *err)
{
	const struct {
		const char *name;
		bool there, optional;
		enum order_verb verb;
	} needs[] = {
		{"health", order->health, false, ORDER_HEALTH},
		{"unix_ns", order->unix_ns, true, ORDER_CLOCK},
		{"seed", order->seed, false, ORDER_RESEED},
		{"hostname", order->hostname, false, ORDER_HOSTNAME},
		{"network", order->network, false, ORDER_NETWORK},
		{"hook", order->hook != ORDER_HOOK_NONE, false, ORDER_HOOK},
	};

	for (size_t i = 0; i < ARRAY_SIZE(needs); i++) {
		bool wanted = (int)needs[i].verb == order->verb;

		if (needs[i].there && !wanted)
			return error_set_field(err, EINVAL, needs[i].name, "is not of %s", order_verb_names[order->verb]);
		if (!needs[i].there && wanted && !needs[i].optional)
			return error_set_field(err, ENODATA, needs[i].name, "is required");
	}
	if (order->health && health_check_check(order->health, err) < 0)
		return error_in_field(err, "health");
	return 0;
}

static uint8_t hex_digit(char c)
{
	return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

size_t order_seed(const struct order *order, uint8_t ret[ORDER_SEED_MAX])
{
	size_t len = strlen(order->seed) / 2;

	for (size_t i = 0; i < len; i++)
		ret[i] = (uint8_t)(hex_digit(order->seed[2 * i]) << 4 | hex_digit(order->seed[2 * i + 1]));
	return len;
}
