/* Reading machines' logs over HTTP: the end of a file, and what is added to it while somebody follows. */
#ifndef HULL_API_LOGS_H
#define HULL_API_LOGS_H

#include "api/http.h"

#include <sys/types.h>

struct hulld;
struct logs;
struct machine;

/* What logs a machine has, as clients name them, and as files in its state folder; both NULL-terminated. */
extern const char *const log_source_names[], *const log_file_names[];

struct logs *logs_new(struct hulld *hulld, struct error *err);
void logs_free(struct logs *logs); /* after http_free(); NULL is fine */

/* Replies with the log `file` (one of log_file_names) from `tail` lines before its end (-1: all); with
 * `follow` until the machine is not active any more and all has been sent. */
void logs_reply(struct logs *logs, struct request *req, const struct machine *m, const char *file, int64_t tail,
	bool follow);

/* Of its log `file`, what lies before `gone` is not there any more. */
void logs_have_gone(struct logs *logs, const char *machine_id, const char *file, off_t gone);

/* The machine's state has changed, or it is gone: followers look again. */
void logs_wake(struct logs *logs, const char *machine_id);

#endif
