#include "api/network/uplink.h"

#include "common/cleanup.h"
#include "common/log.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define FRAMES_AT_ONCE 64 /* then others are looked at, too */

void uplink_connect(struct uplink *uplink, int stream)
{
	close_fd(uplink->stream);
	uplink->stream = stream;
	uplink->in_start = uplink->in_end = uplink->out_start = uplink->out_end = 0;
}

short uplink_tap_events(const struct uplink *uplink)
{
	return uplink->out_start == uplink->out_end ? POLLIN : 0;
}

short uplink_stream_events(const struct uplink *uplink)
{
	return uplink->out_start == uplink->out_end ? POLLIN : POLLIN | POLLOUT;
}

static void lose_stream(struct uplink *uplink, const char *why)
{
	log_warn("the connection to passt is lost: %s", why);
	uplink_connect(uplink, -1);
}

static void flush(struct uplink *uplink)
{
	while (uplink->out_start < uplink->out_end) {
		ssize_t n = send(uplink->stream, uplink->out + uplink->out_start, uplink->out_end - uplink->out_start,
			MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			lose_stream(uplink, strerror(errno));
			return;
		}
		uplink->out_start += (size_t)n;
	}
	uplink->out_start = uplink->out_end = 0;
}

void uplink_from_tap(struct uplink *uplink)
{
	for (int i = 0; i < FRAMES_AT_ONCE && uplink->out_start == uplink->out_end; i++) {
		ssize_t n = read(uplink->tap, uplink->out + STREAM_FRAME_LENGTH_BYTES, UPLINK_FRAME_MAX);
		uint32_t length = htobe32((uint32_t)n);

		if (n <= 0)
			return;
		if (uplink->stream < 0)
			continue;
		memcpy(uplink->out, &length, STREAM_FRAME_LENGTH_BYTES);
		uplink->out_start = 0;
		uplink->out_end = STREAM_FRAME_LENGTH_BYTES + (size_t)n;
		flush(uplink);
	}
}

static void from_stream(struct uplink *uplink)
{
	ssize_t n, length;

	memmove(uplink->in, uplink->in + uplink->in_start, uplink->in_end - uplink->in_start);
	uplink->in_end -= uplink->in_start;
	uplink->in_start = 0;
	n = recv(uplink->stream, uplink->in + uplink->in_end, sizeof(uplink->in) - uplink->in_end, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		lose_stream(uplink, n < 0 ? strerror(errno) : "it has ended");
		return;
	}
	uplink->in_end += (size_t)n;
	while ((length = stream_frame_next(uplink->in + uplink->in_start, uplink->in_end - uplink->in_start, UPLINK_FRAME_MAX)) > 0) {
		if (write(uplink->tap, uplink->in + uplink->in_start + STREAM_FRAME_LENGTH_BYTES, (size_t)length) < 0) {
			/* what the tap does not take is lost */
		}
		uplink->in_start += STREAM_FRAME_LENGTH_BYTES + (size_t)length;
	}
	if (length < 0)
		lose_stream(uplink, "a frame of a length that none has");
}

void uplink_on_stream(struct uplink *uplink, short events)
{
	if (events & POLLOUT)
		flush(uplink);
	if (uplink->stream >= 0 && (events & (POLLIN | POLLHUP | POLLERR)))
		from_stream(uplink);
}
