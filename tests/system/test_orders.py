"""Health, freeze and thaw, as hulld has them. The agent is real; the machine is this host, so that none has to boot
(test_orders_kvm.py has one that does)."""
import contextlib
import errno
import os
import socket
import sqlite3
import struct
import threading
import time
from datetime import datetime

import pytest

from free_ports import free_port
from hulld_fixtures import DEADLINE, wait_until
from test_bar import Terminal
from test_exec import execute, finished, hull, ran, start_alone
from test_patch import patch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent is root")
REFUSED, ANSWER = 17, 24


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    daemon = start_alone(tmp_path_factory.mktemp("hulld"))
    yield daemon
    daemon.stop()


def run(hulld, name, **spec):
    answer = hulld.post("/v1/machines", {"name": name, "image": "any", "command": ["any"], "network": "none", "disk_mib": 16, **spec})
    assert answer.status == 201, answer
    hulld.post(f"/v1/machines/{name}/start")
    assert hulld.wait(name, "running,failed")["state"] == "running", hulld.machine(name)


def health(hulld, name, state):
    """What is said of it once it is in that state."""
    return wait_until(lambda: (seen := hulld.machine(name)["health"])["state"] == state and seen, f"{name} is {state}")


@pytest.fixture(scope="module")
def liar(hulld):
    """What listens in the place of a machine's agent."""
    run(hulld, "liar")
    path = hulld.run / "machines" / hulld.machine("liar")["id"] / "vsock.sock"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(DEADLINE)
        listener.bind(str(path))
        listener.listen()
        yield listener
    hulld.delete("/v1/machines/liar?force=1")


def test_health_follows_what_the_check_finds(hulld):
    listener = socket.create_server(("127.0.0.1", port := free_port()))
    run(hulld, "well", health={"tcp": {"port": port}, "interval_s": 1, "retries": 2})
    seen = health(hulld, "well", "healthy")
    assert seen["tcp"] == {"port": port} and seen["timeout_s"] == 2 and seen["reason"] is None, seen
    assert "running (healthy)" in finished(hull(hulld, "ps"))[0].decode()
    listener.close()
    ill = health(hulld, "well", "unhealthy")
    assert ill["reason"] == f"port {port}: Connection refused" and ill["since"] > seen["since"], ill
    hulld.restart()  # which begins anew
    assert health(hulld, "well", "unhealthy")["since"] > ill["since"]
    listener = socket.create_server(("127.0.0.1", port))
    assert health(hulld, "well", "healthy")["reason"] is None
    listener.close()
    assert hulld.post("/v1/machines/well/kill").json["health"]["state"] == "unknown"
    hulld.delete("/v1/machines/well")


def test_a_check_is_a_program_too(hulld, tmp_path):
    check = ["sh", "-c", f"echo $WHO; test -e {tmp_path}/up"]
    run(hulld, "prog", health={"exec": {"command": check}, "interval_s": 1, "retries": 1})
    assert health(hulld, "prog", "unhealthy")["reason"] == "exit status 1: image"
    (tmp_path / "up").touch()
    assert health(hulld, "prog", "healthy")["exec"] == {"command": check}
    hulld.delete("/v1/machines/prog?force=1")


def seconds(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def looked_at_in_vain(hulld, name):
    """It is said how a check has failed; the state is still that of before the first answer."""
    return wait_until(lambda: (seen := hulld.machine(name)["health"])["reason"] and seen, f"{name} was looked at")["state"] == "starting"


def test_what_takes_long_to_come_up_has_its_grace(hulld, tmp_path):
    check = {"exec": {"command": ["test", "-e", f"{tmp_path}/up"]}, "interval_s": 1, "retries": 1}
    run(hulld, "slow", health={**check, "grace_s": 3600})
    assert hulld.machine("slow")["health"]["grace_s"] == 3600 and looked_at_in_vain(hulld, "slow")
    hulld.restart()
    assert looked_at_in_vain(hulld, "slow"), "the time is the workload's, not hulld's"
    assert patch(hulld, {"health": {"grace_s": 0}}, "/v1/machines/slow").status == 200
    health(hulld, "slow", "unhealthy")
    assert patch(hulld, {"health": {"grace_s": 3600}}, "/v1/machines/slow").status == 200
    assert looked_at_in_vain(hulld, "slow"), "as it has never succeeded"
    (tmp_path / "up").touch()
    health(hulld, "slow", "healthy")
    (tmp_path / "up").unlink()
    health(hulld, "slow", "unhealthy")  # the first success has ended it,
    assert patch(hulld, {"health": {"grace_s": 7200}}, "/v1/machines/slow").status == 200
    health(hulld, "slow", "unhealthy")  # for whatever is asked then,
    hulld.restart()
    health(hulld, "slow", "unhealthy")  # and of whomever.
    hulld.post("/v1/machines/slow/restart")
    assert hulld.wait("slow", "running") and looked_at_in_vain(hulld, "slow"), "it is each run's"
    hulld.delete("/v1/machines/slow?force=1")


def test_grace_ends_and_goes_by_the_time_that_the_workload_runs(hulld):
    """Each second is looked, so that what it has run for between a look and its thaw is not known to more than that."""
    spec = {"exec": {"command": ["false"]}, "interval_s": 1, "retries": 1, "grace_s": 3}
    begun = time.monotonic()
    run(hulld, "ice", health=spec)
    assert hulld.post("/v1/machines/ice/freeze").status == 200
    ran_s = time.monotonic() - begun
    run(hulld, "brief", health=spec)
    assert seconds(health(hulld, "brief", "unhealthy")["since"]) - seconds(hulld.machine("brief")["started_at"]) >= 3
    begun = time.monotonic()
    assert hulld.post("/v1/machines/ice/thaw").status == 200
    health(hulld, "ice", "unhealthy")
    assert ran_s + time.monotonic() - begun > 3 - 1.5
    for name in ("ice", "brief"):
        hulld.delete(f"/v1/machines/{name}?force=1")


def test_who_waits_in_vain_is_told_so_once_at_a_terminal(hulld):
    spec = {"name": "cold", "image": "any", "command": ["any"], "network": "none", "disk_mib": 16,
            "health": {"exec": {"command": ["true"]}, "interval_s": 1, "retries": 1}}
    assert hulld.post("/v1/machines", spec).status == 201
    hint = "      `hull start cold` starts it"
    ended, healthy, piped = Terminal(hulld, "wait", "cold"), Terminal(hulld, "wait", "--healthy", "cold"), hull(hulld, "wait", "cold")
    ended.until(b"starts it")
    healthy.until(b"starts it")
    hulld.post("/v1/machines/cold/start")
    assert healthy.end() == (["hull: cold: waits until it is healthy, but it was never started", hint], b"")
    # The end of one that runs may come; that one's programs stand still, nothing is about to change.
    unsaid = Terminal(hulld, "wait", "cold")
    assert hulld.post("/v1/machines/cold/freeze").status == 200
    assert patch(hulld, {"health": {"interval_s": 2}}, "/v1/machines/cold").status == 200
    frozen = Terminal(hulld, "wait", "--healthy", "cold").until(b"run on")
    hulld.post("/v1/machines/cold/kill")
    screen, _ = frozen.end(status=1)
    assert screen[:2] == ["hull: cold: waits until it is healthy, but it is frozen", "      `hull thaw cold` lets it run on"]
    assert ended.end() == (["hull: cold: waits until it has ended, but it was never started", hint], b"137\n")
    assert unsaid.end() == ([], b"137\n") and finished(piped) == (b"137\n", b"", 0)
    # What has ended is not waited for.
    assert Terminal(hulld, "wait", "cold").end() == ([], b"137\n")
    assert Terminal(hulld, "wait", "nosuch").end(status=1)[0][0] == 'hull: there is no machine "nosuch"'
    hulld.delete("/v1/machines/cold")


def test_one_that_does_not_run_has_no_health(hulld):
    spec = {"http": {"port": 80}}
    seen = hulld.post("/v1/machines", {"name": "cold", "image": "any", "command": ["any"], "health": spec}).json["health"]
    assert seen == {"http": {"port": 80, "path": "/"}, "interval_s": 10, "timeout_s": 2, "retries": 3, "grace_s": 0, "state": "unknown",
                    "reason": None, "since": None}
    # As it was stored by a hulld that knew no grace.
    hulld.kill()
    with contextlib.closing(sqlite3.connect(hulld.state / "hull.db", isolation_level=None)) as rows:
        rows.execute("UPDATE machines SET spec = json_remove(spec, '$.health.grace_s') WHERE name = 'cold'")
    hulld.start()
    assert hulld.machine("cold")["health"] == seen
    for verb in ("freeze", "thaw"):
        answer = hulld.post(f"/v1/machines/cold/{verb}")
        assert (answer.status, answer.json["code"], answer.json["detail"]) == (409, "wrong_state", "machine cold is created")
        assert hulld.post(f"/v1/machines/nosuch/{verb}").json["code"] == "not_found"
    hulld.delete("/v1/machines/cold")


def frame(kind, body):
    return struct.pack("<IB3x", len(body), kind) + body


def reply(status=0):
    return b"HULL" + struct.pack("<I", status)


@pytest.mark.parametrize("says,detail", [
    (reply(errno.EPROTONOSUPPORT), "its agent is too old for that"),
    (reply(errno.EAGAIN), "its agent has too much to do"),
    (reply(), "its agent has gone"),
    (reply() + frame(ANSWER, b'{"frozen": true')[:-1], "its agent has gone"),
    (reply() + struct.pack("<IB3x", 65537, ANSWER), "its agent makes no sense"),
    (reply() + frame(ANSWER, b"{}"), "its agent makes no sense"),
    (reply() + frame(ANSWER, b'{"frozen": true, "reason": "%s"}' % (b"x" * 256)), "its agent makes no sense"),
    (reply() + frame(18, b'{"frozen": true}'), "its agent makes no sense"),
    (reply() + frame(REFUSED, b'{"errno": 0, "message": "fine"}'), "its agent makes no sense"),
    (reply() + frame(REFUSED, b'{"errno": 5, "field": "x", "message": "a\\u001b[31mb\\nc\xc3\xbc"}'), "a?[31mb?c??"),
])
def test_a_hostile_agent_is_answered_for_in_one_line(hulld, liar, says, detail):
    answers = []
    asking = threading.Thread(target=lambda: answers.append(hulld.post("/v1/machines/liar/freeze")))
    asking.start()
    with liar.accept()[0] as client:
        assert client.recv(100) == b"CONNECT 1024\n"
        client.sendall(b"OK 1\n")
        assert client.recv(12, socket.MSG_WAITALL)[:8] == b"HULL\1\0\x08\0"
        client.sendall(says)
        if says.startswith(reply()):
            assert b'{"verb":"freeze"}' in client.recv(100)
    asking.join()
    assert (answers[0].status, answers[0].json["code"], answers[0].json["detail"]) == (409, "machine_failed", f"machine liar: {detail}")
    assert hulld.machine("liar")["frozen"] is False


@pytest.mark.parametrize("spec,code,field,detail", [
    ({}, "invalid_field", "health", "must have one of http, tcp and exec"),
    ({"tcp": {"port": 1}, "http": {"port": 1}}, "invalid_field", "health", "must have one of http, tcp and exec"),
    ({"tcp": {}}, "missing_field", "health.tcp.port", "is required"),
    ({"tcp": {"port": 65536}}, "invalid_field", "health.tcp.port", "must be 1 to 65535"),
    ({"http": {"port": 80, "path": "up"}}, "invalid_field", "health.http.path", "must begin with /"),
    ({"http": {"port": 80, "path": "/a b"}}, "invalid_field", "health.http.path", "without spaces"),
    ({"http": {"port": 80, "paths": "/"}}, "unknown_field", "health.http.paths", "unknown field"),
    ({"exec": {"command": []}}, "invalid_field", "health.exec.command", "must not be empty"),
    ({"exec": {"command": [""]}}, "invalid_field", "health.exec.command[0]", "must not be empty"),
    ({"exec": {"command": ["x" * 40000, "x" * 40000]}}, "invalid_field", "health.exec.command", "must not have more than 65536 bytes"),
    ({"tcp": {"port": 1}, "interval_s": 0}, "invalid_field", "health.interval_s", "must be 1 to 86400"),
    ({"tcp": {"port": 1}, "timeout_s": 301}, "invalid_field", "health.timeout_s", "must be 1 to 300"),
    ({"tcp": {"port": 1}, "retries": 0}, "invalid_field", "health.retries", "must be 1 to 1000"),
    ({"tcp": {"port": 1}, "grace_s": -1}, "invalid_field", "health.grace_s", "must be 0 to 86400"),
    ({"tcp": {"port": 1}, "grace_s": 86401}, "invalid_field", "health.grace_s", "must be 0 to 86400"),
    ({"tcp": {"port": 1}, "grace_s": "20"}, "invalid_field", "health.grace_s", "must be an integer"),
    ({"tcp": {"port": 1}, "state": "healthy"}, "unknown_field", "health.state", "unknown field"),
])
def test_a_check_that_is_none_is_refused(hulld, spec, code, field, detail):
    answer = hulld.post("/v1/machines", {"name": "no", "image": "any", "health": spec})
    assert (answer.status, answer.json["code"], answer.json.get("field")) == (400, code, field), answer
    assert detail in answer.json["detail"], answer


def test_frozen_programs_are_not_joined_by_others(hulld):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        run(hulld, "ice", health={"tcp": {"port": listener.getsockname()[1]}, "interval_s": 1, "retries": 1})
        health(hulld, "ice", "healthy")
        for verb, frozen in (("freeze", True), ("freeze", True), ("thaw", False), ("thaw", False), ("freeze", True)):
            answer = hulld.post(f"/v1/machines/ice/{verb}")
            assert (answer.status, answer.json["frozen"]) == (200, frozen), answer
    answer = execute(hulld, "ice", "true")
    assert (answer.status, answer.json["code"], answer.json["detail"]) == (409, "wrong_state",
                                                                          "machine ice: its programs are frozen: thaw it first")
    # A new hulld hears so; and it is neither well nor ill meanwhile.
    hulld.restart()
    wait_until(lambda: hulld.machine("ice")["frozen"], "it is known to be frozen")
    assert finished(hull(hulld, "ps"))[0].decode().count("running (frozen)") == 1
    assert hulld.machine("ice")["health"]["state"] == "starting"
    assert finished(hull(hulld, "thaw", "ice"))[::2] == (b"ice\n", 0)
    ran(execute(hulld, "ice", "true"))
    health(hulld, "ice", "unhealthy")
    assert finished(hull(hulld, "freeze", "ice"))[::2] == (b"ice\n", 0)
    # It thaws to be stopped.
    hulld.post("/v1/machines/ice/stop")
    assert hulld.wait("ice", "stopped")["frozen"] is False
    hulld.delete("/v1/machines/ice")
