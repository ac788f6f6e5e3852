/* Which addresses are anybody's: no form of one that is not gets through. */
#include "tests/unit/test.h"

#include "api/public_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/resource.h>

static struct sockaddr_storage address(const char *text)
{
	struct sockaddr_storage storage = {.ss_family = strchr(text, ':') ? AF_INET6 : AF_INET};

	assert_int_equal(inet_pton(storage.ss_family, text,
				 storage.ss_family == AF_INET6 ? (void *)&((struct sockaddr_in6 *)&storage)->sin6_addr
							       : (void *)&((struct sockaddr_in *)&storage)->sin_addr),
		1);
	return storage;
}

static bool is_public(const char *text)
{
	struct sockaddr_storage storage = address(text);

	return address_is_public((struct sockaddr *)&storage);
}

static void what_is_special_is_not_public_in_any_form(void **state)
{
	static const char *const special[] = {
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254",
		"172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255",
		"198.51.100.7", "203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::8.8.8.8",
		"64:ff9b:1::1", "100::1", "2001::1", "2001:0:4136:e378::", "2001:1ff::", "2001:db8::1", "2002:7f00:1::", "3fff::1", "4000::1", "fc00::1", "fdff::1",
		"fe80::1", "fec0::1", "ff02::1", "1fff::1",
	};
	static const char *const anybodys[] = {
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1", "169.253.255.255",
		"172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255",
		"::ffff:8.8.8.8", "2001:200::1", "2001:4860:4860::8888", "2003::1", "2606:4700::1111", "2a00:1450::1", "3ffe::1",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++)
		if (is_public(special[i]))
			fail_msg("%s is said to be public", special[i]);
	for (size_t i = 0; i < sizeof(anybodys) / sizeof(anybodys[0]); i++)
		if (!is_public(anybodys[i]))
			fail_msg("%s is said to be special", anybodys[i]);
	assert_false(address_is_public(&(struct sockaddr){.sa_family = AF_UNIX}));
}

static bool allows(const char *ranges, const char *text)
{
	struct address_ranges parsed = {.len = 0};
	struct sockaddr_storage storage = address(text);
	struct error err;

	assert_int_equal(address_ranges_parse(ranges, &parsed, &err), 0);
	return address_ranges_have(&parsed, (struct sockaddr *)&storage);
}

static void a_range_has_what_its_prefix_says(void **state)
{
	(void)state;
	assert_true(allows("127.0.0.0/8", "127.1.2.3"));
	assert_true(allows("127.0.0.0/8", "::ffff:127.1.2.3"));
	assert_true(allows("::ffff:127.0.0.0/104", "127.1.2.3"));
	assert_false(allows("127.0.0.0/8", "128.0.0.1"));
	assert_false(allows("127.0.0.0/8", "::1"));
	assert_true(allows("10.9.0.0/15,fd00::/9", "10.8.0.1"));
	assert_true(allows("10.8.0.0/15,fd00::/9", "fd7f::1"));
	assert_false(allows("10.8.0.0/15,fd00::/9", "fd80::1"));
	assert_false(allows("10.8.0.0/15", "10.10.0.0"));
	assert_true(allows("192.0.2.7", "192.0.2.7"));
	assert_false(allows("192.0.2.7", "192.0.2.6"));
	assert_true(allows("0.0.0.0/0", "9.9.9.9"));
	assert_false(allows("0.0.0.0/0", "2003::1"));
	assert_true(allows("::/0", "9.9.9.9"));
}

static void what_is_no_range_is_refused(void **state)
{
	static const char *const bad[] = {"", "10", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/8x", "fd00::/129", "host/8", "10.0.0.0/8,",
		",10.0.0.0/8", "10.0.0.0 /8", "1111:2222:3333:4444:5555:6666:7777:8888:9999", "10.0.0.0/0000000000000000008"};
	struct error err;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct address_ranges parsed = {.len = 0};

		assert_int_equal(address_ranges_parse(bad[i], &parsed, &err), -EINVAL);
	}
}

static void too_many_ranges_are_refused(void **state)
{
	struct address_ranges parsed = {.len = 0};
	char text[ADDRESS_RANGES_MAX * 8 + 8] = "1.1.1.1";
	struct error err;

	(void)state;
	for (int i = 0; i < ADDRESS_RANGES_MAX; i++)
		strcat(text, ",1.1.1.1");
	assert_int_equal(address_ranges_parse(text, &parsed, &err), -EINVAL);
	assert_int_equal(parsed.len, ADDRESS_RANGES_MAX);
}

static void the_host_s_own_are_known(void **state)
{
	struct sockaddr_storage loopback = address("127.0.0.1"), other = address("192.0.2.1");

	(void)state;
	assert_true(address_is_own((struct sockaddr *)&loopback));
	assert_false(address_is_own((struct sockaddr *)&other));
}

static void what_cannot_be_asked_of_the_kernel_may_be_the_host_s_own(void **state)
{
	struct sockaddr_storage loopback = address("127.0.0.1");
	struct rlimit limit, none;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = (struct rlimit){0, limit.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_true(address_is_own((struct sockaddr *)&loopback));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_special_is_not_public_in_any_form),
		cmocka_unit_test(a_range_has_what_its_prefix_says),
		cmocka_unit_test(what_is_no_range_is_refused),
		cmocka_unit_test(too_many_ranges_are_refused),
		cmocka_unit_test(the_host_s_own_are_known),
		cmocka_unit_test(what_cannot_be_asked_of_the_kernel_may_be_the_host_s_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
