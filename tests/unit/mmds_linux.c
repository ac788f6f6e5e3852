/* MMDS with Linux's own TCP at the other end: this process's kernel is the guest, by a tap in a network namespace. */
#include "tests/unit/test.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/loop.h"
#include "devices/mmds.h"
#include "devices/net_backend.h"
#include "devices/net_interceptor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define DEADLINE_NS 60000000000ull
#define LIMIT	    51200
#define BIG	    40000
#define CLIENTS	    48

struct world {
	struct mmds *mmds;
	struct net_interceptor *stack;
	int tap;
	unsigned lose;	/* one of so many frames is lost; 0: none */
	uint32_t chance; /* the same in every run */
};

static char big[BIG + 1];

static struct sockaddr_in address_of(uint32_t ip, uint16_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(ip)};
}

static void set_address(struct sockaddr *ret, uint32_t ip)
{
	struct sockaddr_in address = address_of(ip, 0);

	memcpy(ret, &address, sizeof(address));
}

/* The interface up, with an address and a route to MMDS. */
static void configure(const char *name)
{
	struct ifreq ifr = {0};
	struct rtentry route = {.rt_flags = RTF_UP | RTF_HOST, .rt_dev = (char *)name};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	set_address(&ifr.ifr_addr, 0x0a4d0002);
	assert_int_equal(ioctl(fd, SIOCSIFADDR, &ifr), 0);
	ifr.ifr_flags = IFF_UP | IFF_RUNNING;
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
	set_address(&route.rt_dst, MMDS_ADDRESS_DEFAULT);
	set_address(&route.rt_genmask, 0xffffffff);
	assert_int_equal(ioctl(fd, SIOCADDRT, &route), 0);
	close(fd);
}

/* With the offloads of a guest: checksums are left to us, and segments are as large as they come. */
static int open_tap(void)
{
	struct ifreq ifr = {.ifr_name = "guest0", .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), header_bytes = NET_HEADER_BYTES;

	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) < 0)
		return close_fd(fd);
	assert_int_equal(ioctl(fd, TUNSETVNETHDRSZ, &header_bytes), 0);
	assert_int_equal(ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4), 0);
	configure("guest0");
	return fd;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	json_t *data;

	for (size_t i = 0; i < BIG; i++)
		big[i] = (char)('a' + i % 26);
	w->mmds = mmds_new("vm-1", LIMIT, NULL);
	w->stack = mmds_stack_new(w->mmds);
	data = json_pack("{s:s,s:s}", "big", big, "small", "value");
	assert_int_equal(mmds_store_put(&w->mmds->store, data, NULL), 0);
	json_decref(data);
	w->tap = unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 ? open_tap() : -1;
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	close_fd(w->tap);
	w->stack->ops->free(w->stack);
	assert_int_equal(w->mmds->metrics.connections_created, w->mmds->metrics.connections_destroyed);
	mmds_free(w->mmds);
	free(w);
	return 0;
}

static bool is_lost(struct world *w)
{
	w->chance = w->chance * 1664525 + 1013904223;
	return w->lose && (w->chance >> 16) % w->lose == 0;
}

/* Moves all frames that can be moved, and waits for more, or for one of `fds`. */
static void pump(struct world *w, struct pollfd *fds, nfds_t n)
{
	static uint8_t packet[NET_PACKET_MAX];
	uint8_t *frame = packet + NET_HEADER_BYTES;
	ssize_t len;
	uint64_t delay_ns;

	while ((len = read(w->tap, packet, sizeof(packet))) > NET_HEADER_BYTES) {
		size_t bytes = (size_t)len - NET_HEADER_BYTES;
		size_t head = bytes < NET_INTERCEPTOR_HEAD_BYTES ? bytes : NET_INTERCEPTOR_HEAD_BYTES;

		if (w->stack->ops->wants(w->stack, frame, head) && !is_lost(w))
			w->stack->ops->take(w->stack, frame, bytes, packet[0] & NET_HEADER_NEEDS_CSUM, monotonic_ns());
	}
	memset(packet, 0, NET_HEADER_BYTES);
	while ((len = (ssize_t)w->stack->ops->next(w->stack, frame, monotonic_ns())) > 0)
		if (!is_lost(w))
			assert_int_equal(write(w->tap, packet, NET_HEADER_BYTES + (size_t)len), NET_HEADER_BYTES + len);
	delay_ns = w->stack->ops->delay_ns(w->stack, monotonic_ns());
	assert_true(poll(fds, n, delay_ns < 1000000000 ? (int)(delay_ns / 1000000) + 1 : 1000) >= 0);
}

static int dial(int receive_buffer)
{
	struct sockaddr_in address = address_of(MMDS_ADDRESS_DEFAULT, 80);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (receive_buffer)
		assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer)), 0);
	assert_true(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 || errno == EINPROGRESS);
	return fd;
}

struct client {
	int fd;
	bool asked, half_closes;
	char text[BIG + 1000];
	size_t len;
};

/* All of them ask for the same, and read until the server closes. */
static void fetch(struct world *w, struct client *clients, size_t n, const char *request)
{
	uint64_t until = monotonic_ns() + DEADLINE_NS;
	struct pollfd fds[CLIENTS + 1] = {{w->tap, POLLIN, 0}};
	size_t open = n;

	while (open) {
		assert_true(monotonic_ns() < until);
		for (size_t i = 0; i < n; i++)
			fds[i + 1] = (struct pollfd){clients[i].fd, clients[i].asked ? POLLIN : POLLOUT, 0};
		pump(w, fds, n + 1);
		for (size_t i = 0; i < n; i++) {
			struct client *c = &clients[i];
			ssize_t got;

			if (fds[i + 1].revents & POLLOUT && !c->asked) {
				c->asked = send(c->fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request);
				if (c->half_closes)
					shutdown(c->fd, SHUT_WR);
			}
			if (!(fds[i + 1].revents & (POLLIN | POLLHUP | POLLERR)) || !c->asked)
				continue;
			got = recv(c->fd, c->text + c->len, sizeof(c->text) - c->len - 1, 0);
			if (got > 0)
				c->len += (size_t)got;
			if (got > 0 || (got < 0 && errno == EAGAIN))
				continue;
			assert_int_equal(got, 0); /* and no error */
			c->fd = close_fd(c->fd);
			open--;
		}
	}
	/* What is left to be said: the last acknowledgements. */
	w->lose = 0;
	while (w->mmds->metrics.connections_created != w->mmds->metrics.connections_destroyed) {
		assert_true(monotonic_ns() < until);
		pump(w, fds, 1);
	}
}

static void has_got(const struct client *c, const char *body)
{
	const char *at = strstr(c->text, "\r\n\r\n");

	if (!at || strcmp(at + 4, body) != 0)
		fail_msg("%zu bytes: %.200s", c->len, c->text);
}

#define GET_BIG "GET /big HTTP/1.1\r\nConnection: close\r\n\r\n"

static void linux_reads_a_value(void **state)
{
	struct world *w = *state;
	struct client *c = calloc(1, sizeof(*c));

	if (w->tap < 0)
		skip();
	c->fd = dial(0);
	fetch(w, c, 1, "GET /small HTTP/1.0\r\n\r\n");
	has_got(c, "value");
	*c = (struct client){.fd = dial(0), .half_closes = true};
	fetch(w, c, 1, "GET /small HTTP/1.1\r\n\r\n");
	has_got(c, "value");
	*c = (struct client){.fd = dial(0)};
	fetch(w, c, 1, GET_BIG);
	has_got(c, big);
	assert_int_equal(w->mmds->metrics.connections_created, 3);
	assert_int_equal(w->mmds->metrics.connections_destroyed, 3);
	assert_int_equal(w->mmds->metrics.rx_accepted_err, 0);
	free(c);
}

/* More than there is room for: those that come too late try again by themselves. */
static void many_read_at_once(void **state)
{
	struct world *w = *state;
	struct client *clients = calloc(CLIENTS, sizeof(*clients));

	if (w->tap < 0)
		skip();
	for (size_t i = 0; i < CLIENTS; i++)
		clients[i].fd = dial(0);
	fetch(w, clients, CLIENTS, GET_BIG);
	for (size_t i = 0; i < CLIENTS; i++)
		has_got(&clients[i], big);
	assert_true(w->mmds->metrics.connections_created >= CLIENTS);
	free(clients);
}

static void a_lossy_link_only_takes_longer(void **state)
{
	struct world *w = *state;
	struct client *clients = calloc(4, sizeof(*clients));

	if (w->tap < 0)
		skip();
	w->lose = 10;
	for (size_t i = 0; i < 4; i++)
		clients[i].fd = dial(0);
	fetch(w, clients, 4, GET_BIG);
	for (size_t i = 0; i < 4; i++)
		has_got(&clients[i], big);
	free(clients);
}

/* Its window closes, and opens by little and little. */
static void a_slow_reader_gets_all(void **state)
{
	struct world *w = *state;
	struct client *c = calloc(1, sizeof(*c));
	uint64_t until = monotonic_ns() + DEADLINE_NS;
	struct pollfd fds[2] = {{w->tap, POLLIN, 0}};
	ssize_t got = 1;

	if (w->tap < 0)
		skip();
	c->fd = dial(2048);
	fds[1] = (struct pollfd){c->fd, POLLOUT, 0};
	while (!(fds[1].revents & POLLOUT)) {
		assert_true(monotonic_ns() < until);
		pump(w, fds, 2);
	}
	assert_int_equal(send(c->fd, GET_BIG, strlen(GET_BIG), MSG_NOSIGNAL), strlen(GET_BIG));
	/* Nobody reads until all that fits has come, and the window was probed. */
	for (uint64_t then = monotonic_ns() + 1500000000; monotonic_ns() < then;)
		pump(w, fds, 1);
	while (got) {
		assert_true(monotonic_ns() < until);
		got = recv(c->fd, c->text + c->len, 700, 0);
		assert_true(got >= 0 || errno == EAGAIN);
		c->len += got > 0 ? (size_t)got : 0;
		fds[1] = (struct pollfd){c->fd, POLLIN, 0};
		pump(w, fds, 2);
	}
	has_got(c, big);
	close(c->fd);
	free(c);
}

static void nobody_listens_elsewhere(void **state)
{
	struct world *w = *state;
	struct sockaddr_in address = address_of(MMDS_ADDRESS_DEFAULT, 443);
	struct pollfd fds[2] = {{w->tap, POLLIN, 0}};
	uint64_t until = monotonic_ns() + DEADLINE_NS;
	int error = 0;
	socklen_t len = sizeof(error);

	if (w->tap < 0)
		skip();
	fds[1] = (struct pollfd){socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), POLLOUT, 0};
	assert_int_equal(connect(fds[1].fd, (struct sockaddr *)&address, sizeof(address)), -1);
	while (!(fds[1].revents & POLLERR)) {
		assert_true(monotonic_ns() < until);
		pump(w, fds, 2);
	}
	assert_int_equal(getsockopt(fds[1].fd, SOL_SOCKET, SO_ERROR, &error, &len), 0);
	assert_int_equal(error, ECONNREFUSED);
	close(fds[1].fd);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(linux_reads_a_value),
		CASE(many_read_at_once),
		CASE(a_lossy_link_only_takes_longer),
		CASE(a_slow_reader_gets_all),
		CASE(nobody_listens_elsewhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
