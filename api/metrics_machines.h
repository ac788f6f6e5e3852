/* The machines in numbers, for Prometheus: what hulld knows of them, and what the host's kernel says of their monitors. */
#ifndef HULL_API_METRICS_MACHINES_H
#define HULL_API_METRICS_MACHINES_H

#include <stdio.h>

struct hulld;
struct metrics_machines;

/* All machines as they are now; a copy, of some 300 bytes each. Aborts without memory. Loop thread. */
struct metrics_machines *metrics_machines_new(const struct hulld *hulld);
void metrics_machines_free(struct metrics_machines *machines); /* NULL is fine */

/* Asks the kernel for each of them, some files of /proc and one stat(2), and writes all samples. Any one thread. */
void metrics_machines_write(struct metrics_machines *machines, FILE *out);

/* The lines in front of a family's samples. */
void metrics_family(FILE *out, const char *name, const char *type, const char *help);

#endif
