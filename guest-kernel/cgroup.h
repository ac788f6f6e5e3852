/* A cgroup for each program executed beside the workload, so that all it starts can be ended with it. Where
 * the kernel has no cgroups, programs go without. */
#ifndef HULL_GUEST_CGROUP_H
#define HULL_GUEST_CGROUP_H

#define WORKLOAD_CGROUPS "/sys/fs/cgroup/hull.workload"

/* The rest is hull-init's, the kernel's, and that of what is executed: a workload that multiplies leaves room to be told to end. */
#define WORKLOAD_CGROUP_SHARES ((struct cgroup_shares){8, 0})

struct cgroups;
struct cgroup;

/* How many of the tasks that the kernel has room for (kernel.threads-max), in sixteenths; 0: any number. */
struct cgroup_shares {
	unsigned all, each; /* in all of them together; in each */
};

/* Keeps them in folders below `path`, a folder of the topmost cgroup, which is made when the first is. NULL without memory. */
struct cgroups *cgroups_new(const char *path, struct cgroup_shares shares);
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
