/* What is copied from or to a machine. */
#include "common/file_spec.h"

#include "common/exec_spec.h"

static const char *const verb_names[] = {[FILE_GET] = "get", [FILE_PUT] = "put", NULL};

static const struct json_field fields[] = {
	{"verb", JSON_FIELD_ENUM, offsetof(struct file_spec, verb), .required = true, .names = verb_names},
	{"path", JSON_FIELD_STRING, offsetof(struct file_spec, path), .required = true, .min = 1, .max = 4095,
		.check = exec_check_folder},
	{"into", JSON_FIELD_BOOL, offsetof(struct file_spec, into)},
};
const struct json_table file_spec_table = JSON_TABLE("FileSpec", struct file_spec, fields);
