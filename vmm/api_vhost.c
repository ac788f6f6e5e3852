/* Shared folders put into the description of a machine, and taken out again. */
#include "vmm/api_vhost.h"

#include "vmm/devices_vhost.h"
#include "vmm/monitor.h"

#define KEY "filesystems"

/* A socket that is not there is told at once; that it is none of a back-end's, when the machine starts. */
int vhost_put_filesystem(void *ctx, struct api_call *call, struct error *err)
{
	const char *socket = json_string_value(json_object_get(call->body, "socket"));

	if (socket && devices_vhost_look(socket, err) < 0)
		return error_in_field(err, "socket");
	return config_put(&((struct monitor *)ctx)->config, KEY, call->id, call->body, err);
}

int vhost_delete_filesystem(void *ctx, struct api_call *call, struct error *err)
{
	return config_remove(&((struct monitor *)ctx)->config, KEY, call->id, err);
}
