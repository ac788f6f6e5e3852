/* virtio-balloon's other conversations: its target, the guest's statistics, and hinting; and that they go on after a load. */
#include "tests/unit/balloon_world.h"

static uint32_t config_field(struct world *w, uint32_t index)
{
	uint32_t value;

	virtio_dev_enter(w->dev);
	virtio_dev_config_read(w->dev, index * 4, &value, sizeof(value));
	virtio_dev_leave(w->dev);
	return value;
}

static void config_write(struct world *w, uint32_t offset, uint32_t value, uint32_t len)
{
	virtio_dev_enter(w->dev);
	virtio_dev_config_write(w->dev, offset, &value, len);
	virtio_dev_leave(w->dev);
}

/* ---- target ---- */

static void the_target_is_told_and_the_size_heard(void **state)
{
	struct world *w = *state;
	struct balloon_stats stats;

	assert_int_equal(config_field(w, 0), 512);
	assert_int_equal(virtio_balloon_set_target(w->dev, 3, &w->err), 0);
	assert_int_equal(w->d.config_interrupts, 1);
	assert_int_equal(config_field(w, 0), 768);
	config_write(w, 4, 600, 4);
	config_write(w, 5, 3, 1);
	assert_int_equal(config_field(w, 1), 0x358);
	config_write(w, 0, 1, 4); /* the rest is not the driver's to write */
	config_write(w, 6, 1, 4);
	config_write(w, 8, 1, 4);
	assert_int_equal(w->dev->metrics.cfg_fails, 3);
	world_move(w);
	assert_int_equal(virtio_balloon_get_stats(w->dev, &stats, &w->err), 0);
	assert_int_equal(stats.target_pages, 768);
	assert_int_equal(stats.actual_pages, 0x358);
	assert_int_equal(stats.known, 0);
	driver_reset(&w->d);
	assert_int_equal(config_field(w, 0), 768); /* the target stays the host's */
	assert_int_equal(config_field(w, 1), 0);
}

static void without_a_driver_nothing_is_asked(void **state)
{
	struct world *w = *state;

	driver_reset(&w->d);
	assert_int_equal(virtio_balloon_set_target(w->dev, 3, &w->err), -ENODEV);
	assert_string_equal(w->err.message, "Device not activated yet.");
	assert_int_equal(virtio_balloon_start_hinting(w->dev, true, &w->err), -ENODEV);
	assert_int_equal(virtio_balloon_stop_hinting(w->dev, &w->err), -ENODEV);
	assert_int_equal(virtio_balloon_set_stats_interval(w->dev, 5, &w->err), 0);
	assert_int_equal(config_field(w, 0), 512);
}

static void what_was_not_asked_for_is_not_there(void **state)
{
	struct world *w = *state;
	struct balloon_stats stats;
	struct balloon_hinting hinting;

	assert_int_equal(virtio_balloon_set_stats_interval(w->dev, 0, &w->err), -ENOTSUP);
	world_drop_device(w);
	w->config.stats_interval_s = 0;
	w->config.hinting = false;
	world_make_device(w);
	world_start(w, 0, 2);
	assert_int_equal(virtio_balloon_get_stats(w->dev, &stats, &w->err), -ENOTSUP);
	assert_int_equal(virtio_balloon_set_stats_interval(w->dev, 1, &w->err), -ENOTSUP);
	assert_int_equal(virtio_balloon_set_stats_interval(w->dev, 0, &w->err), 0);
	assert_int_equal(virtio_balloon_start_hinting(w->dev, true, &w->err), -ENOTSUP);
	assert_int_equal(virtio_balloon_stop_hinting(w->dev, &w->err), -ENOTSUP);
	assert_int_equal(virtio_balloon_get_hinting(w->dev, &hinting, &w->err), -ENOTSUP);
	assert_int_equal(w->d.config_interrupts, 0);
}

/* ---- statistics ---- */

static void send_stats(struct world *w, const struct virtio_balloon_stat *stats, uint32_t bytes)
{
	gpa_t at = guest_put(&w->g, stats, bytes);

	world_send(w, STATS, (struct driver_buf){at, bytes, false});
}

static struct balloon_stats heard(struct world *w)
{
	struct balloon_stats stats;

	assert_int_equal(virtio_balloon_get_stats(w->dev, &stats, &w->err), 0);
	return stats;
}

static void statistics_are_asked_for_at_the_interval(void **state)
{
	struct world *w = *state;
	const struct virtio_balloon_stat first[] = {{VIRTIO_BALLOON_S_MEMFREE, 1000}, {VIRTIO_BALLOON_S_MEMTOT, 2000}},
					 second[] = {{VIRTIO_BALLOON_S_MEMFREE, UINT64_MAX}, {15, 7}};
	uint16_t head;
	uint32_t len;

	send_stats(w, first, sizeof(first));
	assert_int_equal(heard(w).known, 1u << VIRTIO_BALLOON_S_MEMFREE | 1u << VIRTIO_BALLOON_S_MEMTOT);
	assert_int_equal(heard(w).values[VIRTIO_BALLOON_S_MEMFREE], 1000);
	assert_false(world_is_used(w, STATS)); /* it is kept until the next are wanted */
	assert_true(driver_wait_used(&w->d, &w->q[STATS], &head, &len));
	assert_int_equal(len, 0);
	send_stats(w, second, sizeof(second));
	assert_true(heard(w).values[VIRTIO_BALLOON_S_MEMFREE] == UINT64_MAX);
	assert_int_equal(heard(w).values[VIRTIO_BALLOON_S_MEMTOT], 2000); /* what is not told anew stays */
	assert_int_equal(heard(w).values[15], 7);
	assert_true(driver_wait_used(&w->d, &w->q[STATS], &head, &len));
	assert_int_equal(w->d.interrupts[STATS], 2);
	assert_int_equal(counts(w)->stats_updates_count, 2);
	assert_int_equal(counts(w)->stats_update_fails, 0);
}

/* As Linux does it, whose doorbell comes before DRIVER_OK. */
static void statistics_may_be_there_before_the_driver(void **state)
{
	struct world *w = *state;
	const struct virtio_balloon_stat stat = {VIRTIO_BALLOON_S_MEMFREE, 1000};

	driver_reset(&w->d);
	send_stats(w, &stat, sizeof(stat));
	assert_int_equal(driver_start(&w->d, WHOLE, w->q, QUEUES), LIVE);
	driver_run_rounds(&w->d, 2);
	assert_int_equal(heard(w).values[VIRTIO_BALLOON_S_MEMFREE], 1000);
	assert_int_equal(counts(w)->stats_updates_count, 1);
}

static void a_new_interval_asks_at_once(void **state)
{
	struct world *w = *state;
	const struct virtio_balloon_stat stat = {VIRTIO_BALLOON_S_MEMFREE, 1};

	send_stats(w, &stat, sizeof(stat));
	assert_int_equal(virtio_balloon_set_stats_interval(w->dev, 1, &w->err), 0); /* it is not new */
	assert_false(world_is_used(w, STATS));
	assert_int_equal(virtio_balloon_set_stats_interval(w->dev, UINT16_MAX, &w->err), 0);
	assert_true(world_is_used(w, STATS));
	assert_int_equal(virtio_balloon_set_stats_interval(w->dev, 1, &w->err), 0); /* the driver has not answered yet */
	assert_false(world_is_used(w, STATS));
}

static void statistics_that_say_nothing_are_counted(void **state)
{
	struct world *w = *state;
	struct virtio_balloon_stat stats[300] = {{16, 1}, {UINT16_MAX, 2}, {VIRTIO_BALLOON_S_SWAP_IN, 3}};

	send_stats(w, stats, 3 * sizeof(stats[0]) + 4);
	assert_int_equal(counts(w)->stats_update_fails, 3); /* two that nobody knows, and a rest */
	assert_int_equal(heard(w).known, 1);
	assert_int_equal(heard(w).values[0], 3);
	send_stats(w, stats, sizeof(stats)); /* more than there can be; and the buffer before comes back */
	assert_true(world_is_used(w, STATS));
	assert_false(world_is_used(w, STATS));
	assert_int_equal(counts(w)->stats_update_fails, 6);
	assert_int_equal(driver_status(&w->d), LIVE);
	world_send(w, STATS, (struct driver_buf){GUEST_BASE + PAGE, 10, true});
	assert_int_equal(driver_status(&w->d), BROKEN);
}

static void statistics_go_on_after_a_load(void **state)
{
	struct world *w = *state;
	const struct virtio_balloon_stat stat = {VIRTIO_BALLOON_S_MEMFREE, 1000};
	uint16_t head;
	uint32_t len;

	send_stats(w, &stat, sizeof(stat));
	world_move(w);
	assert_int_equal(heard(w).values[VIRTIO_BALLOON_S_MEMFREE], 1000);
	assert_false(world_is_used(w, STATS));
	assert_true(driver_wait_used(&w->d, &w->q[STATS], &head, &len));
	/* Now the buffer is the driver's. */
	world_move(w);
	assert_int_equal(heard(w).values[VIRTIO_BALLOON_S_MEMFREE], 1000);
	send_stats(w, &stat, sizeof(stat));
	assert_int_equal(virtio_balloon_set_stats_interval(w->dev, 2, &w->err), 0);
	assert_true(world_is_used(w, STATS));
}

static void a_reset_takes_the_buffer_away(void **state)
{
	struct world *w = *state;
	const struct virtio_balloon_stat stat = {VIRTIO_BALLOON_S_MEMFREE, 1000};

	send_stats(w, &stat, sizeof(stat));
	world_start(w, WHOLE, QUEUES);
	assert_int_equal(heard(w).known, 0);
	assert_int_equal(virtio_balloon_set_stats_interval(w->dev, 2, &w->err), 0);
	assert_int_equal(w->q[STATS].used_ring->idx, 0);
}

/* ---- hinting ---- */

static void say(struct world *w, uint32_t command)
{
	gpa_t at = guest_put(&w->g, &command, sizeof(command));

	world_send(w, HINTS, (struct driver_buf){at, sizeof(command), false});
	assert_true(world_is_used(w, HINTS));
}

static void hint(struct world *w)
{
	world_send(w, HINTS, (struct driver_buf){GUEST_BASE + (4 << 20), 4 << 20, true});
	assert_true(world_is_used(w, HINTS));
}

static struct balloon_hinting status(struct world *w)
{
	struct balloon_hinting hinting;

	assert_int_equal(virtio_balloon_get_hinting(w->dev, &hinting, &w->err), 0);
	return hinting;
}

static void a_run_of_hinting(void **state)
{
	struct world *w = *state;

	assert_int_equal(status(w).host_cmd, BALLOON_HINT_STOP);
	assert_false(status(w).has_guest_cmd);
	hint(w); /* nobody has asked */
	assert_int_equal(virtio_balloon_start_hinting(w->dev, true, &w->err), 0);
	assert_int_equal(w->d.config_interrupts, 1);
	assert_int_equal(config_field(w, 2), 2);
	hint(w); /* not of this run */
	assert_int_equal(w->n_discards, 0);
	say(w, 2);
	assert_int_equal(status(w).guest_cmd, 2);
	hint(w);
	hint(w);
	assert_int_equal(w->n_discards, 2);
	world_expect_span(w, 0, GUEST_BASE + (4 << 20), 4 << 20);
	say(w, BALLOON_HINT_STOP);
	assert_int_equal(w->d.config_interrupts, 2);
	assert_int_equal(config_field(w, 2), BALLOON_HINT_DONE);
	assert_int_equal(status(w).host_cmd, BALLOON_HINT_DONE);
	assert_int_equal(status(w).guest_cmd, BALLOON_HINT_STOP);
	hint(w); /* by now the guest may use it */
	assert_int_equal(w->n_discards, 2);
	assert_int_equal(counts(w)->free_page_hint_count, 2);
	assert_int_equal(counts(w)->free_page_hint_freed, 8 << 20);
}

static void without_acknowledgement_the_guest_waits_for_the_stop(void **state)
{
	struct world *w = *state;

	assert_int_equal(virtio_balloon_start_hinting(w->dev, false, &w->err), 0);
	say(w, 2);
	say(w, BALLOON_HINT_STOP);
	assert_int_equal(config_field(w, 2), 2);
	assert_int_equal(virtio_balloon_stop_hinting(w->dev, &w->err), 0);
	assert_int_equal(config_field(w, 2), BALLOON_HINT_DONE);
	assert_int_equal(virtio_balloon_start_hinting(w->dev, false, &w->err), 0);
	assert_int_equal(config_field(w, 2), 3);
	say(w, 2); /* what comes of the run before is late */
	hint(w);
	assert_int_equal(w->n_discards, 0);
	say(w, 3);
	assert_int_equal(virtio_balloon_stop_hinting(w->dev, &w->err), 0);
	hint(w);
	assert_int_equal(w->n_discards, 0);
}

static void a_hint_is_a_command_or_a_range(void **state)
{
	struct world *w = *state;
	gpa_t at = guest_alloc(&w->g, 8, 8);
	const struct driver_buf both[] = {{at, 4, false}, {GUEST_BASE + (4 << 20), PAGE, true}};

	assert_int_equal(virtio_balloon_start_hinting(w->dev, true, &w->err), 0);
	memcpy(guest_ptr(&w->g, at), &(uint32_t){2}, 4);
	driver_add(&w->q[HINTS], both, 2);
	driver_kick(&w->d, HINTS);
	assert_int_equal(w->n_discards, 1);
	world_send(w, HINTS, (struct driver_buf){at, 8, false});
	assert_int_equal(driver_status(&w->d), BROKEN);
	assert_int_equal(counts(w)->event_fails, 1);
}

static void a_run_goes_on_after_a_load(void **state)
{
	struct world *w = *state;

	assert_int_equal(virtio_balloon_start_hinting(w->dev, true, &w->err), 0);
	say(w, 2);
	hint(w);
	world_move(w);
	hint(w);
	assert_int_equal(w->n_discards, 2);
	say(w, BALLOON_HINT_STOP);
	assert_int_equal(config_field(w, 2), BALLOON_HINT_DONE);
	world_move(w);
	assert_int_equal(virtio_balloon_start_hinting(w->dev, true, &w->err), 0);
	assert_int_equal(config_field(w, 2), 3);
	driver_reset(&w->d);
	assert_int_equal(status(w).host_cmd, BALLOON_HINT_STOP);
	assert_false(status(w).has_guest_cmd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(the_target_is_told_and_the_size_heard),
		WORLD_TEST(without_a_driver_nothing_is_asked),
		WORLD_TEST(what_was_not_asked_for_is_not_there),
		WORLD_TEST(statistics_are_asked_for_at_the_interval),
		WORLD_TEST(statistics_may_be_there_before_the_driver),
		WORLD_TEST(a_new_interval_asks_at_once),
		WORLD_TEST(statistics_that_say_nothing_are_counted),
		WORLD_TEST(statistics_go_on_after_a_load),
		WORLD_TEST(a_reset_takes_the_buffer_away),
		WORLD_TEST(a_run_of_hinting),
		WORLD_TEST(without_acknowledgement_the_guest_waits_for_the_stop),
		WORLD_TEST(a_hint_is_a_command_or_a_range),
		WORLD_TEST(a_run_goes_on_after_a_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
