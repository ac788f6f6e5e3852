/* hull-vmm's command line. */
#ifndef HULL_VMM_OPTIONS_H
#define HULL_VMM_OPTIONS_H

#include "common/error.h"
#include "common/log.h"
#include "vmm/devices.h"

#include <stdbool.h>
#include <stdint.h>

struct options {
	const char *config_file; /* all strings are borrowed from argv */
	const char *id;          /* "hull-vmm" by default: the name in the log */
	struct devices_output output;
	int status_fd;           /* -1: none */
	bool level_given;
	enum log_level level;
	bool help, version; /* then nothing else was looked at */
};

/* 0, or -EINVAL with `err` naming the option. The descriptors are checked, and made close-on-exec. */
int options_parse(int argc, char *argv[], struct options *ret, struct error *err);

/* For --help. */
extern const char options_usage[];

#endif
