/* What becomes of a new connection to a machine: what hulld says, and hull-ingress does (docs/interfaces.md, "hull-ingress"). Those that
 * have reached the machine go on in any case. */
#ifndef HULL_API_INGRESS_GATE_H
#define HULL_API_INGRESS_GATE_H

enum gate {
	GATE_OPEN,   /* it is tried at once, and again, for 30 s */
	GATE_WAIT,   /* it waits, as long, until the gate is another */
	GATE_CLOSED, /* it is closed, and so are those that wait */
};

/* By enum gate, and NULL. */
#define GATE_NAMES {"open", "wait", "closed", NULL}

#endif
