/* What is copied from or to a machine: the object that hulld and the agent exchange (guest-kernel/hull_guest.h, FILES). */
#ifndef HULL_COMMON_FILE_SPEC_H
#define HULL_COMMON_FILE_SPEC_H

#include "common/json.h"

enum file_verb { FILE_GET, FILE_PUT };

struct file_spec {
	int verb;   /* enum file_verb */
	char *path; /* absolute */
	bool into;  /* PUT: as unpack_options.into */
};
extern const struct json_table file_spec_table;

#endif
