"""Webhooks: events come to a receiver, signed, each at least once and in their order, whatever becomes of the receiver and of hulld;
and nothing goes where a tenant has no business."""
import base64
import collections
import contextlib
import hashlib
import hmac
import http.server
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import time

import pytest

from free_ports import free_port
from hulld_fixtures import Hulld, make_erofs, wait_until
from test_cli import Cli
from test_hulld import refused
from test_tenants import In, project, token

HERE = "127.0.0.0/8,::1"
FAST = "10,3600,60000"  # the first retry after 5 to 10 ms; a minute for an answer, which no receiver needs that is only slow
IMPATIENT = "10,3600,1000"  # a second


class Receiver:
    """What a customer runs: remembers what it is sent, and answers as it is told."""

    def __init__(self, port=0, context=None):
        self.got, self.answers = [], collections.deque()
        self.held = threading.Event()
        self.held.set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.path, dict(self.headers), body, time.monotonic()))
                receiver.held.wait(60)
                status, headers, answer = receiver.answers.popleft() if receiver.answers else (204, {}, b"")
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *args):
                """Who has sent is killed, at times."""

        self.server = Server(("127.0.0.1", port), Handler)
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = f"http{'s' * bool(context)}://127.0.0.1:{self.port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self):
        self.held.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, *statuses, headers=None, body=b""):
        self.answers.extend((status, headers or {}, body) for status in statuses)

    def events(self):
        return [json.loads(body) for _, _, body, _ in self.got]

    def wait(self, n):
        wait_until(lambda: len(self.got) >= n, f"{n} deliveries")
        return self.events()


def verify(secret, headers, body):
    """As a library for Standard Webhooks does it."""
    headers = {name.lower(): value for name, value in headers.items()}
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 300
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert hmac.compare_digest(expected, headers["webhook-signature"])
    return headers["webhook-id"]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    daemon = Hulld(tmp_path_factory.mktemp("hulld"), "--webhook-allow", HERE, "--webhook-timing", FAST).with_stand_in().start()
    yield daemon
    daemon.stop()


@pytest.fixture
def hulld(daemon):
    yield daemon
    for hook in daemon.get("/v1/webhooks").json["items"]:
        assert daemon.delete(f"/v1/webhooks/{hook['id']}").status == 204


@pytest.fixture
def receiver():
    one = Receiver()
    yield one
    one.close()


def create(acting, url, **spec):
    made = acting.post("/v1/webhooks", {"url": url, **spec})
    assert made.status == 201, made
    return made.json


def patch(acting, hook, **change):
    headers = {"Content-Type": "application/merge-patch+json"}
    return acting.request("PATCH", f"/v1/webhooks/{hook['id']}", json.dumps(change), headers)


def shown(acting, hook):
    return acting.get(f"/v1/webhooks/{hook['id']}").json


def settled(acting, hook, receiver):
    """It knows that what was received was: before that, a change of it has that sent again."""
    wait_until(lambda: shown(acting, hook)["cursor"] >= receiver.events()[-1]["id"], "it has noted that")


def happen(acting, *names):
    for name in names:
        assert acting.request("PUT", f"/v1/secrets/{name}", {"value": "v"}).status in (200, 201)


def names(events):
    return [event["name"] for event in events if event["type"].startswith("secret.")]


def test_what_happens_is_sent_signed_and_in_order(hulld, receiver):
    hook = create(hulld, receiver.url + "?who=me", labels={"team": "a"})
    assert re.fullmatch("whsec_[A-Za-z0-9+/]{43}=", hook["secret"]) and re.fullmatch("w[a-z2-7]{12}", hook["id"])
    assert (hook["state"], hook["failures"], hook["last_status"], hook["labels"], hook["events"]) == ("active", 0, None, {"team": "a"}, [])
    happen(hulld, *(f"S{n}" for n in range(30)))
    got = receiver.wait(31)
    assert got[0]["type"] == "webhook.created" and names(got) == [f"S{n}" for n in range(30)]
    kept = {event["id"]: event for event in hulld.get(f"/v1/events?after={got[0]['id'] - 1}").json["items"]}
    for (path, headers, body, _), event in zip(receiver.got, got):
        assert verify(hook["secret"], headers, body) == f"{hook['id']}_{event['id']}" and path == "/hook?who=me"
        assert headers["Content-Type"] == "application/json" and headers["User-Agent"].startswith("hulld/") and "Expect" not in headers
        assert event.pop("project") == "default" and event.pop("timestamp") == event["at"] and event == kept[event["id"]]
    settled(hulld, hook, receiver)
    now = shown(hulld, hook)
    assert now["last_status"] == 204 and now["last_delivered_at"] and now["last_error"] is None and "secret" not in now
    assert hook["secret"] not in json.dumps(hulld.get("/v1/webhooks").json) + json.dumps(hulld.get("/v1/events?limit=1000").json)
    listed = hulld.get("/v1/webhooks").json["items"]
    assert listed == [now] and hulld.get("/v1/webhooks?limit=1").json == {"items": [now]}
    with open(hulld.state / "hull.db", "rb") as rows, open(hulld.state / "hull.db-wal", "rb") as log:
        assert hook["secret"].encode() not in rows.read() + log.read()
    assert hulld.delete(f"/v1/webhooks/{hook['id']}").status == 204
    refused(hulld.get(f"/v1/webhooks/{hook['id']}"), 404, "not_found")
    happen(hulld, "AFTER")
    assert len(receiver.got) == 31


def test_a_filter_a_secret_of_one_s_own_and_changes(hulld, receiver):
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    hook = create(hulld, receiver.url, events=["secret.deleted", "image"], secret=secret)
    assert hook["secret"] == secret
    happen(hulld, "A", "B")
    assert hulld.delete("/v1/secrets/A").status == 204
    assert [event["type"] for event in receiver.wait(1)] == ["secret.deleted"]
    verify(secret, *receiver.got[0][1:3])
    settled(hulld, hook, receiver)
    other = "whsec_" + base64.b64encode(b"o" * 64).decode()
    etag = hulld.get(f"/v1/webhooks/{hook['id']}").headers["ETag"]
    assert hulld.request("PATCH", f"/v1/webhooks/{hook['id']}", "{}", {"Content-Type": "application/merge-patch+json", "If-Match": '"x"'}).status == 412
    changed = patch(hulld, hook, events=["secret.set"], secret=other, labels={"a": "b"})
    assert changed.status == 200 and changed.json["events"] == ["secret.set"] and "secret" not in changed.json and etag != changed.headers["ETag"]
    happen(hulld, "C")
    assert names(receiver.wait(2)) == ["A", "C"]
    verify(other, *receiver.got[1][1:3])
    settled(hulld, hook, receiver)
    assert patch(hulld, hook, enabled=False).json["state"] == "disabled"
    happen(hulld, "D", "E")
    assert hulld.get(f"/v1/webhooks/{hook['id']}").json["disabled_reason"] is None
    assert patch(hulld, hook, enabled=True).json["state"] == "active"
    assert names(receiver.wait(4)) == ["A", "C", "D", "E"], "what has waited comes"
    types = [event["type"] for event in hulld.get("/v1/events?type=webhook&since_s=60").json["items"]]
    assert types[-4:] == ["webhook.created", "webhook.updated", "webhook.disabled", "webhook.updated"]


def test_what_fails_comes_again_and_nothing_overtakes_it(hulld, receiver):
    hook = create(hulld, receiver.url, events=["secret"])
    receiver.answer(500, 302, 404, headers={"Location": receiver.url + "/elsewhere"})
    happen(hulld, "A", "B")
    got = receiver.wait(5)
    assert names(got) == ["A", "A", "A", "A", "B"] and {path for path, *_ in receiver.got} == {"/hook"}, "no redirect is followed"
    assert len({headers["webhook-id"] for _, headers, *_ in receiver.got[:4]}) == 1
    for _, headers, body, _ in receiver.got:
        verify(hook["secret"], headers, body)
    gaps = [after[3] - before[3] for before, after in zip(receiver.got, receiver.got[1:4])]
    assert gaps[0] >= 0.005 and gaps[1] >= 0.01 and gaps[2] >= 0.02
    settled(hulld, hook, receiver)
    receiver.answer(*[503] * 3)
    receiver.answer(429, headers={"Retry-After": "3600"})
    happen(hulld, "C")
    receiver.wait(9)
    late = wait_until(lambda: (now := shown(hulld, hook))["failures"] == 4 and now, "it has noted that")
    assert (late["state"], late["last_status"], late["last_error"]) == ("failing", 429, "answered with status 429")
    assert 3500 < time.mktime(time.strptime(late["next_attempt_at"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone - time.time() < 3700
    assert names(receiver.events())[5:] == ["C"] * 4 and patch(hulld, hook, url=receiver.url + "/new").json["failures"] == 0
    assert names(receiver.wait(10))[-1] == "C" and receiver.got[-1][0] == "/hook/new", "a change is tried at once"


def test_a_receiver_that_does_not_answer_is_not_waited_for_and_holds_nobody_up(tmp_path):
    hulld = Hulld(tmp_path, "--webhook-allow", HERE, "--webhook-timing", IMPATIENT).start()
    other = Receiver()
    silent = socket.create_server(("127.0.0.1", 0))
    try:
        slow = create(hulld, f"http://127.0.0.1:{silent.getsockname()[1]}/", events=["secret"])
        nobody = create(hulld, f"http://127.0.0.1:{free_port()}/", events=["secret"])
        create(hulld, other.url, events=["secret"])
        happen(hulld, *(f"S{n}" for n in range(10)))
        # What takes that a second to answer is sent again.
        wait_until(lambda: list(dict.fromkeys(names(other.events()))) == [f"S{n}" for n in range(10)], "it has all, in their order")
        late = wait_until(lambda: (now := shown(hulld, slow))["failures"] and now, "its time is over")
        assert "timed out" in late["last_error"] and late["last_status"] is None
        assert "connect" in wait_until(lambda: shown(hulld, nobody)["last_error"], "nobody is there")
    finally:
        silent.close()
        other.close()
        hulld.stop()


def can_bind(one, address, port):
    """Another test may be there."""
    try:
        one.bind((address, port))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def nameless(tmp_path, timing):
    """A hulld whose server of names is silent: a look-up takes very long."""
    hulld = Hulld(tmp_path, "--webhook-timing", timing)
    command = hulld.command
    hulld.command = lambda: ["unshare", "-m", "sh", "-c", f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && exec \"$@\"", "sh", *command()]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        address = next(address for i in range(2, 255) if can_bind(silent, address := f"127.0.0.{i}", 53))
        (tmp_path / "resolv.conf").write_text(f"nameserver {address}\noptions timeout:30\n")
        silent.settimeout(60)
        hulld.start()
        try:
            yield hulld, silent
            begun = time.monotonic()
            hulld.kill(15)
            assert hulld.process.returncode == 0 and time.monotonic() - begun < 4
        finally:
            hulld.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_a_name_that_nobody_knows_holds_nobody_up(tmp_path):
    with nameless(tmp_path, IMPATIENT) as (hulld, silent):
        hook = create(hulld, "https://receiver.example/")
        assert b"receiver" in silent.recv(512)
        slowest, late = 0, {"failures": 0}
        while late["failures"] < 2:
            begun = time.monotonic()
            late = shown(hulld, hook)
            slowest = max(slowest, time.monotonic() - begun)
        assert "timed out" in late["last_error"] and slowest < 4, (late, slowest)
        assert hulld.delete(f"/v1/webhooks/{hook['id']}").status == 204


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_look_ups_that_are_left_are_few(tmp_path):
    """A look-up cannot be ended, and has a thread: who turns away from one after another, by pings or by changes, has a few of them."""
    with nameless(tmp_path, "10,3600,60000") as (hulld, _):
        threads = lambda: len(os.listdir(f"/proc/{hulld.process.pid}/task"))  # noqa: E731
        hook = create(hulld, "https://receiver.example/", events=["image"])
        idle = threads()
        for n in range(6):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(str(hulld.socket))
                client.sendall(f"POST /v1/webhooks/{hook['id']}/ping HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                if n < 4:
                    wait_until(lambda: threads() == idle + n + 1, "it is looked up")
                else:
                    assert b" 503 " in client.recv(1000).split(b"\r\n")[0]
        assert patch(hulld, hook, events=["image", "secret"]).status == 200
        happen(hulld, "A")
        for n in range(6):
            assert patch(hulld, hook, url=f"https://receiver{n}.example/").status == 200
        assert threads() == idle + 4


def test_answers_without_end_are_cut_off(hulld, receiver):
    hook = create(hulld, receiver.url, events=["secret"])
    receiver.answer(200, body=b"x" * (4 << 20))
    receiver.answer(200, headers={f"X-{n}": "y" * 1000 for n in range(90)})
    happen(hulld, "A", "B")
    assert names(receiver.wait(3)) == ["A", "B", "B"], "who has said 200 has said it; a head has an end"
    wait_until(lambda: shown(hulld, hook)["failures"] == 0 and shown(hulld, hook)["last_delivered_at"], "it has noted that")


def test_gone_disables_and_so_does_failing_for_long(hulld, receiver, tmp_path):
    hook = create(hulld, receiver.url, events=["secret"])
    receiver.answer(410)
    happen(hulld, "A")
    gone = wait_until(lambda: (now := shown(hulld, hook))["state"] == "disabled" and now, "it is disabled")
    assert (gone["disabled_reason"], gone["enabled"], gone["last_status"]) == ("gone", False, 410)
    last = hulld.get("/v1/events?type=webhook.disabled&since_s=60").json["items"][-1]
    assert (last["subject"], last["data"]) == (hook["id"], {"reason": "gone"})
    happen(hulld, "B")
    assert patch(hulld, hook, enabled=True).json["disabled_reason"] is None
    assert names(receiver.wait(3)) == ["A", "A", "B"]
    impatient = Hulld(tmp_path, "--webhook-allow", HERE, "--webhook-timing", "1,3").start()
    try:
        receiver.answer(*[500] * 1000)
        hook = create(impatient, receiver.url)
        wait_until(lambda: shown(impatient, hook)["state"] == "failing", "it fails")
        late = wait_until(lambda: (now := shown(impatient, hook))["state"] == "disabled" and now, "it is given up")
        assert late["disabled_reason"] == "failing" and late["failures"] >= 5 and late["next_attempt_at"] is None
        impatient.restart()
        assert shown(impatient, hook)["state"] == "disabled"
    finally:
        impatient.stop()


def test_nothing_is_lost_when_hulld_is_killed(hulld, receiver):
    hook = create(hulld, receiver.url, events=["secret"])
    expected = []
    for kill in range(6):
        if kill % 2:
            receiver.answer(*[500] * 5)
        for n in range(5):
            happen(hulld, f"K{kill}_{n}")
            expected.append(f"K{kill}_{n}")
        hulld.restart(*([15] if kill == 5 else []))
    wait_until(lambda: expected[-1] in names(receiver.events()), "all is there")
    got = names(receiver.events())
    assert list(dict.fromkeys(got)) == expected, "each, in its order"
    by_id = collections.defaultdict(set)
    for _, headers, body, _ in receiver.got:
        by_id[verify(hook["secret"], headers, body)].add(body)
    assert all(len(bodies) == 1 for bodies in by_id.values()) and len(by_id) == len(expected)


def test_a_receiver_that_was_away_gets_all_when_it_is_back(hulld):
    port = free_port()
    hook = create(hulld, f"http://127.0.0.1:{port}/", events=["secret"])
    happen(hulld, *(f"S{n}" for n in range(100)))
    wait_until(lambda: shown(hulld, hook)["failures"] >= 2, "it is away")
    hulld.restart(15)  # killed, it would have forgotten its last second
    assert shown(hulld, hook)["failures"] >= 1 and shown(hulld, hook)["last_error"], "that is kept, too"
    receiver = Receiver(port)
    try:
        assert names(receiver.wait(100)) == [f"S{n}" for n in range(100)]
    finally:
        receiver.close()


def test_a_ping_tells_what_became_of_it(hulld, receiver):
    hook = create(hulld, receiver.url, events=["image"], enabled=False)
    receiver.answer(204, 500)
    ping = lambda: hulld.post(f"/v1/webhooks/{hook['id']}/ping")  # noqa: E731
    first = ping()
    assert first.status == 200 and (first.json["delivered"], first.json["status"], first.json["error"]) == (True, 204, None)
    assert ping().json["error"] == "answered with status 500"
    event = receiver.events()[0]
    assert (event["type"], event["subject"], event["project"]) == ("webhook.ping", hook["id"], "default")
    assert verify(hook["secret"], *receiver.got[0][1:3]).startswith(hook["id"] + "_ping_")
    assert patch(hulld, hook, url=f"http://127.0.0.1:{free_port()}/").status == 200
    failed = ping().json
    assert (failed["delivered"], failed["status"]) == (False, None) and "connect" in failed["error"]
    refused(hulld.post("/v1/webhooks/wnone/ping"), 404, "not_found")
    assert shown(hulld, hook)["failures"] == 0, "a ping is no delivery"
    receiver.held.clear()
    assert patch(hulld, hook, url=receiver.url).status == 200
    threads = [threading.Thread(target=ping) for _ in range(4)]
    for thread in threads:
        thread.start()
    receiver.wait(6)
    refused(ping(), 503, "busy")
    receiver.held.set()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("spec, field", [
    ({"url": "HTTPS://host/"}, "url"), ({"url": "ftp://127.0.0.1/"}, "url"), ({"url": "127.0.0.1"}, "url"), ({"url": "https://"}, "url"), ({"url": "https://u:p@host/"}, "url"),
    ({"url": "https://host/#x"}, "url"), ({"url": "https://host/ x"}, "url"), ({"url": "https://h\u00e4st/"}, "url"), ({"url": "file:///etc/passwd"}, "url"),
    ({"url": "https://host/" + "x" * 2048}, "url"), ({"url": "https://h/", "events": ["machine.flying"]}, "events[0]"),
    ({"url": "https://h/", "events": ["image", "image,secret"]}, "events[1]"), ({"url": "https://h/", "secret": "short"}, "secret"),
    ({"url": "https://h/", "secret": "whsec_" + "A" * 31}, "secret"), ({"url": "https://h/", "secret": "whsec_" + base64.b64encode(bytes(23)).decode()}, "secret"),
    ({"url": "https://h/", "secret": "whsec_" + base64.b64encode(bytes(65)).decode()}, "secret"),
    ({"url": "https://10.1.2.3/"}, "url"), ({"url": "https://[::ffff:169.254.169.254]/"}, "url"), ({"url": "https://0x0a.1/"}, "url"),
    ({"url": "https://167837955/"}, "url"), ({"url": "http://8.8.8.8/"}, "url"), ({"url": "https://[fe80::1]/"}, "url"),
])
def test_what_makes_no_sense_or_leads_inside_is_refused(hulld, spec, field):
    refused(hulld.post("/v1/webhooks", spec), 400, "invalid_field", field)
    assert hulld.get("/v1/webhooks").json["items"] == []


def test_other_refusals(hulld, receiver):
    refused(hulld.post("/v1/webhooks", {}), 400, "missing_field", "url")
    refused(hulld.post("/v1/webhooks", {"url": receiver.url, "uri": 1}), 400, "unknown_field", "uri")
    hook = create(hulld, receiver.url)
    refused(patch(hulld, hook, url=None), 400, "missing_field", "url")
    refused(patch(hulld, hook, secret=None), 400, "invalid_field", "secret")
    refused(patch(hulld, hook, id="x"), 400, "unknown_field", "id")
    refused(patch(hulld, hook, url="https://192.168.0.1/"), 400, "invalid_field", "url")
    for _ in range(15):
        create(hulld, receiver.url)
    refused(hulld.post("/v1/webhooks", {"url": receiver.url}), 409, "quota_exceeded")
    hulld.delete(f"/v1/webhooks/{hook['id']}")
    create(hulld, receiver.url)


def test_without_leave_nothing_of_the_host_is_reached(tmp_path, receiver):
    hulld = Hulld(tmp_path, "--webhook-timing", FAST).start()
    try:
        refused(hulld.post("/v1/webhooks", {"url": receiver.url}), 400, "invalid_field", "url")
        for url in (f"http://localhost:{receiver.port}/", "foo"):
            assert "https" in refused(hulld.post("/v1/webhooks", {"url": url}), 400, "invalid_field", "url")["detail"]
        for url in (f"https://127.0.0.1:{receiver.port}/", f"https://[::1]:{receiver.port}/", f"https://2130706433:{receiver.port}/"):
            refused(hulld.post("/v1/webhooks", {"url": url}), 400, "invalid_field", "url")
        hook = create(hulld, f"https://localhost:{receiver.port}/")  # what a name leads to shows when it is connected to
        late = wait_until(lambda: (now := shown(hulld, hook))["last_error"] and now, "it was tried")
        assert "is no address that webhooks may be sent to" in late["last_error"], late
        assert "is no address" in hulld.post(f"/v1/webhooks/{hook['id']}/ping").json["error"]
        assert receiver.got == []
        told = hulld.get("/metrics").body.decode()
        assert int(re.search(r'hull_webhook_deliveries_total\{outcome="forbidden"\} (\d+)', told)[1]) >= 2
        assert 'hull_webhook_deliveries_total{outcome="delivered"} 0' in told and re.search(r'hull_webhooks\{state="\w+"\} 1', told)
    finally:
        hulld.stop()


def test_certificates_are_verified(tmp_path):
    for name in ("good", "bad"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=x",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.pem"],
                       check=True, capture_output=True)
    receivers = {}
    for name in ("good", "bad"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        receivers[name] = Receiver(context=context)
    hulld = Hulld(tmp_path, "--webhook-allow", HERE, "--webhook-timing", FAST, env={"SSL_CERT_FILE": str(tmp_path / "good.pem")}).start()
    try:
        good, bad = (create(hulld, receivers[name].url) for name in ("good", "bad"))
        happen(hulld, "A")
        assert names(receivers["good"].wait(3)) == ["A"]
        verify(good["secret"], *receivers["good"].got[0][1:3])
        # The authorities are known by now, and not read with each connection: that takes long where they are many.
        (tmp_path / "good.pem").rename(tmp_path / "elsewhere.pem")
        receivers["good"].answer(204, headers={"Connection": "close"})
        happen(hulld, "B", "C")
        assert names(receivers["good"].wait(5)) == ["A", "B", "C"]
        assert "certificate" in wait_until(lambda: shown(hulld, bad)["last_error"], "it was tried")
        assert receivers["bad"].got == []
    finally:
        hulld.stop()
        for one in receivers.values():
            one.close()


def test_webhooks_are_a_project_s_own_and_its_administrator_s(hulld, receiver):
    a, b = project(hulld, "a"), project(hulld, "b")
    hook = create(a, receiver.url)
    happen(b, "NOT_YOURS")
    happen(a, "YOURS")
    assert names(receiver.wait(2)) == ["YOURS"] and {event["project"] for event in receiver.events()} == {"a"}
    path = f"/v1/webhooks/{hook['id']}"
    for answer in (b.get(path), b.delete(path), b.post(path + "/ping"), patch(b, hook, enabled=False)):
        refused(answer, 404, "not_found")
    assert b.get("/v1/webhooks").json["items"] == []
    writer, _ = token(a, "read", "write", "exec")
    admin, _ = token(a, "admin", "read")
    for answer in (writer.get("/v1/webhooks"), writer.get(path), writer.post("/v1/webhooks", {"url": receiver.url}), writer.delete(path)):
        refused(answer, 403, "forbidden")
    assert admin.get(path).status == 200
    kinds = lambda client: {event["type"] for event in client.get("/v1/events").json["items"]}  # noqa: E731
    assert "webhook.created" in kinds(admin) and "webhook.created" not in kinds(writer)
    before = len(receiver.wait(4))  # tokens come and go, which is its business
    assert hulld.delete("/v1/projects/a").status == hulld.delete("/v1/projects/b").status == 204
    project(hulld, "a")
    happen(In(hulld, "a"), "ANOTHER")
    assert In(hulld, "a").get("/v1/webhooks").json["items"] == []
    assert hulld.delete("/v1/projects/a").status == 204 and len(receiver.got) == before


def test_the_command_line_has_it_all(hulld, receiver, tmp_path):
    hull = Cli(tmp_path, hulld.socket)
    hook, secret = hull("webhook", "create", receiver.url, "--event", "secret", "--label", "a=b").stdout.split()
    happen(hulld, "A")
    receiver.wait(1)
    verify(secret, *receiver.got[0][1:3])
    wait_until(lambda: hulld.get(f"/v1/webhooks/{hook}").json["last_delivered_at"], "it has noted that")
    header, row = hull("webhook", "list").stdout.splitlines()
    assert header.split() == ["ID", "STATE", "URL", "DELIVERED", "FAILURES", "WHY"] and row.split()[:3] == [hook, "active", receiver.url]
    shown_ = json.loads(hull("webhook", "inspect", hook).stdout)
    assert (shown_["labels"], shown_["events"]) == ({"a": "b"}, ["secret"]) and "secret" not in shown_
    assert hull("webhook", "disable", hook).stdout == hook + "\n"
    happen(hulld, "B")
    assert hull("webhook", "ping", hook).stdout.startswith("delivered: status 204, ") and len(receiver.wait(2)) == 2
    receiver.answer(500)
    assert hull.refused("webhook", "ping", hook)[0] == f"{hook}: not delivered: answered with status 500"
    assert json.loads(hull("webhook", "ping", hook, "-o", "json").stdout)["delivered"] is True
    hull("webhook", "enable", hook)
    assert names(receiver.wait(5)) == ["A", "B"]
    assert hull("webhook", "rm", hook).stdout == hook + "\n"
    assert hull.refused("webhook", "inspect", hook) == (f'there is no webhook "{hook}"', "`hull webhook list` lists what there is")
    (tmp_path / "secret").write_text("whsec_" + base64.b64encode(b"f" * 32).decode() + "\n")
    made = json.loads(hull("webhook", "create", receiver.url, "--secret-file", tmp_path / "secret", "--disabled", "-o", "json").stdout)
    assert made["secret"] == (tmp_path / "secret").read_text().strip() and made["state"] == "disabled"
    assert "https" in hull.refused("webhook", "create", "ftp://x/")[0]
    assert hull.refused("webhook", "create", receiver.url, "--event", "nonsense")[0].startswith("events[0]")
    assert hull.refused("webhook", "create", receiver.url, "--secret-file", "/nowhere")[0].startswith("/nowhere")


@pytest.mark.parametrize("options", [["--webhook-allow", "nowhere"], ["--webhook-allow", "10.0.0.0/33"], ["--webhook-timing", "0"],
                                     ["--webhook-timing", "1,2,3,4"], ["--webhook-timing", "x"]])
def test_options_that_make_no_sense_are_refused(tmp_path, options):
    done = subprocess.run(Hulld(tmp_path, *options).command(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and options[0] in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
