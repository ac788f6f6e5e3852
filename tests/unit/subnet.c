/* Subnets of networks: which there may be, and what follows from an address. */
#include "tests/unit/test.h"

#include "common/checked.h"
#include "common/subnet.h"

#include <errno.h>
#include <string.h>

static struct subnet parse(const char *text)
{
	struct subnet subnet;
	struct error err;

	assert_int_equal(subnet_parse(text, &subnet, &err), 0);
	return subnet;
}

static void what_is_no_private_network_is_refused(void **state)
{
	static const struct {
		const char *text, *reason;
	} refused[] = {
		{"", "must be an IPv4 network"}, {"10.88.0.0", "must be an IPv4 network"}, {"10.88.0.0/", "must be an IPv4 network"},
		{"10.88.0/24", "must be an IPv4 network"}, {"10.88.0.0/24x", "must be an IPv4 network"}, {"10.88.0.0/-24", "must be an IPv4 network"},
		{"10.88.0.0/024", "must be an IPv4 network"}, {"fd00::/24", "must be an IPv4 network"}, {"10.88.0.0/24/24", "must be an IPv4 network"},
		{"10.88.0.0/ 24", "must be an IPv4 network"}, {"1234.1234.1234.1234/24", "must be an IPv4 network"},
		{"10.88.0.0/21", "a prefix of 22 to 29"}, {"10.88.0.0/30", "a prefix of 22 to 29"}, {"10.88.0.0/99", "a prefix of 22 to 29"},
		{"10.88.0.1/24", "bits behind its prefix: write 10.88.0.0/24"}, {"10.88.1.0/22", "bits behind its prefix: write 10.88.0.0/22"},
		{"8.8.8.0/24", "must be private"}, {"127.0.0.0/24", "must be private"}, {"169.254.0.0/24", "must be private"},
		{"192.0.2.0/24", "must be private"}, {"172.32.0.0/24", "must be private"}, {"100.128.0.0/24", "must be private"}, {"224.0.0.0/24", "must be private"},
	};
	struct subnet subnet = {7, 7};
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		assert_int_equal(subnet_parse(refused[i].text, &subnet, &err), -EINVAL);
		if (!strstr(err.message, refused[i].reason))
			fail_msg("%s: %s", refused[i].text, err.message);
	}
	assert_int_equal(subnet.base, 7); /* untouched */
}

static void it_is_written_as_it_was_read(void **state)
{
	static const char *const texts[] = {"10.0.0.0/24", "172.31.255.248/29", "192.168.252.0/22", "100.127.255.0/24"};
	char text[SUBNET_TEXT_BYTES];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct subnet subnet = parse(texts[i]);

		assert_string_equal(subnet_format(&subnet, text), texts[i]);
	}
}

static void its_addresses_are_the_gateway_s_then_machines(void **state)
{
	struct subnet subnet = parse("10.88.4.0/29");
	char text[ADDRESS_TEXT_BYTES], mac[MAC_TEXT_BYTES];
	uint32_t address;
	struct error err;

	(void)state;
	assert_string_equal(address_format(subnet_gateway(&subnet), text), "10.88.4.1");
	assert_string_equal(address_format(subnet_last(&subnet), text), "10.88.4.6");
	assert_false(subnet_has_machine(&subnet, 0x0a580400));
	assert_false(subnet_has_machine(&subnet, 0x0a580401));
	assert_true(subnet_has_machine(&subnet, 0x0a580402));
	assert_true(subnet_has_machine(&subnet, 0x0a580406));
	assert_false(subnet_has_machine(&subnet, 0x0a580407));
	assert_false(subnet_has_machine(&subnet, 0));
	assert_false(subnet_has_machine(&subnet, UINT32_MAX));
	assert_string_equal(address_mac(0x0a5804fe, mac), "02:68:0a:58:04:fe");
	assert_int_equal(address_parse("10.88.4.254", &address, &err), 0);
	assert_int_equal(address, 0x0a5804fe);
	assert_int_equal(address_parse("10.88.4", &address, &err), -EINVAL);
}

static void one_within_another_overlaps_with_it(void **state)
{
	struct subnet wide = parse("10.88.0.0/22"), narrow = parse("10.88.3.128/25"), beside = parse("10.88.4.0/24");

	(void)state;
	assert_true(subnets_overlap(&wide, &narrow));
	assert_true(subnets_overlap(&narrow, &wide));
	assert_true(subnets_overlap(&wide, &wide));
	assert_false(subnets_overlap(&wide, &beside));
	assert_false(subnets_overlap(&beside, &narrow));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_private_network_is_refused),
		cmocka_unit_test(it_is_written_as_it_was_read),
		cmocka_unit_test(its_addresses_are_the_gateway_s_then_machines),
		cmocka_unit_test(one_within_another_overlaps_with_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
