/* Who the workload runs as, by the image's own /etc/passwd and /etc/group. Reads the files itself: a static program
 * has no name service switch, and an image's files deserve no trust. */
#ifndef HULL_GUEST_PASSWD_H
#define HULL_GUEST_PASSWD_H

#include "common/error.h"

#include <stddef.h>
#include <sys/types.h>

#define PASSWD_GROUPS_MAX 256

struct passwd_user {
	uid_t uid;
	gid_t gid;
	gid_t groups[PASSWD_GROUPS_MAX]; /* supplementary; without `gid` */
	size_t n_groups;
	char home[1024];
};

/* Resolves "user" or "user:group", each a name or a number, as container engines do: a number need not be listed
 * (group 0, home "/"); without ":group" the supplementary groups are those that list the user's name.
 * `passwd` and `group` are the texts of the files, NUL-terminated. 0, or -errno with `err` set: -ENOENT for a name
 * that is not there, -EINVAL for a malformed specification. */
int passwd_resolve(const char *spec, const char *passwd, const char *group, struct passwd_user *ret, struct error *err);

/* The same by /etc/passwd and /etc/group under `root` ("" or a folder); a file that is missing counts as empty. */
int passwd_lookup(const char *root, const char *spec, struct passwd_user *ret, struct error *err);

#endif
