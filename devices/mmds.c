/* The metadata service of one machine: what its interfaces have in common. */
#include "devices/mmds.h"

#include "common/cleanup.h"
#include "common/json.h"
#include "common/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STATE_NAME    "mmds"
#define STATE_VERSION 1

struct mmds *mmds_new(const char *instance, size_t limit_bytes, struct error *err)
{
	struct mmds *mmds = calloc(1, sizeof(*mmds));
	int r = mmds ? mmds_tokens_init(&mmds->tokens, instance, monotonic_ns()) : -ENOMEM;

	if (r < 0) {
		error_set_errno(err, -r, "no metadata service");
		mmds_free(mmds);
		return NULL;
	}
	mmds_store_init(&mmds->store, limit_bytes);
	mmds->address = MMDS_ADDRESS_DEFAULT;
	return mmds;
}

void mmds_free(struct mmds *mmds)
{
	if (!mmds)
		return;
	mmds_store_done(&mmds->store);
	mmds_tokens_done(&mmds->tokens);
	free(mmds);
}

void mmds_save(const struct mmds *mmds, struct state_writer *w, uint64_t now_ns)
{
	cleanup_free char *text = mmds->store.data ? json_dumps(mmds->store.data, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

	if (mmds->store.data && !text)
		abort();
	state_begin(w, STATE_NAME, STATE_VERSION);
	mmds_tokens_save(&mmds->tokens, w, now_ns);
	state_put_u8(w, text != NULL);
	state_put_bytes(w, text ? text : "", text ? (uint32_t)strlen(text) : 0);
	state_end(w);
}

/* The document as it was saved: 0 with NULL when there was none. */
static int read_data(struct state_reader *r, json_t **ret, struct error *err)
{
	bool there = state_get_u8(r);
	const uint8_t *text;
	uint32_t len = state_get_bytes(r, &text);

	*ret = NULL;
	if (r->failed || (!there && len))
		return error_set(err, EINVAL, "saved metadata is cut off");
	if (there)
		*ret = json_parse((const char *)text, len, err);
	return there && !*ret ? -EINVAL : 0;
}

int mmds_load(struct mmds *mmds, struct state_reader *r, uint64_t now_ns, struct error *err)
{
	struct mmds_tokens tokens = {.instance = mmds->tokens.instance};
	cleanup(json_decrefp) json_t *data = NULL;
	int result = state_begin_section(r, STATE_NAME, STATE_VERSION, err);

	if (result < 0)
		return result;
	if (mmds_tokens_load(&tokens, r, now_ns) < 0)
		return error_set(err, EINVAL, "saved metadata service has an impossible key");
	result = read_data(r, &data, err);
	if (result == 0)
		result = state_end_section(r, err);
	if (result == 0 && data && mmds_store_put(&mmds->store, data, err) < 0)
		result = -EINVAL;
	if (result < 0)
		return result;
	if (!data)
		mmds_store_done(&mmds->store);
	mmds->tokens = tokens;
	return 0;
}
