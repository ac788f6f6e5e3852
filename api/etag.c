#include "api/etag.h"

#include "common/json.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char momentary[] = "used_bytes";

static void put_hex(char *place, uint8_t byte)
{
	static const char digits[] = "0123456789abcdef";

	place[0] = digits[byte >> 4];
	place[1] = digits[byte & 15];
}

static void digest_of(const char *text, size_t len, char ret[ETAG_BYTES])
{
	uint8_t digest[ETAG_BYTES / 2 - 1];
	struct sha256_ctx hash;

	sha256_init(&hash);
	sha256_update(&hash, len, (const uint8_t *)text);
	sha256_digest(&hash, sizeof(digest), digest);
	ret[0] = '"';
	for (size_t i = 0; i < sizeof(digest); i++)
		put_hex(ret + 1 + 2 * i, digest[i]);
	memcpy(ret + ETAG_BYTES - 2, "\"", 2);
}

void etag_of_text(const json_t *representation, const char *text, size_t len, char ret[ETAG_BYTES])
{
	if (json_object_get(representation, momentary))
		etag_of(representation, ret);
	else
		digest_of(text, len, ret);
}

void etag_of(const json_t *representation, char ret[ETAG_BYTES])
{
	json_t *lasting = json_copy((json_t *)representation);
	char *text;

	json_object_del(lasting, momentary);
	text = json_print(lasting, "");
	digest_of(text, strlen(text), ret);
	free(text);
	json_decref(lasting);
}

static const char *skip_space(const char *text)
{
	return text + strspn(text, " \t");
}

/* The end of the opaque-tag at `text`: quotes around %x21, %x23-7E or bytes beyond ASCII. NULL: there is none. */
static const char *end_of_tag(const char *text)
{
	if (*text++ != '"')
		return NULL;
	while ((unsigned char)*text > ' ' && *text != '"' && *text != 0x7f)
		text++;
	return *text == '"' ? text + 1 : NULL;
}

int etag_list_has(const char *list, const char *etag, bool weak)
{
	size_t len = strlen(etag), n_tags = 0;
	const char *text = skip_space(list), *end;
	bool found = false;

	if (*text == '*')
		return *skip_space(text + 1) ? -EINVAL : 1;
	for (;;) {
		bool is_weak;

		/* Section 5.6.1.2: empty elements are none. */
		while (*text == ',')
			text = skip_space(text + 1);
		if (!*text)
			return n_tags ? found : -EINVAL;
		is_weak = strncmp(text, "W/", 2) == 0;
		text += is_weak ? 2 : 0;
		end = end_of_tag(text);
		if (!end)
			return -EINVAL;
		if ((weak || !is_weak) && (size_t)(end - text) == len && memcmp(text, etag, len) == 0)
			found = true;
		n_tags++;
		text = skip_space(end);
		if (*text && *text != ',')
			return -EINVAL;
	}
}
