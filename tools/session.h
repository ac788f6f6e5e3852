/* What kvmhost-attach (outside) and kvmhost-agent (inside the emulated host) say to each other over one virtio-serial
 * port: one session at a time, begun by a greeting, then frames both ways.
 *
 *	greeting, both ways:  8 bytes "HULLSESS", then 16 random bytes chosen by the outside and sent back by the inside
 *	frame:                type (1 byte) | length (4 bytes, big-endian) | payload
 *
 * A port has no connections of its own: bytes of a session that was cut off may still be under way when the next one
 * begins. So each side skips whatever comes before a greeting, and the outside whatever comes before its own. */
#ifndef HULL_TOOLS_SESSION_H
#define HULL_TOOLS_SESSION_H

#include "common/buf.h"

#include <stdbool.h>
#include <stdint.h>

#define SESSION_GREETING      "HULLSESS"
#define SESSION_GREETING_SIZE 8
#define SESSION_NONCE_SIZE    16
#define SESSION_PORTS	      4	    /* sessions at the same time: ports kvmhost.session.0 … */
#define SESSION_PAYLOAD_MAX   65536 /* bytes */
#define SESSION_STATUS_LOST   255   /* what attach exits with when the session broke */

enum session_frame {
	SESSION_RUN = 'r',    /* in: 1 byte "terminal wanted", then NUL-terminated arguments; none: a login shell */
	SESSION_INPUT = 'i',  /* in; empty: end of the input */
	SESSION_SIZE = 'w',   /* in: rows, columns, 2 bytes each, big-endian */
	SESSION_OUTPUT = 'o', /* out: standard output, or the terminal */
	SESSION_ERROR = 'e',  /* out: standard error */
	SESSION_EXIT = 'x',   /* out, last: 1 byte, the exit status as a shell counts it */
};

/* Writes one frame, waiting until the peer takes it. 0 or -errno. */
int session_send(int fd, enum session_frame type, const void *payload, size_t len);

/* Takes the first whole frame out of `buf`: 1 with `*type` and `*payload` (valid until `buf` changes; the caller then
 * calls buf_consume(buf, *size)), 0 when it is not complete yet, -EPROTO when it can be none. */
int session_peek(const struct buf *buf, char *type, const char **payload, size_t *len, size_t *size);

/* Drops what comes before a greeting (with `nonce`, when given) and the greeting itself. 1 with the nonce in
 * `ret_nonce` when it came, 0 when more must be read. */
int session_skip_to_greeting(struct buf *buf, const char *nonce, char ret_nonce[SESSION_NONCE_SIZE]);

#endif
