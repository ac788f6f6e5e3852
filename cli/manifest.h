/* What files say of machines, and of the volumes and networks that they name: `hull apply -f FILE`. */
#ifndef HULL_CLI_MANIFEST_H
#define HULL_CLI_MANIFEST_H

#include "cli/args.h"

#include <jansson.h>

struct client;

/* In the order in which they are made. */
enum manifest_kind { MANIFEST_VOLUME, MANIFEST_NETWORK, MANIFEST_MACHINE, MANIFEST_N_KINDS };

/* What the API, and a file, call things of a kind. */
struct manifest_words {
	const char *noun, *collection;		  /* "machine", "machines" */
	const char *shown_schema, *spec_schema; /* of the OpenAPI document: "Machine", "MachineSpec" */
};
extern const struct manifest_words manifest_words[MANIFEST_N_KINDS];

/* One machine, volume or network of a file. */
struct manifest_machine {
	enum manifest_kind kind;
	const char *name; /* borrowed from `spec` */
	json_t *spec;	  /* owned: as the file has it */
	char *file;	  /* owned */
	int document;	  /* of the file, from 1; 0: it has one only */
	char *path;	  /* owned: where it is in the document: "", "machines[2]" */
	json_t *lines;	  /* a reference: yaml_read.h */
};

struct manifest {
	struct manifest_machine *machines; /* owned, in their order */
	size_t n;
};

/* Reads all files of --file; "-" is the input. A document is a machine, a list of them, or {"volumes": [...], "networks":
 * [...], "machines": [...]}. Each has a name, which no other of its kind has; no two subnets of networks overlap. They are in the order of
 * their kinds, networks with a subnet before those without, machines that others depend on before those, else in the files' order. 0 or -errno
 * with `fail` set; manifest_done() either way. */
int manifest_read(const struct args *args, struct manifest *ret, struct failure *fail);
void manifest_done(struct manifest *manifest);

/* What the API shows of a machine, say, and nobody sets, is taken out of those that were shown (which have an `id`): so what `hull inspect`
 * prints can be applied. The API's own description says what that is. 0 or -errno with `fail` set. */
int manifest_strip(struct manifest *manifest, struct client *client, struct failure *fail);

const struct manifest_machine *manifest_find(const struct manifest *manifest, enum manifest_kind kind, const char *name);

/* Puts in front of a refusal where it is: "FILE:LINE: NAME: FIELD: ". Returns -errnum. */
int manifest_refuse(const struct manifest_machine *machine, struct failure *fail);

#endif
