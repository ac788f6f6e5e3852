/* Whose rights a guest has in a folder: those of the folder's owner. Called by main.c. */
#ifndef HULL_API_VIRTIOFS_IDENTITY_H
#define HULL_API_VIRTIOFS_IDENTITY_H

#include "common/error.h"

#include <sys/types.h>

/* Of a guest's ids all but root's are this many more on the host: a range in which no user is (systemd's, for foreign ids). */
#define IDENTITY_BASE 0x7ffe0000u
#define IDENTITY_MAX  65535u /* the highest of a guest's ids that there is */

/* Each of these makes this process root of a user namespace (user_namespaces(7)) and of a mount namespace, in which nobody can undo what the
 * present one has, with no other group than 0. 0 or -errno with `err` set. */

/* Its user 0 is `uid` and its group 0 is `gid`; its users and groups 1 to IDENTITY_MAX are those above IDENTITY_BASE; there are no others. Needs
 * root, and has no rights outside any more. */
int identity_take(uid_t uid, gid_t gid, struct error *err);

/* Without root: its user and group 0 are those of this process, and the others the subordinate ones that /etc/subuid and /etc/subgid give that
 * user (subuid(5)), by newuidmap(1) and newgidmap(1). */
int identity_take_subordinate(struct error *err);
/* In that one, another with the same ids. */
int identity_take_again(struct error *err);

#endif
