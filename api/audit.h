/* The audit log: who has done what, when, from where, and how it was answered; a JSON object a line.
 *
 * There is a line for every request that is no GET or HEAD, for every one of the scope `exec` (programs and files in machines), and for
 * every one that was refused for want of a token (401) or of what it may do (403). It is written before the answer is sent; for a stream,
 * before its first byte; for a request whose client has gone, when that was seen, without a status. It has neither bodies nor tokens, nor
 * anything of a machine's environment, and what a client chose is in it as a string of JSON in ASCII, cut.
 *
 * A line that cannot be written (a full disk) is lost and counted: in /metrics, and in the next line that can. Nothing is refused for that:
 * what changes anything needs the same disk, in general, and is refused by the database then. Of what comes without a valid token, which
 * costs nobody anything, there are UNKNOWN_MAX lines a second; how many more there were is in the next. */
#ifndef HULL_API_AUDIT_H
#define HULL_API_AUDIT_H

#include "api/hulld.h"

struct audit_metrics {
	uint64_t written, lost;
};

struct audit;

extern const struct json_table audit_page_table;

/* Opens options.audit_log. NULL with `err` set. */
struct audit *audit_new(struct hulld *hulld, struct error *err);
void audit_free(struct audit *audit); /* NULL is fine */
const struct audit_metrics *audit_metrics(const struct audit *audit);

/* An http_audit_fn; its context is a struct hulld. */
void audit_request(const struct request *req, void *ctx);

/* GET /v1/audit. */
void audit_http(struct request *req, void *ctx);

#endif
