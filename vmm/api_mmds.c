/* The metadata, for its owner. It may be put and changed at any time; who reads it, and how, is settled before the start. */
#include "vmm/api_mmds.h"

#include "devices/mmds.h"
#include "vmm/monitor.h"

#include <errno.h>

static struct mmds_store *store_of(void *ctx)
{
	return &((struct monitor *)ctx)->mmds->store;
}

/* One that is too large has a status of its own. */
static int finish(int r, struct api_call *call)
{
	if (r == -EMSGSIZE)
		call->refusal = 413;
	return r;
}

int mmds_get_data(void *ctx, struct api_call *call, struct error *err)
{
	(void)err;
	call->answer = mmds_store_get(store_of(ctx));
	return 0;
}

int mmds_put_data(void *ctx, struct api_call *call, struct error *err)
{
	return finish(mmds_store_put(store_of(ctx), call->body, err), call);
}

int mmds_patch_data(void *ctx, struct api_call *call, struct error *err)
{
	return finish(mmds_store_patch(store_of(ctx), call->body, err), call);
}

int mmds_put_config(void *ctx, struct api_call *call, struct error *err)
{
	return config_put(&((struct monitor *)ctx)->config, "mmds-config", NULL, call->body, err);
}
