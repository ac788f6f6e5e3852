/* What the parts of hulld share: its options and its parts. */
#ifndef HULL_API_HULLD_H
#define HULL_API_HULLD_H

#include "api/blobs.h"
#include "api/http.h"
#include "api/options.h"
#include "api/store.h"
#include "common/loop.h"

#include <stdbool.h>

struct hulld {
	struct options options;
	char boot_id[BOOT_ID_BYTES]; /* of this boot of the host */
	uint64_t host_memory_mib;
	char passt[256]; /* the program, where supervisor.c has found it; "" */
	struct loop *loop;
	struct store *store;
	struct blobs *blobs;
	struct secrets *secrets;
	struct audit *audit;
	struct http *http;
	struct ingress_client *ingress;
	struct hostnames *hostnames;
	struct host_reader *host_reader;
	struct metrics *metrics;
	struct logs *logs;
	struct log_age *log_age;
	struct events *events;
	struct webhooks *webhooks;
	struct clock_watch *clock;
	struct start_order *start_order;
	struct host_drain *host_drain;
	struct exec_call *execs; /* a list (exec.h) */
	struct worker *scratch_copies; /* a list (scratch.c) */
	struct volume_creation *volume_creations; /* a list (volume_create.c) */
	struct worker *volume_removals; /* a list (volume.c) */
	struct worker *saved_removals;	/* a list (saved.c) */
	struct network_watch *network_watches; /* a list (network_watch.c) */
	struct forgetter *forgetter;
	struct loop_source *expiry; /* of access.c: */
	int64_t expiry_at;	    /* when it looks for expired tokens; 0: not */
	struct machine *machines, *last_machine; /* a list, all there are (machine.h) */
	void *machine_keys;			 /* and machine_index.c's tree of them */
	bool going_down;	  /* the host is: going_down.c */
	uint64_t n_known; /* machines that this hulld has ever known */
	uint64_t wakes; /* machines that were woken, by this hulld */
};

/* The routing table (routes.c). */
extern const struct http_route hulld_routes[];
extern const struct http_param hulld_params[]; /* of its paths */

/* Milliseconds since 1970. */
int64_t now_ms(void);
/* Since the boot, sleep included. */
int64_t uptime_ms(void);
/* The wall clock of a host that has just booted may not be right yet, until somebody has been asked for the time. */
#define CLOCK_SETTLED_MS 3600000
bool clock_is_settled(void);
/* RFC 3339, UTC, with milliseconds; NULL for 0. The caller frees. */
char *format_time(int64_t ms);
/* The other way round; 0 for what that has not made, and for NULL. */
int64_t parse_time(const char *text);

#endif
