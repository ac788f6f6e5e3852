/* A debugger's session: whatever it sends, its target is asked for what there is, answers are bounded and well-formed, and the
 * same bytes one by one say the same. The byte 4 stands for a stop of the target. */
#include "tests/fuzz/fuzz.h"
#include "tests/unit/gdb_world.h"

#define STOP 4

static void stop(struct gdb_world *w)
{
	struct gdb_stop stop = {.thread = w->n_resumed % GDB_WORLD_THREADS, .kind = (enum gdb_stop_kind)(w->n_resumed % 6),
		.address = w->n_resumed};

	gdb_stub_stopped(&w->stub, &stop);
}

/* `step` bytes at a time, but for stops. */
static void play(struct gdb_world *w, const uint8_t *data, size_t len, size_t step)
{
	gdb_world_init(w);
	for (size_t at = 0; at < len;) {
		size_t n = 0;

		if (data[at] == STOP) {
			stop(w);
			at++;
			continue;
		}
		while (n < step && at + n < len && data[at + n] != STOP)
			n++;
		if (!gdb_stub_receive(&w->stub, data + at, n))
			break;
		at += n;
	}
	gdb_stub_ended(&w->stub);
}

/* Each answer is a packet that a debugger takes. */
static void check_answers(const struct gdb_world *w)
{
	struct gdb_reader reader = {0};

	CHECK(w->out.len <= w->out.max);
	for (size_t i = 0; i < w->out.len; i++) {
		enum gdb_input input = gdb_reader_take(&reader, (uint8_t)w->out.data[i]);

		CHECK(input != GDB_INPUT_BROKEN && input != GDB_INPUT_TOO_LONG && input != GDB_INPUT_INTERRUPT);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct gdb_world *whole = malloc(sizeof(*whole)), *pieces = malloc(sizeof(*pieces));

	CHECK(whole && pieces);
	play(whole, data, len, len);
	play(pieces, data, len, 1);
	check_answers(whole);
	CHECK(whole->out.len == pieces->out.len);
	CHECK(whole->out.len == 0 || memcmp(whole->out.data, pieces->out.data, whole->out.len) == 0);
	CHECK(memcmp(whole->memory, pieces->memory, sizeof(whole->memory)) == 0);
	CHECK(whole->n_resumed == pieces->n_resumed && whole->n_killed == pieces->n_killed);
	CHECK(whole->n_killed <= 1);
	gdb_world_done(whole);
	gdb_world_done(pieces);
	free(whole);
	free(pieces);
	return 0;
}
