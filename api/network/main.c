/* hull-network: executes a machine's monitor with a tap of its network, and holds networks. Started by hulld. See network.h. */
#include "api/network/network.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_USAGE 2

static const char usage_text[] =
	"usage: hull-network join --folder DIR --subnet NETWORK/PREFIX [--egress --passt FILE] --address ADDRESS\n"
	"                    --tap-fd N --status-fd N -- PROGRAM [ARG]...\n"
	"       hull-network hold --folder DIR --subnet NETWORK/PREFIX [--egress --passt FILE] --ready-fd N\n"
	"       hull-network --help | --version\n";

struct options {
	struct network net;
	bool egress;
	const char *subnet, *address;
	int tap_fd, status_fd, ready_fd;
	char **program;
};

static int refuse(const char *what, const char *why)
{
	fprintf(stderr, "hull-network: %s: %s\n", what, why);
	return -EINVAL;
}

static int read_fd(const char *option, const char *text, int *ret)
{
	char *end;
	long fd = strtol(text, &end, 10);

	if (end == text || *end || fd < 3 || fd > 1023)
		return refuse(option, "must be a descriptor, 3 to 1023");
	*ret = (int)fd;
	return 0;
}

/* 0, 1 (answered) or -EINVAL, having said why. */
static int read_words(int argc, char **argv, struct options *ret)
{
	static const struct option known[] = {
		{"folder", required_argument, NULL, 'f'}, {"subnet", required_argument, NULL, 's'}, {"egress", no_argument, NULL, 'e'},
		{"passt", required_argument, NULL, 'p'}, {"address", required_argument, NULL, 'a'}, {"tap-fd", required_argument, NULL, 't'},
		{"status-fd", required_argument, NULL, 'S'}, {"ready-fd", required_argument, NULL, 'r'}, {"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'}, {NULL, 0, NULL, 0},
	};
	const char **const texts[] = {['f'] = &ret->net.folder, ['s'] = &ret->subnet, ['p'] = &ret->net.passt, ['a'] = &ret->address};
	int *const fds[] = {['t'] = &ret->tap_fd, ['S'] = &ret->status_fd, ['r'] = &ret->ready_fd};
	int c, i, r = 0;

	while (r == 0 && (c = getopt_long(argc, argv, "+", known, &i)) != -1) {
		if (c == 'h' || c == 'V') {
			fputs(c == 'h' ? usage_text : "hull-network " HULL_VERSION "\n", stdout);
			return 1;
		}
		if (c == '?')
			return -EINVAL; /* getopt has said what is wrong */
		if (c == 'e')
			ret->egress = true;
		else if (c == 't' || c == 'S' || c == 'r')
			r = read_fd(known[i].name, optarg, fds[c]);
		else
			*texts[c] = optarg;
	}
	ret->program = argv + optind;
	return r;
}

static int check(struct options *options, bool joins, uint32_t *ret_address)
{
	struct error err;

	if (!options->net.folder || options->net.folder[0] != '/')
		return refuse("--folder", "must be an absolute path");
	if (!options->subnet)
		return refuse("--subnet", "is required");
	if (subnet_parse(options->subnet, &options->net.subnet, &err) < 0)
		return refuse("--subnet", err.message);
	if (options->egress != !!options->net.passt)
		return refuse("--egress", "goes with --passt, and only with that");
	if (!joins)
		return options->ready_fd < 0 || options->program[0] ? refuse("hold", "needs --ready-fd, and no program") : 0;
	if (options->tap_fd < 0 || options->status_fd < 0 || !options->program[0])
		return refuse("join", "needs --tap-fd, --status-fd and a program");
	if (!options->address || address_parse(options->address, ret_address, &err) < 0 ||
		!subnet_has_machine(&options->net.subnet, *ret_address))
		return refuse("--address", "must be one of a machine, in the subnet");
	return 0;
}

/* As a monitor that could not begin (docs/interfaces.md). */
static int report(int status_fd, const struct error *err)
{
	json_t *record = json_pack("{s:s, s:n, s:s}", "cause", "error", "exit_status", "message", err->message);
	cleanup_free char *text = record ? json_dumps(record, JSON_COMPACT) : NULL;

	log_error_object(err, "network");
	if (text && write_full(status_fd, text, strlen(text)) == 0)
		write_full(status_fd, "\n", 1);
	json_decref(record);
	return EXIT_FAILURE;
}

static int join(const struct options *options, uint32_t address)
{
	struct error err;
	int tap = network_join(&options->net, address, &err);

	if (tap < 0)
		return report(options->status_fd, &err);
	if (tap == options->tap_fd ? fcntl(tap, F_SETFD, 0) < 0 : dup2(tap, options->tap_fd) < 0) {
		error_set_errno(&err, errno, "cannot hand over the tap");
		return report(options->status_fd, &err);
	}
	if (tap != options->tap_fd)
		close(tap);
	execv(options->program[0], options->program);
	error_set_errno(&err, errno, "cannot execute %s", options->program[0]);
	return report(options->status_fd, &err);
}

int main(int argc, char **argv)
{
	struct options options = {.tap_fd = -1, .status_fd = -1, .ready_fd = -1};
	const char *verb = argc > 1 ? argv[1] : "";
	bool joins = strcmp(verb, "join") == 0, is_verb = joins || strcmp(verb, "hold") == 0;
	uint32_t address = 0;
	int r;

	log_open("hull-network", LOG_LEVEL_INFO, STDERR_FILENO);
	r = read_words(is_verb ? argc - 1 : argc, is_verb ? argv + 1 : argv, &options);
	if (r == 0 && !is_verb)
		r = refuse("VERB", "must be join or hold; see hull-network --help");
	if (r == 0)
		r = check(&options, joins, &address);
	if (r != 0)
		return r < 0 ? EXIT_USAGE : 0;
	if (joins)
		return join(&options, address);
	fcntl(options.ready_fd, F_SETFD, FD_CLOEXEC);
	return network_hold(&options.net, options.ready_fd);
}
