/* A client, as client.c and transfer.c know it. Nobody else's. */
#ifndef HULL_CLI_CLIENT_PRIVATE_H
#define HULL_CLI_CLIENT_PRIVATE_H

#include "cli/client.h"

#include <curl/curl.h>
#include <stdint.h>

#define CLIENT_TIMEOUT_MAX_S (30 * 86400)

struct client {
	struct context context;
	CURLM *multi;
	int signal_fd;	 /* -1: signals have their usual effect */
	bool interruptible; /* a signal ends a plain request */
	void (*waiting)(void *ctx); /* NULL: nobody wants to know */
	void *waiting_ctx;
	long long timeout_s; /* of --timeout; 0: none */
	int64_t deadline_ms; /* of the monotonic clock */
};

/* On the monotonic clock. */
int64_t client_now_ms(void);
/* The number of one that has come since client_catch_signals(); 0: none has. */
int client_next_signal(struct client *client);

#endif
