/* Rounds: HAProxy is asked what it has, and told what it is to have. See hostnames.h. */
#include "api/hostnames.h"

#include "api/haproxy.h"
#include "api/hostnames_plan.h"
#include "api/ingress_client.h"
#include "api/machine.h"
#include "api/socket_call.h"
#include "api/supervisor.h"
#include "api/tls.h"
#include "api/x509.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define ROUND_NS  100000000ull	/* from the end of one to the next */
#define RETRY_NS  1000000000ull /* after one that failed, or could not remove all there was to be removed */
#define ANSWER_NS 10000000000ull /* an answer takes no longer, */
#define ANSWER_MAX (4u << 20)	/* bytes: it has a line for each machine that is served */
#define COMMAND_MAX (1u << 20)
#define QUIET_NS  5000000000ull /* HAProxy may take so long until it answers */
#define COMPLAIN_NS 600000000000ull /* so often it is logged that something is refused in every round */
#define RENEW_NS  (6 * 3600000000000ull) /* certificates are looked at */

struct hostnames {
	struct hulld *hulld;
	struct haproxy *haproxy;
	struct tls *tls; /* NULL without --https */
	struct hostnames_plan *plan;
	struct loop_source *timer, *renew;
	uint64_t due_ns; /* when `timer` fires; UINT64_MAX: never */
	bool begun; /* HAProxy was looked for */
	uint64_t began_ns;
	uint64_t changes, told; /* how often something has changed that may concern HAProxy, and up to which change it knows all */
	/* A round. */
	struct socket_call *call; /* NULL: there is none */
	bool asking; /* it is going on: what changes now is for the next one */
	bool dirty; /* something has changed since it began */
	bool again; /* something is left for the next one */
	uint64_t looked; /* at so many changes */
	char **commands; /* to be sent, owned, from `next` on */
	size_t n_commands, next;
	bool fails;	/* something is refused in this round, */
	bool complains; /* which is logged */
	uint64_t complained_ns; /* 0: nothing was in the round before */
};

void hostnames_socket_path(const struct machine *m, int64_t guest, char *ret)
{
	snprintf(ret, PORT_PLACE_MAX, "%s/http/machines/%s-%d", m->hulld->options.run, m->record.id, (int)guest);
}

const struct haproxy *hostnames_haproxy(const struct hostnames *hostnames)
{
	return haproxy_is_wanted(hostnames->haproxy) ? hostnames->haproxy : NULL;
}

/* A round. */

static void command(struct hostnames *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void command(struct hostnames *h, const char *fmt, ...)
{
	va_list args;

	h->commands = realloc(h->commands, (h->n_commands + 1) * sizeof(*h->commands));
	if (!h->commands)
		abort();
	va_start(args, fmt);
	if (vasprintf(&h->commands[h->n_commands++], fmt, args) < 0)
		abort();
	va_end(args);
}

static void say(void *ctx, const char *text)
{
	command(ctx, "%s", text);
}

static void arm(struct hostnames *h, uint64_t delay_ns)
{
	loop_timer_arm(h->timer, delay_ns);
	h->due_ns = monotonic_ns() + delay_ns;
}

static void tell_machines(struct hostnames *h)
{
	for (struct machine *m = h->hulld->machines; m; m = m->next)
		supervisor_names_are_told(m);
}

static void forget_round(struct hostnames *h)
{
	for (size_t i = 0; i < h->n_commands; i++)
		x509_wipe(h->commands[i]); /* which may have a key */
	free(h->commands);
	h->commands = NULL;
	h->n_commands = h->next = 0;
	h->asking = false;
	if (h->plan)
		hostnames_plan_forget(h->plan);
}

static void end_round(struct hostnames *h)
{
	forget_round(h);
	if (h->dirty)
		arm(h, ROUND_NS);
	else if (h->again)
		arm(h, RETRY_NS);
}

static void fail_round(struct hostnames *h, int errnum)
{
	struct error err;

	error_set_errno(&err, errnum, "HAProxy does not answer");
	if (monotonic_ns() - h->began_ns >= QUIET_NS)
		log_error_object(&err, "host names");
	h->again = true;
	h->dirty = false;
	end_round(h);
	if (monotonic_ns() - h->began_ns < QUIET_NS)
		arm(h, ROUND_NS);
}

/* What an answer is when all went well; what else there is to it is left to the next round. */
static bool is_done(const char *said, const char *answer)
{
	static const struct {
		const char *command, *answer, *or;
	} known[] = {
		{"del server ", "Server deleted.", NULL},
		{"add server ", "New server registered.", NULL},
		{"new ssl cert ", "New empty certificate store", "already exists"},
		{"set ssl cert ", "Transaction created", NULL},
		{"commit ssl cert ", "Success!", NULL},
		{"abort ssl cert ", "Transaction aborted", NULL},
		{"add ssl crt-list ", "Success!", NULL},
		{"del ssl crt-list ", "deleted", NULL},
		{"del ssl cert ", "deleted", NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strncmp(said, known[i].command, strlen(known[i].command)) == 0)
			return strstr(answer, known[i].answer) || (known[i].or && strstr(answer, known[i].or));
	return answer[strspn(answer, "\n")] == '\0';
}

/* A hulld that was killed has left a certificate half told, which what we say is taken for, or which is in its way: nothing more of this round. */
static void abort_transaction(struct hostnames *h, const char *answer)
{
	static const char *const about[] = {"Transaction updated for certificate ", "The ongoing transaction is about '"};
	const char *path = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(about) && !path; i++)
		if ((path = strstr(answer, about[i])))
			path += strlen(about[i]);
	if (!path)
		return;
	while (h->n_commands > h->next + 1)
		x509_wipe(h->commands[--h->n_commands]);
	command(h, "abort ssl cert %.*s", (int)strcspn(path, "!'\n"), path);
}

static bool is_busy(const char *said)
{
	return strncmp(said, "del server", 10) == 0;
}

/* Not each second of what is refused in each round. */
static void complain(struct hostnames *h, const char *said, const char *answer)
{
	uint64_t now = monotonic_ns();

	h->fails = true;
	if (!h->complains && h->complained_ns && now - h->complained_ns < COMPLAIN_NS)
		return;
	h->complains = true;
	h->complained_ns = now;
	log_warn("haproxy: %.*s: %.*s", (int)strcspn(said, "\n"), said, (int)strcspn(answer, "\n"), answer);
}

/* `command`: a line without its newline, with its payload if it has one. */
static void ask(struct hostnames *h, const char *command, socket_call_fn fn)
{
	struct socket_request request = {.path = haproxy_socket_path(h->haproxy), .answer_max = ANSWER_MAX, .timeout_ns = ANSWER_NS};
	struct buf line;

	buf_init(&line, COMMAND_MAX);
	line.secret = true; /* it may have a key */
	if (buf_printf(&line, "%s\n", command) < 0)
		abort();
	request.text = line.data;
	h->call = socket_call(h->hulld->loop, &request, fn, h);
	buf_done(&line);
}

static void tell_next(struct hostnames *h);

static void on_told(void *ctx, const char *answer, int errnum)
{
	struct hostnames *h = ctx;
	const char *said = h->commands[h->next];

	h->call = NULL;
	if (!answer) {
		fail_round(h, errnum);
		return;
	}
	if (is_done(said, answer)) {
		if (h->tls)
			tls_told(h->tls, said);
	} else {
		h->again = true;
		if (!is_busy(said) && !(h->tls && tls_refused(h->tls, said, answer)))
			complain(h, said, answer);
		abort_transaction(h, answer);
	}
	h->next++;
	tell_next(h);
}

static void tell_next(struct hostnames *h)
{
	if (h->next == h->n_commands) {
		h->told = h->looked;
		end_round(h);
		tell_machines(h);
	} else {
		ask(h, h->commands[h->next], on_told);
	}
}

static void on_seen(void *ctx, const char *answer, int errnum)
{
	struct hostnames *h = ctx;

	h->call = NULL;
	if (!answer) {
		fail_round(h, errnum);
		return;
	}
	/* What changed until now is looked at. */
	hostnames_plan_collect(h->plan);
	h->looked = h->changes;
	h->dirty = !hostnames_plan_certificates(h->plan);
	hostnames_plan_see(h->plan, answer);
	h->again |= !hostnames_plan_assign(h->plan);
	hostnames_plan_compose(h->plan, say, h);
	tell_next(h);
}

static void on_timer(void *ctx)
{
	struct hostnames *h = ctx;
	char question[512];

	h->due_ns = UINT64_MAX;
	if (!haproxy_is_running(h->haproxy)) {
		tell_machines(h);
		return; /* it begins with what is then, and says so */
	}
	h->complained_ns = h->fails ? h->complained_ns : 0;
	h->dirty = h->again = h->fails = h->complains = false;
	snprintf(question, sizeof(question), "show map %s; show servers state%s%s", haproxy_map_path(h->haproxy),
		h->tls ? "; show ssl crt-list -n " : "", h->tls ? tls_list_path(h->tls) : "");
	h->asking = true;
	ask(h, question, on_seen);
}

void hostnames_changed(struct hulld *hulld)
{
	struct hostnames *h = hulld->hostnames;

	if (!h)
		return;
	h->changes++;
	if (!haproxy_is_running(h->haproxy))
		return;
	if (h->asking)
		h->dirty = true;
	else if (h->due_ns == UINT64_MAX)
		arm(h, 0);
	else if (h->due_ns > monotonic_ns() + ROUND_NS)
		arm(h, ROUND_NS);
}

uint64_t hostnames_changes(const struct hulld *hulld)
{
	return hulld->hostnames ? hulld->hostnames->changes : 0;
}

bool hostnames_have_told(const struct hulld *hulld, uint64_t change)
{
	const struct hostnames *h = hulld->hostnames;

	if (!h || !haproxy_is_wanted(h->haproxy) || (h->begun && !haproxy_is_running(h->haproxy)))
		return true;
	return h->told >= change;
}

/* HAProxy. */

static void write_servers(void *ctx, unsigned slot, struct buf *config)
{
	hostnames_plan_write_servers(((struct hostnames *)ctx)->plan, slot, config);
}

/* Comes first: a process begins with nothing else. */
static void write_map(void *ctx, struct buf *map)
{
	struct hostnames *h = ctx;

	socket_call_cancel(h->call);
	h->call = NULL;
	h->dirty = h->again = false;
	end_round(h);
	hostnames_plan_collect(h->plan);
	h->told = h->changes;
	h->again = !hostnames_plan_assign(h->plan);
	hostnames_plan_write_map(h->plan, map);
}

/* Behind write_map(). */
static void write_certificates(void *ctx, struct buf *list)
{
	struct hostnames *h = ctx;

	h->dirty |= !hostnames_plan_certificates(h->plan);
	tls_write(h->tls, list);
}

static void on_renew(void *ctx)
{
	struct hostnames *h = ctx;

	hostnames_changed(h->hulld);
	loop_timer_arm(h->renew, RENEW_NS);
}

static void on_started(void *ctx)
{
	struct hostnames *h = ctx;

	h->began_ns = monotonic_ns();
	hostnames_changed(h->hulld);
}

struct hostnames *hostnames_new(struct hulld *hulld, struct error *err)
{
	struct hostnames *h = calloc(1, sizeof(*h));
	struct haproxy_state state = {.write_servers = write_servers, .write_map = write_map,
		.write_certificates = write_certificates, .started = on_started, .ctx = h};

	if (!h)
		abort();
	h->hulld = hulld;
	h->changes = 1; /* whatever there is */
	h->due_ns = UINT64_MAX;
	h->timer = loop_add_timer(hulld->loop, on_timer, h);
	h->renew = loop_add_timer(hulld->loop, on_renew, h);
	if (!h->timer || !h->renew)
		abort();
	h->haproxy = haproxy_new(hulld, &state, err);
	if (h->haproxy && hulld->options.https)
		h->tls = tls_new(hulld, haproxy_folder(h->haproxy), err);
	if (h->haproxy && !hulld->options.https == !h->tls) {
		h->plan = hostnames_plan_new(hulld, h->haproxy, h->tls);
		return h;
	}
	hostnames_free(h);
	return NULL;
}

void hostnames_free(struct hostnames *h)
{
	if (!h)
		return;
	socket_call_cancel(h->call);
	forget_round(h);
	hostnames_plan_free(h->plan);
	loop_remove(h->timer);
	loop_remove(h->renew);
	tls_free(h->tls);
	haproxy_free(h->haproxy);
	free(h);
}

void hostnames_begin(struct hostnames *h)
{
	haproxy_begin(h->haproxy);
	h->begun = true;
	if (h->tls)
		loop_timer_arm(h->renew, RENEW_NS);
}

void hostnames_end(struct hostnames *h)
{
	haproxy_end(h->haproxy);
}

/* The host's own certificate authority. */

static const struct json_field ca_fields[] = {
	{"certificate", JSON_FIELD_STRING, offsetof(struct ca_view, certificate), .read_only = true, .help = "PEM."},
	{"expires_at", JSON_FIELD_STRING, offsetof(struct ca_view, expires_at), .read_only = true},
};
const struct json_table ca_table = JSON_TABLE("CertificateAuthority", struct ca_view, ca_fields);

void hostnames_http_ca(struct request *req, void *ctx)
{
	const struct tls *tls = ((struct hulld *)ctx)->hostnames->tls;
	cleanup_free char *expires_at = NULL;
	int64_t expires_ms;
	struct ca_view view;

	if (!tls) {
		struct problem problem;

		problem_set(&problem, PROBLEM_NOT_FOUND, NULL, "this host serves nothing over HTTPS");
		problem_set_hint(&problem, "start hulld with --https");
		request_refuse(req, &problem);
		return;
	}
	view.certificate = (char *)tls_authority(tls, &expires_ms);
	view.expires_at = expires_at = format_time(expires_ms);
	request_reply(req, 200, json_dump(&ca_table, &view));
}

void hostnames_forget_certificate(struct hulld *hulld, const char *hostname)
{
	if (!hulld->hostnames->tls)
		return;
	tls_forget(hulld->hostnames->tls, hostname);
	hostnames_changed(hulld);
}
