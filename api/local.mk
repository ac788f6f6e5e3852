# api: sources and programs, included by the top Makefile.am

# Everything of hulld but its main, for the unit tests.
noinst_LIBRARIES += libhull-api.a
libhull_api_a_SOURCES = \
	api/access.c api/access.h \
	api/allowed_folders.c api/allowed_folders.h \
	api/agent.c api/agent.h \
	api/agent_frames.c api/agent_frames.h \
	api/agent_ready.c api/agent_ready.h \
	api/audit.c api/audit.h \
	api/audit_file.c api/audit_file.h \
	api/blobs.c api/blobs.h \
	api/certificates.c api/certificates.h \
	api/clock.c api/clock.h \
	api/etag.c api/etag.h \
	api/event_filter.c api/event_filter.h \
	api/event_streams.c api/event_streams.h \
	api/event_types.c api/event_types.h \
	api/events.c api/events.h \
	api/exec.c api/exec.h \
	api/exec_output.c api/exec_output.h \
	api/exec_stream.c api/exec_stream.h \
	api/ext4.c api/ext4.h \
	api/files.c api/files.h \
	api/folders.c api/folders.h \
	api/going_down.c \
	api/forget.c api/forget.h \
	api/freeze.c api/freeze.h \
	api/haproxy.c api/haproxy.h \
	api/health.c api/health.h \
	api/host.c api/host.h \
	api/host_drain.c api/host_drain.h \
	api/host_reader.c api/host_reader.h \
	api/host_stats.c api/host_stats.h \
	api/hostnames.c api/hostnames.h \
	api/hostnames_check.c \
	api/hostnames_plan.c api/hostnames_plan.h \
	api/http.c api/http.h \
	api/http_conditional.c \
	api/http_count.c \
	api/http_listen.c \
	api/http_query.c \
	api/http_reply.c \
	api/http_request.c api/http_request.h \
	api/http_route.c \
	api/hulld.h \
	api/idempotency.c api/idempotency.h \
	api/idle.c api/idle.h \
	api/image.c api/image.h \
	api/ingress_client.c api/ingress_client.h \
	api/ingress_gate.c \
	api/labels.c api/labels.h \
	api/launch.c \
	api/keep.c api/keep.h \
	api/log_age.c api/log_age.h \
	api/log_clock.c api/log_clock.h \
	api/log_pieces.c api/log_pieces.h \
	api/logs.c api/logs.h \
	api/machine.c api/machine.h \
	api/machine_cancel.c \
	api/machine_check.c \
	api/machine_create.c \
	api/machine_http.c api/machine_http.h \
	api/machine_index.c \
	api/machine_load.c \
	api/machine_private.h \
	api/machine_publish.c \
	api/machine_suspend.c \
	api/metrics.c api/metrics.h \
	api/metrics_machines.c api/metrics_machines.h \
	api/metrics_volumes.c api/metrics_volumes.h \
	api/monitor_call.c api/monitor_call.h \
	api/mounts.c api/mounts.h \
	api/networks.c api/networks.h \
	api/networks_host.c \
	api/networks_http.c \
	api/network_watch.c api/network_watch.h \
	api/openapi.c api/openapi.h \
	api/machine_list.c \
	api/machine_patch.c \
	api/machine_view.c \
	api/merge_patch.c api/merge_patch.h \
	api/openapi_parameters.c \
	api/openapi_patch.c \
	api/openapi_responses.c \
	api/operation.c api/operation.h \
	api/operation_http.c \
	api/operation_progress.c api/progress.h \
	api/order_call.c api/order_call.h \
	api/page.c api/page.h \
	api/problem.c api/problem.h \
	api/process.c api/process.h \
	api/public_address.c api/public_address.h \
	api/project.c api/project.h \
	api/quota.c \
	api/random.c api/random.h \
	api/routes.c \
	api/saved.c api/saved.h \
	api/scratch.c api/scratch.h \
	api/secrets.c api/secrets.h \
	api/socket_call.c api/socket_call.h \
	api/spawn.c api/spawn.h \
	api/spec.c api/spec.h \
	api/start_order.c api/start_order.h \
	api/stopping.c \
	api/stats.c api/stats.h \
	api/store.c api/store.h api/store_private.h \
	api/store_certificates.c \
	api/store_events.c \
	api/store_host.c \
	api/store_images.c \
	api/store_machines.c \
	api/store_networks.c \
	api/store_operations.c \
	api/store_projects.c \
	api/store_requests.c \
	api/store_room.c \
	api/store_secrets.c \
	api/store_tokens.c \
	api/store_volumes.c \
	api/store_webhooks.c \
	api/supervisor.c api/supervisor.h \
	api/supervisor_adopt.c \
	api/supervisor_private.h \
	api/supervisor_spawn.c \
	api/suspend.c api/suspend.h \
	api/time.c \
	api/tls.c api/tls.h \
	api/token.c api/token.h \
	api/verdict.c api/verdict.h \
	api/volume.c api/volume.h \
	api/volume_create.c \
	api/volume_http.c \
	api/webhook.c api/webhook.h \
	api/webhook_http.c \
	api/webhook_send.c api/webhook_send.h \
	api/webhook_sign.c api/webhook_sign.h \
	api/worker.c api/worker.h \
	api/x509.c api/x509.h

HULLD_LIBS = libhull-api.a libhull-common.a $(MICROHTTPD_LIBS) $(SQLITE_LIBS) $(NETTLE_LIBS) $(SODIUM_LIBS) $(GNUTLS_LIBS) $(LIBCURL_LIBS) $(JANSSON_LIBS) -lpthread

sbin_PROGRAMS += hulld
hulld_SOURCES = api/main.c api/options.c api/options.h
hulld_CPPFLAGS = $(AM_CPPFLAGS) -DHULL_LIBDIR='"$(pkglibdir)"' -DHULL_BINDIR='"$(bindir)"'
hulld_LDADD = $(HULLD_LIBS)
