/* GET /v1/machines: which machines a client asks for, by state, name and labels, in pages. */
#include "api/machine_http.h"
#include "api/health.h"
#include "api/idle.h"
#include "api/labels.h"
#include "api/machine.h"
#include "api/page.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

struct filter {
	unsigned states; /* as machine_http_read_states() has them; 0: any */
	const char *name; /* NULL: any; it may end in "*" */
	struct label_filter labels;
	uint64_t label_bits; /* of all of them */
};

const char *const machine_state_words[] = {
	"created", "starting", "running", "suspending", "suspended", "resuming", "stopping", "stopped", "failed", "healthy", "unhealthy", "asleep", NULL};
static_assert(ARRAY_SIZE(machine_state_words) == N_STATE_WORDS - MACHINE_CREATED + 1, "every state has its word");

const char *machine_http_state_word(int bit)
{
	return machine_state_words[bit - MACHINE_CREATED];
}

bool machine_http_is_in(const struct machine *m, unsigned states)
{
	bool runs = m->record.state == MACHINE_RUNNING, healthy = !m->spec.health || health_state(m) == HEALTH_HEALTHY;

	return states & 1u << m->record.state || (runs && healthy && states & 1u << STATE_HEALTHY) ||
	       (health_state(m) == HEALTH_UNHEALTHY && states & 1u << STATE_UNHEALTHY) || (idle_sleeps(m) && states & 1u << STATE_ASLEEP);
}

unsigned machine_http_read_states(const char *list)
{
	unsigned states = 0;

	while (list) {
		size_t len = strcspn(list, ",");

		for (int state = MACHINE_CREATED; state < N_STATE_WORDS; state++)
			if (strlen(machine_http_state_word(state)) == len && strncmp(machine_http_state_word(state), list, len) == 0)
				states |= 1u << state;
		list = list[len] ? list + len + 1 : NULL;
	}
	return states;
}

/* A label sets one bit by its key and one by all of it: a machine without one of the bits lacks the label, and need not be looked at. */

#define FNV_BASIS 2166136261u /* FNV-1a, 32 bits */

static uint32_t hash_on(uint32_t hash, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char)text[i]) * 16777619u;
	return hash;
}

static uint64_t bit_of(uint32_t hash)
{
	return UINT64_C(1) << (hash >> 26);
}

static void forget_empty(json_t **map)
{
	if (json_object_size(*map))
		return;
	json_decref(*map);
	*map = NULL;
}

void machine_note_spec(struct machine *m)
{
	json_t *value;
	const char *key;

	m->label_bits = 0;
	json_object_foreach(m->spec.labels, key, value) {
		uint32_t hash = hash_on(FNV_BASIS, key, strlen(key));

		m->label_bits |= bit_of(hash);
		hash = hash_on(hash_on(hash, "=", 1), json_string_value(value), json_string_length(value));
		m->label_bits |= bit_of(hash);
	}
	forget_empty(&m->spec.env);
	forget_empty(&m->spec.labels);
}

/* 0, or -ECANCELED having refused. */
static int read_filter(struct request *req, struct filter *ret)
{
	*ret = (struct filter){.name = request_query(req, "name"), .states = machine_http_read_states(request_query(req, "state"))};
	if (label_filter_read(req, &ret->labels) < 0)
		return -ECANCELED;
	for (size_t i = 0; i < ret->labels.n; i++) { /* each "key", or "key=value" */
		const char *label = ret->labels.labels[i];

		ret->label_bits |= bit_of(hash_on(FNV_BASIS, label, strlen(label)));
	}
	return 0;
}

static bool has_name(const struct machine *m, const char *wanted)
{
	size_t len = strlen(wanted);

	if (len && wanted[len - 1] == '*')
		return strncmp(m->record.name, wanted, len - 1) == 0;
	return strcmp(m->record.name, wanted) == 0;
}

static bool fits(const struct machine *m, const char *project, const struct filter *filter)
{
	if (m->record.state == MACHINE_CREATING || strcmp(m->record.project, project) != 0)
		return false;
	if ((m->label_bits & filter->label_bits) != filter->label_bits)
		return false;
	if ((filter->states && !machine_http_is_in(m, filter->states)) || (filter->name && !has_name(m, filter->name)))
		return false;
	return label_filter_fits(&filter->labels, m->spec.labels);
}

void machine_http_list(struct request *req, void *ctx)
{
	const struct hulld *hulld = ctx;
	char key[PAGE_KEY_MAX + 1];
	struct filter filter;
	struct page page;

	if (read_filter(req, &filter) < 0 || page_begin(req, &page) < 0)
		return;
	for (const struct machine *m = hulld->machines; m && !page_is_full(&page); m = m->next)
		if (fits(m, request_project(req), &filter) && page_has(&page, page_time_key(m->record.created_at, m->record.id, key)))
			page_add(&page, key, machine_dump(m));
	page_reply(&page, req);
}
