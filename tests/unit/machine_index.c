/* All machines: in their order, and found by id and by name, whatever comes, goes and is renamed. */
#include "tests/unit/test.h"

#include "api/machine.h"

#include <string.h>

#define N_MACHINES 300

static struct hulld hulld;
static struct machine machines[N_MACHINES];

static void fill(int i, const char *project, const char *name, int64_t created_at)
{
	struct machine *m = &machines[i];

	*m = (struct machine){.hulld = &hulld};
	snprintf(m->record.id, sizeof(m->record.id), "m%012d", i);
	snprintf(m->record.project, sizeof(m->record.project), "%s", project);
	snprintf(m->record.name, sizeof(m->record.name), "%s", name);
	m->record.created_at = created_at;
	machine_index_add(m);
}

static void remove_all(void)
{
	while (hulld.machines)
		machine_index_remove(hulld.machines);
	assert_null(hulld.last_machine);
	assert_null(hulld.machine_keys);
}

static void a_name_is_a_projects_own(void **state)
{
	(void)state;
	fill(0, "a", "web", 1);
	fill(1, "b", "web", 2);
	assert_ptr_equal(machine_find(&hulld, "a", "web"), &machines[0]);
	assert_ptr_equal(machine_find(&hulld, "b", "web"), &machines[1]);
	assert_null(machine_find(&hulld, "c", "web"));
	assert_null(machine_find(&hulld, "a", machines[1].record.id));
	assert_ptr_equal(machine_find(&hulld, "b", machines[1].record.id), &machines[1]);
	assert_ptr_equal(machine_by_id(&hulld, machines[1].record.id), &machines[1]);
	assert_null(machine_by_id(&hulld, "web"));
	remove_all();
}

/* A client may choose a name that looks like an id, which is found first. */
static void an_id_comes_before_a_name(void **state)
{
	(void)state;
	fill(0, "a", "web", 1);
	fill(1, "a", "m000000000000", 2);
	assert_ptr_equal(machine_find(&hulld, "a", "m000000000000"), &machines[0]);
	fill(2, "b", "m000000000000", 3);
	assert_ptr_equal(machine_find(&hulld, "b", "m000000000000"), &machines[2]);
	remove_all();
}

static void a_new_name_takes_the_place_of_the_old_one(void **state)
{
	(void)state;
	fill(0, "a", "web", 1);
	machine_index_remove_name(&machines[0]);
	strcpy(machines[0].record.name, "other");
	machine_index_add_name(&machines[0]);
	assert_null(machine_find(&hulld, "a", "web"));
	assert_ptr_equal(machine_find(&hulld, "a", "other"), &machines[0]);
	remove_all();
}

static size_t count_in_order(void)
{
	const struct machine *previous = NULL;
	size_t n = 0;

	for (const struct machine *m = hulld.machines; m; previous = m, m = m->next, n++) {
		assert_ptr_equal(m->previous, previous);
		if (previous)
			assert_true(previous->record.created_at < m->record.created_at ||
				    (previous->record.created_at == m->record.created_at &&
					    strcmp(previous->record.id, m->record.id) < 0));
	}
	assert_ptr_equal(hulld.last_machine, previous);
	return n;
}

static void they_are_in_the_order_of_their_times_and_ids(void **state)
{
	char name[16];

	(void)state;
	srand(3);
	for (int i = 0; i < N_MACHINES; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		fill(i, i % 2 ? "a" : "b", name, rand() % 50);
		assert_int_equal(count_in_order(), i + 1);
	}
	for (int i = 0; i < N_MACHINES; i += 3)
		machine_index_remove(&machines[i]);
	assert_int_equal(count_in_order(), N_MACHINES - N_MACHINES / 3);
	for (int i = 0; i < N_MACHINES; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		assert_ptr_equal(machine_find(&hulld, i % 2 ? "a" : "b", name), i % 3 ? &machines[i] : NULL);
	}
	remove_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_is_a_projects_own),
		cmocka_unit_test(an_id_comes_before_a_name),
		cmocka_unit_test(a_new_name_takes_the_place_of_the_old_one),
		cmocka_unit_test(they_are_in_the_order_of_their_times_and_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
