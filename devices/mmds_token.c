/* Making and checking session tokens. */
#include "devices/mmds_token.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <nettle/base64.h>
#include <nettle/hmac.h>
#include <nettle/memops.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define NONCE_BYTES 8
#define MAC_BYTES   20

struct token {
	uint8_t nonce[NONCE_BYTES];
	uint64_t expiry_ms; /* big-endian; of the tokens' own clock */
	uint8_t mac[MAC_BYTES];
} __attribute__((packed));

static_assert(BASE64_ENCODE_RAW_LENGTH(sizeof(struct token)) == MMDS_TOKEN_CHARS, "three bytes are four characters");

static int fill_random(void *ret, size_t len)
{
	return getrandom(ret, len, 0) == (ssize_t)len ? 0 : -EIO;
}

int mmds_tokens_init(struct mmds_tokens *tokens, const char *instance, uint64_t now_ns)
{
	*tokens = (struct mmds_tokens){.instance = strdup(instance), .begun_ns = now_ns};
	return tokens->instance ? fill_random(tokens->key, sizeof(tokens->key)) : -ENOMEM;
}

void mmds_tokens_done(struct mmds_tokens *tokens)
{
	explicit_bzero(tokens->key, sizeof(tokens->key));
	free(tokens->instance);
	tokens->instance = NULL;
}

static uint64_t clock_ms(const struct mmds_tokens *tokens, uint64_t now_ns)
{
	return (now_ns - tokens->begun_ns) / 1000000;
}

static void sign(const struct mmds_tokens *tokens, const struct token *token, uint8_t ret[MAC_BYTES])
{
	struct hmac_sha256_ctx hmac;

	hmac_sha256_set_key(&hmac, sizeof(tokens->key), tokens->key);
	hmac_sha256_update(&hmac, offsetof(struct token, mac), (const uint8_t *)token);
	hmac_sha256_update(&hmac, strlen(tokens->instance), (const uint8_t *)tokens->instance);
	hmac_sha256_digest(&hmac, MAC_BYTES, ret);
	explicit_bzero(&hmac, sizeof(hmac));
}

int mmds_token_make(const struct mmds_tokens *tokens, uint32_t ttl_s, uint64_t now_ns, char ret[MMDS_TOKEN_CHARS + 1])
{
	struct token token = {.expiry_ms = htobe64(clock_ms(tokens, now_ns) + ttl_s * UINT64_C(1000))};
	int r = fill_random(token.nonce, sizeof(token.nonce));

	if (r < 0)
		return r;
	sign(tokens, &token, token.mac);
	base64_encode_raw(ret, sizeof(token), (const uint8_t *)&token);
	ret[MMDS_TOKEN_CHARS] = '\0';
	return 0;
}

bool mmds_token_is_valid(const struct mmds_tokens *tokens, struct http_text text, uint64_t now_ns)
{
	struct base64_decode_ctx base64;
	uint8_t mac[MAC_BYTES];
	struct token token;
	size_t len = sizeof(token);

	if (text.len != MMDS_TOKEN_CHARS)
		return false;
	base64_decode_init(&base64);
	if (!base64_decode_update(&base64, &len, (uint8_t *)&token, text.len, text.data) ||
		!base64_decode_final(&base64) || len != sizeof(token))
		return false;
	sign(tokens, &token, mac);
	return memeql_sec(mac, token.mac, sizeof(mac)) && be64toh(token.expiry_ms) > clock_ms(tokens, now_ns);
}

void mmds_tokens_save(const struct mmds_tokens *tokens, struct state_writer *w, uint64_t now_ns)
{
	state_put_bytes(w, tokens->key, sizeof(tokens->key));
	state_put_u64(w, clock_ms(tokens, now_ns));
}

int mmds_tokens_load(struct mmds_tokens *tokens, struct state_reader *r, uint64_t now_ns)
{
	const uint8_t *key;
	uint32_t len = state_get_bytes(r, &key);
	uint64_t ms = state_get_u64(r);

	if (r->failed || len != sizeof(tokens->key) || ms > INT64_MAX / 1000000)
		return -EINVAL;
	memcpy(tokens->key, key, len);
	tokens->begun_ns = now_ns - ms * 1000000; /* may wrap, and back again */
	return 0;
}
