"""Two projects, one hostile: whatever it asks for of the other's, by any route there is, it is answered as if that did not exist.

Calls come in pairs. The first names what the victim has: its ids, names, digests, keys, port, whatever the attacker may have come to
know. The second names in their places what nobody has, and of the same shape. Each begins in the same state, and both answers have to
be the same, byte by byte, but for those names, made-up ids and times. Routes, parameters and bodies are the served OpenAPI document's,
so that a new route is attacked as soon as it is there."""
import contextlib
import hashlib
import itertools
import json
import os
import random
import re
import signal
import socket
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from free_ports import free_port
from hulld_fixtures import Hulld, make_erofs, wait_until
from test_hulld import ingress_pid
from test_tenants import In, project, token

CALLS = 10_000
SEED = 5
CANARY = "canary-of-the-victim"
N_KEYS = 40


class Pair:
    """One thing in a call: what the victim has, and what nobody has."""

    def __init__(self, there, nowhere):
        self.sides = (there, nowhere)


def render(value, side):
    if isinstance(value, Pair):
        return value.sides[side]
    if isinstance(value, dict):
        return {key: render(item, side) for key, item in value.items()}
    if isinstance(value, list):
        return [render(item, side) for item in value]
    return value


class Wire:
    """A connection that is kept: cheaper by far than http.client, for so many calls."""

    def __init__(self, path, secret):
        self.path, self.secret, self.sock, self.rest = str(path), secret, None, b""

    def read_until(self, end):
        while end not in self.rest:
            more = self.sock.recv(65536)
            assert more, "hulld ends its answer"
            self.rest += more
        head, self.rest = self.rest.split(end, 1)
        return head

    def read(self, size):
        while len(self.rest) < size:
            more = self.sock.recv(65536)
            assert more, "hulld ends its answer"
            self.rest += more
        body, self.rest = self.rest[:size], self.rest[size:]
        return body

    def read_chunks(self):
        body = b""
        while size := int(self.read_until(b"\r\n"), 16):
            body += self.read(size)
            self.read(2)
        self.read(2)
        return body

    def call(self, method, path, headers, body):
        """Status, {header: value}, body."""
        if not self.sock:
            self.sock, self.rest = socket.socket(socket.AF_UNIX), b""
            self.sock.settimeout(60)
            self.sock.connect(self.path)
        lines = [f"{method} {path} HTTP/1.1", "Host: hulld", f"Authorization: Bearer {self.secret}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        status, *fields = self.read_until(b"\r\n\r\n").decode().split("\r\n")
        got = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        got.pop("date", None)
        answer, stream = b"", got.get("content-type") == "text/event-stream"
        if method != "HEAD" and not stream:
            answer = self.read_chunks() if "transfer-encoding" in got else self.read(int(got.get("content-length", 0)))
        if got.get("connection", "").lower() == "close" or stream:
            self.sock.close()
            self.sock = None
        return int(status.split()[1]), got, answer


class Attack:
    """Makes calls of the document."""

    def __init__(self, document, names, blob, chance):
        self.document, self.names, self.blob, self.chance = document, names, blob, chance
        self.routes = [(method.upper(), path, operation) for path, methods in document["paths"].items()
                       for method, operation in methods.items()]
        self.everything = [pair for pairs in names.values() for pair in pairs]

    def name(self, of):
        """Mostly of the right kind."""
        return self.chance.choice(self.names[of] if of in self.names and self.chance.random() < 0.8 else self.everything)

    def value(self, schema, key):
        """Something of that schema, or a little beside it."""
        if "$ref" in schema:
            schema = self.document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        kind = schema.get("type")
        kind = next(iter(set(kind) - {"null"}), None) if isinstance(kind, list) else kind
        if "enum" in schema:
            return self.chance.choice(schema["enum"])
        if kind == "object" and "properties" in schema:
            needed = schema.get("required", [])
            return {name: self.value(item, name) for name, item in schema["properties"].items() if not item.get("readOnly")
                    and self.chance.random() < (0.97 if name in needed else 0.5 if name == "ports" else 0.12)}
        if kind == "object":
            return {"KEY": self.name(key)} if self.chance.random() < 0.5 else {}
        if key == "depends_on" and self.chance.random() < 0.7:
            return []  # as with images
        if kind == "array":
            return [self.value(schema.get("items", {}), key) for _ in range(self.chance.randint(0, 2))]
        if kind in ("integer", "number"):
            if key == "host":
                return self.name("port")
            return self.chance.choice([schema.get("minimum", 0), schema.get("default", 1), 80])
        if key == "path":
            return self.chance.choice(["/data", "/srv/other"])
        if key == "url":
            return "https://receiver.invalid/"
        if key == "image" and self.chance.random() < 0.7:
            return "hello"  # its own: what is made of it gets as far as names, ports and secrets
        return self.chance.random() < 0.5 if kind == "boolean" else self.name({"rootfs": "digest", "secrets": "secret", "name": "machine"}.get(key, key))

    def parameter(self, name):
        usual = {"force": ["0", "1"], "timeout_s": ["0"], "dry_run": ["0", "1"], "state": ["stopped", "running"], "follow": ["0"], "path": ["/etc/passwd"]}
        return self.chance.choice(usual[name]) if name in usual and self.chance.random() < 0.8 else self.name(name)

    def headers(self, method):
        got = {}
        if method == "POST" and self.chance.random() < 0.3:
            got["Idempotency-Key"] = self.name("key")
        if self.chance.random() < 0.1:
            got["Hull-Project"] = self.name("project")
        if self.chance.random() < 0.1:
            got[self.chance.choice(["If-Match", "If-None-Match"])] = self.name("etag")
        return got

    def body(self, operation):
        """Bytes of each side, and their type."""
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            value = self.value(content["application/json"]["schema"], None)
            if operation["operationId"] == "createMachine" and self.chance.random() < 0.3:  # one that gets as far as its port
                value = {"image": "hello", "network": "none", "disk_mib": 16, "ports": [{"host": self.name("port"), "guest": 80}]}
            return [json.dumps(render(value, side)).encode() for side in (0, 1)], "application/json"
        if content:
            return self.chance.choice([self.blob, [b"nonsense"] * 2, [b""] * 2]), next(iter(content))
        return [b""] * 2, None

    def next(self):
        """A route's method, path and headers, to be rendered, and the bodies."""
        method, path, operation = self.chance.choice(self.routes)
        parts = [self.name(part[1:-1]) if part[:1] == "{" else part for part in path.split("/")]
        query = [(one["name"], self.parameter(one["name"])) for one in operation["parameters"]
                 if one["in"] == "query" and self.chance.random() < 0.7]
        bodies, kind = self.body(operation)
        headers = {**self.headers(method), **({"Content-Type": kind} if kind else {})}
        return method, path, parts, query, headers, bodies


def same(answer, side, names):
    """An answer, in which what is named has the place of what is not there, and ids and times are all alike."""
    status, headers, body = answer
    text = json.dumps([status, {name: value for name, value in headers.items() if status >= 400 or name not in ("etag", "content-length")}]) + body.decode()
    text = re.sub(r"hull_t[a-z2-7]{12}_[a-z2-7]{52}", "TOKEN", text)
    for pair in names:
        for there, nowhere in ([map(str, pair.sides), (json.dumps(str(name))[1:-1] for name in pair.sides)] if side == 0 else []):
            for size in range(len(there), 20 if len(there) > 30 else len(there) - 1, -1):  # refusals cut what is long
                text = text.replace(there[:size], nowhere[:size])
    text = re.sub(r"whsec_[\w+/=]+|(?<=\"cursor\":)\d+|\b(?:[mtvw]|op)[a-z2-7]{12}\b|machine-[a-z2-7]{6}", "MADE-UP", text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)


LISTS = ("machines", "images", "volumes", "secrets", "tokens", "webhooks")


def listed(acting):
    """But for when tokens were used."""
    return {kind: [{key: value for key, value in item.items() if key != "last_used_at"} for item in acting.get(f"/v1/{kind}").json["items"]]
            for kind in LISTS}


def restore(acting, before, digests):
    """What the attacker has made for itself goes again."""
    for kind, items in listed(acting).items():
        for item in items:
            if item not in before[kind]:
                name = item.get("id") or item["name"]
                assert acting.delete(f"/v1/{kind}/{name}?force=1" if kind in ("machines", "images") else f"/v1/{kind}/{name}").status == 204
    for digest in digests:  # what is uploaded is the project's until an image of it has gone
        if acting.request("HEAD", f"/v1/blobs/{digest}").status == 200:
            assert acting.post("/v1/images", {"name": "gone", "rootfs": digest}).status == 201
            assert acting.delete("/v1/images/gone").status == 204


def twin(name):
    """Of its shape, and beside it in every order."""
    last = name[-1]
    return name[:-1] + ("b" if last == "a" else "a") if last in "0123456789abcdef" else name[:-1] + "a"


def test_nothing_of_a_project_is_there_for_another(tmp_path):
    hulld = Hulld(tmp_path, env={"HULL_START_TIMEOUT_S": "3600"}).with_stand_in().start()
    taken, erofs = socket.socket(), make_erofs(tmp_path)
    try:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = next(port for port in iter(free_port, None) if "00" not in str(port))  # 10000 is in many a limit, too
        attack(hulld, [erofs + b"its", erofs + b"no-"], erofs, Pair(port, taken.getsockname()[1]))
    finally:
        taken.close()
        for name in ("victim-project-1", "attacker"):
            for machine in In(hulld, name).get("/v1/machines").json["items"]:
                In(hulld, name).delete(f"/v1/machines/{machine['id']}?force=1")
        hulld.stop()


def victim(hulld, content, port):
    """With one of each thing there is, all of which the attacker knows the names of."""
    acting = project(hulld, "victim-project-1")
    assert acting.image("victim-image-1", content).status == 201
    assert acting.request("PUT", "/v1/secrets/VICTIM_SECRET_1", {"value": CANARY}).status == 201
    volume = acting.post("/v1/volumes", {"name": "victim-volume-1", "size_mib": 16, "labels": {"what": CANARY}})
    assert volume.status == 201
    machine = acting.post("/v1/machines", {
        "name": "victim-machine-1", "image": "victim-image-1", "mounts": [{"volume": "victim-volume-1", "path": f"/{CANARY}"}], "network": "none", "disk_mib": 16, "secrets": ["VICTIM_SECRET_1"],
        "env": {"WHAT": CANARY}, "labels": {"what": CANARY}, "ports": [{"host": port, "guest": 80}]}, **{"Idempotency-Key": "victim-key-00-1"})
    assert machine.status == 201 and acting.post("/v1/machines/victim-machine-1/start").status == 200
    # Until its monitor is there it changes by itself.
    running = b'hull_machine_cpu_seconds_total{project="victim-project-1",machine="victim-machine-1"}'
    wait_until(lambda: running in hulld.get("/metrics").body, "its monitor is there")
    for n in range(1, N_KEYS):
        refused = acting.post("/v1/machines", {"image": CANARY}, **{"Idempotency-Key": f"victim-key-{n:02}-1"})
        assert refused.status == 404
    hook = acting.post("/v1/webhooks", {"url": f"https://receiver.invalid/{CANARY}", "enabled": False, "labels": {"what": CANARY}})
    assert hook.status == 201, hook
    etag = acting.get("/v1/images/victim-image-1").headers.get("ETag", '"0"')
    operation, = acting.get("/v1/operations").json["items"]
    return acting, machine.json["id"], operation["id"], token(acting, "read", label=CANARY)[1], hook.json["id"], volume.json["id"], etag


def attack(hulld, contents, erofs, port):
    digests = ["sha256:" + hashlib.sha256(content).hexdigest() for content in contents]
    theirs, machine_id, operation_id, token_id, hook_id, volume_id, etag = victim(hulld, contents[0], port.sides[0])
    own = project(hulld, "attacker", erofs)
    client, _ = token(own, "read", "write", "exec", "admin", expires_in_s=0)
    names = {"machine": [Pair("victim-machine-1", "victim-machine-2"), Pair(machine_id, twin(machine_id))],
             "operation": [Pair(operation_id, twin(operation_id))], "image": [Pair("victim-image-1", "victim-image-2")], "digest": [Pair(*digests)],
             "project": [Pair("victim-project-1", "victim-project-2")], "token": [Pair(token_id, twin(token_id))], "webhook": [Pair(hook_id, twin(hook_id))],
             "volume": [Pair("victim-volume-1", "victim-volume-2"), Pair(volume_id, twin(volume_id))],
             "secret": [Pair("VICTIM_SECRET_1", "VICTIM_SECRET_2")], "port": [port], "etag": [Pair(etag, etag[:-2] + twin(etag[-2]) + '"')],
             "key": [Pair(f"victim-key-{n:02}-1", f"victim-key-{n:02}-2") for n in range(N_KEYS)]}
    before, victims = listed(own), [listed(theirs), hulld.get("/v1/projects/victim-project-1").body]
    calls = Attack(hulld.get("/v1/openapi.json").json, names, contents, random.Random(SEED))
    wire, seen, statuses = Wire(hulld.socket, client.token), set(), {}
    for n in range(CALLS):
        method, path, parts, query, headers, bodies = calls.next()
        answers = []
        for side in (0, 1):
            url = "/".join(str(render(part, side)) for part in parts)
            url += "?" * bool(query) + "&".join(f"{key}={render(value, side)}" for key, value in query)
            answers.append(wire.call(method, url, render(headers, side), bodies[side]))
            assert CANARY.encode() not in answers[side][2], (SEED, n, method, url, answers[side])
            if method not in ("GET", "HEAD") and answers[side][0] < 400:
                restore(own, before, digests)
        there, nowhere = (same(answer, side, calls.everything) for side, answer in enumerate(answers))
        if path == "/v1/events":  # tells what it did itself with such names; the victim's machine has an id that no other has
            if answers[0][0] == 200 and answers[0][2].startswith(b"{"):
                assert machine_id not in [event["subject"] for event in json.loads(answers[0][2])["items"] if event["type"].startswith("machine.")]
            there, nowhere = answers[0][0], answers[1][0]
        assert there == nowhere, (SEED, n, method, path, render(query, 0), render(headers, 0), bodies[0][:2000])
        assert answers[0][0] < 500, (SEED, n, method, path, answers[0])
        seen.add((method, path))
        statuses[answers[0][0]] = statuses.get(answers[0][0], 0) + 1
    assert seen == {(method, path) for method, path, _ in calls.routes}, "every route was tried"
    assert {200, 201, 400, 403, 404, 409} <= set(statuses), statuses
    assert [listed(theirs), hulld.get("/v1/projects/victim-project-1").body] == victims, "and the victim has not noticed"
    assert listed(own) == before


@contextlib.contextmanager
def projects(tmp_path, *names):
    """A hulld, and who acts in each of its projects, whose machines are gone at the end."""
    hulld, erofs = Hulld(tmp_path).start(), make_erofs(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(hulld.stop)
        everybody = [project(hulld, name, erofs) for name in names]
        for acting in everybody:
            stack.callback(lambda acting=acting: [acting.delete(f"/v1/machines/{m['id']}?force=1") for m in acting.get("/v1/machines").json["items"]])
        yield hulld, everybody


def orders(theirs, hosts):
    """Two ports for a machine, at least one of them taken, by kind: [whose they are, by each way to fill it in], with the numbers."""
    for kinds in itertools.product(("free", "own", "taken"), repeat=2):
        if "taken" in kinds:
            yield kinds, [[theirs[i] if whose == "theirs" else hosts[i] if whose == "hosts" else whose for i, whose in enumerate(wanted)]
                          for wanted in itertools.product(*[("theirs", "hosts") if kind == "taken" else (kind,) for kind in kinds])]


def test_which_of_two_ports_is_refused_says_of_neither_whose_it_is(tmp_path):
    with contextlib.ExitStack() as stack:
        hulld, (victim, own) = stack.enter_context(projects(tmp_path, "victim", "attacker"))
        theirs, mine, free, hosts = [free_port(), free_port()], free_port(), free_port(), [free_port(), free_port()]
        for port in hosts:
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        spec = {"image": "hello", "network": "none", "disk_mib": 16}
        assert victim.post("/v1/machines", {**spec, "ports": [{"host": port, "guest": 80} for port in theirs]}).status == 201
        assert own.post("/v1/machines", {**spec, "name": "mine", "ports": [{"host": mine, "guest": 80}]}).status == 201
        assert own.post("/v1/machines", {**spec, "name": "patched"}).status == 201
        calls = [("POST", "/v1/machines", spec), ("PATCH", "/v1/machines/patched", {})]
        for (kinds, ways), (method, path, body), dry in itertools.product(orders(theirs, hosts), calls, ("", "?dry_run=1")):
            answers = []
            for way in ways:
                ports = [{"free": free, "own": mine}.get(port, port) for port in way]
                answer = own.request(method, path + dry, {**body, "ports": [{"host": port, "guest": 80} for port in ports]},
                                     {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {})
                assert answer.status == (409 if not dry or "own" in kinds else 201 if method == "POST" else 200), (kinds, way, answer)
                text = json.dumps(answer.json, sort_keys=True)
                for i, port in enumerate(ports):
                    text = text.replace(str(port), f"PORT-{i}")
                answers.append(re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z|\bm[a-z2-7]{12}\b|machine-[a-z2-7]{6}", "MADE-UP", text))
            assert len(set(answers)) == 1, (method, path + dry, kinds, dict(zip(map(str, ways), answers)))
        assert sorted(m["name"] for m in own.get("/v1/machines").json["items"]) == ["mine", "patched"]
        assert own.get("/v1/machines/patched").json["ports"] == []


@pytest.mark.parametrize("later", [lambda ports: ports, lambda ports: ports[::-1]], ids=["in the same order", "in the other order"])
def test_who_asks_for_ports_that_another_is_about_to_have_does_not_keep_it_from_them(tmp_path, later):
    """hull-ingress stands still until both wait for it."""
    with contextlib.ExitStack() as stack:
        hulld, (first, second) = stack.enter_context(projects(tmp_path, "first", "second"))
        ports = [{"host": free_port(), "guest": 80} for _ in range(3)]
        spec = {"image": "hello", "network": "none", "disk_mib": 16}
        assert first.post("/v1/machines", {**spec, "ports": ports[:1]}).status == 201
        pool = stack.enter_context(ThreadPoolExecutor())
        rows = stack.enter_context(contextlib.closing(sqlite3.connect(hulld.state / "hull.db")))
        ingress = ingress_pid(hulld)
        os.kill(ingress, signal.SIGSTOP)
        try:
            asked = []
            for acting, wanted in ((first, ports[1:]), (second, later(ports[1:]))):
                asked.append(pool.submit(acting.post, "/v1/machines", {**spec, "ports": wanted}))
                wait_until(lambda: asked[-1].done() or rows.execute("SELECT COUNT(*) FROM machines WHERE state = 'creating'").fetchone()[0] == len(asked), "it waits for its ports")
        finally:
            os.kill(ingress, signal.SIGCONT)
        assert [one.result().status for one in asked] == [201, 409], [one.result() for one in asked]
