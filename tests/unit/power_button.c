/* What the kernel says of the power button, and what it says of other things. */
#include "tests/unit/test.h"

#include "guest-kernel/power_button.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <stdbool.h>
#include <string.h>

#define FAMILY 27

struct message {
	uint8_t data[512];
	size_t len;
};

static void put(struct message *m, const void *data, size_t len)
{
	memcpy(m->data + m->len, data, len);
	m->len += NLA_ALIGN(len);
}

/* Opens an attribute; close_attribute() says how long it became. */
static size_t open_attribute(struct message *m, uint16_t type)
{
	struct nlattr head = {.nla_type = type};
	size_t at = m->len;

	put(m, &head, sizeof(head));
	return at;
}

static void close_attribute(struct message *m, size_t at, size_t len)
{
	uint16_t nla_len = (uint16_t)(NLA_HDRLEN + len);

	memcpy(m->data + at, &nla_len, sizeof(nla_len));
}

static void put_attribute(struct message *m, uint16_t type, const void *data, size_t len)
{
	size_t at = open_attribute(m, type);

	put(m, data, len);
	close_attribute(m, at, len);
}

static void begin(struct message *m, uint16_t family, uint8_t command)
{
	struct nlmsghdr head = {.nlmsg_type = family};
	struct genlmsghdr generic = {.cmd = command};

	*m = (struct message){.len = 0};
	put(m, &head, sizeof(head));
	put(m, &generic, sizeof(generic));
}

static void end(struct message *m)
{
	uint32_t len = (uint32_t)m->len;

	memcpy(m->data, &len, sizeof(len));
}

static void family_message(struct message *m, const char *group_name)
{
	uint16_t family = FAMILY;
	uint32_t group = 0x12345;
	size_t groups, one;

	begin(m, GENL_ID_CTRL, CTRL_CMD_NEWFAMILY);
	put_attribute(m, CTRL_ATTR_FAMILY_NAME, "acpi_event", sizeof("acpi_event"));
	put_attribute(m, CTRL_ATTR_FAMILY_ID, &family, sizeof(family));
	groups = open_attribute(m, CTRL_ATTR_MCAST_GROUPS | NLA_F_NESTED);
	one = open_attribute(m, 1 | NLA_F_NESTED);
	put_attribute(m, CTRL_ATTR_MCAST_GRP_ID, &group, sizeof(group));
	put_attribute(m, CTRL_ATTR_MCAST_GRP_NAME, group_name, strlen(group_name) + 1);
	close_attribute(m, one, m->len - one - NLA_HDRLEN);
	close_attribute(m, groups, m->len - groups - NLA_HDRLEN);
	end(m);
}

static void event_message(struct message *m, const char *class)
{
	uint8_t event[44] = {0};

	memcpy(event, class, strlen(class));
	begin(m, FAMILY, 1);
	put_attribute(m, 1, event, sizeof(event));
	end(m);
}

static void test_the_family_and_its_group_are_found(void **state)
{
	struct message m;
	uint16_t family = 0;
	uint32_t group = 0;

	(void)state;
	family_message(&m, "acpi_mc_group");
	assert_true(power_button_parse_family(m.data, m.len, &family, &group));
	assert_int_equal(family, FAMILY);
	assert_int_equal(group, 0x12345);
	for (size_t len = 0; len < m.len; len++)
		assert_false(power_button_parse_family(m.data, len, &family, &group));
	family_message(&m, "another_group");
	assert_false(power_button_parse_family(m.data, m.len, &family, &group));
}

static void test_an_error_is_no_family(void **state)
{
	struct message m;
	uint16_t family;
	uint32_t group;
	struct nlmsgerr error = {.error = -ENOENT};

	(void)state;
	begin(&m, NLMSG_ERROR, 0);
	put(&m, &error, sizeof(error));
	end(&m);
	assert_false(power_button_parse_family(m.data, m.len, &family, &group));
}

static void test_the_button_is_told_from_others(void **state)
{
	struct message m;

	(void)state;
	event_message(&m, "button/power");
	assert_true(power_button_parse_event(m.data, m.len, FAMILY));
	assert_false(power_button_parse_event(m.data, m.len, FAMILY + 1));
	for (size_t len = 0; len < m.len; len++)
		assert_false(power_button_parse_event(m.data, len, FAMILY));
	event_message(&m, "button/sleep");
	assert_false(power_button_parse_event(m.data, m.len, FAMILY));
	event_message(&m, "button/powerful");
	assert_false(power_button_parse_event(m.data, m.len, FAMILY));
}

static void test_a_length_that_lies_is_the_end(void **state)
{
	struct message m;
	uint16_t lies[] = {0, 1, 3, 0xffff};

	(void)state;
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		event_message(&m, "button/power");
		memcpy(m.data + NLMSG_HDRLEN + GENL_HDRLEN, &lies[i], sizeof(lies[i]));
		assert_false(power_button_parse_event(m.data, m.len, FAMILY));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_family_and_its_group_are_found),
		cmocka_unit_test(test_an_error_is_no_family),
		cmocka_unit_test(test_the_button_is_told_from_others),
		cmocka_unit_test(test_a_length_that_lies_is_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
