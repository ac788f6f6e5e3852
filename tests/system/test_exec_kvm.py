"""Programs executed in a real machine (test_exec.py has what needs none)."""
import pytest

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

def test_the_agent_outlives_what_a_guest_does_to_itself(hulld, box):
    # A full disk.
    assert ran(execute(hulld, box, "sh", "-c", "cat /dev/zero > /fill; echo $?"))[0] == "1\n"
    assert ran(execute(hulld, box, "sh", "-c", "echo x > /more; rm /fill; echo fine"))[0] == "fine\n"
    # Memory.
    ran(execute(hulld, box, "sh", "-c", "tail /dev/zero"), 137)
    assert ran(execute(hulld, box, "echo", "fine"))[0] == "fine\n"
    # Processes. While they multiply the agent hears: it ends them all when their client leaves.
    bomb = Stream(hulld, box, "sh", "-c", "b() { b | b & }; b; sleep 100000").switch()

    def asked():
        try:
            return execute(hulld, box, "true", timeout=5)
        except TimeoutError:
            return None

    def is_full(answer):
        return answer is None or answer.status == 409 and "Resource temporarily unavailable" in answer.json["detail"]

    answers = []
    wait_until(lambda: answers.append(asked()) or is_full(answers[-1]) or len(answers) > 100, "it is full", BOOT)
    bomb.sock.close()
    wait_until(lambda: getattr(asked(), "status", None) == 200, "all have ended", BOOT)
