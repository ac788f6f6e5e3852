/* The guest's requests. Two are understood: GET of a path into the document, and PUT of /latest/api/token, which makes a
 * session token. Tokens may be made in version 1, too, where they are not asked for: so a guest moves on before its host
 * does. Names with "aws-ec2" are those of EC2's service, and mean the same. */
#include "devices/mmds_http.h"

#include "common/checked.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#define TOKEN_PATH "/latest/api/token"
#define TEXT	   "text/plain"
#define JSON	   "application/json"

static const char *const token_fields[] = {"X-metadata-token", "X-aws-ec2-metadata-token"};
static const char *const ttl_fields[] = {"X-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token-ttl-seconds"};

/* What is to be answered. */
struct answer {
	int status;
	const char *type;
	char fields[96]; /* whole lines */
	struct buf body;
};

static struct http_text whole(const char *string)
{
	return (struct http_text){string, strlen(string)};
}

static void say(struct answer *answer, int status, const char *message, struct http_text detail)
{
	answer->status = status;
	answer->type = TEXT;
	if (buf_printf(&answer->body, "%s%.*s%s", message, (int)detail.len, detail.data, detail.len ? "." : "") < 0)
		answer->status = 503;
}

/* The first of the fields that is there, and its place in `names`. */
static const struct http_text *find_one(const struct http_head *head, const char *const names[2], size_t *ret_index)
{
	const struct http_text *value = NULL;

	for (size_t i = 0; i < 2 && !value; i++) {
		value = http_find_field(head, names[i]);
		*ret_index = i;
	}
	return value;
}

/* GET */

static void get_value(const struct mmds *mmds, const struct http_head *head, struct answer *answer)
{
	const struct http_text *accept = http_find_field(head, "Accept");
	bool json = !mmds->imds_compat && accept && http_text_is(accept, JSON);
	const json_t *value = mmds_store_find(&mmds->store, head->target);
	int r;

	if (!value) {
		say(answer, 404, "Resource not found: ", head->target);
		return;
	}
	answer->status = 200;
	answer->type = json ? JSON : TEXT;
	r = json ? mmds_put_json(&answer->body, value) : mmds_put_imds(&answer->body, value);
	if (r == -EOPNOTSUPP)
		say(answer, 501, "Cannot retrieve value. The value has an unsupported type.", whole(""));
	else if (r < 0)
		answer->status = 503;
}

static void get(struct mmds *mmds, const struct http_head *head, uint64_t now_ns, struct answer *answer)
{
	size_t which;
	const struct http_text *token = find_one(head, token_fields, &which);
	bool valid = token && mmds_token_is_valid(&mmds->tokens, *token, now_ns);

	if (!token)
		metric_inc(&mmds->metrics.rx_no_token);
	else if (!valid)
		metric_inc(&mmds->metrics.rx_invalid_token);
	if (valid || mmds->version == MMDS_V1)
		get_value(mmds, head, answer);
	else if (token)
		say(answer, 401, "MMDS token not valid.", whole(""));
	else
		say(answer, 401,
			"No MMDS token provided. Use `X-metadata-token` or `X-aws-ec2-metadata-token` header to specify the "
			"session token.",
			whole(""));
}

/* PUT */

/* Whether it is the path, but for slashes that are repeated. */
static bool is_token_path(struct http_text target)
{
	const char *want = TOKEN_PATH;

	for (size_t i = 0; i < target.len; i++) {
		if (target.data[i] == '/' && i && target.data[i - 1] == '/')
			continue;
		if (target.data[i] != *want++)
			return false;
	}
	return *want == '\0';
}

/* A number of seconds. -EINVAL: no number; -ERANGE: not 1..MMDS_TOKEN_TTL_MAX_S. */
static int read_ttl(const struct http_text *value, uint32_t *ret)
{
	uint64_t ttl = 0;

	for (size_t i = 0; i < value->len; i++) {
		if (!isdigit((unsigned char)value->data[i]))
			return -EINVAL;
		ttl = ttl > UINT32_MAX ? ttl : ttl * 10 + (uint64_t)(value->data[i] - '0');
	}
	*ret = (uint32_t)ttl;
	return !value->len ? -EINVAL : ttl < 1 || ttl > MMDS_TOKEN_TTL_MAX_S ? -ERANGE : 0;
}

static void make_token(struct mmds *mmds, const struct http_head *head, uint64_t now_ns, struct answer *answer)
{
	char token[MMDS_TOKEN_CHARS + 1];
	uint32_t ttl_s;
	size_t which;
	const struct http_text *ttl = find_one(head, ttl_fields, &which);
	int r = ttl ? read_ttl(ttl, &ttl_s) : -ENOENT;

	if (r == 0)
		r = mmds_token_make(&mmds->tokens, ttl_s, now_ns, token);
	switch (r) {
	case 0:
		say(answer, 200, token, whole(""));
		snprintf(answer->fields, sizeof(answer->fields), "%s: %u\r\n", ttl_fields[which], ttl_s);
		break;
	case -ENOENT:
		say(answer, 400,
			"Token time to live value not found. Use `X-metadata-token-ttl-seconds` or "
			"`X-aws-ec2-metadata-token-ttl-seconds` header to specify the token's lifetime.",
			whole(""));
		break;
	case -EINVAL:
		say(answer, 400, "The token's time to live is no number of seconds.", whole(""));
		break;
	case -ERANGE:
		say(answer, 400,
			"Invalid time to live value provided for token. Please provide a value between 1 and 21600.",
			whole(""));
		break;
	default:
		answer->status = 503;
	}
}

static void put(struct mmds *mmds, const struct http_head *head, uint64_t now_ns, struct answer *answer)
{
	/* Whoever sends this field speaks for somebody else, who is to have no token. */
	if (http_find_field(head, "X-Forwarded-For"))
		say(answer, 400, "Invalid header. Reason: Unsupported header name. Key: X-Forwarded-For", whole(""));
	else if (!is_token_path(head->target))
		say(answer, 404, "Resource not found: ", head->target);
	else
		make_token(mmds, head, now_ns, answer);
}

static void serve(struct mmds *mmds, const struct http_head *head, uint64_t now_ns, struct answer *answer)
{
	switch (head->method) {
	case HTTP_GET:
		get(mmds, head, now_ns, answer);
		break;
	case HTTP_PUT:
		put(mmds, head, now_ns, answer);
		break;
	default:
		say(answer, 405, "Not allowed HTTP method.", whole(""));
		strcpy(answer->fields, "Allow: GET, PUT\r\n");
	}
}

/* Whole or not at all: what does not fit is unavailable, which takes few bytes to say; or none, then the end says it. */
static enum mmds_served send_answer(struct mmds *mmds, struct answer *answer, bool keep_alive, struct buf *out)
{
	int r = answer->status == 503 ? -ENOMEM
				      : http_put_answer(out, answer->status, keep_alive, answer->fields, answer->type,
						answer->body.data, answer->body.len);

	buf_done(&answer->body);
	if (r == 0)
		return keep_alive ? MMDS_ANSWERED : MMDS_ANSWERED_LAST;
	metric_inc(&mmds->metrics.tx_errors);
	http_put_answer(out, 503, false, "", TEXT, NULL, 0);
	return MMDS_ANSWERED_LAST;
}

enum mmds_served mmds_http_serve(
	struct mmds *mmds, const char *text, size_t len, uint64_t now_ns, struct buf *out, size_t *ret_used)
{
	struct answer answer = {0};
	struct error err = {0};
	struct http_head head;
	int r = len ? http_parse_head(text, len, &head, &err) : 0;

	if (r > 0 && head.body_bytes > MMDS_HTTP_BODY_MAX)
		r = error_set(&err, EMSGSIZE, "the request's body has more than %d bytes", MMDS_HTTP_BODY_MAX);
	if (r == 0 || (r > 0 && len - head.head_bytes < head.body_bytes))
		return MMDS_INCOMPLETE;
	buf_init(&answer.body, out->max);
	if (r < 0) {
		/* Where the next one would begin nobody knows. */
		*ret_used = len;
		say(&answer, r == -EMSGSIZE ? 413 : r == -EOPNOTSUPP ? 501 : 400, err.message, whole(""));
		return send_answer(mmds, &answer, false, out);
	}
	*ret_used = head.head_bytes + head.body_bytes;
	serve(mmds, &head, now_ns, &answer);
	/* What is not understood may be one whose answer has no body, as HEAD's: let nobody look for it. */
	return send_answer(mmds, &answer, head.keep_alive && head.method != HTTP_OTHER, out);
}
