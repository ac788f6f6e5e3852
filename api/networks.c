#include "api/networks.h"

#include "api/machine_private.h"
#include "api/network/words.h"
#include "api/network_watch.h"
#include "common/buf.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define HOSTS_MAX (1u << 20) /* bytes; a line of each of 1021 machines has 80 at most */

int network_read(const struct network_record *record, struct network_spec *ret_spec, struct subnet *ret_subnet, struct error *err)
{
	json_t *parsed = json_parse(record->spec, strlen(record->spec), err);
	int r = parsed ? json_read(&network_spec_table, parsed, ret_spec, err) : -EINVAL;

	json_decref(parsed);
	if (r == 0) {
		r = subnet_parse(ret_spec->subnet ? ret_spec->subnet : "", ret_subnet, err);
		if (r < 0)
			json_done(&network_spec_table, ret_spec);
	}
	return r < 0 ? error_set(err, EIO, "network %s is damaged in the database, and can only be deleted", record->name) : 0;
}

static int plan(const struct network_record *record, struct network_plan *ret, struct error *err)
{
	struct network_spec spec;
	int r = network_read(record, &spec, &ret->subnet, err);

	if (r < 0)
		return r;
	ret->egress = spec.egress;
	snprintf(ret->id, sizeof(ret->id), "%s", record->id);
	json_done(&network_spec_table, &spec);
	return 0;
}

int network_find(struct hulld *hulld, const char *project, const char *name, struct network_plan *ret, struct error *err)
{
	struct network_record record;
	int r = store_network_get(hulld->store, project, name, &record, err);

	if (r < 0)
		return r;
	r = plan(&record, ret, err);
	network_record_done(&record);
	return r;
}

char *network_folder(const struct hulld *hulld, const char *id, char *ret, size_t size)
{
	snprintf(ret, size, "%s/networks/%s", hulld->options.run, id);
	return ret;
}

/* ---- addresses ---- */

static bool is_on(const struct machine_spec *spec, const char *network)
{
	return network_kind(spec) == NETWORK_NAMED && strcmp(spec->network, network) == 0;
}

uint32_t machine_address(const struct machine *m)
{
	return m->run_spec ? m->record.run_address : m->record.address;
}

/* Bits of the subnet's addresses, by what machines of the project have. */
struct taken {
	struct subnet subnet;
	uint8_t bits[(1u << (32 - SUBNET_PREFIX_MIN)) / 8];
};

static void take(struct taken *taken, uint32_t address)
{
	uint32_t i = address - taken->subnet.base;

	if (subnet_has_machine(&taken->subnet, address))
		taken->bits[i / 8] |= (uint8_t)(1 << i % 8);
}

static uint32_t first_free(const struct taken *taken)
{
	for (uint32_t a = subnet_gateway(&taken->subnet) + 1; a <= subnet_last(&taken->subnet); a++) {
		uint32_t i = a - taken->subnet.base;

		if (!(taken->bits[i / 8] & 1 << i % 8))
			return a;
	}
	return 0;
}

static uint32_t choose(struct hulld *hulld, const char *project, const char *network, const struct subnet *subnet)
{
	struct taken taken = {.subnet = *subnet};

	for (const struct machine *m = hulld->machines; m; m = m->next) {
		if (strcmp(m->record.project, project) != 0)
			continue;
		if (is_on(&m->spec, network))
			take(&taken, m->record.address);
		if (m->run_spec && is_on(m->run_spec, network))
			take(&taken, m->record.run_address);
	}
	return first_free(&taken);
}

/* What the machine has in that network already, by its specification or by its run; 0: nothing. */
static uint32_t held_address(const struct machine *changed, const char *network)
{
	if (changed && is_on(&changed->spec, network))
		return changed->record.address;
	return changed && changed->run_spec && is_on(changed->run_spec, network) ? changed->record.run_address : 0;
}

uint32_t network_choose_address(struct hulld *hulld, const char *project, const struct machine *changed, const struct machine_spec *spec)
{
	struct network_plan plan;
	struct error err;
	uint32_t held;

	if (network_kind(spec) != NETWORK_NAMED)
		return 0;
	held = held_address(changed, spec->network);
	if (held)
		return held;
	return network_find(hulld, project, spec->network, &plan, &err) < 0 ? 0 : choose(hulld, project, spec->network, &plan.subnet);
}

int network_check(struct hulld *hulld, const char *project, const struct machine *changed, const struct machine_spec *spec,
	struct problem *problem)
{
	struct network_plan plan;
	struct error err;
	int r;

	if (network_kind(spec) != NETWORK_NAMED)
		return 0;
	r = network_find(hulld, project, spec->network, &plan, &err);
	if (r == -ENOENT) {
		problem_set(problem, PROBLEM_NOT_FOUND, "network", "%s", err.message);
		return problem_set_hint(problem, "create it with POST /v1/networks, or take default or none");
	}
	if (r < 0)
		return problem_from_error(problem, &err);
	if (network_choose_address(hulld, project, changed, spec))
		return 0;
	problem_set(problem, PROBLEM_QUOTA_EXCEEDED, "network", "network %s has no address left", spec->network);
	return problem_set_hint(problem, "delete machines that are not needed, or create a network with a larger subnet");
}

/* ---- names ---- */

/* Who is reached there: by what it runs with. */
static int write_hosts(struct hulld *hulld, const char *project, const char *network, const char *folder, struct error *err)
{
	char address[ADDRESS_TEXT_BYTES], path[512];
	struct buf text;
	int r = 0;

	buf_init(&text, HOSTS_MAX);
	for (const struct machine *m = hulld->machines; m && r == 0; m = m->next)
		if (strcmp(m->record.project, project) == 0 && is_on(machine_running_spec(m), network) && machine_address(m))
			r = buf_printf(&text, "%s %s\n", address_format(machine_address(m), address), m->record.name);
	snprintf(path, sizeof(path), "%s/" NETWORK_HOSTS, folder);
	/* For dnsmasq, which is nobody. */
	r = r < 0 ? error_set_errno(err, -r, "cannot write %s", path) : write_file_whole(path, text.data, text.len, 0644, err);
	buf_done(&text);
	return r;
}

int network_prepare(struct machine *m, const struct network_plan *plan, struct error *err)
{
	char folder[512];
	int r = make_directories(network_folder(m->hulld, plan->id, folder, sizeof(folder)), 0755, err);

	return r < 0 ? r : write_hosts(m->hulld, m->record.project, machine_running_spec(m)->network, folder, err);
}

/* Neither waits, nor fails: where nobody holds the network, nobody has to know. */
static void say(const char *folder, enum network_verb verb)
{
	const struct network_request request = {verb, 0};
	cleanup_close int sock = -1;
	struct error ignored;
	char path[512];

	snprintf(path, sizeof(path), "%s/" NETWORK_SOCKET, folder);
	sock = unix_connect(path, 1, &ignored);
	if (sock >= 0 && send(sock, &request, sizeof(request), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_warn("%s: %s", path, strerror(errno));
}

static void renew(struct hulld *hulld, const char *project, const char *network, const char *id)
{
	char folder[512];
	struct error err;

	if (access(network_folder(hulld, id, folder, sizeof(folder)), F_OK) < 0)
		return; /* nothing has run there since the host is up */
	if (write_hosts(hulld, project, network, folder, &err) < 0)
		log_error_object(&err, network);
	else
		say(folder, NETWORK_RELOAD);
}

void network_tell(struct hulld *hulld, const char *project, const char *network)
{
	struct network_record record;
	struct error err;

	if (network_kind_of(network) != NETWORK_NAMED || store_network_get(hulld->store, project, network, &record, &err) < 0)
		return;
	renew(hulld, project, network, record.id);
	network_record_done(&record);
}

void network_tell_moved(const struct machine *m, const char *before)
{
	const char *now = machine_running_spec(m)->network;

	if (strcmp(before, now) == 0)
		return;
	network_tell(m->hulld, m->record.project, before);
	network_tell(m->hulld, m->record.project, now);
}

/* ---- coming and going ---- */

void network_end(struct hulld *hulld, const char *id)
{
	char folder[512];

	network_watch_end(hulld, id);
	say(network_folder(hulld, id, folder, sizeof(folder)), NETWORK_END);
	machine_remove_folder(folder);
}

struct known {
	struct hulld *hulld;
	char (*ids)[NETWORK_ID_BYTES + 1];
	size_t n;
};

static int take_up(void *ctx, const struct network_record *record)
{
	struct known *known = ctx;

	known->ids = reallocarray(known->ids, known->n + 1, sizeof(*known->ids));
	if (!known->ids)
		abort();
	memcpy(known->ids[known->n++], record->id, sizeof(record->id));
	renew(known->hulld, record->project, record->name, record->id);
	return 0;
}

static bool is_known(const struct known *known, const char *id)
{
	for (size_t i = 0; i < known->n; i++)
		if (strcmp(known->ids[i], id) == 0)
			return true;
	return false;
}

int networks_start(struct hulld *hulld, struct error *err)
{
	struct known known = {.hulld = hulld};
	int r = store_networks_each(hulld->store, NULL, take_up, &known, err);
	struct dirent *entry;
	char path[512];
	DIR *folder;

	snprintf(path, sizeof(path), "%s/networks", hulld->options.run);
	folder = r == 0 ? opendir(path) : NULL;
	while (folder && (entry = readdir(folder)))
		if (entry->d_name[0] != '.' && !is_known(&known, entry->d_name))
			network_end(hulld, entry->d_name);
	if (folder)
		closedir(folder);
	free(known.ids);
	for (struct machine *m = hulld->machines; m; m = m->next)
		if (m->up && machine_is_active(m))
			network_watch_machine(m);
	return r;
}

static int end_one(void *ctx, const struct network_record *record)
{
	network_end(ctx, record->id);
	return 0;
}

void networks_end(struct hulld *hulld, const char *project)
{
	struct error err;

	if (store_networks_each(hulld->store, project, end_one, hulld, &err) < 0)
		log_error_object(&err, project);
}
