/* The machine's network, from the inside: interfaces, routes, names. */
#include "guest-kernel/net.h"

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "guest-kernel/console.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static void set_address(struct sockaddr *ret, in_addr_t address)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = address};

	memcpy(ret, &in, sizeof in);
}

static in_addr_t parse_address(const char *text)
{
	struct in_addr address = {0};

	inet_pton(AF_INET, text, &address); /* the configuration's reader has checked it */
	return address.s_addr;
}

static int set_up(int fd, const char *interface, bool up, struct error *err)
{
	struct ifreq request = {0};

	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
	if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		return error_set_errno(err, errno, "interface %s", interface);
	request.ifr_flags = (short)(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
	if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		return error_set_errno(err, errno, "set interface %s %s", interface, up ? "up" : "down");
	return 0;
}

static int set_mac(int fd, const char *interface, const uint8_t mac[MAC_BYTES], struct error *err)
{
	struct ifreq request = {.ifr_hwaddr.sa_family = ARPHRD_ETHER};

	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
	memcpy(request.ifr_hwaddr.sa_data, mac, MAC_BYTES);
	if (ioctl(fd, SIOCSIFHWADDR, &request) < 0)
		return error_set_errno(err, errno, "give %s another link address", interface);
	return 0;
}

static int get_mac(int fd, const char *interface, uint8_t ret[MAC_BYTES], struct error *err)
{
	struct ifreq request = {0};

	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
	if (ioctl(fd, SIOCGIFHWADDR, &request) < 0)
		return error_set_errno(err, errno, "interface %s", interface);
	memcpy(ret, request.ifr_hwaddr.sa_data, MAC_BYTES);
	return 0;
}

static int set_address_of(int fd, const char *interface, const char *address, struct error *err)
{
	struct ifreq request = {0};

	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
	set_address(&request.ifr_addr, parse_address(address));
	if (ioctl(fd, SIOCSIFADDR, &request) < 0)
		return error_set_errno(err, errno, "give %s the address %s", interface, address);
	return 0;
}

static int add_address(int fd, const struct guest_network *network, struct error *err)
{
	struct ifreq request = {0};
	uint32_t mask = network->prefix ? ~0u << (32 - network->prefix) : 0;
	int r = set_address_of(fd, network->interface, network->address, err);

	if (r < 0)
		return r;
	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", network->interface);
	set_address(&request.ifr_netmask, htonl(mask));
	if (ioctl(fd, SIOCSIFNETMASK, &request) < 0)
		return error_set_errno(err, errno, "give %s the prefix %d", network->interface, (int)network->prefix);
	return 0;
}

static int add_default_route(int fd, const struct guest_network *network, struct error *err)
{
	struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = network->interface};

	set_address(&route.rt_dst, INADDR_ANY);
	set_address(&route.rt_genmask, INADDR_ANY);
	set_address(&route.rt_gateway, parse_address(network->gateway));
	if (ioctl(fd, SIOCADDRT, &route) < 0)
		return error_set_errno(err, errno, "default route by %s", network->gateway);
	return 0;
}

static void set_sysctl(const char *path, const char *value)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write_full(fd, value, strlen(value)) < 0)
		console_say("cannot set %s: %s", path, strerror(errno));
}

static int bring_up(int fd, const struct guest_network *network, struct error *err)
{
	uint8_t mac[MAC_BYTES];
	int r = 0;

	if (network->mac && mac_parse(network->mac, mac, NULL) == 0) /* as has been checked */
		r = set_mac(fd, network->interface, mac, err);
	if (r == 0)
		r = add_address(fd, network, err);
	if (r == 0)
		r = set_up(fd, network->interface, true, err);
	if (r == 0 && network->gateway)
		r = add_default_route(fd, network, err);
	return r;
}

static int set_kernel_hostname(const struct guest_config *config, struct error *err)
{
	if (sethostname(config->hostname, strlen(config->hostname)) < 0)
		return error_set_errno(err, errno, "set the host name");
	return 0;
}

int net_configure(const struct guest_config *config, struct error *err)
{
	const struct guest_network *network = config->network;
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r;

	if (fd < 0)
		return error_set_errno(err, errno, "open a socket");
	r = set_kernel_hostname(config, err);
	if (r < 0)
		return r;
	r = set_up(fd, "lo", true, err); /* the kernel adds 127.0.0.1 and ::1 */
	if (r == 0 && network)
		r = bring_up(fd, network, err);
	/* The machine is the workload's alone: no port in it is privileged, and anyone in it may ping. */
	set_sysctl("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
	set_sysctl("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
	return r;
}

/* An interface that goes down loses its routes; only then may its link address change. */
static int begin_again(int fd, const struct guest_network *network, struct error *err)
{
	int r = set_up(fd, network->interface, false, err);

	if (r == 0)
		r = set_address_of(fd, network->interface, "0.0.0.0", err); /* which is none */
	return r == 0 ? bring_up(fd, network, err) : r;
}

int net_change(const struct guest_config *config, const struct guest_network *before, struct error *err)
{
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	const char *interface = config->network->interface;
	uint8_t mac[MAC_BYTES];
	struct error ignored;
	int r;

	if (fd < 0)
		return error_set_errno(err, errno, "open a socket");
	r = get_mac(fd, interface, mac, err);
	if (r < 0)
		return r;
	r = begin_again(fd, config->network, err);
	if (r == 0)
		r = net_write_names(config, err);
	if (r < 0 && set_up(fd, interface, false, &ignored) == 0)
		set_mac(fd, interface, mac, &ignored);
	if (r < 0 && before)
		begin_again(fd, before, &ignored);
	return r;
}

/* Replaces whatever is there, a dangling symbolic link too. */
static int replace_file(const char *path, const struct buf *text, struct error *err)
{
	cleanup_close int fd = -1;
	int r;

	if (unlink(path) < 0 && errno != ENOENT)
		return error_set_errno(err, errno, "replace %s", path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return error_set_errno(err, errno, "create %s", path);
	r = write_full(fd, text->data, text->len);
	return r < 0 ? error_set_errno(err, -r, "write %s", path) : 0;
}

static int write_hosts(const struct guest_config *config, struct buf *text, struct error *err)
{
	const char *own = config->network ? config->network->address : "127.0.1.1";

	if (buf_printf(text, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n%s\t%s\n", own,
		    config->hostname) < 0)
		return error_set_errno(err, ENOMEM, "/etc/hosts");
	return replace_file("/etc/hosts", text, err);
}

static int write_resolv(const struct guest_network *network, struct buf *text, struct error *err)
{
	for (size_t i = 0; i < network->dns.len; i++)
		if (buf_printf(text, "nameserver %s\n", network->dns.items[i]) < 0)
			return error_set_errno(err, ENOMEM, "/etc/resolv.conf");
	return replace_file("/etc/resolv.conf", text, err);
}

static int write_hostname(const struct guest_config *config, struct buf *text, struct error *err)
{
	if (buf_printf(text, "%s\n", config->hostname) < 0)
		return error_set_errno(err, ENOMEM, "/etc/hostname");
	return replace_file("/etc/hostname", text, err);
}

int net_write_names(const struct guest_config *config, struct error *err)
{
	struct buf text;
	int r;

	if (mkdir("/etc", 0755) < 0 && errno != EEXIST)
		return error_set_errno(err, errno, "make /etc");
	buf_init(&text, 16 * 1024);
	r = write_hostname(config, &text, err);
	buf_consume(&text, text.len);
	if (r == 0)
		r = write_hosts(config, &text, err);
	buf_consume(&text, text.len);
	if (r == 0 && config->network && config->network->dns.len > 0)
		r = write_resolv(config->network, &text, err);
	buf_done(&text);
	return r;
}

int net_set_hostname(const struct guest_config *config, struct error *err)
{
	int r = set_kernel_hostname(config, err);

	return r < 0 ? r : net_write_names(config, err);
}
