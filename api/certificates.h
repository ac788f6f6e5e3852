/* Certificates that a project gives for its host names, in the place of those that the host makes. Their keys are sealed like secrets, and
 * shown by nothing. One is served while a machine of the project has the name, it has not expired, and HAProxy has not refused it. */
#ifndef HULL_API_CERTIFICATES_H
#define HULL_API_CERTIFICATES_H

#include "api/hulld.h"

/* The certificate of the project for the name, with its key behind it: owned, to be wiped (x509.h). NULL: there is none that is valid, or
 * `err` is set (errnum not 0). */
char *certificates_find(struct hulld *hulld, const char *project, const char *hostname, int64_t *ret_expires_at, struct error *err);

/* HAProxy does not take that one: it is not served until it is set again, and its project told why. */
void certificates_refuse(struct hulld *hulld, const char *project, const char *hostname, const char *answer);
/* Reads what an older hulld has not, once. 0 or -errno with `err` set. */
int certificates_start(struct hulld *hulld, struct error *err);

/* Routes; their context is a struct hulld. */
struct certificate_spec {
	char *certificate, *key;
};
extern const struct json_table certificate_spec_table;

struct certificate_view {
	char *hostname, *certificate, *expires_at, *created_at, *updated_at, *refused;
};
extern const struct json_table certificate_table;

void certificate_http_put(struct request *req, void *ctx);
void certificate_http_list(struct request *req, void *ctx);
void certificate_http_get(struct request *req, void *ctx);
void certificate_http_delete(struct request *req, void *ctx);

#endif
