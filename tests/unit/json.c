/* Field tables: what they read, refuse, write and describe. */
#include "tests/unit/test.h"

#include "common/json.h"

#include <errno.h>
#include <string.h>

struct port {
	int64_t host, guest;
};

static const struct json_field port_fields[] = {
	{"host", JSON_FIELD_INT, offsetof(struct port, host), .required = true, .min = 1, .max = 65535},
	{"guest", JSON_FIELD_INT, offsetof(struct port, guest), .min = 1, .max = 65535, .def = 80},
};
static const struct json_table port_table = JSON_TABLE("Port", struct port, port_fields);

enum colour { RED, GREEN };
static const char *const colour_names[] = {"red", "green", NULL};

struct thing {
	char *name;
	char *nick;
	bool wild, wild_given;
	int colour;
	struct port main_port;
	struct port *spare;
	struct json_array ports;
	struct json_strings command;
	json_t *env;
	json_t *extra;
	char *token;
	int64_t seen;
};

static int no_spaces(const char *value, struct error *err)
{
	return strchr(value, ' ') ? error_set(err, EINVAL, "must not contain a space") : 0;
}

static const struct json_field thing_fields[] = {
	{"name", JSON_FIELD_STRING, offsetof(struct thing, name), .required = true, .min = 1, .max = 8, .check = no_spaces,
		.pattern = "^[^ ]*$"},
	{"nick", JSON_FIELD_STRING, offsetof(struct thing, nick), .nullable = true, .help = "What friends say."},
	{"wild", JSON_FIELD_BOOL, offsetof(struct thing, wild), .def = true,
		.present_offset = offsetof(struct thing, wild_given)},
	{"colour", JSON_FIELD_ENUM, offsetof(struct thing, colour), .names = colour_names, .def = GREEN},
	{"main_port", JSON_FIELD_OBJECT, offsetof(struct thing, main_port), .table = &port_table, .required = true},
	{"spare", JSON_FIELD_OPTIONAL, offsetof(struct thing, spare), .table = &port_table},
	{"ports", JSON_FIELD_ARRAY, offsetof(struct thing, ports), .table = &port_table, .max = 3},
	{"command", JSON_FIELD_STRINGS, offsetof(struct thing, command), .max = 4, .first_min = 1},
	{"env", JSON_FIELD_MAP, offsetof(struct thing, env), .check = no_spaces},
	{"extra", JSON_FIELD_ANY, offsetof(struct thing, extra), .schema = "{\"type\": \"array\"}"},
	{"token", JSON_FIELD_STRING, offsetof(struct thing, token), .secret = true},
	{"seen", JSON_FIELD_INT, offsetof(struct thing, seen), .read_only = true, .max = 9},
};
static const struct json_table thing_table =
	JSON_TABLE_WITH_RULE("Thing", struct thing, thing_fields, "{\"required\": [\"colour\"]}");

static int read_text(const char *text, struct thing *ret, struct error *err)
{
	json_t *object = json_parse(text, strlen(text), err);
	int r = object ? json_read(&thing_table, object, ret, err) : -EINVAL;

	json_decref(object);
	return r;
}

#define FULL                                                                                                           \
	"{\"name\":\"a\",\"nick\":null,\"colour\":\"red\",\"main_port\":{\"host\":1},\"spare\":{\"host\":2,\"guest\":3},"  \
	"\"ports\":[{\"host\":4},{\"host\":5}],\"command\":[\"x\",\"y\"],\"env\":{\"K\":\"v\"},\"extra\":[1],"               \
	"\"token\":\"t\"}"

static void every_type_is_read(void **state)
{
	struct thing thing;
	struct error err;
	struct port *ports;

	(void)state;
	assert_int_equal(read_text(FULL, &thing, &err), 0);
	assert_string_equal(thing.name, "a");
	assert_null(thing.nick);
	assert_true(thing.wild);
	assert_false(thing.wild_given);
	assert_int_equal(thing.colour, RED);
	assert_int_equal(thing.main_port.guest, 80);
	assert_int_equal(thing.spare->guest, 3);
	ports = thing.ports.items;
	assert_int_equal(thing.ports.len, 2);
	assert_int_equal(ports[1].host, 5);
	assert_int_equal(thing.command.len, 2);
	assert_string_equal(thing.command.items[1], "y");
	assert_null(thing.command.items[2]);
	assert_string_equal(json_string_value(json_object_get(thing.env, "K")), "v");
	json_done(&thing_table, &thing);
	assert_null(thing.name);
}

static void an_integer_may_be_written_as_a_fraction_of_one(void **state)
{
	struct thing thing;
	struct error err;

	(void)state;
	assert_int_equal(read_text("{\"name\":\"a\",\"main_port\":{\"host\":1.0,\"guest\":8e3}}", &thing, &err), 0);
	assert_int_equal(thing.main_port.host, 1);
	assert_int_equal(thing.main_port.guest, 8000);
	json_done(&thing_table, &thing);
}

static void what_is_written_reads_back_the_same_but_for_secrets(void **state)
{
	struct thing thing;
	struct error err;
	json_t *dumped;
	char *text;

	(void)state;
	assert_int_equal(read_text(FULL, &thing, &err), 0);
	dumped = json_dump(&thing_table, &thing);
	assert_null(json_object_get(dumped, "token"));
	assert_true(json_is_null(json_object_get(dumped, "nick")));
	assert_int_equal(json_integer_value(json_object_get(dumped, "seen")), 0);
	json_object_del(dumped, "seen"); /* read-only: the service's own */
	text = json_dumps(dumped, 0);
	json_done(&thing_table, &thing);
	assert_int_equal(read_text(text, &thing, &err), 0);
	assert_int_equal(thing.spare->host, 2);
	json_done(&thing_table, &thing);
	free(text);
	json_decref(dumped);
}

static void each_refusal_names_the_field(void **state)
{
	static const struct {
		const char *text, *field, *says;
	} cases[] = {
		{"{\"main_port\":{\"host\":1}}", "name", "is required"},
		{"{\"name\":\"a\"}", "main_port", "is required"},
		{"{\"name\":\"a\",\"main_port\":{}}", "main_port.host", "is required"},
		{"{\"name\":\"\",\"main_port\":{\"host\":1}}", "name", "must not be empty"},
		{"{\"name\":\"123456789\",\"main_port\":{\"host\":1}}", "name", "at most 8 bytes"},
		{"{\"name\":\"a b\",\"main_port\":{\"host\":1}}", "name", "space"},
		{"{\"name\":7,\"main_port\":{\"host\":1}}", "name", "must be a string, not an integer"},
		{"{\"name\":\"a\\u0000b\",\"main_port\":{\"host\":1}}", "", "NUL"},
		{"{\"name\":\"a\",\"main_port\":{\"host\":0}}", "main_port.host", "must be 1 to 65535, not 0"},
		{"{\"name\":\"a\",\"main_port\":{\"host\":1.5}}", "main_port.host", "integer"},
		{"{\"name\":\"a\",\"main_port\":{\"host\":1e300}}", "main_port.host", "integer"},
		{"{\"name\":\"a\",\"main_port\":{\"host\":65536.0}}", "main_port.host", "must be 1 to 65535, not 65536"},
		{"{\"name\":\"a\",\"main_port\":{\"host\":1},\"command\":[\"\"]}", "command[0]", "must not be empty"},
		{"{\"name\":\"a\",\"main_port\":{\"host\":1},\"ports\":[{\"host\":1},{\"hots\":1}]}", "ports[1].hots",
			"did you mean \"host\""},
		{"{\"name\":\"a\",\"main_port\":{\"host\":1},\"ports\":[{\"host\":1},{\"host\":2},{\"host\":3},{\"host\":4}]}",
			"ports", "at most 3 items"},
		{"{\"name\":\"a\",\"main_port\":{\"host\":1},\"colour\":\"blue\"}", "colour", "red, green"},
		{"{\"name\":\"a\",\"main_port\":{\"host\":1},\"command\":[\"x\",1]}", "command[1]", "a string"},
		{"{\"name\":\"a\",\"main_port\":{\"host\":1},\"env\":{\"A B\":\"x\"}}", "env.A B", "space"},
		{"{\"name\":\"a\",\"main_port\":{\"host\":1},\"env\":{\"A\":1}}", "env.A", "a string"},
		{"{\"name\":\"a\",\"main_port\":{\"host\":1},\"nmae\":\"b\"}", "nmae", "did you mean \"name\""},
		{"{\"name\":\"a\",\"main_port\":{\"host\":1},\"zebra\":\"b\"}", "zebra", "unknown field"},
		{"{\"name\":\"a\",\"main_port\":{\"host\":1},\"seen\":1}", "seen", "read-only"},
		{"{\"name\":\"a\",\"main_port\":{\"host\":1},\"colour\":null}", "colour", "null"},
		{"[]", "", "must be an object, not an array"},
		{"{\"name\":\"a\",\"name\":\"b\"}", "", "duplicate"},
		{"{\"name\":\"a\"} x", "", "not valid JSON: line 1"},
		{"{\"name\":\"\xff\"}", "", "not valid JSON"},
		{"", "", "not valid JSON"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct thing thing;
		struct error err = {0};

		int expected = strstr(cases[i].says, "unknown") || strstr(cases[i].says, "did you mean") ? ENOKEY
			: strcmp(cases[i].says, "is required") == 0					? ENODATA
													: EINVAL;

		assert_int_equal(read_text(cases[i].text, &thing, &err), -expected);
		if (strcmp(err.field, cases[i].field) || !strstr(err.message, cases[i].says))
			fail_msg("%s gave \"%s: %s\"", cases[i].text, err.field, err.message);
	}
}

static void depth_is_bounded(void **state)
{
	char text[4096] = "";
	struct error err;
	json_t *value;

	(void)state;
	memset(text, '[', JSON_DEPTH_MAX);
	memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
	value = json_parse(text, strlen(text), &err);
	assert_non_null(value);
	json_decref(value);
	memset(text, '[', JSON_DEPTH_MAX + 1);
	memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
	assert_null(json_parse(text, strlen(text), &err));
	assert_non_null(strstr(err.message, "deeper"));
}

static void the_nearest_name_is_near(void **state)
{
	static const char *const names[] = {"vcpu_count", "mem_size_mib", "smt", NULL};

	(void)state;
	assert_string_equal(nearest_name("vcpu_cout", names), "vcpu_count");
	assert_string_equal(nearest_name("vcpu_conut", names), "vcpu_count");
	assert_string_equal(nearest_name("smtt", names), "smt");
	assert_string_equal(nearest_name("vcpu", names), "vcpu_count");
	assert_string_equal(nearest_name("mem_size", names), "mem_size_mib");
	assert_null(nearest_name("mem_s", names));
	assert_null(nearest_name("cpus", names));
	assert_null(nearest_name("", names));
}

static void the_schema_says_what_the_table_says(void **state)
{
	json_t *schemas = json_object(), *thing, *properties;

	(void)state;
	json_schema(&thing_table, schemas);
	thing = json_object_get(schemas, "Thing");
	properties = json_object_get(thing, "properties");
	assert_non_null(json_object_get(schemas, "Port"));
	assert_int_equal(json_object_size(properties), ARRAY_SIZE(thing_fields));
	assert_int_equal(json_array_size(json_object_get(thing, "required")), 2);
	assert_true(json_is_false(json_object_get(thing, "additionalProperties")));
	assert_string_equal(json_string_value(json_object_get(json_object_get(properties, "colour"), "default")), "green");
	assert_true(json_is_true(json_object_get(json_object_get(properties, "seen"), "readOnly")));
	assert_string_equal(json_string_value(json_object_get(json_object_get(properties, "name"), "pattern")), "^[^ ]*$");
	assert_string_equal(json_string_value(json_object_get(json_object_get(json_object_get(properties, "token"), "not"), "pattern")), "\\u0000");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(properties, "token"), "maxLength")), JSON_STRING_MAX);
	assert_string_equal(json_string_value(json_object_get(json_object_get(properties, "extra"), "type")), "array");
	assert_int_equal(json_array_size(json_object_get(json_object_get(properties, "command"), "prefixItems")), 1);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(properties, "env"), "maxProperties")), JSON_ITEMS_MAX);
	assert_int_equal(json_array_size(json_object_get(thing, "allOf")), 1);
	json_decref(schemas);
}

static void bytes_that_are_no_text_become_text(void **state)
{
	static const char *const cases[][2] = {
		{"na\xc3\xafve", "na\xc3\xafve"}, {"cut: na\xc3", "cut: na?"}, {"\xff\xfe.", "??."}, {"", ""}};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_t *text = json_lossy_string(cases[i][0]);

		assert_string_equal(json_string_value(text), cases[i][1]);
		json_decref(text);
	}
}

/* What jansson writes is the oracle: entity tags are made of it. */
static void what_is_printed_is_what_jansson_writes(void **state)
{
	char bytes[0x80];
	json_t *value = json_pack("{s:{}, s:[], s:[i, I, I, b, b, n, f], s:{s:[[{s:s}]]}}", "object", "array", "values", 0,
		(json_int_t)INT64_MIN, (json_int_t)INT64_MAX, 1, 0, 0.1, "deep", "er", "na\xc3\xafve \"key\"\n", "\xf0\x9f\x90\xb3/\\");
	char *printed, *expected;

	(void)state;
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (char)i;
	json_object_set_new(value, "bytes", json_stringn(bytes, sizeof bytes));
	printed = json_print(value, "\n");
	expected = json_dumps(value, JSON_COMPACT);
	assert_int_equal(strlen(printed), strlen(expected) + 1);
	assert_memory_equal(printed, expected, strlen(expected));
	assert_int_equal(printed[strlen(expected)], '\n');
	free(printed);
	free(expected);
	json_decref(value);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_printed_is_what_jansson_writes),
		cmocka_unit_test(every_type_is_read),
		cmocka_unit_test(an_integer_may_be_written_as_a_fraction_of_one),
		cmocka_unit_test(what_is_written_reads_back_the_same_but_for_secrets),
		cmocka_unit_test(each_refusal_names_the_field),
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(the_nearest_name_is_near),
		cmocka_unit_test(the_schema_says_what_the_table_says),
		cmocka_unit_test(bytes_that_are_no_text_become_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
