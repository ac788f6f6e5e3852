#include "api/audit_file.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/io.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DIGITS	   8
#define NUMBER_MAX 99999999
#define DAY_MS	   (24 * INT64_C(3600000))
#define BLOCK	   65536 /* bytes that are read at a time; more than a line */
static_assert(BLOCK > AUDIT_LINE_MAX, "a block has a whole line");

struct old {
	uint64_t number, size;
	int64_t written_at;
};

struct audit_file {
	char *path;
	const char *name; /* its last part */
	uint64_t limit_bytes;
	int64_t days;
	int fd;		   /* -1: it could not be opened */
	uint64_t size;	   /* of the file that is written, */
	uint64_t number;   /* what it will be called, */
	int64_t day;	   /* and the day, since 1970, that it is of */
	struct old *olds; /* those that have their number, the oldest first */
	size_t n_olds;
};

static void path_of(const struct audit_file *file, uint64_t number, char ret[PATH_MAX])
{
	snprintf(ret, PATH_MAX, "%s.%0*" PRIu64, file->path, DIGITS, number);
}

/* ---- those that have their number ---- */

static bool read_number(const struct audit_file *file, const char *name, uint64_t *ret)
{
	size_t len = strlen(file->name);

	if (strncmp(name, file->name, len) != 0 || name[len] != '.' || strspn(name + len + 1, "0123456789") != DIGITS || name[len + 1 + DIGITS])
		return false;
	*ret = strtoull(name + len + 1, NULL, 10);
	return true;
}

static int compare(const void *a, const void *b)
{
	const struct old *x = a, *y = b;

	return (x->number > y->number) - (x->number < y->number);
}

static void add_old(struct audit_file *file, uint64_t number, const struct stat *st)
{
	struct old *olds = reallocarray(file->olds, file->n_olds + 1, sizeof(*olds));

	if (!olds)
		abort();
	file->olds = olds;
	olds[file->n_olds++] = (struct old){number, (uint64_t)st->st_size, st->st_mtim.tv_sec * INT64_C(1000)};
}

static int find_olds(struct audit_file *file, struct error *err)
{
	cleanup_free char *folder = strndup(file->path, (size_t)(file->name - file->path));
	DIR *dir = folder ? opendir(folder) : NULL;
	struct dirent *entry;
	uint64_t number;
	struct stat st;

	if (!dir)
		return error_set_errno(err, errno, "cannot read %s", folder ? folder : "");
	while ((entry = readdir(dir)))
		if (read_number(file, entry->d_name, &number) && fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
			S_ISREG(st.st_mode))
			add_old(file, number, &st);
	closedir(dir);
	if (file->n_olds)
		qsort(file->olds, file->n_olds, sizeof(*file->olds), compare);
	file->number = file->n_olds ? file->olds[file->n_olds - 1].number + 1 : 1;
	return 0;
}

/* The one that is written may come to a sixteenth. */
static void prune(struct audit_file *file, int64_t now)
{
	uint64_t kept = file->limit_bytes / AUDIT_FILES;
	char path[PATH_MAX];
	size_t gone = file->n_olds;

	while (gone > 0 && kept + file->olds[gone - 1].size <= file->limit_bytes && file->olds[gone - 1].written_at > now - file->days * DAY_MS)
		kept += file->olds[--gone].size;
	for (size_t i = 0; i < gone; i++) {
		path_of(file, file->olds[i].number, path);
		unlink(path);
	}
	file->n_olds -= gone;
	if (gone && file->n_olds)
		memmove(file->olds, file->olds + gone, file->n_olds * sizeof(*file->olds));
}

/* ---- the one that is written ---- */

/* A line that was cut short, by the end of the host, ends here. */
static void end_line(struct audit_file *file)
{
	char last = '\n';

	if (file->size && pread(file->fd, &last, 1, (off_t)file->size - 1) == 1 && last != '\n' && write(file->fd, "\n", 1) == 1)
		file->size++;
}

static int open_file(struct audit_file *file)
{
	cleanup_close int fd = open(file->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0600);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	file->fd = steal_fd(&fd);
	file->size = (uint64_t)st.st_size;
	file->day = st.st_mtim.tv_sec * INT64_C(1000) / DAY_MS;
	end_line(file);
	return 0;
}

struct audit_file *audit_file_new(const char *path, uint64_t limit_bytes, int64_t days, struct error *err)
{
	struct audit_file *file = calloc(1, sizeof(*file));
	int r;

	if (!file)
		abort();
	*file = (struct audit_file){.path = strdup(path), .limit_bytes = limit_bytes, .days = days, .fd = -1};
	if (!file->path)
		abort();
	file->name = strrchr(file->path, '/') + 1;
	r = open_file(file);
	if (r < 0)
		error_set_errno(err, -r, "cannot write %s", path);
	else
		r = find_olds(file, err);
	if (r == 0)
		return file;
	audit_file_free(file);
	return NULL;
}

void audit_file_free(struct audit_file *file)
{
	if (!file)
		return;
	close_fd(file->fd);
	free(file->olds);
	free(file->path);
	free(file);
}

void audit_file_reopen(struct audit_file *file)
{
	file->fd = close_fd(file->fd);
	open_file(file); /* where that fails, append() tries again */
}

/* Gives the file its number, and begins the next. 0 or -errno: then it is as it was, or there is none to be written. */
static int turn(struct audit_file *file, int64_t now)
{
	char path[PATH_MAX];
	struct stat st;

	path_of(file, file->number, path);
	if (file->number > NUMBER_MAX)
		return -EOVERFLOW;
	if (fstat(file->fd, &st) < 0 || (renameat2(AT_FDCWD, file->path, AT_FDCWD, path, RENAME_NOREPLACE) < 0 && errno != ENOENT))
		return -errno;
	if (access(path, F_OK) == 0) /* else somebody has taken it away */
		add_old(file, file->number++, &st);
	prune(file, now);
	file->fd = close_fd(file->fd);
	return open_file(file);
}

int audit_file_append(struct audit_file *file, const char *line, size_t len, int64_t now)
{
	ssize_t n;
	int r = file->fd < 0 ? open_file(file) : 0;

	/* What cannot be bounded is not written. */
	if (r == 0 && file->size && (file->size + len > file->limit_bytes / AUDIT_FILES || file->day != now / DAY_MS))
		r = turn(file, now);
	if (r < 0)
		return r;
	n = write(file->fd, line, len);
	if (n == (ssize_t)len) {
		file->size += len;
		file->day = now / DAY_MS;
		return 0;
	}
	r = n < 0 ? -errno : -ENOSPC;
	if (n > 0 && ftruncate(file->fd, (off_t)file->size) < 0)
		file->size += (uint64_t)n;
	return r;
}

void audit_file_age(struct audit_file *file, int64_t now)
{
	if (file->fd >= 0 && file->size && file->day != now / DAY_MS)
		turn(file, now); /* or with the next line */
	prune(file, now);
}

/* ---- reading ---- */

struct audit_place audit_file_end(const struct audit_file *file)
{
	return (struct audit_place){file->number, file->fd < 0 ? 0 : file->size};
}

/* Those of one file. False: `fn` or the limit has ended it. */
static bool read_file_back(int fd, uint64_t *offset, size_t *left, bool (*fn)(void *ctx, const char *line, size_t len), void *ctx)
{
	cleanup_free char *block = malloc(BLOCK);

	if (!block)
		abort();
	while (*offset) {
		uint64_t begin = *offset > BLOCK ? *offset - BLOCK : 0;
		ssize_t end = pread_full(fd, block, (size_t)(*offset - begin), begin);

		if (end <= 0 || (uint64_t)end != *offset - begin)
			break; /* it is shorter than it was: somebody else's doing */
		while (end > 0) {
			const char *before = memrchr(block, '\n', (size_t)end - 1);
			ssize_t start = before ? before + 1 - block : 0;

			if (!before && begin && *offset != begin + BLOCK)
				break; /* its beginning is in the block before */
			if (*left == 0)
				return false;
			*left -= *left < (size_t)(end - start) ? *left : (size_t)(end - start);
			*offset = begin + (uint64_t)start;
			if (!fn(ctx, block + start, (size_t)(end - start - (block[end - 1] == '\n'))))
				return false;
			end = start;
		}
	}
	*offset = 0;
	return true;
}

static bool has_older(const struct audit_file *file, uint64_t number)
{
	return file->n_olds && file->olds[0].number < number;
}

bool audit_file_read_back(struct audit_file *file, struct audit_place *place, size_t max_bytes, bool (*fn)(void *ctx, const char *line, size_t len),
	void *ctx)
{
	char path[PATH_MAX];

	for (;;) {
		cleanup_close int fd = -1;
		bool goes_on = true;
		size_t i = file->n_olds;

		path_of(file, place->number, path);
		if (place->number <= file->number && place->offset)
			fd = open(place->number == file->number ? file->path : path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd >= 0)
			goes_on = read_file_back(fd, &place->offset, &max_bytes, fn, ctx);
		if (!goes_on)
			return place->offset || has_older(file, place->number);
		/* The newest that is older. */
		while (i > 0 && file->olds[i - 1].number >= place->number)
			i--;
		if (i == 0)
			return false;
		*place = (struct audit_place){file->olds[i - 1].number, file->olds[i - 1].size};
	}
}
