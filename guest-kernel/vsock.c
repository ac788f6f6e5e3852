#include "guest-kernel/vsock.h"

#include "common/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <linux/vm_sockets.h>

int vsock_connect_host(uint32_t port)
{
	struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = port};
	cleanup_close int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&host, sizeof(host)) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	return steal_fd(&fd);
}
