/* A hostile agent: whatever it says to hulld that executes a program, or to hull that shows one, is
 * understood in bounded memory or refused, and in pieces it means the same.
 *
 *	the agent's stream, after its reply */
#include "tests/fuzz/frames.h"

#include "api/exec_output.h"
#include "common/exec_spec.h"

#include <errno.h>
#include <string.h>

struct heard {
	struct exec_output *output;
	unsigned frames;
	int end; /* why it ended */
	json_t *answer;
};

static void take_refusal(const struct frame *frame)
{
	struct error err;
	json_t *object = json_parse(frame->data, frame->len, &err);
	struct exec_refusal refusal;

	if (object && json_read(&exec_refusal_table, object, &refusal, &err) == 0) {
		CHECK(strlen(refusal.message) < ERROR_MESSAGE_MAX && strlen(refusal.field) < ERROR_FIELD_MAX);
		json_done(&exec_refusal_table, &refusal);
	}
	json_decref(object);
}

static int take(void *ctx, const struct frame *frame)
{
	struct heard *heard = ctx;
	int r = 0;

	heard->frames++;
	if (frame->type == HULL_FRAME_REFUSED)
		take_refusal(frame);
	else
		r = exec_output_take(heard->output, frame, true);
	return exec_output_ended(heard->output) ? -ESHUTDOWN : r;
}

static struct heard hear(const uint8_t *data, size_t len, size_t piece)
{
	struct heard heard = {.output = exec_output_new()};

	heard.end = fuzz_hear(data, len, piece, take, &heard);
	heard.answer = exec_output_dump(heard.output);
	CHECK(json_string_length(json_object_get(heard.answer, "stdout")) <= 2 * EXEC_OUTPUT_MAX);
	exec_output_free(heard.output);
	return heard;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct heard whole = hear(data, len, HULL_FRAME_MAX), pieces = hear(data, len, 3);

	CHECK(whole.frames == pieces.frames && whole.end == pieces.end && json_equal(whole.answer, pieces.answer));
	json_decref(whole.answer);
	json_decref(pieces.answer);
	return 0;
}
