/* All machines: in the order in which they were made, and found by id and by name without a look at each. See machine.h. */
#include "api/machine.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

/* Both kinds of key are in one tree: no project's name is empty, and ids are no project's. */
static int compare(const void *a, const void *b)
{
	const struct machine_key *one = a, *other = b;
	int r = strcmp(one->project, other->project);

	return r ? r : strcmp(one->name, other->name);
}

static void add_key(struct machine *m, struct machine_key *key, const char *project, const char *name)
{
	*key = (struct machine_key){project, name, m};
	if (!tsearch(key, &m->hulld->machine_keys, compare))
		abort();
}

static void remove_key(struct machine *m, const struct machine_key *key)
{
	tdelete(key, &m->hulld->machine_keys, compare);
}

static struct machine *find(const struct hulld *hulld, const char *project, const char *name)
{
	const struct machine_key wanted = {project, name, NULL};
	struct machine_key *const *found = tfind(&wanted, &hulld->machine_keys, compare);

	return found ? (*found)->machine : NULL;
}

struct machine *machine_find(struct hulld *hulld, const char *project, const char *id_or_name)
{
	struct machine *m = find(hulld, "", id_or_name);

	return m && strcmp(m->record.project, project) == 0 ? m : find(hulld, project, id_or_name);
}

struct machine *machine_by_name(const struct hulld *hulld, const char *project, const char *name)
{
	return find(hulld, project, name);
}

struct machine *machine_by_id(struct hulld *hulld, const char *id)
{
	return find(hulld, "", id);
}

static bool is_older(const struct machine_record *a, const struct machine_record *b)
{
	return a->created_at != b->created_at ? a->created_at < b->created_at : strcmp(a->id, b->id) < 0;
}

/* By time, as the database has them: the clock may have been set back. Clients that read in pages rely on it. */
static void link_in(struct machine *m)
{
	struct hulld *hulld = m->hulld;
	struct machine *before = hulld->last_machine;

	while (before && is_older(&m->record, &before->record))
		before = before->previous;
	m->previous = before;
	m->next = before ? before->next : hulld->machines;
	*(before ? &before->next : &hulld->machines) = m;
	*(m->next ? &m->next->previous : &hulld->last_machine) = m;
}

void machine_index_add(struct machine *m)
{
	link_in(m);
	add_key(m, &m->by_id, "", m->record.id);
	machine_index_add_name(m);
}

void machine_index_remove(struct machine *m)
{
	struct hulld *hulld = m->hulld;

	machine_index_remove_name(m);
	remove_key(m, &m->by_id);
	*(m->previous ? &m->previous->next : &hulld->machines) = m->next;
	*(m->next ? &m->next->previous : &hulld->last_machine) = m->previous;
}

void machine_index_add_name(struct machine *m)
{
	add_key(m, &m->by_name, m->record.project, m->record.name);
}

void machine_index_remove_name(struct machine *m)
{
	remove_key(m, &m->by_name);
}
