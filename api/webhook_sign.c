#include "api/webhook_sign.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <nettle/base64.h>
#include <nettle/hmac.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define PREFIX	      "whsec_"
#define KEY_MIN	      24
#define KEY_MAX	      64
#define KEY_MADE      32

/* The key's bytes, or -EINVAL. */
static int read_key(const char *secret, uint8_t ret[KEY_MAX])
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";
	const char *text = secret + strlen(PREFIX);
	uint8_t key[BASE64_DECODE_LENGTH(WEBHOOK_SECRET_MAX)];
	char again[BASE64_ENCODE_RAW_LENGTH(KEY_MAX) + 1] = "";
	struct base64_decode_ctx ctx;
	size_t len = sizeof(key);
	int r = -EINVAL;

	if (strncmp(secret, PREFIX, strlen(PREFIX)) != 0 || strlen(secret) > WEBHOOK_SECRET_MAX || strspn(text, alphabet) != strlen(text))
		return -EINVAL;
	base64_decode_init(&ctx);
	if (base64_decode_update(&ctx, &len, key, strlen(text), text) && base64_decode_final(&ctx) && len >= KEY_MIN && len <= KEY_MAX)
		base64_encode_raw(again, len, key);
	if (again[0] && strcmp(again, text) == 0) { /* nettle takes "A===", too */
		memcpy(ret, key, len);
		r = (int)len;
	}
	sodium_memzero(again, sizeof(again));
	sodium_memzero(key, sizeof(key));
	return r;
}

int webhook_secret_check(const char *secret, struct error *err)
{
	uint8_t key[KEY_MAX];
	int len = read_key(secret, key);

	sodium_memzero(key, sizeof(key));
	if (len < 0)
		return error_set(err, EINVAL, "must be " PREFIX " and, in base64, %d to %d bytes", KEY_MIN, KEY_MAX);
	return 0;
}

void webhook_secret_make(char ret[WEBHOOK_SECRET_MAX + 1])
{
	uint8_t key[KEY_MADE];

	randombytes_buf(key, sizeof(key));
	strcpy(ret, PREFIX);
	base64_encode_raw(ret + strlen(PREFIX), sizeof(key), key);
	ret[strlen(PREFIX) + BASE64_ENCODE_RAW_LENGTH(sizeof(key))] = '\0';
	sodium_memzero(key, sizeof(key));
}

void webhook_sign(const char *secret, const char *id, int64_t at_s, const char *body, char ret[WEBHOOK_SIGNATURE_BYTES])
{
	uint8_t key[KEY_MAX], digest[SHA256_DIGEST_SIZE];
	struct hmac_sha256_ctx ctx;
	int len = read_key(secret, key);
	char at[24];

	assert(len > 0);
	snprintf(at, sizeof(at), ".%" PRId64 ".", at_s);
	hmac_sha256_set_key(&ctx, (size_t)len, key);
	hmac_sha256_update(&ctx, strlen(id), (const uint8_t *)id);
	hmac_sha256_update(&ctx, strlen(at), (const uint8_t *)at);
	hmac_sha256_update(&ctx, strlen(body), (const uint8_t *)body);
	hmac_sha256_digest(&ctx, sizeof(digest), digest);
	sodium_memzero(key, sizeof(key));
	sodium_memzero(&ctx, sizeof(ctx));
	strcpy(ret, "v1,");
	base64_encode_raw(ret + 3, sizeof(digest), digest);
	ret[3 + BASE64_ENCODE_RAW_LENGTH(sizeof(digest))] = '\0';
}
