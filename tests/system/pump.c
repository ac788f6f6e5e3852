/* A stream whose every byte is known, over vsock or what is already open. For test_devices.py, on both of its ends.
 *
 *	pump listen PORT	vsock: for each connection, reads a line "send BYTES" or "receive BYTES" and does that
 *	pump send BYTES		to standard output, then shuts it, then shows the line that standard input has
 *	pump receive BYTES	from standard input, until its end
 *
 * Who receives says "equal BYTES" when it had these bytes, all of them, and no other; else where they differ. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define CHUNK_BYTES 262144

#define STEP	    0x9e3779b97f4a7c15ull /* odd: from each eight bytes to the next, so that no two places of a stream are alike */

static uint64_t chunk[CHUNK_BYTES / sizeof(uint64_t)];

/* The eight bytes before `offset`. */
static uint64_t word_before(uint64_t offset)
{
	return offset / sizeof(uint64_t) * STEP;
}

static bool pump_send(int fd, uint64_t size)
{
	for (uint64_t offset = 0; offset < size;) {
		size_t len = size - offset < CHUNK_BYTES ? size - offset : CHUNK_BYTES, done = 0;
		uint64_t word = word_before(offset);

		for (size_t i = 0; i < CHUNK_BYTES / sizeof(*chunk); i++)
			chunk[i] = word += STEP;
		while (done < len) {
			ssize_t n = write(fd, (char *)chunk + done, len - done);

			if (n < 0) {
				perror("pump: write");
				return false;
			}
			done += (size_t)n;
		}
		offset += len;
	}
	return true;
}

/* `len` bytes of the chunk, which began at `offset`: where they differ from what was sent, or `len`. */
static size_t compare(uint64_t offset, size_t len)
{
	size_t words = len / sizeof(*chunk), rest = len % sizeof(*chunk), i;
	uint64_t word = word_before(offset);

	for (i = 0; i < words && chunk[i] == word + STEP; i++) /* in an emulated host each instruction counts */
		word += STEP;
	word += STEP;
	return i < words || (rest && memcmp(&chunk[i], &word, rest) != 0) ? i * sizeof(*chunk) : len;
}

static void pump_receive(int fd, uint64_t size, int out)
{
	uint64_t offset = 0;
	size_t have = 0;
	ssize_t n = 1;

	while (n > 0) {
		n = read(fd, (char *)chunk + have, CHUNK_BYTES - have);
		if (n > 0)
			have += (size_t)n;
		if (have == CHUNK_BYTES || n <= 0) {
			size_t same = compare(offset, have);

			if (same < have) {
				dprintf(out, "differs in the 8 bytes at %" PRIu64 "\n", offset + same);
				return;
			}
			offset += have;
			have = 0;
		}
	}
	if (n < 0)
		dprintf(out, "read failed at %" PRIu64 ": %m\n", offset);
	else
		dprintf(out, "%s %" PRIu64 "\n", offset == size ? "equal" : "ended at", offset);
}

static void serve(int fd)
{
	char line[64], verb[16];
	size_t len = 0;
	uint64_t size;

	while (len + 1 < sizeof(line) && read(fd, line + len, 1) == 1 && line[len] != '\n')
		len++;
	line[len] = '\0';
	if (sscanf(line, "%15s %" SCNu64, verb, &size) != 2)
		return;
	if (strcmp(verb, "send") == 0)
		pump_send(fd, size);
	else
		pump_receive(fd, size, fd);
}

static int pump_listen(unsigned port)
{
	struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0), conn;

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 4) < 0) {
		perror("pump: listen");
		return 1;
	}
	puts("pump: ready");
	fflush(stdout);
	while ((conn = accept(fd, NULL, NULL)) >= 0) {
		serve(conn);
		close(conn);
	}
	perror("pump: accept");
	return 1;
}

int main(int argc, char *argv[])
{
	uint64_t n = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
	char line[128];
	ssize_t got;

	if (n && strcmp(argv[1], "listen") == 0)
		return pump_listen((unsigned)n);
	if (n && strcmp(argv[1], "receive") == 0) {
		pump_receive(0, n, 1);
		return 0;
	}
	if (n && strcmp(argv[1], "send") == 0) {
		if (!pump_send(1, n))
			return 1;
		shutdown(1, SHUT_WR);
		while ((got = read(0, line, sizeof(line))) > 0)
			if (write(2, line, (size_t)got) < 0)
				return 1;
		return 0;
	}
	fprintf(stderr, "usage: pump listen PORT | send BYTES | receive BYTES\n");
	return 2;
}
