/* Freezing machines' programs, and thawing them, over HTTP; the context of both is a struct hulld. */
#ifndef HULL_API_FREEZE_H
#define HULL_API_FREEZE_H

#include "api/http.h"

void freeze_http_freeze(struct request *req, void *ctx);
void freeze_http_thaw(struct request *req, void *ctx);

#endif
