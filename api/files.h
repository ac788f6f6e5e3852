/* Files in and out of machines over HTTP: GET and PUT /v1/machines/{m}/files, whose bodies are tar streams. */
#ifndef HULL_API_FILES_H
#define HULL_API_FILES_H

#include "api/http.h"

/* Their context is a struct hulld. */
void files_http_get(struct request *req, void *ctx);
extern const struct http_upload_ops files_upload;

#endif
