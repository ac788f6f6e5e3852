/* hulld's command line and environment. */
#ifndef HULL_API_OPTIONS_H
#define HULL_API_OPTIONS_H

#include "api/allowed_folders.h"
#include "api/keep.h"
#include "api/public_address.h"

#include <netinet/in.h>
#include <stdint.h>

#define RUN_PATH_MAX   64 /* bytes: "/machines/<id>/vsock.sock_1026" still has to fit in a socket's address */
#define STATE_PATH_MAX 256

/* All strings are borrowed from the command line or literals, but `token`. */
struct options {
	const char *state, *run; /* absolute */
	const char *listen;	 /* ADDRESS:PORT, or NULL */
	char *token;		 /* owned; NULL without --listen */
	const char *kernel, *initrd, *vmm, *virtiofs, *ingress, *ingress_forwarder, *network;
	unsigned memory_overcommit_percent; /* of the host's memory, what machines that run may have together; 0: no limit */
	unsigned patience_s; /* with clients: http_set_patience() */
	unsigned start_timeout_s, dependency_timeout_s;
	const char *http;    /* ADDRESS:PORT, checked: digits, dots and a colon; NULL: nothing is served by host name */
	const char *https;   /* the same */
	const char *haproxy; /* NULL: the one in PATH */
	const char *audit_log; /* absolute; NULL: in `state` */
	struct keep audit_keep, log_keep; /* the latter of each log of each machine */
	struct address_ranges webhook_allow;
	struct allowed_folders mount_allow;
	struct webhook_timing {
		int64_t first_retry_ms, give_up_s, timeout_ms;
	} webhook_timing;
};

/* Reads them, each checked by itself, over what is usual. 0, 1 (they were answered: exit with 0), or -errno with `err` set. */
int options_read(int argc, char **argv, struct options *ret, struct error *err);

/* "127.0.0.1:7070", as the option of that name has it. 0, or -EINVAL with `err` set. */
int options_parse_address(const char *text, const char *option, struct sockaddr_in *ret, struct error *err);

#endif
