/* A vhost-user back-end of a network device, for tests: moves frames between one front-end and a tap.
 *
 *	vhost_user_net SOCKET TAP	listens, serves one connection, ends with it */
#include "tests/unit/vhost_backend.h"

#include "common/io.h"
#include "devices/net_backend.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>

enum { RX, TX };

static int open_tap(const char *name)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), header_bytes = NET_HEADER_BYTES;

	BACKEND_CHECK(strlen(name) < IFNAMSIZ);
	memcpy(ifr.ifr_name, name, strlen(name));
	BACKEND_CHECK(fd >= 0 && ioctl(fd, TUNSETIFF, &ifr) == 0 && ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) == 0);
	return fd;
}

static int move_frame(struct backend *b, uint16_t q, const struct virtq_chain *chain)
{
	const uint16_t one_buffer = 1;
	ssize_t n;

	if (q == TX) {
		n = writev(b->source_fd, chain->iov, chain->n_out);
		return 0; /* what the tap does not take is lost, as networks lose frames */
	}
	n = readv(b->source_fd, chain->iov + chain->n_out, chain->n_in);
	if (n > 0)
		virtq_chain_write(chain, offsetof(struct net_header, num_buffers), &one_buffer, sizeof(one_buffer));
	return n > 0 ? (int)n : -1;
}

int main(int argc, char **argv)
{
	struct error err = {0};
	struct backend b;
	int listener, connection;

	BACKEND_CHECK(argc == 3);
	backend_init(&b);
	b.protocol_features &= ~(1ull << VHOST_USER_PROTOCOL_F_CONFIG);
	b.n_queues = 1; /* pairs */
	b.serve = move_frame;
	b.source_fd = open_tap(argv[2]);
	listener = unix_listen(argv[1], 1, 0600, &err);
	BACKEND_CHECK(listener >= 0 && poll(&(struct pollfd){listener, POLLIN, 0}, 1, -1) == 1);
	connection = accept(listener, NULL, NULL);
	BACKEND_CHECK(connection >= 0);
	backend_start_on(&b, connection);
	pthread_join(b.thread, NULL);
	return 0;
}
