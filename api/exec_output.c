/* What a program wrote, collected for one answer. */
#include "api/exec_output.h"

#include "api/spec.h"
#include "common/buf.h"

#include <errno.h>
#include <nettle/base64.h>
#include <stdlib.h>
#include <string.h>

struct exec_output {
	struct buf out, err;
	bool truncated, ended;
	uint32_t status;
};

struct exec_output *exec_output_new(void)
{
	struct exec_output *output = calloc(1, sizeof(*output));

	if (!output)
		abort();
	buf_init(&output->out, EXEC_OUTPUT_MAX);
	buf_init(&output->err, EXEC_OUTPUT_MAX);
	return output;
}

void exec_output_free(struct exec_output *output)
{
	if (!output)
		return;
	buf_done(&output->out);
	buf_done(&output->err);
	free(output);
}

static int keep(struct exec_output *output, struct buf *stream, const struct frame *frame, bool has_room)
{
	size_t room = has_room ? stream->max - stream->len : 0;

	if (frame->len <= room)
		return buf_append(stream, frame->data, frame->len);
	output->truncated = true;
	return buf_append(stream, frame->data, room);
}

size_t exec_output_bytes(const struct exec_output *output)
{
	return output->out.len + output->err.len;
}

int exec_output_take(struct exec_output *output, const struct frame *frame, bool has_room)
{
	switch (frame->type) {
	case HULL_FRAME_STDOUT:
		return keep(output, &output->out, frame, has_room);
	case HULL_FRAME_STDERR:
		return keep(output, &output->err, frame, has_room);
	case HULL_FRAME_EXIT:
		output->ended = true;
		return frame_number(frame, &output->status) == 0 && output->status <= 255 ? 0 : -EPROTO;
	case HULL_FRAME_CREDIT:
		return 0;
	default:
		return -EPROTO;
	}
}

bool exec_output_ended(const struct exec_output *output)
{
	return output->ended;
}

static bool is_text(const struct buf *stream)
{
	json_t *string = stream->len ? json_stringn(stream->data, stream->len) : json_string("");
	bool ok = string && strlen(json_string_value(string)) == stream->len;

	json_decref(string);
	return ok;
}

static char *encode(const struct buf *stream, int encoding)
{
	size_t len = encoding == EXEC_BASE64 ? BASE64_ENCODE_RAW_LENGTH(stream->len) : stream->len;
	char *text = malloc(len + 1);

	if (!text)
		abort();
	if (encoding == EXEC_BASE64)
		base64_encode_raw(text, stream->len, (const uint8_t *)stream->data);
	else if (len)
		memcpy(text, stream->data, len);
	text[len] = '\0';
	return text;
}

json_t *exec_output_dump(const struct exec_output *output)
{
	struct exec_result result = {.exit_status = output->status, .truncated = output->truncated};
	json_t *dumped;

	result.encoding = is_text(&output->out) && is_text(&output->err) ? EXEC_UTF8 : EXEC_BASE64;
	result.standard_output = encode(&output->out, result.encoding);
	result.standard_error = encode(&output->err, result.encoding);
	dumped = json_dump(&exec_result_table, &result);
	free(result.standard_output);
	free(result.standard_error);
	return dumped;
}
