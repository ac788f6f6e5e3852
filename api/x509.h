/* Certificates for HTTPS, as PEM: made here by an authority of the host's own, or given and looked at (RFC 5280, by GnuTLS). */
#ifndef HULL_API_X509_H
#define HULL_API_X509_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

/* HAProxy takes a command of 16384 bytes at most, and the certificate with its key is in one. */
#define X509_PEM_MAX 14336

struct x509_authority;

/* Reads <state>/ca/ca.pem (0600; its key, then its certificate), or makes an authority for ten years. NULL with `err` set. */
struct x509_authority *x509_authority_new(const char *state, struct error *err);
void x509_authority_free(struct x509_authority *authority); /* NULL is fine */
/* Its certificate, PEM; and when that expires, ms since 1970. */
const char *x509_authority_pem(const struct x509_authority *authority);
int64_t x509_authority_expires_at(const struct x509_authority *authority);

/* A certificate for the name, valid for 90 days, with its key behind it: owned, to be wiped. NULL with `err` set. */
char *x509_issue(const struct x509_authority *authority, const char *hostname, int64_t *ret_expires_at, struct error *err);
/* Is `pem` one of the authority's for the name? Then when it expires. */
bool x509_is_issued(const struct x509_authority *authority, const char *hostname, const char *pem, int64_t *ret_expires_at);

/* Is that a certificate for the name, which is valid now, with the key that fits, and both such as clients and HAProxy take? Then
 * `*ret_certificate` (it and those it came with) and `*ret_key` are both as PEM of our own writing, owned, the key to be wiped. 0, or -errno
 * with `err` set, whose field is `certificate` or `key`. */
int x509_check(const char *certificate, const char *key, const char *hostname, char **ret_certificate, char **ret_key, struct error *err);
/* When the first certificate of the PEM expires, ms since 1970; 0: it is none. */
int64_t x509_expires_at(const char *pem);

/* Overwrites and frees; NULL is fine. */
void x509_wipe(char *pem);

#endif
