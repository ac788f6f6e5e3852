/* hulld: the control API's daemon. Options, then one loop until SIGTERM or SIGINT; machines go on without it. */
#include "api/access.h"
#include "api/audit.h"
#include "api/certificates.h"
#include "api/clock.h"
#include "api/events.h"
#include "api/exec.h"
#include "api/forget.h"
#include "api/host_drain.h"
#include "api/host_reader.h"
#include "api/hostnames.h"
#include "api/hulld.h"
#include "api/idempotency.h"
#include "api/image.h"
#include "api/ingress_client.h"
#include "api/log_age.h"
#include "api/logs.h"
#include "api/machine.h"
#include "api/operation.h"
#include "api/metrics.h"
#include "api/network_watch.h"
#include "api/networks.h"
#include "api/scratch.h"
#include "api/saved.h"
#include "api/secrets.h"
#include "api/start_order.h"
#include "api/volume.h"
#include "api/webhook.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>

#define LISTEN_BACKLOG 4096 /* a client that does not wait is refused beyond (EAGAIN, unix(7)); we may be at fsync */
#define LISTEN_WAIT_NS 1000000000ull

enum { EXIT_USAGE = 2 };

/* The host. */

static int read_boot_id(char ret[BOOT_ID_BYTES], struct error *err)
{
	cleanup_close int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read_full(fd, ret, BOOT_ID_BYTES - 1) != BOOT_ID_BYTES - 1)
		return error_set_errno(err, fd < 0 ? errno : EIO, "cannot read the host's boot id");
	ret[BOOT_ID_BYTES - 1] = '\0';
	return 0;
}

static uint64_t read_host_memory_mib(void)
{
	struct sysinfo info;

	return sysinfo(&info) == 0 ? (uint64_t)info.totalram * info.mem_unit >> 20 : UINT64_MAX;
}

/* Every request has a descriptor, one that follows a log has two: more than the 1024 a process has by default. */
static void raise_open_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

/* Two hullds on one state folder would each adopt the other's machines. Descriptor, to be kept open, or -errno. */
static int lock_state(const char *state, struct error *err)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	cleanup_free char *path = NULL;
	int fd;

	if (asprintf(&path, "%s/hulld.lock", state) < 0)
		return error_set(err, ENOMEM, "out of memory");
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_set_errno(err, errno, "cannot open %s", path);
	/* Not flock(): a child that has not yet executed anything would hold that too. */
	if (fcntl(fd, F_SETLK, &lock) < 0) {
		close_fd(fd);
		return error_set(err, EBUSY, "another hulld uses %s", state);
	}
	return fd;
}

/* The run folder is passable for who may use the socket in it. */
static int make_folders(const struct options *options, struct error *err)
{
	cleanup_free char *machines = NULL, *run = NULL;
	int r;

	if (asprintf(&machines, "%s/machines", options->state) < 0 || asprintf(&run, "%s/machines", options->run) < 0)
		return error_set(err, ENOMEM, "out of memory");
	r = make_directories(machines, 0700, err);
	if (r == 0)
		r = make_directories(options->run, 0755, err);
	return r == 0 ? make_directories(run, 0700, err) : r;
}

/* Sockets. */

static int listen_tcp(const char *listen_on, struct error *err)
{
	struct sockaddr_in address;
	cleanup_close int fd = -1;
	int one = 1;

	if (options_parse_address(listen_on, "--listen", &address, err) < 0)
		return -err->errnum;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
		bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
		return error_set_errno(err, errno, "cannot listen on %s", listen_on);
	return steal_fd(&fd);
}

static int listen_unix(const char *path, struct error *err)
{
	return unix_listen(path, LISTEN_BACKLOG, 0660, err);
}

/* The lock says that no other hulld is alive; a child of one that was just killed may hold its sockets for a moment,
 * until it comes to close what is not its own (process.c). */
static int listen_soon(int (*listen_on)(const char *where, struct error *err), const char *where, struct error *err)
{
	uint64_t end = monotonic_ns() + LISTEN_WAIT_NS;
	int fd;

	while ((fd = listen_on(where, err)) == -EADDRINUSE && monotonic_ns() < end)
		poll(NULL, 0, 10);
	return fd;
}

static int serve(struct hulld *hulld, struct error *err)
{
	char path[RUN_PATH_MAX + 16];
	int fd, r;

	http_set_patience(hulld->http, hulld->options.patience_s);
	snprintf(path, sizeof(path), "%s/hulld.sock", hulld->options.run);
	fd = listen_soon(listen_unix, path, err);
	if (fd < 0)
		return fd;
	r = http_serve(hulld->http, fd, NULL, err);
	if (r < 0 || !hulld->options.listen)
		return r;
	fd = listen_soon(listen_tcp, hulld->options.listen, err);
	return fd < 0 ? fd : http_serve(hulld->http, fd, hulld->options.token, err);
}

/* The recipe. */

static void on_signal(void *ctx, uint32_t signo)
{
	log_info("%s: ending; machines go on", strsignal((int)signo));
	loop_stop(ctx);
}

static void on_power_failure(void *ctx, uint32_t signo)
{
	log_info("%s: the host goes down, and its machines first", strsignal((int)signo));
	machines_go_down(ctx);
}

static int set_up(struct hulld *hulld, struct error *err)
{
	char path[STATE_PATH_MAX + 16];

	snprintf(path, sizeof(path), "%s/hull.db", hulld->options.state);
	hulld->loop = loop_new();
	if (!hulld->loop || !loop_add_signal(hulld->loop, SIGTERM, on_signal, hulld->loop) ||
		!loop_add_signal(hulld->loop, SIGINT, on_signal, hulld->loop) ||
		!loop_add_signal(hulld->loop, SIGPWR, on_power_failure, hulld))
		return error_set_errno(err, errno, "cannot make an event loop");
	hulld->host_reader = host_reader_new(hulld->loop);
	hulld->metrics = metrics_new(hulld);
	if (!(hulld->store = store_open(path, err)) || !(hulld->secrets = secrets_new(hulld->options.state, err)) ||
		!(hulld->blobs = blobs_new(hulld->loop, hulld->options.state, err)) ||
		!(hulld->events = events_new(hulld, err)) || !(hulld->webhooks = webhooks_new(hulld, err)) ||
		!(hulld->logs = logs_new(hulld, err)) || !(hulld->log_age = log_age_new(hulld, err)) || !(hulld->clock = clock_watch_new(hulld, err)) ||
		!(hulld->start_order = start_order_new(hulld, err)) || !(hulld->host_drain = host_drain_new(hulld, err)) ||
		!(hulld->ingress = ingress_client_new(hulld, err)) || certificates_start(hulld, err) < 0 || !(hulld->hostnames = hostnames_new(hulld, err)) ||
		!(hulld->audit = audit_new(hulld, err)) ||
		!(hulld->http = http_new(hulld->loop, hulld_routes, &access_guard, &idempotency_keeper, audit_request, hulld, err)) ||
		access_start(hulld, err) < 0 || !(hulld->forgetter = forgetter_new(hulld, err)))
		return -err->errnum;
	if (scratch_prepare(hulld, err) < 0 || volumes_start(hulld, err) < 0)
		return -err->errnum;
	blobs_each_stale(hulld->blobs, BLOB_STALE_S, image_release_stale_blob, hulld);
	if (machines_load(hulld, err) < 0)
		return -err->errnum;
	hostnames_begin(hulld->hostnames);
	return networks_start(hulld, err);
}

static void tear_down(struct hulld *hulld)
{
	execs_end(hulld);
	http_free(hulld->http);
	audit_free(hulld->audit);
	host_reader_free(hulld->host_reader);
	metrics_free(hulld->metrics);
	blobs_free(hulld->blobs);
	log_age_free(hulld->log_age);
	network_watches_free(hulld);
	machines_free(hulld);
	scratch_wait(hulld);
	volumes_end(hulld);
	saved_end(hulld);
	hostnames_free(hulld->hostnames);
	logs_free(hulld->logs);
	forgetter_free(hulld->forgetter);
	events_free(hulld->events);
	webhooks_free(hulld->webhooks);
	clock_watch_free(hulld->clock);
	start_order_free(hulld->start_order);
	host_drain_free(hulld->host_drain);
	ingress_client_free(hulld->ingress);
	secrets_free(hulld->secrets);
	store_close(hulld->store);
	loop_free(hulld->loop);
	free(hulld->options.token);
}

static int fail(const struct error *err, int status)
{
	char line[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX];

	fprintf(stderr, "hulld: %s\n", error_line(err, line, sizeof(line)));
	return status;
}

int main(int argc, char **argv)
{
	struct hulld hulld = {0};
	cleanup_close int lock = -1;
	struct error err = {0};
	int r = options_read(argc, argv, &hulld.options, &err);

	if (r != 0)
		return r < 0 ? fail(&err, EXIT_USAGE) : 0;
	/* 1. The process: no traces of secrets, its log, its umask, no death by a closed connection, all the descriptors it may have. */
	secrets_harden();
	log_open("hulld", LOG_LEVEL_INFO, STDERR_FILENO);
	umask(022);
	signal(SIGPIPE, SIG_IGN);
	raise_open_files();
	/* 2. The host: folders, the lock, what boot and how much memory this is. */
	if (make_folders(&hulld.options, &err) < 0 || (lock = lock_state(hulld.options.state, &err)) < 0 ||
		read_boot_id(hulld.boot_id, &err) < 0)
		return fail(&err, EXIT_FAILURE);
	hulld.host_memory_mib = read_host_memory_mib();
	/* 3. The parts, and what machines were doing when the last hulld ended; 4. requests. */
	r = set_up(&hulld, &err);
	if (r == 0)
		r = serve(&hulld, &err);
	if (r == 0)
		log_info("serving %s/hulld.sock%s%s", hulld.options.run, hulld.options.listen ? " and " : "",
			hulld.options.listen ? hulld.options.listen : "");
	/* 5. Until told to end. */
	if (r == 0 && (r = loop_run(hulld.loop)) < 0)
		error_set_errno(&err, -r, "the event loop failed");
	tear_down(&hulld);
	return r < 0 ? fail(&err, EXIT_FAILURE) : 0;
}
