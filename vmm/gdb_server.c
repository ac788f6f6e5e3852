/* The debugger's connection. */
#include "vmm/gdb_server.h"

#include "common/io.h"
#include "common/log.h"
#include "common/loop.h"
#include "vmm/vcpu.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define READ_BYTES 4096
#define OUT_MAX	   (64u << 10) /* answers that wait for a debugger that does not read them */

struct gdb_server {
	struct loop *loop;
	void (*hold)(void *ctx, bool hold);
	void (*kill)(void *ctx);
	void *ctx;
	char *path;
	int listen_fd, fd; /* fd: the debugger's; -1: none */
	struct loop_source *listener, *source;
	struct buf out;
	struct gdb_stub stub;
	struct gdb_target target;
};

static void hold(void *ctx, bool hold)
{
	struct gdb_server *server = ctx;

	server->hold(server->ctx, hold);
}

static void kill_machine(void *ctx)
{
	struct gdb_server *server = ctx;

	server->kill(server->ctx);
}

/* Sends what can be sent. False when the debugger is gone. */
static bool flush(struct gdb_server *server)
{
	if (buf_send(&server->out, server->fd) < 0)
		return false;
	loop_set_events(server->source, EPOLLIN | (server->out.len > 0 ? EPOLLOUT : 0u));
	return true;
}

static void drop_connection(struct gdb_server *server)
{
	loop_remove(server->source);
	server->source = NULL;
	server->fd = close_fd(server->fd);
	gdb_stub_done(&server->stub);
	server->stub = (struct gdb_stub){0};
	buf_consume(&server->out, server->out.len);
}

static void end_session(struct gdb_server *server)
{
	drop_connection(server);
	gdb_target_detach(&server->target);
	log_info("the debugger has left");
}

static void stopped(void *ctx, const struct gdb_stop *stop)
{
	struct gdb_server *server = ctx;

	gdb_stub_stopped(&server->stub, stop);
	(void)flush(server); /* a debugger that is gone is noticed by on_debugger(), who may be calling */
}

static void on_debugger(void *ctx, uint32_t events)
{
	struct gdb_server *server = ctx;
	char bytes[READ_BYTES];
	bool goes_on = true;
	ssize_t n = 0;

	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		n = recv(server->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			goes_on = false;
		else if (n > 0)
			goes_on = gdb_stub_receive(&server->stub, bytes, (size_t)n);
	}
	if (!flush(server) || !goes_on)
		end_session(server);
}

static bool begin_session(struct gdb_server *server, int fd)
{
	server->fd = fd;
	server->source = loop_add_fd(server->loop, fd, EPOLLIN, on_debugger, server);
	if (!server->source)
		return false;
	gdb_target_attach(&server->target);
	gdb_stub_init(&server->stub, &gdb_target_ops, &server->target, server->target.config.vcpus->n, &server->out);
	return true;
}

static void on_connection(void *ctx, uint32_t events)
{
	struct gdb_server *server = ctx;
	int fd = accept4(server->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (fd < 0)
		return;
	if (server->fd >= 0) {
		log_warn("a second debugger is turned away");
		close_fd(fd);
		return;
	}
	if (begin_session(server, fd))
		log_info("a debugger has come");
	else
		server->fd = close_fd(server->fd);
}

static int open_socket(struct gdb_server *server, const char *path, struct error *err)
{
	server->listen_fd = unix_listen(path, 1, 0600, err);
	if (server->listen_fd < 0)
		return server->listen_fd;
	server->path = strdup(path);
	if (!server->path) {
		unlink(path);
		return error_set(err, ENOMEM, "out of memory");
	}
	server->listener = loop_add_fd(server->loop, server->listen_fd, EPOLLIN, on_connection, server);
	return server->listener ? 0 : error_set_errno(err, errno, "the debugger's socket cannot be waited for");
}

struct gdb_server *gdb_server_new(const struct gdb_server_config *config, struct error *err)
{
	struct gdb_server *server = calloc(1, sizeof(*server));
	struct gdb_target_config target = config->target;
	int r;

	if (!server) {
		error_set(err, ENOMEM, "out of memory");
		return NULL;
	}
	server->loop = target.loop;
	server->hold = target.hold;
	server->kill = target.kill;
	server->ctx = target.ctx;
	server->listen_fd = server->fd = -1;
	buf_init(&server->out, OUT_MAX);
	target.hold = hold;
	target.kill = kill_machine;
	target.stopped = stopped;
	target.ctx = server;
	r = gdb_target_init(&server->target, &target, err);
	if (r == 0)
		r = open_socket(server, config->path, err);
	if (r == 0)
		return server;
	gdb_server_free(server);
	return NULL;
}

void gdb_server_free(struct gdb_server *server)
{
	if (!server)
		return;
	if (server->fd >= 0) {
		gdb_stub_ended(&server->stub);
		(void)flush(server);
		drop_connection(server);
	}
	loop_remove(server->listener);
	close_fd(server->listen_fd);
	if (server->path)
		unlink(server->path);
	free(server->path);
	buf_done(&server->out);
	free(server);
}

bool gdb_server_changes_memory(const struct gdb_server *server)
{
	return server && gdb_breaks_any_software(&server->target.breaks);
}

bool gdb_server_exit(struct gdb_server *server, struct vcpu *vcpu)
{
	return gdb_target_exit(&server->target, vcpu);
}
