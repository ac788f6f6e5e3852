/* Handlers of /v1/machines; their context is a struct hulld. */
#ifndef HULL_API_MACHINE_HTTP_H
#define HULL_API_MACHINE_HTTP_H

#include "api/http.h"
#include "api/ingress_client.h"
#include "api/spec.h"

#include <stdbool.h>

struct hulld;
struct machine;
struct port_spec;

/* The machine that the path names; NULL with the request refused. */
struct machine *machine_http_find(struct hulld *hulld, struct request *req);

/* 0; -ECANCELED with the request refused. */
int machine_http_require_running(const struct machine *m, struct request *req);


/* machine_list.c: words for what a machine may be in, by which clients ask: bits 1 << enum machine_state, and above them those of its
 * health while it runs. One without a check is healthy as soon as it runs. */
#define STATE_HEALTHY	MACHINE_N_STATES
#define STATE_UNHEALTHY (MACHINE_N_STATES + 1)
#define STATE_ASLEEP	(MACHINE_N_STATES + 2)
#define N_STATE_WORDS	(MACHINE_N_STATES + 3)
extern const char *const machine_state_words[]; /* from MACHINE_CREATED on; NULL-terminated */
const char *machine_http_state_word(int bit);
/* "stopped,failed" as such bits; NULL: none. */
unsigned machine_http_read_states(const char *list);
bool machine_http_is_in(const struct machine *m, unsigned states);

/* machine_publish.c: has hull-ingress publish port `index` of what the machine is to be, and calls `fn` later. One that another project's
 * machine has is refused (-ECANCELED, with `problem` set) at its turn and in the words in which one is that the host uses itself: it is not
 * for a tenant to know which of the two it is. */
int machine_http_publish(const struct machine *m, const struct port_spec *port, size_t index, ingress_fn fn, void *ctx,
	struct problem *problem);
/* What hull-ingress says to port `index` of a specification. 0: it is published; -ECANCELED with `problem` set. */
int machine_http_check_published(const struct port_spec *port, size_t index, const json_t *answer, const struct error *err,
	struct problem *problem);

void machine_http_create(struct request *req, void *ctx);
void machine_http_list(struct request *req, void *ctx);
void machine_http_get(struct request *req, void *ctx);
void machine_http_patch(struct request *req, void *ctx); /* machine_patch.c */
void machine_http_delete(struct request *req, void *ctx);
void machine_http_start(struct request *req, void *ctx);
void machine_http_stop(struct request *req, void *ctx);
void machine_http_kill(struct request *req, void *ctx);
void machine_http_restart(struct request *req, void *ctx);
void machine_http_suspend(struct request *req, void *ctx);
void machine_http_resume(struct request *req, void *ctx);
void machine_http_wait(struct request *req, void *ctx);
void machine_http_logs(struct request *req, void *ctx); /* logs.c */

#endif
