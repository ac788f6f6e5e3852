"""Programs executed in a real machine (test_exec.py has what needs none)."""
import json
import re
import subprocess

import pytest

from conftest import BUILD
from hulld_fixtures import Hulld, make_erofs, wait_until
from test_exec import STDOUT, Stream, execute, many_at_once, ran

pytestmark = pytest.mark.kvm
BOOT = 180  # seconds: an emulated host boots slowly
PASSWD = "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hulld")
    daemon = Hulld(folder, env={"HULL_START_TIMEOUT_S": str(BOOT)}).start()
    daemon.image("busybox", make_erofs(folder, {"etc/passwd": PASSWD}), env={"WHO": "image", "AND": "image"})
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def box(hulld):
    answer = hulld.post("/v1/machines", {"name": "box", "image": "busybox", "command": ["/bin/sleep", "100000"],
                                         "network": "none", "disk_mib": 64, "env": {"AND": "machine"}})
    assert answer.status == 201, answer
    hulld.post("/v1/machines/box/start")
    machine = hulld.wait("box", "running,failed", BOOT)
    assert machine["state"] == "running", machine
    return "box"


def count(hulld, name, marker):
    script = f"n=0; for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q '{marker}' && n=$((n+1)); done; echo $n"
    return int(ran(execute(hulld, name, "sh", "-c", script))[0])


def test_a_program_has_the_machines_users_environment_and_files(hulld, box):
    out, err = ran(execute(hulld, box, "sh", "-c", "echo $WHO $AND $HOME; id -un; pwd; hostname; exit 7", user="app", workdir="/srv"), 7)
    assert (out, err) == ("image machine /home/app\napp\n/srv\nbox\n", "")


def test_all_that_a_client_started_ends_with_it(hulld, box):
    """In the cgroup, out of its session too."""
    stream = Stream(hulld, box, "sh", "-c", "setsid sleep 77777 & sleep 77777 & echo go; wait").switch()
    assert stream.next() == (STDOUT, b"go\n")
    wait_until(lambda: count(hulld, box, "^sleep 7777[7]") == 2, "both run")
    stream.sock.close()
    wait_until(lambda: count(hulld, box, "^sleep 7777[7]") == 0, "both have ended")
    # Their cgroups are gone; that of the asking shell is there.
    assert ran(execute(hulld, box, "sh", "-c", "ls -d /sys/fs/cgroup/hull.exec/*/ | wc -l"))[0] == "1\n"


def test_many_at_once_lose_nothing(hulld, box):
    many_at_once(hulld, box, 24)  # test_exec.py has two hundred


# The workload, executed.

def test_a_workload_waits_for_who_executes_it(hulld):
    """A machine that is started attached; whose next start is like any."""
    def start(body=None):
        return hulld.post("/v1/machines/job/start", body)

    def wait(states):
        return hulld.wait("job", states, BOOT)

    script = "echo out; echo err >&2; cat; id -un; exit 7"
    assert hulld.post("/v1/machines", {"name": "job", "image": "busybox", "command": ["sh", "-c", script], "user": "app",
                                       "network": "none", "disk_mib": 64}).status == 201
    assert start({"attached": True}).status == 200
    assert wait("running,failed")["state"] == "running"
    answer = start({"attached": True})
    assert (answer.status, answer.json["detail"]) == (409, "machine job is running: its workload waits for nobody")
    for spec, field in (({}, "command"), ({"workload": True, "command": ["true"]}, "workload"), ({"workload": True, "user": "root"}, "user")):
        answer = hulld.post("/v1/machines/job/exec", spec)
        assert (answer.status, answer.json["field"]) == (400, field), answer.json
    assert ran(execute(hulld, "job", "echo", "beside"))[0] == "beside\n"
    out, err = ran(hulld.post("/v1/machines/job/exec", {"workload": True}), 7)
    assert (out, err) == ("out\napp\n", "err\n")
    machine = wait("stopped,failed")
    assert (machine["state"], machine["exit_status"]) == ("stopped", 7)
    assert "cannot be killed" not in hulld.get("/v1/machines/job/logs?source=console").body.decode(), "nothing was left to wait for"
    assert sorted(hulld.get("/v1/machines/job/logs").body.decode().split()) == ["app", "err", "out"]
    # One that nobody has executed yet is stopped without a word.
    start({"attached": True})
    wait("running,failed")
    hulld.post("/v1/machines/job/stop")
    machine = wait("stopped,failed")
    assert (machine["state"], machine["exit_status"]) == ("stopped", 125)
    start()
    assert wait("stopped,failed")["exit_status"] == 7
    answer = hulld.post("/v1/machines/job/exec", {"workload": True})
    assert answer.status == 409
    hulld.delete("/v1/machines/job")


def test_a_workload_that_runs_is_not_executed_again(hulld, box):
    answer = hulld.post(f"/v1/machines/{box}/exec", {"workload": True})
    assert (answer.status, answer.json["field"], answer.json["detail"]) == (400, "workload", "does not wait to be executed")


# The agent among hostile neighbours.

def test_a_workload_that_memory_was_too_little_for_is_said_to_be(hulld):
    assert hulld.post("/v1/machines", {"name": "eater", "image": "busybox", "command": ["tail", "/dev/zero"], "memory_mib": 128,
                                       "network": "none", "disk_mib": 64}).status == 201
    hulld.post("/v1/machines/eater/start")
    machine = hulld.wait("eater", "stopped,failed", BOOT)
    assert (machine["state"], machine["exit_status"]) == ("stopped", 137)
    assert machine["cause"] == {"code": "poweroff", "message": "the workload was killed: out of memory"}
    hulld.delete("/v1/machines/eater")


SUICIDAL = """trap 'echo told; exit 3' TERM
cat /dev/zero > /fill; echo filled $?; rm /fill
tail /dev/zero; echo ate $?
b() { while :; do b & setsid sh -c 'while :; do :; done' & done; }
b & while :; do wait; done"""


def test_the_agent_outlives_what_a_workload_does(hulld):
    """The machine's own program: it fills the disk, and the memory, then multiplies without end, each in a session of its own."""
    assert hulld.post("/v1/machines", {"name": "suicidal", "image": "busybox", "command": ["sh", "-c", SUICIDAL],
                                       "network": "none", "disk_mib": 64}).status == 201
    hulld.post("/v1/machines/suicidal/start")

    def is_full():
        workload = hulld.get("/v1/machines/suicidal/stats").json.get("guest", {}).get("workload", {})
        return workload.get("tasks", 0) >= workload.get("tasks_max", 1 << 30) - 8

    wait_until(is_full, "it multiplies", 2 * BOOT)
    guest = stats(hulld, "suicidal")
    assert guest["workload"]["oom_kills"] > 0, guest
    assert ran(execute(hulld, "suicidal", "echo", "fine", timeout=BOOT))[0] == "fine\n"
    log = hulld.get("/v1/machines/suicidal/logs").body.decode()
    assert "filled 1" in log and "ate 137" in log, log
    hulld.post("/v1/machines/suicidal/stop", {"timeout_s": BOOT})
    machine = hulld.wait("suicidal", "stopped,failed", BOOT)
    assert (machine["state"], machine["exit_status"]) == ("stopped", 3), machine
    hulld.delete("/v1/machines/suicidal")


def stats(hulld, name):
    """The machine's own, which must be there."""
    answer = hulld.get(f"/v1/machines/{name}/stats")
    assert answer.status == 200 and "guest" in answer.json, answer
    return answer.json["guest"]


def test_a_machine_says_what_it_uses(hulld, box):
    before = hulld.get(f"/v1/machines/{box}/stats").json
    assert before["memory_limit_bytes"] == 256 << 20 and before["cpus"] == 1
    assert all(before["host"][key] > 0 for key in ("cpu_us", "threads", "rss_bytes", "pss_bytes")), before
    guest = before["guest"]
    assert 0 < guest["memory_available_bytes"] < guest["memory_total_bytes"] < 256 << 20
    assert guest["workload"]["tasks"] == 1 and guest["workload"]["memory_bytes"] > 0 and guest["memory_pressure"]["some_us"] >= 0
    assert [fs["path"] for fs in guest["filesystems"]][0] == "/" and guest["interfaces"] == []
    assert {disk["name"] for disk in guest["disks"]} == {"vda", "vdb"}
    ran(execute(hulld, box, "sh", "-c", "head -c 3000000 /dev/zero > /three; sync; cat /three | wc -c; rm /three"))
    after = stats(hulld, box)
    assert sum(d["written_bytes"] for d in after["disks"]) >= sum(d["written_bytes"] for d in guest["disks"]) + 3000000
    assert after["executed"]["cpu_us"] > 0 and after["uptime_ms"] > guest["uptime_ms"]
    # The command line's view of it.
    command = [BUILD / "hull", "--host", f"unix://{hulld.socket}", "top"]
    header, row = subprocess.run([*command, "--once"], check=True, capture_output=True, text=True, timeout=BOOT).stdout.splitlines()
    assert header.split()[:3] == ["NAME", "CPU", "%"] and re.match(r"box +\d+\.\d +\d+(\.\d)? MiB +256 MiB ", row), row
    shown = json.loads(subprocess.run([*command, "-o", "json", box], check=True, capture_output=True, timeout=BOOT).stdout)
    assert [machine["name"] for machine in shown] == ["box"] and shown[0]["guest"]["uptime_ms"] > after["uptime_ms"]
    assert hulld.get("/v1/machines/none/stats").status == 404


def test_the_agent_outlives_what_a_guest_does_to_itself(hulld, box):
    # A full disk.
    assert ran(execute(hulld, box, "sh", "-c", "cat /dev/zero > /fill; echo $?"))[0] == "1\n"
    assert stats(hulld, box)["filesystems"][0]["free_bytes"] < 1 << 20
    assert ran(execute(hulld, box, "sh", "-c", "echo x > /more; rm /fill; echo fine"))[0] == "fine\n"
    # Memory.
    kills = stats(hulld, box)["executed"]["oom_kills"]
    ran(execute(hulld, box, "sh", "-c", "tail /dev/zero"), 137)
    assert stats(hulld, box)["executed"]["oom_kills"] > kills
    assert ran(execute(hulld, box, "echo", "fine"))[0] == "fine\n"
    # Processes. While they multiply, others are executed, and the machine is told to end.
    bomb = Stream(hulld, box, "sh", "-c", "b() { b | b & }; b; sleep 100000").switch()

    def is_full():
        executed = stats(hulld, box)["executed"]
        return executed["tasks"] > executed["tasks_max"] / 3  # one program's share is two thirds

    wait_until(is_full, "they multiply", BOOT)
    for _ in range(3):
        assert ran(execute(hulld, box, "echo", "fine", timeout=BOOT))[0] == "fine\n"
        stats(hulld, box)
    hulld.post(f"/v1/machines/{box}/stop", {"timeout_s": BOOT})
    machine = hulld.wait(box, "stopped,failed", BOOT)
    assert (machine["state"], machine["exit_status"]) == ("stopped", 143)
    bomb.sock.close()
    answer = hulld.get(f"/v1/machines/{box}/stats")
    assert (answer.status, answer.json["code"]) == (409, "wrong_state")
