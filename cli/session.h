/* This process's input, output, terminal and signals, joined with a program's in a machine
 * (guest-kernel/hull_guest.h: frames). */
#ifndef HULL_CLI_SESSION_H
#define HULL_CLI_SESSION_H

#include "cli/upgrade.h"

#include <stdbool.h>

/* Adds to an ExecSpec that the program has a terminal like this one's. */
void session_describe_terminal(json_t *spec);

/* Runs until the program has ended. `input`: what is read here goes to it, otherwise it finds nothing to
 * read. `terminal`: this one's is made raw meanwhile, so that what is typed is the program's to interpret.
 * SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on. The program's exit status, or -errno
 * with `fail` set. */
int session_run(struct upgrade *upgrade, bool input, bool terminal, struct failure *fail);

#endif
