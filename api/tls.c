#include "api/tls.h"

#include "api/certificates.h"
#include "api/x509.h"
#include "common/cleanup.h"
#include "common/io.h"
#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MADE_A_ROUND 32 /* a millisecond each, at most */
#define RENEW_MS     (30 * 86400000ll)
#define PATH_BYTES   448
#define TRIES_MAX    3 /* rounds, until one that was given is given up */

struct certificate {
	char *hostname;
	char project[NAME_MAX_BYTES + 1]; /* whose it is */
	char *pem;			  /* NULL: not known yet, or to be looked for anew */
	int64_t expires_at;
	bool given; /* by the project */
	bool wanted, written; /* written: HAProxy has it, or reads it when it starts */
	unsigned line;	      /* in HAProxy's list; 0: it is not there */
	unsigned refusals;    /* rounds in a row, in which HAProxy did not take it */
	bool refused;	      /* in this round */
	struct certificate *next;
};

struct tls {
	struct hulld *hulld;
	struct x509_authority *authority;
	char folder[128], list_path[128];
	struct certificate *first; /* in the order of their names */
	struct certificate **at;   /* where tls_want() goes on */
	struct certificate **index; /* of all, to be searched, */
	size_t n_index;		    /* once they are known */
	char **strangers;	   /* in HAProxy's list, and wanted by nobody: owned, "path:line" */
	size_t n_strangers;
};

const char *tls_list_path(const struct tls *tls)
{
	return tls->list_path;
}

const char *tls_authority(const struct tls *tls, int64_t *ret_expires_at)
{
	*ret_expires_at = x509_authority_expires_at(tls->authority);
	return x509_authority_pem(tls->authority);
}

static char *path_of(const struct tls *tls, const char *hostname, char ret[PATH_BYTES])
{
	snprintf(ret, PATH_BYTES, "%s/%s", tls->folder, hostname);
	return ret;
}

static void certificate_free(struct certificate *certificate)
{
	x509_wipe(certificate->pem);
	free(certificate->hostname);
	free(certificate);
}

/* Which are wanted. */

static void forget_strangers(struct tls *tls)
{
	for (size_t i = 0; i < tls->n_strangers; i++)
		free(tls->strangers[i]);
	free(tls->strangers);
	tls->strangers = NULL;
	tls->n_strangers = 0;
}

void tls_begin(struct tls *tls)
{
	for (struct certificate *c = tls->first; c; c = c->next) {
		c->wanted = c->refused = false;
		c->line = 0;
	}
	forget_strangers(tls);
	tls->at = &tls->first;
}

static void forget(struct certificate *c)
{
	x509_wipe(c->pem);
	c->pem = NULL;
	c->written = false;
	c->refusals = 0;
}

void tls_want(struct tls *tls, const char *hostname, const char *project)
{
	struct certificate *c;

	while (*tls->at && strcmp((*tls->at)->hostname, hostname) < 0)
		tls->at = &(*tls->at)->next;
	c = *tls->at;
	if (!c || strcmp(c->hostname, hostname) != 0) {
		c = calloc(1, sizeof(*c));
		if (!c || !(c->hostname = strdup(hostname)))
			abort();
		c->next = *tls->at;
		*tls->at = c;
	}
	c->wanted = true;
	if (strcmp(c->project, project) != 0)
		forget(c);
	snprintf(c->project, sizeof(c->project), "%s", project);
}

static void drop_unwanted(struct tls *tls)
{
	char path[PATH_BYTES];

	for (struct certificate **link = &tls->first, *c; (c = *link);) {
		if (c->wanted) {
			link = &c->next;
			continue;
		}
		unlink(path_of(tls, c->hostname, path));
		*link = c->next;
		certificate_free(c);
	}
}

/* What was given, else the one of before, which HAProxy has. */
static void look(struct tls *tls, struct certificate *c)
{
	char path[PATH_BYTES];
	struct buf text;
	struct error err;

	forget(c);
	c->pem = certificates_find(tls->hulld, c->project, c->hostname, &c->expires_at, &err);
	c->given = c->pem;
	if (err.errnum)
		log_error_object(&err, c->hostname);
	buf_init(&text, X509_PEM_MAX + 1);
	if (buf_read_file(&text, path_of(tls, c->hostname, path)) == 0 && text.len) {
		if (!c->given && x509_is_issued(tls->authority, c->hostname, text.data, &c->expires_at))
			c->pem = strdup(text.data);
		c->written = c->pem && strcmp(c->pem, text.data) == 0;
	}
	if (text.data)
		explicit_bzero(text.data, text.len);
	buf_done(&text);
}

static void make(struct tls *tls, struct certificate *c)
{
	struct error err;

	forget(c);
	c->given = false;
	c->pem = x509_issue(tls->authority, c->hostname, &c->expires_at, &err);
	if (!c->pem)
		log_error_object(&err, c->hostname);
}

static bool is_good(const struct certificate *c)
{
	return c->pem && c->expires_at - now_ms() > (c->given ? 0 : RENEW_MS);
}

static void make_index(struct tls *tls)
{
	tls->n_index = 0;
	for (struct certificate *c = tls->first; c; c = c->next)
		tls->n_index++;
	free(tls->index);
	tls->index = calloc(tls->n_index + 1, sizeof(*tls->index));
	if (!tls->index)
		abort();
	tls->n_index = 0;
	for (struct certificate *c = tls->first; c; c = c->next)
		tls->index[tls->n_index++] = c;
}

bool tls_prepare(struct tls *tls)
{
	int n = 0;

	drop_unwanted(tls);
	make_index(tls);
	for (struct certificate *c = tls->first; c; c = c->next) {
		if (is_good(c))
			continue;
		if (n++ == MADE_A_ROUND)
			return true;
		if (!c->pem)
			look(tls, c);
		if (!is_good(c))
			make(tls, c);
	}
	return false;
}

/* What HAProxy is told. */

static int write_one(struct tls *tls, struct certificate *c)
{
	char path[PATH_BYTES];
	struct error err;
	int r = write_file_atomic(path_of(tls, c->hostname, path), c->pem, strlen(c->pem), 0600, &err);

	c->written = r == 0;
	if (r < 0)
		log_error_object(&err, "certificates");
	return r;
}

void tls_write(struct tls *tls, struct buf *list)
{
	for (struct certificate *c = tls->first; c; c = c->next)
		/* One that was given HAProxy has to have taken once: it does not start with what it refuses. */
		if (c->pem && (c->written || (!c->given && write_one(tls, c) == 0)))
			buf_printf(list, "%s/%s %s\n", tls->folder, c->hostname, c->hostname);
}

void tls_forget(struct tls *tls, const char *hostname)
{
	for (struct certificate *c = tls->first; c; c = c->next)
		if (strcmp(c->hostname, hostname) == 0)
			forget(c);
}

static int compare_name(const void *hostname, const void *certificate)
{
	return strcmp(hostname, (*(struct certificate *const *)certificate)->hostname);
}

static struct certificate *find(const struct tls *tls, const char *hostname)
{
	struct certificate **found = bsearch(hostname, tls->index, tls->n_index, sizeof(*tls->index), compare_name);

	return found ? *found : NULL;
}

/* "<folder>/web.localhost:1 web.localhost" */
bool tls_read_line(struct tls *tls, const char *line)
{
	size_t len = strlen(tls->folder), path_len;
	char hostname[256];
	struct certificate *c;
	unsigned number;

	if (strncmp(line, tls->folder, len) != 0 || sscanf(line + len, "/%255[^: \n]:%u", hostname, &number) != 2)
		return false;
	c = find(tls, hostname);
	if (c && !c->line) {
		c->line = number;
		return true;
	}
	path_len = strcspn(line, " \n");
	tls->strangers = realloc(tls->strangers, (tls->n_strangers + 1) * sizeof(*tls->strangers));
	if (!tls->strangers || !(tls->strangers[tls->n_strangers++] = strndup(line, path_len)))
		abort();
	return true;
}

static void say(void (*fn)(void *ctx, const char *command), void *ctx, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void say(void (*fn)(void *ctx, const char *command), void *ctx, const char *fmt, ...)
{
	char *command;
	va_list args;

	va_start(args, fmt);
	if (vasprintf(&command, fmt, args) < 0)
		abort();
	va_end(args);
	fn(ctx, command);
	x509_wipe(command);
}

void tls_compose(struct tls *tls, void (*fn)(void *ctx, const char *command), void *ctx)
{
	char path[PATH_BYTES];

	for (size_t i = 0; i < tls->n_strangers; i++) {
		say(fn, ctx, "del ssl crt-list %s %s", tls->list_path, tls->strangers[i]);
		*strrchr(tls->strangers[i], ':') = '\0';
		say(fn, ctx, "del ssl cert %s", tls->strangers[i]);
	}
	for (const struct certificate *c = tls->first; c; c = c->next) {
		if (!c->pem || (c->line && c->written))
			continue;
		path_of(tls, c->hostname, path);
		if (!c->line)
			say(fn, ctx, "new ssl cert %s", path);
		say(fn, ctx, "set ssl cert %s <<\n%s", path, c->pem);
		say(fn, ctx, "commit ssl cert %s", path);
		if (!c->line)
			say(fn, ctx, "add ssl crt-list %s <<\n%s %s\n", tls->list_path, path, c->hostname);
	}
}

void tls_told(struct tls *tls, const char *command)
{
	static const char commit[] = "commit ssl cert ";
	struct certificate *c;

	if (strncmp(command, commit, sizeof(commit) - 1) != 0)
		return;
	c = find(tls, strrchr(command, '/') + 1);
	if (c && c->pem && write_one(tls, c) == 0)
		c->refusals = 0;
}

/* Of "set ssl cert <folder>/web.localhost <<…", or "add ssl crt-list <list> <<", and then the same. */
static struct certificate *find_told(const struct tls *tls, const char *command)
{
	char place[sizeof(tls->folder) + 1], hostname[HOSTNAME_MAX_BYTES + 1];
	const char *path;

	snprintf(place, sizeof(place), "%s/", tls->folder);
	path = strstr(command, place);
	if (!path)
		return NULL;
	path += strlen(place);
	snprintf(hostname, sizeof(hostname), "%.*s", (int)strcspn(path, " \n"), path);
	return find(tls, hostname);
}

/* What HAProxy says, without the places of files, which are nobody else's business. */
static void refuse(struct tls *tls, struct certificate *c, const char *answer)
{
	char path[PATH_BYTES], reason[PATH_BYTES];
	const char *place = strstr(answer, path_of(tls, c->hostname, path));
	int before = place ? (int)(place - answer) : 0;

	snprintf(reason, sizeof(reason), "%.*s%s", before, answer, place ? place + strlen(path) - strlen(c->hostname) : answer);
	certificates_refuse(tls->hulld, c->project, c->hostname, reason);
	forget(c);
}

bool tls_refused(struct tls *tls, const char *command, const char *answer)
{
	struct certificate *c = find_told(tls, command);

	if (!c || !c->given)
		return false;
	/* The rest of the round says no more, nor what is about one that has been changed since. */
	if (!c->pem || c->refused)
		return true;
	/* Else HAProxy is busy with another, whose name may be any word, or has no memory. */
	if (!strstr(answer, "unable to load") && !strstr(answer, "inconsistencies between"))
		return false;
	c->refused = true;
	if (++c->refusals < TRIES_MAX)
		return true;
	refuse(tls, c, answer);
	return true;
}

struct tls *tls_new(struct hulld *hulld, const char *folder, struct error *err)
{
	struct tls *tls = calloc(1, sizeof(*tls));

	if (!tls)
		abort();
	tls->hulld = hulld;
	snprintf(tls->folder, sizeof(tls->folder), "%s/certificates", folder);
	snprintf(tls->list_path, sizeof(tls->list_path), "%s/certificates.list", folder);
	tls->authority = x509_authority_new(hulld->options.state, err);
	if (tls->authority && make_directories(tls->folder, 0700, err) == 0)
		return tls;
	tls_free(tls);
	return NULL;
}

void tls_free(struct tls *tls)
{
	if (!tls)
		return;
	forget_strangers(tls);
	while (tls->first) {
		struct certificate *c = tls->first;

		tls->first = c->next;
		certificate_free(c);
	}
	x509_authority_free(tls->authority);
	free(tls->index);
	free(tls);
}
