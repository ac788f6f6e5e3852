"""A host is drained: no machine starts, those that run end in their order, and start again when it serves. The agent is real; the machine
is this host, so that none has to boot."""
import json
import os
import signal

import pytest

from hulld_fixtures import Hulld, wait_until
from test_exec import finished, hull, start_alone
from test_order import cursor, happened, refused, start
from test_patch import patch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent is root")


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    daemon = start_alone(tmp_path_factory.mktemp("hulld"))
    yield daemon
    daemon.stop()


@pytest.fixture
def make(hulld):
    """Creates machines and starts them; they go with the test, and the host serves again."""
    made = []

    def create(name, *depends_on, started=True, **spec):
        answer = hulld.post("/v1/machines", {"name": name, "image": "any", "command": ["any"], "network": "none", "disk_mib": 16,
                                             "depends_on": [{"machine": other} for other in depends_on], **spec})
        assert answer.status == 201, answer
        made.append(answer.json["id"])
        if started:
            start(hulld, name)
            assert hulld.wait(name, "running,failed")["state"] == "running", hulld.machine(name)
        return answer.json

    yield create
    for machine in reversed(made):
        hulld.delete(f"/v1/machines/{machine}?force=1")
    serving = hulld.post("/v1/host/undrain").json
    assert serving["state"] == "serving" and serving["progress"] is None


def drain(hulld, **body):
    answer = hulld.post("/v1/host/drain", body)
    assert answer.status == 200 and answer.json["state"] in ("draining", "drained"), answer
    return answer.json


def drained(hulld):
    return wait_until(lambda: (host := hulld.get("/v1/host").json)["state"] == "drained" and host, "it is drained")


def test_a_device_that_is_not_kvm_is_no_kvm(tmp_path):
    """In its eyes /dev has all that there is, but for /dev/kvm, which is another device."""
    daemon = Hulld(tmp_path)
    daemon.wrapper = ["unshare", "-m", "sh", "-ec", 'mount --rbind /dev "$1"; mount -t tmpfs none /dev; ln -s "$1"/* /dev; ln -sf "$1"/null /dev/kvm; shift; exec "$@"',
                      "sh", tmp_path / "dev"]
    (tmp_path / "dev").mkdir()
    daemon.start()
    try:
        assert daemon.get("/v1/host").json["capabilities"]["kvm"] is False
    finally:
        daemon.stop()


def test_machines_end_before_what_they_depend_on_and_come_back(hulld, make):
    make("db", cpus=2, memory_mib=512)
    make("app", "db")
    make("web", "app", "db")
    make("idle", started=False)
    after = cursor(hulld)
    host = hulld.get("/v1/host").json
    assert host["progress"] is None and host["state"] == "serving" and host["drain_since"] is None and host["drain_until"] is None and host["held"] == 0
    assert host["allocated"] == {"machines": 4, "vcpus": 5, "memory_mib": 1280, "disk_mib": 64, "ports": 0}
    assert host["running"] == {"machines": 3, "vcpus": 4, "memory_mib": 1024, "disk_mib": 48, "ports": 0}
    assert host["cpus"] == os.cpu_count() and host["memory_mib"] > 512 and 0 < host["disk_free_mib"] <= host["disk_mib"]
    assert set(host["capabilities"]) == {"folders", "kvm", "network"} and host["version"] == hulld.get("/v1/version").json["version"]
    assert drain(hulld)["drain_until"] is not None
    host = drained(hulld)
    assert (host["held"], host["running"]["machines"], host["drain_until"]) == (3, 0, None) and host["drain_since"]
    assert host["progress"] == {"done": 3, "total": 3, "unit": "machines"}
    assert happened(hulld, after, "stopping", "stopped") == [
        ("stopping", "web"), ("stopped", "web"), ("stopping", "app"), ("stopped", "app"), ("stopping", "db"), ("stopped", "db")]
    assert drain(hulld)["state"] == "drained"  # again: nothing to do
    assert {(one["kind"], one["state"]) for one in hulld.get("/v1/operations").json["items"] if one["requested_by"] == "hulld"} == {("stop", "succeeded")}
    for name in ("idle", "web"):
        answer = hulld.post(f"/v1/machines/{name}/start")
        refused(answer, 409, "host_draining", None, "the host is drained: no machine is started")
        assert answer.json["retryable"] and "undrained" in answer.json["hint"]
    assert hulld.post("/v1/machines/idle/restart").json["code"] == "host_draining"
    hulld.restart()  # it is on the disk
    assert hulld.get("/v1/host").json["state"] == "drained" and hulld.machine("web")["state"] == "stopped"
    assert hulld.post("/v1/host/undrain").json["state"] == "serving"
    for name in ("db", "app", "web"):
        assert hulld.wait(name, "running,failed")["restarts"] == 0, "nobody's failure"
    assert hulld.machine("idle")["state"] == "created" and hulld.get("/v1/host").json["held"] == 0
    assert happened(hulld, after, "running") == [("running", "db"), ("running", "app"), ("running", "web")]
    types = [event["type"] for event in hulld.get(f"/v1/events?after={after}&type=host&limit=1000").json["items"]]
    assert types == ["host.draining", "host.drained", "host.serving"]


def test_what_does_not_end_in_time_is_killed(hulld, make):
    """A machine whose agent has stopped hears of nothing; what it depends on is not asked before its time is over, either."""
    make("db")
    make("deaf", "db", stop={"timeout_s": 600})
    os.kill(hulld.machine("deaf")["pid"], signal.SIGSTOP)
    until = drain(hulld, timeout_s=3600)["drain_until"]
    wait_until(lambda: hulld.machine("deaf")["state"] == "stopping", "it is asked to end")
    assert hulld.machine("db")["state"] == "running"
    assert drain(hulld, timeout_s=7200)["drain_until"] == until, "it is not made longer"
    assert hulld.post("/v1/machines/deaf/restart", {"timeout_s": 3600}).status == 200  # it will, but not yet
    hulld.restart()  # which goes on
    assert hulld.get("/v1/host").json["drain_until"] == until and hulld.machine("db")["state"] == "running"
    assert hulld.get("/v1/host").json["progress"] == {"done": 0, "total": 2, "unit": "machines"}
    assert drain(hulld, timeout_s=1)["drain_until"] < until
    assert drained(hulld)["held"] == 2
    assert hulld.machine("deaf")["cause"]["code"] == "killed"
    assert [one["state"] for one in hulld.get("/v1/operations").json["items"] if one["state"] == "running"] == []


def test_what_somebody_stops_or_deletes_meanwhile_does_not_come_back(hulld, make):
    for name in ("one", "two", "three"):
        make(name, restart={"policy": "always"})
    drain(hulld)
    drained(hulld)
    hulld.post("/v1/machines/one/stop")
    assert hulld.delete("/v1/machines/two").status == 204
    assert hulld.get("/v1/host").json["held"] == 1
    hulld.post("/v1/host/undrain")
    assert hulld.wait("three", "running,failed")["state"] == "running"
    assert hulld.machine("one")["state"] == "stopped"


def test_a_drain_can_be_undone_while_machines_end(hulld, make):
    make("db")
    make("deaf", "db", stop={"timeout_s": 600})
    pid = hulld.machine("deaf")["pid"]
    os.kill(pid, signal.SIGSTOP)
    drain(hulld, timeout_s=600)
    wait_until(lambda: hulld.machine("deaf")["state"] == "stopping", "it is asked to end")
    assert hulld.post("/v1/host/undrain").json["state"] == "serving"
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: (m := hulld.machine("deaf"))["state"] == "running" and m["pid"] != pid, "it ends, and is started again")
    assert hulld.machine("db")["state"] == "running"


def test_what_was_to_be_back_once_the_host_is_does_not_keep_its_client_waiting_while_that_is_drained(hulld, make):
    """It is restarted, the host is drained, and goes down before it has ended."""
    make("deaf", stop={"timeout_s": 600})
    pid = hulld.machine("deaf")["pid"]
    os.kill(pid, signal.SIGSTOP)
    drain(hulld, timeout_s=600)
    wait_until(lambda: hulld.machine("deaf")["state"] == "stopping", "it is asked to end")
    restart = hulld.post("/v1/machines/deaf/restart").headers["Operation"]
    hulld.process.send_signal(signal.SIGPWR)
    os.kill(pid, signal.SIGKILL)
    hulld.process.wait(60)
    hulld.start()
    drained(hulld)
    operation = hulld.get(f"/v1/operations/{restart}").json
    assert operation["state"] == "failed" and operation["error"]["code"] == "host_draining", operation
    hulld.post("/v1/host/undrain")
    assert hulld.wait("deaf", "running,failed")["state"] == "running"


def test_who_is_not_to_be_restarted_by_policy_any_more_comes_back_all_the_same(hulld, make):
    """A drain is nobody's failure."""
    make("web", restart={"policy": "always"})
    drain(hulld)
    drained(hulld)
    assert patch(hulld, {"restart": {"policy": "never"}}, "/v1/machines/web").status == 200
    assert hulld.get("/v1/host").json["held"] == 1
    hulld.post("/v1/host/undrain")
    assert hulld.wait("web", "running,failed")["state"] == "running"


def test_the_host_may_go_down_while_it_is_drained(hulld, make):
    make("web")
    drain(hulld)
    drained(hulld)
    hulld.kill(signal.SIGPWR)
    hulld.start()
    assert hulld.get("/v1/host").json["state"] == "drained" and hulld.machine("web")["state"] == "stopped"
    hulld.post("/v1/host/undrain")
    assert hulld.wait("web", "running,failed")["state"] == "running"


def test_a_machine_that_is_there_for_its_client_does_not_come_back(hulld, make):
    make("shell", started=False)
    assert hulld.post("/v1/machines/shell/start", {"attached": True}).status == 200
    hulld.wait("shell", "running,failed")
    hulld.restart()  # which does not forget it
    drain(hulld)
    assert drained(hulld)["held"] == 0


def test_many_machines_are_ended(hulld, make):
    """More than are ended in one round."""
    for i in range(10):
        make(f"web-{i}")
    drain(hulld)
    assert drained(hulld)["held"] == 10


def test_it_is_the_administrators_alone(hulld, make):
    token = hulld.post("/v1/tokens", {"scopes": ["read", "write", "exec", "admin"]}).json["token"]
    as_project = {"Authorization": f"Bearer {token}"}
    for method, path in (("GET", "/v1/host"), ("POST", "/v1/host/drain"), ("POST", "/v1/host/undrain")):
        answer = hulld.request(method, path, headers=as_project)
        assert (answer.status, answer.json["code"]) == (403, "forbidden"), answer
    after = cursor(hulld)
    drain(hulld)
    drained(hulld)
    seen = hulld.request("GET", f"/v1/events?after={after}", headers=as_project).json
    assert seen["items"] == [] and seen["cursor"] >= after + 2
    for body in ({"timeout_s": -1}, {"timeout_s": 86401}, {"time": 1}):
        assert hulld.post("/v1/host/drain", body).status == 400


def test_the_command_drains_and_waits(hulld, make):
    make("web")
    assert finished(hull(hulld, "host", "drain"))[0] == b"drained\n"
    assert hulld.machine("web")["state"] == "stopped"
    error = finished(hull(hulld, "start", "web"), 1)[1].decode()
    assert "the host is drained" in error and "undrained" in error
    assert json.loads(finished(hull(hulld, "host", "inspect"))[0])["held"] == 1
    assert finished(hull(hulld, "host", "undrain"))[0] == b"serving\n"
    hulld.wait("web", "running")
    pid = hulld.machine("web")["pid"]
    os.kill(pid, signal.SIGSTOP)
    draining = hull(hulld, "host", "drain", "-t", "600")
    wait_until(lambda: hulld.get("/v1/host").json["state"] == "draining", "it is asked to")
    assert finished(hull(hulld, "host", "drain", "--no-wait", "-o", "json"))[0].startswith(b"{")
    hulld.post("/v1/host/undrain")
    os.kill(pid, signal.SIGCONT)
    assert "somebody has undrained it" in finished(draining, 1)[1].decode()
