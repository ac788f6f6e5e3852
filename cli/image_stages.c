/* The stages of an image build: installing packages, adding files. */
#include "cli/image_build.h"

#include "cli/archive.h"
#include "cli/image_hook.h"
#include "common/hex.h"
#include "common/io.h"

#include <fcntl.h>
#include <nettle/sha2.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

int build_digest(const char *path, char ret[DIGEST_TEXT_MAX], uint64_t *ret_size_bytes, struct error *err)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t chunk[65536], digest[SHA256_DIGEST_SIZE];
	struct sha256_ctx hash;
	uint64_t size_bytes = 0;
	ssize_t got;

	if (fd < 0)
		return error_set_errno(err, errno, "cannot open %s", path);
	sha256_init(&hash);
	while ((got = read_full(fd, chunk, sizeof(chunk))) > 0) {
		sha256_update(&hash, (size_t)got, chunk);
		size_bytes += (uint64_t)got;
	}
	if (got < 0)
		return error_set_errno(err, (int)-got, "cannot read %s", path);
	sha256_digest(&hash, sizeof(digest), digest);
	strcpy(ret, "sha256:");
	hex_encode(digest, sizeof(digest), ret + strlen(ret));
	*ret_size_bytes = size_bytes;
	return 0;
}

/* ---- running mmdebstrap ---- */

#define WORDS_MAX 40
/* execve() takes 32 pages a word. */
#define WORD_MAX_BYTES (120u << 10)

struct words {
	const char *items[WORDS_MAX];
	char *owned[WORDS_MAX];
	size_t n;
};

/* Appends a word, printed; there are as many as the two functions below write, which is fewer than WORDS_MAX. */
__attribute__((format(printf, 2, 3))) static void add_word(struct words *words, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	if (words->n + 1 == WORDS_MAX || vasprintf(&words->owned[words->n], fmt, args) < 0)
		abort();
	va_end(args);
	words->items[words->n] = words->owned[words->n];
	words->items[++words->n] = NULL;
}

static void words_done(struct words *words)
{
	for (size_t i = 0; i < words->n; i++)
		free(words->owned[i]);
}

/* True for an error line that says only that a program inside failed, often with its whole command line: the reason is
 * on a line before it. */
static bool is_consequence(const char *line)
{
	static const char *const starts[] = {"mmdebstrap failed", "setup failed", "apt-get ", "hook failed", "run_chroot failed",
		"Some index files failed", "Unable to fetch some archives", "Sub-process "};

	for (size_t i = 0; i < ARRAY_SIZE(starts); i++)
		if (strncmp(line, starts[i], strlen(starts[i])) == 0)
			return true;
	return false;
}

/* The last error line that gives a reason; a line about a package's name wins over all others. NULL: there is none.
 * `*ret_before`: the line before it, which with a recipe's command is the last that the command said. */
static const char *find_reason(struct build *build, bool *ret_is_name, const char **ret_before)
{
	static const char *const complaints[] = {"Unable to locate package ", "Couldn't find any package by", "has no installation candidate",
		"was not found"};
	const char *line, *before = "", *last = NULL;
	char *rest = build->log.data;

	*ret_is_name = false;
	*ret_before = "";
	for (; build->log.len && (line = strsep(&rest, "\n\r")); before = line) {
		if (strncmp(line, "E: ", 3) != 0)
			continue;
		for (size_t i = 0; i < ARRAY_SIZE(complaints); i++)
			*ret_is_name |= strstr(line, complaints[i]) != NULL;
		if (*ret_is_name)
			return line + 3;
		if (is_consequence(line + 3))
			continue;
		last = line + 3;
		*ret_before = strncmp(before, "I: ", 3) == 0 ? "" : before;
	}
	return last;
}

/* Why mmdebstrap gave up, as a refusal of the recipe's field where it is one. */
static int explain(struct build *build, struct failure *fail)
{
	static const char no_space[] = "No space left on device";
	bool is_name, full = build->log.len && memmem(build->log.data, build->log.len, no_space, strlen(no_space));
	const char *before, *reason = find_reason(build, &is_name, &before);

	if (full) {
		error_set_field(&fail->error, ENOSPC, build->folder, "no space is left there");
		return failure_hint(fail, "TMPDIR=FOLDER names another place; an image takes some three times its size while it is made");
	}
	if (reason && is_name)
		return error_set_field(&fail->error, ENOENT, "packages", "apt: %s", reason);
	if (reason && strncmp(reason, "Failed to fetch ", 16) == 0) {
		error_set_field(&fail->error, ENETUNREACH, "packages", "apt: %s", reason);
		return failure_hint(fail, "only packages installed within the last %d days are cached: for others, this "
					  "machine has to reach its Debian mirror", BUILD_CACHE_MAX_AGE_S / 86400);
	}
	if (reason && strncmp(reason, "run[", 4) == 0)
		error_set(&fail->error, ECHILD, "%s%s%s", reason, before[0] ? ": " : "", before);
	else if (reason)
		error_set(&fail->error, ECHILD, "mmdebstrap: %s", reason);
	if (reason && (strstr(reason, "newuidmap") || strstr(reason, "chroot mode")))
		return failure_hint(fail, "run it as root, or apt-get install uidmap, and give this user numbers in /etc/subuid and /etc/subgid");
	return failure_hint(fail, "the same with --verbose shows all that was said");
}

static int run_mmdebstrap(struct build *build, const struct words *words, const char *stage, const char *doing, struct failure *fail)
{
	struct bar bar;
	char start[32];
	int r;

	snprintf(start, sizeof(start), "%lld", (long long)time(NULL));
	if (setenv("HULL_BUILD_START", start, 1) < 0 || setenv("HULL_STAGE", stage, 1) < 0 || setenv("LC_ALL", "C.UTF-8", 1) < 0)
		return error_set(&fail->error, ENOMEM, "out of memory");
	bar_begin(&bar, build->verbose ? NULL : build->recipe.name);
	r = subprocess_run(words->items, build->signal_fd, &build->log, build->verbose, &bar, doing, fail);
	return r == -ECHILD ? explain(build, fail) : r;
}

/* ---- packages ---- */

/* This machine's own mirrors of the suite, as apt knows them: FOLDER/sources.list. Other distributions' and third parties'
 * sources stay out. `*ret_any`: there were some; without, mmdebstrap's own default is right. */
static int write_sources(struct build *build, char ret_path[PATH_MAX_TEXT], bool *ret_any, struct failure *fail)
{
	static const char *const argv[] = {
		"apt-get", "indextargets", "--format", "$(CREATED_BY)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)", NULL};
	static const char *const suites[] = {BUILD_SUITE, BUILD_SUITE "-updates", BUILD_SUITE "-security"};
	struct buf list;
	char *line, *rest;
	int r;

	*ret_any = false;
	snprintf(ret_path, PATH_MAX_TEXT, "%s/sources.list", build->folder);
	build->log.len = 0;
	if (subprocess_run(argv, build->signal_fd, &build->log, false, NULL, NULL, fail) == -EINTR)
		return -EINTR;
	memset(fail, 0, sizeof(*fail)); /* no apt configured: no sources of its own */
	buf_init(&list, 1 << 20);
	for (rest = build->log.data; build->log.len && (line = strsep(&rest, "\n"));) {
		char *kind = strsep(&line, "|"), *uri = strsep(&line, "|"), *release = strsep(&line, "|");

		for (size_t i = 0; i < ARRAY_SIZE(suites) && release && line; i++)
			if (strcmp(kind, "Packages") == 0 && strcmp(release, suites[i]) == 0) {
				buf_printf(&list, "deb %s %s %s\n", uri, release, line);
				*ret_any |= i == 0;
			}
	}
	build->log.len = 0;
	r = *ret_any ? write_file_atomic(ret_path, list.data, list.len, 0644, &fail->error) : 0;
	buf_done(&list);
	return r;
}

static int cache_path(struct build *build, struct failure *fail)
{
	const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	uint8_t digest[SHA256_DIGEST_SIZE];
	char key[2 * SHA256_DIGEST_SIZE + 1], folder[PATH_MAX_TEXT / 2];
	struct sha256_ctx hash;

	sha256_init(&hash);
	sha256_update(&hash, sizeof(image_hook), (const uint8_t *)image_hook);
	sha256_update(&hash, sizeof(BUILD_SUITE), (const uint8_t *)BUILD_SUITE);
	for (size_t i = 0; i < build->recipe.packages.len; i++)
		sha256_update(&hash, strlen(build->recipe.packages.items[i]) + 1,
			(const uint8_t *)build->recipe.packages.items[i]);
	sha256_digest(&hash, sizeof(digest), digest);
	hex_encode(digest, sizeof(digest), key);
	if (cache && cache[0] == '/')
		snprintf(folder, sizeof(folder), "%s/hull/images", cache);
	else
		snprintf(folder, sizeof(folder), "%s/.cache/hull/images", home && home[0] == '/' ? home : "/tmp");
	snprintf(build->base, sizeof(build->base), "%s/%s-%.32s.tar", folder, BUILD_SUITE, key);
	return make_directories(folder, 0700, &fail->error);
}

static bool is_fresh(const char *path)
{
	struct stat st;
	time_t now = time(NULL);

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && st.st_mtime <= now &&
	       now - st.st_mtime < BUILD_CACHE_MAX_AGE_S;
}

static void add_common_words(struct words *words)
{
	add_word(words, "mmdebstrap");
	add_word(words, "--aptopt=APT::Install-Recommends \"false\"");
	add_word(words, "--aptopt=Acquire::Languages \"none\"");
	add_word(words, "--aptopt=Acquire::Retries \"3\"");
	/* What dpkg writes is thrown away when the build fails: no need to sync each file. */
	add_word(words, "--dpkgopt=force-unsafe-io");
	for (const char *c = "doc\0man\0info\0locale\0"; *c; c += strlen(c) + 1)
		add_word(words, "--dpkgopt=path-exclude=/usr/share/%s/*", c);
}

static int install_packages(struct build *build, const char *output, struct failure *fail)
{
	struct words words = {.n = 0};
	char sources[PATH_MAX_TEXT];
	struct buf include, names;
	bool any;
	int r = write_sources(build, sources, &any, fail);

	if (r < 0)
		return r;
	/* usr-is-merged stands in for usrmerge, which would bring all of Perl. */
	buf_init(&include, WORD_MAX_BYTES);
	buf_init(&names, WORD_MAX_BYTES);
	r = buf_printf(&include, "usr-is-merged");
	for (size_t i = 0; i < build->recipe.packages.len && r == 0; i++) {
		r = buf_printf(&include, ",%s", build->recipe.packages.items[i]);
		if (r == 0)
			r = buf_printf(&names, "%s ", build->recipe.packages.items[i]);
	}
	if (r < 0) {
		buf_done(&include);
		buf_done(&names);
		return error_set_field(&fail->error, -r, "packages", "too many");
	}
	add_common_words(&words);
	add_word(&words, "--variant=essential");
	add_word(&words, "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr");
	add_word(&words, "--skip=output/dev,output/mknod");
	add_word(&words, "--include=%s", include.data);
	/* Can they be installed at all? Asked before a minute goes into unpacking the essential ones. */
	if (names.len)
		add_word(&words, "--extract-hook=APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get --simulate -qq install %s >/dev/null",
			names.data);
	add_word(&words, "--customize-hook=%s", image_hook);
	add_word(&words, "--format=tar");
	add_word(&words, "%s", BUILD_SUITE);
	add_word(&words, "%s", output);
	if (any)
		add_word(&words, "%s", sources);
	r = run_mmdebstrap(build, &words, "packages", "installing packages", fail);
	words_done(&words);
	buf_done(&include);
	buf_done(&names);
	return r;
}

int build_packages(struct build *build, struct failure *fail)
{
	char output[PATH_MAX_TEXT];
	int r = cache_path(build, fail);

	if (r < 0)
		return r;
	if (!build->no_cache && is_fresh(build->base)) {
		fprintf(stderr, "hull: %s: packages as installed before (--no-cache for the newest)\n", build->recipe.name);
		return 0;
	}
	fprintf(stderr, "hull: %s: installing %zu package%s and Debian's essential ones\n", build->recipe.name,
		build->recipe.packages.len, build->recipe.packages.len == 1 ? "" : "s");
	/* Beside its place, so that the cache never holds a part. */
	if ((size_t)snprintf(output, sizeof(output), "%s.%ld", build->base, (long)getpid()) >= sizeof(output))
		return error_set(&fail->error, ENAMETOOLONG, "%s: path too long", build->base);
	r = install_packages(build, output, fail);
	if (r == 0 && rename(output, build->base) < 0)
		r = error_set_errno(&fail->error, errno, "cannot keep %s", build->base);
	if (r < 0)
		unlink(output);
	return r;
}

/* ---- the image ---- */

/* The user that the command runs as, without a password or a shell, when the packages brought none of that name. No
 * program for it: `passwd`, which has useradd, is not among the essential packages. */
static const char user_script[] =
	"user='%s'\n"
	"if ! grep -q \"^$user:\" /etc/passwd; then\n"
	"	id=1000\n"
	"	while grep -q \"^[^:]*:[^:]*:$id:\" /etc/passwd /etc/group; do id=$((id + 1)); done\n"
	"	grep -q \"^$user:\" /etc/group || echo \"$user:x:$id:\" >> /etc/group\n"
	"	gid=$(sed -n \"s/^$user:[^:]*:\\([0-9]*\\):.*/\\1/p\" /etc/group)\n"
	"	echo \"$user:x:$id:$gid::/:/usr/sbin/nologin\" >> /etc/passwd\n"
	"	[ ! -e /etc/shadow ] || echo \"$user:!:18262::::::\" >> /etc/shadow\n"
	"fi\n";

/* 'text' for a POSIX shell, whatever is in it. */
static int append_quoted(struct buf *script, const char *text)
{
	int r = buf_append(script, "'", 1);

	for (; *text && r == 0; text++)
		r = *text == '\'' ? buf_append(script, "'\\''", 4) : buf_append(script, text, 1);
	return r < 0 ? r : buf_append(script, "'", 1);
}

/* What is run inside the new root: the user, the owners, the recipe's own commands. */
static int compose_setup(const struct recipe *recipe, struct buf *script)
{
	const struct recipe_copy *copies = recipe->copy.items;
	const char *user = recipe->config.user;
	cleanup_free char *name = user ? strndup(user, strcspn(user, ":")) : NULL;
	int r = buf_printf(script, "set -eu\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin\n");

	if (r == 0 && name && name[strspn(name, "0123456789")])
		r = buf_printf(script, user_script, name);
	for (size_t i = 0; i < recipe->copy.len && r == 0; i++) {
		if (!copies[i].owner)
			continue;
		r = buf_printf(script, "chown -hR %s -- ", copies[i].owner);
		if (r == 0)
			r = append_quoted(script, copies[i].to);
		if (r == 0)
			r = buf_append(script, "\n", 1);
	}
	for (size_t i = 0; i < recipe->run.len && r == 0; i++) {
		/* The line first, which is not the command's own: one that fails without a word has said nothing. */
		r = buf_printf(script, "echo 'I: run[%zu]' >&2\n/bin/sh -euc ", i);
		if (r == 0)
			r = append_quoted(script, recipe->run.items[i]);
		if (r == 0)
			r = buf_printf(script, " || { echo \"E: run[%zu]: the command failed, status $?\" >&2; exit 1; }\n", i);
	}
	return r;
}

/* Everything that the recipe brings, as one archive. */
static int write_files(const struct build *build, const char *path, struct error *err)
{
	const struct recipe_copy *copies = build->recipe.copy.items;
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	struct buf script;
	int r;

	if (fd < 0)
		return error_set_errno(err, errno, "cannot create %s", path);
	for (size_t i = 0; i < build->recipe.copy.len; i++) {
		int mode = copies[i].mode ? (int)strtol(copies[i].mode, NULL, 8) : -1;

		r = archive_add_path(
			fd, build->source_folder, copies[i].from, build->inside, copies[i].to + 1, mode, err);
		if (r < 0)
			return error_in_field(err, "copy[%zu].from", i);
	}
	buf_init(&script, 4 << 20);
	r = compose_setup(&build->recipe, &script);
	if (r < 0)
		error_set_field(err, -r, "run", "too much");
	else
		r = archive_add_text(fd, ".hull/setup", script.data, script.len, 0644, err);
	buf_done(&script);
	return r < 0 ? r : archive_end(fd, err);
}

int build_files(struct build *build, struct failure *fail)
{
	snprintf(build->files, sizeof(build->files), "%s/files.tar", build->folder);
	return write_files(build, build->files, &fail->error);
}

int build_image(struct build *build, struct failure *fail)
{
	struct words words = {.n = 0};
	int r;

	build->log.len = 0;
	add_common_words(&words);
	add_word(&words, "--variant=custom");
	add_word(&words, "--skip=update,setup,cleanup");
	add_word(&words, "--format=null");
	add_word(&words, "--setup-hook=tar-in %s /", build->base);
	/* Where mmdebstrap hangs the devices that commands need; empty in the image. */
	add_word(&words, "--setup-hook=mkdir -p \"$1/dev/pts\" \"$1/dev/shm\"");
	add_word(&words, "--customize-hook=tar-in %s /", build->files);
	add_word(&words, "--customize-hook=%s", image_hook);
	add_word(&words, "--customize-hook=download /.hull.erofs %s/image.erofs", build->folder);
	add_word(&words, "%s", BUILD_SUITE);
	add_word(&words, "/dev/null");
	r = run_mmdebstrap(build, &words, "image", "making the file system", fail);
	words_done(&words);
	return r;
}
