/* What `hull inspect` prints, as a file of a machine. */
#include "cli/client.h"
#include "cli/manifest.h"
#include "cli/output.h"

#include <string.h>

static const json_t *find_schema(const json_t *document, const char *name)
{
	return json_object_get(json_object_get(json_object_get(document, "components"), "schemas"), name);
}

/* "#/components/schemas/NAME" */
static const json_t *follow(const json_t *document, const json_t *schema)
{
	const char *ref = json_text(schema, "$ref"), *name = strrchr(ref, '/');

	return name ? find_schema(document, name + 1) : schema;
}

/* Takes out of `value` what `shown` has as read-only, unless it can be said by `said`; of objects in it, too. */
static void strip(const json_t *document, const json_t *shown, const json_t *said, json_t *value)
{
	const json_t *said_properties = json_object_get(said, "properties");
	json_t *schema, *below;
	const char *name;

	json_object_foreach(json_object_get(shown, "properties"), name, schema) {
		const json_t *as_said = json_object_get(said_properties, name);

		below = json_object_get(value, name);
		if (!as_said && json_is_true(json_object_get(schema, "readOnly")))
			json_object_del(value, name);
		else if (as_said && json_is_object(below))
			strip(document, follow(document, schema), follow(document, as_said), below);
	}
}

int manifest_strip(struct manifest *manifest, struct client *client, struct failure *fail)
{
	json_t *document = NULL;
	int r = 0;

	for (size_t i = 0; i < manifest->n && r == 0; i++) {
		const struct manifest_words *words = &manifest_words[manifest->machines[i].kind];
		json_t *spec = manifest->machines[i].spec;

		if (!json_object_get(spec, "id"))
			continue;
		if (!document)
			r = client_call(client, "GET", "/v1/openapi.json", NULL, &document, fail);
		if (r == 0)
			strip(document, find_schema(document, words->shown_schema), find_schema(document, words->spec_schema), spec);
	}
	json_decref(document);
	return r;
}
