/* Parsing and writing HTTP/1.1. Section numbers are RFC 9112's where no other is named. */
#include "common/http.h"

#include "common/checked.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

static bool text_equals(struct http_text text, const char *string)
{
	return strlen(string) == text.len && memcmp(text.data, string, text.len) == 0;
}

bool http_text_is(const struct http_text *text, const char *string)
{
	return strlen(string) == text->len && strncasecmp(text->data, string, text->len) == 0;
}

const struct http_text *http_find_field(const struct http_head *head, const char *name)
{
	for (size_t i = 0; i < head->n_fields; i++)
		if (http_text_is(&head->fields[i].name, name))
			return &head->fields[i].value;
	return NULL;
}

/* RFC 9110, 5.6.2: what method and field names are made of. */
static bool is_token(struct http_text text)
{
	for (size_t i = 0; i < text.len; i++)
		if (!isalnum((unsigned char)text.data[i]) && !memchr("!#$%&'*+-.^_`|~", text.data[i], 15))
			return false;
	return text.len > 0;
}

static struct http_text trim(struct http_text text)
{
	while (text.len && (*text.data == ' ' || *text.data == '\t')) {
		text.data++;
		text.len--;
	}
	while (text.len && (text.data[text.len - 1] == ' ' || text.data[text.len - 1] == '\t'))
		text.len--;
	return text;
}

/* The text up to `end`, which is skipped. False when there is none. */
static bool cut(struct http_text *text, char end, struct http_text *ret)
{
	const char *at = memchr(text->data, end, text->len);

	if (!at)
		return false;
	*ret = (struct http_text){text->data, (size_t)(at - text->data)};
	text->data = at + 1;
	text->len -= ret->len + 1;
	return true;
}

static enum http_method find_method(struct http_text name)
{
	static const char *const names[] = {
		[HTTP_GET] = "GET", [HTTP_PUT] = "PUT", [HTTP_PATCH] = "PATCH", [HTTP_DELETE] = "DELETE"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (text_equals(name, names[i]))
			return (enum http_method)i;
	return HTTP_OTHER;
}

/* 3.2.2: a target may be said with scheme and host, which are nobody's business here. */
static struct http_text strip_authority(struct http_text target)
{
	static const char scheme[] = "http://";
	const char *slash;

	if (target.len < strlen(scheme) || strncasecmp(target.data, scheme, strlen(scheme)) != 0)
		return target;
	slash = memchr(target.data + strlen(scheme), '/', target.len - strlen(scheme));
	return slash ? (struct http_text){slash, target.len - (size_t)(slash - target.data)} : target;
}

/* 3: method, target, version, one space between them. */
static int parse_request_line(struct http_text line, struct http_head *head, struct error *err)
{
	if (!cut(&line, ' ', &head->method_name) || !is_token(head->method_name) || !cut(&line, ' ', &head->target))
		return error_set(err, EPROTO, "the request's first line is not METHOD TARGET VERSION");
	head->method = find_method(head->method_name);
	for (size_t i = 0; i < head->target.len; i++)
		if (!isgraph((unsigned char)head->target.data[i]))
			return error_set(err, EPROTO, "the request's target holds more than printable ASCII");
	head->target = strip_authority(head->target);
	if (!head->target.len || head->target.data[0] != '/')
		return error_set(err, EPROTO, "the request's target does not begin with '/'");
	if (!text_equals(line, "HTTP/1.1") && !text_equals(line, "HTTP/1.0"))
		return error_set(err, EPROTO, "the request's version is neither HTTP/1.1 nor HTTP/1.0");
	head->keep_alive = line.data[line.len - 1] == '1'; /* 9.3 */
	return 0;
}

/* 5: name, colon, value; no space before the colon, no folding, no control characters. */
static int parse_field(struct http_text line, struct http_head *head, struct error *err)
{
	struct http_field *field = &head->fields[head->n_fields];

	if (head->n_fields == HTTP_FIELDS_MAX)
		return error_set(err, EMSGSIZE, "the request has more than %d fields", HTTP_FIELDS_MAX);
	if (!cut(&line, ':', &field->name) || !is_token(field->name))
		return error_set(err, EPROTO, "field %zu of the request's head is not NAME: VALUE", head->n_fields + 1);
	for (size_t i = 0; i < line.len; i++)
		if (iscntrl((unsigned char)line.data[i]) && line.data[i] != '\t')
			return error_set(err, EPROTO, "field %zu of the request's head holds a control character",
				head->n_fields + 1);
	field->value = trim(line);
	head->n_fields++;
	return 0;
}

/* 6.2: digits alone. Said twice, it is refused, even if both agree. */
static int read_length(struct http_head *head, const struct http_text *value, struct error *err)
{
	uint64_t length = 0;

	if (head->has_length)
		return error_set_field(err, EPROTO, "Content-Length", "is given twice");
	for (size_t i = 0; i < value->len; i++) {
		if (!isdigit((unsigned char)value->data[i]) || length > UINT32_MAX)
			return error_set_field(err, EPROTO, "Content-Length", "must be a number of bytes");
		length = length * 10 + (uint64_t)(value->data[i] - '0');
	}
	if (!value->len)
		return error_set_field(err, EPROTO, "Content-Length", "must be a number of bytes");
	head->has_length = true;
	head->body_bytes = length;
	return 0;
}

/* The fields that say how the connection goes on. */
static int read_framing(struct http_head *head, struct error *err)
{
	for (size_t i = 0; i < head->n_fields; i++) {
		const struct http_text *name = &head->fields[i].name, *value = &head->fields[i].value;
		int r = 0;

		if (http_text_is(name, "Content-Length"))
			r = read_length(head, value, err);
		else if (http_text_is(name, "Transfer-Encoding"))
			r = error_set_field(
				err, EOPNOTSUPP, "Transfer-Encoding", "is not taken: send a Content-Length");
		else if (http_text_is(name, "Connection") && http_text_is(value, "close"))
			head->keep_alive = false;
		else if (http_text_is(name, "Connection") && http_text_is(value, "keep-alive"))
			head->keep_alive = true;
		else if (http_text_is(name, "Expect"))
			head->expects_continue = http_text_is(value, "100-continue");
		if (r < 0)
			return r;
	}
	return 0;
}

/* Where the empty line ends, or 0. */
static size_t find_end(const char *text, size_t len)
{
	const char *end = memmem(text, len, "\r\n\r\n", 4);

	return end ? (size_t)(end - text) + 4 : 0;
}

int http_parse_head(const char *text, size_t len, struct http_head *ret, struct error *err)
{
	size_t head_bytes = find_end(text, len < HTTP_HEAD_MAX ? len : HTTP_HEAD_MAX);
	struct http_text rest = {text, head_bytes}, line;
	bool first = true;
	int r = 0;

	if (!head_bytes && len < HTTP_HEAD_MAX)
		return 0;
	if (!head_bytes)
		return error_set(err, EMSGSIZE, "the request's head has more than %d bytes", HTTP_HEAD_MAX);
	*ret = (struct http_head){.head_bytes = head_bytes};
	while (r == 0 && cut(&rest, '\n', &line)) {
		if (!line.len || line.data[line.len - 1] != '\r')
			return error_set(err, EPROTO, "a line of the request's head does not end with CR LF");
		line.len--;
		if (!line.len)
			break;
		r = first ? parse_request_line(line, ret, err) : parse_field(line, ret, err);
		first = false;
	}
	if (r == 0 && first)
		r = error_set(err, EPROTO, "the request has no first line");
	if (r == 0)
		r = read_framing(ret, err);
	return r < 0 ? r : 1;
}

/* "" for a status that nobody here sends. */
static const char *reason_of(int status)
{
	switch (status) {
	case 100:
		return "Continue";
	case 200:
		return "OK";
	case 204:
		return "No Content";
	case 400:
		return "Bad Request";
	case 401:
		return "Unauthorized";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 413:
		return "Payload Too Large";
	case 500:
		return "Internal Server Error";
	case 501:
		return "Not Implemented";
	case 503:
		return "Service Unavailable";
	default:
		return "";
	}
}

static int put_answer(struct buf *out, int status, bool keep_alive, const char *fields, const char *type,
	const void *body, size_t len)
{
	int r = buf_printf(out, "HTTP/1.1 %d %s\r\nConnection: %s\r\n%s", status, reason_of(status),
		keep_alive ? "keep-alive" : "close", fields);

	/* RFC 9110, 8.6: a 204 has no Content-Length. */
	if (r == 0 && status == 204)
		return buf_append(out, "\r\n", 2);
	if (r == 0 && len)
		r = buf_printf(out, "Content-Type: %s\r\n", type);
	if (r == 0)
		r = buf_printf(out, "Content-Length: %zu\r\n\r\n", len);
	return r == 0 ? buf_append(out, body, len) : r;
}

int http_put_answer(struct buf *out, int status, bool keep_alive, const char *fields, const char *type,
	const void *body, size_t len)
{
	size_t before = out->len;
	int r = put_answer(out, status, keep_alive, fields, type, body, len);

	if (r < 0)
		out->len = before;
	return r;
}
