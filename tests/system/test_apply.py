"""Machines as a file says they are: what would change, that it is what changes, and that it is nothing else."""
import json

import pytest

from hulld_fixtures import Hulld, make_erofs

PATCH = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hulld")
    daemon = Hulld(folder).with_stand_in().start()
    daemon.content = make_erofs(folder, {})
    daemon.image("hello", daemon.content, command=["true"])
    yield daemon
    daemon.stop()


@pytest.fixture(autouse=True)
def nothing_left(hulld):
    yield
    for machine in hulld.get("/v1/machines").json["items"]:
        hulld.delete(f"/v1/machines/{machine['id']}?force=1")


def patch(hulld, name, document, query="", **headers):
    return hulld.request("PATCH", f"/v1/machines/{name}{query}", json.dumps(document).encode(), headers={**PATCH, **headers})


# hulld's dry run.

def test_a_machine_is_planned_and_not_made(hulld):
    before = hulld.get("/v1/events").json["cursor"]
    spec = {"name": "web", "image": "hello", "ports": [{"host": 18080, "guest": 80}], "health": {"tcp": {"port": 80}}}
    answer = hulld.post("/v1/machines?dry_run=1", spec)
    assert answer.status == 201 and hulld.get("/v1/machines").json["items"] == [] and hulld.get("/v1/events").json["cursor"] == before
    made = hulld.post("/v1/machines?dry_run=0", spec)
    assert made.status == 201
    for own in ("id", "created_at"):
        assert answer.json[own] != made.json[own]
    assert {**answer.json, "id": 0, "created_at": 0} == {**made.json, "id": 0, "created_at": 0}
    assert list((hulld.state / "machines").iterdir()) in ([], [hulld.state / "machines" / made.json["id"]])
    assert hulld.post("/v1/machines?dry_run=1", {"image": "hello"}).json["name"].startswith("machine-")


@pytest.mark.parametrize("spec, status, code, field", [
    ({"image": "hello", "cpsu": 1}, 400, "unknown_field", "cpsu"), ({"image": "nothing"}, 404, "not_found", "image"),
    ({"image": "hello", "name": "made"}, 409, "name_taken", "name"), ({"image": "hello", "secrets": ["NONE"]}, 404, "not_found", "secrets[0]"),
    ({"image": "hello", "ports": [{"host": 18081, "guest": 1}]}, 409, "port_taken", "ports[0].host"), ({"name": "x"}, 400, "missing_field", "image")])
def test_a_plan_is_refused_as_the_thing_is(hulld, spec, status, code, field):
    assert hulld.post("/v1/machines", {"name": "made", "image": "hello", "ports": [{"host": 18081, "guest": 1}]}).status == 201
    planned, refused = hulld.post("/v1/machines?dry_run=1", spec), hulld.post("/v1/machines", spec)
    assert planned.status == refused.status == status and planned.json == refused.json
    assert (planned.json["code"], planned.json["field"]) == (code, field)
    assert hulld.post("/v1/machines?dry_run=2", spec).json["field"] == "dry_run"


def test_a_change_is_planned_and_not_made(hulld):
    machine = hulld.post("/v1/machines", {"name": "web", "image": "hello", "env": {"A": "1"}})
    assert hulld.post("/v1/machines/web/start").status == 200
    before = hulld.get("/v1/machines/web")
    change = {"env": {"B": "2"}, "cpus": 2, "labels": {"a": "b"}}
    planned = patch(hulld, "web", change, "?dry_run=1", **{"If-Match": before.headers["ETag"]})
    assert planned.status == 200 and hulld.get("/v1/machines/web").json == before.json
    assert planned.json["env"] == {"A": "1", "B": "2"} and planned.json["pending"] == ["cpus", "env"] and planned.json["id"] == machine.json["id"]
    assert patch(hulld, "web", change).json == planned.json
    # Of one that has something pending already.
    again = patch(hulld, "web", {"cpus": 1}, "?dry_run=1")
    assert again.json["pending"] == ["env"] and patch(hulld, "web", {}, "?dry_run=1").json == planned.json
    hulld.restart()
    assert hulld.get("/v1/machines/web").json["pending"] == ["cpus", "env"]


@pytest.mark.parametrize("change, status, code", [
    ({"cpsu": 1}, 400, "unknown_field"), ({"image": "nothing"}, 404, "not_found"), ({"disk_mib": 77}, 400, "invalid_field"), ({"name": None}, 400, "missing_field"),
    ({"name": "other"}, 409, "name_taken")])
def test_a_planned_change_is_refused_as_the_change_is(hulld, change, status, code):
    for name in ("web", "other"):
        assert hulld.post("/v1/machines", {"name": name, "image": "hello"}).status == 201
    assert hulld.post("/v1/machines/web/start").status == 200
    planned, refused = patch(hulld, "web", change, "?dry_run=1"), patch(hulld, "web", change)
    assert planned.status == refused.status == status and planned.json == refused.json and planned.json["code"] == code
    assert patch(hulld, "web", {}, "?dry_run=1", **{"If-Match": '"other"'}).status == 412
    assert patch(hulld, "web", {}, "?dry_run=yes").json["field"] == "dry_run"


def test_the_audit_log_tells_a_plan_from_a_deed(hulld):
    hulld.post("/v1/machines?dry_run=1", {"name": "planned", "image": "hello"})
    hulld.post("/v1/machines", {"name": "planned", "image": "hello"})
    entries = [entry for entry in hulld.get("/v1/audit?limit=5").json["items"] if entry.get("operation") == "createMachine"]
    assert [entry.get("dry_run", False) for entry in entries[:2]] == [False, True]
