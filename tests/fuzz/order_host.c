/* A hostile agent that answers an order: hulld understands it in bounded memory or refuses it, says of it only what can be
 * shown to anybody, and in pieces it means the same.
 *
 *	the agent's stream, after its reply */
#include "tests/fuzz/fuzz.h"

#include "api/order_call.h"
#include "common/exec_spec.h"
#include "common/frame.h"

#include <errno.h>
#include <string.h>

struct heard {
	int end; /* 0: answered; -errno; 1: nothing whole came */
	json_t *answer;
	struct error err;
};

static void can_be_shown(const char *text)
{
	for (; text && *text; text++)
		CHECK(*text >= 0x20 && *text <= 0x7e);
}

static void understand(const struct frame *frame, struct heard *heard)
{
	struct order_answer answer;

	heard->end = order_read_answer(frame, &answer, &heard->err);
	CHECK(heard->end <= 0);
	can_be_shown(heard->err.message);
	can_be_shown(heard->err.field);
	if (heard->end < 0)
		return;
	can_be_shown(answer.reason);
	CHECK(!answer.reason || strlen(answer.reason) <= ORDER_REASON_MAX);
	heard->answer = json_dump(&order_answer_table, &answer);
	json_done(&order_answer_table, &answer);
}

/* Hears it in pieces of at most `piece` bytes. */
static struct heard hear(const uint8_t *data, size_t len, size_t piece)
{
	struct frame_reader reader;
	struct heard heard = {.end = 1};
	struct frame frame;

	frame_reader_init(&reader, HULL_FRAME_MAX);
	while (len && heard.end == 1) {
		size_t want;
		void *at;
		int r;

		CHECK(frame_want(&reader, &at, &want) == 0 && want > 0 && want <= HULL_FRAME_MAX);
		want = want < piece ? want : piece;
		want = want < len ? want : len;
		memcpy(at, data, want);
		data += want;
		len -= want;
		r = frame_got(&reader, want, &frame);
		if (r > 0)
			understand(&frame, &heard);
		else if (r < 0)
			heard.end = r;
	}
	frame_reader_done(&reader);
	return heard;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct heard whole = hear(data, len, HULL_FRAME_MAX), pieces = hear(data, len, 3);

	CHECK(whole.end == pieces.end && strcmp(whole.err.message, pieces.err.message) == 0);
	CHECK((!whole.answer && !pieces.answer) || json_equal(whole.answer, pieces.answer));
	json_decref(whole.answer);
	json_decref(pieces.answer);
	return 0;
}
