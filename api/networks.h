/* Networks of projects: subnets, in which machines reach each other by name, and nobody else's do.
 *
 * Theory of operation. A network is a row; what runs for it is hull-network's (network/network.h), begun by the first machine that starts on
 * it, and by itself at an end when none runs any more: hulld has nothing to watch, and nothing to begin again after a crash. A machine's
 * address is in its row, chosen when the network becomes its own, and the same as long as that is so. What runs for a network knows the
 * names of its machines by a file, <run>/networks/<id>/hosts, which is written anew whenever one changes, and at a start of hulld. */
#ifndef HULL_API_NETWORKS_H
#define HULL_API_NETWORKS_H

#include "api/machine.h"
#include "common/subnet.h"

#define NETWORKS_MAX 16 /* of a project */

/* What a machine has to know of one. */
struct network_plan {
	char id[NETWORK_ID_BYTES + 1];
	struct subnet subnet;
	bool egress;
};

struct network_spec {
	char *name, *subnet; /* NULL: one that is free */
	bool egress;
	json_t *labels;
};
extern const struct json_table network_spec_table, network_table;

/* What a row says; json_done() of `ret_spec`. 0, or -EIO with `err` set: the row is not as hulld writes it. */
int network_read(const struct network_record *record, struct network_spec *ret_spec, struct subnet *ret_subnet, struct error *err);
/* The project's network of that name. 0, -ENOENT, or another -errno with `err` set. */
int network_find(struct hulld *hulld, const char *project, const char *name, struct network_plan *ret, struct error *err);
/* <run>/networks/<id>. Returns `ret`. */
char *network_folder(const struct hulld *hulld, const char *id, char *ret, size_t size);
/* Makes that folder, with the names that are to be found by the machine's start. 0 or -errno with `err` set. */
int network_prepare(struct machine *m, const struct network_plan *plan, struct error *err);

/* May there be a machine like this? `changed` as in machine_check_spec(). 0, or -ECANCELED with `problem` set. */
int network_check(struct hulld *hulld, const char *project, const struct machine *changed, const struct machine_spec *spec,
	struct problem *problem);
/* The address that it would have: `changed` keeps what it has in that network. 0: none is left, or there is no such network. */
uint32_t network_choose_address(
	struct hulld *hulld, const char *project, const struct machine *changed, const struct machine_spec *spec);
/* The one that the present run has, or the next will have; 0: it is on no network. */
uint32_t machine_address(const struct machine *m);

/* The names of machines on that network, if it is one, have changed: those who run there are told. */
void network_tell(struct hulld *hulld, const char *project, const char *network);
/* The machine was on that one; those on it, and on the one that it is on now, are told where that is another. */
void network_tell_moved(const struct machine *m, const char *before);
/* After a restart of hulld, for all; and away with what is of no network any more. 0 or -errno with `err` set. */
int networks_start(struct hulld *hulld, struct error *err);
/* Of one that is deleted, by its id: what runs for it ends. */
void network_end(struct hulld *hulld, const char *id);
/* Of a project that is deleted: those that are still held end. Before its rows go. */
void networks_end(struct hulld *hulld, const char *project);

/* Can this host have any? Else why not, and what would help, in `problem` (code UNSUPPORTED); its detail is a sentence. */
int networks_check_host(const struct hulld *hulld, struct problem *problem);

/* Routes; their context is a struct hulld. */
void network_http_create(struct request *req, void *ctx);
void network_http_list(struct request *req, void *ctx);
void network_http_get(struct request *req, void *ctx);
void network_http_patch(struct request *req, void *ctx);
void network_http_delete(struct request *req, void *ctx);

#endif
