/* hull-vmm's command line. */
#ifndef HULL_VMM_OPTIONS_H
#define HULL_VMM_OPTIONS_H

#include "common/error.h"
#include "common/log.h"
#include "vmm/config.h"
#include "vmm/devices.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of the API that is served: what its clients ask for. */
#define OPTIONS_FIRECRACKER_VERSION "1.17.0"

/* The most that --http-api-max-payload-size and --mmds-size-limit may be. */
#define OPTIONS_BODY_BYTES_MAX (64u << 20)

struct options {
	bool as_firecracker;     /* it was started under that name, and keeps its conventions */
	const char *config_file; /* NULL: none; all strings are borrowed from argv */
	const char *restore_file; /* the request to restore a machine; NULL: none */
	const char *api_socket;  /* NULL: no API */
	size_t api_body_bytes_max;
	size_t mmds_bytes_max;	   /* as much, unless it is given */
	const char *metadata_file; /* NULL: none */
	/* When the launcher began, and with what processor time, microseconds on CLOCK_MONOTONIC and of processes; 0: not told. */
	uint64_t start_time_us, start_time_cpu_us, parent_cpu_time_us;
	const char *id; /* "hull-vmm", or Firecracker's "anonymous-instance", by default: the name in the log */
	struct devices_output output;
	bool pci; /* virtio devices are on a PCI bus */
	const char *metrics_path; /* NULL: as the configuration says */
	const char *accounting_path; /* NULL: none; common/accounting.h */
	const char *gdb_socket;	  /* NULL: none */
	int status_fd;           /* -1: none */
	uint64_t shutdown_timeout_s; /* how long a guest has that SIGTERM asks to power off; 0: none, it is ended at once */
	struct config_logger logger; /* as the configuration has it */
	bool help, version; /* then nothing else was looked at */
};

/* 0, or -EINVAL with `err` naming the option. The descriptors are checked, and made close-on-exec. */
int options_parse(int argc, char *argv[], struct options *ret, struct error *err);

/* For --help. */
extern const char options_usage[];

#endif
