/* hull-ingress: holds the published ports of all machines. Started by hulld and outliving it, so that a port and the
 * connections to it stay when the daemon is restarted. It parses no HTTP: bytes only. */
#include "api/ingress/connection.h"
#include "api/ingress/control.h"
#include "api/ingress/forwarder.h"
#include "api/ingress/port.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define EXIT_USAGE 2

/* Descriptors for anything but connections: ports, each of UDP with its stream, clients, the loop's own. */
#define OTHER_FILES (2 * INGRESS_PORTS_MAX + INGRESS_CLIENTS_MAX + 64)

/* Who connects from outside writes lines there. */
#define LOG_FILE_LIMIT_BYTES (16u << 20)

struct options {
	const char *socket, *forwarder, *log_file;
	unsigned idle_s;
};

struct server {
	struct ingress ingress;
	const char *path;
	int fd;
	struct stat identity; /* of the socket's file: only what we made is removed */
	struct loop_source *source;
	bool ending;
};

static const char usage_text[] =
	"usage: hull-ingress --socket PATH [--forwarder PATH] [--log-file FILE] [--idle-seconds N]\n"
	"       hull-ingress --help | --version\n";

static int usage(void)
{
	fputs(usage_text, stderr);
	return EXIT_USAGE;
}

static int parse_options(int argc, char **argv, struct options *ret)
{
	static const struct option names[] = {
		{"socket", required_argument, NULL, 's'},
		{"forwarder", required_argument, NULL, 'f'},
		{"log-file", required_argument, NULL, 'l'},
		{"idle-seconds", required_argument, NULL, 'i'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{0},
	};
	char *end;
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (c) {
		case 's':
			ret->socket = optarg;
			break;
		case 'f':
			ret->forwarder = optarg;
			break;
		case 'l':
			ret->log_file = optarg;
			break;
		case 'i':
			errno = 0;
			ret->idle_s = (unsigned)strtoul(optarg, &end, 10);
			if (errno || *end || end == optarg || ret->idle_s == 0 || ret->idle_s > 86400)
				return usage();
			break;
		case 'h':
			fputs(usage_text, stdout);
			exit(0);
		case 'v':
			printf("hull-ingress %s\n", HULL_VERSION);
			exit(0);
		default:
			return usage();
		}
	}
	return optind < argc || !ret->socket ? usage() : 0;
}

/* Nothing of whoever started us: its terminal, its input and output, its folder. Standard error stays unless there is a
 * log file. */
static int detach(const struct options *options, struct error *err)
{
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC), log = -1;

	if (null < 0)
		return error_set_errno(err, errno, "/dev/null");
	if (options->log_file) {
		log = open(options->log_file, O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY | O_CLOEXEC, 0640);
		if (log < 0 || dup2(log, STDERR_FILENO) < 0)
			return error_set_errno(err, errno, "log file %s", options->log_file);
		log_limit(LOG_FILE_LIMIT_BYTES);
	}
	if (dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
		return error_set_errno(err, errno, "redirect standard input and output");
	setsid(); /* fails for the leader of a session, which is as good */
	/* Relative paths keep their meaning: the socket's is needed again at the end, the forwarder's any time. */
	if (options->socket[0] == '/' && (!options->forwarder || options->forwarder[0] == '/') && chdir("/") < 0)
		return error_set_errno(err, errno, "enter /");
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	return 0;
}

/* Two descriptors a connection. As many as the system gives us. */
static size_t connections_by_rlimit(void)
{
	rlim_t wanted = 2 * INGRESS_CONNECTIONS_MAX + OTHER_FILES;
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return 64;
	if (files.rlim_cur < wanted) {
		struct rlimit raised = {wanted, files.rlim_max > wanted ? files.rlim_max : wanted};

		if (setrlimit(RLIMIT_NOFILE, &raised) < 0) { /* without privilege: up to the hard limit */
			raised = (struct rlimit){files.rlim_max, files.rlim_max};
			setrlimit(RLIMIT_NOFILE, &raised);
		}
		getrlimit(RLIMIT_NOFILE, &files);
	}
	if (files.rlim_cur >= wanted)
		return INGRESS_CONNECTIONS_MAX;
	log_warn("only %llu files may be open: fewer connections are possible", (unsigned long long)files.rlim_cur);
	return files.rlim_cur > 2 * OTHER_FILES ? (files.rlim_cur - OTHER_FILES) / 2 : files.rlim_cur / 4;
}

void ingress_check_idle(struct ingress *ingress)
{
	bool idle = !ingress->ports && ingress->n_clients == 0;

	loop_timer_arm(ingress->idle, idle ? ingress->idle_ns : UINT64_MAX);
}

static void on_drained(void *ctx)
{
	struct server *server = ctx;

	loop_stop(server->ingress.loop);
}

/* No new client from here on; the ports go, and with them their forwardings. */
static void shut_down(void *ctx)
{
	struct server *server = ctx;

	if (server->ending)
		return;
	server->ending = true;
	loop_remove(server->source);
	server->source = NULL;
	port_unpublish_all(&server->ingress);
	if (server->ingress.forwarder)
		forwarder_drain(server->ingress.forwarder, on_drained, server);
	else
		loop_post(server->ingress.loop, on_drained, server); /* after the answer was sent */
}

static void on_idle(void *ctx)
{
	log_info("no ports are published: ending");
	shut_down(ctx);
}

static void on_signal(void *ctx, uint32_t signo)
{
	(void)signo;
	shut_down(ctx);
}

static void on_control(void *ctx, uint32_t events)
{
	struct server *server = ctx;

	(void)events;
	control_accept(&server->ingress, server->fd, shut_down, server);
}

static int server_listen(struct server *server, const char *path, struct error *err)
{
	server->fd = unix_listen(path, 64, 0600, err);
	if (server->fd < 0)
		return server->fd;
	if (stat(path, &server->identity) < 0)
		return error_set_errno(err, errno, "%s", path);
	server->path = path;
	return 0;
}

static int server_begin(struct server *server, const struct options *options, struct error *err)
{
	struct ingress *ingress = &server->ingress;

	ingress->loop = loop_new();
	if (!ingress->loop)
		return error_set_errno(err, errno, "event loop");
	ingress->idle_ns = options->idle_s * NS_PER_S;
	ingress->connections_max = connections_by_rlimit();
	ingress->sessions.max = INGRESS_SESSIONS_MAX;
	ingress->idle = loop_add_timer(ingress->loop, on_idle, server);
	ingress->retries_ns = UINT64_MAX;
	ingress->retries = loop_add_timer(ingress->loop, connection_retry, ingress);
	server->source = loop_add_fd(ingress->loop, server->fd, EPOLLIN, on_control, server);
	if (!ingress->idle || !ingress->retries || !server->source ||
		!loop_add_signal(ingress->loop, SIGTERM, on_signal, server) ||
		!loop_add_signal(ingress->loop, SIGINT, on_signal, server))
		return error_set_errno(err, errno, "event sources");
	if (options->forwarder) {
		ingress->forwarder = forwarder_new(ingress->loop, options->forwarder);
		if (!ingress->forwarder)
			return error_set_errno(err, errno, "forwarder");
	}
	ingress_check_idle(ingress);
	return 0;
}

static void server_done(struct server *server)
{
	struct stat status;

	if (server->path && stat(server->path, &status) == 0 && status.st_ino == server->identity.st_ino &&
		status.st_dev == server->identity.st_dev)
		unlink(server->path);
	close_fd(server->fd);
	control_end(&server->ingress);
	forwarder_free(server->ingress.forwarder);
	loop_free(server->ingress.loop);
}

int main(int argc, char **argv)
{
	struct options options = {.idle_s = 60};
	struct server server = {.fd = -1};
	struct error err = {0};
	char line[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX];
	int r = parse_options(argc, argv, &options);

	if (r != 0)
		return r;
	log_open("hull-ingress", LOG_LEVEL_INFO, STDERR_FILENO);
	/* 1. The socket, while a relative path still means what the caller meant. */
	r = server_listen(&server, options.socket, &err);
	/* 2. Nothing of the caller's. 3. The loop. */
	if (r == 0)
		r = detach(&options, &err);
	if (r == 0)
		r = server_begin(&server, &options, &err);
	if (r < 0)
		fprintf(stderr, "hull-ingress: %s\n", error_line(&err, line, sizeof line));
	else if ((r = loop_run(server.ingress.loop)) < 0)
		log_error("event loop: %s", strerror(-r));
	server_done(&server);
	return r < 0 ? 1 : 0;
}
