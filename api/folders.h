/* The folders of the host that a machine sees: who may see which, and what serves them. Called by machine_check.c and supervisor.c.
 *
 * Theory of operation. Each `host_path` of a run has a process of its own, hull-virtiofs(8), which finds the folder, becomes virtiofsd, and is
 * asked by the monitor through a socket that hulld has made, so that it is there from the beginning. It ends by itself when the monitor has
 * gone. As passt, it waits at a gate until it is known who it is: that is in `folders` of the run folder, for a later hulld.
 *
 *	spawned   all wait at their gates, and so does the monitor
 *	begun     each finds its folder, and says so; what is wrong with one ends the start. The monitor is let go once all have
 *	serving   one that ends while the monitor is there is lost, and the machine with it: its programs would wait for ever
 *
 * Whatever a folder's file system does, it holds up that process, not hulld, which never looks at a folder itself. */
#ifndef HULL_API_FOLDERS_H
#define HULL_API_FOLDERS_H

#include "api/machine.h"

struct folders;

/* May the project's machines see the folders of that spec? By names alone, which the process that serves it looks at again. 0, or -ECANCELED with
 * `problem` set. */
int folders_check(const struct hulld *hulld, const char *project, const struct machine_spec *spec, struct problem *problem);
/* Can this host serve any? NULL, or why not. */
const char *folders_why_not(const struct hulld *hulld);
bool folders_has_any(const struct machine_spec *spec);

/* Spawns what serves those of the run that begins. 0, m->folders then being NULL where it has none, or -errno with `err` set. */
int folders_spawn(struct machine *m, struct error *err);
/* They begin; then `monitor_gate` (owned) is opened. Or supervisor_lose_folder() is called, later. 0 or -errno with `err` set. */
int folders_begin(struct machine *m, int monitor_gate, struct error *err);
/* Those of a run that an earlier hulld has begun, whether they live or not. */
void folders_adopt(struct machine *m);
/* Which is lost, and why; NULL: none. Valid until folders_end(). */
const char *folders_lost(const struct machine *m);
/* One that is waited for; NULL: none, the monitor has been let go. */
const char *folders_awaited(const struct machine *m);
/* Ends them, and leaves nothing. */
void folders_end(struct machine *m);
/* Frees what is in memory; they go on. */
void folders_release(struct machine *m);

/* launch.c: where the monitor finds the one that serves mounts[i], and by which tag the guest. Returns `ret`. */
char *folder_socket_path(const struct machine *m, size_t i, char *ret, size_t size);
#define FOLDER_TAG_MAX 16
char *folder_tag(size_t i, char ret[FOLDER_TAG_MAX]);

#endif
