/* Signatures of webhooks, as the Standard Webhooks specification has them (version 1.0.0, "Signature scheme"):
 *
 *	secret     whsec_<base64 of a key of 24 to 64 bytes>
 *	signature  v1,<base64 of HMAC-SHA256(key, ID "." seconds since 1970 "." body)> */
#ifndef HULL_API_WEBHOOK_SIGN_H
#define HULL_API_WEBHOOK_SIGN_H

#include "common/error.h"

#include <stdint.h>

#define WEBHOOK_SECRET_MAX	94 /* characters */
/* What webhook_secret_check() takes. The last character before padding has no bits that the key has not (RFC 4648, section 3.5). */
#define WEBHOOK_SECRET_PATTERN                                                                                \
	"^whsec_([A-Za-z0-9+/]{4}){8,20}([A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|([A-Za-z0-9+/]{4})?([A-Za-z0-9+/][AQgw]==)?)$"
#define WEBHOOK_SIGNATURE_BYTES 48 /* with the NUL */

/* Is it a secret? 0 or -EINVAL with `err` set. */
int webhook_secret_check(const char *secret, struct error *err);
/* A new one, of 32 bytes of the kernel's. */
void webhook_secret_make(char ret[WEBHOOK_SECRET_MAX + 1]);
/* `secret` has been checked. */
void webhook_sign(const char *secret, const char *id, int64_t at_s, const char *body, char ret[WEBHOOK_SIGNATURE_BYTES]);

#endif
