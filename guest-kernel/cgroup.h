/* A cgroup for each program executed beside the workload, so that all it starts can be ended with it. Where
 * the kernel has no cgroups, programs go without. */
#ifndef HULL_GUEST_CGROUP_H
#define HULL_GUEST_CGROUP_H

struct cgroups;
struct cgroup;

/* Keeps them in folders below `path`, which is made when the first is. NULL without memory. */
struct cgroups *cgroups_new(const char *path);
/* Tries again to remove those that were not empty when they were given up. Cheap when there are none. */
void cgroups_sweep(struct cgroups *cgroups);
void cgroups_free(struct cgroups *cgroups); /* NULL is fine */

/* A new one, empty; NULL where there are none. */
struct cgroup *cgroup_new(struct cgroups *cgroups);
/* Its folder, borrowed; -1 for NULL. */
int cgroup_fd(const struct cgroup *cgroup);
/* Sends SIGKILL to all that are in it. NULL is fine. */
void cgroup_kill(const struct cgroup *cgroup);
/* Gives it up: it is removed now, or once the last process in it has ended. NULL is fine. */
void cgroup_free(struct cgroup *cgroup);

#endif
