/* hull secret set, list, rm. A value is read from a file or the input: other users see a command line. */
#include "cli/collection.h"
#include "cli/commands.h"
#include "cli/request.h"
#include "common/buf.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define VALUE_MAX 131072 /* bytes; the API takes fewer */

const struct option_def secret_set_options[] = {
	{'f', "file", "FILE", "read the value from there, not from the input"},
	OUTPUT_OPTION,
	{0},
};

static int read_value(const char *name, const char *file, struct buf *ret, struct failure *fail)
{
	ssize_t n = 1;
	int r = 0;

	if (!file && isatty(STDIN_FILENO))
		fprintf(stderr, "hull: type the value of %s, then Enter and Ctrl-D\n", name);
	if (file)
		r = buf_read_file(ret, file);
	while (!file && n > 0)
		n = buf_read_fd(ret, STDIN_FILENO, 4096);
	if (n < 0)
		r = (int)n;
	if (r < 0)
		return error_set_field(&fail->error, -r, file ? file : "the input", "%s", strerror(-r));
	/* Of `cat FILE | hull secret set …` without a FILE this is all that is seen here. */
	if (!file && !ret->len) {
		error_set_field(&fail->error, EINVAL, "the input", "is empty");
		return failure_hint(fail, "for example `hull secret set %s <FILE`", name);
	}
	/* The end of the last line is an editor's or echo's, not the value's. */
	if (ret->len && ret->data[ret->len - 1] == '\n')
		ret->len--;
	return 0;
}

int secret_set_run(const struct args *args, struct failure *fail)
{
	enum output_format format;
	cleanup(client_free_p) struct client *client = request_begin(args, OUTPUT_TABLE, &format, fail);
	cleanup_free char *path = client_path("secrets", args->operands[0], "");
	struct buf value;
	json_t *body = NULL, *secret = NULL;
	int r;

	if (!client)
		return -fail->error.errnum; /* before anybody types a value */
	buf_init(&value, VALUE_MAX);
	r = read_value(args->operands[0], args_value(args, "file"), &value, fail);
	if (r == 0) {
		body = json_pack("{s:s%}", "value", value.data ? value.data : "", value.len);
		r = body ? client_call(client, "PUT", path, body, &secret, fail) : error_set_field(&fail->error, EINVAL, "value", "is not UTF-8");
	}
	json_decref(body);
	buf_done(&value);
	if (r == 0)
		print_made(secret, "name", format);
	json_decref(secret);
	return r;
}

static void add_row(struct table *table, const json_t *secret)
{
	char age[AGE_MAX];

	table_add(table, "%s", json_text(secret, "name"));
	table_add(table, "%s", age_text(json_text(secret, "updated_at"), time(NULL), age));
}

static const struct collection secrets = {"secrets", "name", "NAME|SET", add_row};

int secret_list_run(const struct args *args, struct failure *fail)
{
	return collection_list(&secrets, args, fail);
}

int secret_remove_run(const struct args *args, struct failure *fail)
{
	return collection_remove(&secrets, "", args, fail);
}
