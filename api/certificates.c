#include "api/certificates.h"

#include "api/hostnames.h"
#include "api/page.h"
#include "api/project.h"
#include "api/secrets.h"
#include "api/x509.h"
#include "common/cleanup.h"
#include "common/hex.h"
#include "common/log.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

static const struct json_field certificate_spec_fields[] = {
	{"certificate", JSON_FIELD_STRING, offsetof(struct certificate_spec, certificate), .required = true, .min = 1, .max = X509_PEM_MAX,
		.help = "PEM: the certificate for the name first, then those that lead to its authority, each signed by the next."},
	{"key", JSON_FIELD_STRING, offsetof(struct certificate_spec, key), .required = true, .min = 1, .max = X509_PEM_MAX,
		.help = "PEM, without a password; it is never shown."},
};
const struct json_table certificate_spec_table = JSON_TABLE("CertificateSpec", struct certificate_spec, certificate_spec_fields);

#define VIEW(name_, member_, ...) {name_, JSON_FIELD_STRING, offsetof(struct certificate_view, member_), .read_only = true, __VA_ARGS__}
static const struct json_field certificate_fields[] = {
	VIEW("hostname", hostname),
	VIEW("certificate", certificate, .help = "PEM."),
	VIEW("expires_at", expires_at, .help = "From then on the host's own is served again."),
	VIEW("created_at", created_at),
	VIEW("updated_at", updated_at),
	VIEW("refused", refused, .nullable = true, .help = "Why HAProxy does not take it: until another is set, the host's own is served."),
};
const struct json_table certificate_table = JSON_TABLE("Certificate", struct certificate_view, certificate_fields);

static json_t *dump(const struct certificate_record *record)
{
	cleanup_free char *created = format_time(record->created_at), *updated = format_time(record->updated_at);
	cleanup_free char *expires = format_time(record->expires_at);
	struct certificate_view view = {(char *)record->hostname, record->certificate, expires, created, updated,
		record->refused[0] ? (char *)record->refused : NULL};

	return json_dump(&certificate_table, &view);
}

/* What the key is sealed as: bound to the project, and to a name that no secret has, by a digest, as a host name is longer than those are. */
static struct secret_record sealed_key(const struct certificate_record *record)
{
	struct secret_record key = {.sealed = record->sealed, .sealed_len = record->sealed_len};
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct sha256_ctx sha;
	char name[2 * 20 + 1];

	sha256_init(&sha);
	sha256_update(&sha, strlen(record->hostname), (const uint8_t *)record->hostname);
	sha256_digest(&sha, sizeof(digest), digest);
	hex_encode(digest, 20, name);
	snprintf(key.name, sizeof(key.name), "certificate:%s", name);
	snprintf(key.project, sizeof(key.project), "%s", record->project);
	return key;
}

char *certificates_find(struct hulld *hulld, const char *project, const char *hostname, int64_t *ret_expires_at, struct error *err)
{
	struct certificate_record record;
	struct secret_record sealed;
	json_t *key = NULL;
	char *pem = NULL;

	if (store_certificate_get(hulld->store, project, hostname, &record, err) < 0) {
		if (err->errnum == ENOENT)
			err->errnum = 0;
		return NULL;
	}
	err->errnum = 0;
	*ret_expires_at = record.expires_at;
	sealed = sealed_key(&record);
	if (*ret_expires_at > now_ms() && !record.refused[0])
		key = secrets_unseal(hulld->secrets, &sealed, err);
	if (key && asprintf(&pem, "%s%s", record.certificate, json_string_value(key)) < 0)
		abort();
	json_decref(key);
	certificate_record_done(&record);
	return pem;
}

void certificates_refuse(struct hulld *hulld, const char *project, const char *hostname, const char *answer)
{
	char reason[CERTIFICATE_REFUSED_MAX + 1];
	struct error err;
	size_t len = 0;

	for (; answer[len] && answer[len] != '\n' && len < sizeof(reason) - 1; len++)
		reason[len] = answer[len] < ' ' || answer[len] > '~' ? '?' : answer[len];
	reason[len] = '\0';
	log_warn("the certificate that was given for %s is not served: %s", hostname, reason);
	if (store_certificate_refuse(hulld->store, project, hostname, reason, &err) < 0)
		log_error_object(&err, hostname);
}

int certificates_start(struct hulld *hulld, struct error *err)
{
	struct certificate_record record;
	int64_t expires_at;
	int r;

	while ((r = store_certificate_get_undated(hulld->store, &record, err)) == 0) {
		expires_at = x509_expires_at(record.certificate);
		r = store_certificate_set_date(hulld->store, record.project, record.hostname, expires_at ? expires_at : 1, err);
		certificate_record_done(&record);
		if (r < 0)
			return r;
	}
	return r == -ENOENT ? 0 : r;
}

/* The one that the path names; `*ret` without a certificate when it is not there. -errno: refused. */
static int find(struct request *req, struct hulld *hulld, bool may_be_absent, struct certificate_record *ret)
{
	struct error err;
	int r = dns_name_check(request_param(req), &err);

	*ret = (struct certificate_record){0};
	if (r < 0)
		error_in_field(&err, "hostname");
	else
		r = store_certificate_get(hulld->store, request_project(req), request_param(req), ret, &err);
	if (r == 0 || (r == -ENOENT && may_be_absent))
		return 0;
	if (r == -ENOENT)
		request_refuse_with(req, PROBLEM_NOT_FOUND, NULL, "%s", err.message);
	else
		request_refuse_error(req, &err);
	return r;
}

/* Takes what `spec` has into the record, checked and sealed. 0 or -errno with `err` set. */
static int fill(struct hulld *hulld, const struct certificate_spec *spec, struct certificate_record *record, struct error *err)
{
	struct secret_record sealed = {.name = ""};
	char *certificate, *key;
	int r = x509_check(spec->certificate, spec->key, record->hostname, &certificate, &key, err);

	if (r < 0)
		return r;
	free(record->certificate);
	free(record->sealed);
	record->certificate = certificate;
	record->expires_at = x509_expires_at(certificate);
	record->refused[0] = '\0';
	record->sealed = NULL;
	sealed = sealed_key(record);
	secrets_seal(hulld->secrets, &sealed, key);
	record->sealed = sealed.sealed;
	record->sealed_len = sealed.sealed_len;
	x509_wipe(key);
	return 0;
}

static void refuse_unserved(struct request *req)
{
	struct problem problem;

	problem_set(&problem, PROBLEM_NOT_FOUND, NULL, "no machine is served by the name %.100s", request_param(req));
	problem_set_hint(&problem, "give the name to a machine of the project first, among its ports");
	request_refuse(req, &problem);
}

void certificate_http_put(struct request *req, void *ctx)
{
	struct certificate_record record;
	struct certificate_spec spec;
	struct hulld *hulld = ctx;
	struct problem problem;
	struct error err;
	bool is_new;
	int r;

	if (find(req, hulld, true, &record) < 0)
		return;
	is_new = !record.certificate;
	if (!hostnames_has(hulld, request_project(req), request_param(req))) {
		refuse_unserved(req);
		certificate_record_done(&record);
		return;
	}
	if (is_new && quota_check_row(hulld, request_project(req), STORE_CERTIFICATES, &problem) < 0) {
		request_refuse(req, &problem);
		certificate_record_done(&record);
		return;
	}
	if (request_check_match(req, is_new ? NULL : dump(&record)) < 0 || request_read(req, &certificate_spec_table, &spec) < 0) {
		certificate_record_done(&record);
		return;
	}
	snprintf(record.project, sizeof(record.project), "%s", request_project(req));
	snprintf(record.hostname, sizeof(record.hostname), "%s", request_param(req));
	record.updated_at = now_ms();
	if (is_new)
		record.created_at = record.updated_at;
	r = fill(hulld, &spec, &record, &err);
	explicit_bzero(spec.key, strlen(spec.key));
	json_done(&certificate_spec_table, &spec);
	if (r == 0)
		r = store_certificate_put(hulld->store, &record, &err);
	if (r < 0) {
		request_refuse_error(req, &err);
	} else {
		hostnames_forget_certificate(hulld, record.hostname);
		request_reply(req, is_new ? 201 : 200, dump(&record));
	}
	certificate_record_done(&record);
}

static int list_one(void *ctx, const struct certificate_record *record)
{
	struct page *page = ctx;

	if (page_has(page, record->hostname))
		page_add(page, record->hostname, dump(record));
	return page_is_full(page);
}

void certificate_http_list(struct request *req, void *ctx)
{
	struct hulld *hulld = ctx;
	struct page page;
	struct error err;

	if (page_begin(req, &page) < 0)
		return;
	page_end(&page, req, store_certificates_each(hulld->store, request_project(req), page.after, list_one, &page, &err), &err);
}

void certificate_http_get(struct request *req, void *ctx)
{
	struct certificate_record record;

	if (find(req, ctx, false, &record) < 0)
		return;
	request_reply_matching(req, dump(&record));
	certificate_record_done(&record);
}

void certificate_http_delete(struct request *req, void *ctx)
{
	struct certificate_record record;
	struct hulld *hulld = ctx;
	struct error err;

	if (find(req, hulld, false, &record) < 0)
		return;
	if (request_check_match(req, dump(&record)) == 0) {
		if (store_certificate_delete(hulld->store, record.project, record.hostname, &err) < 0) {
			request_refuse_error(req, &err);
		} else {
			hostnames_forget_certificate(hulld, record.hostname);
			request_reply(req, 204, NULL);
		}
	}
	certificate_record_done(&record);
}
