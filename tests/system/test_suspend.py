"""Machines that are suspended, and go on: what hulld does, step by step, and what fails of it. hulld and the agent are real, a machine is this host
(test_exec.py), and its monitor saves how often it was saved; test_suspend_kvm.py has machines that boot."""
import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3

import pytest

from free_ports import free_port
from hulld_fixtures import Connection, wait_until
from test_exec import start_alone
from test_hulld import processes_of
from test_hulld_crash import STAGES, ask, traced
from test_hulld_kvm import alive
from test_ports import gate_is
from test_idle import Machine, answers, connect, echo, says  # noqa: F401 (a fixture among them)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent is root")
SAVES = ["pause", "save"]
GOES_ON = ["restore", "clock", "reseed"]


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    daemon = start_alone(tmp_path_factory.mktemp("hulld"))
    yield daemon
    daemon.stop()


class Suspended(Machine):
    def __init__(self, hulld, name, *ports, idle=0, **spec):
        super().__init__(hulld, name, *ports, idle=idle, **spec)
        self.folder = hulld.state / "machines" / self.shown["id"]

    def ask(self, verb, status=200, **kwargs):
        answer = self.hulld.post(f"/v1/machines/{self.name}/{verb}", **kwargs)
        assert answer.status == status, answer
        return answer

    def waits(self, states):
        return self.hulld.wait(self.name, states)

    def goes(self, verb, state):
        self.ask(verb)
        assert (machine := self.waits(f"{state},failed"))["state"] == state, machine
        return machine

    def told(self, what):
        """The monitor, to fail, hang or die at what it is to do."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / what).touch()
        return self.folder / what

    @property
    def did(self):
        """What its monitors have done since this was asked last."""
        path = self.folder / "did"
        done = path.read_text().split() if path.exists() else []
        if path.exists():
            path.unlink()
        return done

    @property
    def saved(self):
        return sorted(os.listdir(self.folder / "suspended"))

    def operation(self, kind):
        return self.hulld.get(f"/v1/operations?machine={self.name}&kind={kind}").json["items"][-1]


@pytest.fixture
def make(hulld):
    names = []

    def made(name, *ports, **spec):
        names.append(name)
        return Suspended(hulld, name, *ports, **spec)

    yield made
    for name in names:
        hulld.delete(f"/v1/machines/{name}?force=1")


def test_it_is_saved_and_goes_on(hulld, make, echo):  # noqa: F811
    one = make("one", {"host": (port := free_port()), "guest": echo}).start()
    pid = one.shown["pid"]
    assert one.did == []
    assert (answer := one.ask("suspend")).json["state"] == "suspending" and answer.headers["Operation"] == answer.json["operation"]
    machine = one.waits("suspended,failed")
    assert (machine["state"], machine["pid"], machine["asleep"], machine["cause"]) == ("suspended", None, False, None)
    assert one.did == SAVES and one.saved == ["memory", "state"] and not alive(pid)
    gate_is(hulld, "closed")
    assert (one.folder / "suspended/memory").stat().st_mode & 0o777 == 0o600
    operation = one.operation("suspend")
    assert operation["state"] == "succeeded" and [phase["name"] for phase in operation["phases"]] == ["hook", "save"]
    assert operation["progress"] == {"done": 2, "total": 2, "unit": "phases"}
    assert one.ask("suspend").json["state"] == "suspended"
    assert hulld.get("/v1/machines?state=suspended").json["items"][0]["name"] == "one"
    assert 'state="suspended"} 1' in hulld.get("/metrics").body.decode()
    assert one.ask("resume").json["state"] == "resuming"
    machine = one.waits("running,failed")
    assert machine["state"] == "running" and machine["restarts"] == 0 and one.did == GOES_ON and one.saved == []
    assert [phase["name"] for phase in one.operation("resume")["phases"]] == ["monitor", "agent"]
    assert answers(port) and one.ask("resume").json["state"] == "running"
    one.goes("suspend", "suspended")
    assert (one.folder / "suspended/state").read_text() == "2\n"
    one.goes("start", "running")
    assert one.events() == ["starting", "running", *(2 * ["suspending", "suspended", "resuming", "running"])]


def test_what_cannot_be_suspended_is_refused(hulld, make, tmp_path):
    one = make("one")
    assert "is created" in one.ask("suspend", 409).json["detail"]
    refused = one.ask("resume", 409).json
    assert refused["code"] == "wrong_state" and "nothing of it was saved" in refused["detail"]
    one.start()
    assert one.ask("freeze").json["frozen"]
    assert one.ask("suspend", 409).json["detail"] == "machine one is frozen"
    one.ask("thaw")
    assert hulld.post("/v1/machines/none/suspend").status == 404
    assert hulld.post("/v1/machines/one/suspend", headers={"If-Match": '"other"'}).status == 412
    assert one.shown["state"] == "running" and one.did == []
    spec = {"image": "any", "command": ["any"], "idle": {"after_s": 1, "action": "suspend"}, "mounts": [{"host_path": str(tmp_path), "path": "/src"}]}
    refused = hulld.post("/v1/machines", spec)
    assert refused.status == 400 and refused.json["field"] == "idle.action", refused


def test_a_key_suspends_once(hulld, make):
    """Also a key with which one was asked that was under way: each names the operation again."""
    def suspend(key):
        return hulld.post("/v1/machines/one/suspend", headers={"Idempotency-Key": key})

    one = make("one").start()
    hold = one.told("hang-save")
    first, second = suspend("k1"), suspend("k2")
    hold.unlink()
    one.waits("suspended")
    one.goes("resume", "running")
    for key, answer in ("k1", first), ("k2", second):
        again = suspend(key)
        assert (again.status, again.body) == (answer.status, answer.body) and one.shown["state"] == "running"
        assert again.headers["Operation"] == answer.headers["Operation"] == first.json["operation"]


@pytest.mark.parametrize("what", ["pause", "save"])
def test_one_that_cannot_be_saved_runs_on(make, what):
    one = make("one").start()
    fault = one.told(f"fail-{what}")
    one.ask("suspend")
    machine = one.waits("running,failed")
    assert machine["state"] == "running" and machine["cause"] == {"code": "suspend_failed", "message": f"{what}: its monitor says: is told to fail"}
    operation = one.operation("suspend")
    assert operation["state"] == "failed" and "is told to fail" in operation["error"]["detail"]
    assert one.saved == [] and "resume" in one.did and not one.shown["frozen"]
    fault.unlink()
    one.goes("suspend", "suspended")
    assert one.shown["cause"] is None


def test_a_monitor_that_dies_as_it_saves_has_ended(make):
    one = make("one").start()
    one.told("die-save")
    one.ask("suspend")
    machine = one.waits("failed")
    assert machine["cause"]["code"] in ("suspend_failed", "monitor_died") and one.operation("suspend")["state"] == "failed"
    assert one.saved == []
    assert one.goes("start", "running")["cause"] is None


@pytest.mark.parametrize("at", ["pause", "save", "restore", "clock", "reseed"])
def test_one_that_resets_itself_meanwhile_starts_again(make, at):
    """As it does at any other time, whatever hulld sees first: the end of its monitor, or that this answers no more."""
    one = make("one").start()
    verb = "resume" if at in GOES_ON else "suspend"
    if verb == "resume":
        one.goes("suspend", "suspended")
    fault = one.told(f"reset-{at}")
    one.ask(verb)
    wait_until(lambda: one.shown["restarts"] or one.shown["state"] == "failed", "it starts again")
    fault.unlink()
    machine = one.waits("running,failed")
    assert (machine["state"], machine["restarts"], machine["cause"]["code"]) == ("running", 1, "reset"), machine
    assert one.operation(verb)["state"] == "failed" and one.saved == []
    one.goes("suspend", "suspended")


def test_what_cannot_be_restored_starts_anew(make):
    one = make("one", env={"A": "old"}).start()
    one.goes("suspend", "suspended")
    (one.folder / "suspended/state").write_text("damaged")
    one.patch('{"env": {"A": "new"}}')
    assert one.shown["pending"] == ["env"]
    machine = one.goes("resume", "running")
    assert machine["cause"] == {"code": "resume_failed", "message": "what was saved is damaged"} and machine["pending"] == [] and machine["restarts"] == 0
    assert one.saved == [] and one.operation("resume")["state"] == "succeeded"
    assert one.events() == ["starting", "running", "suspending", "suspended", "updated", "resuming", "starting", "running"]


@pytest.mark.parametrize("what", ["clock", "reseed"])
def test_one_in_which_not_all_is_made_right_starts_anew(make, what):
    one = make("one").start()
    one.goes("suspend", "suspended")
    fault = one.told(f"fail-{what}")
    machine = one.goes("resume", "running")
    assert machine["cause"]["code"] == "resume_failed" and what in machine["cause"]["message"], machine
    fault.unlink()


def test_it_keeps_what_it_had(make):
    one = make("one", env={"A": "old"}).start()
    one.goes("suspend", "suspended")
    one.patch('{"env": {"A": "new"}, "memory_mib": 128, "labels": {"a": "b"}}')
    assert one.shown["pending"] == ["memory_mib", "env"]
    assert one.goes("resume", "running")["pending"] == ["memory_mib", "env"]
    one.goes("suspend", "suspended")
    machine = one.goes("restart", "running")
    assert machine["pending"] == [] and one.saved == [] and one.did[-1] == "save"


@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_what_is_saved_is_thrown_away(make, verb):
    one = make("one").start()
    one.goes("suspend", "suspended")
    machine = one.ask(verb).json
    assert machine["state"] == "stopped" and machine["cause"]["code"] == "stopped" and one.saved == []
    assert one.operation(verb)["state"] == "succeeded"
    assert one.ask("resume", 409).json["hint"] == "start it"


def test_what_could_not_be_thrown_away_goes_when_hulld_starts(hulld, make):
    runs, stopped, suspended = make("runs").start(), make("rests").start(), make("kept").start()
    stopped.goes("kill", "stopped")
    suspended.goes("suspend", "suspended")
    hulld.kill()
    for one in (runs, stopped):
        (one.folder / "suspended").mkdir(exist_ok=True)
        for name in ("state", "memory"):
            (one.folder / "suspended" / name).write_text("left")
    hulld.start()
    assert runs.saved == stopped.saved == [] and runs.shown["state"] == "running"
    assert suspended.saved == ["memory", "state"]
    suspended.goes("resume", "running")


def test_it_is_deleted(hulld, make):
    one = make("one").start()
    one.goes("suspend", "suspended")
    assert hulld.delete("/v1/machines/one").status == 204 and not one.folder.exists()


@pytest.mark.parametrize("at", ["pause", "save"])
@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_it_is_ended_while_it_is_saved(make, at, verb):
    one = make("one", stop={"timeout_s": 1}).start()
    one.told(f"hang-{at}")
    one.ask("suspend")
    wait_until(lambda: at in (one.folder / "did").read_text().split() if (one.folder / "did").exists() else False, "it is at that")
    one.ask(verb)
    assert one.waits("stopped,failed")["state"] == "stopped" and one.saved == []
    assert one.operation("suspend")["state"] == "cancelled"


def test_one_has_more_time_while_others_are_saved_too(tmp_path):
    """They share a disk. Alone it would be killed 9 s after it began."""
    hulld = start_alone(tmp_path, HULL_START_TIMEOUT_S="5")
    try:
        one, large = Suspended(hulld, "one", memory_mib=64).start(), Suspended(hulld, "large", memory_mib=1024).start()
        holds = [machine.told("hang-save") for machine in (one, large)]
        one.ask("suspend")
        large.ask("suspend")
        assert hulld.get("/v1/machines/one/wait?state=failed&timeout_s=11").status == 408
        for hold in holds:
            hold.unlink()
        assert [machine.waits("suspended,failed")["state"] for machine in (one, large)] == ["suspended", "suspended"]
    finally:
        hulld.stop()


def test_who_wants_it_while_it_is_saved_gets_it_afterwards(make):
    one = make("one").start()
    hold = one.told("hang-save")
    one.ask("suspend")
    answer = one.ask("start")
    assert answer.json["state"] == "suspending" and answer.headers["Operation"]
    hold.unlink()
    wait_until(lambda: one.shown["state"] == "running", "it goes on")
    assert one.did == [*SAVES, *GOES_ON] and one.operation("resume")["state"] == "succeeded"
    assert one.operation("suspend")["state"] == "cancelled"


def test_who_wants_it_while_it_is_saved_gets_it_from_the_next_hulld(hulld, make):
    one = make("one").start()
    hold = one.told("hang-save")
    one.ask("suspend")
    one.ask("resume")
    hulld.kill(signal.SIGKILL)
    hold.unlink()
    hulld.start()
    wait_until(lambda: one.shown["state"] == "running" and not one.shown["operation"], "it goes on")
    assert one.operation("resume")["state"] == "succeeded" and one.saved == []
    one.goes("suspend", "suspended")
    hulld.kill(signal.SIGKILL)
    with contextlib.closing(sqlite3.connect(hulld.state / "hull.db")) as rows:
        rows.execute("UPDATE machines SET restart_wanted = 1 WHERE name = 'one'")  # as right before its resume began
        rows.commit()
    hulld.start()
    assert one.waits("running")["cause"] is None


def test_a_quota_is_asked_for_its_memory(hulld):
    assert hulld.post("/v1/projects", {"name": "small", "quotas": {"disk_mib": 200}}).status == 201
    digest = hulld.get("/v1/images/any").json["rootfs"]
    inside = {"Hull-Project": "small"}
    content = (hulld.state / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()
    assert hulld.request("PUT", f"/v1/blobs/{digest}", content, headers=inside).status in (200, 201)
    assert hulld.post("/v1/images", {"name": "any", "rootfs": digest, "config": {}}, headers=inside).status == 201
    spec = {"name": "one", "image": "any", "command": ["any"], "network": "none", "disk_mib": 16, "memory_mib": 256}
    assert hulld.post("/v1/machines", spec, headers=inside).status == 201

    def goes(verb, state):
        assert (answer := hulld.post(f"/v1/machines/one/{verb}", headers=inside)).status == 200, answer
        wait_until(lambda: (shown := hulld.get("/v1/machines/one", headers=inside).json)["state"] == state and not shown["operation"], f"it is {state}")

    def usage():
        return hulld.get("/v1/projects/small").json["usage"]["disk_mib"]

    goes("start", "running")
    refused = hulld.post("/v1/machines/one/suspend", headers=inside)
    assert (refused.status, refused.json["code"], refused.json["field"]) == (409, "quota_exceeded", "memory_mib"), refused
    used = usage()
    assert hulld.request("PUT", "/v1/projects/small/quotas", {"disk_mib": used + 256}).status == 200
    for _ in range(2):  # what it goes on from has its room on the disk until its monitor ends, and no more is asked for when it is saved again
        goes("suspend", "suspended")
        assert usage() == used + 256
        goes("resume", "running")
        hulld.restart()
        assert usage() == used + 256
    goes("restart", "running")
    assert usage() == used
    hulld.restart()
    assert usage() == used
    assert hulld.request("DELETE", "/v1/machines/one?force=1", headers=inside).status == 204
    assert hulld.delete("/v1/projects/small").status == 204


def test_its_volume_stays_its_own(hulld, make):
    assert hulld.post("/v1/volumes", {"name": "data", "size_mib": 16}).status == 201
    mounts = [{"volume": "data", "path": "/data"}]
    one, other = make("one", mounts=mounts).start(), make("other", mounts=mounts)
    one.goes("suspend", "suspended")
    assert hulld.get("/v1/volumes/data").json["state"] == "attached"
    assert other.ask("start", 409).json["code"] == "volume_in_use"
    one.goes("resume", "running")
    one.goes("suspend", "suspended")
    one.ask("stop")
    other.start()
    hulld.delete("/v1/machines/one?force=1")
    hulld.delete("/v1/machines/other?force=1")
    assert hulld.delete("/v1/volumes/data").status == 204


def test_a_freeze_that_is_answered_late_freezes_nobody(hulld, make):
    """It was asked for while the machine ran, and is answered by one that is being saved: what goes on later is not frozen."""
    one = make("one").start()
    pid = one.shown["pid"]
    os.kill(pid, signal.SIGSTOP)
    freeze = Connection(hulld.socket)
    freeze.request("POST", "/v1/machines/one/freeze")
    one.ask("suspend")
    os.kill(pid, signal.SIGCONT)
    answer = freeze.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (409, "wrong_state")
    one.waits("suspended")
    assert not one.shown["frozen"]
    one.goes("resume", "running")
    assert not one.shown["frozen"] and "frozen" not in one.events()
    one.goes("suspend", "suspended")


def test_a_drain_leaves_it_alone_and_lets_a_save_be_done(hulld, make):
    one, two = make("one").start(), make("two").start()
    one.goes("suspend", "suspended")
    hold = two.told("hang-save")
    two.ask("suspend")
    assert hulld.post("/v1/host/drain").status == 200
    for verb in "resume", "restart":
        assert one.ask(verb, 409).json["code"] == "host_draining" and one.saved == ["memory", "state"]
    hold.unlink()
    wait_until(lambda: hulld.get("/v1/host").json["state"] == "drained", "it is drained")
    assert hulld.post("/v1/host/undrain").status == 200
    assert (one.shown["state"], two.shown["state"]) == ("suspended", "suspended")
    two.goes("resume", "running")


def test_idle_it_is_suspended_and_who_comes_has_it_resumed(hulld, make, echo):  # noqa: F811
    web = make("web", {"host": (port := free_port()), "guest": echo}, idle=1, action="suspend").start()
    machine = web.waits("asleep")
    assert (machine["state"], machine["asleep"], machine["cause"]["code"]) == ("suspended", True, "idle")
    with connect(port) as client:
        assert says(client) == b"hello"
        assert web.shown["state"] == "running" and not web.shown["asleep"]
    web.waits("asleep")
    assert web.events() == ["starting", "running", "suspending", "suspended", "asleep", "waking", "resuming", "running", "suspending", "suspended", "asleep"]
    assert web.did == [*SAVES, *GOES_ON, *SAVES]
    web.ask("stop")
    assert web.shown["state"] == "stopped" and not web.shown["asleep"]


def test_who_suspends_what_somebody_has_just_woken_has_it_suspended(make, echo):  # noqa: F811
    """And not asleep: whoever waits has been told of to hulld already, and would wait for nothing."""
    web = make("web", {"host": (port := free_port()), "guest": echo}, idle=1, action="suspend")
    hold = web.told("hang-save")
    web.start()
    asleep = web.waits("suspending")["operation"]
    with connect(port):
        wait_until(lambda: web.ask("suspend").json["operation"] != asleep, "it was woken, and is suspended all the same")
        hold.unlink()
        machine = web.waits("suspended")
    assert not machine["asleep"] and machine["cause"] is None
    assert web.did == SAVES


def test_what_it_depends_on_is_woken_with_it(make, echo):  # noqa: F811
    base = make("base", idle=1, action="suspend").start()
    web = make("web", {"host": (port := free_port()), "guest": echo}, idle=1, action="suspend", depends_on=[{"machine": "base"}]).start()
    for machine in web, base:
        assert machine.waits("asleep")["state"] == "suspended"
    with connect(port) as client:
        assert says(client) == b"hello"
        assert base.waits("running,failed")["state"] == "running"


def test_an_idle_one_that_cannot_be_saved_is_left_alone_for_longer_each_time(make, echo):  # noqa: F811
    web = make("web", {"host": (port := free_port()), "guest": echo}, idle=1, action="suspend")
    web.told("fail-save")
    web.start()
    wait_until(lambda: "suspend_failed" in web.events(), "it was tried")
    assert answers(port) and web.waits("running")["state"] == "running"
    assert web.hulld.get("/v1/machines/web/wait?state=suspending,asleep&timeout_s=4").status == 408
    assert web.events().count("suspending") == 1
    web.patch('{"idle": {"action": "stop"}}')  # which has not failed
    assert web.hulld.get("/v1/machines/web/wait?state=asleep&timeout_s=5").status == 200


@pytest.mark.parametrize("at", ["pause", "save", "restore", "clock", "reseed"])
def test_a_crash_of_hulld_in_the_middle_loses_nothing(hulld, make, at):
    """Its save goes on, and so does what it is restored by, in which each step may come again."""
    one = make("one").start()
    pid = one.shown["pid"]
    if at in GOES_ON:
        one.goes("suspend", "suspended")
        one.did  # noqa: B018 (is read)
    hold = one.told(f"hang-{at}")
    one.ask("resume" if at in GOES_ON else "suspend")
    wait_until(lambda: (one.folder / "did").exists() and at in (one.folder / "did").read_text().split(), "it is at that")
    hulld.kill(signal.SIGKILL)
    hold.unlink()
    hulld.start()
    state = "running" if at in GOES_ON else "suspended"
    assert one.waits(f"{state},failed")["state"] == state
    done = one.did
    if at in GOES_ON:
        assert done.count("restore") == 1 and done[-1] == "reseed" and one.saved == [], done
        assert one.operation("resume")["state"] == "succeeded"
    else:
        assert one.saved == ["memory", "state"] and not alive(pid) and one.operation("suspend")["state"] == "succeeded"
        one.goes("resume", "running")


@pytest.mark.parametrize("wanted", [False, True])
def test_a_save_that_the_next_hulld_finds_under_way_is_done_once(hulld, make, wanted):
    """Also where somebody has asked for a resume, and the operation in whose phase it was is over: a guest that is paused answers nobody."""
    one = make("one").start()
    hold = one.told("hang-save")
    one.ask("suspend")
    wait_until(lambda: (one.folder / "did").exists() and "save" in (one.folder / "did").read_text().split(), "it saves")
    if wanted:
        one.ask("resume")
    hulld.kill(signal.SIGKILL)
    hulld.start()
    assert one.shown["state"] == "suspending"
    hold.unlink()
    wait_until(lambda: one.shown["state"] == ("running" if wanted else "suspended") and not one.shown["operation"], "it is done")
    assert one.did == [*SAVES, "pause", *(GOES_ON if wanted else [])] and one.shown["cause"] is None


@pytest.mark.parametrize("run_folder", ["is as it was", "is empty"])
def test_what_was_restored_once_is_never_restored_again(hulld, make, run_folder):
    """hulld dies with the monitor that had begun: the machine starts anew. In a container, say, that may be all that runs, and what it had in
    memory, though the host has not booted."""
    one = make("one").start()
    one.goes("suspend", "suspended")
    kept = {name: (one.folder / "suspended" / name).read_bytes() for name in one.saved}
    one.told("hang-clock")
    one.ask("resume")
    wait_until(lambda: "clock" in (one.folder / "did").read_text().split(), "it is at that")
    pid = one.shown["pid"]
    hulld.kill(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    for name, data in kept.items():
        (one.folder / "suspended" / name).write_bytes(data)  # as if nothing of its removal were on the disk
    (one.folder / "hang-clock").unlink()
    if run_folder == "is empty":
        shutil.rmtree(hulld.run / "machines")
    hulld.start()
    machine = one.waits("running")
    assert machine["cause"]["code"] == "resume_failed" and one.did.count("restore") == 1 and one.saved == []


def test_a_monitor_that_ends_while_nobody_looks_is_found_saved_or_ended(hulld, make):
    one, two = make("one").start(), make("two").start()
    for machine, what in (one, "hang-save"), (two, "hang-save"):
        machine.told(what)
        machine.ask("suspend")
        wait_until(lambda machine=machine: (machine.folder / "did").exists() and "save" in (machine.folder / "did").read_text(), "it saves")
    pids = [machine.shown["pid"] for machine in (one, two)]
    hulld.kill(signal.SIGKILL)
    (one.folder / "hang-save").unlink()
    wait_until(lambda: one.saved == ["memory", "state"], "it has saved")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    hulld.start()
    assert one.waits("suspended,failed")["state"] == "suspended" and two.waits("suspended,failed")["state"] == "failed"
    assert two.saved == [] and two.shown["cause"]["code"] == "monitor_died"
    one.goes("resume", "running")


def made_calls(hulld, one, verb, state):
    """The system calls that hulld makes while it does it."""
    trace = hulld.folder / "trace"
    with traced(hulld, "-o", trace):
        one.goes(verb, state)
    return re.findall(r"^(\w+)\(", trace.read_text(), re.M)[1:]


def settled(one):
    """What has become of it, once nothing is under way."""
    machine = one.waits("running,suspended,failed,stopped")
    wait_until(lambda: not one.shown["operation"], "nothing is under way")
    return one.shown["state"], machine


@pytest.mark.parametrize("verb, before, after", [("suspend", "running", "suspended"), ("resume", "suspended", "running")])
def test_hulld_killed_at_any_instant_leaves_one_machine_that_goes_on(hulld, make, verb, before, after):
    """It runs, or is suspended and can be resumed; never both, and never twice from what was saved once."""
    one = make("one").start()
    if before == "suspended":
        one.goes("suspend", "suspended")
    calls, died = made_calls(hulld, one, verb, after), 0
    for point in sorted({number * len(calls) // STAGES for number in range(STAGES)}):
        if one.shown["state"] != before:
            one.goes("resume" if before == "running" else "suspend", before)
        one.did  # noqa: B018 (is read)
        name, nth = calls[point], calls[:point + 1].count(calls[point])
        with traced(hulld, "-o", "/dev/null", "-e", "trace=all", "-e", f"inject={name}:signal=SIGKILL:when={nth}"):
            answer = ask(hulld, "POST", f"/v1/machines/one/{verb}")
            wait_until(lambda: hulld.process.poll() is not None or is_over(hulld, one, after), "it is done, or cut short")
            ask(hulld, "GET", f"/v1/machines/one/wait?state={after},failed&timeout_s=20")  # of which there is something left for hulld
        died += hulld.process.poll() is not None
        hulld.restart()
        state, machine = settled(one)
        where = f"killed at {name} {nth}, call {point} of {len(calls)}: answered {answer}, found {state}, did {one.did}"
        assert state == after or (state == before and answer is None), where
        assert machine["cause"] is None, where
        assert (one.saved == ["memory", "state"]) == (state == "suspended"), where
        assert len(monitors_of(hulld, one)) == (state == "running"), where
    assert died >= STAGES / 4, died  # else this tested nothing


def is_over(hulld, one, state):
    """Seen without asking hulld."""
    return one.saved == ["memory", "state"] and not monitors_of(hulld, one) if state == "suspended" else one.saved == []


def monitors_of(hulld, one):
    """The processes that are monitors of it and alive."""
    return [pid for pid, words in processes_of(hulld).items() if one.folder.name.encode() in words and alive(pid)]
