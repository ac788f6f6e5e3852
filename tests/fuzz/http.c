/* HTTP requests: whatever comes, what is found lies inside it, and the same text in pieces says the same. */
#include "common/http.h"
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <string.h>

static void check_inside(struct http_text text, const char *data, const struct http_head *head)
{
	CHECK(text.data >= data && text.data + text.len <= data + head->head_bytes);
}

static void check_head(const struct http_head *head, const char *data, size_t len)
{
	CHECK(head->head_bytes <= len && head->head_bytes <= HTTP_HEAD_MAX && head->n_fields <= HTTP_FIELDS_MAX);
	CHECK(head->target.len > 0 && head->target.data[0] == '/');
	check_inside(head->method_name, data, head);
	check_inside(head->target, data, head);
	for (size_t i = 0; i < head->n_fields; i++) {
		check_inside(head->fields[i].name, data, head);
		check_inside(head->fields[i].value, data, head);
		CHECK(http_find_field(head, "no such field") == NULL);
	}
	CHECK(head->has_length || head->body_bytes == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char *copy = malloc(len ? len : 1); /* of the exact size, so that one byte too far is seen */
	struct http_head head, again;
	struct error err = {0};
	int r;

	CHECK(copy);
	if (len)
		memcpy(copy, data, len);
	r = http_parse_head(copy, len, &head, &err);
	if (r > 0) {
		check_head(&head, copy, len);
		CHECK(http_parse_head(copy, head.head_bytes, &again, &err) == 1);
		CHECK(http_parse_head(copy, head.head_bytes - 1, &again, &err) == 0);
	} else if (r < 0) {
		CHECK(err.errnum == -r && err.message[0]);
	}
	free(copy);
	return 0;
}
