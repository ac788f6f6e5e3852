/* How networks are, by the word of those who hold them (network/words.h).
 *
 * Theory of operation. hulld begins to listen to who holds a network once a machine on it is up, and goes on until that has ended. A report
 * says which machines have their port there: one that runs, and has none, is on what is left of a network whose holder was killed, and has
 * no name server and no way out until it is started again. Nothing of that is stored: a hulld that comes later asks again. Of a holder that is older
 * than this, and reports nothing, nothing is known. */
#ifndef HULL_API_NETWORK_WATCH_H
#define HULL_API_NETWORK_WATCH_H

#include "api/machine.h"

struct network_record;

/* A machine on a network is up: the network is listened to, if that is not so already. Any other machine: no effect. */
void network_watch_machine(const struct machine *m);
/* It is deleted; all are, with hulld. */
void network_watch_end(struct hulld *hulld, const char *id);
void network_watches_free(struct hulld *hulld);

/* It runs, and not on this network any more, though it is to. */
bool network_has_lost(const struct machine *m);
/* What is wrong with its name server; NULL: nothing that is known. Borrowed. */
const char *network_fault(const struct hulld *hulld, const char *id);

#endif
