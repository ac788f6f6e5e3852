/* What a client says of a snapshot that is to be made, or restored from: PUT /snapshot/create and /snapshot/load, --restore. */
#ifndef HULL_VMM_SNAPSHOT_REQUEST_H
#define HULL_VMM_SNAPSHOT_REQUEST_H

#include "common/json.h"
#include "vmm/config.h"
#include "vmm/snapshot.h"

struct snapshot_create {
	char *snapshot_path, *mem_file_path;
	int snapshot_type; /* SNAPSHOT_FULL, of what has passed the checks */
};

struct snapshot_mem_backend {
	char *backend_path;
	int backend_type;
};

struct snapshot_net_override {
	char *iface_id, *host_dev_name, *stream_socket_path;
};

struct snapshot_drive_override {
	char *drive_id, *path_on_host;
};

struct snapshot_vsock_override {
	char *uds_path;
};

struct snapshot_load {
	char *snapshot_path, *mem_file_path; /* mem_file_path or mem_backend */
	struct snapshot_mem_backend *mem_backend;
	bool resume_vm, track_dirty_pages, enable_diff_snapshots, clock_realtime, has_huge_pages;
	int huge_pages; /* as the machine's */
	struct json_array network_overrides, drive_overrides;
	struct snapshot_vsock_override *vsock_override;
};

extern const struct json_table snapshot_create_table, snapshot_load_table;

/* 0, or -errno with `err` naming the field. What has been read is to be freed by json_done(). */
int snapshot_read_create(const json_t *body, struct snapshot_create *ret, struct error *err);
int snapshot_read_load(const json_t *body, struct snapshot_load *ret, struct error *err);
/* The same from a file. */
int snapshot_read_load_file(const char *path, struct snapshot_load *ret, struct error *err);

/* Where a request that has been read says that the files are; borrowed from it. */
struct snapshot_paths snapshot_load_paths(const struct snapshot_load *load);

/* Changes the saved configuration as the request says. 0, or -errno with `err` naming the field. */
int snapshot_override(const struct snapshot_load *load, struct config *config, struct error *err);

#endif
