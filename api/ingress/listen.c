/* The sockets of published ports. */
#include "api/ingress/listen.h"

#include "common/cleanup.h"
#include "common/io.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#define BACKLOG 4096

union address {
	struct sockaddr any;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;
};

static int parse_address(const char *text, uint16_t number, union address *ret, socklen_t *ret_len)
{
	memset(ret, 0, sizeof *ret);
	if (inet_pton(AF_INET, text, &ret->in4.sin_addr) == 1) {
		ret->in4.sin_family = AF_INET;
		ret->in4.sin_port = htons(number);
		*ret_len = sizeof ret->in4;
	} else if (inet_pton(AF_INET6, text, &ret->in6.sin6_addr) == 1) {
		ret->in6.sin6_family = AF_INET6;
		ret->in6.sin6_port = htons(number);
		*ret_len = sizeof ret->in6;
	} else {
		return -EINVAL;
	}
	return 0;
}

/* Binds a socket of `type`, and has it listen where there is something to listen for. */
static int open_socket(const char *text, uint16_t number, int type, struct error *err)
{
	cleanup_close int fd = -1;
	union address address;
	socklen_t len;
	int one = 1;

	if (parse_address(text, number, &address, &len) < 0)
		return error_set_field(err, EINVAL, "address", "\"%s\" is no IP address", text);
	fd = socket(address.any.sa_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set_errno(err, errno, "make a socket");
	/* Not held up by connections of before in TIME_WAIT; two listeners still exclude each other. With UDP they would not. */
	if (type == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (address.any.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	if (bind(fd, &address.any, len) < 0 || (type == SOCK_STREAM && listen(fd, BACKLOG) < 0))
		return errno == EADDRINUSE ?
			       error_set(err, EADDRINUSE, "%s:%d is already in use", text, number) :
			       error_set_errno(err, errno, "listen on %s:%d", text, number);
	return steal_fd(&fd);
}

int listen_tcp(const char *address, uint16_t port, struct error *err)
{
	return open_socket(address, port, SOCK_STREAM, err);
}

int listen_udp(const char *address, uint16_t port, struct error *err)
{
	cleanup_close int fd = open_socket(address, port, SOCK_DGRAM, err);
	int one = 1;
	bool ipv6 = strchr(address, ':');

	if (fd < 0)
		return fd;
	if (setsockopt(fd, ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, ipv6 ? IPV6_RECVPKTINFO : IP_PKTINFO, &one, sizeof one) < 0)
		return error_set_errno(err, errno, "listen on %s:%d", address, port);
	return steal_fd(&fd);
}

int listen_unix(const char *path, struct error *err)
{
	return unix_listen(path, BACKLOG, 0660, err);
}
