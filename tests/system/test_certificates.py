"""Certificates that a project gives, as resources: conditions, events, pages, what is kept of them, and what HAProxy does not take."""
import contextlib
import sqlite3
import subprocess

import pytest

from free_ports import free_port
from hulld_fixtures import BUILD, Hulld, make_erofs, wait_until
from test_hulld import refused
from test_hostnames import haproxy_says, make_certificate


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    http, https = free_port(), free_port()
    daemon = Hulld(tmp_path_factory.mktemp("hulld"), "--http", f"127.0.0.1:{http}", "--https", f"127.0.0.1:{https}").with_stand_in().start()
    daemon.https = https
    daemon.image("any", make_erofs(daemon.folder), command=["any"])
    yield daemon
    daemon.stop()


@pytest.fixture
def named(hulld):
    """Gives names to machines, which go with the test, as their certificates do."""
    def name(*hostnames):
        ports = [{"hostname": hostname, "guest": 80} for hostname in hostnames]
        assert hulld.post("/v1/machines", {"image": "any", "network": "none", "disk_mib": 16, "ports": ports}).status == 201
    yield name
    for one in hulld.get("/v1/certificates").json["items"]:
        assert hulld.delete(f"/v1/certificates/{one['hostname']}").status == 204
    for one in hulld.get("/v1/machines").json["items"]:
        assert hulld.delete(f"/v1/machines/{one['id']}?force=1").status == 204


def put(hulld, name, body, **headers):
    return hulld.request("PUT", f"/v1/certificates/{name}", body, headers)


def events(hulld, after):
    page = hulld.get(f"/v1/events?type=certificate&after={after}").json
    return [(one["type"], one["subject"], one["data"]) for one in page["items"]]


def cursor(hulld):
    return hulld.get("/v1/events?after=0&limit=1000").json["cursor"]


def served(hulld, name):
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{hulld.https}", "-servername", name], input=b"", capture_output=True)
    return subprocess.run(["openssl", "x509", "-noout", "-issuer", "-serial"], input=done.stdout, capture_output=True).stdout


def serves(hulld, name, ours):
    """A certificate of the host's own, or one that was given."""
    def look():
        said = served(hulld, name)
        return said and (b"Hull" in said) == ours
    wait_until(look, f"{'ours' if ours else 'what was given'} is served for {name}")


def test_conditions_and_events(hulld, named):
    name, path = "one.some.localhost", "/v1/certificates/one.some.localhost"
    named(name)
    after = cursor(hulld)
    one, other = make_certificate(name=name), make_certificate(name="*.some.localhost")
    refused(put(hulld, name, one, **{"If-Match": "*"}), 412, "precondition_failed", "If-Match")
    assert put(hulld, name, one, **{"If-None-Match": "*"}).status == 201
    first = hulld.get(path)
    assert first.headers["ETag"] and first.json["refused"] is None and first.json["expires_at"] > first.json["created_at"]
    assert hulld.request("GET", path, headers={"If-None-Match": first.headers["ETag"]}).status == 304
    assert hulld.request("GET", path, headers={"If-Match": first.headers["ETag"]}).body == first.body
    refused(hulld.request("GET", path, headers={"If-Match": '"another"'}), 412, "precondition_failed", "If-Match")
    for wrong, field in (({"If-None-Match": "*"}, "If-None-Match"), ({"If-Match": '"another"'}, "If-Match")):
        refused(put(hulld, name, other, **wrong), 412, "precondition_failed", field)
        assert hulld.get(path).body == first.body
    refused(hulld.request("DELETE", path, headers={"If-Match": '"another"'}), 412, "precondition_failed", "If-Match")
    changed = put(hulld, name, other, **{"If-Match": first.headers["ETag"]})
    assert changed.status == 200 and changed.headers["ETag"] == hulld.get(path).headers["ETag"] != first.headers["ETag"]
    assert hulld.request("DELETE", path, headers={"If-Match": changed.headers["ETag"]}).status == 204
    assert events(hulld, after) == [("certificate.set", name, {}), ("certificate.set", name, {}), ("certificate.deleted", name, {})]


def test_every_get_of_one_thing_looks_at_its_conditions(hulld, named):
    """Whichever the route is: what a field of the document says is so."""
    named("all.localhost")
    assert put(hulld, "all.localhost", make_certificate(name="all.localhost")).status == 201
    hook = hulld.post("/v1/webhooks", {"url": "https://example.org/", "enabled": False}).json["id"]
    token = hulld.post("/v1/tokens", {"scopes": ["read"]}).json["id"]
    machine = hulld.get("/v1/machines").json["items"][0]["id"]
    assert hulld.post(f"/v1/machines/{machine}/start").status == 200
    assert hulld.request("PUT", "/v1/secrets/S", {"value": "x"}).status == 201
    operation = hulld.get("/v1/operations").json["items"][-1]["id"]
    there = {"hostname": "all.localhost", "webhook": hook, "token": token, "machine": machine, "secret": "S", "operation": operation,
             "image": "any", "project": "default", "volume": "all"}
    assert hulld.post("/v1/volumes", {"name": "all", "size_mib": 16}).status == 201
    if hulld.get("/v1/host").json["networks"]["available"]:
        assert hulld.post("/v1/networks", {"name": "all"}).status == 201
        there["network"] = "all"
    seen = 0
    for path, methods in hulld.get("/v1/openapi.json").json["paths"].items():
        get = methods.get("get", {"parameters": []})
        if "If-Match" not in [one["name"] for one in get["parameters"]] or path.rsplit("/", 1)[1] in ("wait", "logs", "files", "stats"):
            continue
        if "{network}" in path and "network" not in there:
            continue
        url = path.format(**there)
        assert hulld.get(url).status == 200, url
        refused(hulld.request("GET", url, headers={"If-Match": '"another"'}), 412, "precondition_failed", "If-Match")
        seen += 1
    assert seen == len(there)
    hulld.delete(f"/v1/webhooks/{hook}"), hulld.delete(f"/v1/tokens/{token}"), hulld.delete("/v1/secrets/S")
    assert hulld.delete("/v1/volumes/all").status == 204
    assert "network" not in there or hulld.delete("/v1/networks/all").status == 204


def test_a_name_may_be_as_long_as_names_are(hulld, named):
    name = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 51, "localhost"])
    assert len(name) == 253
    named(name)
    given = make_certificate(name=name)
    assert put(hulld, name, given).status == 201 and hulld.get(f"/v1/certificates/{name}").json["hostname"] == name
    serves(hulld, name, False)
    wait_until(lambda: (hulld.run / "http" / "certificates" / name).is_file(), "HAProxy has taken it")
    refused(hulld.get("/v1/certificates/" + "x" + name), 400, "invalid_field", "hostname")
    refused(hulld.get("/v1/certificates/" + "x" * 300), 404, "not_found")


def test_a_list_has_pages_and_reads_no_certificate(hulld, named):
    """What is read is what was kept when it was set: of what an older hulld has left, when hulld starts."""
    names = [f"n{n}.localhost" for n in range(3)]
    named(*names)
    given = make_certificate(name="n0.localhost")
    expires = put(hulld, "n0.localhost", given).json["expires_at"]
    hulld.kill()
    with contextlib.closing(sqlite3.connect(hulld.state / "hull.db", isolation_level=None)) as rows:
        rows.execute("UPDATE certificates SET expires_at = 0")
        rows.execute("INSERT INTO certificates SELECT project, 'n1.localhost', certificate, sealed, 1, 1, 1, '' FROM certificates")
        rows.execute("INSERT INTO certificates VALUES ('default', 'n2.localhost', 'none', x'00', 1, 1, 0, '')")
    hulld.start()
    shown = hulld.get("/v1/certificates").json["items"]
    assert [(one["hostname"], one["expires_at"][:4]) for one in shown] == list(zip(names, (expires[:4], "1970", "1970")))
    assert shown[0]["expires_at"] == expires
    pages, after = [], ""
    while after is not None:
        page = hulld.get("/v1/certificates?limit=1" + after).json
        pages += page["items"]
        after = "&cursor=" + page["next"] if "next" in page else None
    assert pages == shown


def test_one_that_haproxy_refuses_is_said_to_be_and_ours_is_served(hulld, named):
    name = "bad.localhost"
    named(name)
    given = make_certificate(name=name)
    file = hulld.run / "http" / "certificates" / name
    assert put(hulld, name, given).status == 201
    wait_until(lambda: file.is_file() and given["certificate"] in file.read_text(), "HAProxy has taken it")
    hulld.kill()
    with contextlib.closing(sqlite3.connect(hulld.state / "hull.db", isolation_level=None)) as rows:
        rows.execute("UPDATE certificates SET certificate = '-----BEGIN CERTIFICATE-----' || char(10) || 'bm9uZQ==' || char(10)"
                     " || '-----END CERTIFICATE-----' || char(10)")
    file.unlink()
    after = cursor_of(hulld)
    hulld.start()
    reason = wait_until(lambda: hulld.get(f"/v1/certificates/{name}").json["refused"], "it is told")
    serves(hulld, name, True)
    assert events(hulld, after) == [("certificate.refused", name, {"reason": reason})]
    listed = subprocess.run([BUILD / "hull", "certificate", "list"], env={"HULL_HOST": f"unix://{hulld.socket}"}, capture_output=True, text=True).stdout
    assert [line.split()[-1] for line in listed.splitlines()] == ["STATE", "refused"] and listed.splitlines()[1].startswith(name), listed
    log = hulld.log.read_text()
    assert log.count("is not served: ") == 1 and reason in log and "haproxy: " not in log and str(hulld.run) not in reason, log
    hulld.restart()
    assert hulld.get(f"/v1/certificates/{name}").json["refused"] == reason and events(hulld, after) == [("certificate.refused", name, {"reason": reason})]
    assert put(hulld, name, given).json["refused"] is None
    serves(hulld, name, False)


def test_what_a_hulld_has_left_half_told_is_in_nobodys_way(hulld, named):
    """Of a name that there is no more, too."""
    named("next.localhost")
    serves(hulld, "next.localhost", True)
    left = f"{hulld.run}/http/certificates/left.localhost"
    other, given = make_certificate(name="left.localhost"), make_certificate(name="next.localhost")
    assert "created" in haproxy_says(hulld, f"new ssl cert {left}") + haproxy_says(hulld, f"set ssl cert {left} <<\n{other['certificate']}{other['key']}\n")
    after = cursor(hulld)
    assert put(hulld, "next.localhost", given).status == 201
    serves(hulld, "next.localhost", False)
    assert events(hulld, after) == [("certificate.set", "next.localhost", {})]


def cursor_of(hulld):
    with contextlib.closing(sqlite3.connect(hulld.state / "hull.db", isolation_level=None)) as rows:
        return rows.execute("SELECT last FROM event_cursors WHERE project = 'default'").fetchone()[0]
