/* What runs in a network's namespaces: it makes them, and all that is in them, and then one poll(2) loop. See network.h. */
#include "api/network/network.h"
#include "api/network/uplink.h"

#include "api/process.h"
#include "common/checked.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#define IDLE_S	       60 /* without a port, and then it ends */
#define LOOK_S	       5
#define ASKER_PATIENCE 2 /* seconds */

struct inside {
	const struct network *net;
	struct uplink uplink;
	pid_t dns;     /* dnsmasq; 0: it has ended */
	int dns_pidfd; /* -1: the same */
	time_t dns_began_at, dns_ended_at;
	int watcher; /* who is told of changes of: */
	struct network_report report; /* a port's tap was there when it was looked at last, too */
	time_t used_at; /* when there was one, monotonic */
	bool ending;
};

static time_t now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

/* ---- the namespaces ---- */

static int write_file(const char *path, const char *text, struct error *err)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	int r = fd < 0 ? -errno : write_full(fd, text, strlen(text));

	return r < 0 ? error_set_errno(err, -r, "cannot write %s", path) : 0;
}

/* Inside, this process is root, and its only user; outside, it is who it was. */
static int enter_namespaces(struct error *err)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	char line[64];
	int r;

	prctl(PR_SET_DUMPABLE, 1); /* who has changed its user may not write the maps (proc(5)) */
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return error_set_errno(err, errno, "cannot make namespaces for a network");
	snprintf(line, sizeof(line), "0 %u 1\n", uid);
	r = write_file("/proc/self/uid_map", line, err);
	if (r == 0)
		r = write_file("/proc/self/setgroups", "deny", err);
	snprintf(line, sizeof(line), "0 %u 1\n", gid);
	if (r == 0)
		r = write_file("/proc/self/gid_map", line, err);
	prctl(PR_SET_DUMPABLE, 0);
	return r;
}

/* A kernel may be without what it is about. */
static int write_if_there(const char *path, const char *text, struct error *err)
{
	return access(path, F_OK) < 0 ? 0 : write_file(path, text, err);
}

static int set_sysctls(const struct network *net, struct error *err)
{
	int r = write_if_there("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1", err);

	if (r == 0)
		r = write_if_there("/proc/sys/net/bridge/bridge-nf-call-iptables", "0", err); /* what is bridged is not routed */
	if (r == 0 && net->passt)
		r = write_file("/proc/sys/net/ipv4/ip_forward", "1", err);
	return r;
}

/* ---- programs ---- */

static void __attribute__((noreturn)) execute(const char *const *argv, int in, int parent, const char *folder)
{
	struct pollfd gone = {parent, POLLIN, 0};
	struct error err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (poll(&gone, 1, 0) != 0 || (in >= 0 && dup2(in, STDIN_FILENO) < 0))
		_exit(127);
	if (folder && network_confine(folder, &err) < 0) {
		log_error_object(&err, argv[0]);
		_exit(127);
	}
	execv(argv[0], (char **)argv);
	log_error("cannot execute %s: %s", argv[0], strerror(errno));
	_exit(127);
}

/* It ends with this process. `in`: its standard input; -1: nothing. `folder`: all that it sees but programs; NULL: it is not confined. Its
 * pid, or -errno with `err` set. */
static pid_t start_program(const char *const *argv, int in, const char *folder, struct error *err)
{
	cleanup_close int self = pidfd_open(getpid(), 0);
	pid_t pid = self < 0 ? -1 : folder ? confined_fork() : fork();

	if (pid < 0)
		return error_set_errno(err, errno, "cannot start %s", argv[0]);
	if (pid == 0)
		execute(argv, in, self, folder);
	return pid;
}

static int load_rules(const struct network *net, struct error *err)
{
	char nft[256];
	cleanup_free char *text = rules_text(net);
	cleanup_close int fd = memfd_create("rules", MFD_CLOEXEC);
	int r, status;
	pid_t pid;

	if (find_program("nft", nft, sizeof(nft)) < 0)
		return error_set(err, ENOENT, "nft is not installed: apt-get install nftables");
	r = fd < 0 ? -errno : write_full(fd, text, strlen(text));
	if (r < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return error_set_errno(err, r < 0 ? -r : errno, "cannot write the network's rules");
	pid = start_program((const char *[]){nft, "-f", "-", NULL}, fd, NULL, err);
	if (pid < 0)
		return pid;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		return error_set(err, EIO, "nft does not take the network's rules: see its log");
	return 0;
}

static int start_dns(struct inside *in, struct error *err)
{
	char dnsmasq[256], hosts[512];
	const char *argv[20] = {dnsmasq, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--no-poll",
		"--bind-interfaces", "--interface=" NETWORK_BRIDGE, "--except-interface=lo", "--domain-needed", "--bogus-priv",
		"--cache-size=1000", "--user=", "--group=", "--pid-file=", "--log-facility=-"};
	size_t n = 16;

	if (find_program("dnsmasq", dnsmasq, sizeof(dnsmasq)) < 0)
		return error_set(err, ENOENT, "dnsmasq is not installed: apt-get install dnsmasq-base");
	snprintf(hosts, sizeof(hosts), "--addn-hosts=%s/" NETWORK_HOSTS, in->net->folder);
	argv[n++] = hosts;
	/* Without a way out, what is no machine's name is nobody's. */
	argv[n++] = in->net->passt ? "--server=" UPLINK_DNS : "--local=/#/";
	in->dns = start_program(argv, -1, in->net->folder, err);
	if (in->dns < 0)
		return in->dns;
	in->dns_began_at = now_s();
	in->dns_pidfd = pidfd_open(in->dns, 0);
	return in->dns_pidfd < 0 ? error_set_errno(err, errno, "cannot watch dnsmasq") : 0;
}

/* One that does not take it has gone. */
static void tell_watcher(struct inside *in)
{
	if (in->watcher >= 0 && send(in->watcher, &in->report, sizeof(in->report), MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(in->report))
		in->watcher = close_fd(in->watcher);
}

/* Of the name server; "": it runs. */
static void report(struct inside *in, const char *message)
{
	if (strcmp(in->report.message, message) == 0)
		return;
	in->report.errnum = message[0] ? EIO : 0;
	snprintf(in->report.message, sizeof(in->report.message), "%.*s", (int)sizeof(in->report.message) - 1, message);
	tell_watcher(in);
}

static void on_dns_end(struct inside *in)
{
	char message[128];
	int status = -1;

	waitpid(in->dns, &status, 0);
	if (WIFEXITED(status))
		snprintf(message, sizeof(message), "its name server, dnsmasq, has ended with status %d", WEXITSTATUS(status));
	else
		snprintf(message, sizeof(message), "its name server, dnsmasq, was ended by signal %d", WTERMSIG(status));
	log_error("%s: it is started again", message);
	report(in, message);
	in->dns_pidfd = close_fd(in->dns_pidfd);
	in->dns = 0;
	in->dns_ended_at = now_s();
}

static void start_dns_again(struct inside *in)
{
	struct error err;

	if (start_dns(in, &err) == 0)
		return;
	log_error_object(&err, "network");
	report(in, err.message);
}

/* ---- who asks ---- */

static void note_port(struct inside *in, uint32_t address, bool there)
{
	uint32_t i = address - in->net->subnet.base;

	in->report.ports[i / 8] = (uint8_t)(there ? in->report.ports[i / 8] | 1 << i % 8 : in->report.ports[i / 8] & ~(1 << i % 8));
	tell_watcher(in);
}

static int attach(struct inside *in, uint32_t address, struct error *err)
{
	int tap;

	if (!subnet_has_machine(&in->net->subnet, address))
		return error_set(err, EINVAL, "the network has no such address for a machine");
	tap = links_make_port(address, err);
	if (tap >= 0) {
		note_port(in, address, true);
		in->used_at = now_s();
	}
	return tap;
}

static void answer(struct inside *in, int sock, uint32_t address)
{
	struct network_answer answer = {.errnum = 0};
	struct error err;
	cleanup_close int tap = attach(in, address, &err);

	if (tap < 0) {
		answer.errnum = err.errnum;
		snprintf(answer.message, sizeof(answer.message), "%.255s", err.message);
	}
	fd_send(sock, &answer, sizeof(answer), tap); /* who has gone needs none */
}

/* Only who has made the network's folder, and root, may open its socket. */
static void serve(struct inside *in, int listen_fd)
{
	cleanup_close int sock = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	const struct timeval patience = {.tv_sec = ASKER_PATIENCE};
	struct network_request request;
	int fd;

	if (sock < 0)
		return;
	setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (fd_receive(sock, &request, sizeof(request), &fd) < 0)
		return;
	close_fd(fd);
	if (request.verb == NETWORK_ATTACH)
		answer(in, sock, request.address);
	else if (request.verb == NETWORK_RELOAD && in->dns)
		kill(in->dns, SIGHUP);
	else if (request.verb == NETWORK_WATCH) {
		close_fd(in->watcher);
		in->watcher = steal_fd(&sock);
		tell_watcher(in);
	} else if (request.verb == NETWORK_END)
		in->ending = true;
}

/* Has any port been there lately? */
static bool is_needed(struct inside *in)
{
	const struct subnet *subnet = &in->net->subnet;
	bool any = false;

	for (uint32_t a = subnet->base; a <= subnet_last(subnet); a++) {
		uint32_t i = a - subnet->base;

		if (!(in->report.ports[i / 8] & 1 << i % 8))
			continue;
		if (links_has_port(a))
			any = true;
		else
			note_port(in, a, false);
	}
	if (any)
		in->used_at = now_s();
	return now_s() - in->used_at < IDLE_S;
}

static void on_control(struct inside *in, int control_fd)
{
	char byte;
	int stream;

	if (fd_receive(control_fd, &byte, sizeof(byte), &stream) < 0) {
		in->ending = true; /* the outer process has gone */
		return;
	}
	if (stream >= 0)
		uplink_connect(&in->uplink, stream);
}

/* ---- the recipe ---- */

static int set_up(struct inside *in, struct error *err)
{
	const struct network *net = in->net;
	int r = enter_namespaces(err);

	if (r == 0)
		r = set_sysctls(net, err);
	if (r == 0)
		r = load_rules(net, err); /* before there is anything that they are for */
	if (r == 0)
		r = links_make(&net->subnet, err);
	if (r == 0 && net->passt) {
		in->uplink.tap = links_make_uplink(err);
		r = in->uplink.tap < 0 ? in->uplink.tap : 0;
	}
	return r == 0 ? start_dns(in, err) : r;
}

/* What has come within `ms`. */
static void wait_once(struct inside *in, int listen_fd, int control_fd, int ms)
{
	struct pollfd fds[] = {
		{listen_fd, POLLIN, 0},
		{control_fd, POLLIN, 0},
		{in->dns_pidfd, POLLIN, 0},
		{in->uplink.tap, uplink_tap_events(&in->uplink), 0},
		{in->uplink.stream, uplink_stream_events(&in->uplink), 0},
	};

	if (poll(fds, ARRAY_SIZE(fds), ms) <= 0)
		return;
	if (fds[4].revents)
		uplink_on_stream(&in->uplink, fds[4].revents);
	if (fds[3].revents)
		uplink_from_tap(&in->uplink);
	if (fds[2].revents)
		on_dns_end(in);
	if (fds[1].revents)
		on_control(in, control_fd);
	if (fds[0].revents)
		serve(in, listen_fd);
}

/* Ports and dnsmasq are looked at now and then, whatever else there is to do. */
static void run(struct inside *in, int listen_fd, int control_fd)
{
	time_t looked_at = now_s();

	while (!in->ending) {
		wait_once(in, listen_fd, control_fd, in->dns ? LOOK_S * 1000 : 1000);
		if (!in->dns && now_s() > in->dns_ended_at)
			start_dns_again(in);
		if (now_s() - looked_at < LOOK_S)
			continue;
		looked_at = now_s();
		if (in->dns && looked_at - in->dns_began_at >= LOOK_S)
			report(in, "");
		in->ending = !is_needed(in);
	}
}

int network_run_inside(const struct network *net, int listen_fd, int control_fd, int ready_fd)
{
	static struct inside in = {.uplink = {.tap = -1, .stream = -1}, .dns_pidfd = -1, .watcher = -1};
	pid_t outer = getppid();
	struct error err;

	in.net = net;
	in.used_at = now_s();
	if (set_up(&in, &err) < 0) {
		log_error_object(&err, "network");
		write_full(ready_fd, err.message, strlen(err.message));
		return EXIT_FAILURE;
	}
	/* Not before: a change of user takes it back (PR_SET_PDEATHSIG(2const)). */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != outer)
		return EXIT_FAILURE;
	write_full(ready_fd, "+", 1);
	close(ready_fd);
	run(&in, listen_fd, control_fd);
	log_info("ends: no machine needs it");
	return 0;
}
