/* What the host and the inside of a machine agree on. The only header they share. */
#ifndef HULL_GUEST_H
#define HULL_GUEST_H

#include <stdint.h>

/* Where hull-init finds what it shall run: a JSON file in the initramfs, in a second cpio archive that is the
 * machine's own (docs/interfaces.md, "Guest configuration"). */
#define HULL_GUEST_CONFIG_PATH "/hull/config.json"

/* hull-init hands the workload's exit status over by one 32-bit write to this I/O port, right before it powers off:
 * 0x48000000 ('H') | status (0..255; 128 + N when signal N ended it), and HULL_EXIT_OUT_OF_MEMORY, or HULL_EXIT_NO_MOUNT. The monitor
 * records it; it stops nothing. */
#define HULL_EXIT_PORT	0x0b10
#define HULL_EXIT_MAGIC 0x48000000u
#define HULL_EXIT_OUT_OF_MEMORY 0x100u /* the kernel killed the workload, for want of memory */
#define HULL_EXIT_NO_MOUNT	0x200u /* there was no workload: one of `mounts` could not be mounted. Which (0..15) and why (an errno): */
#define HULL_EXIT_MOUNT_SHIFT	12
#define HULL_EXIT_MOUNT_MASK	0xfu
#define HULL_EXIT_ERRNO_SHIFT	16
#define HULL_EXIT_ERRNO_MASK	0xffu

/* vsock ports of the host (CID 2) that end in the monitor: bytes go to the machine's log descriptor. */
#define HULL_VSOCK_PORT_LOG 1025
/* One of the host's own (the hybrid socket with "_1026" behind its name): hull-init connects once the agent listens. */
#define HULL_VSOCK_PORT_READY 1026

/* The agent in hull-init listens on this vsock port. One request a connection:
 *
 *	client ──▶ struct hull_agent_request
 *	       ◀── struct hull_agent_reply; status 0, or an errno of the guest (Linux numbers), then the connection ends
 *	STREAM: from then on the connection is the byte stream of a TCP connection to 127.0.0.1 (or ::1) at `arg`;
 *	half-close is passed on both ways.
 *	EXEC, FILES, ORDER, DATAGRAMS: from then on both sides send frames, below.
 *
 * All integers little-endian. An agent answers a version or verb it does not know with EPROTONOSUPPORT. */
#define HULL_VSOCK_PORT_AGENT 1024
#define HULL_AGENT_MAGIC      0x4c4c5548u /* "HULL" */
#define HULL_AGENT_VERSION    1

enum hull_agent_verb {
	HULL_AGENT_PING = 1,   /* answered once the workload has been started, or waits for who executes it */
	HULL_AGENT_STREAM = 2, /* arg: TCP port */
	HULL_AGENT_STOP = 3,   /* arg: milliseconds; the workload gets its stop signal, after `arg` SIGKILL; answered at once */
	HULL_AGENT_EXEC = 4,   /* arg: 0; a program, and frames from and to it */
	HULL_AGENT_FILES = 6,  /* arg: 0; a tar stream from or to a path */
	HULL_AGENT_ORDER = 8,  /* arg: milliseconds until it is given up; an Order, and the answer to it */
	HULL_AGENT_DATAGRAMS = 10, /* arg: UDP port; datagrams of many clients, from and to it */
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

/* EXEC runs one program, whose whole life is the connection:
 *
 *	client ──▶ SPEC                                    first, once
 *	       ◀── REFUSED and the end, or STARTED
 *	client ──▶ STDIN…, STDIN_EOF, RESIZE…, SIGNAL…     in any order
 *	       ◀── STDOUT…, STDERR…, CREDIT…, then EXIT    and the end
 *
 * A frame is struct hull_frame_header and `len` bytes. A client may send HULL_EXEC_WINDOW bytes of input, and then as
 * many as CREDIT frames allow, so that resizes and signals never wait behind input that nobody reads. Output is held
 * back by not reading the connection. A client that ends its side of the connection before EXIT, or breaks these
 * rules, has gone: the program and all it has started in its cgroup get SIGKILL.
 *
 * ORDER does one thing, at once:
 *
 *	client ──▶ SPEC
 *	       ◀── REFUSED or ANSWER                        and the end
 *
 * A client that ends its side before, or sends more, has gone: what was begun is ended, and undone.
 *
 * FILES copies a file, or a folder with all that is in it, as a tar stream (common/pack.h):
 *
 *	client ──▶ SPEC
 *	       ◀── to get: STDOUT…                          any number, which may be cut anywhere
 *	client ──▶ to put: STDIN…, STDIN_EOF
 *	       ◀── REFUSED, in the middle too, or ANSWER    and the end
 *
 * There is no credit: each side waits for the other. A client that ends its side before has gone: the file that was being
 * written is removed, and those before it stay.
 *
 * DATAGRAMS is for one port of the host and all who send to it. Each of them is a session, which has a number of the client's choice:
 *
 *	client ──▶ DATAGRAM…, CLOSE…                     each of a session
 *	       ◀── DATAGRAM…                              to one
 *
 * A session begins with its first datagram, and has a socket of its own, connected to 127.0.0.1 (or ::1) at `arg`. It ends with CLOSE, or
 * with the first datagram of another that has the same number modulo HULL_DATAGRAM_SESSIONS; a datagram to one that has ended is
 * dropped. So is, on both sides, what is not taken at once. 64 at once, then EAGAIN; with HULL_DATAGRAM_SESSIONS_ALL sessions
 * of all of them, datagrams of others are dropped. */
#define HULL_FRAME_MAX	 65536u	    /* bytes of payload, */
#define HULL_SPEC_MAX	 (1u << 20) /* but of a SPEC */
#define HULL_EXEC_WINDOW 65536u

/* Of a DATAGRAM, beside the session's number: the most that UDP takes over IPv4. */
#define HULL_DATAGRAM_MAX	   65507u
#define HULL_DATAGRAM_SESSIONS	   1024u
#define HULL_DATAGRAM_SESSIONS_ALL 4096u

enum hull_frame_type {
	HULL_FRAME_SPEC = 1,	  /* JSON, an ExecSpec (common/exec_spec.h), or an Order (common/order.h),
				   * or a FileSpec (common/file_spec.h) */
	HULL_FRAME_STDIN = 2,	  /* bytes; none: nothing */
	HULL_FRAME_STDIN_EOF = 3, /* nothing; a terminal is sent its end-of-file character */
	HULL_FRAME_RESIZE = 4,	  /* struct hull_frame_size */
	HULL_FRAME_SIGNAL = 5,	  /* uint32_t: to the program's process group, or a terminal's foreground one */
	HULL_FRAME_CLOSE = 6,	  /* uint32_t: the session */

	HULL_FRAME_STARTED = 16, /* uint32_t: the process id inside. It executes, or a STDERR frame will say why not */
	HULL_FRAME_REFUSED = 17, /* JSON, an ExecRefusal */
	HULL_FRAME_STDOUT = 18,	 /* bytes; of a terminal all output */
	HULL_FRAME_STDERR = 19,
	HULL_FRAME_CREDIT = 20, /* uint32_t: so many bytes of input more */
	HULL_FRAME_EXIT = 21,	/* uint32_t: 0..255, 128 + N when signal N ended it; 126 and 127 as shells have them */
	HULL_FRAME_ANSWER = 24, /* JSON, an OrderAnswer; of FILES an empty object */

	HULL_FRAME_DATAGRAM = 32, /* uint32_t: the session; and the datagram's bytes, of which there may be none */
};

struct hull_frame_header {
	uint32_t len; /* of what follows the header */
	uint8_t type;
	uint8_t zero[3];
};

struct hull_frame_size {
	uint16_t rows, columns;
};

#endif
