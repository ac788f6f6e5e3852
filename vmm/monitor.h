/* The process: a configuration that clients put together, the machine that is made of it once, and the API's socket before
 * and after. Loop thread. */
#ifndef HULL_VMM_MONITOR_H
#define HULL_VMM_MONITOR_H

#include "vmm/api.h"
#include "vmm/api_metrics.h"
#include "vmm/config.h"

struct api_server;
struct loop;
struct loop_source;
struct machine;
struct metrics;
struct mmds;
struct options;
struct outcome;
struct shutdown;
struct snapshot_load;

struct monitor {
	const struct options *options; /* borrowed */
	struct loop *loop;	       /* owned, as all that follows */
	struct config config;
	enum api_state state;
	bool pci; /* virtio devices are on a PCI bus: as the options say, or as a snapshot has it */
	struct metrics *metrics;
	struct mmds *mmds; /* the metadata: there whether a guest can reach it or not */
	struct machine *machine; /* NULL before the start */
	struct api api;
	struct api_metrics api_metrics;
	struct api_server *server;		 /* NULL without one */
	struct loop_source *sigterm, *sigint;
	struct shutdown *shutdown; /* what SIGTERM begins */
};

/* Takes `config` over, also on failure. With a socket, when the options name one. 0, or -errno with `err` set and
 * `monitor` to be freed all the same. */
int monitor_init(struct monitor *monitor, const struct options *options, struct config *config, struct error *err);
void monitor_done(struct monitor *monitor);

/* Metrics go where `metrics` says from now on. 0, or -errno with `err` set (field "metrics_path"): once is enough. */
int monitor_open_metrics(struct monitor *monitor, const struct config_metrics *metrics, struct error *err);

/* Makes the machine and lets it run. 0; or -errno with `err` naming the field, and another try may be made. */
int monitor_start(struct monitor *monitor, struct error *err);
/* The same for a machine that was saved: it is paused afterwards, or runs, as the request says. Nothing but `logger` and `metrics` may have
 * been described. */
int monitor_restore(struct monitor *monitor, const struct snapshot_load *load, struct error *err);
/* No effect when it is in that state already. */
void monitor_pause(struct monitor *monitor);
void monitor_resume(struct monitor *monitor);

/* Serves clients and the machine until the machine, or before there is one a signal, ends it. */
void monitor_run(struct monitor *monitor, struct outcome *ret);

/* The routes, handlers of a struct monitor; ended by a NULL path. */
extern const struct api_route monitor_routes[];

#endif
