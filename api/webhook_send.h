/* Sends POSTs to where clients say, over libcurl's multi interface on hulld's loop: names are looked up by threads of libcurl's, and nothing
 * waits. What is connected to is checked when it is connected to, whatever a name led to: an address of the public network that is not
 * this host's, and by https, or one that the administrator has allowed. Redirects are not followed, proxies not used, certificates
 * verified, and of the answer nothing but its status and Retry-After is looked at. */
#ifndef HULL_API_WEBHOOK_SEND_H
#define HULL_API_WEBHOOK_SEND_H

#include "api/public_address.h"
#include "api/spec.h"
#include "common/loop.h"

#include <stdint.h>

#define SENT_ERROR_MAX 200

struct sender;
struct sending;

enum sent { SENT_DELIVERED, SENT_TURNED_DOWN, SENT_UNANSWERED, SENT_FORBIDDEN, N_SENT };
extern const char *const sent_names[N_SENT];

struct sent_result {
	enum sent what;
	int status;	       /* of HTTP; 0: there was no answer */
	int64_t retry_after_s; /* what it asks for; 0: nothing */
	int64_t took_ms;
	char error[SENT_ERROR_MAX]; /* why it is not delivered; printable ASCII */
};

/* All is copied. */
struct outgoing {
	const char *project, *url, *id, *signature, *body;
	int64_t at_s;
};

typedef void (*sent_fn)(void *ctx, const struct sent_result *result);

/* `allow` is borrowed. `timeout_ms` is of a whole POST. `on_left` is called whenever sender_left() has become smaller. NULL with `err` set. Loop
 * thread, all of it. */
struct sender *sender_new(struct loop *loop, const struct address_ranges *allow, int64_t timeout_ms, void (*on_left)(void *ctx), void *ctx,
	struct error *err);
void sender_free(struct sender *sender); /* when nothing is under way any more; NULL is fine */

/* `fn` is called once, later, from the loop; not after sending_cancel(). */
struct sending *sender_send(struct sender *sender, const struct outgoing *out, sent_fn fn, void *ctx);
/* Nothing is sent any more. A look-up that goes on cannot be ended, and has a thread: it is left to itself. NULL is fine. */
void sending_cancel(struct sending *sending);
/* How many look-ups of the project's have been left so, and go on: who cancels for ever is not to have threads without end. */
size_t sender_left(const struct sender *sender, const char *project);

#define WEBHOOK_URL_MAX 2048 /* bytes */
/* Does it look like one? 0 or -EINVAL with `err` set. */
int webhook_url_check(const char *url, struct error *err);
/* May there be a webhook of that URL, which looks like one? What it is refused for later, should it be a name, cannot be said yet.
 * 0 or -EINVAL with `err` set. */
int sender_check_url(const char *url, const struct address_ranges *allow, struct error *err);

/* How many there were since the start. */
const uint64_t *sender_counts(const struct sender *sender); /* [N_SENT] */

#endif
