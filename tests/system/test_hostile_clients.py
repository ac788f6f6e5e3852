"""Clients that are slow, many, large or senseless, and a host that runs out of disk or whose clock is set: each gets a defined answer, and
everybody else gets theirs meanwhile.

Elsewhere: JSON that is nearly JSON, too deep or has a key twice, paths of any bytes, a flood of headers (test_hulld.py); an upload larger
than the disk (test_hulld.py); a full disk in a machine (test_files.py) and under the audit log (test_audit.py); the clocks of machines
(test_orders_kvm.py), and of repeated requests (test_idempotency.py); a client that follows and does not read (test_events.py)."""
import contextlib
import hashlib
import http.client
import json
import os
import resource
import select
import signal
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from conftest import TOP
from free_ports import free_port
from hulld_fixtures import DEADLINE, Hulld, make_erofs, wait_until
from test_hulld import refused
from test_orders import seconds
from test_tenants import project, token, unauthorized

HOST_TOKEN = "the-host's-own-token"
GIB = 1 << 30


@pytest.fixture(scope="module")
def files():
    """As many descriptors as there may be. How many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def listening(folder, **env):
    """A hulld on TCP, too, with its port."""
    (folder / "token").write_text(HOST_TOKEN)
    port = free_port()
    hulld = Hulld(folder, "--listen", f"127.0.0.1:{port}", "--token-file", folder / "token", env=env).with_stand_in().start()
    hulld.port = port
    return hulld


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    hulld = listening(tmp_path_factory.mktemp("hulld"))
    yield hulld
    hulld.stop()


def connect(hulld):
    return socket.create_connection(("127.0.0.1", hulld.port), DEADLINE)


def over_tcp(hulld, bearer=HOST_TOKEN, path="/v1/version"):
    """Status of a GET by somebody who has nothing to do with it."""
    connection = http.client.HTTPConnection("127.0.0.1", hulld.port, timeout=DEADLINE)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Authorization": f"Bearer {bearer}"})
        return connection.getresponse().status


def memory_kib(hulld, what="VmRSS"):
    return next(int(line.split()[1]) for line in Path(f"/proc/{hulld.process.pid}/status").read_text().splitlines() if line.startswith(what))


def open_files(hulld):
    return len(os.listdir(f"/proc/{hulld.process.pid}/fd"))


# ---- many ----

@pytest.mark.parametrize("count, said, rest", [
    (10_000, b"GET /v1/version HTTP/1.1\r\nHost:", b" hulld\r\nAuthorization: Bearer " + HOST_TOKEN.encode() + b"\r\n\r\n"),
    (3000, b"POST /v1/machines HTTP/1.1\r\nHost: hulld\r\nContent-Length: 9\r\n\r\n{", b'"x": "y"}'),
])
def test_thousands_of_connections_that_say_no_more_keep_nobody_out(hulld, files, count, said, rest):
    """They are more than hulld has places, and have half a head, or a whole one without a token: those that were silent for longest are
    let go for those that come."""
    before, open_before, silent = memory_kib(hulld), open_files(hulld), []
    try:
        for n in range(min(count, files - 500)):
            silent.append(connect(hulld))
            silent[-1].send(said)
            if n % 1000 == 999:
                assert over_tcp(hulld) == hulld.get("/v1/version").status == 200
        assert open_files(hulld) - open_before <= 2000 + 130
        assert memory_kib(hulld) - before < 128 << 10
        silent[-1].send(rest)  # the last has its place still
        assert silent[-1].recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 401")
        if len(silent) > 2200:
            with contextlib.suppress(ConnectionResetError):
                assert silent[0].recv(1) == b""
    finally:
        for one in silent:
            one.close()
    wait_until(lambda: open_files(hulld) <= open_before, "they have gone")


def test_few_descriptors_are_enough(tmp_path):
    """Of 256, a quarter is for connections: when those are taken there is one more for who comes, and for what it asks for."""
    hulld = Hulld(tmp_path).with_stand_in()
    hulld.wrapper = ["prlimit", "--nofile=256:256"]
    hulld.start()
    silent = []
    try:
        for _ in range(400):
            silent.append(socket.socket(socket.AF_UNIX))
            silent[-1].connect(str(hulld.socket))
        assert open_files(hulld) < 256
        hulld.image("hello", make_erofs(tmp_path), command=["/bin/true"])
        assert hulld.post("/v1/machines", {"name": "m", "image": "hello", "network": "none", "disk_mib": 16}).status == 201
        assert hulld.post("/v1/machines/m/start").status == 200
    finally:
        for one in silent:
            one.close()
        hulld.stop()


def follow(hulld, secret):
    """A socket that follows events, or the problem that it got."""
    client = connect(hulld)
    client.sendall(f"GET /v1/events HTTP/1.1\r\nHost: hulld\r\nAccept: text/event-stream\r\nAuthorization: Bearer {secret}\r\n\r\n".encode())
    response = http.client.HTTPResponse(client)
    response.begin()
    return (client, None) if response.status == 200 else (client, json.loads(response.read()))


def test_a_project_takes_no_more_than_its_share(hulld, files):
    greedy, modest = token(project(hulld, "greedy"), "read")[0].token, token(project(hulld, "modest"), "read")[0].token
    followers, problem = [], None
    try:
        while not problem:
            client, problem = follow(hulld, greedy)
            followers.append(client)
            assert len(followers) <= 2000
        assert problem["code"] == "busy" and problem["retryable"] and problem["hint"], problem
        assert over_tcp(hulld, greedy) == 503
        assert over_tcp(hulld, modest) == over_tcp(hulld) == hulld.get("/v1/version").status == 200
        others = [follow(hulld, modest) for _ in range(100)]
        followers += [client for client, _ in others]
        assert not any(problem for _, problem in others)
        for client in followers[:200]:  # what goes makes room, for it, too
            client.close()
        wait_until(lambda: over_tcp(hulld, greedy) == 200, "there is a place again")
    finally:
        for client in followers:
            client.close()


def test_what_is_not_read_takes_no_memory_without_end(hulld, files):
    """Answers that nobody reads, and bodies that are announced, are 64 MiB of a project at most."""
    greedy, modest, clients = *(token(project(hulld, name), "read", "write", "admin")[0] for name in ("hoarder", "reader")), []
    for one in (greedy, modest):
        labels = {str(n): "x" * 1000 for n in range(900)}
        assert one.post("/v1/webhooks", {"url": "https://receiver.example/", "enabled": False, "labels": labels}).status == 201
    by, greedy, modest, before = greedy, greedy.token, modest.token, memory_kib(hulld)

    def asks(request):
        """Without reading more than how it was answered."""
        client = socket.socket(socket.AF_UNIX)
        clients.append(client)
        client.settimeout(DEADLINE)
        client.connect(str(hulld.socket))
        client.sendall(f"{request} HTTP/1.1\r\nHost: hulld\r\nAuthorization: Bearer {greedy}\r\n\r\n".encode())
        return client.recv(12)[9:] if request.startswith("GET") else None

    try:
        status = b"200"
        while status == b"200":
            status = asks("GET /v1/webhooks")
            assert len(clients) < 1000
        assert status == b"503" and memory_kib(hulld) - before < 100 << 10
        assert over_tcp(hulld, greedy, "/v1/webhooks") == 503 and over_tcp(hulld, greedy) == 200, "what is small has room"
        assert over_tcp(hulld, modest, "/v1/webhooks") == over_tcp(hulld, path="/v1/webhooks") == 200
        for client in clients:
            client.close()
        wait_until(lambda: over_tcp(hulld, greedy, "/v1/webhooks") == 200, "there is room again")
        for _ in range(67):
            asks("POST /v1/machines HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\nX:")
        wait_until(lambda: by.post("/v1/webhooks", {"url": "x" * 900_000}).status == 503, "there is no room for another body")
        assert over_tcp(hulld, modest) == over_tcp(hulld, greedy) == 200
    finally:
        for client in clients:
            client.close()


# ---- slow ----

def drip(client, data, patience_s):
    """Sends it by the byte, until the other side has had enough. Seconds."""
    begun = time.monotonic()
    for byte in data:
        if select.select([client], [], [], 0.1)[0]:
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
            return time.monotonic() - begun
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(bytes([byte]))
        assert time.monotonic() - begun < DEADLINE
    raise AssertionError(f"not cut off within {time.monotonic() - begun:.0f} s, and patience is {patience_s}")


def test_who_sends_by_the_byte_is_cut_off(tmp_path):
    """A head, a body of JSON and one of a blob; a sender that is slow, but honest, gets its answer."""
    hulld = listening(tmp_path, HULL_HTTP_PATIENCE_S="2")
    content = os.urandom(5 * 66_000)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    head = f"Host: hulld\r\nAuthorization: Bearer {HOST_TOKEN}\r\nContent-Type: application/json\r\n"
    cases = {"head": (b"", b"GET /v1/version HTTP/1.1\r\nX-Long: " + b"x" * 1000),
             "json": (f"POST /v1/machines HTTP/1.1\r\n{head}Content-Length: 10000\r\n\r\n".encode(), b'{"name": "' + b"x" * 1000),
             "blob": (f"PUT /v1/blobs/{digest} HTTP/1.1\r\n{head}Content-Length: 10000\r\n\r\n".encode(), b"x" * 1000)}
    try:
        for what, (first, rest) in cases.items():
            with connect(hulld) as client:
                client.sendall(first)
                assert 1 < drip(client, rest, 2) < 20, what
        wait_until(lambda: os.listdir(hulld.state / "blobs" / "sha256") == [], "what came of it has gone")
        with connect(hulld) as client:
            client.sendall(f"PUT /v1/blobs/{digest} HTTP/1.1\r\n{head}Content-Length: {len(content)}\r\n\r\n".encode())
            for at in range(0, len(content), 66_000):
                assert not select.select([client], [], [], 0.6)[0], "it has its time for each part"
                client.sendall(content[at:at + 66_000])
            response = http.client.HTTPResponse(client)
            response.begin()
            assert response.status == 201
    finally:
        hulld.stop()


# ---- large ----

def test_an_upload_of_gigabytes_takes_no_memory(hulld):
    """1.5 GiB, which are not what they were said to be: 422, and nothing stays. Others are served meanwhile."""
    size, piece = 3 * GIB // 2, bytes(1 << 20)
    digest = "sha256:" + hashlib.sha256(b"").hexdigest()
    before = memory_kib(hulld)
    with connect(hulld) as client:
        client.sendall(f"PUT /v1/blobs/{digest} HTTP/1.1\r\nHost: hulld\r\nAuthorization: Bearer {HOST_TOKEN}\r\n"
                       f"Content-Length: {size}\r\n\r\n".encode())
        for n in range(size // len(piece)):
            client.sendall(piece)
            if n % 256 == 128:
                assert hulld.get("/v1/version").status == 200
        response = http.client.HTTPResponse(client)
        response.begin()
        assert (response.status, json.loads(response.read())["code"]) == (422, "digest_mismatch")
    assert memory_kib(hulld, "VmHWM") - before < 256 << 10 and memory_kib(hulld) - before < 16 << 10
    assert os.listdir(hulld.state / "blobs" / "sha256") == []


# ---- senseless ----

@pytest.mark.parametrize("path, field", [
    ("/v1/machines?name=%ff", "name"), ("/v1/machines?name=a%00b", "name"), ("/v1/machines?label=%c3", "label"),
    ("/v1/machines?limit=1&limit=2", "limit"), ("/v1/machines?limit", "limit"), ("/v1/machines?limit=1%00", "limit"),
    ("/v1/events?type=machine%00.running", "type"),
])
def test_queries_of_any_bytes_are_refused_by_field(hulld, path, field):
    refused(hulld.get(path), 400, "invalid_field", field)


def test_a_nul_does_not_cut_a_path_short(hulld):
    assert hulld.get("/v1/version%00").status == hulld.get("/v1/version%00/..").status == 404
    refused(hulld.request("PUT", "/v1/secrets/A%00B", {"value": "x"}), 400, "invalid_field", "secret")
    assert hulld.get("/v1/secrets").json["items"] == []


@pytest.mark.parametrize("header, value, status, code, field", [
    ("Idempotency-Key", b"\xff\xfe", 400, "invalid_field", "Idempotency-Key"),
    ("Hull-Project", b"d\xc3\xa9fault", 400, "invalid_field", "Hull-Project"),
    ("If-Match", b"\xff", 400, "invalid_field", "If-Match"), ("Content-Type", b"application/json\xff", 415, "unsupported_media_type", None),
    ("Authorization", b"Bearer hull_t\xff", 401, "unauthorized", None),
])
def test_fields_of_any_bytes_are_refused(hulld, header, value, status, code, field):
    answer = hulld.post("/v1/machines", b'{"image": "hello"}', headers={header: value})
    problem = refused(answer, status, code, field)
    assert "\n" not in problem["detail"] and problem["detail"].isascii()


# ---- a host that fails ----

def test_a_full_disk_loses_nothing(tmp_path):
    """Every change is refused as 507, or made and kept; reading goes on; with room again all goes on, also over a restart."""
    erofs = make_erofs(tmp_path)
    hulld = Hulld(tmp_path).with_stand_in()
    hulld.state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(hulld.state)], check=True)
    try:
        hulld.start()
        hulld.image("hello", erofs, command=["/bin/true"])
        kept, refusals = set(), []
        with (hulld.state / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(4096)):
                pass
        for n in range(300):
            answer = hulld.request("PUT", f"/v1/secrets/S{n}", {"value": "x" * 10_000})
            if answer.status == 201:
                kept.add(f"S{n}")
            else:
                refusals.append(refused(answer, 507, "insufficient_storage"))
        assert len(refusals) > 100 and all(problem["retryable"] for problem in refusals)
        refused(hulld.upload(os.urandom(100_000))[1], 507, "insufficient_storage")
        refused(hulld.post("/v1/machines", {"name": "m", "image": "hello", "network": "none", "labels": {"x": "x" * 100_000}}), 507, "insufficient_storage")
        assert [item["name"] for item in hulld.get("/v1/images").json["items"]] == ["hello"]
        assert {item["name"] for item in hulld.get("/v1/secrets").json["items"]} == kept
        (hulld.state / "filler").unlink()
        wait_until(lambda: hulld.request("PUT", "/v1/secrets/ROOM", {"value": "x"}).status == 201, "there is room again")
        assert hulld.post("/v1/machines", {"name": "m", "image": "hello", "network": "none", "disk_mib": 16}).status == 201
        hulld.restart()
        assert {item["name"] for item in hulld.get("/v1/secrets").json["items"]} == kept | {"ROOM"}
        assert hulld.machine("m")["state"] == "created" and sorted(os.listdir(hulld.state / "blobs" / "sha256")) == [hashlib.sha256(erofs).hexdigest()]
    finally:
        hulld.stop()
        subprocess.run(["umount", str(hulld.state)], check=True)


def test_what_ends_or_deletes_has_room_on_a_full_disk(tmp_path):
    """What makes more has not; also for a hulld that comes after, however the first has ended."""
    hulld = Hulld(tmp_path).with_stand_in()
    hulld.state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(hulld.state)], check=True)

    def fill():
        with (hulld.state / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(4096)):
                pass

    def asked(method, path, body=None, **headers):
        fill()  # whatever room there is goes to others at once
        return hulld.request(method, path, body, headers)

    try:
        hulld.start()
        hulld.image("hello", make_erofs(tmp_path), command=["/bin/true"])
        for name in ("idle", "stopped", "killed", "deleted", "last"):
            assert hulld.post("/v1/machines", {"name": name, "image": "hello", "network": "none", "disk_mib": 16}).status == 201
        assert hulld.post("/v1/volumes", {"name": "data", "size_mib": 16}).status == 201
        assert hulld.post("/v1/projects", {"name": "small"}).status == 201
        hook = "/v1/webhooks/" + hulld.post("/v1/webhooks", {"url": "https://receiver.invalid/", "enabled": False}).json["id"]
        for name in ("stopped", "killed", "deleted", "last"):
            assert hulld.post(f"/v1/machines/{name}/start").status == 200
            wait_until(lambda: hulld.machine(name)["pid"], "it has a monitor")
        names = iter(range(1000))
        for size in (64_000, 10_000, 1):  # what is large has no room any more where what is small has
            while (answer := asked("PUT", f"/v1/secrets/S{next(names)}", {"value": "x" * size})).status == 201:
                pass
            refused(answer, 507, "insufficient_storage")
        refused(asked("POST", "/v1/machines/idle/start"), 507, "insufficient_storage")
        refused(asked("POST", "/v1/machines", {"name": "new", "image": "hello"}), 507, "insufficient_storage")
        more, merge = {"labels": {"x": "y" * 3000}}, {"Content-Type": "application/merge-patch+json"}
        for path in ("/v1/machines/idle", "/v1/volumes/data", hook):
            refused(asked("PATCH", path, more, **merge), 507, "insufficient_storage")
        refused(asked("PATCH", hook, {"secret": "whsec_" + 40 * "c"}, **merge), 507, "insufficient_storage")
        refused(asked("PUT", "/v1/projects/small/quotas", {"machines": 1}), 507, "insufficient_storage")
        assert hulld.get(hook).json["labels"] == {} and hulld.get("/v1/projects/small").json["quotas"]["machines"] == -1
        refused(asked("PATCH", "/v1/volumes/data", {"size_mib": 32}, **merge), 507, "insufficient_storage")
        assert [file.stat().st_size for file in (hulld.state / "volumes").iterdir()] == [16 << 20], "it is as large as it is charged for"
        assert asked("POST", "/v1/machines/stopped/stop", {"timeout_s": 1}, **{"Idempotency-Key": "k"}).status == 200
        assert asked("POST", "/v1/machines/killed/kill").status == 200
        for name in ("stopped", "killed"):
            hulld.wait(name, "stopped")
        assert asked("DELETE", "/v1/machines/idle").status == 204
        for end in (signal.SIGKILL, signal.SIGTERM):
            fill()
            hulld.kill(end)
            fill()
            hulld.start()
            assert hulld.machine("last")["pid"] and hulld.machine("stopped")["state"] == "stopped"
        for name in ("deleted", "stopped", "killed", "last"):
            assert asked("DELETE", f"/v1/machines/{name}?force=1").status == 204
        for path in ("/v1/images/hello", hook, "/v1/projects/small"):
            assert asked("DELETE", path).status == 204
        assert hulld.get("/v1/machines").json["items"] == hulld.get("/v1/images").json["items"] == []
        (hulld.state / "filler").unlink()
        wait_until(lambda: hulld.request("PUT", "/v1/secrets/ROOM", {"value": "x" * 10_000}).status == 201, "there is room again")
    finally:
        hulld.stop()
        subprocess.run(["umount", str(hulld.state)], check=True)


@pytest.fixture
def shifted(tmp_path):
    """A hulld whose clock, and uptime, are what the test says."""
    hulld = Hulld(tmp_path).with_stand_in().with_clocks().start()
    yield hulld
    hulld.jump(0)
    hulld.stop()


def test_tokens_are_forgotten_a_week_after_they_have_expired(shifted):
    """Some at a time, and not by the clock of a host that has just booted, which may be wrong."""
    day, now = 86400, int(time.time())
    a, b = project(shifted, "a"), project(shifted, "b")
    good = token(a, "read", expires_in_s=90 * day)[0]
    with contextlib.closing(sqlite3.connect(shifted.state / "hull.db", timeout=60)) as rows, rows:
        for first, n, days in ((0, 2500, 8), (2500, 3, 6)):
            rows.executemany("INSERT INTO tokens VALUES (?, 'a', '', '', 2, 1, ?, 0)",
                             [(f"t{i:012d}", (now - days * day) * 1000) for i in range(first, first + n)])

    def there_are():
        with contextlib.closing(sqlite3.connect(shifted.state / "hull.db", timeout=60)) as rows:
            return rows.execute("SELECT count(*) FROM tokens WHERE project = 'a'").fetchone()[0]

    shifted.jump(1000 * day)
    shifted.sleep(60 - int(time.clock_gettime(time.CLOCK_BOOTTIME)))
    assert b.post("/v1/tokens", {"scopes": ["read"]}).status == 201 and there_are() == 2504
    unauthorized(good.get("/v1/projects"), "invalid_token")
    shifted.jump(0)
    assert good.get("/v1/projects").status == 200, "it is still there"
    shifted.sleep(3600)
    assert b.post("/v1/tokens", {"scopes": ["read"]}).status == 201
    wait_until(lambda: there_are() == 4, "those that have expired long ago are forgotten")
    gone, cursor = [], 0
    while items := (page := a.get(f"/v1/events?type=token.removed&limit=1000&after={cursor}").json)["items"]:
        gone, cursor = gone + [seconds(event["at"]) for event in items], page["cursor"]
    assert len(gone) == 2500 and max(later - earlier for earlier, later in zip(gone, gone[1:])) > 0.04, "not all at once"


def test_a_clock_that_jumps_ends_and_holds_up_nothing(shifted, tmp_path):
    """A day ahead, and two back: what waits goes on to wait, and what takes time takes its time; only what is by the clock goes by it."""
    hulld = shifted
    hulld.image("hello", make_erofs(tmp_path), command=["/bin/true"])
    client, _ = token(project(hulld, "a"), "read", expires_in_s=3600)
    assert hulld.post("/v1/machines", {"name": "m", "image": "hello", "network": "none", "disk_mib": 16}).status == 201
    assert hulld.post("/v1/machines/m/start").status == 200
    for seconds, known in ((86_400, 401), (-86_400, 200)):
        with connection_of(hulld, "/v1/machines/m/wait?state=stopped") as waiting:
            hulld.jump(seconds)
            assert client.get("/v1/machines").status == known
            assert hulld.request("PUT", f"/v1/secrets/AT_{abs(seconds)}", {"value": "x"}).status in (200, 201)
            assert hulld.get("/v1/machines/m/wait?state=stopped&timeout_s=1").status == 408
            assert hulld.machine("m")["state"] == "starting" and not select.select([waiting], [], [], 0)[0]
            assert hulld.post("/v1/machines/m/kill").status == 200
            assert waiting.recv(12) == b"HTTP/1.1 200"
        assert hulld.post("/v1/machines/m/start").status == 200
    events = hulld.get("/v1/events").json["items"]
    assert [event["id"] for event in events] == list(range(events[0]["id"], events[0]["id"] + len(events)))


def test_a_clock_that_jumps_ahead_takes_no_time_from_whoever_ends_nor_gives_any(shifted, tmp_path):
    """A machine that does not hear SIGTERM, and one that it depends on."""
    hulld, deaf = shifted, tmp_path / "deaf"
    (tmp_path / "vmm").write_text(f"#!/bin/sh\ntrap '' TERM\n: >>{deaf}\nexec sleep 1000\n")
    hulld.image("hello", make_erofs(tmp_path), command=["/bin/true"])

    def start(name):
        assert hulld.post("/v1/machines", {"name": name, "image": "hello", "network": "none", "disk_mib": 16, "stop": {"timeout_s": 600}}).status == 201
        begin(name)

    def begin(name):
        deaf.unlink(missing_ok=True)
        assert hulld.post(f"/v1/machines/{name}/start").status == 200
        wait_until(deaf.exists, "it does not hear")

    start("m")
    assert hulld.post("/v1/machines/m/stop").json["state"] == "stopping"
    hulld.jump(3600)
    assert hulld.post("/v1/machines/m/stop", {"timeout_s": 1}).status == 200
    assert hulld.wait("m", "stopped", 20)["cause"]["code"] == "killed"
    begin("m")
    assert hulld.post("/v1/host/drain", {"timeout_s": 600}).status == 200
    wait_until(lambda: hulld.machine("m")["state"] == "stopping", "it is asked to end")
    hulld.jump(7200)
    assert hulld.post("/v1/host/drain", {"timeout_s": 1}).status == 200
    wait_until(lambda: hulld.get("/v1/host").json["state"] == "drained", "its time is over", 20)
    hulld.post("/v1/host/undrain")
    wait_until(lambda: hulld.machine("m")["pid"], "it is started again")
    hulld.post("/v1/host/drain", {"timeout_s": 5})
    wait_until(lambda: hulld.machine("m")["state"] == "stopping", "it is asked to end")
    hulld.kill()
    hulld.jump(-86_400)
    hulld.start()
    wait_until(lambda: hulld.get("/v1/host").json["state"] == "drained", "its time is over", 20)
    hulld.post("/v1/host/undrain")


def test_who_asks_again_for_a_restart_gets_one_though_the_clock_was_set_back(shifted, tmp_path):
    """It was cut short while the machine ended."""
    hulld, deaf = shifted, tmp_path / "deaf"
    (tmp_path / "vmm").write_text(f"#!/bin/sh\ntrap '' TERM\n: >>{deaf}\nexec sleep 1000\n")
    hulld.image("hello", make_erofs(tmp_path), command=["/bin/true"])
    assert hulld.post("/v1/machines", {"name": "m", "image": "hello", "network": "none", "disk_mib": 16}).status == 201
    assert hulld.post("/v1/machines/m/start").status == 200
    wait_until(deaf.exists, "it does not hear")
    pid = hulld.machine("m")["pid"]
    key = {"Idempotency-Key": "again"}
    assert hulld.post("/v1/machines/m/restart", {"timeout_s": 600}, headers=key).status == 200
    with contextlib.closing(sqlite3.connect(hulld.state / "hull.db")) as rows:
        rows.execute("UPDATE requests SET status = 0 WHERE key = 'again'")
        rows.commit()
    hulld.jump(-3600)
    os.kill(pid, signal.SIGKILL)
    again = wait_until(lambda: (m := hulld.machine("m"))["pid"] not in (pid, None) and m["pid"], "it is started again")
    assert hulld.post("/v1/machines/m/restart", {"timeout_s": 600}, headers=key).status == 200
    assert hulld.machine("m")["state"] == "starting" and hulld.machine("m")["pid"] == again


@contextlib.contextmanager
def connection_of(hulld, path):
    """Asks, and does not wait for the answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(hulld.socket))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: hulld\r\n\r\n".encode())
        yield client
