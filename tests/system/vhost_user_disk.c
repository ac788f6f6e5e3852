/* A vhost-user back-end of a disk in memory, for tests. Each line of standard input is a new size in sectors, behind `tell` or
 * `keep`: whether the front-end is told, or finds out when it asks. It is answered "ok".
 *
 *	vhost_user_disk SOCKET SECTORS	listens, serves one connection, ends with it */
#include "tests/unit/vhost_backend.h"

#include "common/io.h"

#include <linux/virtio_blk.h>
#include <stdlib.h>

#define SECTORS_MAX 65536u

static uint8_t disk[SECTORS_MAX * 512];

static int serve(struct backend *b, uint16_t q, const struct virtq_chain *chain)
{
	struct virtio_blk_outhdr header;
	uint64_t at, len = chain->in_bytes ? chain->in_bytes - 1 : 0, sent;
	uint8_t status = VIRTIO_BLK_S_OK;

	(void)b;
	(void)q;
	if (virtq_chain_read(chain, 0, &header, sizeof(header)) < sizeof(header) || !chain->in_bytes)
		return 0;
	at = header.sector * 512;
	sent = chain->out_bytes - sizeof(header);
	switch (header.type) {
	case VIRTIO_BLK_T_IN:
		if (range_fits(at, len, sizeof(disk)))
			virtq_chain_write(chain, 0, disk + at, len);
		else
			status = VIRTIO_BLK_S_IOERR;
		break;
	case VIRTIO_BLK_T_OUT:
		if (range_fits(at, sent, sizeof(disk)))
			virtq_chain_read(chain, sizeof(header), disk + at, sent);
		else
			status = VIRTIO_BLK_S_IOERR;
		break;
	default:
		status = VIRTIO_BLK_S_UNSUPP;
	}
	virtq_chain_write(chain, len, &status, 1);
	return (int)chain->in_bytes;
}

static void set_size(struct backend *b, unsigned long sectors)
{
	const uint64_t capacity = sectors;

	BACKEND_CHECK(capacity > 0 && capacity <= SECTORS_MAX);
	memcpy(b->config, &capacity, sizeof(capacity));
}

int main(int argc, char **argv)
{
	struct error err = {0};
	struct backend b;
	char line[64];
	int listener, connection;

	BACKEND_CHECK(argc == 3);
	backend_init(&b);
	b.serve = serve;
	set_size(&b, strtoul(argv[2], NULL, 10));
	listener = unix_listen(argv[1], 1, 0600, &err);
	BACKEND_CHECK(listener >= 0 && poll(&(struct pollfd){listener, POLLIN, 0}, 1, -1) == 1);
	connection = accept(listener, NULL, NULL);
	BACKEND_CHECK(connection >= 0);
	backend_start_on(&b, connection);
	while (fgets(line, sizeof(line), stdin)) {
		set_size(&b, strtoul(line + 5, NULL, 10));
		if (strncmp(line, "tell ", 5) == 0)
			backend_send(b.request_fd, VHOST_USER_BACKEND_CONFIG_CHANGE, VHOST_USER_VERSION, NULL, 0);
		puts("ok");
		fflush(stdout);
	}
	pthread_join(b.thread, NULL);
	return 0;
}
