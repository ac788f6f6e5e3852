/* hull image build: Debian packages and files become an EROFS image, here, and are uploaded.
 *
 * Theory of operation. Two runs of mmdebstrap. The first installs the packages and leaves a tar, which is kept for the next
 * build with the same packages. The second unpacks that tar, adds the recipe's files (another tar), makes the user, runs the
 * recipe's commands, and makes the file system inside the run's own namespace, where owners are what they are in the image.
 * cli/image-hook.sh is what both do at their end. mmdebstrap chooses between root and a user namespace by itself.
 * Everything lies in one temporary folder, removed whatever happens. */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/image_build.h"
#include "cli/output.h"

#include "common/io.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>

const struct option_def image_build_options[] = {
	{'f', "file", "IMAGE.json", "the recipe"},
	{'p', "package", "PACKAGE", "instead of a recipe: a Debian package"},
	{0, "copy", "SOURCE:PATH", "instead of a recipe: a file or folder and where it goes"},
	{0, "command", "WORD", "instead of a recipe: the command, one word each time"},
	{'u', "user", "USER", "instead of a recipe: who runs the command; made when the image has none"},
	{'w', "workdir", "FOLDER", "instead of a recipe: where the command runs"},
	{0, "output", "FILE", "write the file system there and upload nothing"},
	{0, "no-cache", NULL, "install the packages anew, in their newest versions"},
	{'v', "verbose", NULL, "show what mmdebstrap says"},
	{0},
};

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	remove(path);
	return 0;
}

static int make_folder(struct build *build, struct failure *fail)
{
	const char *tmp = getenv("TMPDIR");

	if ((size_t)snprintf(build->folder, sizeof(build->folder), "%s/hull-build.XXXXXX", tmp && tmp[0] == '/' ? tmp : "/tmp") >=
			sizeof(build->folder) ||
		!mkdtemp(build->folder)) {
		build->folder[0] = '\0';
		return error_set_errno(&fail->error, errno, "cannot create a folder in %s", tmp ? tmp : "/tmp");
	}
	/* The user namespace's root is another user here and has to pass. */
	if (chmod(build->folder, 0711) < 0 || setenv("TMPDIR", build->folder, 1) < 0)
		return error_set_errno(&fail->error, errno, "cannot prepare %s", build->folder);
	return 0;
}

static int check_programs(struct failure *fail)
{
	static const char *const needed[][2] = {{"mmdebstrap", "mmdebstrap"}, {"mkfs.erofs", "erofs-utils"},
		{"apt-get", "apt"}, {"unshare", "util-linux"}};

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (!subprocess_exists(needed[i][0])) {
			error_set(&fail->error, ENOENT, "%s is missing", needed[i][0]);
			return failure_hint(fail, "apt-get install %s", needed[i][1]);
		}
	return 0;
}

static int say(const char *name, const char *what)
{
	return fprintf(stderr, "hull: %s: %s\n", name, what);
}

static int keep_image(const char *from, const char *to, struct failure *fail)
{
	cleanup_close int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
	char chunk[65536];
	ssize_t got;
	int r = 0;

	out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (in < 0 || out < 0)
		return error_set_field(&fail->error, errno, "--output", "cannot write %s: %s", to, strerror(errno));
	while (r == 0 && (got = read_full(in, chunk, sizeof(chunk))) != 0)
		r = got < 0 ? (int)got : write_full(out, chunk, (size_t)got);
	if (r == 0 && fsync(out) < 0 && errno != EINVAL)
		r = -errno;
	if (r < 0) {
		unlink(to);
		return error_set_field(&fail->error, -r, "--output", "cannot write %s: %s", to, strerror(-r));
	}
	return 0;
}

static int upload(struct client *client, const struct build *build, const char *file, const char *digest, uint64_t size,
	struct failure *fail)
{
	cleanup_free char *path = NULL;
	cleanup_close int fd = -1;
	json_t *body;
	int r;

	if (asprintf(&path, "/v1/blobs/%s", digest) < 0)
		abort();
	r = client_head(client, path, fail);
	if (r == 0) {
		fd = open(file, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return error_set_errno(&fail->error, errno, "cannot read the image");
		say(build->recipe.name, "uploading");
		r = client_upload(client, path, fd, size, build->recipe.name, fail);
	}
	if (r < 0)
		return r;
	body = json_pack("{s:s, s:s, s:o, s:O}", "name", build->recipe.name, "rootfs", digest, "config",
		json_dump(&recipe_config_table, &build->recipe.config), "labels", build->recipe.labels);
	r = client_call(client, "POST", "/v1/images", body, NULL, fail);
	json_decref(body);
	return r;
}

static int finish(struct build *build, struct client *client, const struct args *args, struct failure *fail)
{
	const char *output = args_value(args, "output");
	char file[PATH_MAX_TEXT], digest[DIGEST_TEXT_MAX], size[SIZE_MAX_TEXT];
	uint64_t size_bytes = 0;
	int r;

	snprintf(file, sizeof(file), "%s/image.erofs", build->folder);
	r = build_digest(file, digest, &size_bytes, &fail->error);
	if (r == 0)
		r = output ? keep_image(file, output, fail) : upload(client, build, file, digest, size_bytes, fail);
	if (r == 0)
		printf("%s %s %s\n", build->recipe.name, digest, size_text(size_bytes, size));
	return r;
}

static int do_build(struct build *build, const struct args *args, struct failure *fail)
{
	cleanup(client_free_p) struct client *client = NULL;
	int r = check_programs(fail);

	if (r < 0)
		return r;
	if (!args_value(args, "output")) {
		/* Before the long part: is there somebody to upload to? */
		client = client_new(args, fail);
		if (!client || client_call(client, "GET", "/v1/version", NULL, NULL, fail) < 0)
			return -fail->error.errnum;
	}
	build->signal_fd = subprocess_catch_signals(fail);
	r = build->signal_fd < 0 ? build->signal_fd : make_folder(build, fail);
	if (r == 0)
		r = build_files(build, fail);
	if (r == 0)
		r = build_packages(build, fail);
	if (r == 0) {
		say(build->recipe.name, "adding files and making the file system");
		r = build_image(build, fail);
	}
	if (r == 0 && client)
		r = client_catch_signals(client, fail);
	return r < 0 ? r : finish(build, client, args, fail);
}

int image_build_run(const struct args *args, struct failure *fail)
{
	struct build build = {.signal_fd = -1, .source_folder = -1};
	int r = recipe_from_args(&build.recipe, &build.source_folder, &build.inside, args, fail);

	build.no_cache = args_flag(args, "no-cache");
	build.verbose = args_flag(args, "verbose");
	buf_init(&build.log, 256 << 10);
	if (r == 0)
		r = do_build(&build, args, fail);
	if (build.folder[0])
		nftw(build.folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	close_fd(build.source_folder);
	close_fd(build.signal_fd);
	buf_done(&build.log);
	recipe_done(&build.recipe);
	return r == -EINTR ? EXIT_INTERRUPTED : r;
}
