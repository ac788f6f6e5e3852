"""A machine is changed while it is there: merge patches (RFC 7396), what they do at once, and what its next start does.

Its monitor is a script that starts for ever; what it would boot with is in the files beside it. test_hulld_kvm.py boots one."""
import contextlib
import json
import os
import signal
import socket
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from free_ports import free_port
from hulld_fixtures import hulld, make_erofs, wait_until
from test_cli import Cli
from test_etag import tag
from test_hulld import ingress_pid, listens, refused

MONITOR = "#!/bin/sh\nexec sleep 600\n"
MERGE = "application/merge-patch+json"


def patch(hulld, changes, path="/v1/machines/a", **fields):
    return hulld.request("PATCH", path, json.dumps(changes), headers={"Content-Type": MERGE, **fields})


@pytest.fixture
def a(hulld):
    """Creates the machine, with what the test says; it goes with the test."""
    yield lambda **spec: hulld.post("/v1/machines", {"name": "a", "image": "hello", "network": "none", "disk_mib": 16, **spec}).json
    for machine in hulld.get("/v1/machines").json["items"]:
        hulld.delete(f"/v1/machines/{machine['id']}?force=1")


def start(hulld):
    assert hulld.post("/v1/machines/a/start").status == 200
    return wait_until(lambda: hulld.machine("a")["pid"] and hulld.machine("a"), "its monitor is there")


def stop(hulld):
    assert hulld.post("/v1/machines/a/kill").json["state"] == "stopped"


def boots_with(hulld, machine):
    """What the monitor, and the guest, were given."""
    folder = hulld.state / "machines" / machine["id"]
    archive = (folder / "guest.cpio").read_bytes()
    guest = json.JSONDecoder().raw_decode(archive[archive.index(b"{"):].decode(errors="replace"))[0]
    return json.loads((folder / "config.json").read_text()), guest


CHANGES = [
    ({"env": {"A": "1"}}, {"env": {"KEPT": "k", "A": "1"}}),
    ({"env": {"KEPT": None}}, {"env": {}}),
    ({"env": None}, {"env": {}}),
    ({"command": ["/bin/b", "c"]}, {"command": ["/bin/b", "c"]}),
    ({"command": None, "cpus": 2, "memory_mib": 128}, {"command": [], "cpus": 2, "memory_mib": 128}),
    ({"cpus": None}, {"cpus": 1}),
    ({"user": "nobody", "workdir": "/srv", "network": "default"}, {"user": "nobody", "workdir": "/srv", "network": "default"}),
    ({"name": "b"}, {"name": "b"}),
    ({"labels": {"team": "x", "old": None}}, {"labels": {"team": "x"}}),
    ({"restart": {"policy": "always"}}, {"restart": {"policy": "always", "max_retries": 3}}),
    ({"restart": None}, {"restart": {"policy": "never", "max_retries": 0}}),
    ({"stop": {"signal": "SIGQUIT", "drain_s": 0}}, {"stop": {"signal": "SIGQUIT", "timeout_s": 10, "drain_s": 0}}),
    ({"disk_mib": 32}, {"disk_mib": 32}),
]


@pytest.mark.parametrize("changes, expected", CHANGES)
def test_each_field_is_changed_alone(hulld, a, changes, expected):
    before = a(env={"KEPT": "k"}, labels={"old": "o"}, cpus=3, restart={"policy": "on-failure", "max_retries": 3})
    answer = patch(hulld, changes)
    assert answer.status == 200, answer
    assert answer.json == {**before, **expected}
    hulld.restart()
    again = hulld.get(f"/v1/machines/{before['id']}")
    assert (again.json, tag(again)) == (answer.json, tag(answer))


@pytest.mark.parametrize("changes, code, field", [
    ({"envv": {}}, "unknown_field", "envv"), ({"envv": None}, "unknown_field", "envv"), ({"state": "running"}, "unknown_field", "state"),
    ({"id": None}, "unknown_field", "id"), ({"cpus": 0}, "invalid_field", "cpus"), ({"cpus": "2"}, "invalid_field", "cpus"),
    ({"env": {"A": 1}}, "invalid_field", "env.A"), ({"env": {"=": ""}}, "invalid_field", "env.="),
    ({"name": None}, "missing_field", "name"), ({"name": "A"}, "invalid_field", "name"), ({"image": None}, "missing_field", "image"),
    ({"memory_mib": 1048576}, "invalid_field", "memory_mib"), ({"command": [""]}, "invalid_field", "command[0]"),
    ({"health": {}}, "invalid_field", "health"), ({"health": {"tcp": {"port": 1}, "grace_s": 86401}}, "invalid_field", "health.grace_s"), ({"health": {"tcp": {"port": 1}, "http": {"port": 1}}}, "invalid_field", "health"),
    ({"ports": [{"host": 1}]}, "missing_field", "ports[0].guest"), ([], "invalid_field", None), ("x", "invalid_field", None), (None, "invalid_field", None)])
def test_what_makes_no_sense_is_refused_and_changes_nothing(hulld, a, changes, code, field):
    before = a()
    refused(patch(hulld, changes), 400, code, field)
    assert hulld.machine("a") == before


def test_patches_do_not_add_up_to_more_than_one_request_may_have(hulld, a):
    a()
    half = {f"V{n}": "x" * 100_000 for n in range(6)}
    assert patch(hulld, {"env": half}).status == 200
    refused(patch(hulld, {"env": {f"W{name}": value for name, value in half.items()}}), 413, "payload_too_large")
    assert hulld.machine("a")["env"] == half
    assert patch(hulld, {"env": {f"W{name}": half.get(name) for name in half} | dict.fromkeys(half)}).status == 200


def test_what_cannot_be_had_is_refused(hulld, a):
    before = a()
    assert hulld.post("/v1/machines", {"name": "taken", "image": "hello"}).status == 201
    refused(patch(hulld, {"image": "nothing"}), 404, "not_found", "image")
    refused(patch(hulld, {"name": "taken"}), 409, "name_taken", "name")
    refused(patch(hulld, {}, "/v1/machines/nobody"), 404, "not_found")
    assert hulld.machine("a") == before
    start(hulld)
    refused(patch(hulld, {"disk_mib": 32}), 400, "invalid_field", "disk_mib")


@pytest.mark.parametrize("kind", ["application/json", "text/plain", MERGE + "x", None])
def test_a_patch_says_what_it_is(hulld, a, kind):
    a()
    answer = hulld.request("PATCH", "/v1/machines/a", b"{}", headers={"Content-Type": kind} if kind else {})
    assert MERGE in refused(answer, 415, "unsupported_media_type")["hint"] and answer.headers["Accept-Patch"] == MERGE
    assert hulld.request("PATCH", "/v1/machines/a", b"{}", headers={"Content-Type": MERGE + "; charset=utf-8"}).status == 200
    refused(hulld.request("PATCH", "/v1/machines/a", b"{", headers={"Content-Type": MERGE}), 400, "invalid_json")


def test_what_is_another_projects_is_not_there(hulld, a):
    before = a()
    assert hulld.post("/v1/projects", {"name": "other"}).status == 201
    for fields in ({}, {"If-Match": "*"}, {"If-Match": tag(hulld.get("/v1/machines/a"))}):
        there, not_there = (patch(hulld, {"name": "mine"}, f"/v1/machines/{name}", **{"Hull-Project": "other"}, **fields)
                            for name in ("a", "b"))
        refused(there, 404, "not_found")
        assert there.body.replace(b'\\"a\\"', b'\\"b\\"') == not_there.body
    assert hulld.machine("a") == before and hulld.delete("/v1/projects/other").status == 204


def test_two_who_change_the_same_do_not_undo_each_other(hulld, a):
    a(env={"N": "0"})
    refused(patch(hulld, {"env": {"N": "1"}}, **{"If-Match": '"other"'}), 412, "precondition_failed", "If-Match")

    def count(_):
        while True:
            seen = hulld.get("/v1/machines/a")
            answer = patch(hulld, {"env": {"N": str(int(seen.json["env"]["N"]) + 1)}}, **{"If-Match": tag(seen)})
            if answer.status == 200:
                return
            refused(answer, 412, "precondition_failed", "If-Match")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(20)))
    assert hulld.machine("a")["env"] == {"N": "20"}


def test_a_run_keeps_what_it_has_until_its_end(hulld, a):
    a(env={"A": "old"})
    machine = start(hulld)
    assert machine["pending"] == []
    changed = patch(hulld, {"env": {"A": "new"}, "memory_mib": 128, "command": ["/bin/other"], "labels": {"x": "y"}})
    assert changed.status == 200 and changed.json["pid"] == machine["pid"]
    assert sorted(changed.json["pending"]) == ["command", "env", "memory_mib"]
    assert changed.json["env"] == {"A": "new"} and changed.json["labels"] == {"x": "y"}
    hulld.restart()
    assert hulld.machine("a") == changed.json, "it survives hulld"
    assert patch(hulld, {"memory_mib": 256}).json["pending"] == ["command", "env"], "what is as it was is not pending"
    stop(hulld)
    assert hulld.machine("a")["pending"] == []
    monitor, guest = boots_with(hulld, start(hulld))
    assert guest["env"]["A"] == "new" and guest["command"] == ["/bin/other"] and monitor["machine-config"]["mem_size_mib"] == 256
    assert hulld.machine("a")["pending"] == []


def test_a_restart_takes_what_is_pending(hulld, a):
    a()
    start(hulld)
    assert patch(hulld, {"env": {"A": "1"}, "name": "b"}).json["pending"] == ["env"]
    before = hulld.machine("b")["pid"]
    assert hulld.post("/v1/machines/b/restart", {"timeout_s": 0}).status == 200
    machine = wait_until(lambda: hulld.machine("b")["pid"] not in (None, before) and hulld.machine("b"), "another monitor")
    assert machine["pending"] == [] and boots_with(hulld, machine)[1]["env"]["A"] == "1"
    assert boots_with(hulld, machine)[1]["hostname"] == "b"


def test_a_start_that_hulld_did_not_survive_begins_with_what_it_had(hulld, a):
    machine = a(env={"A": "old"})
    start(hulld)
    assert patch(hulld, {"env": {"A": "new"}}).json["pending"] == ["env"]
    hulld.kill()
    with contextlib.closing(sqlite3.connect(hulld.state / "hull.db", isolation_level=None)) as rows:
        pid, = rows.execute("SELECT monitor_pid FROM machines").fetchone()
        rows.execute("UPDATE machines SET monitor_pid = 0, monitor_start = 0")
    os.kill(pid, 9)
    hulld.start()
    wait_until(lambda: hulld.machine("a")["pid"], "it starts again")
    assert boots_with(hulld, machine)[1]["env"]["A"] == "old" and hulld.machine("a")["pending"] == ["env"]


def test_another_image_is_that_of_the_next_start(hulld, a):
    """Neither image's content goes while it is needed, and each goes with the last who does."""
    blobs = hulld.state / "blobs" / "sha256"
    old = hulld.image("app", hulld.erofs + b"old", command=["/old"])
    machine = a(image="app")
    start(hulld)
    assert boots_with(hulld, machine)[1]["stop_signal"] == "SIGTERM"
    new = hulld.image("app", hulld.erofs + b"new", command=["/new"], stop_signal="SIGQUIT")
    assert patch(hulld, {"env": {"A": "1"}}).json["pending"] == ["env"], "the image is its own until somebody says otherwise"
    assert patch(hulld, {"image": "app"}).json["pending"] == ["image", "env"]
    assert (blobs / old[7:]).exists()
    hulld.restart()
    assert hulld.machine("a")["pending"] == ["image", "env"] and (blobs / old[7:]).exists()
    refused(hulld.delete("/v1/images/app"), 409, "image_in_use")
    assert hulld.delete("/v1/images/app?force=1").status == 204
    stop(hulld)
    wait_until(lambda: not (blobs / old[7:]).exists(), "the old content has gone")
    start(hulld)
    monitor, guest = boots_with(hulld, machine)
    assert monitor["drives"][0]["path_on_host"].endswith(new[7:]) and guest["command"] == ["/new"]
    assert guest["stop_signal"] == "SIGQUIT"
    stop(hulld)
    assert patch(hulld, {"stop": {"signal": "SIGHUP"}}).json["image"] == "app"
    start(hulld)
    assert boots_with(hulld, machine)[1]["stop_signal"] == "SIGHUP"
    assert hulld.delete("/v1/machines/a?force=1").status == 204 and not (blobs / new[7:]).exists()


def ports(*pairs):
    return {"ports": [{"host": host, "guest": guest} for host, guest in pairs]}


def test_ports_change_at_once(hulld, a):
    one, two, three = free_port(), free_port(), free_port()
    a(**ports((one, 80), (two, 80)))
    start(hulld)
    answer = patch(hulld, ports((two, 81), (three, 80)))
    assert answer.status == 200 and answer.json["pending"] == []
    wait_until(lambda: not listens(one), "it is given up")
    assert listens(two) and listens(three)
    hulld.restart()
    assert listens(two) and listens(three)
    assert patch(hulld, {"ports": None}).json["ports"] == []
    wait_until(lambda: not listens(two) and not listens(three), "all are given up")


def test_a_port_that_is_taken_leaves_all_as_it_was(hulld, a):
    mine, free, others = free_port(), free_port(), free_port()
    before = a(**ports((mine, 80)))
    assert hulld.post("/v1/machines", {"name": "b", "image": "hello", **ports((others, 80))}).status == 201
    refused(patch(hulld, ports((free, 80), (others, 80))), 409, "port_taken", "ports[1].host")
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        refused(patch(hulld, {"env": {"A": "1"}, **ports((free, 80), (mine, 81), (stranger.getsockname()[1], 80))}), 409, "port_taken", "ports[2].host")
    assert hulld.machine("a") == before and listens(mine)
    wait_until(lambda: not listens(free), "it is given up")
    hulld.restart()
    assert not listens(free) and listens(mine)


def test_a_machine_that_is_deleted_while_its_ports_change_is_gone(hulld, a):
    """And no port of it stays."""
    for _ in range(10):
        wanted = [free_port() for _ in range(8)]
        a()
        answers = []
        other = threading.Thread(target=lambda: answers.append(patch(hulld, ports(*((port, 80) for port in wanted)))))
        other.start()
        assert hulld.delete("/v1/machines/a").status == 204
        other.join()
        assert answers[0].status in (200, 404, 409), answers
        wait_until(lambda: not any(map(listens, wanted)), "no port stays")


@contextlib.contextmanager
def while_ports_are_published(hulld, *paths, **changes):
    """What is patched waits for hull-ingress, which stands still. The answers are there afterwards."""
    pid = ingress_pid(hulld)
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        try:
            asked = [pool.submit(patch, hulld, {**ports((free_port(), 80)), **changes}, path) for path in paths]
            wait_until(lambda: all(hulld.request("PATCH", path, "{}", headers={"Content-Type": MERGE}).status == 409 for path in paths), "all wait")
            answers = []
            yield answers
        finally:
            os.kill(pid, signal.SIGCONT)
        answers += [one.result() for one in asked]


def test_patches_at_the_same_time_do_not_exceed_a_quota(hulld, a):
    a(**ports((free_port(), 80)))
    hulld.post("/v1/machines", {"name": "b", "image": "hello"})
    hulld.post("/v1/machines", {"name": "c", "image": "hello"})
    assert hulld.request("PUT", "/v1/projects/default/quotas", {"ports": 2}).status == 200
    try:
        with while_ports_are_published(hulld, "/v1/machines/b", "/v1/machines/c") as answers:
            pass
        assert sorted(answer.status for answer in answers) == [200, 409], answers
        assert hulld.get("/v1/projects/default").json["usage"]["ports"] == 2
    finally:
        assert hulld.request("PUT", "/v1/projects/default/quotas", {}).status == 200


def test_a_disk_that_was_made_while_ports_change_stays_as_it_is(hulld, a):
    a(**ports((free_port(), 80)))
    with while_ports_are_published(hulld, "/v1/machines/a", disk_mib=32) as answers:
        start(hulld)
    refused(answers[0], 400, "invalid_field", "disk_mib")
    assert hulld.machine("a")["disk_mib"] == 16


def test_an_image_that_goes_while_ports_change_is_not_the_machines(hulld, a, tmp_path):
    a(**ports((free_port(), 80)))
    (tmp_path / "more").mkdir()
    hulld.image("other", make_erofs(tmp_path, {"other": "1"}), command=["/bin/true"])
    with while_ports_are_published(hulld, "/v1/machines/a", image="other") as answers:
        assert hulld.delete("/v1/images/other").status == 204
    refused(answers[0], 404, "not_found", "image")
    start(hulld)


def test_a_policy_that_is_taken_back_starts_nothing_more(hulld, a):
    a(restart={"policy": "always"})
    pid = start(hulld)["pid"]
    os.kill(pid, 9)
    wait_until(lambda: hulld.machine("a")["state"] != "starting" or hulld.machine("a")["restarts"], "it ended")
    assert patch(hulld, {"restart": {"policy": "never"}}).json["restart"]["policy"] == "never"
    hulld.restart()
    if hulld.machine("a")["state"] == "failed":
        refused(hulld.get("/v1/machines/a/wait?state=starting&timeout_s=5"), 409, "machine_failed")


def test_a_quota_counts_what_runs_and_what_is_to_run(hulld, a):
    a(memory_mib=512)
    start(hulld)
    assert hulld.request("PUT", "/v1/projects/default/quotas", {"memory_mib": 600}).status == 200
    try:
        refused(patch(hulld, {"memory_mib": 700}), 409, "quota_exceeded", "memory_mib")
        assert patch(hulld, {"memory_mib": 128}).json["pending"] == ["memory_mib"]
        refused(hulld.post("/v1/machines", {"name": "b", "image": "hello", "memory_mib": 256}), 409, "quota_exceeded", "memory_mib")
        stop(hulld)
        assert hulld.post("/v1/machines", {"name": "b", "image": "hello", "memory_mib": 256}).status == 201
    finally:
        assert hulld.request("PUT", "/v1/projects/default/quotas", {}).status == 200


@pytest.fixture
def hull(hulld, tmp_path):
    return Cli(tmp_path, hulld.socket)


def test_the_command_changes_what_is_given_and_nothing_else(hulld, a, hull):
    one, two = free_port(), free_port()
    before = a(env={"A": "1", "B": "2"}, labels={"x": "1", "y": "2"}, user="nobody", command=["/bin/true"],
               restart={"policy": "on-failure", "max_retries": 3}, health={"http": {"port": 80}, "retries": 9}, **ports((one, 80)))
    done = hull("update", "a", "-e", "A=3", "-e", "B-", "-e", "C=", "--label", "x-", "--label", "z=3", "--memory", "1g", "-u", "",
                "-p", f"{two}:80", "--restart", "always", "--health-tcp", "81", "--stop-signal", "SIGINT", "--stop-timeout", "7", "--", "/bin/sleep", "-1")
    assert (done.stdout, done.stderr) == ("a\n", "")
    after = hulld.machine("a")
    port = {"address": "127.0.0.1", "guest": 80, "protocol": "tcp"}
    health = {**before["health"], "tcp": {"port": 81}, "retries": 9}
    del before["user"], health["http"]
    assert after == {**before, "env": {"A": "3", "C": ""}, "labels": {"y": "2", "z": "3"}, "memory_mib": 1024, "health": health,
                     "ports": [{"host": one, **port}, {"host": two, **port}], "command": ["/bin/sleep", "-1"],
                     "restart": {"policy": "always", "max_retries": 0}, "stop": {"signal": "SIGINT", "timeout_s": 7, "drain_s": 5}}
    hull("update", before["id"], "-p", f"{one}-", "-p", f"127.0.0.1:{two}:81", "--no-health", "--name", "b")
    after = hulld.machine("b")
    assert after["ports"] == [{"host": two, **port, "guest": 81}] and "health" not in after
    assert hull("inspect", "b").returncode == 0


def test_the_command_changes_one_thing_about_a_check(hulld, a, hull):
    before = a(health={"http": {"port": 80, "path": "/up"}, "retries": 9})["health"]
    hull("update", "a", "--health-grace", "60", "--health-interval", "5")
    assert hulld.machine("a")["health"] == {**before, "grace_s": 60, "interval_s": 5}
    hull("update", "a", "--health-grace", "0")
    assert hulld.machine("a")["health"] == {**before, "interval_s": 5}
    assert hull.refused("update", "a", "--health-grace", "86401", status=2)[0].startswith("--health-grace: ")
    hull("update", "a", "--no-health")
    assert hull.refused("update", "a", "--health-grace", "60", status=2)[0] == \
        "--health-grace: goes with --health-http, --health-tcp or --health-cmd"


def test_the_command_says_what_is_at_the_next_start(hulld, a, hull):
    a()
    start(hulld)
    assert hull("update", "a", "-e", "A=1", "--cpus", "2").stderr == \
        "hull: a: cpus, env: at its next start\n      `hull restart a` starts it again\n"
    assert hull("update", "a", "--label", "x=y").stderr.startswith("hull: a: cpus, env: ")


@pytest.mark.parametrize("words, line, status", [
    ([], "a: nothing is to be changed", 2), (["-p", "1-"], "--publish: 127.0.0.1:1 is not published", 2),
    (["--hostname", "a.localhost-"], "--hostname: a.localhost is not served", 2),
    (["--hostname", "a.localhost"], '--hostname: "a.localhost" is not NAME:GUEST with a port from 1 to 65535', 2),
    (["-e", "=x"], '--env: "=x" is not KEY=VALUE', 2), (["--label", "x"], '--label: "x" is not KEY=VALUE', 2),
    (["--image", "none"], 'image: there is no image "none"', 1), (["-m", "1"], "memory_mib: must be 64 to 1048576, not 1", 1)])
def test_the_command_refuses_what_makes_no_sense(hulld, a, hull, words, line, status):
    before = a()
    assert hull.refused("update", "a", *words, status=status)[0] == line
    assert hulld.machine("a") == before


def test_two_commands_do_not_undo_each_other(hulld, a, hull):
    a()
    wanted = [free_port() for _ in range(6)]
    processes = [hull.popen("update", "a", "-p", f"{port}:80") for port in wanted]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "a\n", "")
    assert {port["host"] for port in hulld.machine("a")["ports"]} == set(wanted) and all(map(listens, wanted))


def test_openapi_describes_the_patch(hulld):
    described = hulld.get("/v1/openapi.json").json["paths"]["/v1/machines/{machine}"]["patch"]
    schema = described["requestBody"]["content"][MERGE]["schema"]
    assert {"type": "null"} in schema["properties"]["env"]["anyOf"] and not schema["additionalProperties"] and "required" not in schema
    assert "412" in described["responses"] and "If-Match" in [parameter["name"] for parameter in described["parameters"]]
