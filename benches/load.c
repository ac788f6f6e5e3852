/* load SOCKET FOLLOWERS RATE < REQUESTS: asks hulld RATE times a second, whether it has answered or not, while FOLLOWERS connections
 * follow its events, and prints how long answers took.
 *
 * REQUESTS are lines KIND METHOD PATH [BODY]; KIND is a word. An answer's time is counted from when it was
 * due to be asked for, so that one that is late makes those behind it late, too.
 * Prints, in microseconds, `KIND COUNT P50 P99 MAX` of each kind, and `events GIVEN LEAST MOST`: how many changes were answered, and how many
 * events the followers who had the least and the most have read. Anything but a status of 200 or 201 ends it with 1. */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define N_CONNECTIONS 64
#define N_KINDS 8
#define ANSWER_MAX (1 << 20)
#define LAST_EVENTS_S 5 /* followers may be so far behind the last answer */

struct wish {
	unsigned kind;
	bool changes;
	char *text; /* of the request */
	size_t len;
};

struct connection {
	int fd;
	const struct wish *asked; /* NULL: it is free */
	uint64_t due_ns;
	char *answer;
	size_t len;
};

struct follower {
	int fd;
	unsigned matched; /* of "\nid:" */
	uint64_t events;
};

static const char *kind_names[N_KINDS];
static unsigned n_kinds;
static struct wish *wishes;
static size_t n_wishes;
static struct {
	uint32_t *took_us;
	size_t n;
} kinds[N_KINDS];
static uint64_t n_changes;
static struct connection connections[N_CONNECTIONS];
static struct follower *followers;
static unsigned n_followers;
static int epoll;
static const char *socket_path;

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, errno ? strerror(errno) : "not as expected");
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *must(void *memory)
{
	if (!memory)
		die("memory");
	return memory;
}

/* ---- what is asked ---------------------------------------------------------------------------------------------- */

static unsigned kind_of(const char *name)
{
	unsigned i;

	for (i = 0; i < n_kinds; i++)
		if (strcmp(kind_names[i], name) == 0)
			return i;
	if (n_kinds == N_KINDS)
		die("too many kinds");
	kind_names[n_kinds] = must(strdup(name));
	return n_kinds++;
}

static void read_wishes(void)
{
	char *line = NULL, *kind, *method, *path, *body;
	size_t size = 0;
	ssize_t len;

	while ((len = getline(&line, &size, stdin)) > 0) {
		struct wish *wish;
		int n;

		line[strcspn(line, "\n")] = '\0';
		kind = strtok(line, " ");
		method = strtok(NULL, " ");
		path = strtok(NULL, " ");
		body = strtok(NULL, "");
		if (!kind || !method || !path)
			die("a request that is no KIND METHOD PATH");
		wishes = must(realloc(wishes, (n_wishes + 1) * sizeof(*wishes)));
		wish = &wishes[n_wishes++];
		wish->kind = kind_of(kind);
		wish->changes = strcmp(method, "GET") != 0;
		n = asprintf(&wish->text, "%s %s HTTP/1.1\r\nHost: hulld\r\nContent-Type: application/%s\r\nContent-Length: %zu\r\n\r\n%s",
			method, path, strcmp(method, "PATCH") == 0 ? "merge-patch+json" : "json", body ? strlen(body) : 0, body ? body : "");
		if (n < 0)
			die("memory");
		wish->len = (size_t)n;
	}
	free(line);
	if (!n_wishes)
		die("no requests");
}

/* ---- connections ------------------------------------------------------------------------------------------------ */

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
		die(path);
	strcpy(address.sun_path, path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die(path);
	return fd;
}

/* Followers come after connections in what epoll tells. */
static void watch(int fd, uint64_t index)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = index};

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		die("epoll_ctl");
}

static void connect_one(struct connection *c)
{
	c->fd = connect_to(socket_path);
	watch(c->fd, (uint64_t)(c - connections));
}

static void send_all(int fd, const char *text, size_t len)
{
	if (send(fd, text, len, MSG_NOSIGNAL) != (ssize_t)len)
		die("send");
}

static void connect_all(void)
{
	static const char follow[] = "GET /v1/events HTTP/1.1\r\nHost: hulld\r\nAccept: text/event-stream\r\n\r\n";
	unsigned i;

	for (i = 0; i < N_CONNECTIONS; i++) {
		connections[i].answer = must(malloc(ANSWER_MAX + 1));
		connect_one(&connections[i]);
	}
	followers = must(calloc(n_followers ? n_followers : 1, sizeof(*followers)));
	for (i = 0; i < n_followers; i++) {
		char head[4096];

		followers[i].fd = connect_to(socket_path);
		send_all(followers[i].fd, follow, sizeof(follow) - 1);
		if (recv(followers[i].fd, head, sizeof(head), 0) < 12 || memcmp(head, "HTTP/1.1 200", 12) != 0)
			die("a follower's answer");
		watch(followers[i].fd, N_CONNECTIONS + i);
	}
}

static void ask(const struct wish *wish, struct connection *c, uint64_t due_ns)
{
	c->asked = wish;
	c->due_ns = due_ns;
	c->len = 0;
	send_all(c->fd, wish->text, wish->len);
}

static struct connection *free_connection(void)
{
	unsigned i;

	for (i = 0; i < N_CONNECTIONS; i++)
		if (!connections[i].asked)
			return &connections[i];
	return NULL;
}

/* ---- what is answered ------------------------------------------------------------------------------------------- */

static bool is_whole(const struct connection *c)
{
	const char *end = strstr(c->answer, "\r\n\r\n"), *length = strcasestr(c->answer, "\r\nContent-Length:");

	if (!end)
		return false;
	if (!length || length > end) {
		errno = 0;
		die("an answer without a length");
	}
	return c->len >= (size_t)(end + 4 - c->answer) + strtoul(length + 17, NULL, 10);
}

static void on_answer(struct connection *c)
{
	ssize_t n = recv(c->fd, c->answer + c->len, ANSWER_MAX - c->len, 0);
	const struct wish *wish = c->asked;

	if (n == 0 && !wish) { /* it was idle for long */
		close(c->fd);
		connect_one(c);
		return;
	}
	if (n <= 0 || !wish)
		die("an answer");
	c->len += (size_t)n;
	c->answer[c->len] = '\0';
	if (!is_whole(c))
		return;
	if (strncmp(c->answer, "HTTP/1.1 200", 12) != 0 && strncmp(c->answer, "HTTP/1.1 201", 12) != 0) {
		fprintf(stderr, "load: %.*s\nwas answered %s\n", (int)wish->len, wish->text, c->answer);
		exit(1);
	}
	n_changes += wish->changes;
	kinds[wish->kind].took_us[kinds[wish->kind].n++] = (uint32_t)((now_ns() - c->due_ns) / 1000);
	c->asked = NULL;
}

static void on_events(struct follower *f)
{
	static const char mark[] = "\nid:";
	static char text[1 << 16];
	ssize_t i, n = recv(f->fd, text, sizeof(text), 0);

	if (n <= 0)
		die("a follower");
	for (i = 0; i < n; i++) {
		f->matched = text[i] == mark[f->matched] ? f->matched + 1 : text[i] == mark[0];
		if (!mark[f->matched]) {
			f->matched = 0;
			f->events++;
		}
	}
}

static void wait_for_some(uint64_t until_ns)
{
	struct epoll_event events[256];
	uint64_t now = now_ns(), left = until_ns > now ? until_ns - now : 0;
	struct timespec timeout = {.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};
	int i, n = epoll_pwait2(epoll, events, 256, &timeout, NULL);

	if (n < 0 && errno != EINTR)
		die("epoll_pwait2");
	for (i = 0; i < n; i++) {
		if (events[i].data.u64 < N_CONNECTIONS)
			on_answer(&connections[events[i].data.u64]);
		else
			on_events(&followers[events[i].data.u64 - N_CONNECTIONS]);
	}
}

static bool some_are_asked(void)
{
	unsigned i;

	for (i = 0; i < N_CONNECTIONS; i++)
		if (connections[i].asked)
			return true;
	return false;
}

static bool some_are_behind(void)
{
	unsigned i;

	for (i = 0; i < n_followers; i++)
		if (followers[i].events < n_changes)
			return true;
	return false;
}

static void run(unsigned rate)
{
	uint64_t begun = now_ns(), step = 1000000000u / rate, i = 0, n = n_wishes, last;

	while (i < n || some_are_asked()) {
		struct connection *c;
		uint64_t due = begun + i * step;

		while (i < n && due <= now_ns() && (c = free_connection())) {
			ask(&wishes[i], c, due);
			due = begun + ++i * step;
		}
		wait_for_some(i < n && free_connection() ? due : now_ns() + 1000000000u);
	}
	last = now_ns() + LAST_EVENTS_S * UINT64_C(1000000000);
	while (some_are_behind() && now_ns() < last)
		wait_for_some(last);
}

/* ---- figures ---------------------------------------------------------------------------------------------------- */

static int by_time(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void print(void)
{
	uint64_t least = UINT64_MAX, most = 0;
	unsigned i;

	for (i = 0; i < n_kinds; i++) {
		uint32_t *took = kinds[i].took_us;
		size_t n = kinds[i].n;

		if (!n)
			continue;
		qsort(took, n, sizeof(*took), by_time);
		printf("%s %zu %u %u %u\n", kind_names[i], n, took[n / 2], took[(n * 99 + 99) / 100 - 1], took[n - 1]);
	}
	for (i = 0; i < n_followers; i++) {
		least = followers[i].events < least ? followers[i].events : least;
		most = followers[i].events > most ? followers[i].events : most;
	}
	printf("events %llu %llu %llu\n", (unsigned long long)n_changes, n_followers ? (unsigned long long)least : 0,
		(unsigned long long)most);
}

int main(int argc, char **argv)
{
	struct rlimit files;
	unsigned rate, i;

	if (argc != 4 || (rate = (unsigned)atoi(argv[3])) == 0) {
		fprintf(stderr, "usage: load SOCKET FOLLOWERS RATE < REQUESTS\n");
		return 2;
	}
	socket_path = argv[1];
	n_followers = (unsigned)atoi(argv[2]);
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	read_wishes();
	for (i = 0; i < n_kinds; i++)
		kinds[i].took_us = must(calloc(n_wishes, sizeof(uint32_t)));
	epoll = epoll_create1(EPOLL_CLOEXEC);
	connect_all();
	run(rate);
	print();
	return 0;
}
