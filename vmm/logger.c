/* Setting up the log: opening its file, then everything else, which cannot fail. */
#include "vmm/logger.h"

#include "common/io.h"
#include "common/log.h"
#include "vmm/config.h"
#include "vmm/options.h"

#include <string.h>

int logger_change(const struct config_logger *wanted, struct error *err)
{
	enum log_level level;
	int fd;

	if (wanted->log_path) {
		fd = open_append(wanted->log_path, 0600);
		if (fd < 0)
			return error_set_field(err, -fd, "log_path", "%s: %s", wanted->log_path, strerror(-fd));
		log_set_fd(fd);
	}
	/* The field tables have seen that it is one. */
	if (wanted->level && config_parse_level(wanted->level, &level, NULL) == 0)
		log_set_level(level);
	if (wanted->has_show_level)
		log_show_level(wanted->show_level);
	if (wanted->has_show_log_origin)
		log_show_origin(wanted->show_log_origin);
	if (wanted->module)
		log_set_module(wanted->module);
	return 0;
}

int logger_open(const struct options *options, const struct config_logger *config, struct error *err)
{
	const struct config_logger *line = &options->logger;
	struct config_logger wanted = config ? *config : (struct config_logger){0};
	int r;

	log_open(options->id, LOG_LEVEL_INFO, STDERR_FILENO);
	log_style(options->as_firecracker ? LOG_STYLE_FIRECRACKER : LOG_STYLE_HULL);
	if (line->log_path)
		wanted.log_path = line->log_path;
	if (line->level)
		wanted.level = line->level;
	if (line->module)
		wanted.module = line->module;
	if (line->has_show_level)
		wanted.has_show_level = wanted.show_level = true;
	if (line->has_show_log_origin)
		wanted.has_show_log_origin = wanted.show_log_origin = true;
	r = logger_change(&wanted, err);
	log_limit(options->output.limit_bytes);
	if (r < 0 && line->log_path)
		error_set_field(err, -r, "--log-path", "%s: %s", line->log_path, strerror(-r));
	else if (r < 0)
		error_in_field(err, "logger");
	return r;
}
