/* One HTTP transfer: what client.c and upgrade.c are made of. */
#ifndef HULL_CLI_TRANSFER_H
#define HULL_CLI_TRANSFER_H

#include "cli/bar.h"
#include "cli/client.h"
#include "common/buf.h"

#include <curl/curl.h>

struct transfer {
	struct client *client;
	CURL *easy;
	struct curl_slist *headers;
	struct buf answer;
	int out; /* -1: everything into `answer` */
	int out_error;
	int (*sink)(void *ctx, const char *data, size_t len); /* takes the body; what is negative ends the transfer. NULL: nobody does */
	void *sink_ctx;
	int64_t quiet_max_ms; /* without a byte for longer, it is lost; 0: it may be */
	int64_t heard_ms;     /* of the monotonic clock */
	int in;
	uint64_t in_offset;
	struct bar bar;
	uint64_t total; /* bytes that there are to be; 0: nobody knows */
	bool done;
	bool connected; /* somebody listens there, whatever libcurl counts */
	CURLcode result;
};

/* transfer_done() frees what is in it. Allocation failure aborts. */
void transfer_init(struct transfer *t, struct client *client, const char *method, const char *path);
void transfer_done(struct transfer *t);

/* Before it runs. `fn` draws its bar, called `label` (NULL: there is none), of `total` bytes. */
void transfer_show(struct transfer *t, const char *label, uint64_t total, curl_xferinfo_callback fn);
void transfer_add_header(struct transfer *t, const char *line);
/* Runs it to its end, and frees nothing. 0 or -errno with `fail` set. */
int transfer_finish(struct transfer *t, struct failure *fail);
/* The halves of that: 0, or -EINTR when a signal has ended it before; then, what has come of it. */
int transfer_run(struct transfer *t);
int transfer_outcome(struct transfer *t, struct failure *fail);

/* Why there is no answer, by t->result, or why it is not what was wanted: an RFC 9457 problem in t->answer,
 * or something else that answered. Return -errno with `fail` set. */
int transfer_refuse_connection(struct transfer *t, struct failure *fail);
int transfer_refuse_status(struct transfer *t, long status, struct failure *fail);

#endif
