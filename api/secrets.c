#include "api/secrets.h"

#include "api/page.h"
#include "api/project.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <malloc.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define KEY_BYTES   crypto_aead_xchacha20poly1305_ietf_KEYBYTES
#define NONCE_BYTES crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_BYTES   crypto_aead_xchacha20poly1305_ietf_ABYTES
#define BOUND_MAX   (NAME_MAX_BYTES + 1 + SECRET_NAME_MAX + 1)

struct secrets {
	unsigned char *key; /* in libsodium's guarded memory */
};

/* The process. */

static void wipe_and_free(void *memory)
{
	if (memory)
		explicit_bzero(memory, malloc_usable_size(memory));
	free(memory);
}

void secrets_harden(void)
{
	struct rlimit none = {0};

	/* What it starts leaves none either: a monitor's would hold its guest's memory. Of a byte nothing is written to a file, and of that
	 * limit alone nothing goes to a program (core(5); Linux, fs/coredump.c). Where nothing may be, 0 has to do. */
	getrlimit(RLIMIT_CORE, &none);
	none.rlim_cur = none.rlim_max < 1 ? 0 : 1;
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
	json_set_alloc_funcs(malloc, wipe_and_free);
}

/* The key. */

static int read_key(const char *path, unsigned char key[KEY_BYTES], struct error *err)
{
	struct buf text;
	struct stat st;
	int r;

	if (stat(path, &st) < 0)
		return errno == ENOENT ? -ENOENT : error_set_errno(err, errno, "cannot read %s", path);
	buf_init(&text, 4096);
	r = buf_read_file(&text, path);
	if (r < 0)
		error_set_errno(err, -r, "cannot read %s", path);
	else if (text.len != KEY_BYTES)
		r = error_set(err, EINVAL, "%s must hold a key of %u bytes", path, KEY_BYTES);
	else
		memcpy(key, text.data, KEY_BYTES);
	if (text.data)
		sodium_memzero(text.data, text.len);
	buf_done(&text);
	return r;
}

static int find_key(const char *state, unsigned char key[KEY_BYTES], struct error *err)
{
	const char *credentials = getenv("CREDENTIALS_DIRECTORY"); /* systemd.exec(5) */
	char path[512];
	int r = -ENOENT;

	if (credentials && snprintf(path, sizeof(path), "%s/hull-secrets-key", credentials) < (int)sizeof(path))
		r = read_key(path, key, err);
	if (r != -ENOENT)
		return r;
	snprintf(path, sizeof(path), "%s/secrets.key", state);
	r = read_key(path, key, err);
	if (r != -ENOENT)
		return r;
	randombytes_buf(key, KEY_BYTES);
	return write_file_atomic(path, key, KEY_BYTES, 0600, err);
}

struct secrets *secrets_new(const char *state, struct error *err)
{
	struct secrets *secrets = calloc(1, sizeof(*secrets));

	if (!secrets || sodium_init() < 0 || !(secrets->key = sodium_malloc(KEY_BYTES))) {
		error_set(err, ENOMEM, "out of memory, or libsodium does not start");
	} else if (find_key(state, secrets->key, err) == 0) {
		sodium_mprotect_readonly(secrets->key);
		return secrets;
	}
	secrets_free(secrets);
	return NULL;
}

void secrets_free(struct secrets *secrets)
{
	if (!secrets)
		return;
	sodium_free(secrets->key);
	free(secrets);
}

/* Sealing. What is bound to the value: its project and name, each with its NUL. */

static size_t bind_to(const char *project, const char *name, unsigned char ret[BOUND_MAX])
{
	size_t len = strlen(project) + 1;

	assert(len + strlen(name) + 1 <= BOUND_MAX);
	memcpy(ret, project, len);
	memcpy(ret + len, name, strlen(name) + 1);
	return len + strlen(name) + 1;
}

/* Nonce, then what it became, then its tag. */
void secrets_seal(const struct secrets *secrets, struct secret_record *record, const char *value)
{
	unsigned char bound[BOUND_MAX];
	size_t bound_len = bind_to(record->project, record->name, bound), len = strlen(value);
	unsigned long long sealed_len;

	record->sealed = malloc(NONCE_BYTES + len + TAG_BYTES);
	if (!record->sealed)
		abort();
	randombytes_buf(record->sealed, NONCE_BYTES);
	crypto_aead_xchacha20poly1305_ietf_encrypt(record->sealed + NONCE_BYTES, &sealed_len, (const unsigned char *)value, len, bound,
		bound_len, NULL, record->sealed, secrets->key);
	record->sealed_len = NONCE_BYTES + (size_t)sealed_len;
}

json_t *secrets_unseal(const struct secrets *secrets, const struct secret_record *record, struct error *err)
{
	unsigned char bound[BOUND_MAX];
	size_t bound_len = bind_to(record->project, record->name, bound);
	unsigned long long len = 0;
	unsigned char *value = malloc(record->sealed_len + 1);
	json_t *string = NULL;

	if (!value)
		abort();
	if (record->sealed_len < NONCE_BYTES + TAG_BYTES ||
		crypto_aead_xchacha20poly1305_ietf_decrypt(value, &len, NULL, record->sealed + NONCE_BYTES,
			record->sealed_len - NONCE_BYTES, bound, bound_len, record->sealed, secrets->key) < 0)
		error_set(err, EBADMSG, "secret %s does not open with this host's key: set it again", record->name);
	else if (!(string = json_stringn((char *)value, (size_t)len)))
		error_set(err, EBADMSG, "secret %s is no text", record->name);
	wipe_and_free(value);
	return string;
}

/* Sealing for who comes with a key of its own. */

#define BASE64 sodium_base64_VARIANT_ORIGINAL
static_assert(KEY_BYTES == crypto_generichash_BYTES, "a key is what BLAKE2b makes");

/* A pseudo-random function of both (BLAKE2b with a key, RFC 7693): of either alone nothing follows. */
static void derive(const struct secrets *secrets, const char *key, unsigned char ret[KEY_BYTES])
{
	static const char what[] = "hull: what is sealed for a key";
	crypto_generichash_state state;

	crypto_generichash_init(&state, secrets->key, KEY_BYTES, KEY_BYTES);
	crypto_generichash_update(&state, (const unsigned char *)what, sizeof(what));
	crypto_generichash_update(&state, (const unsigned char *)key, strlen(key));
	crypto_generichash_final(&state, ret, KEY_BYTES);
	sodium_memzero(&state, sizeof(state));
}

char *secrets_seal_for(const struct secrets *secrets, const char *key, const char *bound, const char *value)
{
	size_t len = strlen(value), all = NONCE_BYTES + len + TAG_BYTES, text_bytes = sodium_base64_encoded_len(all, BASE64);
	unsigned char derived[KEY_BYTES], *sealed = malloc(all);
	char *text = malloc(text_bytes);

	if (!sealed || !text)
		abort();
	derive(secrets, key, derived);
	randombytes_buf(sealed, NONCE_BYTES);
	crypto_aead_xchacha20poly1305_ietf_encrypt(sealed + NONCE_BYTES, NULL, (const unsigned char *)value, len, (const unsigned char *)bound,
		strlen(bound), NULL, sealed, derived);
	sodium_bin2base64(text, text_bytes, sealed, all, BASE64);
	sodium_memzero(derived, sizeof(derived));
	free(sealed);
	return text;
}

char *secrets_unseal_for(const struct secrets *secrets, const char *key, const char *bound, const char *sealed, struct error *err)
{
	unsigned char derived[KEY_BYTES], *bytes = malloc(strlen(sealed) + 1), *value = calloc(1, strlen(sealed) + 1);
	size_t len = 0;
	bool opened;

	if (!bytes || !value)
		abort();
	derive(secrets, key, derived);
	opened = sodium_base642bin(bytes, strlen(sealed) + 1, sealed, strlen(sealed), NULL, &len, NULL, BASE64) == 0 &&
		 len >= NONCE_BYTES + TAG_BYTES &&
		 crypto_aead_xchacha20poly1305_ietf_decrypt(value, NULL, NULL, bytes + NONCE_BYTES, len - NONCE_BYTES,
			 (const unsigned char *)bound, strlen(bound), bytes, derived) == 0;
	sodium_memzero(derived, sizeof(derived));
	free(bytes);
	if (opened)
		return (char *)value;
	free(value);
	error_set(err, EBADMSG, "what was sealed does not open with this host's key");
	return NULL;
}

/* For machines. */

int secrets_check(struct hulld *hulld, const char *project, const struct machine_spec *spec, struct problem *problem)
{
	char *const *names = spec->secrets.items;
	struct secret_record record;
	struct error err;
	char field[40];

	for (size_t i = 0; i < spec->secrets.len; i++) {
		snprintf(field, sizeof(field), "secrets[%zu]", i);
		if (json_object_get(spec->env, names[i]))
			return problem_set(problem, PROBLEM_INVALID_FIELD, field, "%s is in env, too", names[i]);
		for (size_t j = 0; j < i; j++)
			if (strcmp(names[i], names[j]) == 0)
				return problem_set(problem, PROBLEM_INVALID_FIELD, field, "%s is named twice", names[i]);
		if (store_secret_get(hulld->store, project, names[i], &record, &err) == 0) {
			secret_record_done(&record);
			continue;
		}
		if (err.errnum != ENOENT)
			return problem_from_error(problem, &err);
		problem_set(problem, PROBLEM_NOT_FOUND, field, "%s", err.message);
		return problem_set_hint(problem, "set it with PUT /v1/secrets/%s", names[i]);
	}
	return 0;
}

int secrets_add(struct hulld *hulld, const char *project, const struct json_strings *names, json_t *env, struct error *err)
{
	struct secret_record record;
	json_t *value;

	for (size_t i = 0; i < names->len; i++) {
		if (store_secret_get(hulld->store, project, names->items[i], &record, err) < 0)
			return -err->errnum;
		value = secrets_unseal(hulld->secrets, &record, err);
		secret_record_done(&record);
		if (!value)
			return -err->errnum;
		json_object_set_new(env, names->items[i], value);
	}
	return 0;
}

/* Over HTTP. */

static const struct json_field secret_spec_fields[] = {
	{"value", JSON_FIELD_STRING, offsetof(struct secret_spec, value), .required = true, .max = SECRET_VALUE_MAX,
		.help = "Text; it is never shown."},
};
const struct json_table secret_spec_table = JSON_TABLE("SecretSpec", struct secret_spec, secret_spec_fields);

#define VIEW(name_, member_) {name_, JSON_FIELD_STRING, offsetof(struct secret_view, member_), .read_only = true}
static const struct json_field secret_fields[] = {VIEW("name", name), VIEW("created_at", created_at), VIEW("updated_at", updated_at)};
const struct json_table secret_table = JSON_TABLE("Secret", struct secret_view, secret_fields);

static json_t *dump(const struct secret_record *record)
{
	cleanup_free char *created = format_time(record->created_at);
	cleanup_free char *updated = format_time(record->updated_at);
	struct secret_view view = {(char *)record->name, created, updated};

	return json_dump(&secret_table, &view);
}

/* The project's secret that the path names; `*ret` without a value when it is not there. -errno: refused. */
static int find(struct request *req, struct hulld *hulld, bool may_be_absent, struct secret_record *ret)
{
	const char *name = request_param(req);
	struct error err;
	int r = secret_name_check(name, &err);

	*ret = (struct secret_record){0};
	if (r < 0)
		error_in_field(&err, "secret");
	else
		r = store_secret_get(hulld->store, request_project(req), name, ret, &err);
	if (r == 0 || (r == -ENOENT && may_be_absent))
		return 0;
	if (r == -ENOENT)
		request_refuse_with(req, PROBLEM_NOT_FOUND, NULL, "%s", err.message);
	else
		request_refuse_error(req, &err);
	return r;
}

void secret_http_put(struct request *req, void *ctx)
{
	struct secret_record record;
	struct hulld *hulld = ctx;
	struct secret_spec spec;
	struct problem problem;
	struct error err;
	bool is_new;

	if (find(req, hulld, true, &record) < 0)
		return;
	is_new = !record.sealed;
	free(record.sealed);
	record.sealed = NULL;
	if (request_check_match(req, is_new ? NULL : dump(&record)) < 0)
		return;
	if (is_new && quota_check_row(hulld, request_project(req), STORE_SECRETS, &problem) < 0) {
		request_refuse(req, &problem);
		return;
	}
	if (request_read(req, &secret_spec_table, &spec) < 0)
		return;
	snprintf(record.project, sizeof(record.project), "%s", request_project(req));
	snprintf(record.name, sizeof(record.name), "%s", request_param(req));
	record.updated_at = now_ms();
	if (is_new)
		record.created_at = record.updated_at;
	secrets_seal(hulld->secrets, &record, spec.value);
	sodium_memzero(spec.value, strlen(spec.value));
	json_done(&secret_spec_table, &spec);
	if (store_secret_put(hulld->store, &record, &err) < 0)
		request_refuse_error(req, &err);
	else
		request_reply(req, is_new ? 201 : 200, dump(&record));
	secret_record_done(&record);
}

static int list_one(void *ctx, const struct secret_record *record)
{
	struct page *page = ctx;

	if (page_has(page, record->name))
		page_add(page, record->name, dump(record));
	return 0;
}

void secret_http_list(struct request *req, void *ctx)
{
	struct hulld *hulld = ctx;
	struct page page;
	struct error err;

	if (page_begin(req, &page) < 0)
		return;
	page_end(&page, req, store_secrets_each(hulld->store, request_project(req), list_one, &page, &err), &err);
}

void secret_http_get(struct request *req, void *ctx)
{
	struct secret_record record;

	if (find(req, ctx, false, &record) < 0)
		return;
	request_reply_matching(req, dump(&record));
	secret_record_done(&record);
}

void secret_http_delete(struct request *req, void *ctx)
{
	struct secret_record record;
	struct hulld *hulld = ctx;
	struct error err;

	if (find(req, hulld, false, &record) < 0)
		return;
	if (request_check_match(req, dump(&record)) == 0) {
		if (store_secret_delete(hulld->store, record.project, record.name, &err) < 0)
			request_refuse_error(req, &err);
		else
			request_reply(req, 204, NULL);
	}
	secret_record_done(&record);
}
