/* The API's objects: structs and the field tables that read, check, write and describe them. */
#ifndef HULL_API_SPEC_H
#define HULL_API_SPEC_H

#include "api/ingress/words.h"
#include "common/health_check.h"
#include "common/json.h"

#define NAME_MAX_BYTES	 63
#define DIGEST_HEX_BYTES 64
#define TOKEN_ID_BYTES	 13 /* "t" and 12 base32 characters */
#define TOKEN_LABEL_MAX	 100
#define SECRET_NAME_MAX	 63
#define SECRET_VALUE_MAX 65536 /* bytes */
#define SECRETS_MAX	 64    /* of one machine */
#define HOSTNAME_MAX_BYTES 253
#define NETWORK_ID_BYTES 13 /* "n" and 12 base32 characters */
#define MACHINE_ID_BYTES 13 /* "m" and 12 base32 characters */
#define VOLUME_ID_BYTES 13 /* "v" and 12 base32 characters */
#define OPERATION_ID_BYTES 14 /* "op" and 12 base32 characters */
#define OPERATION_PHASE_MAX 15

/* What a machine's `network` is: passt, nothing, or a network of the project. */
enum network_kind { NETWORK_DEFAULT, NETWORK_NONE, NETWORK_NAMED };
enum restart_policy { RESTART_NEVER, RESTART_ON_FAILURE, RESTART_ALWAYS };

/* In the order in which a machine usually lives through them. CREATING is between a create's first commit and its
 * reply; nobody outside sees it. */
enum machine_state {
	MACHINE_CREATING,
	MACHINE_CREATED,
	MACHINE_STARTING,
	MACHINE_RUNNING,
	MACHINE_SUSPENDING,
	MACHINE_SUSPENDED,
	MACHINE_RESUMING,
	MACHINE_STOPPING,
	MACHINE_STOPPED,
	MACHINE_FAILED,
	MACHINE_N_STATES,
};
extern const char *const machine_state_names[]; /* NULL-terminated, by enum machine_state */

struct port_spec {
	int64_t host, guest; /* host: 0 with a hostname */
	char *address;	     /* IPv4, dotted */
	int protocol;	     /* enum protocol */
	char *hostname;	     /* of requests over HTTP; NULL: a port of the host */
};

struct restart_spec {
	int policy;	     /* enum restart_policy */
	int64_t max_retries; /* of failed runs in a row; 0: no limit */
};

struct stop_spec {
	int signal; /* an index of stop_signal_names, one more; 0: the image's */
	int64_t timeout_s, drain_s; /* of the first, at most half is the second */
};

struct logs_spec {
	int64_t max_mib, max_age_days; /* of each log; 0: what the host says, which is the most in any case */
};

struct health_spec {
	struct health_check check;
	int64_t interval_s, timeout_s; /* from the end of one check to the next; of one */
	int64_t retries;	       /* failures in a row that make it unhealthy */
	int64_t grace_s;	       /* after the workload's start, in which they do not, before a first success */
};

enum idle_action { IDLE_STOP, IDLE_SUSPEND };

struct idle_spec {
	int64_t after_s; /* for so long nobody has used it */
	int action;	 /* enum idle_action */
};

/* What has to be so of another machine before one is started. */
enum dependency_condition {
	DEPENDS_READY,	   /* healthy where it has a health check, else started */
	DEPENDS_STARTED,   /* it runs */
	DEPENDS_HEALTHY,
	DEPENDS_COMPLETED, /* its last run ended with status 0 */
};
#define DEPENDS_ON_MAX 16

struct dependency_spec {
	char *machine; /* its name */
	int condition; /* enum dependency_condition */
};

#define MOUNTS_MAX 12 /* each is a device of the machine's, which has 18 */

struct mount_spec {
	char *volume; /* its name */
	char *host_path; /* a folder of the host; NULL: it is a volume */
	char *path;   /* in the machine */
	bool read_only;
};

struct machine_spec {
	char *name; /* NULL: to be made up */
	char *image;
	int64_t cpus, memory_mib, disk_mib;
	struct json_strings command;
	json_t *env;
	struct json_strings secrets; /* their names, as variables */
	char *user, *workdir;
	struct json_array ports; /* of struct port_spec */
	struct json_array mounts; /* of struct mount_spec */
	char *network;
	struct restart_spec restart;
	struct stop_spec stop;
	struct logs_spec logs;
	struct json_array depends_on; /* of struct dependency_spec */
	struct health_spec *health; /* NULL: nothing is checked */
	struct idle_spec *idle;	    /* NULL: it runs, whether it is used or not */
	json_t *labels; /* as `env`, NULL where there are none, in a struct machine */
};
extern const struct json_table machine_spec_table;

enum network_kind network_kind_of(const char *network);
static inline enum network_kind network_kind(const struct machine_spec *spec)
{
	return network_kind_of(spec->network);
}

enum health_state { HEALTH_UNKNOWN, HEALTH_STARTING, HEALTH_HEALTHY, HEALTH_UNHEALTHY };
extern const char *const health_state_names[];

/* What a client sees of a machine's health. The spec is first, as in a machine's view. */
struct health_view {
	struct health_spec spec;
	int state; /* enum health_state */
	char *reason, *since;
};

struct machine_cause {
	char *code, *message;
};

/* What a client sees of a machine. The spec is first: both tables share its fields. */
struct machine_view {
	struct machine_spec spec;
	struct health_view *health; /* in the place of the spec's */
	char *id, *project, *rootfs;
	int state;
	bool asleep, frozen;
	struct machine_cause *cause;
	struct json_strings pending, waiting_for;
	json_t *exit_status, *pid; /* integers, or NULL */
	int64_t restarts;
	char *created_at, *started_at, *stopped_at;
	char *address;	 /* in its network; NULL: it is on none */
	char *operation; /* its id; NULL: none is under way */
};
extern const struct json_table machine_table;

struct image_config {
	struct json_strings command;
	json_t *env;
	char *user, *workdir;
	int stop_signal; /* an index of stop_signal_names */
	json_t *ports; /* NULL, or an array of port numbers: a hint for people, nothing is published by it */
};
extern const struct json_table image_config_table;

struct image_spec {
	char *name, *rootfs;
	struct image_config config;
	json_t *labels;
};
extern const struct json_table image_spec_table;

struct image_view {
	struct image_spec spec;
	int64_t size_bytes;
	char *created_at;
};
extern const struct json_table image_table;

struct start_request {
	bool attached;
};
extern const struct json_table start_request_table;

struct stop_request {
	int64_t timeout_s; /* -1: the machine's own */
};
extern const struct json_table stop_request_table;

/* How a program executed in a machine ended, and what it wrote. */
struct exec_result {
	int64_t exit_status;
	int encoding; /* enum exec_encoding, of both */
	char *standard_output, *standard_error;
	bool truncated;
};
enum exec_encoding { EXEC_UTF8, EXEC_BASE64 };
extern const struct json_table exec_result_table;

/* What hull-vmm leaves on its status descriptor (docs/interfaces.md). */
struct status_record {
	int cause; /* enum status_cause */
	json_t *exit_status;
	char *message, *field;
};
enum status_cause { STATUS_POWEROFF, STATUS_RESET, STATUS_PANIC, STATUS_SIGNAL, STATUS_ERROR };
extern const char *const status_cause_names[];
extern const struct json_table status_record_table;

/* The checks of single values: 0, or -EINVAL with `err` set. Each takes what its pattern says. */
int digest_check(const char *digest, struct error *err);
int name_check(const char *name, struct error *err);
int dns_name_check(const char *hostname, struct error *err);
int secret_name_check(const char *name, struct error *err);
#define DIGEST_PATTERN	    "^sha256:[0-9a-f]{64}$"
#define NAME_PATTERN	    "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
#define SECRET_NAME_PATTERN "^[A-Za-z_][A-Za-z0-9_]{0,62}$"
#define DNS_NAME_PATTERN    "^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
#define TOKEN_ID_PATTERN    "^t[a-z2-7]{12}$"
#define WEBHOOK_ID_PATTERN  "^w[a-z2-7]{12}$"
#define OPERATION_ID_PATTERN "^op[a-z2-7]{12}$"

/* Is the host name the domain, or below it? */
bool dns_name_is_within(const char *hostname, const char *domain);

/* What a table cannot say: port numbers in `ports` of an image's config. 0 or -EINVAL with `err` set. */
int image_spec_check(const struct image_spec *spec, struct error *err);
/* True when both are the same place of the host. */
bool ports_are_same(const struct port_spec *a, const struct port_spec *b);
/* True when one of the machine's and `port` cannot be bound at once; with host names that never is so. */
bool machine_spec_collides(const struct machine_spec *spec, const struct port_spec *port);
/* As image_spec_check(): no port twice, no more memory than `host_memory_mib`. */
int machine_spec_check(const struct machine_spec *spec, uint64_t host_memory_mib, struct error *err);

#endif
