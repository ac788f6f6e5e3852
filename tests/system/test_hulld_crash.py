"""hulld killed with SIGKILL at every stage of every call that changes something. strace kills it as it enters its Nth system call.

How many a call takes is counted first; then it is made again and again, and hulld dies at one of STAGES points spread over it. What
another hulld finds afterwards must be one of the states that the call leads through, and must lead on: nothing acknowledged is lost,
nothing is there twice, all of it can be used and removed. And a POST that is sent again with its Idempotency-Key gets the first answer,
if there was one, and has led once to what it leads to."""
import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import sqlite3
import subprocess

import pytest

from free_ports import free_port
from hulld_fixtures import DEADLINE, hulld, wait_until
from test_hulld import listens, processes_of

STAGES = int(os.environ.get("HULL_CRASH_STAGES", "16"))
MONITOR = "#!/bin/sh\nMONITOR_OF=$2 exec sleep 600\n"  # a machine of it starts for ever


@contextlib.contextmanager
def traced(hulld, *options):
    tracer = subprocess.Popen(["strace", "-p", str(hulld.process.pid), *map(str, options)], stderr=subprocess.PIPE, text=True)
    assert "attached" in tracer.stderr.readline()
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=DEADLINE)


keys = itertools.count()


def ask(hulld, method, path, body=None, key=None):
    """The answer; None: hulld died first."""
    try:
        if method == "PATCH":
            return hulld.request(method, path, json.dumps(body), headers={"Content-Type": "application/merge-patch+json"})
        return hulld.request(method, path, body, headers={"Idempotency-Key": key} if key else {})
    except (OSError, http.client.HTTPException):
        return None


def ask_again(hulld, call, first, key):
    again = ask(hulld, *call, key=key)
    assert again and again.status in (200, 201), (call, again)
    if first:
        assert (again.status, again.body, again.headers["Operation"]) == (first.status, first.body, first.headers["Operation"])
        assert again.headers["Idempotent-Replayed"] == "true"


def monitors(hulld, machine):
    mark = f"MONITOR_OF={hulld.state}/machines/{machine['id']}/".encode()
    return [pid for pid, words in processes_of(hulld).items() if mark in words]


def states(hulld):
    machines = hulld.get("/v1/machines").json["items"]
    assert len({machine["name"] for machine in machines}) == len(machines)
    return {machine["name"]: machine["state"] for machine in machines}


def runs(hulld):
    """{name: state and when it was started last}."""
    return {machine["name"]: (machine["state"], machine["started_at"]) for machine in hulld.get("/v1/machines").json["items"]}


def settled(hulld):
    """Nothing moves any more, a machine that starts has its one monitor, and nothing else is under way: {name: state}."""

    def look():
        machines = hulld.get("/v1/machines").json["items"]
        under_way = {one["subject"]["id"]: one["id"] for one in hulld.get("/v1/operations?state=running").json["items"]}
        if under_way != {machine["id"]: machine["operation"] for machine in machines if machine["state"] == "starting"}:
            return None
        for machine in machines:
            running = monitors(hulld, machine)
            if machine["state"] == "starting" and (not machine["pid"] or running != [machine["pid"]]):
                return None
            if machine["state"] == "stopping" or (machine["state"] != "starting" and running):
                return None
        return [states(hulld)]

    return wait_until(look, "all is settled")[0]


def create(hulld, **spec):
    answer = hulld.post("/v1/machines", {"name": "a", "image": "hello", "network": "none", "disk_mib": 16, **spec})
    assert answer.status == 201, answer


def start(hulld, **spec):
    create(hulld, **spec)
    assert hulld.post("/v1/machines/a/start").status == 200
    settled(hulld)


def clear(hulld, port):
    """All can be removed, and then nothing is left of it."""
    for machine in hulld.get("/v1/machines").json["items"]:
        assert hulld.delete(f"/v1/machines/{machine['name']}?force=1").status == 204
    wait_until(lambda: not processes_of(hulld) and not listens(port), "no process and no port is left")
    assert os.listdir(hulld.state / "machines") == os.listdir(hulld.run / "machines") == []


def crash_through(hulld, port, prepare, call, end, allowed):
    """`end`(hulld) tells, without asking hulld, that all of the call has been done. `allowed`(hulld, status of the call, states by
    name) is true for what may be found afterwards."""
    trace = hulld.folder / "trace"
    prepare()
    with traced(hulld, "-o", trace):
        assert ask(hulld, *call, key=str(next(keys))).status in (200, 201, 204)
        wait_until(end, "the call is done")
    clear(hulld, port)
    made = re.findall(r"^(\w+)\(", trace.read_text(), re.M)[1:]  # but for the one it was in when it was attached to
    assert len(made) > 10
    points = sorted({number * len(made) // STAGES for number in range(STAGES)})
    died = 0
    for point in points:
        name, nth = made[point], made[:point + 1].count(made[point])  # strace counts each by itself
        prepare()
        key = str(next(keys))
        with traced(hulld, "-o", "/dev/null", "-e", "trace=all", "-e", f"inject={name}:signal=SIGKILL:when={nth}"):
            answer = ask(hulld, *call, key=key)
            if answer is None:
                hulld.process.wait(DEADLINE)
            wait_until(lambda: hulld.process.poll() is not None or end(), "the call is done, or cut short")
            died += hulld.process.poll() is not None
        hulld.restart()
        found, status = settled(hulld), answer and answer.status
        if answer and answer.headers["Operation"]:
            assert hulld.get(f"/v1/operations/{answer.headers['Operation']}").status == 200, "what was said to be under way is known"
        assert allowed(status, found), f"killed at {name} {nth}, call {point} of {len(made)}: answered {status}, found {found}"
        if call[0] == "POST":
            before = runs(hulld)
            ask_again(hulld, call, answer, key)
            found = settled(hulld)
            if call[1].endswith("/start") and before["a"][0] == "starting":
                assert runs(hulld) == before, "it was started twice"
            assert allowed(200, found), f"killed at {name} {nth}, call {point} of {len(made)}, and asked again: found {found}"
        clear(hulld, port)
    assert died >= len(points) / 4  # else this tested nothing; which calls it makes is not quite the same each time


@pytest.fixture
def crash(hulld):
    port = free_port()

    def run(prepare, call, end, allowed):
        crash_through(hulld, port, prepare, call, end, allowed)

    run.port = port
    yield run
    if hulld.process.poll() is not None:
        hulld.start()


def test_a_create_with_a_port(hulld, crash):
    spec = {"name": "a", "image": "hello", "ports": [{"host": crash.port, "guest": 80}]}

    def allowed(status, found):
        if found:
            wait_until(lambda: listens(crash.port), "its port is held")
        return found == {"a": "created"} or (found == {} and status is None)

    crash(lambda: None, ("POST", "/v1/machines", spec), lambda: listens(crash.port), allowed)


def test_a_patch_with_ports(hulld, crash):
    """Of a machine that runs: it is wholly what it was, or wholly what it is to be."""
    other = free_port()
    changes = {"env": {"A": "new"}, "ports": [{"host": crash.port, "guest": 80}]}

    def prepare():
        start(hulld, ports=[{"host": other, "guest": 80}], env={"A": "old"})

    def allowed(status, found):
        machine = hulld.machine("a")
        changed = machine["env"] == {"A": "new"}
        wait_until(lambda: (listens(crash.port), listens(other)) == (changed, not changed), "it holds its port, and that alone")
        assert machine["pending"] == (["env"] if changed else [])
        assert [port["host"] for port in machine["ports"]] == [crash.port if changed else other]
        return found == {"a": "starting"} and (changed or status is None)

    crash(prepare, ("PATCH", "/v1/machines/a", changes), lambda: listens(crash.port) and not listens(other), allowed)
    assert not listens(other)


def test_a_delete_with_a_port(hulld, crash):
    def prepare():
        create(hulld, ports=[{"host": crash.port, "guest": 80}])

    crash(prepare, ("DELETE", "/v1/machines/a"), lambda: not os.listdir(hulld.run / "machines") and not listens(crash.port),
          lambda status, found: found == {} or (found == {"a": "created"} and status is None))


@pytest.mark.parametrize("network", ["none", "default"])
def test_a_start(hulld, crash, network):
    crash(lambda: create(hulld, network=network), ("POST", "/v1/machines/a/start"),
          lambda: any(b"MONITOR_OF" in words for words in processes_of(hulld).values()),
          lambda status, found: found == {"a": "starting"} or (found == {"a": "created"} and status is None))


@pytest.mark.parametrize("while_down", [False, True])
def test_a_network_that_is_lost_is_seen_by_the_next_hulld(hulld, while_down):
    """Whose child its passt is not."""
    start(hulld, network="default")
    hulld.kill()
    with contextlib.closing(sqlite3.connect(hulld.state / "hull.db")) as rows:
        passt, = rows.execute("SELECT passt_pid FROM machines").fetchone()
    if while_down:
        os.kill(passt, signal.SIGKILL)
    hulld.start()
    if not while_down:
        os.kill(passt, signal.SIGKILL)
    machine = hulld.wait("a", "failed")
    assert machine["cause"]["code"] == "start_failed" and "passt" in machine["cause"]["message"], machine
    clear(hulld, free_port())


def no_monitor(hulld):
    return lambda: not processes_of(hulld)


@pytest.mark.parametrize("verb, body", [("stop", {"timeout_s": 30}), ("kill", None)])
def test_an_end(hulld, crash, verb, body):
    crash(lambda: start(hulld), ("POST", f"/v1/machines/a/{verb}", body), no_monitor(hulld),
          lambda status, found: found == {"a": "stopped"} or (found == {"a": "starting"} and status is None))


def test_a_restart(hulld, crash):
    before = []

    def prepare():
        start(hulld)
        before[:] = monitors(hulld, hulld.machine("a"))

    def end():
        return any(b"MONITOR_OF" in words and pid not in before for pid, words in processes_of(hulld).items())

    crash(prepare, ("POST", "/v1/machines/a/restart", {"timeout_s": 30}), end, lambda status, found: found == {"a": "starting"})


def test_a_start_that_is_undone(hulld, crash):
    call = ["POST", None]

    def prepare():
        start(hulld)
        call[1] = f"/v1/operations/{hulld.machine('a')['operation']}/cancel"

    crash(prepare, call, no_monitor(hulld),
          lambda status, found: found == {"a": "stopped"} or (found == {"a": "starting"} and status is None))


def test_a_forced_delete(hulld, crash):
    crash(lambda: start(hulld), ("DELETE", "/v1/machines/a?force=1"), lambda: not os.listdir(hulld.run / "machines"),
          lambda status, found: found == {} or (found in ({"a": "starting"}, {"a": "stopped"}) and status is None))


@pytest.mark.parametrize("path, body", [("/v1/tokens", {"scopes": ["read"]}), ("/v1/projects", {"name": "p"})])
def test_what_is_there_with_its_answer_or_not_at_all(hulld, crash, path, body):
    def made():
        return [one.get("id") or one["name"] for one in hulld.get(path).json["items"] if one.get("name") != "default"]

    def prepare():
        for one in made():
            assert hulld.delete(f"{path}/{one}").status == 204

    crash(prepare, ("POST", path, body), lambda: True, lambda status, found: len(made()) <= 1 and (made() or status is None))


def images(hulld):
    """{name: its content's digest}; each content is there."""
    found = {image["name"]: image["rootfs"] for image in hulld.get("/v1/images").json["items"]}
    for digest in found.values():
        assert hulld.request("HEAD", f"/v1/blobs/{digest}").status == 200
    return found


def test_an_upload_and_an_image_that_moves_to_it(hulld, crash):
    """With the content, the number of the try: no two are the same."""
    tries = iter(range(1000))
    state = {}

    def prepare():
        state["old"] = hulld.image("moving", hulld.erofs + b"old %d" % next(tries), command=["/bin/true"])
        state["new"], answer = hulld.upload(hulld.erofs + b"new %d" % next(tries))
        assert answer.status == 201
        call[2]["rootfs"] = state["new"]

    def allowed(status, found):
        now = images(hulld)["moving"]
        return (now == state["new"] or (now == state["old"] and status is None)) and found == {}

    call = ("POST", "/v1/images", {"name": "moving", "config": {"command": ["/bin/false"]}})
    crash(prepare, call, lambda: True, allowed)
    assert hulld.delete("/v1/images/moving").status == 204


def test_an_upload(hulld, crash):
    content = hulld.erofs + os.urandom(1 << 20)
    digest, answer = hulld.upload(content)
    blobs = hulld.state / "blobs" / "sha256"
    assert answer.status == 201
    (blobs / digest[7:]).unlink()

    def allowed(status, found):
        there = hulld.request("HEAD", f"/v1/blobs/{digest}").status
        if there == 200:
            assert (blobs / digest[7:]).read_bytes() == content
            (blobs / digest[7:]).unlink()
        assert not [name for name in os.listdir(blobs) if name.startswith("upload-")]
        return there == 200 or status is None

    def prepare():
        (blobs / digest[7:]).unlink(missing_ok=True)

    crash(prepare, ("PUT", f"/v1/blobs/{digest}", content), lambda: (blobs / digest[7:]).exists(), allowed)


def test_an_image_that_is_deleted(hulld, crash):
    def prepare():
        hulld.image("gone", hulld.erofs + b"gone", command=["/bin/true"])

    def allowed(status, found):
        there = "gone" in images(hulld)
        assert not there or hulld.delete("/v1/images/gone").status == 204
        return status is None or not there

    crash(prepare, ("DELETE", "/v1/images/gone"), lambda: True, allowed)
