/* What the host tells the machine to do at once.
 *
 * Theory of operation. Each order is a connection, in one of these states, told by what it owns:
 *
 *	nothing           the SPEC is awaited
 *	probe, errand     a health check, or a hook, runs
 *	freezing          the workload is about to stand still
 *
 * It ends by conn_free(): answered, refused, or because its client has gone; the deadline is a reason to refuse. The other
 * verbs are carried out when the SPEC is there. One freezer is all orders': a thaw, and a freeze that is given up, end all
 * freezes that wait. */
#include "guest-kernel/orders.h"

#include "common/exec_spec.h"
#include "common/frame.h"
#include "common/order.h"
#include "guest-kernel/errand.h"
#include "guest-kernel/freezer.h"
#include "guest-kernel/order_verbs.h"
#include "guest-kernel/probe.h"
#include "guest-kernel/stats.h"

#include <errno.h>
#include <string.h>

#define ORDERS_MAX 64
#define ANSWER_MAX 32768
#define NS_PER_MS  1000000ull

struct orders {
	struct loop *loop;
	struct guest_config *config;
	struct errands *errands;
	struct freezer *freezer;
	struct stats_source numbers;
	struct conn *list;
	size_t n;
};

struct conn {
	struct orders *orders;
	struct conn *next, **link;
	int fd;
	struct loop_source *source, *deadline;
	uint32_t timeout_ms;
	struct frame_reader reader;
	bool has_order;
	struct order order;
	struct probe *probe;
	struct errand *errand;
	bool freezing;
};

static void conn_free(struct conn *c)
{
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	c->orders->n--;
	probe_cancel(c->probe);
	errand_cancel(c->errand);
	loop_remove(c->source);
	loop_remove(c->deadline);
	close_fd(c->fd);
	frame_reader_done(&c->reader);
	if (c->has_order)
		json_done(&order_table, &c->order);
	free(c);
}

/* Says the last word. An empty socket takes it whole: what is not taken goes to a peer that is gone. */
static void say(struct conn *c, enum hull_frame_type type, json_t *object)
{
	cleanup_free char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	struct buf out;

	buf_init(&out, ANSWER_MAX);
	if (text && frame_put(&out, type, text, (uint32_t)strlen(text)) == 0)
		buf_send(&out, c->fd);
	buf_done(&out);
	json_decref(object);
	conn_free(c);
}

static void answer(struct conn *c, struct order_answer *answer)
{
	answer->frozen = freezer_is_frozen(c->orders->freezer);
	say(c, HULL_FRAME_ANSWER, json_dump(&order_answer_table, answer));
}

static void refuse(struct conn *c, const struct error *err)
{
	say(c, HULL_FRAME_REFUSED, exec_refusal_dump(err));
}

/* ---- freezing ---- */

static void on_frozen(void *ctx)
{
	struct orders *orders = ctx;
	struct conn *c, *next;

	for (c = orders->list; c; c = next) {
		next = c->next;
		if (c->freezing)
			answer(c, &(struct order_answer){0});
	}
}

void orders_thaw(struct orders *orders)
{
	struct error err = {.errnum = ECANCELED, .message = "is thawed before all stood still"};
	struct conn *c, *next;

	freezer_thaw(orders->freezer);
	for (c = orders->list; c; c = next) {
		next = c->next;
		if (c->freezing)
			refuse(c, &err);
	}
}

static void freeze(struct conn *c)
{
	struct error err;

	if (freezer_freeze(c->orders->freezer, &err) < 0)
		refuse(c, &err);
	else if (freezer_is_frozen(c->orders->freezer))
		answer(c, &(struct order_answer){0});
	else
		c->freezing = true;
}

static void thaw(struct conn *c)
{
	orders_thaw(c->orders);
	answer(c, &(struct order_answer){0});
}

bool orders_hold_still(const struct orders *orders)
{
	return freezer_is_held(orders->freezer);
}

/* ---- health ---- */

static void on_probed(void *ctx, const char *reason)
{
	struct conn *c = ctx;

	c->probe = NULL;
	answer(c, &(struct order_answer){.healthy = !reason, .reason = (char *)reason});
}

static void look_at_health(struct conn *c)
{
	struct orders *orders = c->orders;
	struct error err;

	if (orders_hold_still(orders)) {
		error_set(&err, EBUSY, "the workload is frozen");
		refuse(c, &err);
		return;
	}
	c->probe = probe_new(orders->loop, orders->errands, orders->config, c->order.health, on_probed, c, &err);
	if (!c->probe)
		refuse(c, &err);
}

/* ---- hooks ---- */

static void on_hook_end(void *ctx, const struct error *err, int status, const char *line)
{
	struct conn *c = ctx;
	struct error failed;

	c->errand = NULL;
	if (err) {
		refuse(c, err);
	} else if (status != 0) {
		error_set_field(&failed, EIO, "hook", "%s ended with status %d%s%s", order_hook_names[c->order.hook], status,
			line[0] ? ": " : "", line);
		refuse(c, &failed);
	} else {
		answer(c, &(struct order_answer){.ran = true});
	}
}

static void run_hook(struct conn *c)
{
	const struct guest_config *config = c->orders->config;
	char path[64], *argv[] = {path, NULL};
	const struct process_spec spec = {
		.argv = argv, .env = config->env, .hostname = config->hostname, .user = "root", .workdir = "/"};
	struct error err;

	snprintf(path, sizeof path, HOOKS_FOLDER "/%s", order_hook_names[c->order.hook]);
	if (access(path, F_OK) < 0) {
		answer(c, &(struct order_answer){.ran = false});
		return;
	}
	c->errand = errand_new(c->orders->errands, &spec, on_hook_end, c, &err);
	if (!c->errand)
		refuse(c, &err);
}

/* ---- an order ---- */

static void tell_stats(struct conn *c)
{
	struct guest_stats stats;
	struct order_answer result = {.stats = &stats};

	stats_read(&c->orders->numbers, &stats);
	answer(c, &result);
	json_done(&guest_stats_table, &stats);
}

static void carry_out(struct conn *c)
{
	struct order_answer result = {0};
	struct error err;

	if (order_carry_out(&c->order, c->orders->config, &result, &err) < 0)
		refuse(c, &err);
	else
		answer(c, &result);
}

static void (*const verbs[])(struct conn *c) = {
	[ORDER_HEALTH] = look_at_health,
	[ORDER_FREEZE] = freeze,
	[ORDER_THAW] = thaw,
	[ORDER_CLOCK] = carry_out,
	[ORDER_RESEED] = carry_out,
	[ORDER_HOSTNAME] = carry_out,
	[ORDER_NETWORK] = carry_out,
	[ORDER_HOOK] = run_hook,
	[ORDER_STATS] = tell_stats,
};
_Static_assert(ARRAY_SIZE(verbs) == ORDER_N_VERBS, "every verb is carried out");

static void begin(struct conn *c, const struct frame *frame)
{
	struct error err = {0};
	json_t *object = json_parse(frame->data, frame->len, &err);
	int r = object ? json_read(&order_table, object, &c->order, &err) : -err.errnum;

	json_decref(object);
	c->has_order = r == 0;
	if (r == 0)
		r = order_check(&c->order, &err);
	if (r < 0)
		refuse(c, &err);
	else
		verbs[c->order.verb](c);
}

/* Its client has gone, or did what none does. */
static void abandon(struct conn *c)
{
	struct orders *orders = c->orders;
	bool freezing = c->freezing;

	conn_free(c);
	if (freezing)
		orders_thaw(orders);
}

static void on_client(void *ctx, uint32_t events)
{
	struct conn *c = ctx;
	struct frame frame;
	int r = frame_read(&c->reader, c->fd, &frame);

	(void)events;
	if (r > 0 && frame.type == HULL_FRAME_SPEC && !c->has_order)
		begin(c, &frame);
	else if (r != 0)
		abandon(c);
}

static void on_deadline(void *ctx)
{
	struct conn *c = ctx;
	struct orders *orders = c->orders;
	bool freezing = c->freezing;
	struct error err;

	if (!c->has_order) {
		conn_free(c);
		return;
	}
	if (c->probe) {
		char reason[64];

		snprintf(reason, sizeof reason, "no answer within %u ms", c->timeout_ms);
		answer(c, &(struct order_answer){.reason = reason});
		return;
	}
	error_set(&err, ETIMEDOUT, "%s is not done within %u ms", order_verb_names[c->order.verb], c->timeout_ms);
	refuse(c, &err);
	if (freezing)
		orders_thaw(orders);
}

/* ---- all of them ---- */

int orders_serve(struct orders *orders, int fd, uint32_t timeout_ms)
{
	struct conn *c;

	if (timeout_ms < 1 || timeout_ms > ORDER_TIMEOUT_MAX_MS)
		return -EINVAL;
	c = orders->n < ORDERS_MAX ? calloc(1, sizeof *c) : NULL;
	if (!c)
		return orders->n < ORDERS_MAX ? -ENOMEM : -EAGAIN;
	*c = (struct conn){.orders = orders, .next = orders->list, .link = &orders->list, .fd = -1, .timeout_ms = timeout_ms};
	frame_reader_init(&c->reader, HULL_SPEC_MAX);
	if (c->next)
		c->next->link = &c->next;
	orders->list = c;
	orders->n++;
	c->source = loop_add_fd(orders->loop, fd, EPOLLIN, on_client, c);
	c->deadline = loop_add_timer(orders->loop, on_deadline, c);
	if (!c->source || !c->deadline) {
		conn_free(c);
		return -ENOMEM;
	}
	loop_timer_arm(c->deadline, timeout_ms * NS_PER_MS);
	c->fd = fd;
	return 0;
}

void orders_child_ended(struct orders *orders, pid_t pid, int wait_status)
{
	errands_child_ended(orders->errands, pid, wait_status);
}

struct orders *orders_new(struct loop *loop, struct guest_config *config)
{
	struct orders *orders = calloc(1, sizeof *orders);

	if (!orders)
		return NULL;
	*orders = (struct orders){.loop = loop, .config = config, .errands = errands_new(loop),
		.freezer = freezer_new(loop, on_frozen, orders)};
	stats_source_open(&orders->numbers);
	if (orders->errands && orders->freezer)
		return orders;
	orders_free(orders);
	return NULL;
}

void orders_free(struct orders *orders)
{
	if (!orders)
		return;
	while (orders->list)
		conn_free(orders->list);
	errands_free(orders->errands);
	freezer_free(orders->freezer);
	stats_source_close(&orders->numbers);
	free(orders);
}
