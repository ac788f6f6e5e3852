"""What hull does when its connection breaks in the middle: it asks again, once, and all is done once."""
import contextlib
import json
import signal
import socket
import threading
from http.client import HTTPResponse

import pytest

from hulld_fixtures import DEADLINE, Hulld, make_erofs, wait_until
from test_cli import Cli


CREATE = "POST /v1/machines HTTP"


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hulld")
    daemon = Hulld(folder).with_stand_in().start()
    daemon.image("busybox", make_erofs(folder, {}))
    yield daemon
    daemon.stop()


class Between:
    """A socket that passes requests on to hulld; of those that begin with `start`, the first `loses` answers are lost, and lost() is called then."""

    def __init__(self, hulld, path, start, loses=1, lost=lambda: None):
        self.hulld, self.start, self.loses, self.lost = hulld, start.encode(), loses, lost
        self.keys = []  # of those
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(16)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(DEADLINE)
        self.listener.close()

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(ConnectionError): # hulld is away
                self.pass_on(client)

    def pass_on(self, client):
        stream = client.makefile("rb")
        head = [stream.readline()]
        while head[-1] not in (b"\r\n", b""):
            head.append(stream.readline())
        fields = dict(line.decode().strip().lower().split(": ", 1) for line in head[1:-1] if b": " in line)
        body = stream.read(int(fields.get("content-length", 0)))
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(str(self.hulld.socket))
            head.insert(1, b"Connection: close\r\n")
            server.sendall(b"".join(head) + body)
            answer = HTTPResponse(server)
            answer.begin()
            content = answer.read()
        if head[0].startswith(self.start):
            self.keys.append(fields.get("idempotency-key"))
            if len(self.keys) <= self.loses:
                self.lost()
                return
        length = b"" if answer.status == 204 else b"Content-Length: %d\r\n" % len(content)
        etag = b"ETag: %s\r\n" % answer.headers["ETag"].encode() if answer.headers["ETag"] else b""
        client.sendall(b"HTTP/1.1 %d X\r\nConnection: close\r\n%s%s\r\n" % (answer.status, length, etag) + content)


@contextlib.contextmanager
def between(hulld, tmp_path, *args, **options):
    relay = Between(hulld, tmp_path / "relay", *args, **options)
    try:
        yield relay, Cli(tmp_path, tmp_path / "relay")
    finally:
        relay.close()
        for machine in hulld.get("/v1/machines").json["items"]:
            hulld.delete(f"/v1/machines/{machine['id']}?force=1")


def manifest(folder):
    path = folder / "one.json"
    path.write_text(json.dumps([{"name": "one", "image": "busybox", "command": ["true"]}]))
    return path


def names(hulld):
    return [machine["name"] for machine in hulld.get("/v1/machines").json["items"]]


def test_what_is_created_is_created_once(hulld, tmp_path):
    with between(hulld, tmp_path, CREATE) as (relay, cli):
        assert cli("apply", "-y", "--no-start", "-f", manifest(tmp_path)).stdout.endswith("one: created\n")
        assert relay.keys[0] and relay.keys[0] == relay.keys[1] and len(relay.keys) == 2
        assert names(hulld) == ["one"]


def test_a_token_whose_answer_was_lost_is_made_once(hulld, tmp_path):
    with between(hulld, tmp_path, "POST /v1/tokens") as (_, cli):
        token = cli("token", "create", "--scope", "read").stdout.strip()
        tokens = hulld.get("/v1/tokens").json["items"]
        assert len(tokens) == 1
        assert hulld.request("GET", "/v1/machines", headers={"Authorization": f"Bearer {token}"}).status == 200
        assert hulld.delete(f"/v1/tokens/{tokens[0]['id']}").status == 204


def test_hulld_killed_before_its_answer_has_done_it_when_it_is_back(hulld, tmp_path):
    with between(hulld, tmp_path, CREATE, lost=hulld.restart) as (relay, cli):
        cli("apply", "-y", "--no-start", "-f", manifest(tmp_path))
        assert len(set(relay.keys)) == 1 and names(hulld) == ["one"]


@pytest.mark.parametrize("start, words", [("DELETE ", ["rm", "one"]), ("PATCH ", ["update", "one", "--label", "a=b"]), ("GET ", ["inspect", "one"])])
def test_what_is_done_twice_comes_to_the_same(hulld, tmp_path, start, words):
    with between(hulld, tmp_path, start) as (relay, cli):
        assert hulld.post("/v1/machines", {"name": "one", "image": "busybox", "command": ["true"]}).status == 201
        cli(*words)
        assert len(relay.keys) >= 2 and not any(relay.keys)
        assert names(hulld) == ([] if start == "DELETE " else ["one"])


def test_what_is_removed_twice_is_not_what_another_has_made_in_between(hulld, tmp_path):
    one = {"name": "one", "image": "busybox", "command": ["true"]}
    with between(hulld, tmp_path, "DELETE ", lost=lambda: hulld.post("/v1/machines", one)) as (relay, cli):
        first = hulld.post("/v1/machines", one).json
        assert cli("rm", "one").stdout == "one\n" and len(relay.keys) == 2
        assert names(hulld) == ["one"] and hulld.get("/v1/machines/one").json["id"] != first["id"]


def test_who_may_not_look_removes_all_the_same(hulld, tmp_path):
    with between(hulld, tmp_path, "DELETE ") as (_, cli):
        assert hulld.post("/v1/machines", {"name": "one", "image": "busybox", "command": ["true"]}).status == 201
        cli.env["HULL_TOKEN"] = hulld.post("/v1/tokens", {"scopes": ["write"]}).json["token"]
        assert cli("rm", "one").stdout == "one\n" and names(hulld) == []


def test_what_is_only_planned_needs_no_key(hulld, tmp_path):
    with between(hulld, tmp_path, "POST /v1/machines?dry_run=1 ") as (relay, cli):
        assert "machine one" in cli("apply", "--dry-run", "-f", manifest(tmp_path)).stdout and relay.keys == [None, None]


def test_each_request_has_a_key_of_its_own(hulld, tmp_path):
    with between(hulld, tmp_path, "POST /v1/webhooks", loses=0) as (relay, cli):
        for _ in range(2):
            cli("webhook", "create", "https://example.org/hook", "--disabled")
        assert len(set(relay.keys)) == 2
        cli("webhook", "rm", *cli("webhook", "list", "-q").stdout.split())


def test_what_breaks_again_is_a_failure(hulld, tmp_path):
    with between(hulld, tmp_path, CREATE, loses=1000) as (relay, cli):
        said = cli("apply", "-y", "--no-start", "-f", manifest(tmp_path), status=1).stderr
        assert "it went away twice before its answer" in said and "not done: one" in said and len(relay.keys) == 2


def test_who_does_not_want_to_wait_for_hulld_interrupts(hulld, tmp_path):
    with between(hulld, tmp_path, CREATE, lost=hulld.kill) as (relay, cli):
        run = cli.popen("run", "-d", "--name", "one", "busybox", "--", "true")
        wait_until(lambda: relay.keys, "the first try")
        run.send_signal(signal.SIGINT)
        said = run.communicate(timeout=DEADLINE / 2)[1] # a minute is how long it would wait
        assert run.returncode in (125, 130) and said.startswith("hull: interrupted\n      the API is away; what was asked for may have been done"), said
        hulld.start()
        assert names(hulld) == ["one"]
