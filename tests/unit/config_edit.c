/* A configuration put together by a client: each piece is taken whole or not at all, and reads back as it was put. */
#include "tests/unit/test.h"
#include "vmm/config.h"

#include <string.h>

static struct config config;

static int setup(void **state)
{
	(void)state;
	config_init(&config);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	config_done(&config);
	return 0;
}

static int put(const char *key, const char *id, const char *text, struct error *err)
{
	json_t *value = json_parse(text, strlen(text), err);
	int r;

	assert_non_null(value);
	*err = (struct error){0};
	r = config_put(&config, key, id, value, err);
	json_decref(value);
	return r;
}

static void puts_well(const char *key, const char *id, const char *text)
{
	struct error err;

	if (put(key, id, text, &err) < 0)
		fail_msg("%s: %s", err.field, err.message);
}

static void refuses(const char *key, const char *id, const char *text, const char *field, const char *reason)
{
	json_t *before = config_get_all(&config), *after;
	struct error err;

	assert_true(put(key, id, text, &err) < 0);
	assert_string_equal(err.field, field);
	if (!strstr(err.message, reason))
		fail_msg("\"%s\" says nothing of \"%s\"", err.message, reason);
	after = config_get_all(&config);
	assert_true(json_equal(before, after));
	json_decref(before);
	json_decref(after);
}

static void reads(const char *key, const char *text)
{
	json_t *expected = json_parse(text, strlen(text), NULL), *got = config_get(&config, key);
	char *shown = json_dumps(got, JSON_ENCODE_ANY);

	assert_non_null(expected);
	if (!json_equal(expected, got))
		fail_msg("%s reads %s", key, shown);
	free(shown);
	json_decref(expected);
	json_decref(got);
}

#define DRIVE(id, root)                                                                                      \
	"{\"drive_id\":\"" id "\",\"path_on_host\":\"/" id "\",\"is_root_device\":" root "}"
#define DRIVE_READS(id, root)                                                                                \
	"{\"drive_id\":\"" id "\",\"path_on_host\":\"/" id "\",\"is_root_device\":" root                           \
	",\"is_read_only\":false,\"partuuid\":null,\"cache_type\":\"Unsafe\",\"io_engine\":\"Sync\","                \
	"\"rate_limiter\":null,\"socket\":null}"

static void test_nothing_put_reads_as_firecrackers_defaults(void **state)
{
	json_t *all = config_get_all(&config);

	(void)state;
	reads("machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":128,\"smt\":false,"
				"\"track_dirty_pages\":false,\"huge_pages\":\"None\"}");
	assert_string_equal(json_string_value(json_object_get(json_object_get(all, "boot-source"), "kernel_image_path")), "");
	assert_true(json_is_null(json_object_get(all, "vsock")));
	assert_int_equal(json_array_size(json_object_get(all, "drives")), 0);
	json_decref(all);
}

static void test_an_item_is_added_replaced_and_taken_out(void **state)
{
	(void)state;
	puts_well("drives", "a", DRIVE("a", "false"));
	puts_well("drives", "b", DRIVE("b", "true"));
	reads("drives", "[" DRIVE_READS("a", "false") "," DRIVE_READS("b", "true") "]");
	puts_well("drives", "a", "{\"drive_id\":\"a\",\"path_on_host\":\"/other\",\"is_root_device\":false}");
	assert_int_equal(config.drives.len, 2);
	assert_string_equal(config_drive(&config, 0)->path_on_host, "/other");
	assert_int_equal(config_remove(&config, "drives", "c", NULL), -ENOENT);
	assert_int_equal(config_remove(&config, "drives", "a", NULL), 0);
	reads("drives", "[" DRIVE_READS("b", "true") "]");
}

static void test_what_is_named_stays(void **state)
{
	struct error err = {0};

	(void)state;
	refuses("mmds-config", NULL, "{\"network_interfaces\":[\"b\"]}", "mmds-config.network_interfaces", "names \"b\"");
	for (const char *const *id = (const char *const[]){"a", "b", "c", NULL}; *id; id++) {
		cleanup(json_decrefp) json_t *net = json_pack("{s:s, s:s}", "iface_id", *id, "host_dev_name", "tap0");

		assert_int_equal(config_put(&config, "network-interfaces", *id, net, &err), 0);
	}
	puts_well("mmds-config", NULL, "{\"network_interfaces\":[\"b\"]}");
	assert_false(config_net_has_mmds(&config, config_net(&config, 0)));
	assert_true(config_net_has_mmds(&config, config_net(&config, 1)));
	assert_int_equal(config_remove(&config, "network-interfaces", "b", &err), -ENOENT);
	assert_string_equal(err.field, "mmds-config.network_interfaces");
	assert_int_equal(config.nets.len, 3);
	assert_string_equal(config_net(&config, 1)->iface_id, "b");
	assert_string_equal(config_net(&config, 2)->iface_id, "c");
	assert_int_equal(config_remove(&config, "network-interfaces", "a", &err), 0);
	puts_well("mmds-config", NULL, "{\"network_interfaces\":[\"c\"]}");
	assert_int_equal(config_remove(&config, "network-interfaces", "b", &err), 0);
	assert_string_equal(config_net(&config, 0)->iface_id, "c");
}

static void test_the_id_is_the_paths(void **state)
{
	(void)state;
	refuses("drives", "b", DRIVE("a", "false"), "drive_id", "the path says");
	refuses("drives", "a", DRIVE("a-b", "false"), "drive_id", "letters");
}

static void test_a_rule_of_the_whole_refuses_the_piece(void **state)
{
	(void)state;
	puts_well("drives", "a", DRIVE("a", "true"));
	refuses("drives", "b", DRIVE("b", "true"), "drives[1].is_root_device", "already");
	puts_well("drives", "b", DRIVE("b", "false"));
	refuses("drives", "b", DRIVE("b", "true"), "drives[1].is_root_device", "already");
	refuses("drives", "c", "[]", "", "an object");
	refuses("machine-config", NULL, "{\"vcpu_count\":3,\"mem_size_mib\":128,\"smt\":true}",
		"machine-config.vcpu_count", "even");
}

static void test_no_more_items_than_there_is_room_for(void **state)
{
	char id[16], text[128];
	int n = 0;

	(void)state;
	for (;; n++) {
		struct error err;

		snprintf(id, sizeof(id), "d%d", n);
		snprintf(text, sizeof(text), "{\"drive_id\":\"%s\",\"path_on_host\":\"/d\",\"is_root_device\":false}", id);
		if (put("drives", id, text, &err) < 0) {
			assert_string_equal(err.field, "drives");
			break;
		}
		assert_true(n < 1024);
	}
	assert_int_equal(config.drives.len, n);
}

static void test_what_is_hulls_own_is_told_only_where_it_was_given(void **state)
{
	json_t *cow = json_pack("{s:s}", "memory_kind", "cow"), *any = json_pack("{s:s}", "memory_kind", "auto");
	struct error err = {0};

	(void)state;
	assert_int_equal(config_patch(&config, "machine-config", cow, &err), 0);
	reads("machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":128,\"smt\":false,\"track_dirty_pages\":false,"
				"\"huge_pages\":\"None\",\"memory_kind\":\"cow\"}");
	assert_int_equal(config_patch(&config, "machine-config", any, &err), 0);
	reads("machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":128,\"smt\":false,\"track_dirty_pages\":false,"
				"\"huge_pages\":\"None\"}");
	json_decref(cow);
	json_decref(any);
}

static void test_an_optional_piece_is_put_and_put_again(void **state)
{
	(void)state;
	puts_well("vsock", NULL, "{\"guest_cid\":3,\"uds_path\":\"/v\"}");
	puts_well("vsock", NULL, "{\"guest_cid\":4,\"uds_path\":\"/w\"}");
	assert_int_equal(config.vsock->guest_cid, 4);
	refuses("vsock", NULL, "{\"guest_cid\":2,\"uds_path\":\"/w\"}", "guest_cid", "must be 3");
	refuses("vsock", NULL, "{\"guest_cid\":4,\"uds\":\"/w\"}", "uds", "unknown field");
}

static void test_a_patch_keeps_the_rest(void **state)
{
	json_t *patch = json_pack("{s:b}", "smt", 1), *wrong = json_pack("{s:i}", "vcpu_count", 3);
	struct error err = {0};

	(void)state;
	puts_well("machine-config", NULL, "{\"vcpu_count\":2,\"mem_size_mib\":256}");
	assert_int_equal(config_patch(&config, "machine-config", patch, &err), 0);
	assert_true(config.machine.smt);
	assert_int_equal(config.machine.vcpu_count, 2);
	assert_int_equal(config.machine.mem_size_mib, 256);
	assert_true(config_patch(&config, "machine-config", wrong, &err) < 0);
	assert_int_equal(config.machine.vcpu_count, 2);
	json_decref(patch);
	json_decref(wrong);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nothing_put_reads_as_firecrackers_defaults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_an_item_is_added_replaced_and_taken_out, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_named_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_id_is_the_paths, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_rule_of_the_whole_refuses_the_piece, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_more_items_than_there_is_room_for, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_hulls_own_is_told_only_where_it_was_given, setup, teardown),
		cmocka_unit_test_setup_teardown(test_an_optional_piece_is_put_and_put_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_patch_keeps_the_rest, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
