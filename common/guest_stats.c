/* What a machine says of its own load. */
#include "common/guest_stats.h"

#include <errno.h>

/* Agents send nothing else, and nothing else is to reach a terminal. */
static int check_name(const char *name, struct error *err)
{
	for (; *name; name++)
		if (*name < 0x20 || *name > 0x7e)
			return error_set(err, EINVAL, "must be printable ASCII");
	return 0;
}

#define NUMBER(type_, name_) \
	{#name_, JSON_FIELD_INT, offsetof(type_, name_), .sparse = true, .def = -1, .max = INT64_MAX}
#define NAME(type_, name_) \
	{#name_, JSON_FIELD_STRING, offsetof(type_, name_), .required = true, .min = 1, .max = GUEST_STATS_NAME_MAX, .check = check_name}

static const struct json_field pressure_fields[] = {
	NUMBER(struct guest_pressure, some_us),
	NUMBER(struct guest_pressure, full_us),
	NUMBER(struct guest_pressure, some_avg10_hundredths),
	NUMBER(struct guest_pressure, full_avg10_hundredths),
};
static const struct json_table pressure_table = JSON_TABLE("GuestPressure", struct guest_pressure, pressure_fields);

static const struct json_field group_fields[] = {
	NUMBER(struct guest_group, cpu_us),
	NUMBER(struct guest_group, memory_bytes),
	NUMBER(struct guest_group, memory_peak_bytes),
	NUMBER(struct guest_group, oom_kills),
	NUMBER(struct guest_group, tasks),
	NUMBER(struct guest_group, tasks_max),
};
static const struct json_table group_table = JSON_TABLE("GuestGroup", struct guest_group, group_fields);

static const struct json_field filesystem_fields[] = {
	NAME(struct guest_filesystem, path),
	NUMBER(struct guest_filesystem, size_bytes),
	NUMBER(struct guest_filesystem, free_bytes),
};
static const struct json_table filesystem_table = JSON_TABLE("GuestFilesystem", struct guest_filesystem, filesystem_fields);

static const struct json_field disk_fields[] = {
	NAME(struct guest_disk, name),
	NUMBER(struct guest_disk, reads),
	NUMBER(struct guest_disk, read_bytes),
	NUMBER(struct guest_disk, writes),
	NUMBER(struct guest_disk, written_bytes),
};
static const struct json_table disk_table = JSON_TABLE("GuestDisk", struct guest_disk, disk_fields);

static const struct json_field interface_fields[] = {
	NAME(struct guest_interface, name),
	NUMBER(struct guest_interface, received_bytes),
	NUMBER(struct guest_interface, received_packets),
	NUMBER(struct guest_interface, sent_bytes),
	NUMBER(struct guest_interface, sent_packets),
};
static const struct json_table interface_table = JSON_TABLE("GuestInterface", struct guest_interface, interface_fields);

#define PART(name_, table_) {#name_, JSON_FIELD_OPTIONAL, offsetof(struct guest_stats, name_), .table = &table_}
#define LIST(name_, table_) \
	{#name_, JSON_FIELD_ARRAY, offsetof(struct guest_stats, name_), .max = GUEST_STATS_LIST_MAX, .table = &table_}

static const struct json_field fields[] = {
	NUMBER(struct guest_stats, uptime_ms),
	NUMBER(struct guest_stats, load_1m_hundredths),
	NUMBER(struct guest_stats, load_5m_hundredths),
	NUMBER(struct guest_stats, load_15m_hundredths),
	NUMBER(struct guest_stats, memory_total_bytes),
	NUMBER(struct guest_stats, memory_available_bytes),
	NUMBER(struct guest_stats, swap_total_bytes),
	NUMBER(struct guest_stats, swap_free_bytes),
	PART(cpu_pressure, pressure_table),
	PART(memory_pressure, pressure_table),
	PART(io_pressure, pressure_table),
	PART(workload, group_table),
	PART(executed, group_table),
	LIST(filesystems, filesystem_table),
	LIST(disks, disk_table),
	LIST(interfaces, interface_table),
};
const struct json_table guest_stats_table = JSON_TABLE("GuestStats", struct guest_stats, fields);
