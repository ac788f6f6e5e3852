/* Signatures are those that others' libraries verify; a secret is one or is refused. */
#include "tests/unit/test.h"

#include "api/webhook_sign.h"

#include <errno.h>
#include <regex.h>
#include <string.h>

static void a_signature_is_the_one_that_the_specification_s_libraries_are_tested_with(void **state)
{
	char signature[WEBHOOK_SIGNATURE_BYTES];

	(void)state;
	webhook_sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, "{\"test\": 2432232314}", signature);
	assert_string_equal(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

static void secrets_are_of_24_to_64_bytes_in_base64(void **state)
{
	static const char *const good[] = {
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
		"whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAA==", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAAA=",
	};
	static const char *const bad[] = {
		"", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS\n", "whsec_MfKQ9r8GKYqrTwjU PD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw=",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa=w", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS\xc3",
		"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAB==", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAAB=", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwA===",
		"whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
		"whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	};
	struct error err;
	regex_t pattern; /* what the OpenAPI document says */

	(void)state;
	assert_int_equal(regcomp(&pattern, WEBHOOK_SECRET_PATTERN, REG_EXTENDED | REG_NOSUB), 0);
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(webhook_secret_check(good[i], &err), 0);
		assert_int_equal(regexec(&pattern, good[i], 0, NULL, 0), 0);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(webhook_secret_check(bad[i], &err), -EINVAL);
		assert_int_equal(regexec(&pattern, bad[i], 0, NULL, 0), REG_NOMATCH);
	}
	regfree(&pattern);
}

static void what_is_made_is_a_secret_and_never_the_same(void **state)
{
	char one[WEBHOOK_SECRET_MAX + 1], other[WEBHOOK_SECRET_MAX + 1];
	struct error err;

	(void)state;
	webhook_secret_make(one);
	webhook_secret_make(other);
	assert_int_equal(webhook_secret_check(one, &err), 0);
	assert_int_equal(strlen(one), 50);
	assert_string_not_equal(one, other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_signature_is_the_one_that_the_specification_s_libraries_are_tested_with),
		cmocka_unit_test(secrets_are_of_24_to_64_bytes_in_base64),
		cmocka_unit_test(what_is_made_is_a_secret_and_never_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
