# common: what every program of Hull stands on; knows nothing of KVM, devices or the API.
noinst_LIBRARIES += libhull-common.a
libhull_common_a_SOURCES = \
	common/accounting.c common/accounting.h \
	common/bounded_file.c common/bounded_file.h \
	common/buf.c common/buf.h \
	common/checked.h \
	common/cleanup.h \
	common/error.c common/error.h \
	common/exec_spec.c common/exec_spec.h \
	common/file_spec.c common/file_spec.h \
	common/frame.c common/frame.h \
	common/guest_network.c common/guest_network.h \
	common/guest_stats.c common/guest_stats.h \
	common/health_check.c common/health_check.h \
	common/hex.c common/hex.h \
	common/io.c common/io.h \
	common/json.c common/json.h \
	common/json_print.c \
	common/json_schema.c \
	common/log.c common/log.h \
	common/loop.c common/loop.h \
	common/http.c common/http.h \
	common/order.c common/order.h \
	common/pack.c common/pack.h \
	common/relay.c common/relay.h \
	common/stop_signal.c common/stop_signal.h \
	common/stream_frame.h \
	common/subnet.c common/subnet.h \
	common/tar.c common/tar.h common/tar_header.h \
	common/tar_write.c \
	common/unpack.c
