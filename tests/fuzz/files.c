/* A hostile client of the agent that copies files: whatever it sends after FILES, what is read of its archive is what it sent, in
 * order; it gets an answer, or a refusal, or nothing when it broke the rules; and an honest client is served afterwards. No
 * file is touched: the archive's ends (common/pack.h) have a target of their own.
 *
 *	byte 0: what becomes of it  byte 1: bytes at a time  then the client's stream, as large as a socket takes at once */
#include "tests/fuzz/frames.h"

#include "common/checked.h"
#include "common/file_spec.h"
#include "common/frame.h"
#include "common/pack.h"
#include "guest-kernel/files.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STREAM_MAX 65536

enum { ALL_IS_WELL, NOT_ALL_IS_READ, FAILS_AT_ONCE, FAILS_BEHIND, KINDS };

static unsigned kind;
static size_t step;
static size_t packed; /* bytes written */
static uint8_t unpacked[STREAM_MAX];
static size_t n_unpacked;

/* In place of the real ones (--wrap). */
int __wrap_pack(const char *path, const struct tar_sink *sink, pack_skipped_fn skipped, void *ctx, struct error *err);
int __wrap_unpack(const char *target, const struct tar_source *source, const struct unpack_options *options, struct error *err);

static int end(struct error *err)
{
	return kind == FAILS_BEHIND ? error_set_errno(err, ENOSPC, "it is full") : 0;
}

int __wrap_pack(const char *path, const struct tar_sink *sink, pack_skipped_fn skipped, void *ctx, struct error *err)
{
	static const uint8_t zeroes[256];

	(void)skipped;
	(void)ctx;
	CHECK(path && path[0] == '/');
	if (kind == FAILS_AT_ONCE)
		return error_set_errno(err, ENOENT, "%s", path);
	for (int i = 0; i < 20; i++) {
		int r = sink->write(sink->ctx, zeroes, step);

		if (r < 0)
			return error_set_errno(err, -r, "cannot write the archive");
		packed += step;
	}
	return end(err);
}

int __wrap_unpack(const char *target, const struct tar_source *source, const struct unpack_options *options, struct error *err)
{
	ssize_t n = 1;

	CHECK(target && target[0] == '/' && options->trust_modes && options->keep_owner && !options->skipped);
	if (kind == FAILS_AT_ONCE)
		return error_set_errno(err, ENOENT, "%s", target);
	for (int i = 0; n > 0 && (i < 3 || kind != NOT_ALL_IS_READ); i++) {
		CHECK(n_unpacked + step <= sizeof(unpacked) + 256);
		n = source->read(source->ctx, unpacked + n_unpacked, step < sizeof(unpacked) - n_unpacked ? step : sizeof(unpacked) - n_unpacked);
		CHECK(n <= (ssize_t)step);
		n_unpacked += n > 0 ? (size_t)n : 0;
	}
	return n < 0 ? error_set_errno(err, (int)-n, "cannot read the archive") : end(err);
}

/* What was unpacked is the beginning of what STDIN frames had. */
static void check_input(const uint8_t *data, size_t len)
{
	struct hull_frame_header header;
	size_t seen = 0;

	while (seen < n_unpacked) {
		size_t part;

		CHECK(len >= sizeof(header));
		memcpy(&header, data, sizeof(header));
		data += sizeof(header);
		len -= sizeof(header);
		part = le32toh(header.len);
		CHECK(header.type == HULL_FRAME_SPEC || header.type == HULL_FRAME_STDIN);
		part = part < len ? part : len;
		if (header.type == HULL_FRAME_STDIN) {
			size_t same = part < n_unpacked - seen ? part : n_unpacked - seen;

			CHECK(memcmp(unpacked + seen, data, same) == 0);
			seen += same;
		}
		data += part;
		len -= part;
	}
}

/* What the agent said. The last frame's type; 0: none. */
static int listen_to(int fd)
{
	struct hull_agent_reply reply;
	struct frame_reader reader;
	struct frame frame;
	size_t out = 0;
	int r, last = 0;

	CHECK(recv(fd, &reply, sizeof(reply), 0) == sizeof(reply) && le32toh(reply.magic) == HULL_AGENT_MAGIC);
	frame_reader_init(&reader, HULL_FRAME_MAX);
	while ((r = frame_read(&reader, fd, &frame)) > 0) {
		CHECK(last == 0 || last == HULL_FRAME_STDOUT);
		CHECK(frame.type == HULL_FRAME_STDOUT || frame.type == HULL_FRAME_REFUSED || frame.type == HULL_FRAME_ANSWER);
		out += frame.type == HULL_FRAME_STDOUT ? frame.len : 0;
		last = frame.type;
	}
	CHECK(r == -ECONNRESET && out == packed);
	frame_reader_done(&reader);
	return last;
}

/* Returns the last frame the agent sent. */
static int converse(const uint8_t *data, size_t len)
{
	int ends[2], last, r;

	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
	len = len < STREAM_MAX ? len : STREAM_MAX;
	CHECK(!len || send(ends[0], data, len, MSG_NOSIGNAL) == (ssize_t)len);
	CHECK(shutdown(ends[0], SHUT_WR) == 0);
	packed = n_unpacked = 0;
	r = files_converse(ends[1]);
	close(ends[1]);
	last = listen_to(ends[0]);
	close(ends[0]);
	CHECK((r == 0) == (last == HULL_FRAME_ANSWER || last == HULL_FRAME_REFUSED));
	check_input(data, len);
	return last;
}

static void honest_client(void)
{
	static const char spec[] = "{\"verb\": \"put\", \"path\": \"/srv\"}";
	struct buf stream;

	buf_init(&stream, STREAM_MAX);
	CHECK(frame_put(&stream, HULL_FRAME_SPEC, spec, sizeof(spec) - 1) == 0);
	CHECK(frame_put(&stream, HULL_FRAME_STDIN, "archive", 7) == 0 && frame_put(&stream, HULL_FRAME_STDIN_EOF, NULL, 0) == 0);
	kind = ALL_IS_WELL;
	CHECK(converse((const uint8_t *)stream.data, stream.len) == HULL_FRAME_ANSWER && n_unpacked == 7);
	buf_done(&stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len < 2)
		return 0;
	kind = data[0] % KINDS;
	step = data[1] ? data[1] : 1;
	converse(data + 2, len - 2);
	if (fuzz_honest_turn())
		honest_client();
	return 0;
}
