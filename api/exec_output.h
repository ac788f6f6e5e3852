/* What a program wrote, collected for one answer. */
#ifndef HULL_API_EXEC_OUTPUT_H
#define HULL_API_EXEC_OUTPUT_H

#include "common/frame.h"

#include <jansson.h>
#include <stdbool.h>

#define EXEC_OUTPUT_MAX (1u << 20) /* bytes of each; what is more is dropped, and the answer says so */

struct exec_output;

struct exec_output *exec_output_new(void); /* allocation failure aborts */
void exec_output_free(struct exec_output *output); /* NULL is fine */

/* A frame of the agent's after STARTED; without `has_room`, what the program wrote is dropped. 0, -EPROTO when no such frame may
 * come, -ENOMEM. */
int exec_output_take(struct exec_output *output, const struct frame *frame, bool has_room);
size_t exec_output_bytes(const struct exec_output *output); /* that it keeps */
/* Has EXIT come? */
bool exec_output_ended(const struct exec_output *output);
/* An ExecResult (spec.h), a new reference. */
json_t *exec_output_dump(const struct exec_output *output);

#endif
