#include "api/token.h"

#include "api/forget.h"
#include "api/page.h"
#include "api/random.h"
#include "common/cleanup.h"
#include "common/hex.h"
#include "common/log.h"

#include <errno.h>
#include <nettle/memops.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

#define SECRET_CHARS	 52 /* of 5 bits */
#define TOKEN_CHARS	 (sizeof(TOKEN_PREFIX) - 1 + TOKEN_ID_BYTES + 1 + SECRET_CHARS)
#define EXPIRES_IN_S	 (30 * 86400)
#define EXPIRES_IN_S_MAX (3650ll * 86400)
#define USED_EVERY_MS	 600000 /* so fine is last_used_at: each change is a write to disk */
#define KEPT_MS		 (7 * 24 * INT64_C(3600000)) /* after they have expired */
#define FORGET_MAX	 100 /* at a time */

static int scope_check(const char *name, struct error *err)
{
	return access_scope_by_name(name) ? 0 : error_set(err, EINVAL, "must be read, write, exec or admin");
}

static const struct json_field token_spec_fields[] = {
	{"label", JSON_FIELD_STRING, offsetof(struct token_spec, label), .def_string = "", .max = TOKEN_LABEL_MAX,
		.help = "What it is for; free for clients."},
	{"scopes", JSON_FIELD_STRINGS, offsetof(struct token_spec, scopes), .required = true, .min = 1, .max = 4,
		.check = scope_check, .pattern = "^(read|write|exec|admin)$",
		.help = "read: look; write: make, start, stop, delete; exec: programs and files in machines; admin: the project's tokens and webhooks."},
	{"expires_in_s", JSON_FIELD_INT, offsetof(struct token_spec, expires_in_s), .def = EXPIRES_IN_S, .max = EXPIRES_IN_S_MAX,
		.help = "Seconds until it is not valid any more; 0: it stays."},
};
const struct json_table token_spec_table = JSON_TABLE("TokenSpec", struct token_spec, token_spec_fields);

#define VIEW(name_, member_, ...) \
	{name_, JSON_FIELD_STRING, offsetof(struct token_view, member_), .read_only = true, __VA_ARGS__}
#define TOKEN_FIELDS                                                                                          \
	VIEW("id", id, .help = "t and 12 base32 characters."), VIEW("project", project), VIEW("label", label),         \
	{"scopes", JSON_FIELD_STRINGS, offsetof(struct token_view, scopes), .read_only = true},                        \
	VIEW("created_at", created_at), VIEW("expires_at", expires_at, .nullable = true),                              \
	VIEW("last_used_at", last_used_at, .nullable = true, .help = "To ten minutes.")

static const struct json_field token_fields[] = {TOKEN_FIELDS};
const struct json_table token_table = JSON_TABLE("Token", struct token_view, token_fields);

static const struct json_field new_token_fields[] = {
	TOKEN_FIELDS,
	VIEW("token", token, .help = "The token itself; it is not shown again."),
};
const struct json_table new_token_table = JSON_TABLE("NewToken", struct token_view, new_token_fields);

static json_t *dump(const struct token_record *record, char *text)
{
	cleanup_free char *created = format_time(record->created_at);
	cleanup_free char *expires = format_time(record->expires_at);
	cleanup_free char *used = format_time(record->last_used_at);
	char *names[N_SCOPES + 1];
	struct token_view view = {
		.id = (char *)record->id,
		.project = (char *)record->project,
		.label = (char *)record->label,
		.scopes = {names, access_scope_names(record->scopes, names)},
		.created_at = created,
		.expires_at = expires,
		.last_used_at = used,
		.token = text,
	};

	return json_dump(text ? &new_token_table : &token_table, &view);
}

static void make_hash(const char *text, char ret[TOKEN_HASH_BYTES])
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct sha256_ctx hash;

	sha256_init(&hash);
	sha256_update(&hash, strlen(text), (const uint8_t *)text);
	sha256_digest(&hash, sizeof(digest), digest);
	hex_encode(digest, sizeof(digest), ret);
}

/* Who comes with it. */

static void note_use(struct hulld *hulld, const struct token_record *record)
{
	int64_t now = now_ms();
	struct error err;

	if (now - record->last_used_at >= USED_EVERY_MS && store_token_used(hulld->store, record->id, now, &err) < 0)
		log_error_object(&err, "when a token was used is not kept");
}

int token_identify(struct hulld *hulld, const char *text, struct client *ret, struct error *err)
{
	char id[TOKEN_ID_BYTES + 1] = "", hash[TOKEN_HASH_BYTES];
	struct token_record record;
	int r;

	if (strlen(text) == TOKEN_CHARS)
		snprintf(id, sizeof(id), "%s", text + strlen(TOKEN_PREFIX));
	make_hash(text, hash);
	r = store_token_get(hulld->store, id, &record, err);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r < 0)
		memset(&record, 0, sizeof(record)); /* compared all the same */
	if (!memeql_sec(hash, record.hash, TOKEN_HASH_BYTES))
		return error_set(err, EACCES, "the token is wrong");
	if (record.expires_at && record.expires_at <= now_ms()) /* said to who has it only */
		return error_set(err, EACCES, "the token has expired");
	snprintf(ret->project, sizeof(ret->project), "%s", record.project);
	snprintf(ret->token, sizeof(ret->token), "%s", record.id);
	snprintf(ret->label, sizeof(ret->label), "%s", record.label);
	ret->scopes = record.scopes;
	ret->expires_at = record.expires_at;
	note_use(hulld, &record);
	return 0;
}

/* Over HTTP. */

/* Nobody gives what it has not: neither scopes, nor time. 0, or -ECANCELED with `problem` set. */
static int check_gift(const struct client *giver, const struct token_record *gift, struct problem *problem)
{
	if (giver->is_host)
		return 0;
	if (gift->scopes & ~giver->scopes)
		return problem_set(problem, PROBLEM_FORBIDDEN, "scopes", "a token makes no token that may do more than itself");
	if (giver->expires_at && (!gift->expires_at || gift->expires_at > giver->expires_at))
		return problem_set(problem, PROBLEM_FORBIDDEN, "expires_in_s", "a token makes no token that is valid for longer than itself");
	return 0;
}

/* 0, or -ECANCELED with `problem` set. One that has expired makes room. */
static int check_room_of(struct hulld *hulld, const char *project, unsigned scopes, int max, const char *what, struct problem *problem)
{
	struct error err;
	int64_t n = store_tokens_count(hulld->store, project, scopes, &err);

	if (n >= max)
		n = store_tokens_make_room(hulld->store, project, scopes, now_ms(), &err) == 1 ? max - 1 : n;
	if (n < 0)
		return problem_from_error(problem, &err);
	if (n < max)
		return 0;
	problem_set(problem, PROBLEM_QUOTA_EXCEEDED, NULL, "a project may have %d tokens%s", max, what);
	return problem_set_hint(problem, "revoke what is not needed");
}

static int check_room(struct hulld *hulld, const struct token_record *record, struct problem *problem)
{
	unsigned admin = record->scopes & SCOPE_BIT(SCOPE_ADMIN);
	int r = admin ? check_room_of(hulld, record->project, admin, TOKENS_ADMIN_MAX, " with the scope admin", problem) : 0;

	return r < 0 ? r : check_room_of(hulld, record->project, 0, TOKENS_MAX, "", problem);
}

int tokens_forget(struct hulld *hulld, int64_t now, struct error *err)
{
	return store_tokens_prune(hulld->store, now - KEPT_MS, FORGET_MAX, err);
}

static void fill_record(const struct request *req, const struct token_spec *spec, struct token_record *ret, char text[TOKEN_CHARS + 1])
{
	*ret = (struct token_record){.created_at = now_ms()};
	ret->id[0] = 't';
	random_base32(ret->id + 1, TOKEN_ID_BYTES - 1);
	snprintf(ret->project, sizeof(ret->project), "%s", request_project(req));
	snprintf(ret->label, sizeof(ret->label), "%s", spec->label);
	for (size_t i = 0; i < spec->scopes.len; i++)
		ret->scopes |= SCOPE_BIT(access_scope_by_name(spec->scopes.items[i]));
	ret->expires_at = spec->expires_in_s ? ret->created_at + spec->expires_in_s * 1000 : 0;
	snprintf(text, TOKEN_CHARS + 1, TOKEN_PREFIX "%s_", ret->id);
	random_base32(text + TOKEN_CHARS - SECRET_CHARS, SECRET_CHARS);
	make_hash(text, ret->hash);
}

/* With the answer that shows it. 0 or -errno with `err` set. */
static int insert(struct request *req, struct store *store, const struct token_record *record, const json_t *shown, struct error *err)
{
	int r = store_transaction_begin(store, err);

	if (r < 0)
		return r;
	r = store_token_insert(store, record, err);
	if (r == 0)
		r = request_keep(req, 201, shown, err);
	return store_transaction_end(store, r, err);
}

void token_http_create(struct request *req, void *ctx)
{
	char text[TOKEN_CHARS + 1];
	struct token_record record;
	struct hulld *hulld = ctx;
	struct token_spec spec;
	struct problem problem;
	struct error err;
	json_t *shown;

	if (request_read(req, &token_spec_table, &spec) < 0)
		return;
	fill_record(req, &spec, &record, text);
	json_done(&token_spec_table, &spec);
	shown = dump(&record, text);
	explicit_bzero(text, sizeof(text));
	if (check_gift(request_client(req), &record, &problem) < 0 || check_room(hulld, &record, &problem) < 0)
		request_refuse(req, &problem);
	else if (insert(req, hulld->store, &record, shown, &err) < 0)
		request_refuse_error(req, &err);
	else
		request_reply(req, 201, json_incref(shown));
	json_decref(shown);
	forgetter_look(hulld->forgetter);
}

static int list_one(void *ctx, const struct token_record *record)
{
	char key[PAGE_KEY_MAX + 1];
	struct page *page = ctx;

	if (page_has(page, page_time_key(record->created_at, record->id, key)))
		page_add(page, key, dump(record, NULL));
	return 0;
}

void token_http_list(struct request *req, void *ctx)
{
	struct hulld *hulld = ctx;
	struct page page;
	struct error err;

	if (page_begin(req, &page) < 0)
		return;
	page_end(&page, req, store_tokens_each(hulld->store, request_project(req), list_one, &page, &err), &err);
}

/* The project's token that the path names. False: refused. */
static bool find(struct request *req, struct hulld *hulld, struct token_record *ret)
{
	struct error err;
	int r = store_token_get(hulld->store, request_param(req), ret, &err);

	if (r == 0 && strcmp(ret->project, request_project(req)) == 0)
		return true;
	if (r < 0 && r != -ENOENT)
		request_refuse_error(req, &err);
	else
		request_refuse_with(req, PROBLEM_NOT_FOUND, NULL, "there is no token \"%s\"", request_param(req));
	return false;
}

void token_http_get(struct request *req, void *ctx)
{
	struct token_record record;

	if (find(req, ctx, &record))
		request_reply_matching(req, dump(&record, NULL));
}

static bool came_with(const struct client *client, void *id)
{
	return strcmp(client->token, id) == 0;
}

void token_http_delete(struct request *req, void *ctx)
{
	struct token_record record;
	struct hulld *hulld = ctx;
	struct error err;

	if (!find(req, hulld, &record) || request_check_match(req, dump(&record, NULL)) < 0)
		return;
	if (store_token_delete(hulld->store, record.id, &err) < 0) {
		request_refuse_error(req, &err);
		return;
	}
	request_reply(req, 204, NULL);
	http_end_requests(hulld->http, came_with, record.id);
}
