/* launch FILE ROOT COMMAND...: runs COMMAND with FILE as its standard output and ROOT as its root, and prints when it was about to
 * exec it and when it had ended, in nanoseconds of CLOCK_MONOTONIC. Small, so that what a bench itself costs is in no figure. COMMAND does not outlive it. */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static volatile uint64_t begun; /* by the child, in the memory that vfork() shares */

int main(int argc, char **argv)
{
	int out, status;
	uint64_t ended;
	pid_t pid;

	if (argc < 4)
		return 2;
	out = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (out < 0)
		return perror(argv[1]), 1;
	pid = vfork();
	if (pid == 0) {
		dup2(out, STDOUT_FILENO);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (chroot(argv[2]) < 0 || chdir("/") < 0)
			_exit(127);
		begun = now_ns();
		execvp(argv[3], argv + 3);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return perror(argv[3]), 1;
	ended = now_ns();
	printf("%llu %llu %d\n", (unsigned long long)begun, (unsigned long long)ended, WIFEXITED(status) ? WEXITSTATUS(status) : 255);
	return 0;
}
