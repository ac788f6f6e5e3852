"""Projects: what one has is not there for another, and none has more of the host than its quotas say."""
import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from free_ports import free_port
from hulld_fixtures import BUILD, Connection, Hulld, make_erofs, wait_until
from test_hulld import refused


@pytest.fixture(scope="module")
def erofs(tmp_path_factory):
    return make_erofs(tmp_path_factory.mktemp("erofs"))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    script = '#!/bin/sh\n[ ! -e /dev/fd/6 ] || cat /dev/fd/6 > "${0%/*}/archive"\nexec sleep 1000\n'
    daemon = Hulld(tmp_path_factory.mktemp("hulld")).with_stand_in(script).start()
    yield daemon
    daemon.stop()


@pytest.fixture
def hulld(daemon):
    """Whose projects go with the test."""
    yield daemon
    for one in daemon.get("/v1/projects").json["items"]:
        acting = In(daemon, one["name"])
        for machine in acting.get("/v1/machines").json["items"]:
            assert acting.delete(f"/v1/machines/{machine['id']}?force=1").status == 204
        if one["name"] != "default":
            assert daemon.delete(f"/v1/projects/{one['name']}").status == 204
    assert os.listdir(daemon.state / "blobs" / "sha256") == os.listdir(daemon.state / "machines") == []


class In:
    """The host's administrator, acting in a project."""

    def __init__(self, hulld, project):
        self.hulld, self.project = hulld, project

    def request(self, method, path, body=None, headers=None):
        return self.hulld.request(method, path, body, {"Hull-Project": self.project, **(headers or {})})

    get, delete = (lambda self, path: self.request("GET", path)), (lambda self, path: self.request("DELETE", path))

    def post(self, path, body=None, **headers):
        return self.request("POST", path, body, headers)

    def image(self, name, content):
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        uploaded = self.request("PUT", f"/v1/blobs/{digest}", content)
        if uploaded.status not in (200, 201):
            return uploaded
        return self.post("/v1/images", {"name": name, "rootfs": digest, "config": {"command": ["/bin/true"]}})


class By:
    """A client with a token."""

    def __init__(self, hulld, token):
        self.hulld, self.token = hulld, token

    def request(self, method, path, body=None, headers=None, **kwargs):
        return self.hulld.request(method, path, body, {"Authorization": "Bearer " + self.token, **(headers or {})}, **kwargs)

    get, delete = (lambda self, path: self.request("GET", path)), (lambda self, path: self.request("DELETE", path))

    def post(self, path, body=None, **headers):
        return self.request("POST", path, body, headers)


def token(acting, *scopes, **more):
    made = acting.post("/v1/tokens", {"scopes": scopes or ["read", "write", "exec"], **more})
    assert made.status == 201, made
    return By(acting.hulld, made.json["token"]), made.json["id"]


def project(hulld, name, erofs=None, **quotas):
    made = wait_until(lambda: (answer := hulld.post("/v1/projects", {"name": name, "quotas": quotas})).status != 503 and answer, "one of that name is gone")
    assert made.status == 201, made
    acting = In(hulld, name)
    if erofs:
        assert acting.image("hello", erofs).status == 201
    return acting


def test_a_project_comes_and_goes_with_all_that_is_its_own(hulld, erofs):
    created = hulld.post("/v1/projects", {"name": "team-a", "quotas": {"machines": 2}})
    assert created.status == 201 and created.json["quotas"]["machines"] == 2 and created.json["quotas"]["ports"] == -1
    refused(hulld.post("/v1/projects", {"name": "team-a"}), 409, "name_taken", "name")
    refused(hulld.post("/v1/projects", {"name": "Team A"}), 400, "invalid_field", "name")
    refused(hulld.post("/v1/projects", {"name": "b", "quotas": {"machine": 2}}), 400, "unknown_field", "quotas.machine")
    assert [one["name"] for one in hulld.get("/v1/projects").json["items"]] == ["default", "team-a"]
    a = In(hulld, "team-a")
    assert a.image("hello", erofs).status == 201
    assert a.post("/v1/machines", {"name": "one", "image": "hello"}).status == 201
    assert hulld.get("/v1/machines").json["items"] == [] and hulld.get("/v1/images").json["items"] == []
    assert a.get("/v1/machines/one").json["project"] == "team-a"
    refused(hulld.delete("/v1/projects/team-a"), 409, "project_in_use")
    refused(hulld.delete("/v1/projects/default"), 409, "project_in_use")
    assert a.delete("/v1/machines/one").status == 204
    assert hulld.delete("/v1/projects/team-a").status == 204
    assert os.listdir(hulld.state / "blobs" / "sha256") == []
    for answer in (hulld.delete("/v1/projects/team-a"), hulld.get("/v1/projects/team-a")):
        refused(answer, 404, "not_found")
    refused(a.get("/v1/machines"), 404, "not_found", "Hull-Project")
    refused(In(hulld, "no/name").get("/v1/machines"), 400, "invalid_field", "Hull-Project")
    project(hulld, "team-a")
    assert a.get("/v1/images").json["items"] == [], "one of the same name is another"


def test_what_a_deleted_project_has_left_goes_by_and_by(tmp_path):
    """It is gone at once all the same, also for a hulld that comes after; one of the same name waits for what is left, and finds nothing."""
    hulld = Hulld(tmp_path).start()

    def count(table):
        with contextlib.closing(sqlite3.connect(hulld.state / "hull.db", timeout=60)) as rows:
            return rows.execute(f"SELECT count(*) FROM {table} WHERE project = 'a'").fetchone()[0]

    def leave(key):
        with contextlib.closing(sqlite3.connect(hulld.state / "hull.db", isolation_level=None, timeout=60)) as rows:
            rows.execute("WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000) INSERT INTO requests"
                         " SELECT 'a', ? || n, '', ?, 200, '', ?, n FROM n", (key, int(time.time() * 1000), "x" * 32768))

    try:
        a, other = project(hulld, "a"), project(hulld, "b")
        for acting in (a, other):
            assert acting.post("/v1/tokens", {"scopes": ["read"]}, **{"Idempotency-Key": "k"}).status == 201
        leave("k")
        assert hulld.delete("/v1/projects/a").status == 204
        refused(hulld.post("/v1/projects", {"name": "a"}, headers={"Idempotency-Key": "again"}), 503, "busy", "name")
        assert count("tokens") == 0
        refused(hulld.get("/v1/projects/a"), 404, "not_found")
        refused(hulld.delete("/v1/projects/a"), 404, "not_found")
        refused(a.get("/v1/events"), 404, "not_found", "Hull-Project")
        assert [one["name"] for one in hulld.get("/v1/projects").json["items"]] == ["b", "default"]
        hulld.kill()
        leave("more")
        hulld.start()
        refused(hulld.post("/v1/projects", {"name": "a"}), 503, "busy", "name")
        refused(hulld.get("/v1/projects/a"), 404, "not_found")
        made = wait_until(lambda: (answer := hulld.post("/v1/projects", {"name": "a"}, headers={"Idempotency-Key": "again"})).status == 201 and answer,
                          "what was left is gone")
        assert made.json["name"] == "a" and count("requests") == count("tokens") == count("departed") == 0
        assert [(event["id"], event["type"]) for event in a.get("/v1/events").json["items"]] == [(1, "project.created")]
        assert other.post("/v1/tokens", {"scopes": ["read"]}, **{"Idempotency-Key": "k"}).headers["Idempotent-Replayed"] == "true"
    finally:
        hulld.stop()


def test_names_keys_and_blobs_are_a_projects_own(hulld, erofs):
    a, b = project(hulld, "a", erofs), project(hulld, "b")
    digest = a.get("/v1/images/hello").json["rootfs"]
    assert a.request("HEAD", f"/v1/blobs/{digest}").status == 200 and b.request("HEAD", f"/v1/blobs/{digest}").status == 404
    refused(b.post("/v1/images", {"name": "x", "rootfs": digest}), 404, "not_found", "rootfs")
    assert b.request("PUT", f"/v1/blobs/{digest}", erofs).status == 201, "it is new to b, and b has to have it"
    assert b.request("PUT", f"/v1/blobs/{digest}", erofs).status == 200
    assert b.image("hello", erofs).status == 201 and len(os.listdir(hulld.state / "blobs" / "sha256")) == 1
    spec = {"name": "web", "image": "hello"}
    first = [acting.post("/v1/machines", spec, **{"Idempotency-Key": "k"}) for acting in (a, b)]
    assert [one.status for one in first] == [201, 201] and first[0].json["id"] != first[1].json["id"]
    assert [a.post("/v1/machines", spec, **{"Idempotency-Key": "k"}).body, b.post("/v1/machines", spec, **{"Idempotency-Key": "k"}).body] \
        == [one.body for one in first]
    assert b.get(f"/v1/machines/{first[0].json['id']}").status == 404
    named = b.post("/v1/machines", {"name": first[0].json["id"], "image": "hello"}).json
    assert b.get(f"/v1/machines/{named['name']}").json["id"] == named["id"], "another's id is a name like any"
    assert b.delete("/v1/images/hello?force=1").status == 204
    for one in b.get("/v1/machines").json["items"]:
        assert b.delete(f"/v1/machines/{one['id']}").status == 204
    hulld.restart()
    assert a.get("/v1/machines/web").json["id"] == first[0].json["id"] and b.get("/v1/machines").json["items"] == []
    assert a.request("HEAD", f"/v1/blobs/{digest}").status == 200 and b.request("HEAD", f"/v1/blobs/{digest}").status == 404
    assert len(os.listdir(hulld.state / "blobs" / "sha256")) == 1


def test_a_port_that_another_project_has_is_taken_and_not_more(hulld, erofs):
    a, b = project(hulld, "a", erofs), project(hulld, "b", erofs)
    spec = {"name": "its-name", "image": "hello", "ports": [{"host": free_port(), "guest": 80}]}
    assert a.post("/v1/machines", spec).status == 201
    assert "its-name" not in refused(b.post("/v1/machines", spec), 409, "port_taken", "ports[0].host")["detail"]
    assert "its-name" in refused(a.post("/v1/machines", {**spec, "name": "x"}), 409, "port_taken", "ports[0].host")["detail"]


@pytest.mark.parametrize("quota,limit,field,more", [
    ("machines", 1, None, {}), ("vcpus", 3, "cpus", {"cpus": 2}), ("memory_mib", 511, "memory_mib", {}),
    ("disk_mib", 40, "disk_mib", {"disk_mib": 32}), ("ports", 0, "ports", {"ports": [{"host": 4321, "guest": 80}]}),
])
def test_a_quota_refuses_what_would_be_too_much(hulld, erofs, quota, limit, field, more):
    a = project(hulld, "a", erofs, **{quota: limit})
    assert a.post("/v1/machines", {"name": "one", "image": "hello", "cpus": 2, "disk_mib": 16}).status == 201
    used = hulld.get("/v1/projects/a").json["usage"]
    assert (used["machines"], used["vcpus"], used["memory_mib"], used["disk_mib"], used["ports"]) == (1, 2, 256, 17, 0)
    problem = refused(a.post("/v1/machines", {"name": "two", "image": "hello", "disk_mib": 16, **more}), 409, "quota_exceeded", field)
    assert f"quota {quota} of project a: {used[quota]} of {limit} are used" in problem["detail"], problem
    assert hulld.get("/v1/projects/a").json["usage"] == used
    if quota == "machines":
        raised = hulld.request("PUT", "/v1/projects/a/quotas", {"machines": 2})
        assert raised.status == 200 and raised.json["quotas"]["machines"] == 2
        assert a.post("/v1/machines", {"name": "two", "image": "hello", "disk_mib": 16}).status == 201
        lowered = hulld.request("PUT", "/v1/projects/a/quotas", {"vcpus": 2})
        assert lowered.json["quotas"] == {"machines": -1, "vcpus": 2, "memory_mib": -1, "disk_mib": -1, "ports": -1}


def test_a_machine_beyond_a_lowered_quota_is_not_started(hulld, erofs):
    a = project(hulld, "a", erofs)
    assert a.post("/v1/machines", {"name": "one", "image": "hello", "network": "none", "disk_mib": 16}).status == 201
    hulld.request("PUT", "/v1/projects/a/quotas", {"memory_mib": 255})
    assert "quota memory_mib" in refused(a.post("/v1/machines/one/start"), 409, "quota_exceeded", "memory_mib")["detail"]
    assert a.get("/v1/machines/one").json["state"] == "created"
    hulld.request("PUT", "/v1/projects/a/quotas", {"memory_mib": 256})
    assert a.post("/v1/machines/one/start").status == 200


def test_machines_that_run_have_no_more_memory_together_than_the_host_gives(tmp_path, erofs):
    """When they are started, by whomever; who is refused learns nothing of what others have."""
    hulld = Hulld(tmp_path, "--memory-overcommit", "10").with_stand_in().start()
    try:
        host = hulld.get("/v1/host").json
        limit = host["memory_mib"] * 10 // 100
        assert host["memory_limit_mib"] == limit
        a, b, size = project(hulld, "a", erofs), project(hulld, "b", erofs), max(64, limit * 2 // 5)
        for acting, name in ((a, "one"), (b, "two"), (b, "three")):
            spec = {"name": name, "image": "hello", "command": ["x"], "network": "none", "disk_mib": 16, "memory_mib": size, "restart": {"policy": "always"}}
            assert acting.post("/v1/machines", spec).status == 201, "one that does not run takes nothing"
        for acting, name in ((a, "one"), (b, "two")):
            assert acting.post(f"/v1/machines/{name}/start").status == 200
        assert a.post("/v1/machines/one/start").status == 200, "it runs already"
        key = {"Idempotency-Key": "k"}
        answer = b.post("/v1/machines/three/start", **key)
        refused(answer, 409, "insufficient_memory", "memory_mib")
        assert answer.json["retryable"] and answer.json["detail"] == f"{size} MiB are more than this host has left for machines", answer
        assert b.get("/v1/machines/three").json["state"] == "created" and hulld.get("/v1/host").json["running"]["memory_mib"] == 2 * size
        assert a.post("/v1/machines/one/kill").status == 200
        wait_until(lambda: a.get("/v1/machines/one").json["state"] in ("stopped", "failed"), "it has ended")
        assert b.post("/v1/machines/three/start", **key).status == 200
        hulld.kill()
        hulld.extra[1] = "1"
        hulld.start()
        pid = wait_until(lambda: b.get("/v1/machines/two").json["pid"], "it is adopted")
        os.kill(pid, signal.SIGKILL)
        two = wait_until(lambda: (m := b.get("/v1/machines/two").json)["cause"] and m["cause"]["code"] == "start_failed" and m, "it is not started again")
        assert "more than this host has left" in two["cause"]["message"] and b.get("/v1/machines/three").json["pid"]
    finally:
        hulld.stop()


@pytest.mark.parametrize("percent", ["0", "-1", "x", "", "100001", "50%", "1e3"])
def test_a_limit_of_memory_that_makes_no_sense_is_refused(tmp_path, percent):
    done = subprocess.run([BUILD / "hulld", "--state", tmp_path, "--run", tmp_path, "--memory-overcommit", percent], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr == "hulld: --memory-overcommit: must be 1 to 100000\n"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_blob_beyond_the_disk_quota_is_not_kept(hulld, erofs, chunked):
    a = project(hulld, "a", erofs, disk_mib=1)
    content = erofs.ljust(1 << 20, b"\0")
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    body = iter([content[:1000], content[1000:]]) if chunked else content
    refused(a.request("PUT", f"/v1/blobs/{digest}", body), 409, "quota_exceeded", "disk_mib")
    assert len(os.listdir(hulld.state / "blobs" / "sha256")) == 1 and a.image("hello", erofs).status == 201


def test_blobs_that_are_uploaded_at_the_same_time_are_counted_together(hulld):
    project(hulld, "a", disk_mib=24)
    uploads = []
    for i in range(4):
        connection = Connection(hulld.socket)
        connection.putrequest("PUT", f"/v1/blobs/sha256:{i:064x}")
        for name, value in (("Hull-Project", "a"), ("Transfer-Encoding", "chunked")):
            connection.putheader(name, value)
        connection.endheaders()
        for _ in range(20):
            connection.send(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
        uploads.append(connection)
    folder = hulld.state / "blobs" / "sha256"
    try:
        hulld.get("/v1/version")
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 40 << 20
    finally:
        for connection in uploads:
            connection.close()
    wait_until(lambda: not list(folder.iterdir()), "nothing of them is left")


# Tokens.

def unauthorized(answer, error):
    refused(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="hull"' + (f', error="{error}"' if error else "")


def forbidden(answer, scope):
    refused(answer, 403, "forbidden")
    assert answer.headers["WWW-Authenticate"] == f'Bearer realm="hull", error="insufficient_scope", scope="{scope}"'


def test_a_token_is_shown_once_and_kept_as_a_hash(hulld, erofs):
    a = project(hulld, "a", erofs)
    made = a.post("/v1/tokens", {"scopes": ["write", "read"], "label": "of the build"}, **{"Idempotency-Key": "k"})
    assert made.status == 201
    text = made.json.pop("token")
    shown = {key: value for key, value in made.json.items() if key != "token"}
    assert text.startswith(f"hull_{shown['id']}_") and len(text) == 71
    assert (shown["project"], shown["label"], shown["scopes"], shown["last_used_at"]) == ("a", "of the build", ["read", "write"], None)
    assert a.get("/v1/tokens").json["items"] == [shown] and a.get(f"/v1/tokens/{shown['id']}").json == shown
    client = By(hulld, text)
    assert client.get("/v1/images").json["items"][0]["name"] == "hello"
    assert a.get("/v1/tokens").json["items"][0]["last_used_at"] >= shown["created_at"]
    for _ in range(2):
        refused(a.post("/v1/tokens", {"scopes": []}, **{"Idempotency-Key": "l"}), 400, "invalid_field", "scopes")
    hulld.restart()
    assert client.get("/v1/images").status == 200
    for file in hulld.state.glob("hull.db*"):
        assert text[-52:].encode() not in file.read_bytes()
    with sqlite3.connect(hulld.state / "hull.db") as rows:
        assert rows.execute("SELECT hash FROM tokens").fetchone() == (hashlib.sha256(text.encode()).hexdigest(),)


def test_who_a_token_does_not_name_is_nobody(hulld):
    client, id_ = token(project(hulld, "a"), "read")
    wrong = client.token[:-1] + ("a" if client.token[-1] != "a" else "b")
    for text in (wrong, client.token + "a", client.token[:-1], "hull_", f"hull_{id_}", client.token.replace(id_, "t" + "a" * 12)):
        unauthorized(By(hulld, text).get("/v1/images"), "invalid_token")
        unauthorized(By(hulld, text).get("/v1/nothing"), "invalid_token")
    assert client.request("GET", "/v1/images", headers={"Hull-Project": "a"}).status == 200
    there, not_there = (client.request("GET", "/v1/images", headers={"Hull-Project": name}) for name in ("default", "nowhere"))
    refused(there, 404, "not_found", "Hull-Project")
    assert there.body.replace(b"default", b"nowhere") == not_there.body


@pytest.mark.parametrize("scopes", [("read",), ("write",), ("exec",), ("admin",), ("read", "write", "exec", "admin")])
def test_a_scope_is_what_its_routes_need(hulld, scopes):
    """All routes there are, by what the document says of them."""
    client, id_ = token(project(hulld, "a"), *scopes)
    seen = set()
    for path, methods in hulld.get("/v1/openapi.json").json["paths"].items():
        for method, operation in methods.items():
            needed = operation["security"][0]["token"]
            answer = client.request(method.upper(), path.replace("{", "no-").replace("}", ""))
            seen.add(needed[0] if needed else None)
            if not needed or needed[0] in scopes:
                assert answer.status not in (401, 403), (method, path, answer)
            elif method != "head":
                forbidden(answer, needed[0])
            else:
                assert answer.status == 403
    assert seen == {None, "read", "write", "exec", "admin", "host"}


def test_a_token_gives_nothing_that_it_has_not(hulld):
    a, b = project(hulld, "a"), project(hulld, "b")
    admin, admin_id = token(a, "admin", "read", expires_in_s=1000)
    refused(admin.post("/v1/tokens", {"scopes": ["write"], "expires_in_s": 10}), 403, "forbidden", "scopes")
    for expiry in ({}, {"expires_in_s": 0}, {"expires_in_s": 2000}):
        refused(admin.post("/v1/tokens", {"scopes": ["read"], **expiry}), 403, "forbidden", "expires_in_s")
    given, given_id = token(admin, "read", expires_in_s=10)
    assert given.get("/v1/projects").json["items"][0]["name"] == "a" and len(given.get("/v1/projects").json["items"]) == 1
    other = token(b, "admin")[0]
    assert [one["id"] for one in admin.get("/v1/tokens").json["items"]] == [admin_id, given_id]
    for method in ("GET", "DELETE"):
        there, not_there = other.request(method, f"/v1/tokens/{given_id}"), other.request(method, "/v1/tokens/" + "t" * 13)
        assert there.status == 404 and there.body.replace(given_id.encode(), b"t" * 13) == not_there.body
    assert admin.delete(f"/v1/tokens/{admin_id}").status == 204, "its own, whose answer it still gets"
    unauthorized(admin.get("/v1/tokens"), "invalid_token")
    assert given.get("/v1/images").status == 200
    for bad, field in (({"scopes": ["host"]}, "scopes[0]"), ({"scopes": ["read"], "expires_in_s": -1}, "expires_in_s"),
                       ({"scopes": ["read"], "label": "x" * 101}, "label"), ({"scopes": ["read"] * 5}, "scopes")):
        refused(a.post("/v1/tokens", bad), 400, "invalid_field", field)
    refused(a.post("/v1/tokens", {}), 400, "missing_field", "scopes")


def began(client, path):
    connection = Connection(client.hulld.socket)
    connection.request("GET", path, headers={"Authorization": "Bearer " + client.token})
    return connection


@pytest.mark.parametrize("end", ["revoked", "expired", "project deleted"])
def test_what_is_under_way_ends_with_its_token(hulld, erofs, end):
    a = project(hulld, "a", erofs)
    machine = {"name": "one", "image": "hello", "network": "none", "disk_mib": 16}
    assert a.post("/v1/machines", machine).status == 201 and a.post("/v1/machines/one/start").status == 200
    other = token(a, "read")[0]
    client, id_ = token(a, "read", "write", expires_in_s=4 if end == "expired" else 0)
    pending = [began(client, "/v1/machines/one/wait?state=running&timeout_s=50"), began(client, "/v1/machines/one/logs?follow=1"),
               began(other, "/v1/machines/one/wait?state=stopped")]
    for _ in range(2):
        assert hulld.get("/v1/version").status == 200  # what was sent before has been read
    if end == "project deleted":
        assert a.post("/v1/machines/one/kill").status == 200 and a.delete("/v1/machines/one").status == 204
        assert hulld.delete("/v1/projects/a").status == 204
        unauthorized(other.get("/v1/images"), "invalid_token")
        return
    if end == "revoked":
        assert a.delete(f"/v1/tokens/{id_}").status == 204
    for connection in pending[:2]:
        with pytest.raises((OSError, http.client.HTTPException)):
            connection.getresponse().read()
    answer = client.get("/v1/images")
    unauthorized(answer, "invalid_token")
    assert answer.json["detail"] == ("the token has expired" if end == "expired" else "the token is wrong")
    if end == "expired": # not said of one that is only like it
        unauthorized(answer := By(hulld, client.token[:-1] + ("a" if client.token[-1] != "a" else "b")).get("/v1/images"), "invalid_token")
        assert answer.json["detail"] == "the token is wrong"
    assert a.post("/v1/machines/one/kill").status == 200
    assert pending[2].getresponse().status == 200, "another's goes on"


# Secrets.

VALUE = "s3cr3t-of-the-\u00fcnit-test"


def holders(folder, text):
    """The files below `folder` that have `text` in them."""
    return [path for path in Path(folder).rglob("*") if path.is_file() and text in path.read_bytes()]


def test_a_secret_is_shown_by_name_only_and_sealed(hulld):
    a, b = project(hulld, "a"), project(hulld, "b")
    made = a.request("PUT", "/v1/secrets/DB_URL", {"value": VALUE})
    assert made.status == 201 and set(made.json) == {"name", "created_at", "updated_at"}
    again = a.request("PUT", "/v1/secrets/DB_URL", {"value": VALUE + "2"})
    assert again.status == 200 and again.json["created_at"] == made.json["created_at"]
    assert a.request("PUT", "/v1/secrets/ANOTHER", {"value": ""}).status == 201
    assert [one["name"] for one in a.get("/v1/secrets").json["items"]] == ["ANOTHER", "DB_URL"]
    assert a.get("/v1/secrets/DB_URL").json == again.json and b.get("/v1/secrets").json["items"] == []
    for answer in (b.get("/v1/secrets/DB_URL"), b.delete("/v1/secrets/DB_URL"), a.get("/v1/secrets/NONE")):
        refused(answer, 404, "not_found")
    for name, body, field in (("1A", {"value": "x"}, "secret"), ("A-B", {"value": "x"}, "secret"), ("A" * 64, {"value": "x"}, "secret"),
                              ("A", {"value": "x" * 65537}, "value"), ("A", {"value": 1}, "value")):
        refused(a.request("PUT", f"/v1/secrets/{name}", body), 400, "invalid_field", field)
    assert oct((hulld.state / "secrets.key").stat().st_mode)[-3:] == "600"
    assert not holders(hulld.state, VALUE.encode()) and not holders(hulld.folder, VALUE.encode())
    with sqlite3.connect(hulld.state / "hull.db") as rows:
        sealed = {name: value for name, value in rows.execute("SELECT name, sealed FROM secrets")}
    assert len(sealed["ANOTHER"]) == 24 + 16 and len(sealed["DB_URL"]) == 24 + len(VALUE.encode()) + 1 + 16
    assert a.delete("/v1/secrets/ANOTHER").status == 204 and a.get("/v1/secrets/ANOTHER").status == 404


def test_secrets_certificates_and_images_of_a_project_have_an_end(tmp_path):
    """Else who may write fills the database with them."""
    hulld = Hulld(tmp_path, "--http", f"127.0.0.1:{free_port()}").with_stand_in().start()
    try:
        hulld.image("any", make_erofs(tmp_path))
        assert hulld.request("PUT", "/v1/secrets/OLD", {"value": "x"}).status == 201
        assert hulld.post("/v1/machines", {"name": "a", "image": "any", "command": ["any"], "ports": [{"hostname": "a.localhost", "guest": 1}]}).status == 201
        hulld.kill()
        with sqlite3.connect(hulld.state / "hull.db") as rows:
            rows.executemany("INSERT INTO secrets VALUES ('default', ?, x'00', 1, 1)", [(f"S{n}",) for n in range(999)])
            rows.executemany("INSERT INTO certificates VALUES ('default', ?, '', x'00', 1, 1, 1, '')", [(f"n{n}.localhost",) for n in range(1000)])
            rows.executemany("INSERT INTO images SELECT project, ?1, rootfs, json_set(document, '$.name', ?1) FROM images WHERE name = 'any'", [(f"i{n}",) for n in range(999)])
            rootfs = rows.execute("SELECT rootfs FROM images WHERE name = 'any'").fetchone()[0]
        rows.close()
        hulld.start()
        assert "1000 secrets" in refused(hulld.request("PUT", "/v1/secrets/NEW", {"value": "x"}), 409, "quota_exceeded")["detail"]
        certificate = {"certificate": "x", "key": "x"}
        assert "1000 certificates" in refused(hulld.request("PUT", "/v1/certificates/a.localhost", certificate), 409, "quota_exceeded")["detail"]
        assert "1000 images" in refused(hulld.post("/v1/images", {"name": "new", "rootfs": rootfs}), 409, "quota_exceeded")["detail"]
        assert hulld.post("/v1/images", {"name": "any", "rootfs": rootfs}).status == 201, "it takes its own place"
        assert hulld.delete("/v1/images/i1").status == 204 and hulld.post("/v1/images", {"name": "new", "rootfs": rootfs}).status == 201
        assert hulld.request("PUT", "/v1/secrets/OLD", {"value": "y"}).status == 200
        assert In(hulld, "default").delete("/v1/secrets/S1").status == hulld.delete("/v1/certificates/n1.localhost").status == 204
        assert hulld.request("PUT", "/v1/secrets/NEW", {"value": "x"}).status == 201
        refused(hulld.request("PUT", "/v1/certificates/a.localhost", certificate), 400, "invalid_field", "certificate")
    finally:
        hulld.stop()


def test_no_project_has_all_ports(hulld, erofs):
    """There are 4096. One takes as many as it leaves; the host's owner takes what is left, and no more."""
    addresses = (f"127.77.{n}.{m}" for n in range(1, 255) for m in range(1, 255))

    def create(acting, name, n=64):
        ports = [{"address": address, "host": 30000 + port, "guest": 80} for address in [next(addresses)] for port in range(n)]
        return acting.post("/v1/machines", {"name": name, "image": "hello", "ports": ports})

    a, b, owner = project(hulld, "a", erofs), project(hulld, "b", erofs), In(hulld, "default")
    assert owner.image("hello", erofs).status == 201
    for n in range(32):
        assert create(a, f"m{n}").status == 201
    problem = refused(create(a, "more", 1), 409, "quota_exceeded", "ports")
    assert problem["detail"] == "this host publishes 4096 ports, and a project has at most as many as it leaves to others"
    patch = {"Content-Type": "application/merge-patch+json"}
    fewer = [{"address": "127.77.0.1", "host": 30000, "guest": 81}]
    assert a.request("PATCH", "/v1/machines/m0", json.dumps({"ports": fewer}), patch).status == 200, "of what it has"
    assert a.delete("/v1/machines/m1").status == 204
    # Nor by changes that are made at the same time, each of which has enough when it begins, though not for a moment.
    at_once = [Connection(hulld.socket) for _ in range(2)]
    for n in range(2):
        assert create(a, f"empty{n}", 0).status == 201
    for n, connection in enumerate(at_once):
        more = [{"address": f"127.78.0.{n + 1}", "host": 30000 + port, "guest": 80} for port in range(64)]
        connection.request("PATCH", f"/v1/machines/empty{n}", json.dumps({"ports": more}), {"Hull-Project": "a", **patch})
    answers = [connection.getresponse() for connection in at_once]
    assert sorted(answer.status for answer in answers) == [200, 409]
    assert [json.load(answer)["code"] for answer in answers if answer.status == 409] == ["quota_exceeded"]
    for connection in at_once:
        connection.close()
    assert create(a, "rest", 63).status == 201 and create(b, "m", 64).status == 201
    other = [{"address": "127.77.0.1", "host": 30001, "guest": 81}]
    assert a.request("PATCH", "/v1/machines/m0", json.dumps({"ports": other}), patch).status == 200, "in the place of what it has"
    for n in range(30):
        assert create(owner, f"m{n}").status == 201
    assert create(owner, "last", 65).status == 400
    refused(create(b, "more", 33), 409, "quota_exceeded", "ports")
    assert create(owner, "last", 64).status == 201
    refused(create(owner, "more", 1), 409, "quota_exceeded", "ports")
    for machine in owner.get("/v1/machines").json["items"]:
        assert owner.delete(f"/v1/machines/{machine['id']}").status == 204
    assert owner.delete("/v1/images/hello").status == 204


def test_tokens_of_a_project_have_an_end_and_expired_ones_go(hulld):
    """Those that have expired make room; what is another project's is as it was."""
    day, read, admin = 86400_000, 1 << 1, 1 << 4
    a = project(hulld, "a")
    kept = token(a, "admin")[0]
    now = int(time.time() * 1000)

    def insert(project, n, scopes, expires_at):
        with contextlib.closing(sqlite3.connect(hulld.state / "hull.db", isolation_level=None, timeout=60)) as rows:
            rows.execute("BEGIN IMMEDIATE")
            first, = rows.execute("SELECT count(*) FROM tokens").fetchone()
            rows.executemany("INSERT INTO tokens VALUES (?, ?, '', '', ?, 1, ?, 0)",
                             [(f"t{first + n:012d}", project, scopes, expires_at) for n in range(n)])
            rows.execute("COMMIT")

    def events(acting, kind):
        return len(acting.get(f"/v1/events?type=token.{kind}&limit=1000").json["items"])

    insert("a", 98, admin, 0)
    insert("a", 1, admin, now - day)
    assert a.post("/v1/tokens", {"scopes": ["admin"]}).status == 201, "in the place of the expired one"
    problem = refused(a.post("/v1/tokens", {"scopes": ["read", "admin"]}), 409, "quota_exceeded")
    assert problem["detail"] == "a project may have 100 tokens with the scope admin" and problem["hint"] == "revoke what is not needed"
    insert("a", 898, read, now + 100 * day)
    insert("a", 2, read, now - day)
    assert a.post("/v1/tokens", {"scopes": ["read"]}).status == a.post("/v1/tokens", {"scopes": ["read"]}).status == 201
    assert len(a.get("/v1/tokens").json["items"]) == 1000 and events(a, "removed") == 3 and events(a, "revoked") == 0
    refused(kept.post("/v1/tokens", {"scopes": ["admin"], "expires_in_s": 10}), 409, "quota_exceeded")
    refused(a.post("/v1/tokens", {"scopes": ["read"]}, **{"Idempotency-Key": "k"}), 409, "quota_exceeded")
    one = a.get("/v1/tokens").json["items"][500]["id"]
    assert a.delete(f"/v1/tokens/{one}").status == 204 and events(a, "revoked") == 1
    assert a.post("/v1/tokens", {"scopes": ["read"]}).status == 201


def test_only_machines_of_the_host_itself_share_their_kernels_code(hulld, erofs):
    """Who has a page that another machine executes can tell by the time of a read."""
    assert In(hulld, "default").image("hello", erofs).status == 201
    for acting, is_private in ((In(hulld, "default"), False), (project(hulld, "a", erofs), True)):
        machine = acting.post("/v1/machines", {"name": "one", "image": "hello", "network": "none", "disk_mib": 16}).json
        assert acting.post("/v1/machines/one/start").status == 200
        path = hulld.state / "machines" / machine["id"] / "config.json"
        wait_until(path.exists, "the monitor has its configuration")
        assert json.loads(path.read_text())["boot-source"]["private_kernel"] is is_private
    for acting in (In(hulld, "default"), In(hulld, "a")):
        assert acting.post("/v1/machines/one/kill").status == 200
    assert In(hulld, "default").delete("/v1/machines/one?force=1").status == 204
    assert In(hulld, "default").delete("/v1/images/hello").status == 204


def test_a_machine_has_its_secrets_in_memory_only(hulld, erofs):
    a = project(hulld, "a", erofs)
    assert a.request("PUT", "/v1/secrets/DB_URL", {"value": VALUE}).status == 201
    spec = {"name": "one", "image": "hello", "network": "none", "disk_mib": 16, "secrets": ["DB_URL"], "env": {"A": "b"}}
    machine = a.post("/v1/machines", spec)
    assert machine.status == 201 and machine.json["secrets"] == ["DB_URL"]
    assert a.post("/v1/machines/one/start").status == 200
    archive = hulld.folder / "archive"
    wait_until(lambda: archive.exists() and b"TRAILER!!!" in archive.read_bytes(), "the monitor has its guest's archive")
    config = archive.read_bytes()
    config = json.loads(config[config.index(b"{"):config.index(b"\0", config.index(b"{"))])
    archive.unlink()
    assert config["env"]["DB_URL"] == VALUE and config["env"]["A"] == "b"
    pid = a.get("/v1/machines/one").json["pid"]
    for text in (VALUE.encode(), json.dumps(VALUE)[1:-1].encode()):
        assert not holders(hulld.folder, text) and text not in a.get("/v1/machines/one").body
        for process in (pid, hulld.process.pid):
            assert all(text not in Path(f"/proc/{process}/{name}").read_bytes() for name in ("cmdline", "environ"))
    for process in (hulld.process.pid, pid):  # of 1, unlike 0, nothing goes to a program either (core(5))
        limit = re.search(r"Max core file size +(\S+) +(\S+)", Path(f"/proc/{process}/limits").read_text())
        assert limit[1] == ("0" if limit[2] == "0" else "1"), limit[0]
    assert a.post("/v1/machines/one/kill").status == 200
    assert a.delete("/v1/secrets/DB_URL").status == 204, "anything can be deleted"
    problem = refused(a.post("/v1/machines/one/start"), 404, "not_found", "secrets[0]")
    assert problem["hint"] == "set it with PUT /v1/secrets/DB_URL"
    with sqlite3.connect(hulld.state / "hull.db") as rows:
        assert VALUE not in str(rows.execute("SELECT * FROM machines").fetchall())


def test_secrets_of_a_machine_are_the_projects_and_no_variables_too(hulld, erofs):
    a, b = project(hulld, "a", erofs), project(hulld, "b")
    assert b.request("PUT", "/v1/secrets/ITS", {"value": "x"}).status == 201
    assert a.request("PUT", "/v1/secrets/MINE", {"value": "x"}).status == 201
    theirs = refused(a.post("/v1/machines", {"image": "hello", "secrets": ["MINE", "ITS"]}), 404, "not_found", "secrets[1]")
    none = refused(a.post("/v1/machines", {"image": "hello", "secrets": ["MINE", "NONE"]}), 404, "not_found", "secrets[1]")
    assert json.dumps(theirs).replace("ITS", "NONE") == json.dumps(none)
    refused(a.post("/v1/machines", {"image": "hello", "secrets": ["MINE", "MINE"]}), 400, "invalid_field", "secrets[1]")
    refused(a.post("/v1/machines", {"image": "hello", "secrets": ["MINE"], "env": {"MINE": ""}}), 400, "invalid_field", "secrets[0]")
    refused(a.post("/v1/machines", {"image": "hello", "secrets": ["a b"]}), 400, "invalid_field", "secrets[0]")
    assert a.get("/v1/machines").json["items"] == []


@pytest.mark.parametrize("moved", ["key", "name"])
def test_what_was_sealed_opens_with_its_key_and_name_only(tmp_path, erofs, moved):
    """And the key may be systemd's."""
    (tmp_path / "hull-secrets-key").write_bytes(b"k" * 32)
    daemon = Hulld(tmp_path, env={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    daemon.options["--vmm"] = "/bin/false"
    daemon.options["--kernel"] = daemon.options["--initrd"] = "/etc/hostname"
    daemon.start()
    try:
        assert not (daemon.state / "secrets.key").exists()
        assert daemon.request("PUT", "/v1/secrets/A", {"value": VALUE}).status == 201
        daemon.image("hello", erofs, command=["/bin/true"])
        spec = {"name": "one", "image": "hello", "network": "none", "disk_mib": 16, "secrets": ["A"]}
        assert daemon.post("/v1/machines", spec).status == 201 and daemon.post("/v1/machines/one/start").status == 200
        assert daemon.wait("one", "failed")["cause"]["code"] == "monitor_died"
        daemon.kill()
        if moved == "key":
            (tmp_path / "hull-secrets-key").write_bytes(b"K" * 32)
        else:
            with sqlite3.connect(daemon.state / "hull.db") as rows:
                rows.execute("UPDATE secrets SET project = 'default', name = 'B'")
                rows.execute("UPDATE machines SET spec = replace(spec, '\"A\"', '\"B\"')")
        daemon.start()
        assert daemon.post("/v1/machines/one/start").status == 200
        cause = daemon.wait("one", "failed")["cause"]
        assert cause["code"] == "start_failed" and "does not open with this host's key" in cause["message"], cause
        daemon.kill()
        (tmp_path / "hull-secrets-key").write_bytes(b"short")
        refusal = subprocess.run(daemon.command(), env=daemon.env, capture_output=True, text=True, timeout=60)
        assert refusal.returncode == 1 and "must hold a key of 32 bytes" in refusal.stderr
        (tmp_path / "hull-secrets-key").unlink()
        daemon.start()
        assert (daemon.state / "secrets.key").stat().st_size == 32
    finally:
        daemon.stop()


def test_hull_sets_lists_and_forgets_secrets(hulld, tmp_path):
    def hull(*words, text=None, status=0):
        done = subprocess.run([BUILD / "hull", "secret", *words], input=text, text=True, capture_output=True, timeout=60,
                              env={"HULL_HOST": f"unix://{hulld.socket}", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"})
        assert done.returncode == status, done
        return done.stdout if status == 0 else done.stderr

    (tmp_path / "value").write_text(VALUE)
    assert hull("set", "ONE", text=VALUE + "\n") == "ONE\n" and hull("set", "TWO", "--file", tmp_path / "value") == "TWO\n"
    with sqlite3.connect(hulld.state / "hull.db") as rows:
        assert {len(sealed) for sealed, in rows.execute("SELECT sealed FROM secrets")} == {24 + len(VALUE.encode()) + 16}
    assert [line.split()[0] for line in hull("list").splitlines()] == ["NAME", "ONE", "TWO"]
    assert "value" in hull("set", "BIG", text="x" * 65537, status=1) and "cannot" not in hull("set", "A", "x", text="y", status=2)
    assert hull("rm", "ONE", "TWO") == "ONE\nTWO\n" and "hull secret list" in hull("rm", "ONE", status=1)


def test_hull_makes_projects_and_tokens(hulld, tmp_path):
    def hull(*words, status=0, **env):
        done = subprocess.run([BUILD / "hull", *words], text=True, capture_output=True, timeout=60,
                              env={"HULL_HOST": f"unix://{hulld.socket}", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", **env})
        assert done.returncode == status, done
        return done.stdout if status == 0 else done.stderr

    assert hull("project", "create", "a", "--machines", "3") == "a\n"
    assert hulld.get("/v1/projects/a").json["quotas"] == {"machines": 3, "vcpus": -1, "memory_mib": -1, "disk_mib": -1, "ports": -1}
    assert hull("project", "set", "a", "--machines", "none", "--ports", "4") == "a\n"
    assert json.loads(hull("project", "inspect", "a"))["quotas"] == {"machines": -1, "vcpus": -1, "memory_mib": -1, "disk_mib": -1, "ports": 4}
    header, *rows = hull("project", "list").splitlines()
    assert re.split("  +", header) == ["NAME", "MACHINES", "VCPUS", "MEMORY MIB", "DISK MIB", "PORTS", "CREATED"]
    assert [row.split()[:6] for row in rows if row.startswith("a ")] == [["a", "0", "0", "0", "0", "0/4"]]
    assert sorted(hull("project", "list", "-q").split()) == ["a", "default"] and len(json.loads(hull("project", "list", "-o", "json"))) == 2
    assert "nothing is to change" in hull("project", "set", "a", status=2) and "--ports" in hull("project", "set", "a", "--ports", "many", status=2)
    text = hull("token", "create", "--scope", "read", "--name", "ci", HULL_PROJECT="a").strip()
    assert By(hulld, text).get("/v1/projects").json["items"][0]["name"] == "a"
    assert "a" in hull("project", "list", HULL_TOKEN=text) and "default" not in hull("project", "list", HULL_TOKEN=text)
    assert "has not the scope admin" in hull("token", "list", status=1, HULL_TOKEN=text)
    row = hull("token", "list", HULL_PROJECT="a").splitlines()[1]
    id_ = row.split()[0]
    assert re.search(r"  \d{4}-\d\d-\d\dT\d\d:\d\dZ$", row)
    assert hull("token", "rm", id_, HULL_PROJECT="a") == f"{id_}\n"
    assert "the token is wrong" in hull("project", "list", status=1, HULL_TOKEN=text)
    assert hull("project", "rm", "a") == "a\n" and "hull project list" in hull("project", "rm", "a", status=1)


def test_quotas_that_are_set_at_the_same_time_are_all_set(hulld, tmp_path):
    assert hulld.request("POST", "/v1/projects", {"name": "a"}).status == 201
    quotas = dict.fromkeys(hulld.get("/v1/projects/a").json["quotas"], 7)
    setting = [subprocess.Popen([BUILD / "hull", "project", "set", "a", f"--{key.replace('_', '-')}", "7"], stdout=subprocess.DEVNULL,
                                env={"HULL_HOST": f"unix://{hulld.socket}", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}) for key in quotas]
    assert [process.wait(60) for process in setting] == [0] * len(quotas)
    assert hulld.get("/v1/projects/a").json["quotas"] == quotas
