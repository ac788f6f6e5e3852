/* The signals that may ask a workload to end, for who says so (hulld, images) and who sends them (hull-init). */
#ifndef HULL_COMMON_STOP_SIGNAL_H
#define HULL_COMMON_STOP_SIGNAL_H

/* For tables that have more than these. */
#define STOP_SIGNALS                                                                                           \
	"SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGWINCH", "SIGABRT", "SIGALRM", "SIGPWR", "SIGRTMIN+3"

/* NULL-terminated. */
extern const char *const stop_signal_names[];

/* The number, on this machine, of the one that has this index. */
int stop_signal_number(int index);

#endif
