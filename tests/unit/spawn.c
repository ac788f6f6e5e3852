/* Children that wait at a gate, in our memory. */
#include "tests/unit/test.h"

#include "api/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct child {
	pid_t pid;
	int gate, output;
};

/* The compiler makes a call of a loop that does the same: under a sanitizer, or as what is bound late, that writes to our memory. */
static volatile bool is_called_by_child; /* which has it, too */
static pid_t tester;
size_t __real_strlen(const char *text);
size_t __wrap_strlen(const char *text);
size_t __wrap_strlen(const char *text)
{
	if (syscall(SYS_getpid) != tester)
		is_called_by_child = true;
	return __real_strlen(text);
}

/* Its standard output and error are a file in memory. */
static struct child spawn(const char *const *argv)
{
	struct child child = {.output = memfd_create("output", MFD_CLOEXEC)};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), gate[2];
	struct error err;

	assert_int_equal(pipe2(gate, O_CLOEXEC), 0);
	child.pid = spawn_at_gate(argv, (int[]){null, child.output, child.output}, 3, gate[0], &err);
	assert_true(child.pid > 0);
	close(gate[0]);
	close(null);
	child.gate = gate[1];
	return child;
}

static void open_gate(struct child *child)
{
	assert_int_equal(write(child->gate, "g", 1), 1);
}

/* Its status; `ret` has what it said. */
static int end(struct child *child, char *ret, size_t size)
{
	ssize_t n;
	int status;

	close(child->gate);
	assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
	n = pread(child->output, ret, size - 1, 0);
	close(child->output);
	assert_true(n >= 0);
	ret[n] = '\0';
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static struct child shell(const char *script)
{
	return spawn((const char *[]){"/bin/sh", "-c", script, NULL});
}

static void it_has_what_it_is_given_and_no_more(void **state)
{
	struct child child;
	char said[4096], expected[256];
	sigset_t usr1;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	setenv("HULL_TEST", "environment", 1);
	child = shell("echo $HULL_TEST; umask; ls /proc/$$/fd; cut -d' ' -f6 /proc/$$/stat; exec grep -E '^Sig(Blk|Ign)' /proc/self/status");
	open_gate(&child);
	assert_int_equal(end(&child, said, sizeof(said)), 0);
	sigprocmask(SIG_UNBLOCK, &usr1, NULL);
	signal(SIGPIPE, SIG_DFL);
	snprintf(expected, sizeof(expected), "environment\n0077\n0\n1\n2\n%d\nSigBlk:\t0000000000000000\nSigIgn:\t",
		(int)child.pid); /* its session is its own */
	assert_memory_equal(said, expected, strlen(expected));
	assert_false(strtoull(said + strlen(expected), NULL, 16) & 1 << (SIGPIPE - 1));
}

static void at_a_gate_that_is_closed_it_ends_without_having_done_a_thing(void **state)
{
	struct child child = shell("echo here");
	char said[64];

	(void)state;
	assert_int_equal(end(&child, said, sizeof(said)), 0);
	assert_string_equal(said, "");
}

static void what_cannot_be_executed_says_so(void **state)
{
	struct child child = spawn((const char *[]){"/nowhere/program", NULL});
	char said[64];

	(void)state;
	open_gate(&child);
	assert_int_equal(end(&child, said, sizeof(said)), 127);
	assert_string_equal(said, "hulld: cannot execute /nowhere/program\n");
	assert_false(is_called_by_child);
}

static void many_wait_at_once_each_with_its_own(void **state)
{
	struct child children[20];
	char text[16], said[16];

	(void)state;
	for (int i = 0; i < 20; i++) {
		snprintf(text, sizeof(text), "%d", i);
		children[i] = spawn((const char *[]){"/bin/echo", text, NULL}); /* `text` is borrowed only until then */
	}
	for (int i = 20; i-- > 0;)
		open_gate(&children[i]);
	for (int i = 0; i < 20; i++) {
		snprintf(text, sizeof(text), "%d\n", i);
		assert_int_equal(end(&children[i], said, sizeof(said)), 0);
		assert_string_equal(said, text);
	}
}

static unsigned count_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned n = 0;
	int c;

	assert_non_null(maps);
	while ((c = fgetc(maps)) != EOF)
		n += c == '\n';
	fclose(maps);
	return n;
}

static void memory_is_used_again_however_it_was_left(void **state)
{
	unsigned before = 0;
	char said[64];

	(void)state;
	for (int i = 0; i < 300; i++) {
		struct child child = i % 3 == 2 ? spawn((const char *[]){"/nowhere", NULL}) : shell("exit 0");

		if (i % 3)
			open_gate(&child);
		end(&child, said, sizeof(said));
		if (i == 0)
			before = count_mappings();
	}
	assert_int_equal(count_mappings(), before);
}

/* It ends where it waits; who made it goes on. */
static void one_that_is_killed_at_its_gate_harms_nobody(void **state)
{
	struct child child = shell("echo here");
	int status;

	(void)state;
	kill(child.pid, SIGKILL);
	assert_int_equal(waitpid(child.pid, &status, 0), child.pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	close(child.gate);
	assert_int_equal(lseek(child.output, 0, SEEK_END), 0);
	close(child.output);
}

/* It is the only one that has the memory then. */
static void one_whose_maker_is_killed_ends_at_its_gate(void **state)
{
	int gate[2], told[2];
	pid_t maker, child;
	char byte;

	(void)state;
	assert_int_equal(pipe(told), 0);
	maker = fork();
	if (maker == 0) {
		struct error err;

		if (pipe2(gate, O_CLOEXEC) < 0)
			_exit(1);
		child = spawn_at_gate((const char *[]){"/bin/echo", "here", NULL}, (int[]){0, told[1], told[1]}, 3, gate[0], &err);
		kill(child > 0 ? getpid() : 0, SIGKILL);
	}
	close(told[1]);
	assert_int_equal(waitpid(maker, NULL, 0), maker);
	assert_int_equal(read(told[0], &byte, 1), 0); /* nobody has the other end any more, nor has said a thing */
	close(told[0]);
}

static void too_many_arguments_are_refused(void **state)
{
	const char *argv[64] = {"/bin/true"};
	static char *text;
	struct error err;

	(void)state;
	text = calloc(1, 100000);
	memset(text, 'x', 99999);
	for (int i = 1; i < 63; i++)
		argv[i] = "";
	assert_int_equal(spawn_at_gate(argv, NULL, 0, -1, &err), -E2BIG);
	assert_int_equal(spawn_at_gate((const char *[]){"/bin/true", text, NULL}, NULL, 0, -1, &err), -E2BIG);
	assert_string_equal(err.message, "cannot start /bin/true: Argument list too long");
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_has_what_it_is_given_and_no_more),
		cmocka_unit_test(at_a_gate_that_is_closed_it_ends_without_having_done_a_thing),
		cmocka_unit_test(what_cannot_be_executed_says_so),
		cmocka_unit_test(many_wait_at_once_each_with_its_own),
		cmocka_unit_test(memory_is_used_again_however_it_was_left),
		cmocka_unit_test(one_that_is_killed_at_its_gate_harms_nobody),
		cmocka_unit_test(one_whose_maker_is_killed_ends_at_its_gate),
		cmocka_unit_test(too_many_arguments_are_refused),
	};

	tester = getpid();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
