/* Projects: whom machines, images, blobs, keys of requests and names belong to, and how much of the host they may have.
 *
 * A project is its name, for ever; `default` is always there. What its quotas bound is what its machines were made with, whether
 * they run or not, and the bytes of its blobs. So a machine that could be made can be started, unless a quota was lowered after that. */
#ifndef HULL_API_PROJECT_H
#define HULL_API_PROJECT_H

#include "api/hulld.h"

enum quota { QUOTA_MACHINES, QUOTA_VCPUS, QUOTA_MEMORY_MIB, QUOTA_DISK_MIB, QUOTA_PORTS, N_QUOTAS };

struct quotas {
	int64_t limits[N_QUOTAS]; /* -1: none */
	struct json_strings hostnames;
};
extern const struct json_table quotas_table;

struct project_spec {
	char *name;
	struct quotas quotas;
};
extern const struct json_table project_spec_table;

struct project_view {
	struct project_spec spec;
	struct usage {
		int64_t used[N_QUOTAS];
	} usage;
	char *created_at;
};
extern const struct json_table project_table, usage_table;

/* 0 or -errno with `err` set, as of the next. */
int project_usage(struct hulld *hulld, const char *project, struct usage *ret, struct error *err);
/* What all machines of all projects have, and those of them that run, start or stop; blobs are not counted. */
void machines_usage(const struct hulld *hulld, struct usage *ret_all, struct usage *ret_active);
/* To be given back to json_done(). */
int quotas_parse(const char *text, struct quotas *ret, struct error *err);

/* May the project have a machine with that spec, too? 0, or -ECANCELED with `problem` set, as of the next three. */
int quota_check_machine(struct hulld *hulld, const char *project, const struct machine *changed,
	const struct machine_spec *spec, struct problem *problem);
/* May it have `own` of the `all` that all projects would have, where the host has `max`: `verb` and `what` say of what, "serves" and "host
 * names"? A project may have as many as it leaves to others, so that none has all; `default`, the host's owner's, what is left. */
int quota_check_share(const char *project, size_t own, size_t all, size_t max, const char *verb, const char *what,
	struct problem *problem);
/* Does it keep to its quotas as it is? */
int quota_check_start(struct hulld *hulld, const char *project, struct problem *problem);
/* May the memory of one that runs be on the disk, too? */
int quota_check_save(const struct machine *m, struct problem *problem);
/* May its machines be served by that host name? */
int quota_check_hostname(struct hulld *hulld, const char *project, const char *hostname, const char *field, struct problem *problem);
/* May it have one more row of that kind? */
int quota_check_row(struct hulld *hulld, const char *project, enum store_kind kind, struct problem *problem);
/* May it have a blob of so many bytes, too? */
int quota_check_blob(struct hulld *hulld, const char *project, int64_t size_bytes, struct problem *problem);
/* May it have a volume, or one that is larger, of so many MiB more? */
int quota_check_volume(struct hulld *hulld, const char *project, int64_t more_mib, struct problem *problem);

/* A step of forgetting (forget.h) what deleted ones have left. */
int projects_forget(struct hulld *hulld, int64_t now, struct error *err);

/* Routes; their context is a struct hulld. */
void project_http_create(struct request *req, void *ctx);
void project_http_list(struct request *req, void *ctx);
void project_http_get(struct request *req, void *ctx);
void project_http_set_quotas(struct request *req, void *ctx);
void project_http_delete(struct request *req, void *ctx);

#endif
