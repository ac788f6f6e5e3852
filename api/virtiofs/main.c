/* hull-virtiofs: shares one folder of the host with one machine. Started by hulld, it finds the folder, gives up all rights but those of
 * the folder's owner, and becomes virtiofsd, which serves the machine's monitor and ends with it. */
#include "api/virtiofs/folder.h"
#include "api/virtiofs/identity.h"
#include "common/cleanup.h"
#include "common/io.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { EXIT_USAGE = 2 };

/* Each file that the guest knows is one that virtiofsd has open, and memory of the host's kernel. */
#define OPEN_FILES 262144

struct options {
	int socket_fd, ready_fd;
	const char *allowed, *folder, *virtiofsd;
	bool read_only;
};

static const char usage_text[] =
	"usage: hull-virtiofs --socket-fd N --allowed DIR --folder DIR --virtiofsd FILE [--ready-fd N] [--read-only]\n"
	"       hull-virtiofs --help | --version\n";

static int usage(void)
{
	fputs(usage_text, stderr);
	return EXIT_USAGE;
}

/* -1: none. */
static int parse_fd(const char *text)
{
	char *end;
	long fd = strtol(text, &end, 10);

	return isdigit((unsigned char)*text) && !*end && fd <= 1000000 && fcntl((int)fd, F_GETFD) >= 0 ? (int)fd : -1;
}

static int parse_options(int argc, char **argv, struct options *ret)
{
	static const struct option names[] = {
		{"socket-fd", required_argument, NULL, 's'},
		{"ready-fd", required_argument, NULL, 'r'},
		{"allowed", required_argument, NULL, 'a'},
		{"folder", required_argument, NULL, 'f'},
		{"virtiofsd", required_argument, NULL, 'd'},
		{"read-only", no_argument, NULL, 'o'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{0},
	};
	const char **const places[] = {['a'] = &ret->allowed, ['f'] = &ret->folder, ['d'] = &ret->virtiofsd};
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (c) {
		case 's':
		case 'r':
			*(c == 's' ? &ret->socket_fd : &ret->ready_fd) = parse_fd(optarg);
			if (parse_fd(optarg) < 0)
				return usage();
			break;
		case 'a':
		case 'f':
		case 'd':
			*places[c] = optarg;
			break;
		case 'o':
			ret->read_only = true;
			break;
		case 'h':
			fputs(usage_text, stdout);
			exit(0);
		case 'v':
			printf("hull-virtiofs %s\n", HULL_VERSION);
			exit(0);
		default:
			return usage();
		}
	}
	return optind < argc || ret->socket_fd < 0 || !ret->allowed || !ret->folder || !ret->virtiofsd ? usage() : 0;
}

/* As virtiofsd may not do it itself, without rights on the host. Where there are fewer to be had, fewer it is. */
static void set_limits(void)
{
	struct rlimit files = {OPEN_FILES, OPEN_FILES}, core = {0, 0};

	setrlimit(RLIMIT_NOFILE, &files);
	setrlimit(RLIMIT_CORE, &core); /* it maps the guest's memory */
}

/* Who is not root may mount only where it is root of a user namespace, and the flags of that mount are out of reach only in another. */
static int prepare(const struct options *options, struct error *err)
{
	bool is_root = geteuid() == 0;
	cleanup_close int fd = -1;
	struct stat st;
	int r = is_root ? 0 : identity_take_subordinate(err);

	if (r < 0)
		return r;
	fd = folder_open(options->allowed, options->folder, err);
	if (fd < 0)
		return fd;
	r = fstat(fd, &st) < 0 ? error_set_errno(err, errno, "cannot look at it") : 0;
	if (r == 0)
		r = folder_mount(fd, options->read_only, err);
	if (r == 0)
		r = is_root ? identity_take(st.st_uid, st.st_gid, err) : identity_take_again(err);
	return r < 0 ? error_prefix(err, "%s: ", options->folder) : 0;
}

/* Returns only where it cannot. */
static int become_virtiofsd(const struct options *options, struct error *err)
{
	char socket[32];
	char *argv[] = {(char *)options->virtiofsd, "-f", socket, "--rlimit-nofile=0", "-o", "source=" FOLDER_MOUNT_POINT, "-o",
		"sandbox=namespace", "-o", "cache=auto", "-o", "no_xattr", "-o", "log_level=err", NULL};
	char *environment[] = {NULL};

	snprintf(socket, sizeof(socket), "--fd=%d", options->socket_fd);
	fcntl(options->socket_fd, F_SETFD, 0);
	fcntl(options->socket_fd, F_SETFL, 0); /* it waits until the monitor connects */
	if (options->ready_fd >= 0) {
		fcntl(options->ready_fd, F_SETFD, FD_CLOEXEC);
		write_full(options->ready_fd, "r", 1);
	}
	execve(options->virtiofsd, argv, environment);
	return error_set_errno(err, errno, "cannot execute %s", options->virtiofsd);
}

int main(int argc, char **argv)
{
	struct options options = {.socket_fd = -1, .ready_fd = -1};
	struct error err = {0};
	char line[ERROR_FIELD_MAX + ERROR_MESSAGE_MAX];
	int r = parse_options(argc, argv, &options);

	if (r != 0)
		return r;
	/* 1. What it may use of the host. */
	set_limits();
	/* 2. The folder, where only this process sees it, and the rights of its owner. */
	r = prepare(&options, &err);
	/* 3. Who waits for us may go on. */
	if (r == 0)
		r = become_virtiofsd(&options, &err);
	fprintf(stderr, "hull-virtiofs: %s\n", error_line(&err, line, sizeof(line)));
	return r < 0 ? EXIT_FAILURE : 0;
}
