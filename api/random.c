#include "api/random.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static void get_bytes(void *ret, size_t len)
{
	if (getrandom(ret, len, 0) != (ssize_t)len)
		abort(); /* never fails for so few bytes once the kernel is up */
}

void random_base32(char *ret, size_t len)
{
	static const char digits[] = "abcdefghijklmnopqrstuvwxyz234567";
	unsigned char bytes[64];

	assert(len <= sizeof(bytes));
	get_bytes(bytes, len);
	for (size_t i = 0; i < len; i++)
		ret[i] = digits[bytes[i] % 32];
	ret[len] = '\0';
	explicit_bzero(bytes, sizeof(bytes));
}

int64_t random_number(void)
{
	uint64_t number;

	get_bytes(&number, sizeof(number));
	return (int64_t)(number % INT64_MAX) + 1;
}
