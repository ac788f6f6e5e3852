"""Logs end: what is older than they are kept goes, of machines that run and of those that do not, by time that has passed and no clock's word."""
import json
import os
import subprocess

import pytest

from conftest import BUILD
from hulld_fixtures import Connection, Hulld, make_erofs, wait_until
from test_hostile_clients import shifted  # noqa: F401: a fixture
from test_hulld import refused

DAY = 86_400


def create(hulld, name, **spec):
    return hulld.post("/v1/machines", {"name": name, "image": "any", "network": "none", "disk_mib": 16, **spec})


def text(hulld, name, query=""):
    answer = hulld.get(f"/v1/machines/{name}/logs{query}")
    assert answer.status == 200, answer
    return answer.body.decode()


def add(log, line):
    with log.open("a") as file:
        file.write(line + "\n")


def next_round(hulld):
    """Each hulld begins with one."""
    clock = hulld.state / "log-clock.json"
    before = clock.stat().st_ino if clock.exists() else 0
    hulld.restart()
    wait_until(lambda: clock.stat().st_ino != before, "a round has begun")
    wait_until(lambda: hulld.get("/v1/version").status == 200, "and this machine was looked at")


@pytest.fixture
def hulld(shifted, tmp_path):  # noqa: F811
    shifted.image("any", make_erofs(tmp_path), command=["any"])
    for name in ("runs", "ended"):
        assert create(shifted, name).status == 201 and shifted.post(f"/v1/machines/{name}/start").status == 200
        wait_until(lambda: shifted.machine(name)["pid"], "its monitor is there")  # noqa: B023
    assert shifted.post("/v1/machines/ended/kill").status == 200
    shifted.logs = [shifted.state / "machines" / shifted.machine(name)["id"] / file
                    for name in ("runs", "ended") for file in ("workload.log", "console.log", "vmm.log")]
    return shifted


def all_logs(hulld):
    return {text(hulld, name, f"?source={source}") for name in ("runs", "ended") for source in ("workload", "console", "monitor")}


def test_logs_end_with_their_age_whatever_the_clock_is_set_to(hulld):
    for log in hulld.logs:
        add(log, "forty days")
    next_round(hulld)
    for days in (400, -400, 0):
        hulld.jump(days * DAY)
        next_round(hulld)
        assert all_logs(hulld) == {"forty days\n"}, "the clock was set, and no time has passed"
    hulld.sleep(40 * DAY)
    for log in hulld.logs:
        add(log, "young")
    next_round(hulld)
    assert all_logs(hulld) == {"forty days\nyoung\n"}
    hulld.sleep(91 * DAY)
    next_round(hulld)
    assert all_logs(hulld) == {"young\n"} == {text(hulld, "runs", f"?tail={tail}") for tail in (1, 5)}
    assert all(b"forty" not in log.read_bytes() and log.read_bytes().endswith(b"\0young\n") for log in hulld.logs), "nothing is on the disk"
    hulld.sleep(140 * DAY)
    next_round(hulld)
    assert all_logs(hulld) == {""}
    for log in hulld.logs:
        add(log, "the next")
    assert all_logs(hulld) == {"the next\n"}


def test_a_machines_own_age_counts_at_once_and_who_follows_goes_on(hulld):
    runs = hulld.logs[0]
    add(runs, "old")
    next_round(hulld)
    hulld.sleep(3 * DAY)
    add(runs, "young")
    follower, behind = Connection(hulld.socket), Connection(hulld.socket)
    for connection, query in ((follower, ""), (behind, "&tail=1")):
        connection.request("GET", f"/v1/machines/runs/logs?follow=1{query}")
    seen = follower.getresponse()
    assert [seen.readline(), seen.readline()] == [b"old\n", b"young\n"]
    patched = hulld.request("PATCH", "/v1/machines/runs", {"logs": {"max_age_days": 3}}, {"Content-Type": "application/merge-patch+json"})
    assert patched.status == 200 and patched.json["logs"] == {"max_mib": 0, "max_age_days": 3} and patched.json["pending"] == [], patched
    assert text(hulld, "runs") == "young\n" and text(hulld, "ended") == ""
    add(runs, "later")
    assert seen.readline() == b"later\n"
    seen = behind.getresponse()
    assert [seen.readline(), seen.readline()] == [b"young\n", b"later\n"]
    # What is followed may go as a whole.
    hulld.sleep(9 * DAY)
    for days in (2, 1):  # what it has said by now becomes a piece with the first
        patched = hulld.request("PATCH", "/v1/machines/runs", {"logs": {"max_age_days": days}}, {"Content-Type": "application/merge-patch+json"})
        hulld.sleep(18 * DAY)
    assert patched.status == 200 and text(hulld, "runs") == ""
    add(runs, "last")
    assert seen.readline() == b"last\n" and text(hulld, "runs", "?tail=3") == "last\n"
    for connection in follower, behind:
        connection.close()
    # Its size is the monitor's to keep, and so its next run's.
    patched = hulld.request("PATCH", "/v1/machines/runs", {"logs": {"max_mib": 1}}, {"Content-Type": "application/merge-patch+json"})
    assert patched.json["pending"] == ["logs"] and patched.json["logs"] == {"max_mib": 1, "max_age_days": 1}
    runs.write_bytes(b"x" * 999 + b"\n" + (b"y" * 999 + b"\n") * 3000)
    next_round(hulld)
    assert len(text(hulld, "runs")) <= (1 << 20) + 4096 and text(hulld, "runs").startswith("y" * 999)


def test_no_machine_keeps_more_than_the_host_lets_it(tmp_path):
    hulld = Hulld(tmp_path, "--log-keep", "2,5").with_stand_in(f"""#!/bin/sh\necho "$*" >>{tmp_path}/asked\nexec sleep 1000\n""").start()
    try:
        hulld.image("any", make_erofs(tmp_path), command=["any"])
        asked = tmp_path / "asked"
        for n, (logs, limit) in enumerate((({}, 2), ({"max_mib": 1}, 1), ({"max_mib": 100, "max_age_days": 100}, 2))):
            assert create(hulld, f"m{n}", logs=logs).status == 201 and hulld.post(f"/v1/machines/m{n}/start").status == 200
            wait_until(lambda: asked.exists() and asked.read_text().count("\n") == n + 1, "it is started")  # noqa: B023
            assert f" --output-limit {limit} " in asked.read_text().splitlines()[-1]
        hull = {**os.environ, "HULL_HOST": f"unix://{hulld.socket}"}
        subprocess.run([BUILD / "hull", "update", "m0", "--log-days", "4", "--log-size", "1g"], env=hull, check=True, capture_output=True, timeout=60)
        assert hulld.machine("m0")["logs"] == {"max_mib": 1024, "max_age_days": 4}
        for logs, code, field in (({"max_mib": -1}, "invalid_field", "logs.max_mib"), ({"max_age_days": 3651}, "invalid_field", "logs.max_age_days"),
                                  ({"max_age_days": "7"}, "invalid_field", "logs.max_age_days"), ({"max_age": 1}, "unknown_field", "logs.max_age"),
                                  (7, "invalid_field", "logs")):
            refused(create(hulld, "x", logs=logs), 400, code, field)
    finally:
        hulld.stop()


@pytest.mark.parametrize("keep", ["0", "1,0", "1,3651", "1,", "x", ""])
def test_a_wrong_log_keep_is_refused(tmp_path, keep):
    done = subprocess.run([BUILD / "hulld", "--state", tmp_path, "--run", tmp_path, "--log-keep", keep], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr == "hulld: --log-keep: must be MIB or MIB,DAYS, from 1 to 1048576 MiB and 1 to 3650 days\n"


def test_what_is_known_of_a_logs_age_may_be_lost_or_damaged(hulld):
    for log in hulld.logs:
        add(log, "a line")
    next_round(hulld)
    hulld.kill()
    os.unlink(hulld.state / "log-clock.json")
    hulld.jump(400 * DAY)  # and the wall clock, by which another begins, is wrong
    hulld.start()
    next_round(hulld)
    assert all_logs(hulld) == {"a line\n"}
    hulld.kill()
    (hulld.logs[0].parent / "logs.json").write_text(json.dumps({"workload.log": {"inode": hulld.logs[0].stat().st_ino, "gone": -5, "pieces": [[1]]}}))
    (hulld.logs[3].parent / "logs.json").write_text("{" * 70000)
    hulld.start()
    assert all_logs(hulld) == {"a line\n"}
    next_round(hulld)
    hulld.sleep(91 * DAY)
    next_round(hulld)
    assert all_logs(hulld) == {""}
