/* The machine as its configuration file describes it: Firecracker's format, read by field tables. What is
 * read here has passed every rule that needs no look at the host; files and interfaces are opened later, by
 * whoever uses them. */
#ifndef HULL_VMM_CONFIG_H
#define HULL_VMM_CONFIG_H

#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"
#include "devices/rate_limiter.h"

#define CONFIG_FILE_MAX   (1u << 20) /* bytes */
#define CONFIG_VCPUS_MAX  32
#define CONFIG_MEMORY_MIN 16                 /* MiB: less holds no kernel with its initrd */
#define CONFIG_MEMORY_DEFAULT 128
#define CONFIG_MEMORY_MAX (INT64_C(8) << 20) /* MiB: what one KVM memory slot describes */
#define CONFIG_DEVICES_MAX 31 /* on a PCI bus; vmm/virtio_bus.h has room for fewer without */
#define CONFIG_BLOCK_MIN  2   /* MiB: of memory that is plugged block by block */
#define CONFIG_SLOT_MIN	  128 /* MiB */
#define CONFIG_CID_MAX    INT64_C(0xfffffffe)

enum config_huge_pages { CONFIG_HUGE_PAGES_NONE, CONFIG_HUGE_PAGES_TRANSPARENT, CONFIG_HUGE_PAGES_2M };
enum config_memory_kind { CONFIG_MEMORY_AUTO, CONFIG_MEMORY_SHARED, CONFIG_MEMORY_COW };
enum config_cache { CONFIG_CACHE_UNSAFE, CONFIG_CACHE_WRITEBACK };
enum config_engine { CONFIG_ENGINE_SYNC, CONFIG_ENGINE_ASYNC };

struct config_boot {
	char *kernel_image_path, *initrd_path, *initrd_append_path; /* the latter two may be NULL */
	char *boot_args;
	bool private_kernel;
};

struct config_machine {
	int64_t vcpu_count, mem_size_mib;
	bool smt, track_dirty_pages;
	int huge_pages; /* enum config_huge_pages */
	int memory_kind; /* enum config_memory_kind */
	char *cpu_template;
	char *gdb_socket_path; /* NULL: no debugger; else the machine waits for it */
};

struct config_drive {
	char *drive_id, *partuuid;   /* partuuid may be NULL */
	char *path_on_host, *socket; /* exactly one is set; socket: of a vhost-user back-end */
	bool is_root_device, is_read_only;
	int cache_type; /* enum config_cache */
	int io_engine;  /* enum config_engine */
	int64_t num_queues; /* more than one: each has a thread; on a PCI bus only */
	struct rate_limiter_config *rate_limiter; /* NULL: none, as below */
};

struct config_net {
	char *iface_id;
	char *host_dev_name, *stream_socket_path, *vhost_user_socket; /* exactly one is set */
	bool vhost;	 /* the kernel moves the frames of host_dev_name */
	char *guest_mac; /* may be NULL */
	int64_t mtu;	 /* 0: not given */
	int64_t queue_pairs; /* more than one: of a tap, each with a thread; on a PCI bus only */
	struct rate_limiter_config *rx_rate_limiter, *tx_rate_limiter;
	uint8_t mac[6]; /* guest_mac, or one made from the interface's id */
};

/* A folder of the host's, shared by a vhost-user back-end. */
struct config_filesystem {
	char *fs_id, *tag, *socket;
	int64_t num_request_queues;
};

struct config_pmem {
	char *id, *path_on_host;
	bool root_device, read_only;
	struct rate_limiter_config *rate_limiter;
};

struct config_hotplug_memory {
	int64_t total_size_mib, block_size_mib, slot_size_mib;
};

struct config_vsock {
	int64_t guest_cid;
	char *uds_path, *vsock_id; /* vsock_id: accepted, of no effect */
};

struct config_entropy {
	struct rate_limiter_config *rate_limiter;
};

struct config_balloon {
	int64_t amount_mib, stats_polling_interval_s;
	bool deflate_on_oom, free_page_hinting, free_page_reporting;
};

struct config_serial {
	char *serial_out_path; /* may be NULL */
	struct token_bucket_config *rate_limiter; /* of bytes; NULL: none */
};

/* Of the virtio console: exactly one is set. */
struct config_console {
	char *output_path, *socket_path;
};

struct config_logger {
	char *log_path, *level, *module; /* may be NULL, as what follows may not have been given */
	bool show_level, show_log_origin;
	bool has_show_level, has_show_log_origin;
};

struct config_metrics {
	char *metrics_path;
	bool emit_id;	     /* the machine's id is in each line */
	json_t *properties; /* an object of strings, in each line; empty: none */
};

struct config_mmds {
	struct json_strings network_interfaces; /* iface_ids; one at least */
	int version;			       /* enum mmds_version */
	char *ipv4_address;		       /* of the guest's link: 169.254.1.0 to 169.254.254.255 */
	bool imds_compat;
};

struct config_cpu;

struct config {
	struct config_boot boot;
	struct config_machine machine;
	struct config_cpu *cpu;     /* NULL: none, as those below; see vmm/config_cpu.h */
	struct json_array drives;   /* struct config_drive; at most one is the root device */
	struct json_array nets;     /* struct config_net */
	struct json_array filesystems; /* struct config_filesystem */
	struct json_array pmems;    /* struct config_pmem */
	struct config_hotplug_memory *hotplug_memory; /* as those below */
	struct config_vsock *vsock;
	struct config_entropy *entropy;
	struct config_balloon *balloon;
	struct config_serial *serial;
	struct config_console *console;
	struct config_logger *logger;
	struct config_metrics *metrics;
	struct config_mmds *mmds;
};

extern const struct json_table config_rate_limiter_table; /* of struct rate_limiter_config */
extern const struct json_table config_table; /* of struct config: what all the rest is told by */

/* "06:00:ac:10:00:02", exactly. */
bool config_parse_mac(const char *text, uint8_t ret[6]);

/* "169.254.169.254", exactly, in the host's byte order. */
bool config_parse_ipv4(const char *text, uint32_t *ret);

/* A machine of one vCPU and 128 MiB, with no kernel yet: what a client finds who has put nothing. */
void config_init(struct config *ret);
/* Puts what is under `key` of the configuration ("boot-source", "drives" …) in place of what was there; of an array the
 * item whose id (its table's first field) is `id`, or one more. All rules hold afterwards, or nothing has changed.
 * 0, or -errno with `err` naming the field. */
int config_put(struct config *config, const char *key, const char *id, const json_t *value, struct error *err);
/* The same for some of the object's fields: the others stay. */
int config_patch(struct config *config, const char *key, const json_t *fields, struct error *err);
/* The same for an item of an array; what is an object is changed in part, too. */
int config_patch_item(
	struct config *config, const char *key, const char *id, const json_t *fields, struct error *err);
/* Takes the item out of an array, unless something else names it. As config_put(). */
int config_remove(struct config *config, const char *key, const char *id, struct error *err);
/* What is there, as a client would put it: null for what was not given. A new reference. */
json_t *config_get(const struct config *config, const char *key);
json_t *config_get_item(const struct config *config, const char *key, const char *id); /* NULL: there is none */
json_t *config_get_all(const struct config *config);

/* Once the last piece is there: gives each interface its MAC address. */
void config_settle(struct config *config);

/* The rules that concern more than one field. */
int config_check(const struct config *config, struct error *err);

/* `*ret` is filled on success only, and then to be freed by config_done(). 0, or -errno with `err` naming the
 * field. */
int config_read_file(const char *path, struct config *ret, struct error *err);
int config_parse(const char *text, size_t len, struct config *ret, struct error *err);
/* The same for what config_get_all() once told: `cpu-config` is no path, and no file is opened. */
int config_parse_object(const char *text, size_t len, struct config *ret, struct error *err);
void config_done(struct config *config); /* also of a zeroed one */

/* "Error", "warning", "DEBUG" … 0, or -EINVAL with `err` set (no field). */
int config_parse_level(const char *name, enum log_level *ret, struct error *err);

/* The kernel's command line: boot_args, and what a root device adds to it. To be freed. Never NULL. */
char *config_command_line(const struct config *config);

/* Whether MMDS answers on this interface. Then each of its frames has to pass the monitor: no vhost. */
bool config_net_has_mmds(const struct config *config, const struct config_net *net);

/* The described struct, at `index` < array.len. */
const struct config_drive *config_drive(const struct config *config, size_t index);
const struct config_net *config_net(const struct config *config, size_t index);
const struct config_filesystem *config_filesystem(const struct config *config, size_t index);
/* Whether other processes can map the machine's memory: as memory_kind says, or because one of its devices needs it. */
bool config_shares_memory(const struct config *config);
/* Whether another process, or the kernel, moves its frames. */
bool config_net_is_vhost(const struct config_net *net);
/* The one of that id, or NULL. */
const struct config_drive *config_find_drive(const struct config *config, const char *id);
const struct config_net *config_find_net(const struct config *config, const char *id);
const struct config_pmem *config_find_pmem(const struct config *config, const char *id);
const struct config_pmem *config_pmem(const struct config *config, size_t index);
/* The drive that is the root device, or NULL. It is to be the machine's first. */
const struct config_drive *config_root_drive(const struct config *config);

#endif
