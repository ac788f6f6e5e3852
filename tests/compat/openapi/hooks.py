"""What tests/system/test_openapi.py has schemathesis do around its calls."""
import os
import re

import requests
import schemathesis

URL, TOKEN = os.environ["HULL_TEST_URL"], os.environ["HULL_TEST_TOKEN"]
VOLUME = {"name": "data", "size_mib": 16}
MACHINE = {"name": "one", "image": "hello", "network": "none", "disk_mib": 16}
session = requests.Session()
session.headers["Authorization"] = f"Bearer {TOKEN}"

# What hulld refuses as invalid_field and no schema can say: (field, detail).
BEYOND_SCHEMAS = [
    (r"memory_mib", r"is more than this host's"),
    (r"ports\[\d+\](\.host|\.address)?", r"is no address of this host|is published twice"),
    (r"ports\[\d+\]\.(host|hostname|address|protocol)", r"is required, or a hostname|does not go with a hostname|is there twice|serves nothing by host name"),
    (r"mounts\[\d+\]\.(volume|path)", r"is mounted twice|is there twice"),
    (r"size_mib", r"cannot become less|is more than a file may have"),
    (r"disk_mib", r"its disk has been made"),
    (r"subnet", r"must be|has bits behind|overlaps|is free"),
    (r"name|subnet|egress", r"cannot be changed, only labels"),
    (r"secrets\[\d+\]", r"is in env, too"),
    (r"url", r"is no URL|is no address that|must have no user|for addresses that"),
    (r"secret", r"cannot be taken away"),
    (r"command", r"is required: image .* has none"),
    (r"name", r"a machine keeps a name|cannot be changed: machines know it"),
    (r"depends_on(\[\d+\]\.\w+)?", r"makes a circle|reaches more than|is named twice|has no health check"),
    (r"cursor", r"is none that a (page|list) has answered with"),
    (r"machine", r"must have at most"),  # in bytes
    (r"If-Match", r"must be \* or entity tags"),  # its coverage phase has 0 for a string of that pattern
]
# Of a patch also: what it is merged with is not whole then.
BEYOND_PATCHES = [(r"health(\.\w+)*", r"must have one of|is required")]


@schemathesis.hook
def before_call(context, case, kwargs):
    """A machine that starts for ever is waited for by nobody, either."""
    if case.path == "/v1/operations/{operation}/wait":
        case.query = {"timeout_s": 0, **(case.query or {})}


@schemathesis.hook
def after_call(context, case, response):
    """What there is to be found is there again for the next call."""
    if case.method == "DELETE" and response.status_code == 204:
        session.post(f"{URL}/v1/machines", json=MACHINE)
        session.post(f"{URL}/v1/volumes", json=VOLUME)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Is it one?"""
    if type(failure).__name__ != "RejectedPositiveData" or response.status_code != 400:
        return True
    problem = response.json()
    beyond = BEYOND_SCHEMAS + (BEYOND_PATCHES if case.method == "PATCH" else [])
    return not any(re.fullmatch(field, problem.get("field", "")) and re.search(detail, problem["detail"]) for field, detail in beyond)
