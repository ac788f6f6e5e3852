/* Interfaces of a network's namespace. */
#include "api/network/network.h"

#include "common/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define TUN_DEV "/dev/net/tun"

static struct ifreq request_of(const char *name)
{
	struct ifreq ifr = {.ifr_flags = 0};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	return ifr;
}

static struct sockaddr make_address(uint32_t address)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
	struct sockaddr ret;

	memcpy(&ret, &in, sizeof(ret));
	return ret;
}

/* A socket to ask by, or -errno with `err` set. */
static int open_socket(struct error *err)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd < 0 ? error_set_errno(err, errno, "cannot make a socket") : fd;
}

static int bring_up(int fd, const char *name, struct error *err)
{
	struct ifreq ifr = request_of(name);

	if (ioctl(fd, SIOCGIFFLAGS, &ifr) == 0) {
		ifr.ifr_flags |= IFF_UP;
		if (ioctl(fd, SIOCSIFFLAGS, &ifr) == 0)
			return 0;
	}
	return error_set_errno(err, errno, "cannot bring up %s", name);
}

static int set_address(int fd, const char *name, uint32_t address, unsigned prefix, struct error *err)
{
	struct ifreq ifr = request_of(name);

	ifr.ifr_addr = make_address(address);
	if (ioctl(fd, SIOCSIFADDR, &ifr) < 0)
		return error_set_errno(err, errno, "cannot give %s its address", name);
	ifr.ifr_netmask = make_address(UINT32_MAX << (32 - prefix));
	if (ioctl(fd, SIOCSIFNETMASK, &ifr) < 0)
		return error_set_errno(err, errno, "cannot give %s its network", name);
	return 0;
}

/* Its own for good: a bridge else takes one of its ports', which come and go. */
static int set_mac(int fd, const char *name, uint32_t address, struct error *err)
{
	const unsigned char mac[] = {
		0x02, 0x68, (unsigned char)(address >> 24), (unsigned char)(address >> 16), (unsigned char)(address >> 8), (unsigned char)address};
	struct ifreq ifr = request_of(name);

	ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(ifr.ifr_hwaddr.sa_data, mac, sizeof(mac));
	return ioctl(fd, SIOCSIFHWADDR, &ifr) < 0 ? error_set_errno(err, errno, "cannot give %s its address on the link", name) : 0;
}

/* Frames to the bridge itself (IEEE 802.1Q, table 8-1) never come to the rules, but a bridge learns by them all the same who is where: a
 * machine would draw the frames of any other to its own port. rtnetlink(7) alone can say that it may not. */
static int learn_from_rules_only(struct error *err)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
		struct rtattr info;
		struct rtattr kind;
		char bridge[8];
		struct rtattr data;
		struct rtattr option;
		struct br_boolopt_multi bits;
	} request = {
		.header = {sizeof(request), RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, 0, 0},
		.link.ifi_index = (int)if_nametoindex(NETWORK_BRIDGE),
		.info = {sizeof(request) - offsetof(typeof(request), info), IFLA_LINKINFO},
		.kind = {RTA_LENGTH(sizeof("bridge")), IFLA_INFO_KIND},
		.bridge = "bridge",
		.data = {sizeof(request) - offsetof(typeof(request), data), IFLA_INFO_DATA},
		.option = {RTA_LENGTH(sizeof(struct br_boolopt_multi)), IFLA_BR_MULTI_BOOLOPT},
		.bits = {1u << BR_BOOLOPT_NO_LL_LEARN, 1u << BR_BOOLOPT_NO_LL_LEARN},
	};
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		char request[256];
	} answer = {.error.error = -EIO};
	cleanup_close int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0 || send(fd, &request, sizeof(request), 0) < 0 || recv(fd, &answer, sizeof(answer), 0) < 0)
		return error_set_errno(err, errno, "cannot speak with the kernel about the bridge");
	return answer.error.error ? error_set_errno(err, -answer.error.error, "cannot have the bridge learn from its rules only") : 0;
}

int links_make(const struct subnet *subnet, struct error *err)
{
	cleanup_close int fd = open_socket(err);
	uint32_t gateway = subnet_gateway(subnet);
	int r;

	if (fd < 0)
		return fd;
	r = bring_up(fd, "lo", err);
	if (r == 0 && ioctl(fd, SIOCBRADDBR, NETWORK_BRIDGE) < 0)
		r = error_set_errno(err, errno, "cannot make a bridge");
	if (r == 0)
		r = learn_from_rules_only(err);
	if (r == 0)
		r = set_mac(fd, NETWORK_BRIDGE, gateway, err);
	if (r == 0)
		r = set_address(fd, NETWORK_BRIDGE, gateway, subnet->prefix, err);
	return r == 0 ? bring_up(fd, NETWORK_BRIDGE, err) : r;
}

static int make_tap(const char *name, short flags, struct error *err)
{
	cleanup_close int fd = open(TUN_DEV, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	struct ifreq ifr = request_of(name);

	if (fd < 0)
		return error_set_errno(err, errno, "cannot open " TUN_DEV);
	ifr.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | flags);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0)
		return error_set_errno(err, errno, "cannot make the tap %s", name);
	return steal_fd(&fd);
}

static void name_port(uint32_t address, char ret[IFNAMSIZ])
{
	snprintf(ret, IFNAMSIZ, "t%08x", address);
}

int links_make_port(uint32_t address, struct error *err)
{
	cleanup_close int tap = -1, fd = open_socket(err);
	struct ifreq ifr = request_of(NETWORK_BRIDGE);
	char name[IFNAMSIZ];

	if (fd < 0)
		return fd;
	name_port(address, name);
	tap = make_tap(name, IFF_VNET_HDR, err);
	if (tap < 0)
		return tap;
	ifr.ifr_ifindex = (int)if_nametoindex(name);
	if (ioctl(fd, SIOCBRADDIF, &ifr) < 0)
		return error_set_errno(err, errno, "cannot put %s on the bridge", name);
	if (bring_up(fd, name, err) < 0)
		return -err->errnum;
	return steal_fd(&tap);
}

bool links_has_port(uint32_t address)
{
	char name[IFNAMSIZ];

	name_port(address, name);
	return if_nametoindex(name) != 0;
}

int links_make_uplink(struct error *err)
{
	cleanup_close int tap = make_tap(NETWORK_UPLINK, 0, err), fd = tap < 0 ? -1 : open_socket(err);
	struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY, .rt_dst = make_address(0), .rt_genmask = make_address(0)};

	if (fd < 0)
		return -err->errnum;
	route.rt_gateway = make_address(ntohl(inet_addr(UPLINK_GATEWAY)));
	if (set_address(fd, NETWORK_UPLINK, ntohl(inet_addr(UPLINK_ADDRESS)), 24, err) < 0 || bring_up(fd, NETWORK_UPLINK, err) < 0)
		return -err->errnum;
	if (ioctl(fd, SIOCADDRT, &route) < 0)
		return error_set_errno(err, errno, "cannot make the route out");
	return steal_fd(&tap);
}
