/* hulld's command line and environment. */
#include "api/options.h"

#include "api/webhook.h"
#include "common/buf.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_MIN	     16
#define START_TIMEOUT_S	     60
#define DEPENDENCY_TIMEOUT_S 300
#define HTTP_PATIENCE_S	     60
#define TIMEOUT_S_MAX	     3600
#define OVERCOMMIT_MAX	     100000 /* percent */

static const char usage[] =
	"usage: hulld [--state DIR] [--run DIR] [--listen ADDRESS:PORT --token-file FILE] [--kernel FILE]\n"
	"             [--initrd FILE] [--vmm FILE] [--virtiofs FILE] [--ingress FILE] [--ingress-forwarder PATH]\n"
	"             [--network FILE]\n"
	"             [--audit-log FILE] [--audit-keep MIB[,DAYS]] [--log-keep MIB[,DAYS]] [--memory-overcommit PERCENT]\n"
	"             [--mount-allow [PROJECT=]DIR]...\n"
	"             [--webhook-allow RANGE[,RANGE]...] [--webhook-timing FIRST_RETRY_MS[,GIVE_UP_S[,TIMEOUT_MS]]]\n"
	"             [--http ADDRESS:PORT] [--https ADDRESS:PORT] [--haproxy FILE]\n"
	"       hulld --help | --version\n";

static const struct options usual = {
	.state = "/var/lib/hull",
	.run = "/run/hull",
	.kernel = HULL_LIBDIR "/guest/vmlinux",
	.initrd = HULL_LIBDIR "/guest/initramfs.cpio",
	.vmm = HULL_BINDIR "/hull-vmm",
	.virtiofs = HULL_LIBEXECDIR "/hull-virtiofs",
	.ingress = HULL_LIBEXECDIR "/hull-ingress",
	.network = HULL_LIBEXECDIR "/hull-network",
	.audit_keep = {256ull << 20, 90},
	.log_keep = {16ull << 20, 90},
	.webhook_timing = {.first_retry_ms = 5000, .give_up_s = 3 * 86400, .timeout_ms = 10000},
};

/* Those whose words are no more than read at first. */
struct words {
	const char *token_file, *audit_keep, *log_keep, *memory_overcommit, *webhook_allow, *webhook_timing;
};

static int check_path(const char *path, const char *option, size_t max, struct error *err)
{
	if (path[0] != '/')
		return error_set_field(err, EINVAL, option, "must be an absolute path");
	if (strlen(path) > max)
		return error_set_field(err, EINVAL, option, "must have at most %zu bytes", max);
	return 0;
}

/* `name`: of the option or variable that has it; `*ret` stays as it is where `text` is NULL. */
static int read_number(const char *name, const char *text, unsigned max, unsigned *ret, struct error *err)
{
	unsigned long value;
	char *end;

	if (!text)
		return 0;
	value = strtoul(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end || value < 1 || value > max)
		return error_set_field(err, EINVAL, name, "must be 1 to %u", max);
	*ret = (unsigned)value;
	return 0;
}

static int read_timeout(const char *name, unsigned def, unsigned *ret, struct error *err)
{
	*ret = def;
	return read_number(name, getenv(name), TIMEOUT_S_MAX, ret, err);
}

static int read_token(const char *path, char **ret, struct error *err)
{
	struct buf text;
	int r;

	buf_init(&text, 4096);
	r = buf_read_file(&text, path);
	if (r < 0) {
		error_set_errno(err, -r, "cannot read %s", path);
		return error_in_field(err, "--token-file");
	}
	while (text.len && isspace((unsigned char)text.data[text.len - 1]))
		text.data[--text.len] = '\0';
	if (text.len < TOKEN_MIN || strlen(text.data) != text.len) {
		buf_done(&text);
		return error_set_field(err, EINVAL, "--token-file", "must hold a token of %d characters or more", TOKEN_MIN);
	}
	*ret = text.data;
	return 0;
}

int options_parse_address(const char *text, const char *option, struct sockaddr_in *ret, struct error *err)
{
	const char *colon = strrchr(text, ':');
	char host[INET_ADDRSTRLEN], *end;
	unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;

	if (!colon || (size_t)(colon - text) >= sizeof(host) || !isdigit((unsigned char)colon[1]) || *end || port > 65535)
		return error_set_field(err, EINVAL, option, "must be an IPv4 address and a port, as 127.0.0.1:7070");
	snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
	*ret = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	if (inet_pton(AF_INET, host, &ret->sin_addr) != 1)
		return error_set_field(err, EINVAL, option, "%s is no IPv4 address", host);
	return 0;
}

static int check_address(const char *text, const char *option, struct error *err)
{
	struct sockaddr_in address;

	return text ? options_parse_address(text, option, &address, err) : 0;
}

/* 0, 1 (answered), or -EINVAL with `err` set. */
static int read_words(int argc, char **argv, struct options *options, struct words *words, struct error *err)
{
	static const struct option known[] = {
		{"state", required_argument, NULL, 's'}, {"run", required_argument, NULL, 'r'},
		{"listen", required_argument, NULL, 'l'}, {"token-file", required_argument, NULL, 't'},
		{"kernel", required_argument, NULL, 'k'}, {"initrd", required_argument, NULL, 'i'},
		{"vmm", required_argument, NULL, 'v'}, {"virtiofs", required_argument, NULL, 'F'},
		{"ingress", required_argument, NULL, 'g'}, {"mount-allow", required_argument, NULL, 'M'},
		{"ingress-forwarder", required_argument, NULL, 'f'}, {"network", required_argument, NULL, 'n'}, {"audit-log", required_argument, NULL, 'a'},
		{"audit-keep", required_argument, NULL, 'A'}, {"log-keep", required_argument, NULL, 'L'},
		{"memory-overcommit", required_argument, NULL, 'm'}, {"webhook-allow", required_argument, NULL, 'w'}, {"webhook-timing", required_argument, NULL, 'W'},
		{"http", required_argument, NULL, 'p'}, {"https", required_argument, NULL, 'S'},
		{"haproxy", required_argument, NULL, 'x'}, {"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'}, {NULL, 0, NULL, 0},
	};
	const char **const places[] = {
		['s'] = &options->state, ['r'] = &options->run, ['l'] = &options->listen, ['t'] = &words->token_file,
		['k'] = &options->kernel, ['i'] = &options->initrd, ['v'] = &options->vmm, ['F'] = &options->virtiofs, ['g'] = &options->ingress,
		['f'] = &options->ingress_forwarder, ['n'] = &options->network, ['a'] = &options->audit_log, ['A'] = &words->audit_keep,
		['L'] = &words->log_keep, ['m'] = &words->memory_overcommit, ['w'] = &words->webhook_allow, ['W'] = &words->webhook_timing, ['p'] = &options->http,
		['S'] = &options->https, ['x'] = &options->haproxy,
	};
	int c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (c == 'h' || c == 'V') {
			printf("%s", c == 'h' ? usage : "hulld " HULL_VERSION "\n");
			return 1;
		}
		if (c == '?')
			return error_set(err, EINVAL, "see hulld --help"); /* getopt has said what is wrong */
		if (c == 'M' && allowed_folders_add(optarg, &options->mount_allow, err) < 0)
			return error_in_field(err, "--mount-allow");
		if (c != 'M')
			*places[c] = optarg;
	}
	return optind < argc ? error_set(err, EINVAL, "takes no argument \"%s\"", argv[optind]) : 0;
}

static int take_words(const struct words *words, struct options *options, struct error *err)
{
	int r;

	if (!options->listen != !words->token_file)
		return error_set(err, EINVAL, "--listen and --token-file go together");
	r = check_path(options->state, "--state", STATE_PATH_MAX, err);
	if (r == 0)
		r = check_path(options->run, "--run", RUN_PATH_MAX, err);
	if (r == 0 && options->audit_log)
		r = check_path(options->audit_log, "--audit-log", STATE_PATH_MAX, err);
	if (r == 0 && words->audit_keep)
		r = keep_parse("--audit-keep", words->audit_keep, &options->audit_keep, err);
	if (r == 0 && words->log_keep)
		r = keep_parse("--log-keep", words->log_keep, &options->log_keep, err);
	if (r == 0)
		r = read_number("--memory-overcommit", words->memory_overcommit, OVERCOMMIT_MAX, &options->memory_overcommit_percent, err);
	if (r == 0 && words->webhook_allow && address_ranges_parse(words->webhook_allow, &options->webhook_allow, err) < 0)
		r = error_in_field(err, "--webhook-allow");
	if (r == 0 && words->webhook_timing)
		r = webhook_timing_parse(words->webhook_timing, &options->webhook_timing, err);
	if (r == 0)
		r = check_address(options->http, "--http", err);
	return r == 0 ? check_address(options->https, "--https", err) : r;
}

int options_read(int argc, char **argv, struct options *ret, struct error *err)
{
	struct words words = {0};
	int r;

	*ret = usual;
	r = read_words(argc, argv, ret, &words, err);
	if (r == 0)
		r = take_words(&words, ret, err);
	if (r == 0)
		r = read_timeout("HULL_START_TIMEOUT_S", START_TIMEOUT_S, &ret->start_timeout_s, err);
	if (r == 0)
		r = read_timeout("HULL_DEPENDENCY_TIMEOUT_S", DEPENDENCY_TIMEOUT_S, &ret->dependency_timeout_s, err);
	if (r == 0)
		r = read_timeout("HULL_HTTP_PATIENCE_S", HTTP_PATIENCE_S, &ret->patience_s, err);
	if (r == 0 && words.token_file)
		r = read_token(words.token_file, &ret->token, err); /* last: it is owned */
	return r;
}
