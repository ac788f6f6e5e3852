/* The types of events. See event_types.h. */
#include "api/event_types.h"

#include "common/checked.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* Those of rows are written by the triggers of store_events.c. */
#define TYPES                                                                                                  \
	"machine.created", "machine.starting", "machine.running", "machine.stopping", "machine.stopped",                \
		"machine.failed", "machine.restart_scheduled", "machine.restart_cancelled", "machine.updated",          \
		"machine.deleted", "machine.healthy", "machine.unhealthy", "machine.waiting", "machine.frozen", "machine.thawed",\
		"machine.asleep", "machine.waking", "machine.suspending", "machine.suspended", "machine.resuming",         \
		"machine.suspend_failed", "machine.network_lost",                                                                                               \
		"operation.started", "operation.phase", "operation.succeeded", "operation.failed", "operation.cancelled",                       \
		"image.put", "image.deleted",                                                                           \
		"network.created", "network.updated", "network.deleted",                                                \
		"secret.set", "secret.deleted", "certificate.set", "certificate.refused", "certificate.deleted",        \
		"token.created", "token.revoked", "token.removed",                                                                     \
		"project.created", "project.updated",                                                                   \
		"volume.created", "volume.updated", "volume.deleted",                                                   \
		"webhook.created", "webhook.updated", "webhook.disabled", "webhook.deleted",                           \
		"host.draining", "host.drained", "host.serving"

static const char *const types[] = {TYPES};
static_assert(ARRAY_SIZE(types) <= 64, "each has its bit");

const char *const event_type_words[] = {"machine", "operation", "image", "network", "secret", "certificate", "token", "project", "volume", "webhook", "host", TYPES, NULL};

int event_type_by_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (strcmp(types[i], name) == 0)
			return (int)i;
	return -1;
}

static bool is_of(int type, const char *thing, size_t len)
{
	return strncmp(types[type], thing, len) == 0 && types[type][len] == '.';
}

bool event_type_is_of(int type, const char *thing)
{
	return is_of(type, thing, strlen(thing));
}

static uint64_t bits_of(const char *word, size_t len)
{
	uint64_t bits = 0;

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (is_of((int)i, word, len) || (strlen(types[i]) == len && strncmp(types[i], word, len) == 0))
			bits |= UINT64_C(1) << i;
	return bits;
}

uint64_t event_types_of(const char *thing)
{
	return bits_of(thing, strlen(thing));
}

int event_types_parse(const char *list, uint64_t *ret)
{
	uint64_t all = 0;

	for (;;) {
		size_t len = strcspn(list, ",");
		uint64_t bits = len ? bits_of(list, len) : 0;

		if (!bits)
			return -EINVAL;
		all |= bits;
		if (!list[len])
			break;
		list += len + 1;
	}
	*ret = all;
	return 0;
}
