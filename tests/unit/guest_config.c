/* The guest configuration: what hull-init accepts, and what it refuses by name. */
#include "tests/unit/test.h"

#include "guest-kernel/config.h"

#include <signal.h>
#include <string.h>

#define MINIMAL "\"command\":[\"true\"],\"root\":{\"image\":\"image\"}"

static int read_text(const char *text, struct guest_config *ret, struct error *err)
{
	json_t *json = json_parse(text, strlen(text), err);
	int r;

	assert_non_null(json);
	r = json_read(&guest_config_table, json, ret, err);
	json_decref(json);
	if (r == 0 && (r = guest_config_check(ret, err)) < 0)
		guest_config_done(ret);
	return r;
}

static void accepted(const char *text)
{
	struct guest_config config;
	struct error err;

	if (read_text(text, &config, &err) < 0)
		fail_msg("%s: %s: %s", text, err.field, err.message);
	guest_config_done(&config);
}

static void refused(const char *text, const char *field)
{
	struct guest_config config;
	struct error err = {0};

	if (read_text(text, &config, &err) == 0)
		fail_msg("%s was accepted", text);
	assert_string_equal(err.field, field);
}

/* A configuration with that many variables; static storage. */
static const char *with_variables(int n)
{
	static char text[65536];
	int len = snprintf(text, sizeof(text), "{" MINIMAL ",\"env\":{");

	for (int i = 0; i < n; i++)
		len += snprintf(text + len, sizeof(text) - (size_t)len, "%s\"V%d\":\"\"", i ? "," : "", i);
	snprintf(text + len, sizeof(text) - (size_t)len, "}}");
	return text;
}

static void an_images_variables_and_a_machines_fit_together(void **state)
{
	(void)state;
	accepted(with_variables(1024 + 1024));
	refused(with_variables(1024 + 1024 + 1), "env");
}

static void the_documented_example_is_read(void **state)
{
	static const char text[] =
		"{\"hostname\":\"web\",\"command\":[\"python3\",\"app.py\"],\"env\":{\"PORT\":\"80\"},\"user\":\"app\","
		"\"workdir\":\"/srv\",\"root\":{\"image\":\"image\",\"scratch\":\"scratch\"},"
		"\"network\":{\"interface\":\"eth0\",\"address\":\"10.0.2.15\",\"prefix\":24,\"gateway\":\"10.0.2.2\","
		"\"dns\":[\"10.0.2.3\"]},\"mounts\":[{\"drive\":\"vol0\",\"path\":\"/data\",\"read_only\":false},"
		"{\"tag\":\"mount0\",\"path\":\"/srv\",\"read_only\":true}],\"stop_signal\":\"SIGINT\"}";
	struct guest_config config;
	struct error err;

	(void)state;
	assert_int_equal(read_text(text, &config, &err), 0);
	assert_string_equal(config.hostname, "web");
	assert_int_equal(config.command.len, 2);
	assert_string_equal(config.root.scratch, "scratch");
	assert_string_equal(config.network->gateway, "10.0.2.2");
	assert_int_equal(config.mounts.len, 2);
	assert_string_equal(((struct guest_mount *)config.mounts.items)[0].drive, "vol0");
	assert_string_equal(((struct guest_mount *)config.mounts.items)[1].tag, "mount0");
	assert_int_equal(guest_config_stop_signal(&config), SIGINT);
	guest_config_done(&config);
}

static void absent_keys_have_defaults(void **state)
{
	struct guest_config config;
	struct error err;

	(void)state;
	assert_int_equal(read_text("{" MINIMAL "}", &config, &err), 0);
	assert_string_equal(config.hostname, "hull");
	assert_string_equal(config.user, "root");
	assert_string_equal(config.workdir, "/");
	assert_null(config.root.scratch);
	assert_null(config.network);
	assert_int_equal(guest_config_stop_signal(&config), SIGTERM);
	guest_config_done(&config);
}

static void each_key_has_its_rules(void **state)
{
	(void)state;
	accepted("{" MINIMAL ",\"hostname\":\"a-b.c_1\"}");
	refused("{" MINIMAL ",\"hostname\":\"a b\"}", "hostname");
	refused("{" MINIMAL ",\"hostname\":\"\"}", "hostname");
	refused("{\"root\":{\"image\":\"i\"}}", "command");
	refused("{\"command\":[],\"root\":{\"image\":\"i\"}}", "command");
	refused("{\"command\":[\"true\"]}", "root");
	refused("{\"command\":[\"true\"],\"root\":{\"image\":\"123456789012345678901\"}}", "root.image");
	accepted("{" MINIMAL ",\"env\":{\"A\":\"\"}}");
	refused("{" MINIMAL ",\"env\":{\"A=B\":\"\"}}", "env.A=B");
	refused("{" MINIMAL ",\"user\":\"\"}", "user");
	accepted("{" MINIMAL ",\"workdir\":\"/srv\"}");
	refused("{" MINIMAL ",\"workdir\":\"srv\"}", "workdir");
	accepted("{" MINIMAL ",\"stop_signal\":\"SIGRTMIN+3\"}");
	refused("{" MINIMAL ",\"stop_signal\":\"TERM\"}", "stop_signal");
	accepted("{" MINIMAL ",\"mounts\":[]}");
	refused("{" MINIMAL ",\"mounts\":[{\"path\":\"/srv\"}]}", "mounts[0]");
	refused("{" MINIMAL ",\"mounts\":[{\"path\":\"/srv\",\"tag\":\"t\",\"drive\":\"d\"}]}", "mounts[0]");
	refused("{" MINIMAL ",\"mounts\":[{\"tag\":\"1234567890123456789012345678901234567\",\"path\":\"/srv\"}]}", "mounts[0].tag");
	refused("{" MINIMAL ",\"mounts\":[{\"tag\":\"t\",\"path\":\"srv\"}]}", "mounts[0].path");
	refused("{" MINIMAL ",\"colour\":1}", "colour");
	accepted("{" MINIMAL ",\"mounts\":[{\"drive\":\"vol0\",\"path\":\"/a\",\"read_only\":true}]}");
	refused("{" MINIMAL ",\"mounts\":[{\"drive\":\"vol0\",\"path\":\"a/b\"}]}", "mounts[0].path");
	refused("{" MINIMAL ",\"mounts\":[{\"drive\":\"vol0\"}]}", "mounts[0].path");
}

static void each_key_of_the_network_has_its_rules(void **state)
{
	(void)state;
	accepted("{" MINIMAL ",\"network\":{\"address\":\"10.0.0.1\",\"prefix\":0}}");
	refused("{" MINIMAL ",\"network\":{\"prefix\":24}}", "network.address");
	refused("{" MINIMAL ",\"network\":{\"address\":\"10.0.0\",\"prefix\":24}}", "network.address");
	refused("{" MINIMAL ",\"network\":{\"address\":\"10.0.0.1\",\"prefix\":33}}", "network.prefix");
	refused("{" MINIMAL ",\"network\":{\"address\":\"10.0.0.1\",\"prefix\":8,\"gateway\":\"x\"}}",
		"network.gateway");
	refused("{" MINIMAL ",\"network\":{\"address\":\"10.0.0.1\",\"prefix\":8,\"interface\":\"0123456789abcdef\"}}",
		"network.interface");
	accepted("{" MINIMAL ",\"network\":{\"address\":\"10.0.0.1\",\"prefix\":8,\"dns\":[\"::1\"]}}");
	refused("{" MINIMAL ",\"network\":{\"address\":\"10.0.0.1\",\"prefix\":8,\"dns\":[\"1.1.1.1\",\"x\"]}}",
		"network.dns[1]");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_documented_example_is_read),
		cmocka_unit_test(absent_keys_have_defaults),
		cmocka_unit_test(each_key_has_its_rules),
		cmocka_unit_test(an_images_variables_and_a_machines_fit_together),
		cmocka_unit_test(each_key_of_the_network_has_its_rules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
