/* A main for fuzz targets where there is no libFuzzer: runs each file of the target's corpus, and a fixed number
 * of mutations of it. The mutations are the same in every run, so that a failure repeats.
 *
 *	tests/fuzz/NAME [FILE]...	without files: those in $srcdir/tests/fuzz/corpus/NAME */
#include "common/buf.h"

#include <dirent.h>
#include <libgen.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Most of what they cost is system calls. Where nothing watches memory they find little. */
#ifdef __SANITIZE_ADDRESS__
#define MUTATIONS 5000
#else
#define MUTATIONS 1000
#endif
#define FILE_BYTES_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static uint64_t random_state = 0x9e3779b97f4a7c15;

/* xorshift64* */
static uint64_t next_random(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 0x2545f4914f6cdd1d;
}

/* Values that sit on the edges of what parsers compare with. */
static void mutate(uint8_t *data, size_t *len)
{
	static const uint64_t edges[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff,
		0x80000000, 0xffffffff, INT64_MAX, 1ull << 63, UINT64_MAX, UINT64_MAX - 15};
	unsigned n = 1 + next_random() % 3;

	for (unsigned i = 0; i < n && *len; i++) {
		size_t pos = next_random() % *len, width = 1ul << next_random() % 4;
		uint64_t value = edges[next_random() % (sizeof(edges) / sizeof(edges[0]))];

		switch (next_random() % 8) {
		case 0:
			*len = pos;
			break;
		case 1:
			data[pos] ^= (uint8_t)(1u << next_random() % 8);
			break;
		case 2:
			data[pos] = (uint8_t)next_random();
			break;
		default:
			memcpy(data + pos, &value, width < *len - pos ? width : *len - pos);
			break;
		}
	}
}

static void run(const uint8_t *data, size_t len)
{
	/* A block of exactly this size: ASan sees the first byte read behind it. */
	uint8_t *copy = malloc(len ? len : 1);

	if (!copy)
		abort();
	memcpy(copy, data, len);
	LLVMFuzzerTestOneInput(copy, len);
	free(copy);
}

static int replay(const char *path)
{
	struct buf file;
	uint8_t *data;
	int r;

	buf_init(&file, FILE_BYTES_MAX);
	r = buf_read_file(&file, path);
	if (r < 0) {
		fprintf(stderr, "%s: %s\n", path, strerror(-r));
		return r;
	}
	run((const uint8_t *)file.data, file.len);
	data = malloc(file.len ? file.len : 1);
	if (!data)
		abort();
	for (unsigned i = 0; i < MUTATIONS; i++) {
		size_t len = file.len;

		memcpy(data, file.data, len);
		mutate(data, &len);
		run(data, len);
	}
	free(data);
	buf_done(&file);
	return 0;
}

static int replay_folder(const char *folder)
{
	struct dirent **names;
	char path[4096];
	int n, r = 0;

	n = scandir(folder, &names, NULL, alphasort);
	if (n < 0) {
		perror(folder);
		return -1;
	}
	for (int i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s/%s", folder, names[i]->d_name);
			if (replay(path) < 0)
				r = -1;
		}
		free(names[i]);
	}
	free(names);
	if (n <= 2) {
		fprintf(stderr, "%s: no corpus\n", folder);
		r = -1;
	}
	return r;
}

int main(int argc, char **argv)
{
	const char *srcdir = getenv("srcdir");
	char folder[2048];
	int r = 0;

	if (argc == 1) {
		snprintf(folder, sizeof(folder), "%s/tests/fuzz/corpus/%s", srcdir ? srcdir : ".",
			basename(argv[0]));
		r = replay_folder(folder);
	}
	for (int i = 1; i < argc; i++)
		if (replay(argv[i]) < 0)
			r = -1;
	return r < 0;
}
