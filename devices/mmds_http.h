/* Answering the guest's HTTP requests to MMDS: what Firecracker answers to the same. */
#ifndef HULL_DEVICES_MMDS_HTTP_H
#define HULL_DEVICES_MMDS_HTTP_H

#include "devices/mmds.h"

/* Of a request's body, which nobody reads. */
#define MMDS_HTTP_BODY_MAX 1024
#define MMDS_HTTP_REQUEST_MAX (HTTP_HEAD_MAX + MMDS_HTTP_BODY_MAX)

enum mmds_served {
	MMDS_INCOMPLETE,    /* more of the request has to come */
	MMDS_ANSWERED,
	MMDS_ANSWERED_LAST, /* and nothing more will be on this connection */
};

/* Looks for a whole request at the start of `text`; answers it, or what can be no request, at the end of `out`, and says in
 * `*ret_used` how many bytes it took. An answer that `out` has no room for becomes a 503. At MMDS_HTTP_REQUEST_MAX bytes none
 * is incomplete. */
enum mmds_served mmds_http_serve(
	struct mmds *mmds, const char *text, size_t len, uint64_t now_ns, struct buf *out, size_t *ret_used);

#endif
