/* One HTTP transfer: what client.c and upgrade.c share. */
#ifndef HULL_CLI_TRANSFER_H
#define HULL_CLI_TRANSFER_H

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
	int in;
	uint64_t in_offset;
	const char *label;
	int drawn; /* per cent on the screen; -1: none */
	int64_t drawn_mib; /* of a stream */
	bool done;
	bool connected; /* somebody listens there, whatever libcurl counts */
	CURLcode result;
};

/* transfer_done() frees what is in it. Allocation failure aborts. */
void transfer_init(struct transfer *t, struct client *client, const char *method, const char *path);
void transfer_done(struct transfer *t);

/* Why there is no answer, by t->result, or why it is not what was wanted: an RFC 9457 problem in t->answer,
 * or something else that answered. Return -errno with `fail` set. */
int transfer_refuse_connection(struct transfer *t, struct failure *fail);
int transfer_refuse_status(struct transfer *t, long status, struct failure *fail);

#endif
