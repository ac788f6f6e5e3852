/* Secrets: values that a project's machines find in their environment, and that are seen nowhere else.
 *
 * At rest each is sealed (XChaCha20-Poly1305, RFC 8439 with libsodium's longer nonce) by the host's key, bound to its project and
 * name, so that a row that is moved does not open. The key is systemd's credential `hull-secrets-key`, where there is one, else
 * `secrets.key` in the state folder, mode 0600, made when there is none. Who has the state folder with that file has the secrets;
 * who has the database, or a backup without it, has not.
 *
 * On their way they are in memory only: the body of the PUT is wiped, JSON is freed wiped, hulld leaves no core, and a monitor
 * gets them in a guest's archive that is a memfd (launch.c), where other machines have a file. The spec, and all that is made of
 * it, holds names. */
#ifndef HULL_API_SECRETS_H
#define HULL_API_SECRETS_H

#include "api/hulld.h"

struct secrets;

/* Wipes what JSON frees from now on, and forbids core dumps. First thing in the process. */
void secrets_harden(void);

/* Reads or makes the key; `state` is the state folder. NULL with `err` set. */
struct secrets *secrets_new(const char *state, struct error *err);
void secrets_free(struct secrets *secrets); /* NULL is fine */

/* Seals `value` as `record->sealed` (which it sets), bound to the record's project and name; also for what is no secret of a project's
 * by that name, where the name is none that a secret may have. */
void secrets_seal(const struct secrets *secrets, struct secret_record *record, const char *value);
/* The value, a new string of JSON, which is wiped when it is freed; NULL with `err` set. */
json_t *secrets_unseal(const struct secrets *secrets, const struct secret_record *record, struct error *err);

/* Seals what is only for who comes with `key` again: what opens it is made of the host's key and that one, neither of which does it alone;
 * and it is bound to `bound`. Text, owned. */
char *secrets_seal_for(const struct secrets *secrets, const char *key, const char *bound, const char *value);
/* The value, owned, to be wiped; NULL with `err` set. */
char *secrets_unseal_for(const struct secrets *secrets, const char *key, const char *bound, const char *sealed, struct error *err);

/* Are all that the spec names there, each once, and no variable of its `env` too? 0, or -ECANCELED with `problem` set. */
int secrets_check(struct hulld *hulld, const char *project, const struct machine_spec *spec, struct problem *problem);
/* Sets them in `env`, an object. 0 or -errno with `err` set. */
int secrets_add(struct hulld *hulld, const char *project, const struct json_strings *names, json_t *env, struct error *err);

/* Routes; their context is a struct hulld. */
struct secret_spec {
	char *value;
};
extern const struct json_table secret_spec_table;

/* What a client sees of a secret. */
struct secret_view {
	char *name, *created_at, *updated_at;
};
extern const struct json_table secret_table;

void secret_http_put(struct request *req, void *ctx);
void secret_http_list(struct request *req, void *ctx);
void secret_http_get(struct request *req, void *ctx);
void secret_http_delete(struct request *req, void *ctx);

#endif
