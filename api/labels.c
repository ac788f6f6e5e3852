#include "api/labels.h"

#include <errno.h>
#include <string.h>

int labels_check_size(const char *text, struct problem *problem)
{
	size_t len = strlen(text);

	if (len <= LABELS_BYTES_MAX)
		return 0;
	return problem_set(problem, PROBLEM_INVALID_FIELD, "labels", "must have at most %d bytes of JSON together, not %zu", LABELS_BYTES_MAX, len);
}

static void take_label(void *ctx, const char *value)
{
	struct label_filter *filter = ctx;

	filter->labels[filter->n++] = value; /* the route takes no more of them than there is room */
}

int label_filter_read(struct request *req, struct label_filter *ret)
{
	*ret = (struct label_filter){0};
	request_query_each(req, "label", take_label, ret);
	for (size_t i = 0; i < ret->n; i++)
		if (!ret->labels[i][0] || ret->labels[i][0] == '=') {
			request_refuse_with(req, PROBLEM_INVALID_FIELD, "label", "must be KEY or KEY=VALUE");
			return -ECANCELED;
		}
	return 0;
}

static bool has_label(const json_t *labels, const char *wanted)
{
	const char *equals = strchr(wanted, '=');
	const json_t *label = json_object_getn(labels, wanted, equals ? (size_t)(equals - wanted) : strlen(wanted));

	return label && (!equals || strcmp(json_string_value(label), equals + 1) == 0);
}

bool label_filter_fits(const struct label_filter *filter, const json_t *labels)
{
	for (size_t i = 0; i < filter->n; i++)
		if (!has_label(labels, filter->labels[i]))
			return false;
	return true;
}
