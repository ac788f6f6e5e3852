/* What no packaged tool does in the way benches/io needs it.
 *
 *	roundtrip serve PORT		answers each byte of each TCP connection with a byte, for ever
 *	roundtrip ask ADDRESS PORT N	N times a byte there and a byte back; prints the seconds it took */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static void send_at_once(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static int serve(uint16_t port)
{
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
	int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&here, sizeof(here)) < 0 || listen(listener, 1) < 0)
		return fail("roundtrip: listen");
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		char byte;

		send_at_once(fd);
		while (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1)
			;
		close(fd);
	}
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int ask(const char *address, uint16_t port, long n)
{
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	char byte = 0;
	double begin;

	inet_pton(AF_INET, address, &there.sin_addr);
	if (connect(fd, (struct sockaddr *)&there, sizeof(there)) < 0)
		return fail("roundtrip: connect");
	send_at_once(fd);
	begin = now();
	for (long i = 0; i < n; i++)
		if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
			return fail("roundtrip: connection");
	printf("%.6f\n", now() - begin);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		return serve((uint16_t)atoi(argv[2]));
	if (argc == 5 && strcmp(argv[1], "ask") == 0)
		return ask(argv[2], (uint16_t)atoi(argv[3]), atol(argv[4]));
	fprintf(stderr, "usage: roundtrip serve PORT | ask ADDRESS PORT N\n");
	return 2;
}
