/* A hostile agent: whatever it says to hulld that executes a program, or to hull that shows one, is
 * understood in bounded memory or refused, and in pieces it means the same.
 *
 *	the agent's stream, after its reply */
#include "tests/fuzz/fuzz.h"

#include "api/exec_output.h"
#include "common/exec_spec.h"
#include "common/frame.h"

#include <errno.h>
#include <string.h>

struct heard {
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

/* Hears it in pieces of at most `piece` bytes. */
static struct heard hear(const uint8_t *data, size_t len, size_t piece)
{
	struct exec_output *output = exec_output_new();
	struct frame_reader reader;
	struct heard heard = {0};
	struct frame frame;

	frame_reader_init(&reader, HULL_FRAME_MAX);
	while (len && heard.end == 0) {
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
		if (r > 0) {
			CHECK(frame.len <= HULL_FRAME_MAX && frame.data[frame.len] == '\0');
			heard.frames++;
			if (frame.type == HULL_FRAME_REFUSED)
				take_refusal(&frame);
			else
				r = exec_output_take(output, &frame);
		}
		if (exec_output_ended(output))
			r = -ESHUTDOWN;
		heard.end = r < 0 ? r : 0;
	}
	heard.answer = exec_output_dump(output);
	CHECK(json_string_length(json_object_get(heard.answer, "stdout")) <= 2 * EXEC_OUTPUT_MAX);
	frame_reader_done(&reader);
	exec_output_free(output);
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
