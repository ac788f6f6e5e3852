/* How it is found out whether what a machine is for works: the object that the API's clients, hulld and the agent exchange. */
#ifndef HULL_COMMON_HEALTH_CHECK_H
#define HULL_COMMON_HEALTH_CHECK_H

#include "common/json.h"

struct health_http {
	int64_t port;
	char *path;
};

struct health_tcp {
	int64_t port;
};

struct health_exec {
	struct json_strings command;
};

/* One of them; the others are NULL. */
struct health_check {
	struct health_http *http;
	struct health_tcp *tcp;
	struct health_exec *exec;
};
extern const struct json_table health_check_table;
extern const struct json_table health_http_table, health_tcp_table, health_exec_table;

/* The fields, for tables of structs that begin with a struct health_check. */
#define HEALTH_CHECK_FIELDS                                                                                            \
	{"http", JSON_FIELD_OPTIONAL, offsetof(struct health_check, http), .table = &health_http_table,                 \
		.help = "Healthy when a GET is answered with a status from 200 to 399."},                               \
	{"tcp", JSON_FIELD_OPTIONAL, offsetof(struct health_check, tcp), .table = &health_tcp_table,                    \
		.help = "Healthy when a connection is accepted."},                                                      \
	{"exec", JSON_FIELD_OPTIONAL, offsetof(struct health_check, exec), .table = &health_exec_table,                 \
		.help = "Healthy when a program ends with 0."}

/* Its JSON Schema. */
#define HEALTH_CHECK_RULE "{\"oneOf\": [{\"required\": [\"http\"]}, {\"required\": [\"tcp\"]}, {\"required\": [\"exec\"]}]}"

/* What the table cannot say: that it is one of them. 0 or -EINVAL with `err` set. */
int health_check_check(const struct health_check *check, struct error *err);

#endif
