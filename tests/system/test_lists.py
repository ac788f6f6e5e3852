"""Lists: in pages that are stable while things come and go, and only what was asked for."""
import contextlib
import json
import sqlite3
from urllib.parse import quote

import pytest

from hulld_fixtures import Hulld, make_erofs
from test_cli import Cli
from test_hulld import refused

MANY = 1203


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hulld")
    daemon = Hulld(folder).start()
    daemon.digest = daemon.image("hello", make_erofs(folder), command=["/bin/true"])
    yield daemon
    daemon.stop()


@pytest.fixture
def machines(hulld):
    """Makes them, by name with their labels; they go with the test."""
    def make(**labels):
        for name, values in labels.items():
            assert hulld.post("/v1/machines", {"name": name, "image": "hello", "labels": values}).status == 201

    yield make
    for machine in hulld.get("/v1/machines").json["items"]:
        hulld.delete(f"/v1/machines/{machine['id']}")


def pages(hulld, path, limit, between=lambda: None, key="name"):
    """The names of all items, page by page."""
    cursor, glue = "", "&" if "?" in path else "?"
    while True:
        answer = hulld.get(f"{path}{glue}limit={limit}{cursor}")
        assert answer.status == 200, answer
        yield [item[key] for item in answer.json["items"]]
        if "next" not in answer.json:
            return
        cursor = f"&cursor={quote(answer.json['next'])}"
        between()


def make_image(hulld, name):
    assert hulld.post("/v1/images", {"name": name, "rootfs": hulld.digest}).status == 201


KINDS = {
    "/v1/machines": ("name", lambda hulld, n: hulld.post("/v1/machines", {"name": f"m{n}", "image": "hello"}),
                     lambda hulld, n: hulld.delete(f"/v1/machines/m{n}")),
    "/v1/images": ("name", lambda hulld, n: make_image(hulld, f"i{n}"), lambda hulld, n: hulld.delete(f"/v1/images/i{n}")),
    "/v1/projects": ("name", lambda hulld, n: hulld.post("/v1/projects", {"name": f"p{n}"}),
                     lambda hulld, n: hulld.delete(f"/v1/projects/p{n}")),
    "/v1/volumes": ("name", lambda hulld, n: hulld.post("/v1/volumes", {"name": f"v{n}", "size_mib": 16}),
                    lambda hulld, n: hulld.delete(f"/v1/volumes/v{n}")),
    "/v1/secrets": ("name", lambda hulld, n: hulld.request("PUT", f"/v1/secrets/S{n}", {"value": "v"}),
                    lambda hulld, n: hulld.delete(f"/v1/secrets/S{n}")),
    "/v1/tokens": ("label", lambda hulld, n: hulld.post("/v1/tokens", {"label": f"t{n}", "scopes": ["read"]}), None),
}


@pytest.mark.parametrize("path", KINDS)
def test_pages_have_each_item_once(hulld, path):
    key, make, remove = KINDS[path]
    for n in range(5):
        make(hulld, n)
    whole = hulld.get(path)
    names = [item[key] for item in whole.json["items"]]
    assert len(names) >= 5 and "next" not in whole.json
    for limit in (1, 2, len(names), 1000):
        read = list(pages(hulld, path, limit, key=key))
        assert sum(read, []) == names and all(len(page) == limit for page in read[:-1])
    for query, field in (("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("cursor=", "cursor"), ("cursor=xy", "cursor"),
                         ("cursor=0", "cursor"), ("cursor=00", "cursor"), ("cursor=" + "61" * 254, "cursor")):
        refused(hulld.get(f"{path}?{query}"), 400, "invalid_field", field)
    assert hulld.get(f"{path}?cursor={'7f' * 128}").json == {"items": []}
    for n in range(5 if remove else 0):
        assert remove(hulld, n).status == 204


def test_what_comes_and_goes_moves_nothing(hulld, machines):
    machines(**{f"m{n}": {} for n in range(8)})
    goes, comes = iter(["m0", "m2", "m5"]), iter(["n1", "n2", "n3"])

    def between():
        assert hulld.delete(f"/v1/machines/{next(goes)}").status == 204
        machines(**{next(comes): {}})
        hulld.restart()

    read = sum(pages(hulld, "/v1/machines", 3, between), [])
    assert len(read) == len(set(read)) and {"m1", "m3", "m4", "m6", "m7"} <= set(read)
    assert read[:3] == ["m0", "m1", "m2"] and "m5" in read  # was on the second page, and went after that


@pytest.mark.parametrize("query, names", [
    ("label=team=a", ["a1", "a2"]), ("label=team", ["a1", "a2", "b1"]), ("label=team=a&label=tier=web", ["a1"]), ("label=team=", []),
    ("label=tea", []), ("label=eq%3Dual=x", []), ("label=note=x%3Dy", ["b1"]), ("name=a1", ["a1"]), ("name=a*", ["a1", "a2"]), ("name=*", ["a1", "a2", "b1", "c1"]),
    ("name=A1", []), ("name=", []), ("state=created", ["a1", "a2", "b1", "c1"]), ("state=running,failed", []),
    ("state=created&name=b*&label=team", ["b1"])])
def test_only_what_fits_is_listed(hulld, machines, query, names):
    machines(a1={"team": "a", "tier": "web"}, a2={"team": "a"}, b1={"team": "b", "note": "x=y"}, c1={})
    assert [machine["name"] for machine in hulld.get(f"/v1/machines?{query}").json["items"]] == names
    assert sum(pages(hulld, f"/v1/machines?{query}", 1), []) == names


@pytest.mark.parametrize("query, field", [
    ("state=", "state"), ("state=resting", "state"), ("state=creating", "state"), ("label=", "label"), ("label==x", "label"),
    ("&".join(["label=a"] * 17), "label")])
def test_a_filter_that_makes_no_sense_is_refused(hulld, query, field):
    refused(hulld.get(f"/v1/machines?{query}"), 400, "invalid_field", field)
    refused(hulld.get("/v1/images?label=a"), 400, "unknown_field", "label")


def test_the_command_asks_for_what_fits(hulld, machines, tmp_path):
    machines(a1={"team": "a", "tier": "web"}, a2={"team": "a"}, b1={"team": "b c"})
    hull = Cli(tmp_path, hulld.socket)

    def names(*words):
        return [machine["name"] for machine in json.loads(hull("ps", "-o", "json", *words).stdout)]

    assert names("-a", "-l", "team=a") == names("-a", "--filter", "label=team=a") == ["a1", "a2"]
    assert names("-a", "-l", "team=a", "-l", "tier") == names("-f", "name=a1", "-f", "state=created") == ["a1"]
    assert names("-al", "team=b c") == ["b1"] and names("-l", "team") == [] and names("-a", "-f", "name=a*") == ["a1", "a2"]
    assert hull.refused("ps", "-f", "colour=red", status=2)[0] == '--filter: "colour=red" is none of label=KEY[=VALUE], name=NAME, state=STATE'
    assert hull.refused("ps", "-f", "state=resting")[0] == \
        "state: must be of created, starting, running, suspending, suspended, resuming, stopping, stopped, failed, healthy, unhealthy, asleep, with commas between"


def test_the_command_reads_all_pages(hulld, machines, tmp_path):
    """In the order of their making, which the names do not have."""
    machines(first={})
    hulld.kill()
    with contextlib.closing(sqlite3.connect(hulld.state / "hull.db", isolation_level=None)) as rows:
        columns = [column[1] for column in rows.execute("PRAGMA table_info(machines)")]
        values = {"spec": "json_set(spec, '$.name', printf('x%d', n))", "id": "printf('m%012d', n)", "name": "printf('x%d', n)", "created_at": "created_at + n / 3"}
        rows.execute(f"WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < {MANY})"
                     f" INSERT INTO machines SELECT {', '.join(values.get(name, name) for name in columns)} FROM machines, count"
                     " WHERE name = 'first'")
    hulld.start()
    shown = [machine["name"] for machine in json.loads(Cli(tmp_path, hulld.socket)("ps", "-a", "-o", "json").stdout)]
    assert len(shown) == len(set(shown)) == MANY + 1
    assert [len(page) for page in pages(hulld, "/v1/machines", 500)] == [500, 500, MANY + 1 - 1000]
    first = hulld.get("/v1/machines").json
    rest = hulld.get(f"/v1/machines?cursor={quote(first['next'])}").json
    assert (len(first["items"]), len(rest["items"])) == (1000, MANY + 1 - 1000) and "next" not in rest, "no answer has all, however many there are"
    hulld.kill()
    with contextlib.closing(sqlite3.connect(hulld.state / "hull.db", isolation_level=None)) as rows:
        rows.execute("DELETE FROM machines WHERE name != 'first'")
    hulld.start()


def test_openapi_describes_pages(hulld):
    document = hulld.get("/v1/openapi.json").json
    for path in KINDS:
        listed = document["paths"][path]["get"]
        assert {"limit", "cursor"} <= {parameter["name"] for parameter in listed["parameters"]}
        assert "next" in listed["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
