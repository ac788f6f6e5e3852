/* hull host inspect, drain, undrain. */
#include "cli/bar.h"
#include "cli/commands.h"
#include "cli/request.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#define LOOK_EVERY_NS 200000000l
#define TIMEOUT_MAX   86400

const struct option_def host_drain_options[] = {
	{'t', "deadline", "S", "seconds until what still runs is killed (60)"},
	{0, "no-wait", NULL, "return at once, while machines end"},
	OUTPUT_OPTION,
	{0},
};

int host_inspect_run(const struct args *args, struct failure *fail)
{
	return request_print(args, "GET", "/v1/host", NULL, OUTPUT_JSON, "state", fail);
}

int host_undrain_run(const struct args *args, struct failure *fail)
{
	return request_print(args, "POST", "/v1/host/undrain", NULL, OUTPUT_TABLE, "state", fail);
}

static void show_drain(struct bar *bar, const json_t *host)
{
	const json_t *progress = json_object_get(host, "progress");
	uint64_t done = (uint64_t)json_number(progress, "done"), total = (uint64_t)json_number(progress, "total");
	char what[80];

	snprintf(what, sizeof(what), "%" PRIu64 " of %" PRIu64 " machines have ended", done, total);
	bar_steps(bar, done, total, what);
}

/* Until `*host`, as it is seen last, is not being drained any more. */
static int wait_for_end(struct client *client, json_t **host, struct failure *fail)
{
	struct bar bar;
	int r = 0;

	bar_begin(&bar, "host");
	while (r == 0 && strcmp(json_text(*host, "state"), "draining") == 0) {
		nanosleep(&(struct timespec){.tv_nsec = LOOK_EVERY_NS}, NULL);
		json_decref(*host);
		*host = NULL;
		r = client_call(client, "GET", "/v1/host", NULL, host, fail);
		show_drain(&bar, *host);
	}
	bar_end(&bar);
	if (r == 0 && strcmp(json_text(*host, "state"), "drained") != 0)
		return error_set(&fail->error, ECANCELED, "the host serves again: somebody has undrained it");
	return r;
}

int host_drain_run(const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	json_t *body = json_object(), *host = NULL;
	enum output_format format;
	long long timeout_s;
	int r = output_format(args, OUTPUT_TABLE, &format, fail);

	if (r == 0)
		r = args_integer(args, "deadline", 0, TIMEOUT_MAX, -1, &timeout_s, fail);
	if (r == 0 && timeout_s >= 0)
		json_object_set_new(body, "timeout_s", json_integer(timeout_s));
	client = r == 0 ? client_new(args, fail) : NULL;
	if (r == 0)
		r = client ? client_call(client, "POST", "/v1/host/drain", body, &host, fail) : -fail->error.errnum;
	if (r == 0 && !args_flag(args, "no-wait"))
		r = wait_for_end(client, &host, fail);
	if (r == 0)
		print_made(host, "state", format);
	json_decref(host);
	json_decref(body);
	return r;
}
