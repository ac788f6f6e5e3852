/* Words of hull-ingress's requests (docs/interfaces.md, "hull-ingress"): hulld says them, and it understands. */
#ifndef HULL_API_INGRESS_WORDS_H
#define HULL_API_INGRESS_WORDS_H

/* What becomes of a new connection to a machine. Those that have reached it go on in any case. */
enum gate {
	GATE_OPEN,   /* it is tried at once, and again, for 30 s */
	GATE_WAIT,   /* it waits, as long, until the gate is another */
	GATE_CLOSED, /* it is closed, and so are those that wait */
	GATE_WAKE,   /* it waits, and who has set the gate is told that somebody does */
};

/* Of a port. */
enum protocol { PROTOCOL_TCP, PROTOCOL_UDP };

/* How many ports there may be, those of host names among them; hulld shares them out. */
#define INGRESS_PORTS_MAX 4096

/* By the enumerations, and NULL. */
#define GATE_NAMES     {"open", "wait", "closed", "wake", NULL}
#define PROTOCOL_NAMES {"tcp", "udp", NULL}

#endif
