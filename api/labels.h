/* Which of what bears labels a client asks for: the query `label`, KEY or KEY=VALUE, several times. */
#ifndef HULL_API_LABELS_H
#define HULL_API_LABELS_H

#include "api/http.h"

#define LABELS_BYTES_MAX 4096 /* as JSON, of what a list reads anew at each request: it looks at those of a thousand rows */
#define LABELS_ASKED_MAX 16 /* of one request; its route takes no more */

struct label_filter {
	size_t n;
	const char *labels[LABELS_ASKED_MAX]; /* the request's */
};

#define LABEL_QUERY(what_)                                                                                      \
	{"label", "KEY, or KEY=VALUE: only " what_ " with that label; 16 at most, and all of them.", .repeats = LABELS_ASKED_MAX, .min = 1, \
		.pattern = "^[^=\\u0000][^\\u0000]*$"}

/* Of labels as JSON. 0, or -ECANCELED with `problem` set. */
int labels_check_size(const char *text, struct problem *problem);
/* 0, or -ECANCELED having refused. */
int label_filter_read(struct request *req, struct label_filter *ret);
/* Has the object (NULL: none) all of them? */
bool label_filter_fits(const struct label_filter *filter, const json_t *labels);

#endif
