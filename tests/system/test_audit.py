"""The audit log: a line for who did what, before it is answered; no secrets in it, nothing that a client makes up, and never too much of it."""
import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess

import pytest

from free_ports import free_port
from hulld_fixtures import Connection, Hulld, make_erofs, wait_until
from test_cli import Cli
from test_exec import Stream, execute, start_alone
from test_hulld import refused
from test_tenants import By, In, project, token

HOST_TOKEN = "a-token-of-the-host"
CANARY = "a-value-that-nobody-must-see"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hulld")
    (folder / "token").write_text(HOST_TOKEN)
    port = free_port()
    daemon = Hulld(folder, "--listen", f"127.0.0.1:{port}", "--token-file", folder / "token").with_stand_in().start()
    daemon.port = port
    daemon.image("box", make_erofs(tmp_path_factory.mktemp("image")), command=["/bin/true"])
    yield daemon
    daemon.stop()


@pytest.fixture
def hulld(daemon):
    yield daemon
    for machine in daemon.get("/v1/machines").json["items"]:
        assert daemon.delete(f"/v1/machines/{machine['id']}?force=1").status == 204


def lines(path):
    """Each is ASCII, an object, and not more than that."""
    text = path.read_bytes().decode("ascii")
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.splitlines()]


@contextlib.contextmanager
def noted(hulld):
    """What is written meanwhile, when it is there as soon as all was answered."""
    path, entries = hulld.state / "audit.log", []
    before = path.stat().st_size
    yield entries
    entries += [json.loads(line) for line in path.read_bytes()[before:].decode("ascii").splitlines()]


def over_tcp(hulld, method, path, secret=None):
    with contextlib.closing(socket.create_connection(("127.0.0.1", hulld.port), 60)) as peer:
        head = f"Authorization: Bearer {secret}\r\n" if secret else ""
        peer.sendall(f"{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n{head}\r\n".encode())
        own, text = peer.getsockname(), b""
        while piece := peer.recv(65536):
            text += piece
        return int(text.split()[1]), f"127.0.0.1:{own[1]}"


def test_a_line_says_who_did_what_when_and_from_where(hulld):
    with noted(hulld) as entries:
        made = hulld.post("/v1/machines", {"name": "web", "image": "box", "network": "none", "env": {"K": CANARY}}, headers={"Idempotency-Key": "k1"})
        assert hulld.post("/v1/machines", {"name": "web", "image": "box", "network": "none", "env": {"K": CANARY}},
                          headers={"Idempotency-Key": "k1"}).body == made.body
        refused(hulld.post("/v1/machines", {"name": "web", "image": "box"}), 409, "name_taken", "name")
        assert hulld.request("PUT", "/v1/secrets/S", {"value": CANARY}).status == 201
        assert hulld.get("/v1/machines/web").status == hulld.get("/v1/machines").status == 200  # who only looks is not noted
        assert hulld.delete("/v1/machines/web").status == 204
    assert CANARY not in json.dumps(entries) and CANARY not in (hulld.state / "audit.log").read_text()
    first, again, taken, secret, gone = entries
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("at")) and 0 <= first.pop("took_ms") < 60000
    assert first == {"who": "socket", "uid": os.getuid(), "gid": os.getgid(), "pid": os.getpid(), "address": "unix", "project": "default",
                     "operation": "createMachine", "method": "POST", "path": "/v1/machines", "resource": made.json["id"], "status": 201,
                     "key_digest": hashlib.sha256(b"k1").hexdigest()[:16]}
    assert again["replayed"] is True and again["status"] == 201 and "replayed" not in taken
    assert (taken["status"], taken["code"]) == (409, "name_taken") and "resource" not in taken
    assert (secret["operation"], secret["resource"], secret["status"]) == ("setSecret", "S", 201)
    assert (gone["operation"], gone["path"], gone["resource"], gone["status"]) == ("deleteMachine", "/v1/machines/{machine}", "web", 204)


def test_a_token_is_told_by_its_id_and_label_and_who_has_none_as_nobody(hulld):
    a = project(hulld, "a")
    reader, reader_id = token(a, "read", label="ci \x1b[31m\n{}")
    with noted(hulld) as entries:
        assert reader.post("/v1/machines", {"image": "x"}).status == 403
        assert reader.get("/v1/tokens").status == 403 and reader.get("/v1/machines").status == 200
        status, address = over_tcp(hulld, "GET", "/v1/machines", "wrong-" + CANARY)
        assert status == 401
        assert over_tcp(hulld, "POST", "/v1/machines/none/start", HOST_TOKEN)[0] == 404
        assert over_tcp(hulld, "DELETE", "/v1/machines/none", reader.token)[0] == 403
        assert over_tcp(hulld, "GET", "/v1/version")[0] == 401
    assert [entry["status"] for entry in entries] == [403, 403, 401, 404, 403, 401]
    assert entries[0]["who"] == "token" and entries[0]["token"] == reader_id and entries[0]["project"] == "a"
    assert entries[0]["label"] == "ci \x1b[31m\n{}" and entries[0]["code"] == "forbidden" and entries[0]["pid"] == os.getpid()
    assert entries[1]["operation"] == "listTokens" and entries[1]["method"] == "GET"
    unknown = entries[2]
    assert (unknown["who"], unknown["address"], unknown["code"], unknown["path"]) == ("nobody", address, "unauthorized", "/v1/machines")
    assert "project" not in unknown and "uid" not in unknown and "token" not in unknown
    assert (entries[3]["who"], entries[3]["operation"], entries[3]["project"]) == ("host-token", "startMachine", "default")
    assert entries[4]["who"] == "token" and "uid" not in entries[4]
    text = (hulld.state / "audit.log").read_text()
    for secret in (CANARY, HOST_TOKEN, reader.token, reader.token.split("_")[2]):
        assert secret not in text
    assert hulld.delete("/v1/projects/a").status == 204


def test_programs_and_files_in_machines_are_noted_without_what_is_in_them(hulld):
    hulld.post("/v1/machines", {"name": "m", "image": "box", "network": "none"})
    with noted(hulld) as entries:
        refused(hulld.post("/v1/machines/m/exec", {"command": ["echo", CANARY], "env": {"S": CANARY}}), 409, "wrong_state")
        refused(hulld.get("/v1/machines/m/files?path=/etc/shadow"), 409, "wrong_state")
        refused(hulld.request("PUT", "/v1/machines/m/files?path=/" + "x" * 2000, CANARY.encode()), 409, "wrong_state")
    assert [(entry["operation"], entry.get("file", "")[:20]) for entry in entries] == [
        ("execInMachine", ""), ("getMachineFiles", "/etc/shadow"), ("putMachineFiles", "/" + "x" * 19)]
    assert len(entries[2]["file"]) == 1027 and CANARY not in json.dumps(entries)


@pytest.mark.skipif(os.geteuid() != 0, reason="the agent is root")
def test_a_program_is_noted_when_it_has_ended_and_a_stream_when_it_begins(tmp_path):
    hulld = start_alone(tmp_path)
    try:
        assert hulld.post("/v1/machines", {"name": "box", "image": "any", "command": ["any"], "network": "none", "disk_mib": 16}).status == 201
        assert hulld.post("/v1/machines/box/start").status == 200 and hulld.wait("box", "running,failed")["state"] == "running"
        with noted(hulld) as entries:
            assert execute(hulld, "box", "echo", CANARY).json["stdout"] == CANARY + "\n"
            program = Stream(hulld, "box", "cat").switch()
            assert hulld.get(f"/v1/machines/box/files?path={tmp_path}/token").status == 200
        program.sock.close()
        assert [(entry["operation"], entry["resource"], entry["status"], entry.get("file")) for entry in entries] == [
            ("execInMachine", "box", 200, None), ("execInMachine", "box", 101, None), ("getMachineFiles", "box", 200, f"{tmp_path}/token")]
        assert CANARY not in json.dumps(entries)
    finally:
        hulld.stop()


def test_what_a_client_makes_up_stays_in_its_place(hulld):
    with noted(hulld) as entries:
        for path in ("/v1/machines/%0a%7b%22who%22:%22socket%22%7d%0a", "/v1/machines/%1b%5b2J%ff%c3%a9", "/%22,%22who%22:%22x" + "y" * 3000):
            assert hulld.delete(path).status == 404
        assert hulld.request("BREW", "/v1/machines").status == 405
    assert [entry["who"] for entry in entries] == ["socket"] * 4
    assert entries[0]["resource"] == '\n{"who":"socket"}\n' and entries[1]["resource"] == "\x1b[2J???"
    assert entries[2]["path"].startswith('/","who":"xyyy') and len(entries[2]["path"]) == 259
    assert (entries[3]["method"], entries[3]["path"], entries[3]["status"]) == ("BREW", "/v1/machines", 405)
    assert all(len(line) < 8192 for line in (hulld.state / "audit.log").read_bytes().splitlines())


def test_a_client_that_leaves_before_it_is_answered_is_noted_too(hulld):
    hulld.post("/v1/machines", {"name": "m", "image": "box", "network": "none"})
    hulld.post("/v1/machines/m/start")
    with noted(hulld) as entries:
        with contextlib.closing(Connection(hulld.socket)) as connection:
            connection.request("POST", "/v1/machines/m/stop", '{"timeout_s": 3600}', {"Content-Type": "application/json"})
            wait_until(lambda: hulld.machine("m")["state"] != "starting", "it was begun")
        wait_until(lambda: b"stopMachine" in (hulld.state / "audit.log").read_bytes().splitlines()[-1], "it was noted")
    assert entries[-1]["operation"] == "stopMachine" and entries[-1].get("status", 0) in (0, 200)


def test_who_has_no_token_cannot_fill_it(hulld):
    with noted(hulld) as entries:
        stranger = By(hulld, "hull_none")
        for _ in range(300):
            assert stranger.get("/v1/machines").status == 401
        assert hulld.delete("/v1/machines/none").status == 404
    refusals = [entry for entry in entries if entry["status"] == 401]
    assert 0 < len(refusals) < 300 and len(refusals) + sum(entry.get("suppressed", 0) for entry in entries) == 300


def pages(hulld, query=""):
    cursor, found = "", []
    while True:
        answer = hulld.get(f"/v1/audit?{query}{cursor}")
        assert answer.status == 200, answer
        found += answer.json["items"]
        if "next" not in answer.json:
            return found
        cursor = f"&cursor={answer.json['next']}"


def test_it_is_read_in_pages_by_the_host_s_administrator_only(hulld, tmp_path):
    a = project(hulld, "a")
    client, _ = token(a, "read", "write", "exec", "admin")
    for n in range(5):
        assert a.request("PUT", f"/v1/secrets/S{n}", {"value": "v"}).status == 201
        assert hulld.delete(f"/v1/machines/no-{n}").status == 404
    everything = lines(hulld.state / "audit.log")
    assert pages(hulld, "limit=3") == pages(hulld, "limit=1000") == everything[::-1]
    assert [entry["resource"] for entry in pages(hulld, "limit=2&project=a")[:5]] == ["S4", "S3", "S2", "S1", "S0"]
    assert pages(hulld, "project=nobody") == []
    refused(client.get("/v1/audit"), 403, "forbidden")
    for query, field in (("cursor=x", "cursor"), ("cursor=99-1", "cursor"), ("cursor=1-", "cursor"), ("limit=0", "limit"), ("project=A/", "project")):
        refused(hulld.get("/v1/audit?" + query), 400, "invalid_field", field)
    assert hulld.get("/v1/audit?cursor=1-7").status == 200  # in the middle of a line: that is left out
    hull = Cli(tmp_path, hulld.socket)
    shown = hull("audit", "-n", "4", "--project", "a").stdout.splitlines()
    assert len(shown) == 5 and shown[0].split() == ["AT", "WHO", "FROM", "PROJECT", "DID", "TO", "ANSWER"]
    assert "setSecret" in shown[1] and "listAudit" in shown[4] and shown[4].endswith("403 forbidden")
    newest = hull("audit", "-n", "1", "-o", "json").stdout
    assert json.loads(newest) == lines(hulld.state / "audit.log")[-1]
    assert hull.refused("audit", "-n", "0", status=2)[0].startswith("--tail")
    assert hulld.delete("/v1/projects/a").status == 204


def test_it_goes_on_over_a_crash_and_mends_a_line_that_was_cut(tmp_path):
    hulld = Hulld(tmp_path).start()
    try:
        path = hulld.state / "audit.log"
        assert path.stat().st_mode & 0o777 == 0o600
        assert hulld.request("PUT", "/v1/secrets/A", {"value": "v"}).status == 201
        hulld.kill()
        assert lines(path)[-1]["resource"] == "A"
        with path.open("ab") as log:
            log.write(b'{"at":"2026-')
        hulld.start()
        assert hulld.request("PUT", "/v1/secrets/B", {"value": "v"}).status == 201
        assert [entry["resource"] for entry in pages(hulld)] == ["B", "A"]
        path.rename(tmp_path / "moved")
        assert hulld.request("PUT", "/v1/secrets/C", {"value": "v"}).status == 201
        assert (tmp_path / "moved").read_text().count("\n") == 4
        hulld.process.send_signal(signal.SIGHUP)
        wait_until(path.exists, "it was opened anew")
        assert hulld.request("PUT", "/v1/secrets/D", {"value": "v"}).status == 201
        assert [entry["resource"] for entry in lines(path)] == ["D"]
    finally:
        hulld.stop()


def test_it_is_bounded_and_the_oldest_goes_first(tmp_path):
    hulld = Hulld(tmp_path, "--audit-log", tmp_path / "who", "--audit-keep", "1,2").start()
    try:
        seen, connection = 0, Connection(hulld.socket)
        names = lambda: sorted(name for name in os.listdir(tmp_path) if name.startswith("who."))  # noqa: E731
        while len(names()) < 3:
            connection.request("DELETE", f"/v1/machines/n-{seen}-" + "x" * 80)
            connection.getresponse().read()
            seen += 1
        assert [entry["resource"].split("-")[1] for entry in pages(hulld, "limit=1000")] == [str(n) for n in reversed(range(seen))]
        assert all((tmp_path / name).stat().st_size <= 65536 for name in ["who", *names()])
        # A day later the file of the day before is put aside, and what is too old goes.
        os.utime(tmp_path / "who.00000001", (1, 1))
        hulld.kill()
        os.utime(tmp_path / "who", (os.path.getmtime(tmp_path / "who") - 86400,) * 2)
        hulld.start()
        assert names() == ["who.00000002", "who.00000003", "who.00000004"]
        (tmp_path / "who.00000002").write_bytes(b"x" * (1 << 20))  # as if it were large: all together would be too much
        hulld.restart()
        assert names() == ["who.00000003", "who.00000004"]
        connection = Connection(hulld.socket)
        for n in range(3 * seen // 2):
            connection.request("DELETE", f"/v1/machines/m-{n}-" + "x" * 80)
            connection.getresponse().read()
        assert names()[:1] == ["who.00000003"] and sum((tmp_path / name).stat().st_size for name in names()) < 1 << 20
        assert pages(hulld, "limit=1000")[0]["resource"].startswith(f"m-{3 * seen // 2 - 1}-")
    finally:
        hulld.stop()


def metric(hulld, name):
    return int(re.search(rf"^{name} (\d+)$", hulld.get("/metrics").body.decode(), re.M)[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_what_a_full_disk_has_no_room_for_is_lost_whole_and_counted(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(small)], check=True)
    hulld = Hulld(tmp_path, "--audit-log", small / "audit.log").start()
    try:
        for _ in range(60):
            assert hulld.delete("/v1/machines/none").status == 404  # the API goes on
        lost, kept = metric(hulld, "hull_audit_lines_lost_total"), lines(small / "audit.log")
        assert 0 < lost < 60 and len(kept) + lost == 60 == lost + metric(hulld, "hull_audit_lines_total")
        assert hulld.log.read_text().count("the audit log cannot be written") == 1
        subprocess.run(["mount", "-o", "remount,size=1m", str(small)], check=True)
        assert hulld.delete("/v1/machines/none").status == 404
        assert lines(small / "audit.log")[-1]["lost"] == lost
    finally:
        hulld.stop()
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("options, said", [
    (["--audit-log", "relative"], "--audit-log: must be an absolute path"), (["--audit-log", "/dev/null"], "cannot write /dev/null"),
    (["--audit-log", "/nowhere/at/all"], "cannot write /nowhere/at/all"), (["--audit-keep", "0"], "--audit-keep: must be MIB or MIB,DAYS"),
    (["--audit-keep", "1,0"], "--audit-keep"), (["--audit-keep", "1,"], "--audit-keep"), (["--audit-keep", "x"], "--audit-keep"),
])
def test_a_log_that_cannot_be_is_refused(tmp_path, options, said):
    done = subprocess.run(Hulld(tmp_path, *options).command(), capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2) and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
