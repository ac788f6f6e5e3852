/* hull-network: a network of machines, in a network namespace of its own.
 *
 * Theory of operation. A machine of a network is started by way of `hull-network join`, which asks who holds the network for a tap, and
 * executes the monitor with that as a descriptor. Nobody holds it: join starts who does, and one of several that do so at the same time
 * (a lock) is the first. All of a network is in a namespace that the host's processes are not in, and no host interface, route or rule of a
 * firewall is made for it. It needs no privilege of the host: a user namespace has all that are needed inside.
 *
 *	host's namespaces                      │ the network's own, user and network
 *	                                       │
 *	join ── request ─────────────────────────▶ inside.c  makes br0, rules (nft), taps; watches dnsmasq
 *	  ◀─────────── the tap's descriptor ─────┘    │
 *	  └▶ executes the monitor              │      br0 ── t0a580002, t0a580003 …   a port is bound to its machine's MAC and address
 *	                                       │      │ └── dnsmasq                   names of machines; others by way of the uplink
 *	holder.c ── starts ── passt ═══════════════ up0                             only with egress: NAT, then frames to passt
 *	        (outer process)       stream   │
 *
 * What is left behind after a SIGKILL at any instant: nothing. A tap is there as long as its monitor has it open. When the outer process
 * dies, the inner gets SIGKILL, and dnsmasq by that; passt ends when its stream does. The namespace goes with its last process and
 * tap. A network whose ports have all gone ends by itself, within a minute or so. */
#ifndef HULL_API_NETWORK_NETWORK_H
#define HULL_API_NETWORK_NETWORK_H

#include "api/network/words.h"
#include "common/subnet.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define NETWORK_BRIDGE "br0"
#define NETWORK_UPLINK "up0"

/* The link between a network and its passt: documentation's addresses (RFC 5737), which are nobody's. */
#define UPLINK_ADDRESS "192.0.2.2"
#define UPLINK_GATEWAY "192.0.2.1"
#define UPLINK_DNS     "192.0.2.3"
#define UPLINK_NET     "192.0.2.0/24"

struct network {
	const char *folder;
	struct subnet subnet;
	const char *passt; /* the program; NULL: no egress */
};

/* <folder>/NAME. Returns `ret`. */
char *network_path(const struct network *net, const char *name, char *ret, size_t size);

/* join.c. The tap of the machine with that address: descriptor, or -errno with `err` set. */
int network_join(const struct network *net, uint32_t address, struct error *err);

/* holder.c. Holds the network until nobody needs it, or what it needs has gone. `ready_fd` is taken: it is told "+", or why not, and closed. */
int network_hold(const struct network *net, int ready_fd);

/* inside.c, in a child. `listen_fd`: whom join asks. `control_fd`: streams to a passt come by it. Returns when it has ended. */
int network_run_inside(const struct network *net, int listen_fd, int control_fd, int ready_fd);

/* confine.c, inside. As fork(2); the child is alone with its own, and its folders are its own to change. */
pid_t confined_fork(void);
/* In that child: of the host's files it has programs and their libraries, and `folder`, all read-only, and once it executes another program no
 * capability but to listen at low ports. 0 or -errno with `err` set. */
int network_confine(const char *folder, struct error *err);

/* links.c, inside. Each 0 or -errno with `err` set, or a descriptor. */
int links_make(const struct subnet *subnet, struct error *err);
int links_make_port(uint32_t address, struct error *err); /* a tap, non-blocking, with virtio-net's headers */
int links_make_uplink(struct error *err);		   /* a tap, non-blocking, of plain frames */
bool links_has_port(uint32_t address);

/* rules.c: as nft reads it. Owned. */
char *rules_text(const struct network *net);

/* One message, and a descriptor beside it; -1: none. 0 or -errno. */
int fd_send(int sock, const void *data, size_t len, int fd);
/* All of it, or -errno, also at the end; `*ret_fd` is -1 when none has come. */
int fd_receive(int sock, void *data, size_t len, int *ret_fd);

#endif
