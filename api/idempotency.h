/* Idempotency-Key: a POST that is sent again with its key gets its first answer, for 24 hours, also of another hulld.
 *
 * Theory of operation. A key is kept, durably, before the request's handler runs, and its answer before that is sent. A request whose
 * key has no answer, and that nobody serves, was cut short: by the end of hulld, or of its client. It is then done again, which is
 * harmless with what only names a state (freeze, an image). A machine that it had created, started or ended is found (machine_http.c): the
 * rows of machines and operations have the number of the request, so that no clock matters. A program is not executed again, as nobody knows
 * how far it came, or its output was too long to be kept. What a client may retry (Problem.retryable) is no answer to keep.
 *
 * What is made with its answer in one transaction (request_keep()) is never cut short between: a token, a webhook, a project. An answer
 * that shows what is kept as a hash, or sealed, is sealed itself, with a key that is made of the host's and the client's, so that neither the
 * database nor the host opens it; the row has a hash in the place of the client's key. It is for who has asked first, by its token: for anybody
 * else the key is one that came with another request. */
#ifndef HULL_API_IDEMPOTENCY_H
#define HULL_API_IDEMPOTENCY_H

#include "api/http.h"
#include "api/hulld.h"

#define IDEMPOTENCY_HEADER "Idempotency-Key"

/* Its `ctx` is the hulld. */
extern const struct http_keeper idempotency_keeper;

/* A step of forgetting (forget.h) what is older than that. */
int idempotency_forget(struct hulld *hulld, int64_t now, struct error *err);

#endif
