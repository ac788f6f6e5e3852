/* Which events a client asks for, and may see. */
#include "api/event_filter.h"

#include "api/access.h"
#include "api/event_types.h"
#include "api/http.h"

#include <stdio.h>
#include <string.h>

bool event_filter_fits(const struct event_filter *filter, int type, const char *subject, const char *name)
{
	if (type < 0 || !(filter->types & (UINT64_C(1) << type)))
		return false;
	return !filter->machine[0] || ((event_type_is_of(type, "machine") || event_type_is_of(type, "operation")) &&
					      (strcmp(filter->machine, subject) == 0 || strcmp(filter->machine, name) == 0));
}

void event_filter_read(const struct request *req, struct event_filter *ret)
{
	const char *machine = request_query(req, "machine"), *types = request_query(req, "type");
	const struct client *client = request_client(req);

	*ret = (struct event_filter){.types = UINT64_MAX};
	if (types)
		event_types_parse(types, &ret->types);
	/* Who may not see tokens and webhooks, or the host, does not see them come and go. */
	if (!client->is_host && !(client->scopes & SCOPE_BIT(SCOPE_ADMIN)))
		ret->types &= ~(event_types_of("token") | event_types_of("webhook"));
	if (!client->is_host)
		ret->types &= ~event_types_of("host");
	snprintf(ret->machine, sizeof(ret->machine), "%s", machine ? machine : "");
}
