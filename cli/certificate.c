/* hull ca. */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/output.h"

#include <errno.h>
#include <stdio.h>

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
