#include "api/audit.h"

#include "api/audit_file.h"
#include "api/http_request.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <nettle/sha2.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define LOOK_NS	    (600 * 1000000000ull)
#define UNKNOWN_MAX 10	 /* lines a second of who has no valid token */
#define PATH_CUT    256	 /* bytes of a path that is none of ours */
#define FILE_CUT    1024 /* and of a file's in a machine; longer ones end in "..." */
#define PAGE	    100
#define SCAN_MAX    (2u << 20) /* bytes that one page looks at */

struct audit {
	struct audit_file *file;
	struct loop_source *look, *hang_up;
	struct audit_metrics metrics;
	uint64_t untold; /* lines that were lost since the last that was written */
	int64_t second;	 /* the last in which somebody came without a valid token, */
	uint64_t unknown, suppressed; /* how many did, and how many have no line since the last that was written */
};

/* As a line has it, and as clients see it. */
struct entry {
	char *at, *who, *token, *label, *address, *project, *operation, *method, *path, *resource, *file, *code, *key_digest;
	int64_t uid, gid, pid, status, took_ms, suppressed, lost;
	bool replayed, dry_run;
};

#define TEXT(name_, help_) {#name_, JSON_FIELD_STRING, offsetof(struct entry, name_), .read_only = true, .help = (help_)}
#define NUMBER(name_, def_, help_) \
	{#name_, JSON_FIELD_INT, offsetof(struct entry, name_), .read_only = true, .sparse = true, .def = (def_), .min = (def_), .max = INT64_MAX, .help = (help_)}

static const struct json_field entry_fields[] = {
	TEXT(at, "When it was answered."),
	TEXT(who, "socket: a process of this host; host-token: who has the token that hulld was started with; token: one of a project; nobody."),
	TEXT(token, "Its id."),
	TEXT(label, NULL),
	NUMBER(uid, -1, "Of who opened the Unix socket, when it did."),
	NUMBER(gid, -1, NULL),
	NUMBER(pid, -1, NULL),
	TEXT(address, "unix, or an address and a port."),
	TEXT(project, "That it acts in."),
	TEXT(operation, "As the OpenAPI document calls it; absent when it is none, or was not looked for."),
	TEXT(method, NULL),
	TEXT(path, "The route's; where there is none, what was asked for."),
	TEXT(resource, "What the path names, or what was made, by its id or its name."),
	TEXT(file, "The path in the machine."),
	NUMBER(status, 0, "Of the answer; absent: the client has gone, or was cut off, before there was one."),
	TEXT(code, "Of the problem."),
	TEXT(key_digest, "The first 16 digits of the SHA-256 of its Idempotency-Key."),
	{"replayed", JSON_FIELD_BOOL, offsetof(struct entry, replayed), .read_only = true, .sparse = true,
		.help = "The answer is that of an earlier request; nothing was done."},
	{"dry_run", JSON_FIELD_BOOL, offsetof(struct entry, dry_run), .read_only = true, .sparse = true,
		.help = "It was asked what would be; nothing was done."},
	NUMBER(took_ms, -1, "From its head to its answer."),
	NUMBER(suppressed, 0, "So many requests without a valid token before it have no line."),
	NUMBER(lost, 0, "So many lines before it could not be written."),
};
static const struct json_table entry_table = JSON_TABLE("AuditEntry", struct entry, entry_fields);

struct page_view {
	struct json_array items;
	char *next;
};
static const struct json_field page_fields[] = {
	{"items", JSON_FIELD_ARRAY, offsetof(struct page_view, items), .read_only = true, .table = &entry_table},
	{"next", JSON_FIELD_STRING, offsetof(struct page_view, next), .read_only = true,
		.help = "The cursor of the page before in time; absent on the last."},
};
const struct json_table audit_page_table = JSON_TABLE("AuditPage", struct page_view, page_fields);

/* ---- writing ---- */

/* What a client chose, cut to so many bytes; owned by the caller. */
static char *cut(const char *text, size_t max)
{
	cleanup_free char *part = NULL;
	json_t *string;
	char *ret;

	if (strlen(text) <= max)
		part = strdup(text);
	else if (asprintf(&part, "%.*s...", (int)max, text) < 0)
		abort();
	string = json_lossy_string(part);
	ret = strdup(json_string_value(string));
	json_decref(string);
	if (!ret)
		abort();
	return ret;
}

static const char *who_is(const struct request *req)
{
	if (req->client.token[0])
		return "token";
	if (!req->client.is_host)
		return "nobody";
	return req->listener->token ? "host-token" : "socket";
}

static void put_origin(const struct request *req, struct entry *entry, char address[INET_ADDRSTRLEN + 8])
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(req->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	const struct sockaddr_in *peer;
	char host[INET_ADDRSTRLEN];
	struct ucred cred;
	socklen_t len = sizeof(cred);

	strcpy(address, "unix");
	if (!req->listener->token) {
		if (getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
			entry->uid = cred.uid;
			entry->gid = cred.gid;
			entry->pid = cred.pid;
		}
		return;
	}
	info = MHD_get_connection_info(req->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	peer = (const struct sockaddr_in *)info->client_addr;
	inet_ntop(AF_INET, &peer->sin_addr, host, sizeof(host));
	snprintf(address, INET_ADDRSTRLEN + 8, "%s:%u", host, ntohs(peer->sin_port));
}

static char *key_digest(const struct request *req)
{
	const char *key = req->key ? req->key : req->status ? request_header(req, "Idempotency-Key") : NULL;
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct sha256_ctx hash;
	char *text = NULL;

	if (!key)
		return NULL;
	sha256_init(&hash);
	sha256_update(&hash, strlen(key), (const uint8_t *)key);
	sha256_digest(&hash, sizeof(digest), digest);
	if (asprintf(&text, "%02x%02x%02x%02x%02x%02x%02x%02x", digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6],
		    digest[7]) < 0)
		abort();
	return text;
}

/* A line, with its newline, of at most AUDIT_LINE_MAX bytes; owned by the caller. */
static char *line_of(const struct audit *audit, const struct request *req, int64_t now)
{
	const char *dry_run = req->status && req->route ? request_query(req, "dry_run") : NULL;
	const char *file = req->status && req->route && http_route_scope(req->route) == SCOPE_EXEC ? request_query(req, "path") : NULL;
	cleanup_free char *at = format_time(now), *path = cut(req->route ? req->route->path : req->url, PATH_CUT);
	cleanup_free char *method = cut(req->route ? req->route->method : req->method, 20), *digest = key_digest(req);
	cleanup_free char *resource = cut(req->param[0] ? req->param : req->subject, sizeof(req->param));
	cleanup_free char *in_machine = file ? cut(file, FILE_CUT) : NULL, *text = NULL;
	struct entry entry = {
		.at = at,
		.who = (char *)who_is(req),
		.token = req->client.token[0] ? (char *)req->client.token : NULL,
		.label = req->client.label[0] ? (char *)req->client.label : NULL,
		.uid = -1, .gid = -1, .pid = -1,
		.project = req->client.project[0] ? (char *)req->client.project : NULL,
		.operation = req->route ? (char *)req->route->operation : NULL,
		.method = method, .path = path, .resource = resource[0] ? resource : NULL, .file = in_machine,
		.status = req->status, .code = (char *)req->code, .key_digest = digest, .replayed = req->replayed, .dry_run = dry_run && strcmp(dry_run, "1") == 0,
		.took_ms = (http_monotonic_us() - req->begun_us) / 1000,
		.suppressed = (int64_t)audit->suppressed, .lost = (int64_t)audit->untold,
	};
	char address[INET_ADDRSTRLEN + 8], *line = NULL;
	json_t *dumped;

	put_origin(req, &entry, address);
	entry.address = address;
	dumped = json_dump(&entry_table, &entry);
	text = json_dumps(dumped, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(dumped);
	if (!text || asprintf(&line, "%s\n", text) < 0)
		abort();
	return line;
}

/* What only looks is none of its business, unless it looks into machines or was turned away. */
static bool is_noted(const struct request *req)
{
	if (strcmp(req->method, "GET") != 0 && strcmp(req->method, "HEAD") != 0)
		return true;
	return req->status == 401 || req->status == 403 || (req->route && http_route_scope(req->route) == SCOPE_EXEC);
}

static bool is_too_much(struct audit *audit, const struct request *req, int64_t now)
{
	if (req->status != 401)
		return false;
	if (audit->second != now / 1000) {
		audit->second = now / 1000;
		audit->unknown = 0;
	}
	return audit->unknown++ >= UNKNOWN_MAX;
}

void audit_request(const struct request *req, void *ctx)
{
	const struct hulld *hulld = ctx;
	struct audit *audit = hulld->audit;
	cleanup_free char *line = NULL;
	int64_t now = now_ms();
	int r;

	if (!is_noted(req))
		return;
	if (is_too_much(audit, req, now)) {
		audit->suppressed++;
		return;
	}
	line = line_of(audit, req, now);
	r = audit_file_append(audit->file, line, strlen(line), now);
	if (r == 0) {
		audit->metrics.written++;
		audit->untold = audit->suppressed = 0;
		return;
	}
	audit->metrics.lost++;
	if (audit->untold++ == 0)
		log_error("the audit log cannot be written, and loses lines: %s", strerror(-r));
}

const struct audit_metrics *audit_metrics(const struct audit *audit)
{
	return &audit->metrics;
}

/* ---- its life ---- */

static void on_look(void *ctx)
{
	struct audit *audit = ctx;

	audit_file_age(audit->file, now_ms());
	loop_timer_arm(audit->look, LOOK_NS);
}

static void on_hang_up(void *ctx, uint32_t signo)
{
	struct audit *audit = ctx;

	(void)signo;
	audit_file_reopen(audit->file);
}

struct audit *audit_new(struct hulld *hulld, struct error *err)
{
	const struct options *options = &hulld->options;
	cleanup_free char *path = NULL;
	struct audit *audit = calloc(1, sizeof(*audit));

	if (!audit || (!options->audit_log && asprintf(&path, "%s/audit.log", options->state) < 0))
		abort();
	audit->file = audit_file_new(path ? path : options->audit_log, options->audit_keep.bytes, options->audit_keep.days, err);
	audit->look = loop_add_timer(hulld->loop, on_look, audit);
	audit->hang_up = loop_add_signal(hulld->loop, SIGHUP, on_hang_up, audit);
	if (audit->file && audit->look && audit->hang_up) {
		on_look(audit);
		return audit;
	}
	if (audit->file)
		error_set_errno(err, errno, "cannot make a timer");
	audit_free(audit);
	return NULL;
}

void audit_free(struct audit *audit)
{
	if (!audit)
		return;
	loop_remove(audit->look);
	loop_remove(audit->hang_up);
	audit_file_free(audit->file);
	free(audit);
}

/* ---- reading ---- */

struct reading {
	char project[NAME_MAX_BYTES + 16]; /* as a line has it; "": any */
	size_t limit;
	json_t *items;
};

static bool take(void *ctx, const char *line, size_t len)
{
	struct reading *reading = ctx;
	json_t *entry;
	struct error err;

	/* No string in it has this text: its quotes would be escaped. */
	if (reading->project[0] && !memmem(line, len, reading->project, strlen(reading->project)))
		return true;
	entry = json_parse(line, len, &err);
	if (json_is_object(entry)) /* else it was cut short, or is none of ours */
		json_array_append(reading->items, entry);
	json_decref(entry);
	return json_array_size(reading->items) < reading->limit;
}

static bool read_cursor(const char *text, struct audit_place *place)
{
	struct audit_place end = *place;
	int len = 0;

	return sscanf(text, "%20" SCNu64 "-%20" SCNu64 "%n", &place->number, &place->offset, &len) == 2 && !text[len] &&
	       strspn(text, "0123456789-") == strlen(text) && place->number <= end.number && place->offset <= INT64_MAX;
}

void audit_http(struct request *req, void *ctx)
{
	const char *cursor = request_query(req, "cursor"), *project = request_query(req, "project");
	const struct hulld *hulld = ctx;
	struct audit_place place = audit_file_end(hulld->audit->file);
	struct reading reading = {.project = ""};
	json_t *page;
	struct error err;
	bool more;

	if (cursor && !read_cursor(cursor, &place)) {
		request_refuse_with(req, PROBLEM_INVALID_FIELD, "cursor", "is none that a page has answered with as next");
		return;
	}
	if (project && name_check(project, &err) < 0) {
		error_in_field(&err, "project");
		request_refuse_error(req, &err);
		return;
	}
	if (project)
		snprintf(reading.project, sizeof(reading.project), "\"project\":\"%s\"", project);
	reading.limit = (size_t)request_query_int(req, "limit", PAGE);
	reading.items = json_array();
	more = audit_file_read_back(hulld->audit->file, &place, SCAN_MAX, take, &reading);
	page = json_pack("{s:o}", "items", reading.items);
	if (more)
		json_object_set_new(page, "next", json_sprintf("%" PRIu64 "-%" PRIu64, place.number, place.offset));
	request_reply(req, 200, page);
}
