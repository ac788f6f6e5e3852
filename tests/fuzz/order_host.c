/* A hostile agent that answers an order: hulld understands it in bounded memory or refuses it, says of it only what can be
 * shown to anybody, and in pieces it means the same.
 *
 *	the agent's stream, after its reply */
#include "tests/fuzz/frames.h"

#include "api/order_call.h"
#include "common/exec_spec.h"

#include <string.h>

struct heard {
	int end; /* 1: answered; -errno; 0: nothing whole came */
	json_t *answer;
	struct error err;
};

static void can_be_shown(const char *text)
{
	for (; text && *text; text++)
		CHECK(*text >= 0x20 && *text <= 0x7e);
}

static int understand(void *ctx, const struct frame *frame)
{
	struct order_answer answer;
	struct heard *heard = ctx;
	int r = order_read_answer(frame, &answer, &heard->err);

	CHECK(r <= 0);
	can_be_shown(heard->err.message);
	can_be_shown(heard->err.field);
	if (r < 0)
		return r;
	can_be_shown(answer.reason);
	CHECK(!answer.reason || strlen(answer.reason) <= ORDER_REASON_MAX);
	heard->answer = json_dump(&order_answer_table, &answer);
	json_done(&order_answer_table, &answer);
	return 1;
}

static struct heard hear(const uint8_t *data, size_t len, size_t piece)
{
	struct heard heard = {0};

	heard.end = fuzz_hear(data, len, piece, understand, &heard);
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
