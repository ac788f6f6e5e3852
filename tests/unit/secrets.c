/* What is sealed for who has a key opens with that, the host's and what it is bound to, and with nothing less. */
#include "tests/unit/test.h"

#include "api/secrets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct secrets *host_with_a_key(void)
{
	char folder[] = "/tmp/hull-secrets-XXXXXX", path[64];
	struct secrets *secrets;
	struct error err;

	assert_non_null(mkdtemp(folder));
	secrets = secrets_new(folder, &err);
	assert_non_null(secrets);
	snprintf(path, sizeof(path), "%s/secrets.key", folder);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(folder), 0);
	return secrets;
}

static void what_is_sealed_for_a_key_opens_with_all_that_it_was_made_of(void **state)
{
	struct secrets *secrets = host_with_a_key(), *other = host_with_a_key();
	char *sealed = secrets_seal_for(secrets, "key", "bound", "the value"), *again = secrets_seal_for(secrets, "key", "bound", "the value");
	struct error err;
	char *value = secrets_unseal_for(secrets, "key", "bound", sealed, &err);

	(void)state;
	assert_string_equal(value, "the value");
	assert_null(strstr(sealed, "value"));
	assert_string_not_equal(sealed, again);
	assert_null(secrets_unseal_for(secrets, "kez", "bound", sealed, &err));
	assert_null(secrets_unseal_for(secrets, "", "bound", sealed, &err));
	assert_null(secrets_unseal_for(secrets, "key", "bount", sealed, &err));
	assert_null(secrets_unseal_for(other, "key", "bound", sealed, &err));
	assert_int_equal(err.errnum, EBADMSG);
	free(value);
	free(again);
	free(sealed);
	secrets_free(other);
	secrets_free(secrets);
}

static void what_is_damaged_does_not_open(void **state)
{
	struct secrets *secrets = host_with_a_key();
	char *sealed = secrets_seal_for(secrets, "key", "", "");
	struct error err;

	(void)state;
	for (size_t i = 0; sealed[i]; i++) {
		char was = sealed[i];

		sealed[i] = was == 'A' ? 'B' : 'A';
		assert_null(secrets_unseal_for(secrets, "key", "", sealed, &err));
		sealed[i] = '\0';
		assert_null(secrets_unseal_for(secrets, "key", "", sealed, &err));
		sealed[i] = was;
	}
	assert_null(secrets_unseal_for(secrets, "key", "", "no base64", &err));
	free(sealed);
	secrets_free(secrets);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_sealed_for_a_key_opens_with_all_that_it_was_made_of),
		cmocka_unit_test(what_is_damaged_does_not_open),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
