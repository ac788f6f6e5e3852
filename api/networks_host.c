/* Whether a host can have networks. See networks.h. */
#include "api/networks.h"

#include "api/process.h"
#include "common/checked.h"
#include "common/cleanup.h"
#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TUN_DEV "/dev/net/tun"

/* A number below /proc/sys; `def` where there is none. */
static long read_sysctl(const char *path, long def)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[32];
	ssize_t n = fd < 0 ? -1 : read_full(fd, text, sizeof(text) - 1);

	if (n <= 0)
		return def;
	text[n] = '\0';
	return strtol(text, NULL, 10);
}

static bool has_user_namespaces(void)
{
	return read_sysctl("/proc/sys/user/max_user_namespaces", 0) > 0 && read_sysctl("/proc/sys/kernel/unprivileged_userns_clone", 1);
}

/* Root's networks are nobody's (network/holder.c). */
static bool may_use_tun(void)
{
	struct stat st;

	if (geteuid() != 0)
		return access(TUN_DEV, R_OK | W_OK) == 0;
	return stat(TUN_DEV, &st) == 0 && (st.st_mode & (S_IROTH | S_IWOTH)) == (S_IROTH | S_IWOTH);
}

int networks_check_host(const struct hulld *hulld, struct problem *problem)
{
	static const struct {
		const char *name, *package;
	} programs[] = {{"nft", "nftables"}, {"dnsmasq", "dnsmasq-base"}, {"passt", "passt"}};
	char path[256];

	for (size_t i = 0; i < ARRAY_SIZE(programs); i++) {
		if (find_program(programs[i].name, path, sizeof(path)) == 0)
			continue;
		problem_set(problem, PROBLEM_UNSUPPORTED, NULL, "%s is not installed on the host", programs[i].name);
		return problem_set_hint(problem, "apt-get install nftables dnsmasq-base passt");
	}
	if (access(hulld->options.network, X_OK) < 0) {
		problem_set(problem, PROBLEM_UNSUPPORTED, NULL, "%s cannot be executed: %s", hulld->options.network, strerror(errno));
		return problem_set_hint(problem, "name another with --network");
	}
	if (!may_use_tun()) {
		problem_set(problem, PROBLEM_UNSUPPORTED, NULL, "/dev/net/tun is not there, or not for everybody");
		return problem_set_hint(problem, "modprobe tun; chmod 666 /dev/net/tun, which is what Debian has");
	}
	if (!has_user_namespaces()) {
		problem_set(problem, PROBLEM_UNSUPPORTED, NULL, "the host lets nobody make user namespaces");
		return problem_set_hint(problem, "sysctl kernel.unprivileged_userns_clone=1, or user.max_user_namespaces");
	}
	return 0;
}
