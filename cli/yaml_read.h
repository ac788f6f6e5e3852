/* YAML, and with it JSON, read as JSON values, each with the line that it began in. */
#ifndef HULL_CLI_YAML_READ_H
#define HULL_CLI_YAML_READ_H

#include "common/error.h"

#include <jansson.h>
#include <stddef.h>

struct yaml_document {
	json_t *value; /* owned */
	/* Owned: an object of line numbers by path, as the API names fields ("ports[0].host"); "" is the document's own. */
	json_t *lines;
};

/* All documents of a text, `*ret` an owned array of `*ret_n` that yaml_documents_free() frees. A plain word is a
 * number, true, false or null where YAML 1.1 and the core schema of 1.2 agree that it is, and in decimal; else it is a string. Keys are
 * strings, and none comes twice; aliases, and tags other than those of JSON's types, are refused. 0, or -EINVAL with `err` set: its
 * message begins with "line N: ". Allocation failure aborts. */
int yaml_read(const char *text, size_t len, struct yaml_document **ret, size_t *ret_n, struct error *err);
void yaml_documents_free(struct yaml_document *documents, size_t n);

/* The line of a field, or of the nearest that it is in. */
int yaml_line(const json_t *lines, const char *path);

#endif
