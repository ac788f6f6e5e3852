/* Writing a machine's memory to a file, and reading it again.
 *
 * Theory of operation. Most of a guest's RAM was never touched, and looking at a page would bring it into being. What can be
 * anything but zeroes is therefore asked for first: of a memory file, and of a file that private pages lie over, where its data
 * is (SEEK_DATA); of private pages, which ones there are (/proc/self/pagemap), and where a kernel's file is mapped in place of zeroes
 * (/proc/self/maps). Where the host does not tell, all are looked at. */
#include "vmm/memory_file.h"

#include "common/checked.h"
#include "common/cleanup.h"
#include "common/io.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define PAGE_BYTES  4096u
#define CHUNK_PAGES 512u /* that are looked at together */
#define MAGIC	    "HULLRAM"

#define PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define PAGEMAP_SWAPPED (UINT64_C(1) << 62)

/* The file's last page, of which the rest is zeroes. */
struct memory_file_end {
	char magic[8];
	uint64_t version, ram_bytes, plug_bytes; /* little-endian */
	uint8_t id[MEMORY_FILE_ID_BYTES];
};

#define FILE_VERSION 1

static struct memory_file_layout layout_of(const struct ram *ram)
{
	return (struct memory_file_layout){ram->size_bytes, ram->plug_bytes};
}

static uint64_t plug_offset(const struct memory_file_layout *layout)
{
	return ram_plug_fd_offset(layout->ram_bytes);
}

/* Where the end begins. */
static uint64_t end_offset(const struct memory_file_layout *layout)
{
	return layout->plug_bytes ? plug_offset(layout) + layout->plug_bytes : layout->ram_bytes;
}

static struct memory_file_end make_end(const struct memory_file_layout *layout, const uint8_t id[MEMORY_FILE_ID_BYTES])
{
	struct memory_file_end end = {.magic = MAGIC, .version = htole64(FILE_VERSION), .ram_bytes = htole64(layout->ram_bytes),
		.plug_bytes = htole64(layout->plug_bytes)};

	memcpy(end.id, id, sizeof(end.id));
	return end;
}

/* The stretch of data in a file that was found last: [start, end). */
struct extent {
	int fd; /* borrowed; -1: no file, and no data */
	uint64_t start, end;
};

/* Whether the file has data in this page; pages are asked for in ascending order. */
static bool extent_has(struct extent *extent, uint64_t offset)
{
	while (extent->fd >= 0 && extent->end <= offset) {
		off_t start = lseek(extent->fd, (off_t)offset, SEEK_DATA);

		extent->start = start >= 0 ? (uint64_t)start : errno == ENXIO ? UINT64_MAX : 0; /* none more; cannot tell */
		start = start >= 0 ? lseek(extent->fd, start, SEEK_HOLE) : -1;
		extent->end = start >= 0 ? (uint64_t)start : UINT64_MAX;
	}
	return extent->fd >= 0 && extent->start < offset + PAGE_BYTES;
}

#define MAPPED_MAX 64

/* Where, among this process's addresses in [start, end), files are mapped. */
struct mapped {
	size_t n; /* more than MAPPED_MAX: too many to be told, or it cannot be told at all */
	struct {
		uintptr_t start, end;
	} spans[MAPPED_MAX];
};

static void find_mapped(struct mapped *mapped, const void *host, uint64_t len)
{
	cleanup_fclose FILE *maps = fopen("/proc/self/maps", "re");
	uintptr_t begin = (uintptr_t)host, end = begin + len, start, stop;
	unsigned long inode;
	char line[512];

	mapped->n = maps ? 0 : MAPPED_MAX + 1;
	while (maps && fgets(line, sizeof(line), maps)) {
		bool whole = strchr(line, '\n');

		if (sscanf(line, "%lx-%lx %*s %*s %*s %lu", &start, &stop, &inode) == 3 && inode && start < end && stop > begin) {
			if (mapped->n < MAPPED_MAX)
				mapped->spans[mapped->n] = (__typeof__(mapped->spans[0])){start, stop};
			mapped->n += mapped->n <= MAPPED_MAX;
		}
		while (!whole && fgets(line, sizeof(line), maps))
			whole = strchr(line, '\n'); /* the rest of a path */
	}
}

static bool is_mapped(const struct mapped *mapped, const void *page)
{
	if (mapped->n > MAPPED_MAX)
		return true;
	for (size_t i = 0; i < mapped->n; i++)
		if ((uintptr_t)page >= mapped->spans[i].start && (uintptr_t)page < mapped->spans[i].end)
			return true;
	return false;
}

/* One area of memory on its way to the file. */
struct area {
	const uint8_t *host;
	uint64_t file_offset;
	struct extent extent; /* of what lies below, or is, the memory; its offsets are the file's */
	/* Where `is_private`: */
	bool is_private;
	int pagemap_fd;	       /* borrowed; -1: all pages have to be looked at */
	struct mapped *mapped; /* borrowed; NULL: what is mapped is below, and `extent` tells of it */
};

/* Which of `n` pages from `offset` can be anything but zeroes. */
static void find_candidates(struct area *area, uint64_t offset, unsigned n, bool ret[CHUNK_PAGES])
{
	uint64_t entries[CHUNK_PAGES];
	off_t at = (off_t)(((uintptr_t)area->host + offset) / PAGE_BYTES * sizeof(entries[0]));
	bool known = area->is_private && area->pagemap_fd >= 0 &&
		     pread_full(area->pagemap_fd, entries, n * sizeof(entries[0]), (uint64_t)at) == (ssize_t)(n * sizeof(entries[0]));

	for (unsigned i = 0; i < n; i++)
		ret[i] = (area->is_private && (!known || entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED))) ||
			 (area->mapped && is_mapped(area->mapped, area->host + offset + i * PAGE_BYTES)) ||
			 extent_has(&area->extent, area->file_offset + offset + i * PAGE_BYTES);
}

static bool is_zero(const uint8_t *page)
{
	static const uint8_t zeroes[16];

	return memcmp(page, zeroes, sizeof(zeroes)) == 0 && memcmp(page, page + sizeof(zeroes), PAGE_BYTES - sizeof(zeroes)) == 0;
}

static int pwrite_full(int fd, const void *data, size_t len, uint64_t offset)
{
	for (size_t done = 0; done < len;) {
		ssize_t put = pwrite(fd, (const char *)data + done, len - done, (off_t)(offset + done));

		if (put < 0 && errno != EINTR)
			return -errno;
		done += put > 0 ? (size_t)put : 0;
	}
	return 0;
}

/* The bytes [offset, offset + len) of the area, whole pages. */
static int write_span(int fd, struct area *area, uint64_t offset, uint64_t len)
{
	bool candidate[CHUNK_PAGES];
	int r = 0;

	while (len > 0 && r == 0) {
		unsigned n = len / PAGE_BYTES < CHUNK_PAGES ? (unsigned)(len / PAGE_BYTES) : CHUNK_PAGES, run = 0;

		find_candidates(area, offset, n, candidate);
		for (unsigned i = 0; i < n && r == 0; i += run ? run : 1) {
			const uint8_t *page = area->host + offset + i * PAGE_BYTES;

			for (run = 0; i + run < n && candidate[i + run] && !is_zero(page + run * PAGE_BYTES); run++)
				;
			if (run)
				r = pwrite_full(fd, page, run * PAGE_BYTES, area->file_offset + offset + i * PAGE_BYTES);
		}
		offset += n * PAGE_BYTES;
		len -= n * PAGE_BYTES;
	}
	return r;
}

/* Calls `fn` for each stretch of what is plugged, `offset` bytes into what can be. */
static int for_each_plugged(const struct ram *ram, int (*fn)(void *ctx, uint64_t offset, uint64_t len), void *ctx)
{
	const struct gmem_region *region = NULL;
	int r = 0;

	while (ram->plug_bytes && (region = gmem_next(&ram->mem, region)))
		if (region->host == ram->plug_host)
			break;
	for (uint64_t at = 0; region && at < ram->plug_bytes && r == 0; at += region->block_bytes) {
		uint64_t block = at / region->block_bytes;

		if (region->blocks[block / 64] >> (block % 64) & 1)
			r = fn(ctx, at, region->block_bytes);
	}
	return r;
}

struct writing {
	int fd;
	struct area area;
};

static int write_plugged(void *ctx, uint64_t offset, uint64_t len)
{
	struct writing *writing = ctx;

	return write_span(writing->fd, &writing->area, offset, len);
}

static int write_all(int fd, const struct ram *ram, const uint8_t id[MEMORY_FILE_ID_BYTES])
{
	struct memory_file_layout layout = layout_of(ram);
	struct memory_file_end end = make_end(&layout, id);
	bool is_private = ram->kind == RAM_COW;
	cleanup_close int pagemap = is_private ? open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC) : -1;
	struct mapped mapped;
	struct area area = {
		.host = ram->host,
		.extent.fd = is_private ? ram->base_fd : ram->fd,
		.is_private = is_private,
		.pagemap_fd = pagemap,
		.mapped = is_private && ram->base_fd < 0 ? &mapped : NULL,
	};
	struct writing plugged = {.fd = fd, .area = area};
	int r = ftruncate(fd, (off_t)(end_offset(&layout) + PAGE_BYTES)) < 0 ? -errno : 0;

	plugged.area.host = ram->plug_host;
	plugged.area.file_offset = plug_offset(&layout);
	plugged.area.extent.fd = ram->fd; /* of kind cow there is nothing below */
	plugged.area.mapped = NULL;
	if (area.mapped)
		find_mapped(area.mapped, ram->host, ram->size_bytes);
	if (r == 0)
		r = write_span(fd, &area, 0, ram->size_bytes);
	if (r == 0)
		r = for_each_plugged(ram, write_plugged, &plugged);
	return r == 0 ? pwrite_full(fd, &end, sizeof(end), end_offset(&layout)) : r;
}

int memory_file_write(int fd, const struct ram *ram, const uint8_t id[MEMORY_FILE_ID_BYTES], struct error *err)
{
	int r = write_all(fd, ram, id);

	return r < 0 ? error_set_errno(err, -r, "the guest's memory cannot be written") : 0;
}

static int check_end(int fd, const struct memory_file_layout *layout, const uint8_t id[MEMORY_FILE_ID_BYTES], struct error *err)
{
	struct memory_file_end expected = make_end(layout, id), end;
	uint64_t expected_bytes = end_offset(layout) + PAGE_BYTES;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_set_errno(err, errno, "cannot be examined");
	if (!S_ISREG(st.st_mode))
		return error_set(err, EINVAL, "is no regular file");
	if ((uint64_t)st.st_size != expected_bytes)
		return error_set(err, EINVAL, "has %lld bytes, and the snapshot's memory has %llu", (long long)st.st_size,
			(unsigned long long)expected_bytes);
	if (pread_full(fd, &end, sizeof(end), end_offset(layout)) != sizeof(end))
		return error_set(err, EIO, "cannot be read to its end");
	if (memcmp(&end, &expected, offsetof(struct memory_file_end, id)) != 0)
		return error_set(err, EINVAL, "does not end as a memory file of this size and version does");
	if (memcmp(end.id, id, sizeof(end.id)) != 0)
		return error_set(err, EINVAL, "is the memory of another snapshot");
	return 0;
}

int memory_file_open(const char *path, const struct memory_file_layout *layout, const uint8_t id[MEMORY_FILE_ID_BYTES],
	struct error *err)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* should it be a FIFO, nobody waits */
	int r;

	if (fd < 0)
		return error_set(err, errno, "%s: %s", path, strerror(errno));
	r = check_end(fd, layout, id, err);
	return r < 0 ? error_prefix(err, "%s: ", path) : steal_fd(&fd);
}

/* `len` bytes of the file at `offset` to `host`, as far as there is data. */
static int read_span(int fd, uint8_t *host, uint64_t offset, uint64_t len)
{
	uint64_t end = offset + len;
	struct extent extent = {.fd = fd};

	for (uint64_t at = offset; at < end; at = extent.end) {
		uint64_t start, stop;

		extent_has(&extent, at);
		start = extent.start > at ? extent.start : at;
		stop = extent.end < end ? extent.end : end;
		if (start >= end)
			break;
		if (pread_full(fd, host + (start - offset), stop - start, start) != (ssize_t)(stop - start))
			return -EIO;
	}
	return 0;
}

static int copied(int r, struct error *err)
{
	return r < 0 ? error_set_errno(err, -r, "the guest's memory cannot be read") : 0;
}

int memory_file_copy_ram(int fd, struct ram *ram, struct error *err)
{
	return copied(read_span(fd, ram->host, 0, ram->size_bytes), err);
}

struct reading {
	int fd;
	struct ram *ram;
};

static int read_plugged(void *ctx, uint64_t offset, uint64_t len)
{
	const struct reading *reading = ctx;

	return read_span(reading->fd, reading->ram->plug_host + offset, reading->ram->plug_fd_offset + offset, len);
}

int memory_file_copy_plugged(int fd, struct ram *ram, struct error *err)
{
	struct reading reading = {fd, ram};

	return copied(for_each_plugged(ram, read_plugged, &reading), err);
}
