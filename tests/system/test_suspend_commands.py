"""hull suspend, resume, and what else it says of suspended machines; and what strangers, many at once, and a monitor that says nothing come to. A machine is
this host, as in test_suspend.py."""
import json
import os
import re
import time

import pytest

from hulld_fixtures import wait_until
from test_exec import finished, hull, start_alone
from test_orders import seconds
from test_suspend import Suspended, monitors_of
from test_tenants import In

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent is root")
MANIFEST = "name: box\nimage: any\ncommand: [any]\nnetwork: none\ndisk_mib: 16\nidle: {after_s: 60, action: suspend}\n"


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    daemon = start_alone(tmp_path_factory.mktemp("hulld"))
    yield daemon
    daemon.stop()


@pytest.fixture
def make(hulld):
    names = []

    def made(name, **spec):
        names.append(name)
        return Suspended(hulld, name, **spec).start()

    yield made
    for name in names:
        hulld.delete(f"/v1/machines/{name}?force=1")


def said(hulld, *words, env=None):
    out, err, status = finished(hull(hulld, *words, env=env))
    return out.decode(), err.decode(), status


def test_it_waits_until_it_is_so(hulld, make):
    box = make("box")
    assert said(hulld, "suspend", "box") == ("box\n", "", 0) and box.shown["state"] == "suspended"
    assert said(hulld, "suspend", "-q", "box") == (f"{box.shown['id']}\n", "", 0)
    assert re.search(r"^box .* suspended ", said(hulld, "ps")[0], re.M)
    assert re.search(r"^box .* suspended ", said(hulld, "ps", "-f", "state=suspended")[0], re.M)
    machine, = json.loads(said(hulld, "machine", "resume", "-o", "json", "box")[0])
    assert (machine["id"], machine["state"]) == (box.shown["id"], "running")
    assert said(hulld, "start", "box") == ("box\n", "", 0)
    out, err, status = said(hulld, "machine", "suspend", "box", "nobody")
    assert (out, status) == ("box\n", 1) and err.startswith("hull: nobody: "), err
    assert said(hulld, "start", "box") == ("box\n", "", 0) and box.operation("resume")["state"] == "succeeded"


def test_what_does_not_come_of_it_is_said(hulld, make):
    box = make("box")
    fault = box.told("fail-save")
    assert said(hulld, "suspend", "box") == \
        ("", "hull: box: it was not suspended: save: its monitor says: is told to fail\n      `hull events -m box` has what has happened\n", 1)
    fault.unlink()
    assert "is told to fail" in said(hulld, "events", "-m", "box", "--since", "1h")[0]
    assert said(hulld, "suspend", "box")[2] == 0
    (box.folder / "suspended/state").write_text("damaged")
    anew = "hull: box: it was started anew, as it could not be resumed: what was saved is damaged\n"
    assert [said(hulld, "resume", "box") for _ in range(2)] == [("box\n", anew, 0), ("box\n", "", 0)]  # then it is no news
    assert said(hulld, "freeze", "box")[2] == 0
    assert said(hulld, "suspend", "box") == ("", "hull: machine box is frozen\n      `hull thaw box` first\n", 1)
    assert said(hulld, "stop", "box")[2] == 0
    assert said(hulld, "suspend", "box") == ("", "hull: machine box is stopped\n      `hull start box` first\n", 1)
    assert said(hulld, "resume", "box") == ("", "hull: machine box is stopped, and nothing of it was saved\n      `hull start box` first\n", 1)


def test_one_that_cannot_be_resumed_now_stays_suspended(hulld, make):
    box = make("box")
    box.goes("suspend", "suspended")
    log = box.folder / "vmm.log"
    log.rename(box.folder / "away")
    log.mkdir()
    for verb in "resume", "start":
        out, err, status = said(hulld, verb, "box")
        assert (out, status) == ("", 1) and err.startswith("hull: box: it was not resumed: cannot open the machine's logs"), err
        assert box.shown["state"] == "suspended" and box.saved == ["memory", "state"]
    log.rmdir()
    (box.folder / "away").rename(log)
    assert said(hulld, "resume", "box") == ("box\n", "", 0)
    hold = box.told("hang-save")
    box.ask("suspend")
    hold.unlink()
    assert said(hulld, "resume", "box") == ("box\n", "", 0) and box.shown["state"] == "running"


def test_who_asks_something_of_one_that_is_suspended_is_told_what_to_do(hulld, make):
    box = make("box")
    box.goes("suspend", "suspended")
    for words in (["exec", "box", "true"], ["cp", "box:/etc/hostname", "/tmp"], ["freeze", "box"]):
        out, err, status = said(hulld, *words)
        assert status and err == "hull: machine box is suspended\n      `hull resume box` first\n", (words, err)
    assert said(hulld, "update", "box", "-e", "A=b") == \
        ("box\n", "hull: box: env: at its next start\n      `hull restart box` starts it again, and loses what was suspended\n", 0)


def test_how_long_nobody_uses_it_and_what_then(hulld, make):
    box = make("box", **{"idle": 7200})
    for words, idle in (("2h:suspend", (7200, "suspend")), ("1h", (3600, "suspend")), ("60s:stop", (60, "stop"))):
        assert said(hulld, "update", "box", "--idle", words)[2] == 0 and tuple(box.shown["idle"].values()) == idle
    out, err, status = said(hulld, "update", "box", "--idle", "1h:nap")
    assert status == 1 and err.startswith("hull: idle.action: must be one of stop, suspend"), err
    out, err, status = said(hulld, "update", "box", "--idle", "nap:suspend")
    assert status == 2 and "for example --idle 5m, or --idle 5m:suspend" in err, err
    assert said(hulld, "update", "box", "--idle", "1:suspend")[2] == 0
    assert hulld.wait("box", "asleep")["state"] == "suspended"
    assert re.search(r"^box .* asleep \(suspended\) ", said(hulld, "ps")[0], re.M)


def test_files_say_so_too(hulld, make, tmp_path):
    box = make("box", idle=3600)
    manifest = tmp_path / "box.yaml"
    manifest.write_text(MANIFEST)
    out, err, status = said(hulld, "diff", "-f", str(manifest))
    assert status == 1 and "action" in out and "suspend" in out, (out, err)
    box.goes("suspend", "suspended")
    out, err, status = said(hulld, "apply", "-y", "-f", str(manifest))
    assert status == 0 and "box: changed, suspended, as it was: `hull resume box`\n" in out, (out, err)
    assert box.shown["idle"] == {"after_s": 60, "action": "suspend"} and said(hulld, "diff", "-f", str(manifest))[2] == 0
    assert "suspended, as it was" in said(hulld, "apply", "-y", "--wait", "-f", str(manifest))[0], "it waits for nothing"
    manifest.write_text(MANIFEST + "env: {A: b}\n")
    assert "box: changed, at its next start, or with --restart: env\n" in said(hulld, "apply", "-y", "-f", str(manifest))[0]
    out, err, status = said(hulld, "apply", "-y", "--restart", "--wait", "-f", str(manifest))
    assert status == 0 and "started again" in out and "box: running\n" in out and box.shown["pending"] == [], (out, err)


def test_of_another_project_it_is_not_there(hulld, make):
    box = make("box")
    assert hulld.post("/v1/projects", {"name": "other"}).status == 201
    other = In(hulld, "other")
    for state, verb in ("running", "suspend"), ("suspended", "resume"):
        none = other.post(f"/v1/machines/none/{verb}")
        for name in "box", box.shown["id"]:
            answer = other.post(f"/v1/machines/{name}/{verb}")
            assert answer.status == none.status == 404 and answer.body == none.body.replace(b"none", name.encode()), answer
        assert box.shown["state"] == state
        box.goes("suspend", "suspended")
    assert hulld.delete("/v1/projects/other").status == 204


def test_what_sees_a_folder_of_the_host_is_refused(tmp_path):
    (tmp_path / "seen").mkdir()
    daemon = start_alone(tmp_path, "--mount-allow", tmp_path)
    try:
        box = Suspended(daemon, "box", mounts=[{"host_path": str(tmp_path / "seen"), "path": "/seen"}]).start()
        refused = box.ask("suspend", 409).json
        assert (refused["code"], refused["field"]) == ("unsupported", "mounts") and box.did == [] and box.shown["state"] == "running", refused
    finally:
        daemon.stop()


def test_a_monitor_that_never_answers_holds_nobody(tmp_path):
    daemon = start_alone(tmp_path, HULL_START_TIMEOUT_S="3")
    try:
        box = Suspended(daemon, "box", memory_mib=64).start()
        hold = box.told("hang-save")
        began = time.monotonic()
        box.ask("suspend")
        assert daemon.get("/v1/machines").status == 200 and time.monotonic() - began < 2
        machine = daemon.wait("box", "running,failed,stopped,suspended", 30)
        assert machine["state"] == "failed" and machine["cause"] == {"code": "suspend_timeout", "message": "it was not saved in time"}, machine
        assert box.saved == [] and not monitors_of(daemon, box) and 3 < time.monotonic() - began < 20
        assert box.operation("suspend")["error"]["detail"] == "suspend_timeout: it was not saved in time"
        hold.unlink()
        box.start().goes("suspend", "suspended")
    finally:
        daemon.stop()


def test_twenty_at_once_hold_nobody(hulld, make):
    boxes = [make(f"box{i}") for i in range(20)]
    took = []
    for verb, state in (("suspend", "suspended"), ("resume", "running")):
        for box in boxes:
            began = time.monotonic()
            box.ask(verb)
            took.append(time.monotonic() - began)
        for box in boxes:
            assert box.waits(f"{state},failed")["state"] == state
            wait_until(lambda box=box: len(monitors_of(hulld, box)) == (state == "running"), "its monitor has gone, or is there")
    saving = max(seconds(one["ended_at"]) - seconds(one["created_at"]) for one in (box.operation("suspend") for box in boxes))
    assert max(took) < max(2, saving), (sorted(took)[-5:], saving)
    assert all(box.saved == [] for box in boxes)
