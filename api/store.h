/* What must survive: projects, images and machines in SQLite. Every call that returns 0 has been committed to disk.
 *
 * Names, keys of requests and blobs are a project's own: who asks for them says in which. Loop thread only. The store keeps no cache and knows no rules beyond unique names and ids. */
#ifndef HULL_API_STORE_H
#define HULL_API_STORE_H

#include "api/spec.h"

#include <sys/types.h>

struct store;

#define BOOT_ID_BYTES 37
#define REQUEST_KEY_MAX 255
#define PROJECT_DEFAULT "default" /* is always there, and has all that is older than projects */
#define REQUEST_DIGEST_BYTES 65 /* SHA-256 in hexadecimal, with its NUL */

/* A process that was started for a machine: pid 0 means none. A pid is trusted only with its start time and the boot
 * it was seen in. */
struct process_id {
	pid_t pid;
	uint64_t start_time; /* field 22 of /proc/PID/stat */
};

/* A row of `machines`: what it is to be, which changes only as its client says, and what has become of it. */
struct machine_record {
	char id[MACHINE_ID_BYTES + 1];
	char project[NAME_MAX_BYTES + 1];
	char name[NAME_MAX_BYTES + 1]; /* unique in the project */
	char rootfs[80];    /* digest of the image when the client named it */
	char *spec;	    /* MachineSpec as JSON; owned; NULL where a struct machine has it read */
	uint32_t address;   /* in its network, in the host's byte order; 0: it is on none */
	char *image_config; /* ImageConfig as JSON, of the image when the client named it; owned */
	int64_t created_at; /* ms since 1970, as all times here; 0: never */
	int64_t request;    /* request_number() of the POST that created it; 0: it had no key */

	int state; /* enum machine_state */
	char cause_code[32];
	char cause_message[ERROR_MESSAGE_MAX]; /* printable ASCII */
	int exit_status;		       /* -1: none was handed over */
	struct process_id monitor, passt;
	char boot_id[BOOT_ID_BYTES]; /* of the two above */
	int64_t restarts;
	int64_t failures;   /* failed runs in a row */
	int64_t restart_at; /* when its restart policy starts it again; 0: not */
	int64_t stop_timeout_s;
	bool restart_wanted; /* starts again as soon as it has stopped */
	bool attached;	     /* in this run: the workload waits for a client that executes it */
	bool asleep;	     /* it is put to sleep, sleeps, or is woken: who comes to its ports waits, and has it started */
	int64_t started_at, stopped_at;
	/* What the present run was begun with, where that has been changed since; "" and NULL otherwise. Owned. */
	char run_rootfs[80];
	uint32_t run_address;
	char *run_spec, *run_image_config;
};

void machine_record_done(struct machine_record *record);

/* Opens or creates `path` and brings its schema up to date. NULL with `err` set; a schema of a newer hulld is refused. */
struct store *store_open(const char *path, struct error *err);
void store_close(struct store *store); /* NULL is fine */

/* Each 0 or -errno with `err` set. -EEXIST: the name is taken. -ENOENT: no such row. */
int store_machine_insert(struct store *store, const struct machine_record *record, struct error *err);
/* Everything of what has become of it. */
int store_machine_update(struct store *store, const struct machine_record *record, struct error *err);
/* What a client specifies: name, rootfs, spec, image_config; the three run_* and restart_at. -EEXIST: the name is taken. */
int store_machine_respecify(struct store *store, const struct machine_record *record, struct error *err);
int store_machine_delete(struct store *store, const char *id, struct error *err);

/* Is there room for what makes more, in a row of so many bytes (0: they are few)? 0, or -ENOSPC with `err` set: then what ends, changes state
 * or deletes something still has some. The functions below that insert, put or update what a client specifies ask by themselves; but as no
 * room is made within a transaction, who inserts a row in one that may be large asks before. */
int store_check_room(struct store *store, size_t row_bytes, struct error *err);

/* Several changes in one: between the two calls none is on disk. 0 or -errno with `err` set. */
int store_transaction_begin(struct store *store, struct error *err);
/* Commits when `r`, what came of the changes, is 0, and undoes them all otherwise. Returns `r`, or why it could not. */
int store_transaction_end(struct store *store, int r, struct error *err);
/* Every row; `fn` owns the record's memory. Stops at the first non-zero return and returns that. */
int store_machines_each(struct store *store, int (*fn)(void *ctx, struct machine_record *record), void *ctx,
	struct error *err);

/* `document` is an Image as JSON. An existing row of that name is replaced. */
int store_image_put(struct store *store, const char *project, const char *name, const char *rootfs, const char *document,
	struct error *err);
int store_image_delete(struct store *store, const char *project, const char *name, struct error *err);
/* The document, a new reference. NULL: there is none, err->errnum ENOENT; or another errnum. */
json_t *store_image_get(struct store *store, const char *project, const char *name, struct error *err);
/* An array of all documents of the project, by name. NULL with `err` set. */
json_t *store_images(struct store *store, const char *project, struct error *err);

/* A POST that came with an Idempotency-Key, and its answer (idempotency.h). */
struct kept_request {
	char digest[REQUEST_DIGEST_BYTES]; /* of what was asked */
	int64_t number;			   /* no other has it: what it has done is known by that */
	int64_t begun_at;
	int status;	   /* of the answer; 0: there is none yet */
	char *type, *body; /* of the answer, "" without one; owned */
};

void kept_request_done(struct kept_request *kept);

/* Each 0 or -errno with `err` set. -ENOENT: no such row. `hidden`: what it may be kept by in the place of its key. */
int store_request_get(struct store *store, const char *project, const char *key, const char *hidden, struct kept_request *ret,
	struct error *err);
int store_request_begin(struct store *store, const char *project, const char *key, const char *digest, int64_t number,
	int64_t begun_at, struct error *err);
int store_request_answer(struct store *store, const char *project, const char *key, int status, const char *type,
	const char *body, struct error *err);
int store_request_forget(struct store *store, const char *project, const char *key, const char *hidden, struct error *err);
/* Forgets `max` of those that were begun before `before`; once there are none, as many of those that were begun after `now`, by a clock that has
 * been set back since, count as begun then. How many there were, or -errno with `err` set. */
int store_requests_prune(struct store *store, int64_t before, int64_t now, int64_t max, struct error *err);
/* Forgets `max` of the project's but its `kept` newest. How many, or -errno with `err` set. */
int store_requests_trim(struct store *store, const char *project, int64_t kept, int64_t max, struct error *err);

/* Who has a blob: a project that uploaded it, and, until the row goes, that has images or machines of it. */

/* Has it, and since `at`; one that had it already keeps its row. */
int store_blob_own(
	struct store *store, const char *project, const char *digest, int64_t size_bytes, int64_t at, struct error *err);
/* 1 or 0. */
int store_blob_is_owned(struct store *store, const char *project, const char *digest, struct error *err);
/* It does not have it any more, unless an image or a machine of its own needs it, or it has it since `before` or later. */
int store_blob_disown(struct store *store, const char *project, const char *digest, int64_t before, struct error *err);
/* The same for every project that has it. */
int store_blob_disown_all(struct store *store, const char *digest, int64_t before, struct error *err);
/* How many rows of that kind a project has; -errno with `err` set. */
enum store_kind { STORE_CERTIFICATES, STORE_IMAGES, STORE_SECRETS, STORE_VOLUMES, STORE_N_KINDS };
int64_t store_count(struct store *store, enum store_kind kind, const char *project, struct error *err);
/* How many bytes its blobs have. */
int64_t store_blob_bytes(struct store *store, const char *project, struct error *err);
/* How many projects have it. */
int store_count_blob_owners(struct store *store, const char *digest, struct error *err);

/* A row of `events`. All strings are borrowed. */
struct event_record {
	const char *project;
	int64_t id; /* 1, 2, 3 … in the project, without gaps */
	int64_t at;
	const char *type;	   /* "machine.running" */
	const char *subject, *name; /* id and name of what it is of */
	const char *data;	   /* an object as JSON */
};

/* Every change above, and below, that a client can see is an event, too, in the same transaction. This is for what has no row:
 * the event is all there is of it. `id` and `at` are made up. */
int store_event_insert(struct store *store, const struct event_record *event, struct error *err);
/* Those that came after that one, the oldest first, `limit` at most; stops at the first non-zero return and returns that. */
int store_events_each(struct store *store, const char *project, int64_t after, int64_t limit,
	int (*fn)(void *ctx, const struct event_record *event), void *ctx, struct error *err);
/* The id before the first that is kept, and the last that was given; both are the same when none is kept. */
int store_events_range(struct store *store, const char *project, int64_t *ret_before, int64_t *ret_last, struct error *err);
/* The last that is older than `at`, or 0; -errno. */
int64_t store_events_since(struct store *store, const char *project, int64_t at, struct error *err);
/* Has there been one of that type, of that subject, after that one? 1 or 0; -errno. */
int store_events_has(struct store *store, const char *project, const char *subject, const char *type, int64_t after,
	struct error *err);
/* Forgets `max` of those of before, and of what each project has but its last `keep`, the oldest of a project first. How many, or -errno with
 * `err` set. */
int store_events_prune(struct store *store, int64_t before, int64_t keep, int64_t max, struct error *err);
/* `fn` is called within the change that makes an event: what it sees of the database is not committed yet. */
void store_on_event(struct store *store, void (*fn)(void *ctx, const char *project), void *ctx);

/* A row of `operations` (operation.h). `phases`, an array as JSON, and `error`, a problem as JSON or "", are borrowed. */
struct operation_record {
	char id[OPERATION_ID_BYTES + 1];
	char project[NAME_MAX_BYTES + 1];
	char machine[MACHINE_ID_BYTES + 1], name[NAME_MAX_BYTES + 1]; /* what it is on; the name it had */
	int kind, state;
	char phase[OPERATION_PHASE_MAX + 1]; /* "": it is in none */
	const char *phases, *error;
	int64_t deadline, created_at, ended_at;
	char requested_by[TOKEN_ID_BYTES + 1];
	int64_t request; /* request_number() of who asked for it; 0: it had no key, or nobody did. Not read back */
	char cancelled_by[OPERATION_ID_BYTES + 1];
	int64_t plan; /* bits of the phases it takes; 0: nobody knows. And the last of them that it has come to, if only once: */
	int reached;  /* (api/operation_progress.c) */
};

/* As it is now; inserted where there is none of its id. Within a transaction. */
int store_operation_put(struct store *store, const struct operation_record *record, struct error *err);

/* Each calls `fn` by age, the oldest first, stops at the first non-zero return and returns that. */
/* Of one project: those that come after `after_at` and `after_id`. */
int store_operations_each(struct store *store, const char *project, int64_t after_at, const char *after_id,
	int (*fn)(void *ctx, const struct operation_record *record), void *ctx, struct error *err);
/* All that are under way, of every project. */
int store_operations_running(
	struct store *store, int (*fn)(void *ctx, const struct operation_record *record), void *ctx, struct error *err);
/* Calls `fn` with that one. -ENOENT: the project has none of that id. */
int store_operation_get(struct store *store, const char *project, const char *id,
	int (*fn)(void *ctx, const struct operation_record *record), void *ctx, struct error *err);
/* The id of the one that was begun for the request of that number. 1; 0: none was; -errno with `err` set. */
int store_operation_of_request(struct store *store, int64_t number, char ret[OPERATION_ID_BYTES + 1], struct error *err);
/* Ends those that are under way and have no machine. */
int store_operations_end_orphans(struct store *store, int64_t at, const char *error, struct error *err);
/* Forgets `max` of those that began before `before`, none of them under way. How many there were, or -errno with `err` set. */
int store_operations_prune(struct store *store, int64_t before, int64_t max, struct error *err);
/* Forgets `max` of the project's but its `kept` newest, and those under way. How many, or -errno with `err` set. */
int store_operations_trim(struct store *store, const char *project, int64_t kept, int64_t max, struct error *err);

/* A row of `networks`. */
struct network_record {
	char id[NETWORK_ID_BYTES + 1];
	char project[NAME_MAX_BYTES + 1];
	char name[NAME_MAX_BYTES + 1]; /* unique in the project */
	char *spec;		       /* NetworkSpec as JSON; owned */
	int64_t created_at;
};

void network_record_done(struct network_record *record);

int store_network_insert(struct store *store, const struct network_record *record, struct error *err);
/* Its spec. */
int store_network_update(struct store *store, const struct network_record *record, struct error *err);
int store_network_get(struct store *store, const char *project, const char *name, struct network_record *ret, struct error *err);
int store_network_delete(struct store *store, const char *project, const char *name, struct error *err);
/* Of one project (NULL: of all), by name; stops at the first non-zero return and returns that. */
int store_networks_each(struct store *store, const char *project, int (*fn)(void *ctx, const struct network_record *record), void *ctx,
	struct error *err);

#define TOKEN_HASH_BYTES 65 /* SHA-256 in hexadecimal, with its NUL */

/* A row of `tokens`. */
struct token_record {
	char id[TOKEN_ID_BYTES + 1];
	char project[NAME_MAX_BYTES + 1];
	char label[TOKEN_LABEL_MAX + 1];
	char hash[TOKEN_HASH_BYTES];
	unsigned scopes; /* SCOPE_BIT()s (access.h) */
	int64_t created_at, expires_at, last_used_at; /* 0: never */
};

int store_token_insert(struct store *store, const struct token_record *record, struct error *err);
int store_token_get(struct store *store, const char *id, struct token_record *ret, struct error *err);
/* Its last_used_at. */
int store_token_used(struct store *store, const char *id, int64_t at, struct error *err);
int store_token_delete(struct store *store, const char *id, struct error *err);
/* Of one project, the oldest first; stops at the first non-zero return and returns that. */
int store_tokens_each(struct store *store, const char *project, int (*fn)(void *ctx, const struct token_record *record), void *ctx,
	struct error *err);

/* How many tokens of the project have all of `scopes`; -errno with `err` set. */
int64_t store_tokens_count(struct store *store, const char *project, unsigned scopes, struct error *err);
/* Forgets one of those that have expired, at `now`: 1, or 0 when none has. */
int store_tokens_make_room(struct store *store, const char *project, unsigned scopes, int64_t now, struct error *err);
/* Forgets those of all projects that had expired before, `max` at most. How many; -errno with `err` set. */
int store_tokens_prune(struct store *store, int64_t before, int64_t max, struct error *err);

/* A row of `secrets`. */
struct secret_record {
	char project[NAME_MAX_BYTES + 1];
	char name[SECRET_NAME_MAX + 1];
	unsigned char *sealed; /* owned */
	size_t sealed_len;     /* bytes */
	int64_t created_at, updated_at;
};

void secret_record_done(struct secret_record *record);

/* One of that name is replaced, but for its created_at. */
int store_secret_put(struct store *store, const struct secret_record *record, struct error *err);
int store_secret_get(
	struct store *store, const char *project, const char *name, struct secret_record *ret, struct error *err);
int store_secret_delete(struct store *store, const char *project, const char *name, struct error *err);
/* Of one project, by name, without what is sealed; stops at the first non-zero return and returns that. */
int store_secrets_each(struct store *store, const char *project, int (*fn)(void *ctx, const struct secret_record *record), void *ctx,
	struct error *err);

/* A row of `volumes`. `labels` is an object as JSON; owned. */
struct volume_record {
	char id[VOLUME_ID_BYTES + 1];
	char project[NAME_MAX_BYTES + 1];
	char name[NAME_MAX_BYTES + 1]; /* unique in the project */
	int64_t size_mib;
	char *labels;
	int64_t created_at, updated_at;
};

void volume_record_done(struct volume_record *record);

int store_volume_insert(struct store *store, const struct volume_record *record, struct error *err);
/* Its size and labels. */
int store_volume_update(struct store *store, const struct volume_record *record, struct error *err);
int store_volume_get(
	struct store *store, const char *project, const char *id_or_name, struct volume_record *ret, struct error *err);
int store_volume_delete(struct store *store, const char *id, struct error *err);
/* Is there one, of whichever project? 1 or 0; -errno. */
int store_volume_has(struct store *store, const char *id, struct error *err);
/* By name, of one project, or of all (NULL); `fn` owns the record's memory. Stops at the first non-zero return and returns that. */
int store_volumes_each(struct store *store, const char *project, int (*fn)(void *ctx, struct volume_record *record), void *ctx,
	struct error *err);
/* What their sizes are together, of one project or of all (NULL); -errno. */
int64_t store_volumes_mib(struct store *store, const char *project, struct error *err);

#define WEBHOOK_ID_BYTES  13 /* "w" and 12 base32 characters */
#define WEBHOOK_ERROR_MAX 200

#define CERTIFICATE_REFUSED_MAX 200

/* A row of `certificates`: one that was given. */
struct certificate_record {
	char project[NAME_MAX_BYTES + 1];
	char hostname[HOSTNAME_MAX_BYTES + 1];
	char *certificate;     /* PEM; owned */
	unsigned char *sealed; /* its key; owned */
	size_t sealed_len;     /* bytes */
	int64_t created_at, updated_at;
	int64_t expires_at; /* what is read from the certificate is kept beside it */
	char refused[CERTIFICATE_REFUSED_MAX + 1]; /* why HAProxy does not take it, in printable ASCII; "": it has, or was not asked yet */
};

void certificate_record_done(struct certificate_record *record);

/* One of that name is replaced, but for its created_at; it is not refused. */
int store_certificate_put(struct store *store, const struct certificate_record *record, struct error *err);
int store_certificate_get(
	struct store *store, const char *project, const char *hostname, struct certificate_record *ret, struct error *err);
int store_certificate_refuse(struct store *store, const char *project, const char *hostname, const char *reason, struct error *err);
/* Of those that an older hulld has left, without expires_at: any one; and that it is so. */
int store_certificate_get_undated(struct store *store, struct certificate_record *ret, struct error *err);
int store_certificate_set_date(
	struct store *store, const char *project, const char *hostname, int64_t expires_at, struct error *err);
int store_certificate_delete(struct store *store, const char *project, const char *hostname, struct error *err);
/* Of one project, by host name, those behind `after`; stops at the first non-zero return and returns that. */
int store_certificates_each(struct store *store, const char *project, const char *after,
	int (*fn)(void *ctx, const struct certificate_record *record), void *ctx, struct error *err);

/* A row of `webhooks`: what it is to be, and how far it has come. */
struct webhook_record {
	char id[WEBHOOK_ID_BYTES + 1];
	char project[NAME_MAX_BYTES + 1];
	char *spec;	       /* WebhookSpec as JSON, without its secret; owned, as is: */
	unsigned char *sealed; /* the secret */
	size_t sealed_len;
	int64_t created_at, updated_at;
	int64_t cursor; /* the last event that is delivered, or not wanted */
	int64_t missed; /* events that were kept no more when it came to them */
	int64_t failures, failing_since, next_attempt_at; /* in a row; 0: none */
	int64_t last_attempt_at, last_delivered_at;
	int last_status; /* of HTTP; 0: there was no answer */
	char last_error[WEBHOOK_ERROR_MAX];
	char disabled_reason[16]; /* why hulld has disabled it; "": it has not */
};

void webhook_record_done(struct webhook_record *record);

int store_webhook_insert(struct store *store, const struct webhook_record *record, struct error *err);
/* All but its project and created_at; it is an event. Asks for no room, as hulld disables one by it, too: who changes one for a client asks before. */
int store_webhook_respecify(struct store *store, const struct webhook_record *record, struct error *err);
/* How far they have come, in one transaction; no events. */
int store_webhooks_progress(struct store *store, const struct webhook_record *const *records, size_t n, struct error *err);
int store_webhook_delete(struct store *store, const char *id, struct error *err);
/* As store_machines_each(), the oldest first. */
int store_webhooks_each(struct store *store, int (*fn)(void *ctx, struct webhook_record *record), void *ctx, struct error *err);

/* A row of `projects`. `quotas` is a Quotas as JSON. */
struct project_record {
	char name[NAME_MAX_BYTES + 1];
	char *quotas; /* owned */
	int64_t created_at;
};

void project_record_done(struct project_record *record);

/* -EEXIST: there is one. -EBUSY: one of that name was deleted, and its rows are not all forgotten. */
int store_project_insert(struct store *store, const struct project_record *record, struct error *err);
/* Its quotas. */
int store_project_update(struct store *store, const struct project_record *record, struct error *err);
int store_project_get(struct store *store, const char *name, struct project_record *ret, struct error *err);
/* From then on it is not there, nor are its tokens, webhooks, secrets, certificates, and what it has of blobs. Its images, kept requests,
 * operations and events, which nobody finds any more, go as far as that takes no more processor time than `for_ns`; the rest is for the next. Its machines
 * have gone before. */
int store_project_delete(struct store *store, const char *name, uint64_t for_ns, struct error *err);
/* A step of that, for all that were deleted. How many rows have gone, 0 when it is done; -errno with `err` set. */
int store_projects_forget(struct store *store, struct error *err);
/* As store_machines_each(), by name. */
int store_projects_each(
	struct store *store, int (*fn)(void *ctx, struct project_record *record), void *ctx, struct error *err);

/* The host's row, one. */
enum host_state { HOST_SERVING, HOST_DRAINING, HOST_DRAINED };
extern const char *const host_state_names[]; /* NULL-terminated, by enum host_state */

struct host_record {
	int state;	     /* enum host_state */
	int64_t drain_since; /* 0: it serves */
	int64_t drain_until; /* when machines that still run are killed; 0: none does */
	int64_t drain_machines; /* that ran when it began */
};

int store_host_get(struct store *store, struct host_record *ret, struct error *err);
int store_host_set(struct store *store, const struct host_record *record, struct error *err);

#endif
