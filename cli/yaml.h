/* JSON values written as YAML, by libyaml. */
#ifndef HULL_CLI_YAML_H
#define HULL_CLI_YAML_H

#include <jansson.h>

/* `value` as one document, without "---": owned by the caller. Whoever reads it by YAML 1.1 or 1.2 gets the same value: strings that
 * would be taken for something else are quoted. Allocation failure aborts. */
char *yaml_text(const json_t *value);

#endif
