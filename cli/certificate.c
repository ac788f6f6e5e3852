/* hull ca; hull certificate set, list, rm. */
#include "cli/collection.h"
#include "cli/commands.h"
#include "cli/request.h"
#include "common/buf.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PEM_MAX 65536 /* bytes; the API takes fewer */

const struct option_def certificate_set_options[] = {
	{0, "certificate", "FILE", "the certificate, and those that lead to its authority, in PEM"},
	{0, "key", "FILE", "its key, in PEM, without a password"},
	OUTPUT_OPTION,
	{0},
};

int ca_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = client_new(args, fail);
	json_t *authority = NULL;
	int r = client ? client_call(client, "GET", "/v1/ca", NULL, &authority, fail) : -fail->error.errnum;

	if (r == 0)
		fputs(json_text(authority, "certificate"), stdout);
	json_decref(authority);
	return r;
}

/* What the option's file has, into `body` by the option's name. */
static int add_file(const struct args *args, const char *option, json_t *body, struct failure *fail)
{
	const char *path = args_value(args, option);
	char field[32];
	struct buf text;
	int r;

	snprintf(field, sizeof(field), "--%s", option);
	if (!path)
		return failure_usage(fail, field, "is required");
	buf_init(&text, PEM_MAX);
	r = buf_read_file(&text, path);
	if (r < 0)
		r = error_set_field(&fail->error, -r, field, "cannot read %s: %s", path, strerror(-r));
	else if (json_object_set_new(body, option, json_stringn(text.data ? text.data : "", text.len)) < 0)
		r = error_set_field(&fail->error, EINVAL, field, "%s is not UTF-8", path);
	buf_done(&text);
	return r;
}

int certificate_set_run(const struct args *args, struct failure *fail)
{
	cleanup_free char *path = client_path("certificates", args->operands[0], "");
	json_t *body = json_object();
	int r = add_file(args, "certificate", body, fail);

	if (r == 0)
		r = add_file(args, "key", body, fail);
	if (r == 0)
		return request_print(args, "PUT", path, body, OUTPUT_TABLE, "hostname", fail);
	json_decref(body);
	return r;
}

static void add_certificate(struct table *table, const json_t *certificate)
{
	char age[AGE_MAX];

	table_add(table, "%s", json_text(certificate, "hostname"));
	table_add(table, "%.10s", json_text(certificate, "expires_at"));
	table_add(table, "%s", age_text(json_text(certificate, "updated_at"), time(NULL), age));
	table_add(table, "%s", json_text(certificate, "refused")[0] ? "refused" : "given");
}

static const struct collection certificates = {"certificates", "hostname", "HOST NAME|EXPIRES|SET|STATE", add_certificate};

int certificate_list_run(const struct args *args, struct failure *fail)
{
	return collection_list(&certificates, args, fail);
}

int certificate_remove_run(const struct args *args, struct failure *fail)
{
	return collection_remove(&certificates, "", args, fail);
}
