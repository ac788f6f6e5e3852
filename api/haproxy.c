#include "api/haproxy.h"

#include "api/process.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define CONFIG_MAX	(4u << 20)
#define CONNECTIONS_MAX 16384u
#define OTHER_FILES	256u
#define PATH_BYTES	128
#define BACKOFF_MAX_S	30
#define STEADY_NS	60000000000ull
#define NS_PER_S	1000000000ull

struct haproxy {
	struct hulld *hulld;
	struct haproxy_state state;
	char program[256], folder[PATH_BYTES], socket_path[PATH_BYTES], map_path[PATH_BYTES], jail[PATH_BYTES];
	const char *user;   /* which it becomes; NULL: hulld's own */
	const char *prefix; /* of sockets' paths, as it sees them: the jail, or "" when that is its root */
	struct process *process;
	struct loop_source *retry;
	uint64_t started_ns;
	unsigned failures; /* in a row */
	uint64_t restarts;
};

bool haproxy_is_wanted(const struct haproxy *haproxy)
{
	return haproxy->hulld->options.http || haproxy->hulld->options.https;
}

bool haproxy_is_running(const struct haproxy *haproxy)
{
	return process_is_running(haproxy->process);
}

uint64_t haproxy_restarts(const struct haproxy *haproxy)
{
	return haproxy->restarts;
}

const char *haproxy_folder(const struct haproxy *haproxy)
{
	return haproxy->folder;
}

const char *haproxy_socket_path(const struct haproxy *haproxy)
{
	return haproxy->socket_path;
}

const char *haproxy_map_path(const struct haproxy *haproxy)
{
	return haproxy->map_path;
}

int haproxy_print_server(const struct haproxy *haproxy, struct buf *out, const char *name)
{
	/* A machine that ends is not to be reached by a connection of before. */
	return buf_printf(out, "%s unix@%s/%s pool-purge-delay 1s", name, haproxy->prefix, name);
}

/* The configuration. */

/* Two descriptors a connection, of as many as hulld may have, and so it. */
static unsigned connections_max(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur < 4 * OTHER_FILES)
		return OTHER_FILES;
	return files.rlim_cur - OTHER_FILES < 2 * CONNECTIONS_MAX ? (unsigned)(files.rlim_cur - OTHER_FILES) / 2 : CONNECTIONS_MAX;
}

/* What a client says of where it comes from is not believed; "_" or "." for "-", as some programs see it, neither. */
static const char rules[] =
	"	http-request set-var(txn.backend) req.hdr(host),host_only,lower,rtrim(.),map_str(%s)\n"
	"	http-request return status 404 content-type text/plain string \"There is nothing by this name here.\\n\""
	" unless { var(txn.backend) -m found }\n"
	"	http-request del-header ^(x.(forwarded|real.ip|client.ip)|forwarded$|proxy$) -m reg\n"
	"	http-request set-header X-Forwarded-For %%[src]\n"
	"	http-request set-header X-Forwarded-Proto %s\n"
	"	http-request set-header X-Forwarded-Port %%[dst_port]\n"
	/* A machine that has just ended gave no answer: another is asked, where asking twice does no harm. */
	"	http-request disable-l7-retry unless { method GET HEAD OPTIONS }\n"
	"	use_backend %%[var(txn.backend)]\n";

static int print_failure(struct buf *config, int status, const char *text)
{
	return buf_printf(config, "	http-error status %d content-type text/plain string \"%s\\n\" hdr Retry-After 5 hdr Cache-Control no-store\n",
		status, text);
}

/* All but the backends. */
static int print_head(const struct haproxy *haproxy, struct buf *config)
{
	const struct options *options = &haproxy->hulld->options;
	int r = buf_printf(config, "# Made by hulld, anew for each start.\nglobal\n	maxconn %u\n"
		"	stats socket %s mode 600 level admin\n	ssl-load-extra-files none\n"
		"	ssl-default-bind-options ssl-min-ver TLSv1.2\n", connections_max(), haproxy->socket_path);

	if (r == 0 && haproxy->user)
		r = buf_printf(config, "	chroot %s\n	user %s\n	group %s\n", haproxy->jail, haproxy->user, haproxy->user);
	/* A head has to be there soon, and a body to go on; what is open both ways for long is a tunnel. */
	if (r == 0)
		r = buf_printf(config, "defaults\n	mode http\n	option redispatch 1\n	retries 3\n"
			"	retry-on conn-failure empty-response\n	balance leastconn\n"
			"	timeout connect 5s\n	timeout queue 10s\n	timeout http-request 10s\n	timeout http-keep-alive 60s\n"
			"	timeout client 60s\n	timeout client-fin 30s\n	timeout server 10m\n	timeout tunnel 24h\n");
	if (r == 0)
		r = print_failure(config, 502, "The machine that serves this gave no answer.");
	if (r == 0)
		r = print_failure(config, 503, "No machine serves this at the moment.");
	if (r == 0)
		r = print_failure(config, 504, "The machine that serves this took too long.");
	if (r == 0 && options->http) {
		r = buf_printf(config, "frontend http\n	bind %s\n", options->http);
		if (r == 0)
			r = buf_printf(config, rules, haproxy->map_path, "http");
	}
	/* Nothing is shown to who asks for a name that has no certificate. */
	if (r == 0 && options->https) {
		r = buf_printf(config, "frontend https\n	bind %s ssl strict-sni alpn h2,http/1.1 crt-list %s/certificates.list\n", options->https,
			haproxy->folder);
		if (r == 0)
			r = buf_printf(config, rules, haproxy->map_path, "https");
	}
	return r;
}

static int print_config(const struct haproxy *haproxy, struct buf *config)
{
	int r = print_head(haproxy, config);

	for (unsigned slot = 0; r == 0 && slot < HAPROXY_SLOTS; slot++) {
		r = buf_printf(config, "backend b%u\n", slot);
		if (r == 0)
			haproxy->state.write_servers(haproxy->state.ctx, slot, config);
	}
	return r;
}

static const char *in_folder(const struct haproxy *haproxy, const char *name, char ret[PATH_BYTES + 32])
{
	snprintf(ret, PATH_BYTES + 32, "%s/%s", haproxy->folder, name);
	return ret;
}

static int write_files(const struct haproxy *haproxy, struct error *err)
{
	char path[PATH_BYTES + 32];
	struct buf config, map, list;
	int r;

	buf_init(&config, CONFIG_MAX);
	buf_init(&map, CONFIG_MAX);
	buf_init(&list, CONFIG_MAX);
	haproxy->state.write_map(haproxy->state.ctx, &map);
	r = print_config(haproxy, &config);
	if (r < 0)
		error_set_errno(err, -r, "cannot make HAProxy's configuration");
	else
		r = write_file_atomic(haproxy->map_path, map.data ? map.data : "", map.len, 0600, err);
	if (r == 0 && haproxy->hulld->options.https) {
		haproxy->state.write_certificates(haproxy->state.ctx, &list);
		r = write_file_atomic(in_folder(haproxy, "certificates.list", path), list.data ? list.data : "", list.len, 0600, err);
	}
	if (r == 0)
		r = write_file_atomic(in_folder(haproxy, "haproxy.cfg", path), config.data, config.len, 0600, err);
	buf_done(&config);
	buf_done(&map);
	buf_done(&list);
	return r;
}

/* Does the configuration that is there begin as one that is made now? */
static bool is_configured_alike(const struct haproxy *haproxy)
{
	char path[PATH_BYTES + 32];
	struct buf head, there;
	bool alike;

	buf_init(&head, CONFIG_MAX);
	buf_init(&there, CONFIG_MAX);
	alike = print_head(haproxy, &head) == 0 && buf_read_file(&there, in_folder(haproxy, "haproxy.cfg", path)) == 0 &&
		there.len > head.len && memcmp(there.data, head.data, head.len) == 0 &&
		strncmp(there.data + head.len, "backend", 7) == 0;
	buf_done(&head);
	buf_done(&there);
	return alike;
}

/* The process. */

static void start(struct haproxy *haproxy);

static void start_later(struct haproxy *haproxy)
{
	unsigned delay_s = haproxy->failures < 5 ? (1u << haproxy->failures) - 1 : BACKOFF_MAX_S;

	haproxy->failures++;
	loop_timer_arm(haproxy->retry, delay_s * NS_PER_S);
}

static void on_end(void *ctx, int status)
{
	struct haproxy *haproxy = ctx;

	process_free(haproxy->process);
	haproxy->process = NULL;
	if (status >= 0 && WIFSIGNALED(status))
		log_error("haproxy was ended by signal %d; it is started again", WTERMSIG(status));
	else if (status >= 0)
		log_error("haproxy ended with status %d; it is started again", WEXITSTATUS(status));
	else
		log_error("haproxy has ended; it is started again"); /* an earlier hulld's child */
	haproxy->restarts++;
	if (monotonic_ns() - haproxy->started_ns >= STEADY_NS)
		haproxy->failures = 0;
	start_later(haproxy);
}

static int record(const struct haproxy *haproxy, const struct process_id *id, struct error *err)
{
	char path[PATH_BYTES + 32], text[128];
	int len = snprintf(text, sizeof(text), "%d %llu %s\n", (int)id->pid, (unsigned long long)id->start_time, haproxy->hulld->boot_id);

	return write_file_atomic(in_folder(haproxy, "haproxy.pid", path), text, (size_t)len, 0600, err);
}

static int spawn(struct haproxy *haproxy, struct error *err)
{
	char path[PATH_BYTES + 32];
	/* -db: in the foreground; -q: silent once it has begun. */
	const char *argv[] = {haproxy->program, "-db", "-q", "-f", in_folder(haproxy, "haproxy.cfg", path), NULL};
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct process_id id;
	int gate;

	if (null < 0)
		return error_set_errno(err, errno, "/dev/null");
	haproxy->process = process_spawn(haproxy->hulld->loop, argv, (int[]){null, null, 2}, 3, on_end, haproxy, &id, &gate, err);
	if (!haproxy->process)
		return -err->errnum;
	if (record(haproxy, &id, err) < 0) {
		close(gate); /* unrecorded, it must not run */
		process_kill_and_free(haproxy->process);
		haproxy->process = NULL;
		return -err->errnum;
	}
	process_open_gate(gate);
	haproxy->started_ns = monotonic_ns();
	return 0;
}

static void start(struct haproxy *haproxy)
{
	struct error err;

	if (write_files(haproxy, &err) < 0 || spawn(haproxy, &err) < 0) {
		log_error_object(&err, "haproxy");
		start_later(haproxy);
		return;
	}
	haproxy->state.started(haproxy->state.ctx);
}

static void on_retry(void *ctx)
{
	start(ctx);
}

/* The one that haproxy.pid names, when it lives. */
static struct process *find_process(struct haproxy *haproxy)
{
	char path[PATH_BYTES + 32], boot_id[BOOT_ID_BYTES] = "";
	unsigned long long start_time;
	struct buf text;
	int pid, n = 0;

	buf_init(&text, 256);
	if (buf_read_file(&text, in_folder(haproxy, "haproxy.pid", path)) == 0 && text.len)
		n = sscanf(text.data, "%d %llu %36s", &pid, &start_time, boot_id);
	buf_done(&text);
	if (n != 3 || strcmp(boot_id, haproxy->hulld->boot_id) != 0)
		return NULL;
	return process_adopt(haproxy->hulld->loop, &(struct process_id){pid, start_time}, on_end, haproxy);
}

void haproxy_begin(struct haproxy *haproxy)
{
	struct process *process = find_process(haproxy);

	if (process && haproxy_is_wanted(haproxy) && is_configured_alike(haproxy)) {
		haproxy->process = process;
		haproxy->started_ns = monotonic_ns();
		haproxy->state.started(haproxy->state.ctx);
		return;
	}
	process_signal(process, SIGUSR1); /* it listens no more, and ends with its last connection */
	process_free(process);
	if (haproxy_is_wanted(haproxy))
		start(haproxy);
}

void haproxy_end(struct haproxy *haproxy)
{
	process_signal(haproxy->process, SIGTERM);
	process_free(haproxy->process);
	haproxy->process = NULL;
	loop_timer_arm(haproxy->retry, UINT64_MAX);
}

/* Setting up. */

/* The configuration has no quotes: none of this may need any. */
static int check_path(const char *run, struct error *err)
{
	if (run[strspn(run, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-")])
		return error_set_field(err, EINVAL, "--run", "may have letters, digits, / . _ and - only, with --http and --https");
	return 0;
}

/* Which user it becomes, and that it reaches the sockets of machines. */
static int give_to_user(struct haproxy *haproxy, struct error *err)
{
	const struct passwd *user;

	if (geteuid() != 0)
		return 0;
	haproxy->user = "haproxy"; /* and group: as Debian's package makes them */
	haproxy->prefix = "";
	user = getpwnam(haproxy->user);
	if (!user || !getgrnam(haproxy->user))
		return error_set_field(err, ENOENT, haproxy->hulld->options.http ? "--http" : "--https", "there is no user and group haproxy");
	/* What is made in it is the group's, too. */
	if (chown(haproxy->jail, 0, user->pw_gid) < 0 || chmod(haproxy->jail, 02710) < 0)
		return error_set_errno(err, errno, "cannot give %s to haproxy", haproxy->jail);
	return 0;
}

static int set_up(struct haproxy *haproxy, struct error *err)
{
	const struct options *options = &haproxy->hulld->options;
	int r = make_directories(haproxy->folder, 0700, err);

	if (r == 0)
		r = make_directories(haproxy->jail, 0700, err);
	if (r < 0 || !haproxy_is_wanted(haproxy))
		return r;
	if (options->haproxy)
		snprintf(haproxy->program, sizeof(haproxy->program), "%s", options->haproxy);
	else if (find_program("haproxy", haproxy->program, sizeof(haproxy->program)) < 0)
		return error_set_field(err, ENOENT, options->http ? "--http" : "--https", "haproxy is not installed");
	r = check_path(options->run, err);
	return r < 0 ? r : give_to_user(haproxy, err);
}

struct haproxy *haproxy_new(struct hulld *hulld, const struct haproxy_state *state, struct error *err)
{
	struct haproxy *haproxy = calloc(1, sizeof(*haproxy));

	if (!haproxy)
		abort();
	haproxy->hulld = hulld;
	haproxy->state = *state;
	snprintf(haproxy->folder, PATH_BYTES, "%s/http", hulld->options.run);
	snprintf(haproxy->jail, PATH_BYTES, "%s/http/machines", hulld->options.run);
	snprintf(haproxy->socket_path, PATH_BYTES, "%s/http/haproxy.sock", hulld->options.run);
	snprintf(haproxy->map_path, PATH_BYTES, "%s/http/hosts.map", hulld->options.run);
	haproxy->prefix = haproxy->jail;
	haproxy->retry = loop_add_timer(hulld->loop, on_retry, haproxy);
	if (!haproxy->retry)
		abort();
	if (set_up(haproxy, err) == 0)
		return haproxy;
	haproxy_free(haproxy);
	return NULL;
}

void haproxy_free(struct haproxy *haproxy)
{
	if (!haproxy)
		return;
	process_free(haproxy->process);
	loop_remove(haproxy->retry);
	free(haproxy);
}
