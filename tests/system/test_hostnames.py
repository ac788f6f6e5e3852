"""Machines that are served by host name: HAProxy is real, and so is the agent; a machine is this host (test_exec.py), so that what serves in it
is a server of this file's. test_hulld_kvm.py has one that boots."""
import base64
import concurrent.futures
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from free_ports import free_port
from hulld_fixtures import BUILD, DEADLINE, make_erofs, wait_until
from test_exec import finished, hull, start_alone
from test_ports import patch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent is root")


def ran_hull(hulld, *words):
    """The output of a command that succeeds."""
    output, error, status = finished(hull(hulld, *words))
    assert status == 0, (output, error)
    return output


class Server:
    """What runs in a machine: says its name and what it was asked. A path /hold waits until it may go on, /slow a moment."""

    def __init__(self, name):
        self.name, self.held, self.go_on = name, threading.Event(), threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                if self.headers.get("Upgrade") == "websocket":
                    return outer.web_socket(self)
                if self.path == "/hold":
                    outer.held.set()
                    outer.go_on.wait(DEADLINE)
                if self.path == "/slow":
                    threading.Event().wait(0.05)
                body = (outer.name + "\n" + str(self.headers)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def web_socket(self, handler):
        """RFC 6455, section 4.2.2; then what comes goes back."""
        key = handler.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        handler.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"),
                            ("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())):
            handler.send_header(name, value)
        handler.end_headers()
        while (data := handler.connection.recv(1000)):
            handler.connection.sendall(data)
        handler.close_connection = True

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def answers(hulld):
    """HAProxy is a process of its own, and may come up after hulld."""
    def connects():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", hulld.http)):
            return True
    wait_until(connects, "HAProxy listens")


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    http_port, https_port = free_port(), free_port()
    daemon = start_alone(tmp_path_factory.mktemp("hulld"), "--http", f"127.0.0.1:{http_port}", "--https", f"127.0.0.1:{https_port}")
    daemon.http, daemon.https = http_port, https_port
    (daemon.folder / "ca.pem").write_bytes(ran_hull(daemon, "ca"))
    answers(daemon)
    yield daemon
    daemon.stop()


@pytest.fixture
def servers():
    with contextlib.ExitStack() as stack:
        yield lambda name: stack.enter_context(contextlib.closing(Server(name)))


def create(hulld, name, *ports, headers=None, **spec):
    return hulld.post("/v1/machines", {"name": name, "image": "any", "command": ["any"], "network": "none", "disk_mib": 16,
                                       "ports": list(ports), **spec}, headers=headers)


@pytest.fixture
def run(hulld):
    """Starts machines, and takes them away."""
    names = []

    def start(name, hostname, port, **spec):
        answer = create(hulld, name, {"hostname": hostname, "guest": port}, **spec)
        assert answer.status == 201, answer
        names.append(name)
        hulld.post(f"/v1/machines/{name}/start")
        assert hulld.wait(name, "running,failed")["state"] == "running", hulld.machine(name)

    yield start
    for name in names:
        hulld.delete(f"/v1/machines/{name}?force=1")


def fetch(hulld, host, path="/", headers=None, connection=None, method="GET"):
    """Status, head and body."""
    client = connection or http.client.HTTPConnection("127.0.0.1", hulld.http, timeout=DEADLINE)
    client.request(method, path, headers={"Host": host, **(headers or {})})
    answer = client.getresponse()
    body = answer.read().decode()
    if not connection:
        client.close()
    return answer.status, answer.headers, body


def who(hulld, host, path="/", method="GET"):
    status, _, body = fetch(hulld, host, path, method=method)
    return body.splitlines()[0] if status == 200 else status


def served(hulld, host, *names, tries=20):
    """Once those and no others answer."""
    return wait_until(lambda: {who(hulld, host) for _ in range(tries)} == set(names), f"{names} serve {host}")


def test_a_machine_is_served_by_its_name(hulld, run, servers):
    assert who(hulld, "web.localhost") == 404
    run("web", "web.localhost", servers("one").port)
    served(hulld, "web.localhost", "one", tries=1)
    for same in ("WEB.localhost", "web.localhost.", f"web.localhost:{hulld.http}"):
        assert who(hulld, same) == "one", same
    for other in ("localhost", "xweb.localhost", "web.localhost.evil", "127.0.0.1", "", "b0", "../web.localhost"):
        assert who(hulld, other) == 404, other
    assert hulld.machine("web")["ports"][0]["hostname"] == "web.localhost" and "host" not in hulld.machine("web")["ports"][0]
    assert b"web.localhost->" in finished(hull(hulld, "ps"))[0]


def test_several_machines_share_a_name(hulld, run, servers):
    run("first", "pair.localhost", servers("one").port)
    run("second", "pair.localhost", servers("two").port)
    served(hulld, "pair.localhost", "one", "two")
    hulld.post("/v1/machines/first/stop")
    served(hulld, "pair.localhost", "two")
    hulld.post("/v1/machines/first/start")
    served(hulld, "pair.localhost", "one", "two")
    hulld.delete("/v1/machines/second?force=1")
    served(hulld, "pair.localhost", "one")


def test_no_request_is_lost_when_a_machine_of_a_name_is_stopped(hulld, run, servers):
    for name in "first", "second":
        run(name, "rolling.localhost", servers(name).port)
    for number, name in enumerate(["first", "second"] * 3):
        served(hulld, "rolling.localhost", "first", "second")
        # HAProxy has just been told of something: of what comes now it hears a moment later.
        assert patch(hulld, {"labels": {"round": str(number)}}, name).status == 200
        assert hulld.post(f"/v1/machines/{name}/stop").status == 200
        asked = [who(hulld, "rolling.localhost", "/slow", "POST") for _ in range(4)]  # which HAProxy does not try again
        assert set(asked) <= {"first", "second"}, asked
        assert hulld.wait(name, "stopped")["cause"]["code"] == "poweroff"
        assert hulld.post(f"/v1/machines/{name}/start").status == 200
        hulld.wait(name, "running")


def test_only_healthy_machines_are_served(hulld, run, servers):
    good, bad, check = servers("good"), servers("bad"), servers("check")
    run("good", "ill.localhost", good.port)
    served(hulld, "ill.localhost", "good")
    run("bad", "ill.localhost", bad.port, health={"tcp": {"port": check.port}, "interval_s": 1, "retries": 1})
    served(hulld, "ill.localhost", "good", "bad")
    check.close()
    served(hulld, "ill.localhost", "good")
    hulld.post("/v1/machines/good/stop")
    status, head, body = wait_until(lambda: (seen := fetch(hulld, "ill.localhost"))[0] == 503 and seen, "nobody serves it")
    assert head["Retry-After"] == "5" and body == "No machine serves this at the moment.\n"
    assert status == 503 and head["Content-Type"] == "text/plain"
    hulld.post("/v1/machines/good/freeze")
    hulld.delete("/v1/machines/good?force=1")
    hulld.delete("/v1/machines/bad?force=1")
    wait_until(lambda: who(hulld, "ill.localhost") == 404, "nobody has the name")


def test_a_frozen_machine_is_not_served(hulld, run, servers):
    run("still", "still.localhost", servers("still").port)
    served(hulld, "still.localhost", "still")
    assert hulld.post("/v1/machines/still/freeze").status == 200
    served(hulld, "still.localhost", 503)
    assert hulld.post("/v1/machines/still/thaw").status == 200
    served(hulld, "still.localhost", "still")


def websocket(hulld, host):
    """A connection that has become one (RFC 6455, section 4.1)."""
    client = socket.create_connection(("127.0.0.1", hulld.http), DEADLINE)
    key = base64.b64encode(b"0123456789abcdef").decode()
    client.sendall(f"GET /chat HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    expected = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
    assert b" 101 " in head.split(b"\r\n")[0] and expected in head, head
    return client


def echoes(client):
    client.sendall(b"\x81\x02hi")
    return client.recv(100) == b"\x81\x02hi"


def test_what_is_under_way_goes_on_while_a_machine_is_taken_out(hulld, run, servers):
    """A request and a WebSocket; the next request goes to another machine."""
    busy, check = servers("busy"), servers("check")
    run("busy", "busy.localhost", busy.port, health={"tcp": {"port": check.port}, "interval_s": 1, "retries": 1})
    served(hulld, "busy.localhost", "busy")
    answer = []
    holder = threading.Thread(target=lambda: answer.append(fetch(hulld, "busy.localhost", "/hold")))
    holder.start()
    assert busy.held.wait(DEADLINE)
    with websocket(hulld, "busy.localhost") as chat:
        assert echoes(chat)
        run("idle", "busy.localhost", servers("idle").port)
        check.close()
        served(hulld, "busy.localhost", "idle")
        busy.go_on.set()
        holder.join(DEADLINE)
        assert answer[0][0] == 200 and answer[0][2].startswith("busy\n")
        assert echoes(chat)


def test_a_restart_of_hulld_drops_nothing(hulld, run, servers):
    """By SIGKILL; what a machine's health was is not forgotten over it."""
    steady = servers("steady")
    run("steady", "steady.localhost", steady.port, health={"tcp": {"port": steady.port}, "interval_s": 1, "retries": 1})
    served(hulld, "steady.localhost", "steady")
    haproxy, seen, stop = hulld.haproxy(), set(), threading.Event()

    def ask():
        connection = http.client.HTTPConnection("127.0.0.1", hulld.http, timeout=DEADLINE)
        while not stop.is_set():
            seen.add(fetch(hulld, "steady.localhost", connection=connection)[0])

    asker = threading.Thread(target=ask)
    asker.start()
    with websocket(hulld, "steady.localhost") as chat:
        hulld.restart()
        wait_until(lambda: hulld.machine("steady")["health"]["state"] == "healthy", "it is healthy for the new hulld, too")
        assert echoes(chat)
    stop.set()
    asker.join(DEADLINE)
    assert seen == {200} and hulld.haproxy() == haproxy
    hulld.post("/v1/machines/steady/stop")
    served(hulld, "steady.localhost", 503)


def test_all_comes_right_after_a_crash_of_everything(hulld, run, servers):
    run("phoenix", "phoenix.localhost", servers("phoenix").port)
    served(hulld, "phoenix.localhost", "phoenix")
    for victims in (["haproxy"], ["haproxy", "hulld"], ["hulld"]):
        before = hulld.haproxy()
        if "hulld" in victims:
            hulld.kill()
        if "haproxy" in victims:
            os.kill(before, signal.SIGKILL)
        if "hulld" in victims:
            hulld.start()
        if "haproxy" in victims:
            wait_until(lambda: hulld.haproxy() not in (0, before), "another is started")
        answers(hulld)
        served(hulld, "phoenix.localhost", "phoenix", tries=1)
        assert (hulld.haproxy() != before) == ("haproxy" in victims)
    assert "it is started again" in hulld.log.read_text()
    assert "hull_haproxy_up 1\n" in hulld.get("/metrics").body.decode()


def test_a_hundred_changes_start_no_process_and_cut_nobody(hulld, run, servers):
    run("calm", "calm.localhost", servers("calm").port)
    served(hulld, "calm.localhost", "calm")
    haproxy = hulld.haproxy()
    with websocket(hulld, "calm.localhost") as chat:
        for i in range(50):
            assert create(hulld, f"storm{i}", {"hostname": f"storm{i}.localhost", "guest": 80}).status == 201
            hulld.delete(f"/v1/machines/storm{i - 1}?force=1")
        served(hulld, "storm49.localhost", 503)
        hulld.delete("/v1/machines/storm49")
        for i in range(50):
            wait_until(lambda i=i: who(hulld, f"storm{i}.localhost") == 404, "none is left")
        assert echoes(chat) and who(hulld, "calm.localhost") == "calm" and hulld.haproxy() == haproxy
    assert not list((hulld.run / "http" / "machines").glob("*-80"))


def test_what_a_client_says_of_where_it_comes_from_is_not_passed_on(hulld, run, servers):
    run("head", "head.localhost", servers("head").port)
    served(hulld, "head.localhost", "head")
    spoofed = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X_Forwarded_For", "X-Real-IP", "X_REAL_IP", "X.Forwarded.For",
               "X-Client-IP", "Forwarded", "Proxy")
    head = fetch(hulld, "head.localhost", headers={name: "192.0.2.66" for name in spoofed})[2].lower()
    assert "192.0.2.66" not in head
    assert "x-forwarded-for: 127.0.0.1\n" in head and "x-forwarded-proto: http\n" in head and "host: head.localhost\n" in head


@pytest.mark.parametrize("request_", [
    b"GET / HTTP/1.1\r\nHost: head.localhost\r\nHost: other.localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: head.localhost\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
    b"GET http://a.localhost/ HTTP/1.1\r\nHost: b.localhost b1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\x00b\r\n\r\n", b"\xff\xfe\r\n\r\n"])
def test_a_hostile_request_is_refused(hulld, request_):
    with socket.create_connection(("127.0.0.1", hulld.http), DEADLINE) as client:
        client.sendall(request_)
        assert client.recv(1000).split(b" ")[1] in (b"400", b"404")


@pytest.mark.parametrize("port, field, words", [
    ({"hostname": "Web.localhost"}, "hostname", "must be a host name"), ({"hostname": "a b"}, "hostname", "must be a host name"),
    ({"hostname": "-a.b"}, "hostname", "must be a host name"), ({"hostname": "a..b"}, "hostname", "must be a host name"),
    ({"hostname": "a."}, "hostname", "must be a host name"), ({"hostname": "x\nbackend b1"}, "hostname", "must be a host name"),
    ({"hostname": "127.0.0.1"}, "hostname", "must be a host name"), ({"hostname": "a" * 64}, "hostname", "must be a host name"),
    ({"hostname": "a_b"}, "hostname", "must be a host name"), ({"hostname": "b\u00fccher"}, "hostname", "must be a host name"),
    ({"hostname": ".".join(["a" * 63] * 4)}, "hostname", ""), ({"hostname": ""}, "hostname", ""),
    ({"hostname": "a.localhost", "host": 80}, "host", "does not go with a hostname"),
    ({"hostname": "a.localhost", "address": "0.0.0.0"}, "address", "does not go with a hostname"),
    ({"hostname": "a.localhost", "protocol": "udp"}, "protocol", "does not go with a hostname"),
    ({}, "host", "is required, or a hostname")])
def test_what_is_no_host_name_is_refused(hulld, port, field, words):
    answer = create(hulld, "bad", {"guest": 80, **port})
    assert answer.status == 400 and answer.json["field"] == f"ports[0].{field}" and words in answer.json["detail"], answer


def test_a_machine_has_a_name_once(hulld):
    answer = create(hulld, "twice", *2 * [{"guest": 80, "hostname": "twice.localhost"}])
    assert answer.status == 400 and answer.json["field"] == "ports[1].hostname", answer


def test_who_starts_one_is_told_by_which_name_it_is_served(hulld, servers):
    guest = servers("said").port
    try:
        words = ["run", "-d", "--name", "said", "--network", "none", "--disk", "16", "--hostname", f"said.localhost:{guest}"]
        assert finished(hull(hulld, *words, "any", "any")) == (f"said\n  said.localhost, by host name -> port {guest}\n".encode(), b"", 0)
        served(hulld, "said.localhost", "said")
    finally:
        hulld.delete("/v1/machines/said?force=1")


def test_names_may_be_changed_while_it_runs(hulld, run, servers):
    run("move", "old.localhost", servers("move").port)
    served(hulld, "old.localhost", "move")
    guest = hulld.machine("move")["ports"][0]["guest"]
    with websocket(hulld, "old.localhost") as chat:
        assert finished(hull(hulld, "update", "move", "--hostname", f"new.localhost:{guest}", "--hostname", "old.localhost-"))[2] == 0
        served(hulld, "new.localhost", "move")
        served(hulld, "old.localhost", 404)
        assert echoes(chat)


def is_ingress_of(hulld, pid):
    with contextlib.suppress(OSError):
        return f"{hulld.run}/ingress.sock".encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def project(hulld, name, tmp_path):
    """Makes it, with an image; the headers of who acts in it."""
    headers = {"Hull-Project": name}
    assert hulld.post("/v1/projects", {"name": name}).status == 201
    content = make_erofs(tmp_path)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    assert hulld.request("PUT", f"/v1/blobs/{digest}", content, headers=headers).status == 201
    assert hulld.request("POST", "/v1/images", {"name": "any", "rootfs": digest}, headers=headers).status == 201
    return headers


def haproxy_says(hulld, command):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(hulld.run / "http" / "haproxy.sock"))
        client.sendall(command.encode() + b"\n")
        return b"".join(iter(lambda: client.recv(65536), b"")).decode()


def test_no_project_has_all_names(tmp_path):
    """There are 1024 at once. One takes as many as it leaves; the host's owner takes what is left, and no more. What a name has left is not the next one's."""
    http_port = free_port()
    hulld = start_alone(tmp_path, "--http", f"127.0.0.1:{http_port}")
    hulld.http = http_port
    ports = lambda of, *numbers: [{"hostname": f"n{n}.{of}.localhost", "guest": 80} for n in numbers]  # noqa: E731
    in_map = lambda: {line.split()[1]: line.split()[2] for line in haproxy_says(hulld, f"show map {hulld.run}/http/hosts.map").splitlines() if line}  # noqa: E731
    try:
        answers(hulld)
        greedy, modest = project(hulld, "greedy", tmp_path), project(hulld, "modest", tmp_path)
        assert create(hulld, "a", *ports("modest", 1), headers=modest).status == 201
        known = {"n1.modest.localhost": "b0"}
        wait_until(lambda: in_map() == known, "it is told")
        assert hulld.request("DELETE", "/v1/machines/a", headers=modest).status == 204
        wait_until(lambda: not in_map(), "it is told")
        assert create(hulld, "a", *ports("modest", 2), headers=modest).status == 201
        wait_until(lambda: in_map() == {"n2.modest.localhost": "b1"}, "it is told, and has another backend")
        for n in range(7):
            assert create(hulld, f"m{n}", *ports("greedy", *range(64 * n, 64 * n + 64)), headers=greedy).status == 201
        answer = create(hulld, "m7", *ports("greedy", *range(448, 512)), headers=greedy)
        assert (answer.status, answer.json["code"], answer.json["field"]) == (409, "quota_exceeded", "ports"), answer
        assert create(hulld, "m7", *ports("greedy", *range(448, 511)), headers=greedy).status == 201
        assert create(hulld, "m8", *ports("greedy", 510), headers=greedy).status == 201, "that is no other"
        assert create(hulld, "m9", *ports("greedy", 512), headers=greedy).status == 409
        assert create(hulld, "b", *ports("modest", 3), headers=modest).status == 201
        for n in range(7):
            assert create(hulld, f"o{n}", *ports("owner", *range(64 * n, 64 * n + 64))).status == 201
        assert create(hulld, "o7", *ports("owner", *range(448, 512))).json["code"] == "quota_exceeded"
        assert create(hulld, "o7", *ports("owner", *range(448, 511))).status == 201
    finally:
        for headers in (greedy, modest):
            for machine in hulld.request("GET", "/v1/machines", headers=headers).json["items"]:
                hulld.request("DELETE", f"/v1/machines/{machine['id']}", headers=headers)
        hulld.stop()


def test_a_name_belongs_to_one_project(hulld, tmp_path):
    """Which of others' names are taken is told; whose they are is not."""
    mine, other = {"Hull-Project": "default"}, project(hulld, "red", tmp_path)
    answer = create(hulld, "a", {"hostname": "shop.example", "guest": 80}, headers=other)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (409, "quota_exceeded", "ports[0].hostname"), answer
    assert create(hulld, "a", {"hostname": "xred.localhost", "guest": 80}, headers=other).status == 409
    assert create(hulld, "a", {"hostname": "web.red.localhost", "guest": 80}, headers=other).status == 201
    answer = create(hulld, "b", {"hostname": "web.red.localhost", "guest": 80}, headers=mine)
    assert (answer.status, answer.json["code"]) == (409, "name_taken") and "red" not in answer.json["detail"].replace("web.red.localhost", ""), answer
    assert create(hulld, "b", {"hostname": "shop.example", "guest": 80}, headers=mine).status == 201
    assert create(hulld, "c", {"hostname": "shop.example", "guest": 80}, headers=other).json["code"] == "quota_exceeded", "it is told of no such name"
    assert hulld.request("PUT", "/v1/projects/red/quotas", {"hostnames": ["example"]}).json["quotas"]["hostnames"] == ["example"]
    answer = create(hulld, "c", {"hostname": "shop.example", "guest": 80}, headers=other)
    assert (answer.status, answer.json["code"]) == (409, "name_taken") and answer.json["detail"].endswith("it is already in use"), answer
    assert create(hulld, "c", {"hostname": "www.example", "guest": 80}, headers=other).status == 201
    assert create(hulld, "d", {"hostname": "web.red.localhost", "guest": 80}, headers=other).status == 409
    # Also when both are to have it at the same time: hull-ingress, which is asked in between, is held.
    ingress, = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and is_ingress_of(hulld, pid)]
    merge, both = {"Content-Type": "application/merge-patch+json"}, (("c", other), ("b", mine))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        os.kill(ingress, signal.SIGSTOP)
        try:
            body = json.dumps({"ports": [{"hostname": "both.example", "guest": 81}]})
            asked = [pool.submit(hulld.request, "PATCH", f"/v1/machines/{name}", body, {**merge, **headers}) for name, headers in both]
            wait_until(lambda: all(hulld.request("PATCH", f"/v1/machines/{name}", "{}", {**merge, **headers}).status == 409 for name, headers in both),
                       "both are being changed")
        finally:
            os.kill(ingress, signal.SIGCONT)
    assert sorted(one.result().status for one in asked) == [200, 409]
    for name, headers in (("a", other), ("c", other), ("b", mine)):
        assert hulld.request("DELETE", f"/v1/machines/{name}", headers=headers).status == 204
    assert hulld.request("PUT", "/v1/projects/red/quotas", {"hostnames": ["a b"]}).json["field"] == "hostnames[0]"
    hulld.delete("/v1/projects/red")


def test_haproxy_has_no_rights(hulld):
    def status():
        return dict(line.split(":\t", 1) for line in Path(f"/proc/{hulld.haproxy()}/status").read_text().splitlines())

    wait_until(lambda: status()["NoNewPrivs"].strip() == "1", "it has given up the last of them")
    assert status()["Uid"].split()[1] != "0" and int(status()["CapEff"], 16) == 0
    assert os.readlink(f"/proc/{hulld.haproxy()}/root") == str(hulld.run / "http" / "machines")
    assert (hulld.run / "http").stat().st_mode & 0o777 == 0o700


def curl(hulld, host, *options):
    """By the host's own authority alone: status, version of HTTP, body; or curl's exit status."""
    done = subprocess.run(["curl", "-sS", "--cacert", hulld.folder / "ca.pem", "--resolve", f"{host}:{hulld.https}:127.0.0.1", "-w", "%{http_code} %{http_version}\n",
                           "--max-time", str(DEADLINE), *options, f"https://{host}:{hulld.https}/"], capture_output=True, text=True)
    return done.returncode or (*done.stdout.splitlines()[-1].split(), done.stdout)


def secured(hulld, host, *options):
    return wait_until(lambda: (seen := curl(hulld, host, *options)) and isinstance(seen, tuple) and seen[0] == "200" and seen, f"{host} over TLS")


def served_certificate(hulld, host):
    """As text."""
    shown = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{hulld.https}", "-servername", host], input=b"", capture_output=True).stdout
    return subprocess.run(["openssl", "x509", "-noout", "-text"], input=shown, capture_output=True, check=True).stdout.decode()


def test_https_has_a_certificate_for_each_name(hulld, run, servers):
    """Signed by the host's own authority; HTTP/2 where a client can, and WebSocket."""
    long_name = ".".join(["a" * 63] * 3 + ["b" * 51, "localhost"])
    run("safe", "safe.localhost", servers("safe").port)
    run("long", long_name, servers("long").port)
    assert secured(hulld, "safe.localhost", "--http2")[1] == "2" and secured(hulld, "safe.localhost", "--http1.1")[1] == "1.1"
    assert "x-forwarded-proto: https\n" in secured(hulld, "safe.localhost")[2].lower()
    assert secured(hulld, long_name)[2].startswith("long\n")
    shown = served_certificate(hulld, "safe.localhost")
    assert "DNS:safe.localhost\n" in shown and "CA:FALSE" in shown and "TLS Web Server Authentication" in shown and "prime256v1" in shown
    assert curl(hulld, "unknown.localhost") == 35  # no handshake
    assert curl(hulld, "safe.localhost", "--tls-max", "1.1") != 0
    context = ssl.create_default_context(cafile=hulld.folder / "ca.pem")
    context.set_alpn_protocols(["http/1.1"])
    with context.wrap_socket(socket.create_connection(("127.0.0.1", hulld.https), DEADLINE), server_hostname="safe.localhost") as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: safe.localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1)
        assert b" 101 " in head.split(b"\r\n")[0] and echoes(client)
    hulld.delete("/v1/machines/safe?force=1")
    wait_until(lambda: curl(hulld, "safe.localhost") == 35, "its certificate is gone")
    assert not (hulld.run / "http" / "certificates" / "safe.localhost").exists()


def test_keys_are_the_hosts_own(hulld, run, servers):
    run("key", "key.localhost", servers("key").port)
    secured(hulld, "key.localhost")
    for path in hulld.state / "ca" / "ca.pem", hulld.run / "http" / "certificates" / "key.localhost":
        assert path.stat().st_mode & 0o777 == 0o600 and path.stat().st_uid == 0 and "PRIVATE KEY" in path.read_text()
    answer = hulld.get("/v1/ca").json
    assert answer["certificate"] == (hulld.folder / "ca.pem").read_text() and "PRIVATE" not in answer["certificate"]
    assert "PRIVATE KEY" not in hulld.log.read_text()


def test_certificates_outlive_a_crash_and_are_made_anew_in_time(hulld, run, servers):
    """One that ends soon, one that is another's, and one that is none; then the loss of all of /run."""
    names = [f"{name}.localhost" for name in ("soon", "other", "none", "kept")]
    for name in names:
        run(name.split(".")[0], name, servers(name).port)
        secured(hulld, name)
    folder = hulld.run / "http" / "certificates"
    kept = (folder / "kept.localhost").read_text()
    hulld.kill()
    os.kill(hulld.haproxy(), signal.SIGKILL)
    authority = hulld.state / "ca" / "ca.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "-", "-days", "1"]
    for name, by in (("soon", ["-CA", authority, "-CAkey", authority]), ("other", [])):
        made = subprocess.run([*make, *by, "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}.localhost"], capture_output=True, check=True)
        (folder / f"{name}.localhost").write_bytes(made.stdout)
    (folder / "none.localhost").write_text("nothing")
    hulld.start()
    for name in names:
        secured(hulld, name)
    assert (folder / "kept.localhost").read_text() == kept
    for name in names:
        assert "Hull development CA" in served_certificate(hulld, name)
        subprocess.run(["openssl", "x509", "-noout", "-checkend", str(60 * 86400), "-in", folder / name], check=True, capture_output=True)
    hulld.kill()
    os.kill(hulld.haproxy(), signal.SIGKILL)
    shutil.rmtree(folder)
    hulld.start()
    for name in names:
        secured(hulld, name)


def test_a_certificate_half_told_is_not_taken_for_another(hulld, run, servers):
    """A hulld that was killed between two commands leaves HAProxy a transaction, which takes what comes next for its own."""
    run("first", "first.localhost", servers("first").port)
    secured(hulld, "first.localhost")
    path = hulld.run / "http" / "certificates" / "first.localhost"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(hulld.run / "http" / "haproxy.sock"))
        client.sendall(f"set ssl cert {path} <<\n{path.read_text()}\n".encode())
        assert b"Transaction created" in client.recv(1000)
    run("second", "second.localhost", servers("second").port)
    assert secured(hulld, "second.localhost")[2].startswith("second\n") and secured(hulld, "first.localhost")


def make_certificate(*options, name="given.localhost", subject="other", key=("ec", "-pkeyopt", "ec_paramgen_curve:P-256")):
    """Certificate and key, of another's authority."""
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", *key, "-nodes", "-keyout", "-", "-days", "90", "-subj", f"/CN={subject}",
                           "-addext", f"subjectAltName=DNS:{name}", *options], capture_output=True, check=True, text=True).stdout
    at = made.index("-----BEGIN CERTIFICATE")
    return {"certificate": made[at:], "key": made[:at]}


def der(tag, content):
    length = len(content).to_bytes(2, "big")
    return bytes([tag, 0x82]) + length + content


def rsa_key(modulus, p, q):
    """PKCS #1 (RFC 8017, appendix A.1.2), of whatever numbers."""
    numbers = (0, modulus, 65537, modulus // 3, p, q, modulus % (p - 1), modulus % (q - 1), pow(q, -1, p))
    content = b"".join(der(2, number.to_bytes(number.bit_length() // 8 + 1, "big")) for number in numbers)
    return "-----BEGIN RSA PRIVATE KEY-----\n" + base64.encodebytes(der(0x30, content)).decode() + "-----END RSA PRIVATE KEY-----\n"


def test_a_key_takes_haproxy_no_longer_than_others(hulld, run, servers, tmp_path):
    """Each handshake has a signature by it: one of 8192 bits, or with primes so large, would have HAProxy busy for others' names."""
    name = "costly.localhost"
    run("costly", name, servers("costly").port)
    good = make_certificate(name=name, key=("rsa:2048",))
    p, q = 2 ** 4096 - 17, 2 ** 4096 - 99  # no primes: nobody looks
    modulus = subprocess.run(["openssl", "x509", "-noout", "-modulus"], input=good["certificate"], capture_output=True, text=True, check=True).stdout
    answer = put(hulld, name, {**good, "key": rsa_key(int(modulus.split("=")[1], 16), p, q)})
    assert (answer.status, answer.json["field"]) == (400, "key") and "is not that of the certificate" in answer.json["detail"], answer
    for file, text in (("key", rsa_key(p * q, p, q)), ("ca.key", good["key"]), ("ca", good["certificate"]), ("ext", f"subjectAltName=DNS:{name}")):
        (tmp_path / file).write_text(text)
    openssl = lambda *words: subprocess.run(["openssl", *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout  # noqa: E731
    openssl("rsa", "-in", "key", "-pubout", "-out", "pub")
    openssl("req", "-new", "-key", "ca.key", "-subj", "/CN=costly", "-out", "csr")
    large = openssl("x509", "-req", "-in", "csr", "-force_pubkey", "pub", "-CA", "ca", "-CAkey", "ca.key", "-extfile", "ext")
    answer = put(hulld, name, {"certificate": large, "key": rsa_key(p * q, p, q)})
    assert (answer.status, answer.json["field"]) == (400, "certificate") and "4096" in answer.json["detail"], answer
    assert put(hulld, name, good).status == 201 and hulld.delete(f"/v1/certificates/{name}").status == 204


def put(hulld, name, body, **headers):
    return hulld.request("PUT", f"/v1/certificates/{name}", body, headers=headers)


def is_served(hulld, name, certificate):
    """By its serial number."""
    def serial(text):
        return subprocess.run(["openssl", "x509", "-noout", "-serial"], input=text, capture_output=True).stdout
    wait_until(lambda: serial(subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{hulld.https}", "-servername", name], input=b"",
                                             capture_output=True).stdout) == serial(certificate.encode()), f"that is served for {name}")


def test_a_given_certificate_is_served_in_the_place_of_ours(hulld, run, servers):
    run("given", "given.some.localhost", servers("given").port)
    secured(hulld, "given.some.localhost")
    assert hulld.get("/v1/certificates/given.some.localhost").status == 404
    first, second = make_certificate(name="given.some.localhost"), make_certificate(name="*.some.localhost", key=("rsa:2048",))
    answer = put(hulld, "given.some.localhost", first)
    assert answer.status == 201 and answer.json["certificate"] == first["certificate"] and "key" not in answer.json, answer
    is_served(hulld, "given.some.localhost", first["certificate"])
    assert put(hulld, "given.some.localhost", second).status == 200
    is_served(hulld, "given.some.localhost", second["certificate"])
    # It is there after the loss of both processes and of /run, and was in no file of the state.
    hulld.kill()
    os.kill(hulld.haproxy(), signal.SIGKILL)
    shutil.rmtree(hulld.run / "http")
    hulld.start()
    is_served(hulld, "given.some.localhost", second["certificate"])
    secret = second["key"].splitlines()[5].encode()
    assert all(secret not in path.read_bytes() for path in hulld.state.glob("hull.db*")) and secret.decode() not in hulld.log.read_text()
    assert [item["hostname"] for item in hulld.get("/v1/certificates").json["items"]] == ["given.some.localhost"]
    assert "PRIVATE" not in hulld.get("/v1/certificates").body.decode()
    assert hulld.delete("/v1/certificates/given.some.localhost").status == 204
    wait_until(lambda: isinstance(curl(hulld, "given.some.localhost"), tuple), "ours is served again")


def test_a_name_that_passes_on_takes_no_certificate_along(hulld, run, servers):
    run("lend", "lend.localhost", servers("lend").port)
    given = make_certificate(name="lend.localhost")
    assert put(hulld, "lend.localhost", given).status == 201
    is_served(hulld, "lend.localhost", given["certificate"])
    assert hulld.post("/v1/projects", {"name": "blue", "quotas": {"hostnames": ["lend.localhost"]}}).status == 201
    blue = {"Hull-Project": "blue"}
    assert put(hulld, "lend.localhost", given, **blue).json["code"] == "not_found"  # it has no such name
    assert hulld.request("GET", "/v1/certificates/lend.localhost", headers=blue).status == 404
    assert hulld.request("GET", "/v1/certificates", headers=blue).json["items"] == []
    hulld.delete("/v1/machines/lend?force=1")
    content = make_erofs(hulld.folder)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    hulld.request("PUT", f"/v1/blobs/{digest}", content, headers=blue)
    assert hulld.request("POST", "/v1/images", {"name": "any", "rootfs": digest}, headers=blue).status == 201
    assert create(hulld, "lend", {"hostname": "lend.localhost", "guest": 80}, headers=blue).status == 201
    wait_until(lambda: isinstance(curl(hulld, "lend.localhost"), tuple), "ours is served for another project")
    assert put(hulld, "lend.localhost", given).status == 404
    assert hulld.request("DELETE", "/v1/machines/lend", headers=blue).status == 204
    hulld.delete("/v1/projects/blue")
    assert hulld.delete("/v1/certificates/lend.localhost").status == 204


def test_a_certificate_that_would_not_do_is_refused(hulld, run, servers):
    run("strict", "strict.localhost", servers("strict").port)
    good, name = make_certificate(name="strict.localhost"), "strict.localhost"
    for body, field, words in (
            ({**good, "key": make_certificate()["key"]}, "key", "is not that of the certificate"),
            ({**good, "key": "none"}, "key", "is no key in PEM"), ({**good, "certificate": "none"}, "certificate", "is no certificate in PEM"),
            (make_certificate(), "certificate", "is not for strict.localhost"),
            (make_certificate(name="*.strict.localhost"), "certificate", "is not for strict.localhost"),
            (make_certificate(name=name, key=("rsa:1024",)), "certificate", "must have a key of RSA"),
            (make_certificate("-sha1", name=name), "certificate", "must have a key of RSA"),
            ({**good, "certificate": good["certificate"] + make_certificate(subject="another")["certificate"]}, "certificate", "not in order"),
            ({"certificate": good["certificate"]}, "key", "is required"), ({**good, "key": "x" * 14337}, "key", "")):
        answer = put(hulld, name, body)
        assert answer.status == 400 and answer.json["field"] == field and words in answer.json["detail"], answer
        assert "PRIVATE" not in answer.body.decode()
    with tempfile.NamedTemporaryFile("w", suffix=".key") as key:
        key.write(good["key"])
        key.flush()
        expired = subprocess.run(["openssl", "x509", "-signkey", key.name, "-days", "-1"], input=good["certificate"], capture_output=True, text=True,
                                 check=True).stdout
    assert "has expired" in put(hulld, name, {**good, "certificate": expired}).json["detail"]
    unserved = put(hulld, "nobody.localhost", make_certificate(name="nobody.localhost"))
    assert (unserved.status, unserved.json["hint"]) == (404, "give the name to a machine of the project first, among its ports")
    assert put(hulld, "A.localhost", good).json["field"] == "hostname"
    assert hulld.get("/v1/certificates").json["items"] == []
    files = hulld.folder / "given.crt", hulld.folder / "given.key"
    for path, text in zip(files, (good["certificate"], good["key"])):
        path.write_text(text)
    ran_hull(hulld, "certificate", "set", name, "--certificate", files[0], "--key", files[1])
    assert name.encode() in ran_hull(hulld, "certificate", "list")
    ran_hull(hulld, "certificate", "rm", name)


def test_without_the_option_nothing_is_served(tmp_path):
    daemon = start_alone(tmp_path)
    try:
        assert (daemon.get("/v1/ca").status, daemon.get("/v1/ca").json["hint"]) == (404, "start hulld with --https")
        answer = create(daemon, "web", {"hostname": "web.localhost", "guest": 80})
        assert answer.status == 400 and answer.json["detail"] == "this host serves nothing by host name", answer
        assert not daemon.haproxy()
    finally:
        daemon.stop()


@pytest.mark.parametrize("address, message", [
    ("localhost:80", "--http: localhost is no IPv4 address"), ("80", "--http: must be an IPv4 address and a port"),
    ("127.0.0.1:80\nbind *:1", "--http: must be"), ("127.0.0.1:1", "--run: may have letters")])
def test_an_option_that_is_wrong_is_refused(tmp_path, address, message):
    """A space in a path would be the end of it in HAProxy's configuration."""
    with tempfile.TemporaryDirectory(prefix="hull ") as run:
        result = subprocess.run([BUILD / "hulld", "--state", tmp_path, "--run", run, "--http", address], capture_output=True, text=True)
    assert result.returncode != 0 and message in result.stderr, result
