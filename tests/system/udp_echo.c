/* What listens in a machine at a UDP port, its argument: what it is sent goes back to whom it came from. Static, for a guest. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	static char data[65536];
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? (uint16_t)atoi(argv[1]) : 7)};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return 1;
	for (;;) {
		socklen_t len = sizeof(address);
		ssize_t n = recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&address, &len);

		if (n >= 0)
			sendto(fd, data, (size_t)n, 0, (struct sockaddr *)&address, len);
	}
}
