"""Events: every change is one, in its place, for who may see it; they are read in pages and followed as a stream."""
import contextlib
import http.client
import json
import os
import select
import random
import re
import resource
import socket
import sqlite3
import subprocess
import threading
import time

import pytest

from conftest import BUILD
from hulld_fixtures import Connection, Hulld, make_erofs, wait_until
from test_hulld import refused
from test_tenants import By, In

FOLLOWERS = 1000
MEMORY_MIB = 64
CRASHES = 12


@pytest.fixture(scope="module")
def erofs(tmp_path_factory):
    return make_erofs(tmp_path_factory.mktemp("erofs"))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, erofs):
    daemon = Hulld(tmp_path_factory.mktemp("hulld")).with_stand_in().start()
    daemon.digest = daemon.image("i", erofs, command=["/bin/true"])
    yield daemon
    daemon.stop()


@pytest.fixture
def hulld(daemon):
    yield daemon
    for machine in daemon.get("/v1/machines").json["items"]:
        assert daemon.delete(f"/v1/machines/{machine['id']}?force=1").status == 204


def page(hulld, query="", **kwargs):
    answer = hulld.get("/v1/events" + query, **kwargs)
    assert answer.status == 200, answer
    return answer.json


def tip(hulld):
    cursor = 0
    while True:
        one = page(hulld, f"?after={cursor}&limit=1000")
        cursor = one["cursor"]
        if not one["more"]:
            return cursor


def types(events):
    return [event["type"] for event in events]


class Stream:
    """A follower, as a browser's EventSource is one."""

    def __init__(self, hulld, query="", headers=None):
        self.connection = Connection(hulld.socket)
        self.connection.request("GET", "/v1/events" + query, headers={"Accept": "text/event-stream", **(headers or {})})
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()
        assert self.response.headers["Content-Type"] == "text/event-stream"
        self.last_id = None

    def frame(self):
        """The next one, as its fields; None at the end."""
        fields = {}
        for line in iter(self.response.readline, b""):
            line = line.decode().rstrip("\n")
            if not line:
                self.last_id = int(fields.get("id", self.last_id))
                return fields
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        return None

    def event(self):
        while True:
            fields = self.frame()
            assert fields is not None, "the stream has ended"
            if "data" in fields:
                event = json.loads(fields["data"])
                assert (event["id"], event["type"]) == (int(fields["id"]), fields["event"])
                return event

    def close(self):
        self.response.close()
        self.connection.close()


def follow(*args, **kwargs):
    return contextlib.closing(Stream(*args, **kwargs))


def test_what_becomes_of_a_machine_is_told_in_its_order(hulld):
    start = tip(hulld)
    machine = hulld.post("/v1/machines", {"name": "life", "image": "i", "network": "none", "restart": {"policy": "always"}}).json
    assert hulld.post("/v1/machines/life/start").status == 200
    assert hulld.request("PATCH", "/v1/machines/life", json.dumps({"labels": {"a": "b"}}),
                         {"Content-Type": "application/merge-patch+json"}).status == 200
    wait_until(lambda: hulld.machine("life")["pid"], "there is a monitor")
    assert hulld.post("/v1/machines/life/kill").status == 200
    assert hulld.delete("/v1/machines/life").status == 204
    everything = page(hulld, f"?after={start}&machine={machine['id']}")["items"]
    assert {event["type"].split(".")[0] for event in everything} == {"machine", "operation"}
    assert [event["id"] for event in everything] == list(range(everything[0]["id"], everything[0]["id"] + len(everything)))
    events = [event for event in everything if event["type"].startswith("machine.")]
    assert types(events) == ["machine.created", "machine.starting", "machine.updated", "machine.stopping", "machine.stopped",
                             "machine.deleted"]
    assert {(event["subject"], event["name"]) for event in everything} == {(machine["id"], "life")}
    assert events[0]["data"] == {"image": "i"} and events[-1]["data"] == {}
    assert events[1]["data"] == {"state": "starting", "previous": "created", "restarts": 0, "exit_status": None, "cause": None}
    assert events[4]["data"]["cause"]["code"] == "killed" and events[4]["data"]["previous"] == "stopping"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", events[0]["at"])


def test_a_restart_that_waits_is_told_with_its_time_and_one_that_is_called_off(hulld):
    start = tip(hulld)
    hulld.post("/v1/machines", {"name": "back", "image": "i", "network": "none", "restart": {"policy": "always"}})
    hulld.post("/v1/machines/back/start")
    pid = wait_until(lambda: hulld.machine("back")["pid"], "there is a monitor")
    with follow(hulld, f"?after={start}&type=machine.failed,machine.restart_scheduled,machine.restart_cancelled") as stream:
        os.kill(pid, 9)
        failed, scheduled = stream.event(), stream.event()
        assert failed["data"]["cause"]["code"] == "monitor_died" and scheduled["type"] == "machine.restart_scheduled"
        assert scheduled["data"]["failures"] == 1 and scheduled["data"]["restart_at"] > scheduled["at"]
        assert hulld.post("/v1/machines/back/stop").status == 200
        events = page(hulld, f"?after={scheduled['id']}&machine=back&type=machine")["items"]
        # It was called off, unless it had come to it.
        assert types(events)[0] in ("machine.restart_cancelled", "machine.starting")


def test_why_a_run_has_ended_is_no_cause_of_the_next_ones_end(hulld):
    hulld.post("/v1/machines", {"name": "next", "image": "i", "network": "none", "restart": {"policy": "always"}})
    hulld.post("/v1/machines/next/start")
    pid = wait_until(lambda: hulld.machine("next")["pid"], "there is a monitor")
    start = tip(hulld)
    os.kill(pid, 9)
    wait_until(lambda: hulld.machine("next")["restarts"] == 1 and hulld.machine("next")["pid"], "it was started again")
    assert hulld.post("/v1/machines/next/kill").status == 200
    hulld.wait("next", "stopped")
    told = page(hulld, f"?after={start}&machine=next&type=machine.failed,machine.stopping,machine.stopped")["items"]
    assert [(event["data"]["state"], (event["data"]["cause"] or {}).get("code")) for event in told] == [
        ("failed", "monitor_died"), ("stopping", None), ("stopped", "killed")]


def test_pages_are_cut_and_filtered_and_go_on_where_they_ended(hulld, erofs):
    start = tip(hulld)
    for n in range(5):
        assert hulld.post("/v1/images", {"name": f"page{n}", "rootfs": hulld.digest}).status == 201
        assert hulld.request("PUT", f"/v1/secrets/S{n}", {"value": "v"}).status == 201
    one = page(hulld, f"?after={start}&type=image&limit=2")
    assert [event["name"] for event in one["items"]] == ["page0", "page1"] and one["more"] is True
    rest = page(hulld, f"?after={one['cursor']}&type=image")
    assert [event["name"] for event in rest["items"]] == ["page2", "page3", "page4"] and rest["more"] is False
    assert rest["cursor"] == tip(hulld)
    assert page(hulld, f"?after={start}&machine=nobody")["items"] == []
    assert len(page(hulld, f"?after={start}&type=image.put,secret.set")["items"]) == 10
    assert len(page(hulld, "?since_s=3600&limit=1000")["items"]) >= 10
    assert "SECRET" not in json.dumps(rest) and page(hulld, f"?after={rest['cursor']}")["items"] == []
    assert hulld.delete("/v1/secrets/S0").status == hulld.delete("/v1/images/page0").status == 204
    assert types(page(hulld, f"?after={rest['cursor']}")["items"]) == ["secret.deleted", "image.deleted"]


def test_a_wait_has_no_end_of_its_own_and_sees_what_was_passed_through_before_it(hulld):
    start = tip(hulld)
    hulld.post("/v1/machines", {"name": "past", "image": "i", "network": "none"})
    created = tip(hulld)
    hulld.post("/v1/machines/past/start")
    hulld.post("/v1/machines/past/kill")
    wait = "/v1/machines/past/wait?state="
    assert hulld.machine("past")["state"] == "stopped"
    assert hulld.get(f"{wait}starting&timeout_s=0&after={created}").json["state"] == "stopped"
    refused(hulld.get(f"{wait}starting&timeout_s=0&after={tip(hulld)}"), 408, "timeout")
    refused(hulld.get(f"{wait}running&timeout_s=0&after={start}"), 408, "timeout")
    refused(hulld.get(f"{wait}starting&after={tip(hulld) + 1}"), 410, "cursor_expired", "after")
    refused(hulld.get(f"{wait}starting&after=-1"), 400, "invalid_field", "after")
    with contextlib.closing(Connection(hulld.socket)) as connection:
        connection.request("GET", wait + "starting")
        hulld.post("/v1/machines/past/start")
        hulld.post("/v1/machines/past/kill")
        assert json.loads(connection.getresponse().read())["state"] in ("starting", "stopping", "stopped")


@pytest.mark.parametrize("query, field", [
    ("?after=x", "after"), ("?after=-1", "after"), ("?limit=0", "limit"), ("?limit=1001", "limit"), ("?since_s=-1", "since_s"),
    ("?type=", "type"), ("?type=machine.flying", "type"), ("?type=machine,,image", "type"), ("?type=mach", "type"),
    ("?machine=", "machine"), ("?machine=" + "m" * 64, "machine"),
])
def test_a_query_that_makes_no_sense_is_refused(hulld, query, field):
    refused(hulld.get("/v1/events" + query), 400, "invalid_field", field)


def test_a_type_that_there_is_not_is_answered_with_those_there_are(hulld):
    for query, detail, hint in (
            ("machine.helthy,image", 'of "machine." there are created, starting, running, stopping, stopped, failed, restart_scheduled, '
             "restart_cancelled, updated, deleted, healthy, unhealthy, waiting, frozen, thawed, asleep, waking, suspending, suspended, resuming, suspend_failed, network_lost", "did you mean machine.healthy?"),
            ("image,opertion", "must be of machine, operation, image, network, secret, certificate, token, project, volume, webhook, host, or of what these have behind a dot, with commas between",
             "did you mean operation?"),
            ("x" * 300, "must be of machine, operation", None)):
        problem = hulld.get(f"/v1/events?type={query}").json
        assert problem["field"] == "type" and problem["detail"].startswith(detail) and problem.get("hint") == hint, problem
    assert hulld.get("/v1/operations?state=runing").json["hint"] == "did you mean running?"


def test_a_cursor_that_is_not_kept_or_not_yet_given_is_gone(tmp_path):
    hulld = Hulld(tmp_path).with_clocks().start()
    try:
        for n in range(6):
            hulld.request("PUT", "/v1/secrets/S", {"value": str(n)})
        last = tip(hulld)
        hulld.kill()
        with contextlib.closing(sqlite3.connect(hulld.state / "hull.db")) as rows, rows:
            rows.execute("UPDATE events SET at = 1 WHERE id <= ?", (last - 2,))
        hulld.sleep(60 - int(time.clock_gettime(time.CLOCK_BOOTTIME)))
        hulld.start()  # which forgets nothing, as its clock may be wrong
        assert len(page(hulld)["items"]) == last
        hulld.kill()
        hulld.sleep(3600)
        hulld.start()  # which does
        wait_until(lambda: hulld.get(f"/v1/events?after={last - 3}").status == 410, "old events are forgotten")
        refused(hulld.get(f"/v1/events?after={last - 3}"), 410, "cursor_expired", "after")
        refused(hulld.get(f"/v1/events?after={last + 1}"), 410, "cursor_expired", "after")
        for headers in ({"Last-Event-ID": "1"}, {"Last-Event-ID": "99999"}):
            refused(hulld.get("/v1/events", headers={"Accept": "text/event-stream", **headers}), 410, "cursor_expired", "after")
        refused(hulld.get("/v1/events", headers={"Accept": "text/event-stream", "Last-Event-ID": "+1"}), 400, "invalid_field",
                "Last-Event-ID")
        assert len(page(hulld, f"?after={last - 2}")["items"]) == len(page(hulld)["items"]) == 2
        hulld.kill()
        with contextlib.closing(sqlite3.connect(hulld.state / "hull.db")) as rows, rows:
            rows.execute("UPDATE events SET at = 1")
        hulld.start()
        wait_until(lambda: page(hulld) == {"items": [], "cursor": last, "more": False}, "old events are forgotten")
        hulld.request("PUT", "/v1/secrets/S", {"value": "next"})
        assert [event["id"] for event in page(hulld, f"?after={last}")["items"]] == [last + 1]
    finally:
        hulld.stop()


def test_a_stream_goes_on_where_it_was_cut_also_over_a_crash(hulld):
    with follow(hulld) as stream:
        first = stream.frame()
        assert first["retry"] == "1000" and int(first["id"]) == tip(hulld)
        hulld.request("PUT", "/v1/secrets/A", {"value": "v"})
        seen = stream.event()
        assert seen["type"] == "secret.set" and seen["name"] == "A"
    for n in range(100):  # more than is kept in memory for who is behind
        hulld.request("PUT", "/v1/secrets/A", {"value": str(n)})
    hulld.restart()
    with follow(hulld, headers={"Last-Event-ID": str(stream.last_id)}) as again:
        assert [again.event()["id"] for _ in range(100)] == list(range(seen["id"] + 1, seen["id"] + 101))
        hulld.delete("/v1/secrets/A")
        assert again.event()["type"] == "secret.deleted"


def test_a_filter_that_does_not_fit_still_moves_the_cursor(hulld):
    start = tip(hulld)
    for n in range(150):
        hulld.request("PUT", "/v1/secrets/B", {"value": "v"})
    with follow(hulld, f"?after={start}&type=image") as stream:
        while stream.last_id is None or stream.last_id < start + 64:
            assert "data" not in stream.frame()


def test_projects_and_scopes_bound_what_is_seen(hulld):
    assert hulld.post("/v1/projects", {"name": "a"}).status == hulld.post("/v1/projects", {"name": "b"}).status == 201
    a = In(hulld, "a")
    token = a.post("/v1/tokens", {"label": "reader", "scopes": ["read"]})
    assert token.status == 201, token
    reader = By(hulld, token.json["token"])
    assert types(page(a)["items"]) == ["project.created", "token.created"]
    assert types(page(reader)["items"]) == ["project.created"]
    assert types(page(In(hulld, "b"))["items"]) == ["project.created"]
    with follow(hulld, headers={"Authorization": "Bearer " + token.json["token"]}) as stream:
        In(hulld, "b").request("PUT", "/v1/secrets/S", {"value": "v"})
        a.request("PUT", "/v1/secrets/MINE", {"value": "v"})
        event = stream.event()
        assert (event["id"], event["name"]) == (3, "MINE")  # ids tell nothing of others
        assert hulld.delete("/v1/projects/a").status == 204
        with contextlib.suppress(OSError, http.client.HTTPException):
            assert stream.frame() is None
    assert hulld.post("/v1/projects", {"name": "a"}).status == 201
    assert types(page(a)["items"]) == ["project.created"]
    assert hulld.delete("/v1/projects/a").status == hulld.delete("/v1/projects/b").status == 204


def status_kib(hulld, field):
    with open(f"/proc/{hulld.process.pid}/status", encoding="ascii") as status:
        return int(re.search(field + r":\s+(\d+) kB", status.read())[1])


def test_a_thousand_followers_are_told_and_one_that_does_not_read_stops_nobody(hulld):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sockets = []
    try:
        for _ in range(FOLLOWERS):
            one = socket.socket(socket.AF_UNIX)
            one.settimeout(60)
            one.connect(str(hulld.socket))
            one.sendall(b"GET /v1/events HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n")
            sockets.append(one)
        for one in sockets:
            assert b"retry" in read_until(one, b"\n\n\r\n")
        begun = time.monotonic()
        for n in range(20):
            hulld.request("PUT", "/v1/secrets/MANY", {"value": str(n)})
        last = tip(hulld)
        for one in sockets[1:]:  # the first never reads
            read_until(one, f"id: {last}\n".encode())
        print(f"20 events to {FOLLOWERS - 1} followers: {time.monotonic() - begun:.2f} s, {status_kib(hulld, 'VmRSS')} KiB")
        assert status_kib(hulld, "VmHWM") < MEMORY_MIB << 10
    finally:
        for one in sockets:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def read_until(one, end):
    text = b""
    while end not in text:
        got = one.recv(65536)
        assert got, text
        text += got
    return text


def test_a_crash_neither_loses_nor_doubles_an_event(hulld):
    start = tip(hulld)
    acknowledged, counter, random_ = [], iter(range(100000)), random.Random(5)

    def change():
        try:
            while True:
                name = f"crash-{next(counter)}"
                if hulld.post("/v1/images", {"name": name, "rootfs": hulld.digest}).status == 201:
                    acknowledged.append(name)
        except (OSError, http.client.HTTPException):
            pass

    for _ in range(CRASHES):
        threads = [threading.Thread(target=change) for _ in range(3)]
        before = len(acknowledged)
        for thread in threads:
            thread.start()
        wait_until(lambda: len(acknowledged) > before + random_.randrange(8), "something was done")
        hulld.kill()
        for thread in threads:
            thread.join()
        hulld.start()
    events, cursor, more = [], start, True
    while more:
        one = page(hulld, f"?after={cursor}&limit=1000")
        events, cursor, more = events + one["items"], one["cursor"], one["more"]
    assert [event["id"] for event in events] == list(range(start + 1, start + 1 + len(events)))
    names = [event["name"] for event in events if event["name"].startswith("crash-")]
    there = [image["name"] for image in hulld.get("/v1/images").json["items"] if image["name"].startswith("crash-")]
    assert len(names) == len(set(names)) and set(names) == set(there) and set(acknowledged) <= set(there)


def hull(hulld, *words, **kwargs):
    return subprocess.Popen([BUILD / "hull", "events", *words], env={**os.environ, "HULL_HOST": f"unix://{hulld.socket}"},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


def test_hull_shows_events_and_follows_them(hulld):
    hulld.post("/v1/machines", {"name": "shown", "image": "i", "network": "none"})
    hulld.post("/v1/machines/shown/start")
    hulld.post("/v1/machines/shown/kill")
    shown, errors = hull(hulld, "--machine", "shown", "--since", "1h").communicate(timeout=60)
    lines = [line.split() for line in shown.splitlines()]
    assert [line[1:3] for line in lines][:2] == [["machine.created", "shown"], ["machine.starting", "shown"]], errors
    assert lines[-1][1:] == ["operation.succeeded", "shown", "kill"] and not errors
    assert [line for line in lines if line[1].startswith("machine.")][-1][3] in ("killed:", "stopped:")
    assert hull(hulld, "-m", "shwon").communicate(timeout=60) == ("", 'hull: nothing that is kept has happened to "shwon"\n      `hull ps -a` lists what there is\n')
    assert hull(hulld, "-m", "shown", "--type", "machine.frozen", "--since", "1h").communicate(timeout=60) == (
        "", 'hull: nothing of that type that is kept has happened to "shown" in that time\n      `hull events -m shown` shows all of it\n')
    listed, _ = hull(hulld, "--type", "machine.created", "-m", "shown", "-o", "json").communicate(timeout=60)
    assert [json.loads(line)["type"] for line in listed.splitlines()] == ["machine.created"]
    with hull(hulld, "-f", "--since", "1h", "--type", "machine.deleted,machine.created", "-m", "shown", "-o", "json") as following:
        try:
            assert json.loads(following.stdout.readline())["type"] == "machine.created"
            assert hulld.delete("/v1/machines/shown").status == 204
            assert json.loads(following.stdout.readline())["type"] == "machine.deleted"
        finally:
            following.kill()


def test_hull_follows_and_waits_over_a_crash(hulld):
    """Each event once, and an end that is not missed, though it was there before the waiter was back."""
    assert hulld.post("/v1/machines", {"name": "waited", "image": "i", "network": "none"}).status == 201
    hulld.post("/v1/machines/waited/start")
    with hull(hulld, "-f", "--since", "0", "--type", "secret", "-o", "json") as following, \
            subprocess.Popen([BUILD / "hull", "wait", "waited"], env={**os.environ, "HULL_HOST": f"unix://{hulld.socket}"}, stdout=subprocess.PIPE, text=True) as waiting:
        try:
            seen = []
            while not seen:  # until it is there to follow
                hulld.request("PUT", "/v1/secrets/BEGIN", {"value": "x"})
                if select.select([following.stdout], [], [], 0.1)[0]:
                    seen.append(json.loads(following.stdout.readline())["id"])
            for n in range(3):
                assert hulld.request("PUT", f"/v1/secrets/S{n}", {"value": "x"}).status in (200, 201)
                hulld.restart()
            hulld.post("/v1/machines/waited/kill")
            assert hulld.delete("/v1/secrets/S0").status == 204
            names = []
            while "secret.deleted" not in names:
                event = json.loads(following.stdout.readline())
                seen.append(event["id"])
                names.append(event["type"])
            assert seen == sorted(set(seen)) and names.count("secret.set") >= 3
            assert waiting.wait(60) == 0 and waiting.stdout.read() == "137\n"
        finally:
            following.kill()
            waiting.kill()


def test_hull_does_not_wait_for_what_was_never_there(tmp_path):
    for words in (["events", "-f"], ["wait", "x"]):
        done = subprocess.run([BUILD / "hull", *words], env={**os.environ, "HULL_HOST": f"unix://{tmp_path}/none"}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "cannot reach the API" in done.stderr


@pytest.mark.parametrize("words, said", [
    (("--since", "1w"), "--since"), (("--since", "-1"), "--since"), (("--since", "400d"), "--since"), (("-o", "xml"), "--output"),
    (("--type", "machine.failled"), "did you mean machine.failed?"),
])
def test_hull_events_refuses_what_makes_no_sense(hulld, words, said):
    with hull(hulld, *words) as process:
        assert said in process.communicate(timeout=60)[1] and process.returncode != 0
