/* The signals that may ask a workload to end. */
#include "common/stop_signal.h"

#include "common/checked.h"

#include <signal.h>

const char *const stop_signal_names[] = {STOP_SIGNALS, NULL};

int stop_signal_number(int index)
{
	/* SIGRTMIN is no constant, hence no static table; the order is that of stop_signal_names. */
	const int numbers[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGKILL, SIGWINCH, SIGABRT, SIGALRM, SIGPWR, SIGRTMIN + 3};

	_Static_assert(ARRAY_SIZE(numbers) == ARRAY_SIZE(stop_signal_names) - 1, "one number a name");
	return numbers[index];
}
