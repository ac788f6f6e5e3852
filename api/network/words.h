/* What hull-network's programs and hulld say to who holds a network, at `socket` of its folder: one request and its answer, each a
 * struct as it is in memory, both sides being of one host and one version. */
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
};

struct network_request {
	uint32_t verb;	  /* enum network_verb */
	uint32_t address; /* in the host's byte order */
};

struct network_answer {
	int32_t errnum; /* 0: done */
	char message[256];
};

#endif
