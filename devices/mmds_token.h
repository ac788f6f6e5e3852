/* Session tokens of MMDS version 2: each tells when it expires, and that this instance has made it.
 *
 *	nonce (8 bytes) | expiry, ms (be64) | HMAC-SHA256 of both and of the instance's name, its first 20 bytes
 *
 * in base64: 48 characters. Nothing is remembered of a token, so a guest may ask for any number of them. */
#ifndef HULL_DEVICES_MMDS_TOKEN_H
#define HULL_DEVICES_MMDS_TOKEN_H

#include "common/http.h"
#include "devices/state.h"

#include <stdbool.h>
#include <stdint.h>

#define MMDS_TOKEN_TTL_MAX_S 21600
#define MMDS_TOKEN_CHARS     48
#define MMDS_TOKEN_KEY_BYTES 32

struct mmds_tokens {
	uint8_t key[MMDS_TOKEN_KEY_BYTES]; /* secret, this instance's alone */
	char *instance;			   /* owned: its name */
	uint64_t begun_ns;		   /* when the clock of expiries was 0, on the caller's clock */
};

/* Makes a fresh key. 0, or -errno when the host has no randomness. */
int mmds_tokens_init(struct mmds_tokens *tokens, const char *instance, uint64_t now_ns);
void mmds_tokens_done(struct mmds_tokens *tokens);

/* A token that is good for so long, 1..MMDS_TOKEN_TTL_MAX_S seconds. 0, or -errno when the host has no randomness. */
int mmds_token_make(const struct mmds_tokens *tokens, uint32_t ttl_s, uint64_t now_ns, char ret[MMDS_TOKEN_CHARS + 1]);
/* Whether it was made here and has not expired. Takes the same time for each that was not. */
bool mmds_token_is_valid(const struct mmds_tokens *tokens, struct http_text token, uint64_t now_ns);

/* The key and the clock, so that tokens stay good where the same instance goes on; never for a copy of it. */
void mmds_tokens_save(const struct mmds_tokens *tokens, struct state_writer *w, uint64_t now_ns);
/* 0, or -EINVAL with nothing changed. */
int mmds_tokens_load(struct mmds_tokens *tokens, struct state_reader *r, uint64_t now_ns);

#endif
