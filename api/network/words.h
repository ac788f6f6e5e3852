/* What hull-network's programs and hulld say to who holds a network, at `socket` of its folder: one request and its answer, each a
 * struct as it is in memory, both sides being of one host. Who holds a network may be of an older version, and closes what it does not know. */
#ifndef HULL_API_NETWORK_WORDS_H
#define HULL_API_NETWORK_WORDS_H

#include <stdint.h>

#define NETWORK_SOCKET "socket"
#define NETWORK_HOSTS  "hosts" /* names, as hosts(5) has them */
#define NETWORK_LOG    "log"

enum network_verb {
	NETWORK_ATTACH, /* answered with a tap, the descriptor beside it (SCM_RIGHTS), of the machine with `address` */
	NETWORK_RELOAD, /* of the names; no answer, as of the next */
	NETWORK_END,    /* nobody needs the network any more */
	NETWORK_WATCH,  /* answered with a report at once, and with another whenever that changes, until it ends; of one asker, the newest */
};

struct network_request {
	uint32_t verb;	  /* enum network_verb */
	uint32_t address; /* in the host's byte order */
};

#define NETWORK_ADDRESSES 1024 /* of the largest subnet */

/* How the network is. */
struct network_report {
	int32_t errnum; /* 0: its name server runs */
	char message[252]; /* else what is wrong with it */
	uint8_t ports[NETWORK_ADDRESSES / 8]; /* a bit for each address of the subnet: its machine's tap was handed out */
};

struct network_answer {
	int32_t errnum; /* 0: done */
	char message[256];
};

#endif
