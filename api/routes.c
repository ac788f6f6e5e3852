/* The routing table: what hulld answers, and what openapi.c describes. */
#include "api/audit.h"
#include "api/certificates.h"
#include "api/event_types.h"
#include "api/events.h"
#include "api/exec.h"
#include "api/files.h"
#include "api/freeze.h"
#include "api/host.h"
#include "api/hostnames.h"
#include "api/hulld.h"
#include "api/image.h"
#include "api/labels.h"
#include "api/logs.h"
#include "api/machine_http.h"
#include "api/metrics.h"
#include "api/openapi.h"
#include "api/networks.h"
#include "api/operation.h"
#include "api/project.h"
#include "api/secrets.h"
#include "api/spec.h"
#include "api/stats.h"
#include "api/token.h"
#include "api/volume.h"
#include "api/webhook.h"
#include "common/exec_spec.h"

struct version {
	char *version, *api;
};
static const struct json_field version_fields[] = {
	{"version", JSON_FIELD_STRING, offsetof(struct version, version), .required = true, .help = "Of hulld."},
	{"api", JSON_FIELD_STRING, offsetof(struct version, api), .required = true, .help = "Of what it answers: v1."},
};
static const struct json_table version_table = JSON_TABLE("Version", struct version, version_fields);

static void get_version(struct request *req, void *ctx)
{
	(void)ctx;
	request_reply(req, 200, json_dump(&version_table, &(struct version){HULL_VERSION, "v1"}));
}

static void get_openapi(struct request *req, void *ctx)
{
	(void)ctx;
	request_reply(req, 200, openapi_document(hulld_routes, hulld_params));
}

static const struct http_query force[] = {{"force", "1: although it is in use", HTTP_QUERY_FLAG}, {NULL, NULL}};
static const struct http_query dry_run[] = {
	{"dry_run", "1: nothing is done; the answer is what there would be. Whether a port can be published is not tried.", HTTP_QUERY_FLAG},
	{NULL, NULL},
};
static const struct http_query machines_queries[] = {
	LABEL_QUERY("machines"),
	{"name", "Only the machine of that name, or, with a * at its end, those whose names begin so."},
	{"state", "Only machines in one of these states, separated by commas; healthy and unhealthy are some, too.", HTTP_QUERY_NAMES,
		.names = machine_state_words},
	{NULL, NULL},
};
static const struct http_query volumes_queries[] = {LABEL_QUERY("volumes"), {NULL, NULL}};
static const struct http_query networks_queries[] = {LABEL_QUERY("networks"), {NULL, NULL}};
static const struct http_query wait_queries[] = {
	{"state", "States to wait for, separated by commas. Also healthy, which a machine without a check is as soon as it runs, "
		  "and unhealthy.",
		HTTP_QUERY_NAMES, .required = true, .names = machine_state_words},
	/* nanoseconds of it are a number */
	{"timeout_s", "Seconds until 408; when absent it waits as long as it takes.", HTTP_QUERY_INT, .max = 1000000000},
	{"after", "A cursor: it also answers when the machine has been in one of the states since that event, and is no more.",
		HTTP_QUERY_INT, .max = INT64_MAX},
	{NULL, NULL},
};
static const struct http_query logs_queries[] = {
	{"follow", "1: go on until the machine has stopped.", HTTP_QUERY_FLAG},
	{"tail", "Only that many of the last lines.", HTTP_QUERY_INT, .max = 1000000},
	{"source", "workload when absent.", HTTP_QUERY_NAME, .names = log_source_names},
	{NULL, NULL},
};
static const struct http_query events_queries[] = {
	{"after", "A cursor: only what came after it. When absent, all that is kept; of a stream, what comes from now on.",
		HTTP_QUERY_INT, .max = INT64_MAX},
	{"since_s", "In the place of a cursor: only of the last so many seconds.", HTTP_QUERY_INT, .max = INT64_MAX / 2000},
	{"machine", "Only of the machine of that id or name.", .min = 1, .max = NAME_MAX_BYTES},
	{"type", "Only of these types, as machine.running, or of these things, as machine, separated by commas.", HTTP_QUERY_NAMES,
		.names = event_type_words},
	{"limit", "At most so many; 100 when absent. Not of a stream.", HTTP_QUERY_INT, .min = 1, .max = 1000},
	{NULL, NULL},
};
static const struct http_query audit_queries[] = {
	{"project", "Only what was done in that project.", .min = 1, .max = NAME_MAX_BYTES, .pattern = NAME_PATTERN},
	{"limit", "At most so many; 100 when absent. A page may have fewer, and still a next.", HTTP_QUERY_INT, .min = 1, .max = 1000},
	{"cursor", "next of the page before.", .min = 3, .max = 41, .pattern = "^[0-9]{1,20}-[0-9]{1,20}$"},
	{NULL, NULL},
};
static const struct http_query operations_queries[] = {
	{"machine", "Only on the machine of that id, or name when they began.", .min = 1, .max = NAME_MAX_BYTES},
	{"kind", "Only of these kinds, separated by commas.", HTTP_QUERY_NAMES, .names = operation_kind_names},
	{"state", "Only in one of these states, separated by commas.", HTTP_QUERY_NAMES, .names = operation_state_names},
	{NULL, NULL},
};
static const struct http_query wait_operation_queries[] = {
	/* nanoseconds of it are a number */
	{"timeout_s", "Seconds until 408; when absent it waits as long as it takes.", HTTP_QUERY_INT, .max = 1000000000},
	{NULL, NULL},
};
#define PATH_IN_MACHINE .required = true, .min = 1, .max = 4095, .pattern = EXEC_FOLDER_PATTERN
static const struct http_query files_queries[] = {
	{"path", "Absolute path in the machine.", PATH_IN_MACHINE},
	{NULL, NULL},
};
static const struct http_query put_files_queries[] = {
	{"path", "Absolute path in the machine. A folder that is there gets what the archive has.", PATH_IN_MACHINE},
	{"into", "1: it is a folder, and the archive may have any number of things for it.", HTTP_QUERY_FLAG},
	{NULL, NULL},
};

const struct http_param hulld_params[] = {
	{"digest", "Of the blob.", DIGEST_PATTERN},
	{"hostname", "In lower case.", DNS_NAME_PATTERN},
	{"image", "Its name.", NAME_PATTERN},
	{"machine", "Its id or name.", NAME_PATTERN},
	{"network", "Its name.", NAME_PATTERN},
	{"operation", "Its id.", OPERATION_ID_PATTERN},
	{"project", "Its name.", NAME_PATTERN},
	{"secret", "Its name.", SECRET_NAME_PATTERN},
	{"token", "Its id.", TOKEN_ID_PATTERN},
	{"volume", "Its id or name.", NAME_PATTERN},
	{"webhook", "Its id.", WEBHOOK_ID_PATTERN},
	{NULL, NULL, NULL},
};

#define ROUTE(method_, path_, operation_, summary_) \
	.method = (method_), .path = (path_), .operation = (operation_), .summary = (summary_)

const struct http_route hulld_routes[] = {
	{ROUTE("GET", "/v1/version", "getVersion", "The service's version."), .status = 200, .scope = SCOPE_ANY,
		.gives = &version_table, .handle = get_version},
	{ROUTE("GET", "/v1/ca", "getCertificateAuthority", "The certificate of the authority that signs what --https serves; 404 without it."),
		.status = 200, .scope = SCOPE_ANY, .refuses = REFUSES(NOT_FOUND), .gives = &ca_table, .handle = hostnames_http_ca},
	{ROUTE("GET", "/v1/openapi.json", "getOpenapi", "This document."), .status = 200, .scope = SCOPE_ANY, .type = HTTP_JSON,
		.handle = get_openapi},
	{ROUTE("GET", "/metrics", "getMetrics", "The host and its machines in numbers, as Prometheus reads them."), .status = 200,
		.scope = SCOPE_HOST, .type = METRICS_TYPE, .handle = metrics_http_get},

	{ROUTE("GET", "/v1/host", "getHost", "The host: what it has, what of that its machines have, and whether it runs any."), .status = 200,
		.scope = SCOPE_HOST, .gives = &host_table, .handle = host_http_get},
	{ROUTE("POST", "/v1/host/drain", "drainHost", "Start no machine any more, and end those that run, each before what it depends on."),
		.status = 200, .refuses = REFUSES(HOST_DRAINING), .scope = SCOPE_HOST, .body = HTTP_BODY_JSON_OPTIONAL, .takes = &drain_request_table, .gives = &host_table,
		.handle = host_http_drain},
	{ROUTE("POST", "/v1/host/undrain", "undrainHost", "Serve again, and start what was ended."), .status = 200, .refuses = REFUSES(HOST_DRAINING), .scope = SCOPE_HOST,
		.gives = &host_table, .handle = host_http_undrain},

	{ROUTE("HEAD", "/v1/blobs/{digest}", "headBlob", "Is the blob there?"), .status = 200, .unconditional = true, .handle = blob_http_head},
	{ROUTE("PUT", "/v1/blobs/{digest}", "putBlob", "Upload a blob; 200 when it was there already."), .status = 201,
		.other_status = 200, .unconditional = true, .gives = &blob_table, .refuses = REFUSES(DIGEST_MISMATCH) | REFUSES(QUOTA_EXCEEDED),
		.body = HTTP_BODY_UPLOAD, .upload = &blob_upload},

	{ROUTE("POST", "/v1/images", "createImage", "Name an uploaded root file system, or move the name to another."),
		.status = 201, .refuses = REFUSES(QUOTA_EXCEEDED), .body = HTTP_BODY_JSON, .takes = &image_spec_table, .gives = &image_table,
		.handle = image_http_create},
	{ROUTE("GET", "/v1/images", "listImages", "All images."), .status = 200, .gives = &image_table,
		.gives_list = true, .handle = image_http_list},
	{ROUTE("GET", "/v1/images/{image}", "getImage", "One image."), .status = 200, .gives = &image_table,
		.handle = image_http_get},
	{ROUTE("DELETE", "/v1/images/{image}", "deleteImage", "Remove an image."), .status = 204,
		.refuses = REFUSES(IMAGE_IN_USE),
		.queries = force,
		.handle = image_http_delete},

	{ROUTE("POST", "/v1/machines", "createMachine", "Create a machine; its ports are held from now on."),
		.status = 201,
		.refuses = REFUSES(NAME_TAKEN) | REFUSES(PORT_TAKEN) | REFUSES(QUOTA_EXCEEDED) | REFUSES(WRONG_STATE),
		.body = HTTP_BODY_JSON, .takes = &machine_spec_table, .gives = &machine_table,
		.queries = dry_run, .handle = machine_http_create},
	{ROUTE("GET", "/v1/machines", "listMachines", "All machines."), .status = 200, .gives = &machine_table,
		.gives_list = true, .queries = machines_queries, .handle = machine_http_list},
	{ROUTE("GET", "/v1/machines/{machine}", "getMachine", "One machine, by id or name."), .status = 200,
		.gives = &machine_table, .handle = machine_http_get},
	{ROUTE("PATCH", "/v1/machines/{machine}", "updateMachine",
		"Change what it is to be; what its present run cannot have takes effect at the next start, and is in pending."),
		.status = 200,
		.refuses = REFUSES(NAME_TAKEN) | REFUSES(MACHINE_IN_USE) | REFUSES(PORT_TAKEN) | REFUSES(QUOTA_EXCEEDED) | REFUSES(WRONG_STATE) | REFUSES(REQUEST_IN_PROGRESS),
		.body = HTTP_BODY_MERGE_PATCH, .takes = &machine_spec_table, .gives = &machine_table,
		.queries = dry_run, .handle = machine_http_patch},
	{ROUTE("DELETE", "/v1/machines/{machine}", "deleteMachine", "Remove a machine and all that is its own."),
		.status = 204,
		.refuses = REFUSES(WRONG_STATE) | REFUSES(MACHINE_IN_USE) | REFUSES(TIMEOUT),
		.queries = force, .handle = machine_http_delete},
	{ROUTE("POST", "/v1/machines/{machine}/start", "startMachine", "Start it; no effect while it runs."),
		.status = 200,
		.refuses = REFUSES(WRONG_STATE) | REFUSES(MACHINE_FAILED) | REFUSES(HOST_DRAINING) | REFUSES(INSUFFICIENT_MEMORY) |
			REFUSES(VOLUME_IN_USE) | REFUSES(QUOTA_EXCEEDED),
		.body = HTTP_BODY_JSON_OPTIONAL, .takes = &start_request_table, .gives = &machine_table,
		.begins_operation = true, .handle = machine_http_start},
	{ROUTE("POST", "/v1/machines/{machine}/stop", "stopMachine", "Ask it to end; kill it when the time is over."),
		.status = 200,
		.refuses = REFUSES(WRONG_STATE),
		.body = HTTP_BODY_JSON_OPTIONAL, .takes = &stop_request_table, .gives = &machine_table,
		.begins_operation = true, .handle = machine_http_stop},
	{ROUTE("POST", "/v1/machines/{machine}/kill", "killMachine", "End its monitor at once."), .status = 200,
		.refuses = REFUSES(WRONG_STATE),
		.gives = &machine_table, .begins_operation = true, .handle = machine_http_kill},
	{ROUTE("POST", "/v1/machines/{machine}/restart", "restartMachine", "Stop it, then start it."), .status = 200,
		.refuses = REFUSES(WRONG_STATE) | REFUSES(MACHINE_FAILED) | REFUSES(HOST_DRAINING) | REFUSES(INSUFFICIENT_MEMORY) |
			REFUSES(VOLUME_IN_USE) | REFUSES(QUOTA_EXCEEDED),
		.body = HTTP_BODY_JSON_OPTIONAL, .takes = &stop_request_table, .gives = &machine_table,
		.begins_operation = true, .handle = machine_http_restart},
	{ROUTE("POST", "/v1/machines/{machine}/suspend", "suspendMachine",
		"Save all of it, and end its monitor; it goes on later as if nothing had happened. No effect on one that is suspended."),
		.status = 200, .refuses = REFUSES(WRONG_STATE) | REFUSES(UNSUPPORTED) | REFUSES(QUOTA_EXCEEDED),
		.gives = &machine_table, .begins_operation = true, .handle = machine_http_suspend},
	{ROUTE("POST", "/v1/machines/{machine}/resume", "resumeMachine", "Have a suspended one go on where it was; no effect while it runs."),
		.status = 200,
		.refuses = REFUSES(WRONG_STATE) | REFUSES(MACHINE_FAILED) | REFUSES(HOST_DRAINING) | REFUSES(INSUFFICIENT_MEMORY) |
			REFUSES(VOLUME_IN_USE) | REFUSES(QUOTA_EXCEEDED),
		.gives = &machine_table, .begins_operation = true, .handle = machine_http_resume},
	{ROUTE("POST", "/v1/machines/{machine}/freeze", "freezeMachine",
		"Make its programs stand still; answered when they do. No effect on a frozen one."),
		.status = 200,
		.refuses = REFUSES(WRONG_STATE) | REFUSES(MACHINE_FAILED) | REFUSES(TIMEOUT),
		.gives = &machine_table, .handle = freeze_http_freeze},
	{ROUTE("POST", "/v1/machines/{machine}/thaw", "thawMachine", "Let its programs run on; no effect on one that is not frozen."),
		.status = 200,
		.refuses = REFUSES(WRONG_STATE) | REFUSES(MACHINE_FAILED) | REFUSES(TIMEOUT),
		.gives = &machine_table, .handle = freeze_http_thaw},
	{ROUTE("GET", "/v1/machines/{machine}/wait", "waitForMachine", "Answers once it is in one of the states."),
		.status = 200,
		.refuses = REFUSES(TIMEOUT) | REFUSES(MACHINE_FAILED) | REFUSES(CURSOR_EXPIRED),
		.gives = &machine_table, .queries = wait_queries, .handle = machine_http_wait},
	{ROUTE("GET", "/v1/machines/{machine}/stats", "getMachineStats", "What it uses, seen from the host and from inside."),
		.status = 200,
		.refuses = REFUSES(WRONG_STATE),
		.gives = &machine_stats_table, .handle = stats_http_get},
	{ROUTE("GET", "/v1/machines/{machine}/logs", "getMachineLogs", "What it wrote, as text."), .status = 200,
		.type = HTTP_TEXT,
		.queries = logs_queries, .handle = machine_http_logs},
	{ROUTE("GET", "/v1/machines/{machine}/files", "getMachineFiles", "A file, or a folder with all that is in it, as a tar stream."),
		.status = 200,
		.refuses = REFUSES(WRONG_STATE) | REFUSES(MACHINE_FAILED) | REFUSES(TIMEOUT),
		.scope = SCOPE_EXEC, .queries = files_queries, .handle = files_http_get},
	{ROUTE("PUT", "/v1/machines/{machine}/files", "putMachineFiles",
		"Make of a tar stream, of one file or folder, what it has, whole files only."),
		.status = 204,
		.refuses = REFUSES(WRONG_STATE) | REFUSES(MACHINE_FAILED) | REFUSES(TIMEOUT),
		.scope = SCOPE_EXEC, .body = HTTP_BODY_UPLOAD, .queries = put_files_queries, .upload = &files_upload},
	{ROUTE("POST", "/v1/machines/{machine}/exec", "execInMachine",
		"Run a program in it. Answers with what it wrote and its exit status when it has ended; as hull-exec, its input, "
		"output and signals are streamed."),
		.status = 200,
		.refuses = REFUSES(WRONG_STATE) | REFUSES(MACHINE_FAILED) | REFUSES(TIMEOUT),
		.scope = SCOPE_EXEC, .body = HTTP_BODY_JSON, .takes = &exec_spec_table, .gives = &exec_result_table,
		.upgrade = EXEC_PROTOCOL, .once = true, .handle = exec_http},

	{ROUTE("POST", "/v1/volumes", "createVolume", "Create a volume: an empty ext4 file system, which lasts longer than machines."), .status = 201,
		.refuses = REFUSES(NAME_TAKEN) | REFUSES(QUOTA_EXCEEDED) | REFUSES(BUSY), .body = HTTP_BODY_JSON, .takes = &volume_spec_table,
		.gives = &volume_table, .queries = dry_run, .handle = volume_http_create},
	{ROUTE("GET", "/v1/volumes", "listVolumes", "All volumes, by name."), .status = 200, .gives = &volume_table, .gives_list = true,
		.queries = volumes_queries, .handle = volume_http_list},
	{ROUTE("GET", "/v1/volumes/{volume}", "getVolume", "One volume, by id or name."), .status = 200, .gives = &volume_table,
		.handle = volume_http_get},
	{ROUTE("PATCH", "/v1/volumes/{volume}", "updateVolume",
		"Change its labels, or make it larger, which machines see from their next start on."),
		.status = 200, .refuses = REFUSES(QUOTA_EXCEEDED), .body = HTTP_BODY_MERGE_PATCH, .takes = &volume_spec_table,
		.gives = &volume_table, .queries = dry_run, .handle = volume_http_patch},
	{ROUTE("DELETE", "/v1/volumes/{volume}", "deleteVolume", "Remove a volume and all that is on it."), .status = 204,
		.refuses = REFUSES(VOLUME_IN_USE), .handle = volume_http_delete},

	{ROUTE("GET", "/v1/operations", "listOperations",
		"What is under way on the project's machines, and what was in the last days, the oldest first."),
		.status = 200, .gives = &operation_table, .gives_list = true, .queries = operations_queries, .handle = operation_http_list},
	{ROUTE("GET", "/v1/operations/{operation}", "getOperation", "One operation."), .status = 200, .gives = &operation_table,
		.handle = operation_http_get},
	{ROUTE("GET", "/v1/operations/{operation}/wait", "waitForOperation", "Answers once it has ended."), .status = 200,
		.refuses = REFUSES(TIMEOUT), .gives = &operation_table, .queries = wait_operation_queries, .handle = operation_http_wait},

	{ROUTE("POST", "/v1/operations/{operation}/cancel", "cancelOperation",
		"Undo a start, or a stop that the workload has not been told of; no effect where that was asked for before."),
		.status = 200, .refuses = REFUSES(WRONG_STATE) | REFUSES(HOST_DRAINING), .gives = &operation_table, .handle = operation_http_cancel},

	{ROUTE("GET", "/v1/events", "listEvents",
		"What has happened in the project, the oldest first; with Accept: text/event-stream, as it happens."),
		.status = 200,
		.refuses = REFUSES(CURSOR_EXPIRED),
		.gives = &event_page_table, .type = HTTP_EVENTS, .queries = events_queries, .handle = events_http},

	{ROUTE("GET", "/v1/audit", "listAudit", "Who has done what, when and from where, the newest first."), .status = 200,
		.scope = SCOPE_HOST, .gives = &audit_page_table, .queries = audit_queries, .handle = audit_http},

	{ROUTE("POST", "/v1/projects", "createProject", "Create a project."), .status = 201,
		.refuses = REFUSES(NAME_TAKEN),
		.scope = SCOPE_HOST, .body = HTTP_BODY_JSON,
		.takes = &project_spec_table, .gives = &project_table, .handle = project_http_create},
	{ROUTE("GET", "/v1/projects", "listProjects", "All projects that the client may know of."), .status = 200,
		.gives = &project_table, .gives_list = true, .handle = project_http_list},
	{ROUTE("GET", "/v1/projects/{project}", "getProject", "One project, with what it uses."), .status = 200,
		.gives = &project_table, .handle = project_http_get},
	{ROUTE("PUT", "/v1/projects/{project}/quotas", "setQuotas", "All its quotas; one that is absent is none."), .status = 200,
		.scope = SCOPE_HOST,
		.body = HTTP_BODY_JSON, .takes = &quotas_table, .gives = &project_table, .handle = project_http_set_quotas},
	{ROUTE("DELETE", "/v1/projects/{project}", "deleteProject", "Remove a project without machines, and all that is its own."),
		.status = 204,
		.refuses = REFUSES(PROJECT_IN_USE),
		.scope = SCOPE_HOST, .handle = project_http_delete},

	{ROUTE("POST", "/v1/tokens", "createToken", "Make a token of the project, shown this once."), .status = 201,
		.scope = SCOPE_ADMIN, .body = HTTP_BODY_JSON, .shown_once = true, .confidential = true, .takes = &token_spec_table,
		.gives = &new_token_table, .refuses = REFUSES(QUOTA_EXCEEDED), .handle = token_http_create},
	{ROUTE("GET", "/v1/tokens", "listTokens", "All tokens of the project."), .status = 200, .scope = SCOPE_ADMIN,
		.gives = &token_table, .gives_list = true, .handle = token_http_list},
	{ROUTE("GET", "/v1/tokens/{token}", "getToken", "One token, by id."), .status = 200, .scope = SCOPE_ADMIN,
		.gives = &token_table, .handle = token_http_get},
	{ROUTE("DELETE", "/v1/tokens/{token}", "deleteToken", "Revoke it: what is under way with it ends."), .status = 204,
		.scope = SCOPE_ADMIN, .handle = token_http_delete},

	{ROUTE("PUT", "/v1/certificates/{hostname}", "setCertificate",
		"Serve that over HTTPS, for a name that a machine of the project has; 200 when there was one."),
		.status = 201, .other_status = 200, .body = HTTP_BODY_JSON, .confidential = true, .refuses = REFUSES(QUOTA_EXCEEDED), .takes = &certificate_spec_table,
		.gives = &certificate_table, .handle = certificate_http_put},
	{ROUTE("GET", "/v1/certificates", "listCertificates", "All certificates that were given."), .status = 200,
		.gives = &certificate_table, .gives_list = true, .handle = certificate_http_list},
	{ROUTE("GET", "/v1/certificates/{hostname}", "getCertificate", "One that was given, without its key."), .status = 200,
		.gives = &certificate_table, .handle = certificate_http_get},
	{ROUTE("DELETE", "/v1/certificates/{hostname}", "deleteCertificate", "Forget it; one of the host's own is served again."),
		.status = 204, .handle = certificate_http_delete},

	{ROUTE("POST", "/v1/networks", "createNetwork", "Create a network, on which machines reach each other by name."), .status = 201,
		.body = HTTP_BODY_JSON, .refuses = REFUSES(NAME_TAKEN) | REFUSES(QUOTA_EXCEEDED) | REFUSES(UNSUPPORTED),
		.takes = &network_spec_table, .gives = &network_table, .queries = dry_run, .handle = network_http_create},
	{ROUTE("GET", "/v1/networks", "listNetworks", "All networks of the project."), .status = 200, .gives = &network_table, .gives_list = true,
		.queries = networks_queries, .handle = network_http_list},
	{ROUTE("GET", "/v1/networks/{network}", "getNetwork", "One network, and which machines are on it."), .status = 200,
		.gives = &network_table, .handle = network_http_get},
	{ROUTE("PATCH", "/v1/networks/{network}", "updateNetwork", "Change its labels."), .status = 200, .body = HTTP_BODY_MERGE_PATCH,
		.takes = &network_spec_table, .gives = &network_table, .queries = dry_run, .handle = network_http_patch},
	{ROUTE("DELETE", "/v1/networks/{network}", "deleteNetwork", "Remove a network that no machine is on."), .status = 204,
		.refuses = REFUSES(NETWORK_IN_USE), .handle = network_http_delete},

	{ROUTE("PUT", "/v1/secrets/{secret}", "setSecret", "Set a secret of the project; 200 when there was one of that name."),
		.status = 201, .other_status = 200, .body = HTTP_BODY_JSON, .confidential = true, .refuses = REFUSES(QUOTA_EXCEEDED), .takes = &secret_spec_table, .gives = &secret_table,
		.handle = secret_http_put},
	{ROUTE("GET", "/v1/secrets", "listSecrets", "The names of all secrets of the project."), .status = 200,
		.gives = &secret_table, .gives_list = true, .handle = secret_http_list},
	{ROUTE("GET", "/v1/secrets/{secret}", "getSecret", "A secret's name and age."), .status = 200, .gives = &secret_table,
		.handle = secret_http_get},
	{ROUTE("DELETE", "/v1/secrets/{secret}", "deleteSecret", "Forget a secret; machines that need it do not start any more."),
		.status = 204, .handle = secret_http_delete},

	{ROUTE("POST", "/v1/webhooks", "createWebhook", "Have events of the project sent to a URL; shows the secret of their signatures, this once."),
		.status = 201, .scope = SCOPE_ADMIN, .body = HTTP_BODY_JSON, .shown_once = true, .confidential = true, .takes = &webhook_spec_table,
		.gives = &new_webhook_table, .refuses = REFUSES(QUOTA_EXCEEDED), .handle = webhook_http_create},
	{ROUTE("GET", "/v1/webhooks", "listWebhooks", "All webhooks of the project."), .status = 200, .scope = SCOPE_ADMIN,
		.gives = &webhook_table, .gives_list = true, .handle = webhook_http_list},
	{ROUTE("GET", "/v1/webhooks/{webhook}", "getWebhook", "One webhook, and how far it has come."), .status = 200, .scope = SCOPE_ADMIN,
		.gives = &webhook_table, .handle = webhook_http_get},
	{ROUTE("PATCH", "/v1/webhooks/{webhook}", "patchWebhook", "Change it; where it is enabled, what has waited is sent at once."), .status = 200,
		.scope = SCOPE_ADMIN, .body = HTTP_BODY_MERGE_PATCH, .confidential = true, .takes = &webhook_spec_table, .gives = &webhook_table,
		.handle = webhook_http_patch},
	{ROUTE("DELETE", "/v1/webhooks/{webhook}", "deleteWebhook", "Nothing is sent any more."), .status = 204, .scope = SCOPE_ADMIN,
		.handle = webhook_http_delete},
	{ROUTE("POST", "/v1/webhooks/{webhook}/ping", "pingWebhook", "Send webhook.ping there, once, and tell what became of it."), .status = 200,
		.scope = SCOPE_ADMIN, .gives = &ping_result_table, .handle = webhook_http_ping},
	{.method = NULL},
};
