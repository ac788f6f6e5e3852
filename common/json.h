/* JSON by field table: one table per object reads it, refuses what does not belong, writes it, frees it and
 * describes it (JSON Schema), so that nothing is said twice.
 *
 *	struct port { int64_t host, guest; };
 *	static const struct json_field port_fields[] = {
 *		{"host", JSON_FIELD_INT, offsetof(struct port, host), .min = 1, .max = 65535, .help = "port on the host"},
 *		{"guest", JSON_FIELD_INT, offsetof(struct port, guest), .min = 1, .max = 65535, .required = true},
 *	};
 *	const struct json_table port_table = JSON_TABLE("Port", struct port, port_fields);
 *
 * Refusals name the field by its path ("ports[1].guest"); an unknown key is answered with the nearest known one. */
#ifndef HULL_COMMON_JSON_H
#define HULL_COMMON_JSON_H

#include "common/checked.h"
#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_field_type {
	JSON_FIELD_BOOL,     /* bool */
	JSON_FIELD_INT,	     /* int64_t within [min, max]; 1.0 is one, too, as JSON Schema has it */
	JSON_FIELD_STRING,   /* char *, owned; min..max bytes (max 0: 4096), no NUL inside; `check` if given */
	JSON_FIELD_ENUM,     /* int, an index into `names` (NULL-terminated) */
	JSON_FIELD_OBJECT,   /* a struct in place, by `table` */
	JSON_FIELD_OPTIONAL, /* a pointer to an owned struct, by `table`; NULL when absent */
	JSON_FIELD_ARRAY,    /* struct json_array of structs, by `table`; min..max items (max 0: 1024) */
	JSON_FIELD_STRINGS,  /* struct json_strings; min..max items (max 0: 1024); `check` on each */
	/* json_t *, owned: an object of at most `max` string values (0: 1024; {} when absent); `check` on each key */
	JSON_FIELD_MAP,
	JSON_FIELD_ANY,	     /* json_t *, owned: anything; NULL when absent */
};

struct json_array {
	void *items; /* owned: `len` structs of table->size bytes, side by side */
	size_t len;
};

struct json_strings {
	char **items; /* owned, NULL-terminated; NULL when len is 0 */
	size_t len;
};

struct json_table;

struct json_field {
	const char *name;
	enum json_field_type type;
	size_t offset; /* in the struct */
	bool required;
	bool read_only; /* written by json_dump, refused by json_read: the service's own */
	bool nullable;	/* `null` reads as absent. json_dump writes null for an absent string, optional or any */
	bool secret;	/* json_dump leaves it out */
	bool sparse;	/* json_dump leaves it out while it reads as if it were absent */
	int64_t min, max;
	int64_t item_max;	     /* STRINGS: bytes of each; 0: 4096 */
	int64_t first_min;	     /* STRINGS: bytes of the first, if there is one */
	int64_t def;		     /* what an absent BOOL, INT or ENUM reads as */
	const char *def_string;	     /* what an absent STRING reads as; NULL: NULL */
	const char *const *names;    /* ENUM; of STRINGS, what `check` takes, for the schema (NULL: see `pattern`) */
	const struct json_table *table; /* OBJECT, OPTIONAL, ARRAY */
	size_t present_offset;	     /* of a bool set to "the key was there"; 0: nobody asks (never first in a struct) */
	/* 0, or -errno with `err` set (no field: the reader adds it). The value has passed the type's own rules. */
	int (*check)(const char *value, struct error *err);
	const char *pattern; /* what `check` takes, for the schema: a regular expression of ECMA-262; NULL: a schema has no words for it */
	const char *schema;  /* what the type does not say, and who reads it checks: JSON Schema, as text, added to its own; NULL: nothing */
	const char *help; /* one sentence for the schema and the manual */
};

struct json_table {
	const char *name; /* of the schema: "Machine" */
	const struct json_field *fields;
	size_t n_fields;
	size_t size; /* of the struct, bytes */
	/* What the fields cannot say, and a check after the reading does: JSON Schema, as text. NULL: nothing. */
	const char *rule;
};

#define JSON_TABLE(name_, type_, fields_) JSON_TABLE_WITH_RULE(name_, type_, fields_, NULL)
#define JSON_TABLE_WITH_RULE(name_, type_, fields_, rule_) {(name_), (fields_), ARRAY_SIZE(fields_), sizeof(type_), (rule_)}

#define JSON_DEPTH_MAX 32

/* What an absent `max` is. */
#define JSON_STRING_MAX 4096 /* bytes */
#define JSON_ITEMS_MAX	1024 /* of arrays and maps */

/* An integer, also one that is written as 1.0 or 1e3: within 2^53, as doubles have them all (RFC 8259, section 6). False: it is none. */
bool json_as_int(const json_t *value, int64_t *ret);

/* Parses text: UTF-8, no duplicate keys, at most JSON_DEPTH_MAX deep, nothing after it. A new reference, or NULL with
 * `err` set ("line 3, column 7: …"). */
json_t *json_parse(const char *text, size_t len, struct error *err);
/* The same of a file of at most `max` bytes: one that cannot be read, too, is NULL with `err` set. */
json_t *json_parse_file(const char *path, size_t max, struct error *err);

/* The text of what was parsed or made, compact, with `end` behind it: the bytes that json_dumps(JSON_COMPACT) gives, in a third of the
 * instructions, as a value is not looked for in itself. It must not hold itself. The caller frees. */
char *json_print(const json_t *value, const char *end);

/* Reads `object` into `*ret` (uninitialised memory of table->size bytes). 0 with every field set, read or default;
 * on failure -ENOKEY (an unknown key), -ENODATA (a required one is missing) or -EINVAL (the rest) with `err` set,
 * nothing allocated, `*ret` zeroed. */
int json_read(const struct json_table *table, const json_t *object, void *ret, struct error *err);

/* Frees what json_read() allocated inside and zeroes the struct. */
void json_done(const struct json_table *table, void *object);

/* A new object with every field that is not `secret`; absent optional ones are left out (or null if nullable).
 * Never NULL (allocation failure aborts). */
json_t *json_dump(const struct json_table *table, const void *object);
/* The same as compact text, owned by the caller. */
char *json_dump_text(const struct json_table *table, const void *object);

/* One field of it, also one that json_dump() would leave out: NULL when it is absent and not nullable. */
json_t *json_dump_field(const struct json_field *field, const void *object);
/* The field of that name, or NULL. */
const struct json_field *json_find_field(const struct json_table *table, const char *name);

/* One of its fields as JSON Schema, without a default, and not nullable; tables that it reaches as json_schema() has them. */
json_t *json_schema_field(const struct json_field *field, json_t *schemas);

/* The table as JSON Schema (draft 2020-12), nested tables as {"$ref": "#/components/schemas/NAME"}; and every table it
 * reaches, added to `schemas` by name. */
void json_schema(const struct json_table *table, json_t *schemas);

/* A string of bytes that may be somebody else's, cut anywhere: where they are not UTF-8, with `?` for all that is not
 * ASCII. A new reference. */
json_t *json_lossy_string(const char *bytes);

/* The one of `names` (NULL-terminated) within two edits of `word`, or with a unit behind it as in `word`_mib, or NULL: for "did you mean …?". */
const char *nearest_name(const char *word, const char *const *names);

#endif
