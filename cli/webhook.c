/* hull webhook create, list, inspect, enable, disable, ping, rm. */
#include "cli/collection.h"
#include "cli/commands.h"
#include "cli/operands.h"
#include "cli/request.h"
#include "cli/spec.h"
#include "common/buf.h"

#include <errno.h>
#include <string.h>

const struct option_def webhook_create_options[] = {
	{0, "event", "TYPE", "only of this type, as machine.failed, or of this thing, as machine; may be repeated (all)"},
	{0, "label", "KEY=VALUE", "label; may be repeated"},
	{0, "secret-file", "FILE", "the secret of its signatures; one is made when it is absent"},
	{0, "disabled", NULL, "send nothing yet"},
	OUTPUT_OPTION,
	{0},
};

static int add_secret(const struct args *args, json_t *spec, struct failure *fail)
{
	const char *file = args_value(args, "secret-file");
	struct buf text;
	int r;

	if (!file)
		return 0;
	buf_init(&text, 4096);
	r = buf_read_file(&text, file);
	if (r < 0) {
		r = error_set_field(&fail->error, -r, file, "%s", strerror(-r));
	} else {
		if (text.len && text.data[text.len - 1] == '\n')
			text.len--;
		if (json_object_set_new(spec, "secret", json_stringn(text.data ? text.data : "", text.len)) < 0)
			r = error_set_field(&fail->error, EINVAL, file, "is not UTF-8");
	}
	buf_done(&text);
	return r;
}

static int add_all(const struct args *args, json_t *spec, struct failure *fail)
{
	json_t *events = json_array(), *labels = json_object();
	const char *value;
	size_t i = 0;
	int r = add_secret(args, spec, fail);

	json_object_set_new(spec, "events", events);
	json_object_set_new(spec, "labels", labels);
	json_object_set_new(spec, "enabled", json_boolean(!args_flag(args, "disabled")));
	if (r == 0)
		r = spec_add_texts(args, "event", events, fail);
	while (r == 0 && (value = args_next(args, "label", &i)))
		r = spec_add_pair(labels, "--label", value, fail);
	if (r == 0 && json_object_set_new(spec, "url", json_string(args->operands[0])) < 0)
		r = failure_usage(fail, "URL", "is not UTF-8");
	return r;
}

int webhook_create_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	json_t *spec = json_object(), *hook = NULL;
	enum output_format format;
	int r = output_format(args, OUTPUT_TABLE, &format, fail);

	if (r == 0)
		r = add_all(args, spec, fail);
	client = r == 0 ? client_new(args, fail) : NULL;
	if (r == 0)
		r = client ? client_call(client, "POST", "/v1/webhooks", spec, &hook, fail) : -fail->error.errnum;
	if (r == 0 && format == OUTPUT_TABLE)
		printf("%s\n%s\n", json_text(hook, "id"), json_text(hook, "secret"));
	else if (r == 0)
		print_value(hook, format);
	json_decref(hook);
	json_decref(spec);
	return r;
}

static void add_row(struct table *table, const json_t *hook)
{
	const char *why = json_text(hook, "last_error");
	char age[AGE_MAX];

	table_add(table, "%s", json_text(hook, "id"));
	table_add(table, "%s", json_text(hook, "state"));
	table_add(table, "%s", json_text(hook, "url"));
	table_add(table, "%s", age_text(json_text(hook, "last_delivered_at"), time(NULL), age));
	table_add(table, "%lld", (long long)json_number(hook, "failures"));
	table_add(table, "%s", why);
}

static const struct collection webhooks = {"webhooks", "id", "ID|STATE|URL|DELIVERED|FAILURES|WHY", add_row};

int webhook_list_run(const struct args *args, struct failure *fail)
{
	return collection_list(&webhooks, args, fail);
}

int webhook_inspect_run(const struct args *args, struct failure *fail)
{
	return collection_inspect(&webhooks, args, fail);
}

int webhook_remove_run(const struct args *args, struct failure *fail)
{
	return collection_remove(&webhooks, "", args, fail);
}

struct change {
	struct client *client;
	json_t *patch;
};

static int change_one(void *ctx, const char *webhook, struct failure *fail)
{
	const struct change *change = ctx;
	cleanup_free char *path = client_path("webhooks", webhook, "");
	int r = client_patch(change->client, path, NULL, change->patch, NULL, fail);

	if (r == 0)
		printf("%s\n", webhook);
	return r;
}

static int set_enabled(const struct args *args, bool enabled, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = client_new(args, fail);
	struct change change = {client, json_pack("{s:b}", "enabled", enabled)};
	int r = client ? operands_each(args, change_one, &change, fail) : -fail->error.errnum;

	json_decref(change.patch);
	return r;
}

int webhook_enable_run(const struct args *args, struct failure *fail)
{
	return set_enabled(args, true, fail);
}

int webhook_disable_run(const struct args *args, struct failure *fail)
{
	return set_enabled(args, false, fail);
}

/* What was not delivered is a failure, which a script sees by the exit status. */
int webhook_ping_run(const struct args *args, struct failure *fail)
{
	enum output_format format;
	cleanup(client_free_p) struct client *client = request_begin(args, OUTPUT_TABLE, &format, fail);
	cleanup_free char *path = client_path("webhooks", args->operands[0], "/ping");
	json_t *result = NULL;
	bool delivered;
	int r = client ? client_call(client, "POST", path, NULL, &result, fail) : -fail->error.errnum;

	if (r < 0)
		return r;
	delivered = json_is_true(json_object_get(result, "delivered"));
	if (format != OUTPUT_TABLE)
		print_value(result, format);
	else if (delivered)
		printf("delivered: status %lld, %lld ms\n", (long long)json_number(result, "status"), (long long)json_number(result, "took_ms"));
	else
		r = error_set_field(&fail->error, EIO, args->operands[0], "not delivered: %s", json_text(result, "error"));
	json_decref(result);
	return r < 0 ? r : !delivered;
}
