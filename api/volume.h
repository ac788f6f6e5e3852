/* Volumes: file systems that last longer than machines, which name them in their `mounts`.
 *
 * Theory of operation. A volume is a row of the database and a sparse file with an ext4, <state>/volumes/<id>.ext4, as large as the row
 * says or, for a moment, larger. hulld never looks into the file: it is a guest's. What is in memory of a volume is nothing; who uses it is
 * found among the machines. A machine *names* a volume by what it is to be or runs with, which keeps the volume from being deleted, and
 * *has* it while it has a monitor: one machine may then, or any number of them that do not write.
 *
 * Crash safety. Each step of what is under way can be the last:
 *
 *	create   <id>.new made by mkfs.ext4, on disk → row and answer → <id>.ext4
 *	delete   <id>.gone, on disk → no row → no file (by a worker: a large one takes its time)
 *	grow     file → row
 *
 * volumes_start() finishes what has a row, and removes what has none but for an .ext4: that may be somebody's data, as when the database
 * is an older one, so it is left, and the log says so. */
#ifndef HULL_API_VOLUME_H
#define HULL_API_VOLUME_H

#include "api/hulld.h"

#define VOLUME_SIZE_MIB_MAX 8388608
#define VOLUME_PATH_MAX	    512

struct machine;

/* As a client says it. */
struct volume_spec {
	char *name;
	int64_t size_mib;
	json_t *labels;
};
extern const struct json_table volume_spec_table;
extern const struct json_table volume_table; /* as a client sees it */

/* Makes the folder, and settles what a hulld that was killed has left. 0 or -errno with `err` set. Before machines are loaded. */
int volumes_start(struct hulld *hulld, struct error *err);
/* Waits for files that are being removed. After http_free(). */
void volumes_end(struct hulld *hulld);

/* <state>/volumes/<id>.<kind>; of no id: the folder. Returns `ret`. */
char *volume_path(const struct hulld *hulld, const char *id, const char *kind, char ret[VOLUME_PATH_MAX]);
/* Removes <id>.gone, later. */
void volume_remove_file(struct hulld *hulld, const char *id);

/* Are all that the spec mounts there? 0, or -ECANCELED with `problem` set. */
int volumes_check(struct hulld *hulld, const char *project, const struct machine_spec *spec, struct problem *problem);
/* Can `m` have what it is to run with, beside all machines that have a monitor? 0, or -ECANCELED with `problem` set. */
int volumes_check_start(const struct machine *m, struct problem *problem);
/* The path of the volume's file. 0 or -errno with `err` set. */
int volume_find_file(struct hulld *hulld, const char *project, const char *name, char ret[VOLUME_PATH_MAX], struct error *err);

/* One of the project that names it; NULL: none does. */
const struct machine *volume_user(const struct hulld *hulld, const char *project, const char *name);
/* How `m` mounts it at present; NULL: it has it not. */
const struct mount_spec *volume_mount_of(const struct machine *m, const char *name);

/* The API's Volume, a new object. */
json_t *volume_dump(const struct hulld *hulld, const struct volume_record *record);

/* Routes; their context is a struct hulld. volume_create.c has the first. */
void volume_http_create(struct request *req, void *ctx);
void volume_http_list(struct request *req, void *ctx);
void volume_http_get(struct request *req, void *ctx);
void volume_http_patch(struct request *req, void *ctx);
void volume_http_delete(struct request *req, void *ctx);

#endif
