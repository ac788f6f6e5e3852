/* What the host and the inside of a machine agree on. The only header they share. */
#ifndef HULL_GUEST_H
#define HULL_GUEST_H

#include <stdint.h>

/* Where hull-init finds what it shall run: a JSON file in the initramfs, in a second cpio archive that is the machine's
 * own (docs/interfaces.md, "Guest configuration"). */
#define HULL_GUEST_CONFIG_PATH "/hull/config.json"

/* hull-init hands the workload's exit status over by one 32-bit write to this I/O port, right before it powers off:
 * 0x48000000 ('H') | status (0..255; 128 + N when signal N ended it). The monitor records it; it stops nothing. */
#define HULL_EXIT_PORT	0x0b10
#define HULL_EXIT_MAGIC 0x48000000u

/* vsock ports of the host (CID 2) that end in the monitor: bytes go to the machine's log descriptor. */
#define HULL_VSOCK_PORT_LOG 1025

/* The agent in hull-init listens on this vsock port. One request a connection:
 *
 *	client ──▶ struct hull_agent_request
 *	       ◀── struct hull_agent_reply; status 0, or an errno of the guest (Linux numbers), then the connection ends
 *	STREAM only: from then on the connection is the byte stream of a TCP connection to 127.0.0.1 (or ::1) at `arg`;
 *	half-close is passed on both ways.
 *
 * All integers little-endian. An agent answers a version or verb it does not know with EPROTONOSUPPORT. */
#define HULL_VSOCK_PORT_AGENT 1024
#define HULL_AGENT_MAGIC      0x4c4c5548u /* "HULL" */
#define HULL_AGENT_VERSION    1

enum hull_agent_verb {
	HULL_AGENT_PING = 1,   /* answered once the workload has been started */
	HULL_AGENT_STREAM = 2, /* arg: TCP port */
	HULL_AGENT_STOP = 3,   /* arg: milliseconds; the workload gets its stop signal, after `arg` SIGKILL; answered at once */
};

struct hull_agent_request {
	uint32_t magic;
	uint16_t version;
	uint16_t verb;
	uint32_t arg;
};

struct hull_agent_reply {
	uint32_t magic;
	uint32_t status;
};

#endif
