/* The API over libcurl: requests that are answered with JSON, log streams, uploads.
 *
 * Theory of operation. One thread. Every transfer runs in one multi handle, whose poll also watches a signalfd when the
 * command catches signals itself: a request is then given up with -EINTR. */
#ifndef HULL_CLI_CLIENT_H
#define HULL_CLI_CLIENT_H

#include "cli/context.h"

#include <jansson.h>
#include <stdint.h>

struct client;

/* Reads the context; connects to nothing yet. NULL with `fail` set. */
struct client *client_new(const struct args *args, struct failure *fail);
void client_free(struct client *client);
DEFINE_CLEANUP(struct client *, client_free)

const struct context *client_context(const struct client *client); /* borrowed */
const char *client_url(const struct client *client);
/* From now on SIGINT, SIGTERM and SIGHUP are blocked and read here instead. 0 or -errno with `fail` set. */
int client_catch_signals(struct client *client, struct failure *fail);
/* They stay blocked, and count no more: clean-up requests must not be given up. */
void client_ignore_signals(struct client *client);

/* How long a wait may be that would be `most_ms`: less where --timeout ends before; at least 1. */
long client_time_left_ms(const struct client *client, long most_ms);
/* --timeout counts no more: what it was for is done, or has to be undone. */
void client_drop_timeout(struct client *client);

/* Calls `fn` now and then, each second at least, while an answer is waited for. NULL: not any more. */
void client_while_waiting(struct client *client, void (*fn)(void *ctx), void *ctx);

/* Trying again what got no answer. All 0 at first. */
struct retry {
	bool worked;	  /* there was an answer before */
	int64_t since_ms; /* of the monotonic clock: the first that failed since; 0: none has */
};

/* After a failure: is it to be tried again? Where the API has answered before, for a minute, by `pause_ms` after each try. When it is not,
 * `fail` says why. */
bool client_retries(struct client *client, struct retry *retry, int pause_ms, struct failure *fail);

/* After a change, done only while its thing is as it was read, has failed: because somebody else was at it at the same time? Then it is to be
 * read and tried again, up to fifty times; `*tries` is 0 at first. Waits, longer each time, and empties `fail`. */
bool client_tries_again(unsigned *tries, struct failure *fail);

/* "/v1/machines/NAME" with NAME escaped, and `suffix` as it is. Owned by the caller; allocation failure aborts. */
char *client_path(const char *collection, const char *name, const char *suffix);

/* For a query. Owned by the caller; allocation failure aborts. */
char *client_escape(const char *text);

/* One request; `body` (borrowed) may be NULL, so may `ret` (a new reference otherwise, NULL when the answer has no body).
 * 0 when the status is 2xx, else -errno with `fail` set (fail->code when it is the API that refused). */
int client_call(struct client *client, const char *method, const char *path, const json_t *body, json_t **ret,
	struct failure *fail);

/* A POST by which nothing is changed, and so nothing has to be done once: hulld writes nothing of it down. */
int client_dry_run(struct client *client, const char *path, const json_t *body, json_t **ret, struct failure *fail);

/* A GET that is answered when something has happened, however long that takes. */
int client_wait(struct client *client, const char *path, json_t **ret, struct failure *fail);

/* All items of a list, page by page: a new array in `ret`. `query`: "name=x&…", escaped, or "". */
int client_list(struct client *client, const char *path, const char *query, json_t **ret, struct failure *fail);

/* GET with the answer's entity tag (owned), and a merge patch (RFC 7396) that is done only while the tag is that. Otherwise as above. */
int client_get_tagged(struct client *client, const char *path, json_t **ret, char **ret_etag, struct failure *fail);
int client_patch(struct client *client, const char *path, const char *etag, const json_t *patch, json_t **ret, struct failure *fail);
int client_delete(struct client *client, const char *path, const char *etag, struct failure *fail);
/* The same with a PUT of what replaces it. */
int client_put(struct client *client, const char *path, const char *etag, const json_t *body, json_t **ret, struct failure *fail);

/* GET whose body goes to `out` as it arrives, until it ends. 0 or -errno with `fail` set. */
int client_stream(struct client *client, const char *path, int out, struct failure *fail);

/* The same, shown by a bar (bar.h) called `label`; NULL: by none. */
int client_download(struct client *client, const char *path, int out, const char *label, struct failure *fail);

/* PUT of `size` bytes of `fd`. `label` as above. */
int client_upload(struct client *client, const char *path, int fd, uint64_t size, const char *label,
	struct failure *fail);
/* PUT of what `fd` has until its end, which may be some `size` bytes; 0: nobody knows. `label` as above. */
int client_upload_stream(struct client *client, const char *path, int fd, uint64_t size, const char *label, struct failure *fail);
/* 1: there (2xx), 0: not (404), -errno with `fail` set. */
int client_head(struct client *client, const char *path, struct failure *fail);

#endif
