/* Programs executed in machines over HTTP: answered as one JSON object, or streamed
 * (guest-kernel/hull_guest.h has the frames). */
#ifndef HULL_API_EXEC_H
#define HULL_API_EXEC_H

#include "api/http.h"

struct hulld;

#define EXEC_PROTOCOL "hull-exec"

/* POST …/exec; its context is a struct hulld. */
void exec_http(struct request *req, void *ctx);

/* Ends all of them; the programs end with their connections. Before http_free(). */
void execs_end(struct hulld *hulld);

#endif
