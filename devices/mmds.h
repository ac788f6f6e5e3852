/* The microVM metadata service (MMDS): a document that a client of the API puts together and the guest reads by HTTP, at an
 * address of its own, without a socket on the host.
 *
 *	API ──▶ mmds_store ◀── mmds_http ◀── mmds_tcp ◀── mmds_stack ◀── virtio-net, by net_interceptor.h
 *	                       mmds_token                 (one an interface)
 *
 * Each layer sees only the one to its left, and none a clock, a descriptor or a thread: time and frames are handed in.
 * Loop thread; the stack of an interface is under that device's lock, too. */
#ifndef HULL_DEVICES_MMDS_H
#define HULL_DEVICES_MMDS_H

#include "devices/metrics.h"
#include "devices/mmds_store.h"
#include "devices/mmds_token.h"

struct net_interceptor;

#define MMDS_ADDRESS_DEFAULT 0xa9fea9feu /* 169.254.169.254 */

enum mmds_version {
	MMDS_V1, /* whoever asks is answered */
	MMDS_V2, /* who has a token */
};

/* As Firecracker counts: received is what the guest has sent. */
struct mmds_metrics {
	uint64_t rx_accepted;	      /* frames that were ours to take */
	uint64_t rx_accepted_err;     /* of these, malformed */
	uint64_t rx_accepted_unusual; /* and what no client of a web server sends, or what there was no room for */
	uint64_t rx_bad_eth;
	uint64_t rx_count; /* TCP segments that were understood */
	uint64_t rx_no_token, rx_invalid_token; /* GETs without a (good) one, in either version */
	uint64_t tx_frames, tx_bytes;
	uint64_t tx_count;  /* as tx_frames: what is composed is delivered */
	uint64_t tx_errors; /* answers there was no memory for */
	uint64_t connections_created, connections_destroyed;
};

struct mmds {
	struct mmds_store store;
	struct mmds_tokens tokens;
	int version; /* enum mmds_version */
	bool imds_compat; /* text as EC2's, whatever is asked for */
	uint32_t address; /* IPv4, the host's byte order */
	struct mmds_metrics metrics;
};

/* Empty, of version 1 at the default address. `instance` is the name that tokens are bound to; `limit_bytes` the document's
 * limit. NULL with `err` set. */
struct mmds *mmds_new(const char *instance, size_t limit_bytes, struct error *err);
void mmds_free(struct mmds *mmds); /* after the stacks; NULL is fine */

/* Answers on one interface: for virtio_net_config.interceptor. `mmds` is borrowed and outlives it. NULL without memory. */
struct net_interceptor *mmds_stack_new(struct mmds *mmds);

/* For a machine that goes on elsewhere as the same: the document, and the key, so that the guest's tokens stay good. For
 * copies of a machine it is not to be called: they would share metadata, and know each other's tokens. What is configured is
 * not in it; conversations are lost in any case, and the guest's requests are repeated by whoever has made them. */
void mmds_save(const struct mmds *mmds, struct state_writer *w, uint64_t now_ns);
/* 0, or -EINVAL with `err` set and nothing changed. */
int mmds_load(struct mmds *mmds, struct state_reader *r, uint64_t now_ns, struct error *err);

#endif
