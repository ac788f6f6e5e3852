#include "cli/request.h"

struct client *request_begin(const struct args *args, enum output_format def, enum output_format *ret, struct failure *fail)
{
	return output_format(args, def, ret, fail) == 0 ? client_new(args, fail) : NULL;
}

int request_print(const struct args *args, const char *method, const char *path, json_t *body, enum output_format def, const char *key,
	struct failure *fail)
{
	enum output_format format;
	cleanup(client_free_p) struct client *client = request_begin(args, def, &format, fail);
	json_t *answer = NULL;
	int r = client ? client_call(client, method, path, body, &answer, fail) : -fail->error.errnum;

	if (r == 0)
		print_made(answer, key, format);
	json_decref(answer);
	json_decref(body);
	return r;
}
