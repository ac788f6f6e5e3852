/* The machine's own numbers (Linux, Documentation/filesystems/proc.rst, accounting/psi.rst, admin-guide/cgroup-v2.rst,
 * admin-guide/iostats.rst). */
#include "guest-kernel/stats.h"

#include "common/buf.h"
#include "common/cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

#define TEXT_MAX     262144 /* bytes of one of the kernel's files */
#define READ_CHUNK   16384
#define SECTOR_BYTES 512
#define MOUNTS_MAX   64 /* that are looked at closely */

/* Each number is absent until it is found. */
static const struct guest_pressure no_pressure = {-1, -1, -1, -1};
static const struct guest_group no_group = {-1, -1, -1, -1, -1, -1};

void stats_source_open(struct stats_source *ret)
{
	ret->proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	ret->cgroup_fd = open("/sys/fs/cgroup", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

void stats_source_close(struct stats_source *source)
{
	source->proc_fd = close_fd(source->proc_fd);
	source->cgroup_fd = close_fd(source->cgroup_fd);
}

/* ---- texts ---- */

/* The whole file, owned by the caller. NULL: it is not there, or longer than any should be. */
static char *read_text(int folder_fd, const char *path)
{
	cleanup_close int fd = folder_fd < 0 ? -1 : openat(folder_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct buf text;
	char *copy = NULL;
	ssize_t n = -1;

	buf_init(&text, TEXT_MAX);
	while (fd >= 0 && (n = buf_read_fd(&text, fd, READ_CHUNK)) > 0)
		;
	if (n == 0)
		copy = strndup(text.data ? text.data : "", text.len);
	buf_done(&text);
	return copy;
}

/* A decimal number; -1 for what is none, or passes an int64_t. */
static int64_t number(const char *text)
{
	long long value;

	if (!text || !isdigit((unsigned char)*text))
		return -1;
	errno = 0;
	value = strtoll(text, NULL, 10);
	return errno ? -1 : value;
}

/* "12.34" is 1234. */
static int64_t hundredths(const char *text)
{
	int64_t whole = number(text);

	if (whole < 0 || whole > INT64_MAX / 100 - 1)
		return -1;
	text += strspn(text, "0123456789");
	if (text[0] != '.' || !isdigit((unsigned char)text[1]) || !isdigit((unsigned char)text[2]))
		return whole * 100;
	return whole * 100 + (text[1] - '0') * 10 + (text[2] - '0');
}

/* What follows `key` at the beginning of a line, past spaces; NULL. */
static const char *find_line(const char *text, const char *key)
{
	size_t len = strlen(key);

	while (text && strncmp(text, key, len) != 0) {
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return text ? text + len + strspn(text + len, " ") : NULL;
}

static int64_t scale(int64_t value, int64_t by)
{
	return value < 0 || value > INT64_MAX / by ? -1 : value * by;
}

/* Printable, and no longer than others take. */
static char *make_name(const char *text)
{
	char *name = strndup(text, GUEST_STATS_NAME_MAX);

	for (char *c = name; c && *c; c++)
		if (*c < 0x20 || *c > 0x7e)
			*c = '?';
	return name;
}

/* A new zeroed item named `name`, the struct's first member; NULL when the list is full, or without memory. */
static void *add_item(struct json_array *array, size_t size, const char *name)
{
	char **item, *copy;
	void *items;

	if (array->len >= GUEST_STATS_LIST_MAX || !*name)
		return NULL;
	items = reallocarray(array->items, array->len + 1, size);
	if (!items)
		return NULL;
	array->items = items;
	copy = make_name(name);
	if (!copy)
		return NULL;
	item = memset((char *)items + array->len++ * size, 0, size);
	*item = copy;
	return item;
}

/* ---- the kernel's files ---- */

void stats_parse_memory(const char *text, struct guest_stats *ret)
{
	ret->memory_total_bytes = scale(number(find_line(text, "MemTotal:")), 1024);
	ret->memory_available_bytes = scale(number(find_line(text, "MemAvailable:")), 1024);
	ret->swap_total_bytes = scale(number(find_line(text, "SwapTotal:")), 1024);
	ret->swap_free_bytes = scale(number(find_line(text, "SwapFree:")), 1024);
}

void stats_parse_load(const char *text, struct guest_stats *ret)
{
	int64_t *const loads[] = {&ret->load_1m_hundredths, &ret->load_5m_hundredths, &ret->load_15m_hundredths};

	for (size_t i = 0; i < ARRAY_SIZE(loads); i++) {
		*loads[i] = hundredths(text);
		text += strcspn(text, " ");
		text += strspn(text, " ");
	}
}

static void parse_pressure_line(const char *line, int64_t *ret_us, int64_t *ret_avg10)
{
	const char *avg10 = line ? strstr(line, "avg10=") : NULL, *total = line ? strstr(line, "total=") : NULL;

	*ret_avg10 = avg10 ? hundredths(avg10 + strlen("avg10=")) : -1;
	*ret_us = total ? number(total + strlen("total=")) : -1;
}

struct guest_pressure *stats_parse_pressure(const char *text)
{
	const char *some = find_line(text, "some ");
	struct guest_pressure *pressure = some ? malloc(sizeof *pressure) : NULL;

	if (!pressure)
		return NULL;
	*pressure = no_pressure;
	parse_pressure_line(some, &pressure->some_us, &pressure->some_avg10_hundredths);
	parse_pressure_line(find_line(text, "full "), &pressure->full_us, &pressure->full_avg10_hundredths);
	return pressure;
}

/* A virtio disk or pmem, and no partition of one: what a partition does, its disk has counted. */
static bool is_whole_disk(const char *name)
{
	if (strncmp(name, "vd", 2) == 0)
		return name[2] && !name[2 + strspn(name + 2, "abcdefghijklmnopqrstuvwxyz")];
	return strncmp(name, "pmem", 4) == 0 && name[4] && !name[4 + strspn(name + 4, "0123456789")];
}

/* The fields of a line, parted by spaces. Their number, `max` at most. */
static size_t split(char *line, char **fields, size_t max)
{
	char *rest;
	size_t n = 0;

	for (char *field = strtok_r(line, " ", &rest); field && n < max; field = strtok_r(NULL, " ", &rest))
		fields[n++] = field;
	return n;
}

void stats_parse_disks(char *text, struct guest_stats *ret)
{
	char *rest, *fields[10]; /* major, minor, name, reads, merged, sectors, ms, writes, merged, sectors */

	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		struct guest_disk *disk;

		if (split(line, fields, ARRAY_SIZE(fields)) < ARRAY_SIZE(fields) || !is_whole_disk(fields[2]))
			continue;
		disk = add_item(&ret->disks, sizeof *disk, fields[2]);
		if (!disk)
			return;
		disk->reads = number(fields[3]);
		disk->read_bytes = scale(number(fields[5]), SECTOR_BYTES);
		disk->writes = number(fields[7]);
		disk->written_bytes = scale(number(fields[9]), SECTOR_BYTES);
	}
}

void stats_parse_interfaces(char *text, struct guest_stats *ret)
{
	char *rest, *fields[10]; /* bytes, packets, six more of what was received; bytes, packets */

	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char *name = line + strspn(line, " "), *colon = strrchr(name, ':');
		struct guest_interface *interface;

		if (!colon) /* a heading */
			continue;
		*colon = '\0';
		if (strcmp(name, "lo") == 0 || split(colon + 1, fields, ARRAY_SIZE(fields)) < ARRAY_SIZE(fields))
			continue;
		interface = add_item(&ret->interfaces, sizeof *interface, name);
		if (!interface)
			return;
		interface->received_bytes = number(fields[0]);
		interface->received_packets = number(fields[1]);
		interface->sent_bytes = number(fields[8]);
		interface->sent_packets = number(fields[9]);
	}
}

/* Those of the kernel alone: no other program has to answer for them. */
static bool answers_by_itself(const char *type)
{
	static const char *const types[] = {"overlay", "ext4", "ext3", "ext2", "xfs", "btrfs", "f2fs", "vfat", "erofs", "tmpfs"};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (strcmp(type, types[i]) == 0)
			return true;
	return false;
}

/* Octal escapes become what they stand for. */
static void unescape(char *path)
{
	char *to = path;

	for (const char *c = path; *c; to++) {
		if (c[0] == '\\' && c[1] >= '0' && c[1] <= '3' && c[2] && c[3]) {
			*to = (char)((c[1] - '0') << 6 | (c[2] - '0') << 3 | (c[3] - '0'));
			c += 4;
		} else {
			*to = *c++;
		}
	}
	*to = '\0';
}

/* Does another mount than `id`, and not the root, lie over `path` (as the kernel writes it), or over a folder on the way there? */
static bool is_covered(const char *mounts, const char *id, const char *path)
{
	if (strlen(path) > GUEST_STATS_NAME_MAX * 2) /* nobody is told it anyway */
		return true;
	for (const char *line = mounts; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		char other[16], over[GUEST_STATS_NAME_MAX * 4];
		size_t len;

		if (sscanf(line, "%15s %*s %*s %*s %511s", other, over) != 2 || strcmp(over, "/") == 0 || strcmp(other, id) == 0)
			continue;
		len = strlen(over);
		if (strncmp(path, over, len) == 0 && (path[len] == '\0' || path[len] == '/'))
			return true;
	}
	return false;
}

/* A line: id, parent's id, major:minor, root, mount point, options, optional fields…, "-", type, source. On the way to a mount that lies
 * deeper there may be one that another program serves. */
void stats_parse_mounts(char *text, stats_mount_fn fn, void *ctx)
{
	cleanup_free char *all = strdup(text);
	char *rest, *fields[5], root[16] = "";
	int n = 0;

	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char *type = strstr(line, " - ");
		bool is_root;

		if (!type)
			continue;
		*type = '\0';
		type += 3;
		type[strcspn(type, " ")] = '\0';
		if (split(line, fields, ARRAY_SIZE(fields)) < ARRAY_SIZE(fields))
			continue;
		is_root = strcmp(fields[4], "/") == 0;
		if (is_root)
			snprintf(root, sizeof root, "%s", fields[0]);
		if (!answers_by_itself(type) || (!is_root && strcmp(fields[1], root) != 0))
			continue;
		if (!is_root && (!all || n++ >= MOUNTS_MAX || is_covered(all, fields[0], fields[4])))
			continue;
		unescape(fields[4]);
		fn(ctx, fields[4]);
	}
}

/* ---- all of it ---- */

static void add_filesystem(void *ctx, const char *path)
{
	struct guest_stats *stats = ctx;
	struct guest_filesystem *filesystem;
	struct statvfs status;

	if (statvfs(path, &status) < 0 || status.f_blocks == 0 || status.f_frsize == 0)
		return;
	filesystem = add_item(&stats->filesystems, sizeof *filesystem, path);
	if (!filesystem)
		return;
	filesystem->size_bytes = scale((int64_t)status.f_blocks, (int64_t)status.f_frsize);
	filesystem->free_bytes = scale((int64_t)status.f_bavail, (int64_t)status.f_frsize);
}

static int64_t read_number(int folder_fd, const char *file, const char *key)
{
	cleanup_free char *text = read_text(folder_fd, file);

	return text ? number(find_line(text, key)) : -1;
}

static struct guest_group *read_group(int cgroup_fd, const char *name)
{
	cleanup_close int fd = cgroup_fd < 0 ? -1 : openat(cgroup_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct guest_group *group = fd < 0 ? NULL : malloc(sizeof *group);

	if (!group)
		return NULL;
	*group = no_group;
	group->cpu_us = read_number(fd, "cpu.stat", "usage_usec");
	group->memory_bytes = read_number(fd, "memory.current", "");
	group->memory_peak_bytes = read_number(fd, "memory.peak", "");
	group->oom_kills = read_number(fd, "memory.events", "oom_kill ");
	group->tasks = read_number(fd, "pids.current", "");
	group->tasks_max = read_number(fd, "pids.max", "");
	return group;
}

static struct guest_pressure *read_pressure(int proc_fd, const char *name)
{
	cleanup_free char *text = read_text(proc_fd, name);

	return text ? stats_parse_pressure(text) : NULL;
}

static int64_t uptime_ms(void)
{
	struct timespec now;

	return clock_gettime(CLOCK_BOOTTIME, &now) < 0 ? -1 : now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

void stats_read(const struct stats_source *source, struct guest_stats *ret)
{
	cleanup_free char *memory = read_text(source->proc_fd, "meminfo"), *load = read_text(source->proc_fd, "loadavg");
	cleanup_free char *disks = read_text(source->proc_fd, "diskstats"), *net = read_text(source->proc_fd, "self/net/dev");
	cleanup_free char *mounts = read_text(source->proc_fd, "self/mountinfo");

	*ret = (struct guest_stats){.uptime_ms = uptime_ms()};
	stats_parse_memory(memory ? memory : "", ret);
	stats_parse_load(load ? load : "", ret);
	ret->cpu_pressure = read_pressure(source->proc_fd, "pressure/cpu");
	ret->memory_pressure = read_pressure(source->proc_fd, "pressure/memory");
	ret->io_pressure = read_pressure(source->proc_fd, "pressure/io");
	ret->workload = read_group(source->cgroup_fd, "hull.workload");
	ret->executed = read_group(source->cgroup_fd, "hull.exec");
	if (mounts)
		stats_parse_mounts(mounts, add_filesystem, ret);
	if (disks)
		stats_parse_disks(disks, ret);
	if (net)
		stats_parse_interfaces(net, ret);
}
