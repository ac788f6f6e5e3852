#include "api/x509.h"

#include "api/random.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/io.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define AUTHORITY_S    (3650 * 86400ll)
#define CERTIFICATE_S  (90 * 86400ll)
#define CLOCK_BACK_S   3600 /* a client's clock may be behind ours */
#define SERIAL_BYTES   16
#define COMMON_NAME_MAX 64 /* X.520 */
#define RSA_BITS_MAX	4096

struct x509_authority {
	gnutls_x509_privkey_t key;
	gnutls_x509_crt_t certificate;
	char *pem;
};

static int fail(int code, const char *what, struct error *err)
{
	return error_set(err, code == GNUTLS_E_MEMORY_ERROR ? ENOMEM : EINVAL, "%s: %s", what, gnutls_strerror(code));
}

void x509_wipe(char *pem)
{
	if (pem)
		explicit_bzero(pem, strlen(pem));
	free(pem);
}

static void wipe_datum(gnutls_datum_t *datum)
{
	if (datum->data)
		explicit_bzero(datum->data, datum->size);
	gnutls_free(datum->data);
}

/* Certificates, then the key where there is one. */
static char *join_pem(const gnutls_x509_crt_t *certificates, unsigned n, gnutls_x509_privkey_t key)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	int r = out ? 0 : GNUTLS_E_MEMORY_ERROR;

	for (unsigned i = 0; i <= n && r == 0; i++) {
		gnutls_datum_t datum = {0};

		if (i < n)
			r = gnutls_x509_crt_export2(certificates[i], GNUTLS_X509_FMT_PEM, &datum);
		else if (key)
			r = gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &datum);
		/* An empty line would end HAProxy's command. */
		for (unsigned j = 0; r == 0 && j < datum.size; j++)
			if (datum.data[j] != '\n' || (j && datum.data[j - 1] != '\n'))
				fputc(datum.data[j], out);
		wipe_datum(&datum);
	}
	if (out && fclose(out) != 0)
		r = GNUTLS_E_MEMORY_ERROR;
	if (r == 0)
		return text;
	free(text);
	return NULL;
}

/* What all certificates have; `authority` NULL: it signs itself. */
static int fill_in(gnutls_x509_crt_t certificate, const char *name, int64_t valid_s, gnutls_x509_privkey_t key, bool is_authority)
{
	unsigned char serial[SERIAL_BYTES], id[64];
	size_t id_len = sizeof(id);
	time_t now = time(NULL);
	int r = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof(serial));

	serial[0] = (serial[0] & 0x7f) | 0x40; /* positive, and of that length (RFC 5280, section 4.1.2.2) */
	if (r == 0)
		r = gnutls_x509_crt_set_version(certificate, 3);
	if (r == 0)
		r = gnutls_x509_crt_set_serial(certificate, serial, sizeof(serial));
	if (r == 0)
		r = gnutls_x509_crt_set_activation_time(certificate, now - CLOCK_BACK_S);
	if (r == 0)
		r = gnutls_x509_crt_set_expiration_time(certificate, now + valid_s);
	if (r == 0)
		r = gnutls_x509_crt_set_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, name, (unsigned)strlen(name));
	if (r == 0)
		r = gnutls_x509_crt_set_key(certificate, key);
	if (r == 0)
		r = gnutls_x509_crt_set_basic_constraints(certificate, is_authority, is_authority ? 0 : -1);
	if (r == 0)
		r = gnutls_x509_crt_set_key_usage(certificate, is_authority ? GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN
									    : GNUTLS_KEY_DIGITAL_SIGNATURE);
	if (r == 0)
		r = gnutls_x509_crt_get_key_id(certificate, GNUTLS_KEYID_USE_SHA1, id, &id_len);
	return r < 0 ? r : gnutls_x509_crt_set_subject_key_id(certificate, id, id_len);
}

static int make_key(gnutls_x509_privkey_t *ret)
{
	int r = gnutls_x509_privkey_init(ret);

	return r < 0 ? r : gnutls_x509_privkey_generate(*ret, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
}

/* The authority. */

static int make_authority(struct x509_authority *authority, const char *path, struct error *err)
{
	char name[COMMON_NAME_MAX] = "Hull development CA ", *pem = NULL;
	int r = make_key(&authority->key);

	random_base32(name + strlen(name), 8); /* that of another host, or of before, is another */
	if (r == 0)
		r = gnutls_x509_crt_init(&authority->certificate);
	if (r == 0)
		r = fill_in(authority->certificate, name, AUTHORITY_S, authority->key, true);
	if (r == 0)
		r = gnutls_x509_crt_sign2(authority->certificate, authority->certificate, authority->key, GNUTLS_DIG_SHA256, 0);
	if (r < 0)
		return fail(r, "cannot make a certificate authority", err);
	pem = join_pem(&authority->certificate, 1, authority->key);
	if (!pem)
		return error_set(err, ENOMEM, "out of memory");
	r = write_file_atomic(path, pem, strlen(pem), 0600, err);
	x509_wipe(pem);
	return r;
}

static int read_authority(struct x509_authority *authority, const char *path, struct buf *text, struct error *err)
{
	gnutls_datum_t datum;
	int r = buf_read_file(text, path);

	if (r < 0)
		return error_set_errno(err, -r, "cannot read %s", path);
	datum = (gnutls_datum_t){(unsigned char *)text->data, (unsigned)text->len};
	r = gnutls_x509_privkey_init(&authority->key);
	if (r == 0)
		r = gnutls_x509_privkey_import2(authority->key, &datum, GNUTLS_X509_FMT_PEM, NULL, 0);
	if (r == 0)
		r = gnutls_x509_crt_init(&authority->certificate);
	if (r == 0)
		r = gnutls_x509_crt_import(authority->certificate, &datum, GNUTLS_X509_FMT_PEM);
	return r < 0 ? fail(r, path, err) : 0;
}

static int find_authority(struct x509_authority *authority, const char *state, struct error *err)
{
	cleanup_free char *folder = NULL, *path = NULL;
	struct buf text;
	int r;

	if (asprintf(&folder, "%s/ca", state) < 0 || asprintf(&path, "%s/ca.pem", folder) < 0)
		return error_set(err, ENOMEM, "out of memory");
	r = make_directories(folder, 0700, err);
	if (r < 0)
		return r;
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return make_authority(authority, path, err);
	buf_init(&text, 65536);
	r = read_authority(authority, path, &text, err);
	if (text.data)
		explicit_bzero(text.data, text.len);
	buf_done(&text);
	if (r < 0 || x509_authority_expires_at(authority) / 1000 - time(NULL) >= 2 * CERTIFICATE_S)
		return r;
	/* What it issues now is to be valid for as long as it says. */
	gnutls_x509_crt_deinit(authority->certificate);
	gnutls_x509_privkey_deinit(authority->key);
	authority->certificate = NULL;
	authority->key = NULL;
	return make_authority(authority, path, err);
}

struct x509_authority *x509_authority_new(const char *state, struct error *err)
{
	struct x509_authority *authority = calloc(1, sizeof(*authority));

	if (!authority)
		abort();
	if (find_authority(authority, state, err) == 0) {
		authority->pem = join_pem(&authority->certificate, 1, NULL);
		if (authority->pem)
			return authority;
		error_set(err, ENOMEM, "out of memory");
	}
	x509_authority_free(authority);
	return NULL;
}

void x509_authority_free(struct x509_authority *authority)
{
	if (!authority)
		return;
	if (authority->certificate)
		gnutls_x509_crt_deinit(authority->certificate);
	if (authority->key)
		gnutls_x509_privkey_deinit(authority->key);
	free(authority->pem);
	free(authority);
}

const char *x509_authority_pem(const struct x509_authority *authority)
{
	return authority->pem;
}

int64_t x509_authority_expires_at(const struct x509_authority *authority)
{
	return (int64_t)gnutls_x509_crt_get_expiration_time(authority->certificate) * 1000;
}

/* What it issues. */

static int sign(const struct x509_authority *authority, gnutls_x509_crt_t certificate, const char *hostname)
{
	unsigned char id[64];
	size_t id_len = sizeof(id);
	int r = gnutls_x509_crt_set_subject_alt_name(
		certificate, GNUTLS_SAN_DNSNAME, hostname, (unsigned)strlen(hostname), GNUTLS_FSAN_SET);

	if (r == 0)
		r = gnutls_x509_crt_set_key_purpose_oid(certificate, GNUTLS_KP_TLS_WWW_SERVER, 0);
	if (r == 0)
		r = gnutls_x509_crt_get_subject_key_id(authority->certificate, id, &id_len, NULL);
	if (r == 0)
		r = gnutls_x509_crt_set_authority_key_id(certificate, id, id_len);
	return r < 0 ? r : gnutls_x509_crt_sign2(certificate, authority->certificate, authority->key, GNUTLS_DIG_SHA256, 0);
}

char *x509_issue(const struct x509_authority *authority, const char *hostname, int64_t *ret_expires_at, struct error *err)
{
	gnutls_x509_privkey_t key = NULL;
	gnutls_x509_crt_t certificate = NULL;
	char *pem = NULL;
	int r = make_key(&key);

	if (r == 0)
		r = gnutls_x509_crt_init(&certificate);
	if (r == 0)
		r = fill_in(certificate, strlen(hostname) <= COMMON_NAME_MAX ? hostname : "Hull", CERTIFICATE_S, key, false);
	if (r == 0)
		r = sign(authority, certificate, hostname);
	if (r == 0) {
		*ret_expires_at = (int64_t)gnutls_x509_crt_get_expiration_time(certificate) * 1000;
		pem = join_pem(&certificate, 1, key);
	}
	if (!pem)
		fail(r < 0 ? r : GNUTLS_E_MEMORY_ERROR, "cannot make a certificate", err);
	if (certificate)
		gnutls_x509_crt_deinit(certificate);
	if (key)
		gnutls_x509_privkey_deinit(key);
	return pem;
}

bool x509_is_issued(const struct x509_authority *authority, const char *hostname, const char *pem, int64_t *ret_expires_at)
{
	gnutls_datum_t datum = {(unsigned char *)pem, (unsigned)strlen(pem)};
	gnutls_x509_crt_t certificate;
	unsigned status = ~0u;
	bool is_issued;

	if (gnutls_x509_crt_init(&certificate) < 0)
		return false;
	is_issued = gnutls_x509_crt_import(certificate, &datum, GNUTLS_X509_FMT_PEM) == 0 &&
		    gnutls_x509_crt_check_hostname(certificate, hostname) &&
		    gnutls_x509_crt_verify(certificate, &authority->certificate, 1, 0, &status) == 0 && status == 0;
	if (is_issued)
		*ret_expires_at = (int64_t)gnutls_x509_crt_get_expiration_time(certificate) * 1000;
	gnutls_x509_crt_deinit(certificate);
	return is_issued;
}

/* What is given. */

int64_t x509_expires_at(const char *pem)
{
	gnutls_datum_t datum = {(unsigned char *)pem, (unsigned)strlen(pem)};
	gnutls_x509_crt_t certificate;
	int64_t expires_at = 0;

	if (gnutls_x509_crt_init(&certificate) < 0)
		return 0;
	if (gnutls_x509_crt_import(certificate, &datum, GNUTLS_X509_FMT_PEM) == 0)
		expires_at = (int64_t)gnutls_x509_crt_get_expiration_time(certificate) * 1000;
	gnutls_x509_crt_deinit(certificate);
	return expires_at;
}

/* OpenSSL at its level 2, as Debian's HAProxy has it, takes no weaker ones. Larger ones than RSA_BITS_MAX take a tenth of a second of a processor for
 * each handshake, which is all names'. */
static bool is_usable(gnutls_x509_crt_t certificate)
{
	unsigned bits;
	int algorithm = gnutls_x509_crt_get_pk_algorithm(certificate, &bits);

	if (algorithm == GNUTLS_PK_RSA ? bits < 2048 || bits > RSA_BITS_MAX : algorithm != GNUTLS_PK_ECDSA || bits < 256)
		return false;
	return gnutls_sign_is_secure2(gnutls_x509_crt_get_signature_algorithm(certificate), GNUTLS_SIGN_FLAG_SECURE_FOR_CERTS);
}

static int check_certificate(const gnutls_x509_crt_t *list, unsigned n, const char *hostname, struct error *err)
{
	time_t now = time(NULL);

	if (!gnutls_x509_crt_check_hostname(list[0], hostname))
		return error_set_field(err, EINVAL, "certificate", "is not for %.100s", hostname);
	for (unsigned i = 0; i < n; i++) {
		if (gnutls_x509_crt_get_expiration_time(list[i]) <= now)
			return error_set_field(err, EINVAL, "certificate", "has expired");
		if (gnutls_x509_crt_get_activation_time(list[i]) > now)
			return error_set_field(err, EINVAL, "certificate", "is not valid yet");
		if (!is_usable(list[i]))
			return error_set_field(err, EINVAL, "certificate", "must have a key of RSA with 2048 to %d bits, or of P-256 or more, and be signed with SHA-256 or better", RSA_BITS_MAX);
	}
	return 0;
}

static bool key_fits(gnutls_x509_crt_t certificate, gnutls_x509_privkey_t key)
{
	unsigned char of_certificate[64], of_key[64];
	size_t certificate_len = sizeof(of_certificate), key_len = sizeof(of_key);

	return gnutls_x509_crt_get_key_id(certificate, GNUTLS_KEYID_USE_SHA256, of_certificate, &certificate_len) == 0 &&
	       gnutls_x509_privkey_get_key_id(key, GNUTLS_KEYID_USE_SHA256, of_key, &key_len) == 0 && certificate_len == key_len &&
	       memcmp(of_certificate, of_key, key_len) == 0;
}

static int check_key(gnutls_x509_crt_t certificate, const char *text, char **ret, struct error *err)
{
	gnutls_datum_t datum = {(unsigned char *)text, (unsigned)strlen(text)};
	gnutls_x509_privkey_t key;
	int r = gnutls_x509_privkey_init(&key);

	if (r < 0)
		return fail(r, "cannot read a key", err);
	if (gnutls_x509_privkey_import2(key, &datum, GNUTLS_X509_FMT_PEM, NULL, 0) < 0)
		r = error_set_field(err, EINVAL, "key", "is no key in PEM without a password");
	else if (!key_fits(certificate, key) || gnutls_x509_privkey_verify_params(key) < 0) /* its primes may be others', and larger */
		r = error_set_field(err, EINVAL, "key", "is not that of the certificate");
	else if (!(*ret = join_pem(NULL, 0, key)))
		r = error_set(err, ENOMEM, "out of memory");
	gnutls_x509_privkey_deinit(key);
	return r;
}

int x509_check(const char *certificate, const char *key, const char *hostname, char **ret_certificate, char **ret_key, struct error *err)
{
	gnutls_datum_t datum = {(unsigned char *)certificate, (unsigned)strlen(certificate)};
	char *key_pem = NULL, *pem = NULL;
	gnutls_x509_crt_t *list;
	unsigned n;
	int r;

	if (gnutls_x509_crt_list_import2(&list, &n, &datum, GNUTLS_X509_FMT_PEM, GNUTLS_X509_CRT_LIST_FAIL_IF_UNSORTED) < 0)
		return error_set_field(err, EINVAL, "certificate", "is no certificate in PEM, or those behind it are not in order");
	r = check_certificate(list, n, hostname, err);
	if (r == 0)
		r = check_key(list[0], key, &key_pem, err);
	if (r == 0 && !(pem = join_pem(list, n, NULL)))
		r = error_set(err, ENOMEM, "out of memory");
	if (r == 0 && strlen(pem) + strlen(key_pem) > X509_PEM_MAX)
		r = error_set_field(err, EINVAL, "certificate", "may have at most %d bytes, its key included", X509_PEM_MAX);
	for (unsigned i = 0; i < n; i++)
		gnutls_x509_crt_deinit(list[i]);
	gnutls_free(list);
	if (r == 0) {
		*ret_certificate = pem;
		*ret_key = key_pem;
		return 0;
	}
	free(pem);
	x509_wipe(key_pem);
	return r;
}
