/* A main for fuzz targets where there is no libFuzzer: runs each file of the target's corpus, and a fixed number
 * of mutations of it. The mutations are the same in every run, so that a failure repeats.
 *
 *	tests/fuzz/NAME [FILE]...	without files: those in $srcdir/tests/fuzz/corpus/NAME */
#include "common/buf.h"

#include <dirent.h>
#include <libgen.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Most of what they cost is system calls. Where nothing watches memory they find little. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
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

/* The last words of a target that dies: which input it was given. Made before, as a signal's handler makes no text. */
static char last_words[4200];
static size_t last_words_len;

static void say_last_words(void)
{
	ssize_t n = write(STDERR_FILENO, last_words, last_words_len);

	(void)n;
}

static void die_of(int signo)
{
	char text[] = "signal 00: ";
	ssize_t n;

	text[7] = (char)('0' + signo / 10);
	text[8] = (char)('0' + signo % 10);
	n = write(STDERR_FILENO, text, sizeof(text) - 1);
	(void)n;
	say_last_words();
	raise(signo); /* once more, and nobody listens (SA_RESETHAND) */
}

/* The sanitizers report what they are for themselves, and the input comes after that. */
static void tell_how_it_dies(void)
{
	struct sigaction action = {.sa_handler = die_of, .sa_flags = SA_RESETHAND | SA_NODEFER};
#ifdef __SANITIZE_ADDRESS__
	static const int signals[] = {SIGABRT};

	__sanitizer_set_death_callback(say_last_words);
#else
	static const int signals[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS};
#endif

	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &action, NULL);
}

/* `mutation` 0 is the file as it is. */
static void run(const char *path, unsigned mutation, const uint8_t *data, size_t len)
{
	/* A block of exactly this size: ASan sees the first byte read behind it. */
	uint8_t *copy = malloc(len ? len : 1);
	int n = snprintf(last_words, sizeof(last_words), "%s, mutation %u, %zu bytes\n", path, mutation, len);

	last_words_len = (size_t)n < sizeof(last_words) ? (size_t)n : sizeof(last_words) - 1;
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
	run(path, 0, (const uint8_t *)file.data, file.len);
	data = malloc(file.len ? file.len : 1);
	if (!data)
		abort();
	for (unsigned i = 1; i <= MUTATIONS; i++) {
		size_t len = file.len;

		memcpy(data, file.data, len);
		mutate(data, &len);
		run(path, i, data, len);
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

	tell_how_it_dies();
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
