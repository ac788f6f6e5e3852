/* The volumes in numbers, for Prometheus: what hulld knows of them, and what the host's file system says of their files. */
#ifndef HULL_API_METRICS_VOLUMES_H
#define HULL_API_METRICS_VOLUMES_H

#include <stdio.h>

struct hulld;
struct metrics_volumes;

/* All volumes as they are now; a copy, of some 200 bytes each. Aborts without memory. Loop thread. */
struct metrics_volumes *metrics_volumes_new(const struct hulld *hulld);
void metrics_volumes_free(struct metrics_volumes *volumes); /* NULL is fine */

/* Asks for each of them, by one stat(2), and writes all samples. Any one thread. */
void metrics_volumes_write(const struct metrics_volumes *volumes, FILE *out);

#endif
