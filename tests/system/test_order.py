"""Machines are started after those that they depend on. The agent is real; the machine is this host, so that none has to boot."""
import os
import signal

import pytest

from hulld_fixtures import wait_until
from test_exec import finished, hull, start_alone
from test_patch import patch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent is root")
TIMEOUT_S = 3  # of what is depended on, where a test says so


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hulld")
    daemon = start_alone(folder)
    # A machine ends at once with the status that a file named after it has, if there is one.
    (folder / "agent-alone").rename(folder / "agent")
    (folder / "agent-alone").write_text(f"""#!/bin/sh
while [ "$1" ]; do [ "$1" = --id ] && id=$2; [ "$1" = --config-file ] && config=$2; shift; done
if [ -e {folder}/$id ]; then
    printf '{{"cause":"poweroff","exit_status":%s,"message":""}}' $(cat {folder}/$id) >&4
    exit
fi
exec {folder}/agent --config-file $config --status-fd 4
""")
    (folder / "agent-alone").chmod(0o755)
    daemon.statuses = folder
    yield daemon
    daemon.stop()


@pytest.fixture
def impatient(hulld):
    hulld.env["HULL_DEPENDENCY_TIMEOUT_S"] = str(TIMEOUT_S)
    hulld.restart()
    yield
    del hulld.env["HULL_DEPENDENCY_TIMEOUT_S"]
    hulld.restart()


@pytest.fixture
def make(hulld):
    """Creates machines, which go with the test."""
    made = []

    def create(name, *depends_on, **spec):
        dependencies = [dict(zip(("machine", "condition"), dependency.split(":"))) for dependency in depends_on]
        answer = hulld.post("/v1/machines", {"name": name, "image": "any", "command": ["any"], "network": "none", "disk_mib": 16,
                                             "depends_on": dependencies, **spec})
        assert answer.status == 201, answer
        made.append(answer.json["id"])
        return answer.json

    yield create
    for machine in reversed(made):
        hulld.delete(f"/v1/machines/{machine}?force=1")


def start(hulld, *names):
    for name in names:
        assert hulld.post(f"/v1/machines/{name}/start").json["state"] == "starting"


def waits_for(hulld, name, *others):
    return wait_until(lambda: (m := hulld.machine(name))["waiting_for"] == list(others) and m, f"{name} waits for {others}")


def happened(hulld, after, *types):
    items = hulld.get(f"/v1/events?after={after}&limit=1000").json["items"]
    return [(event["type"].split(".")[1], event["name"]) for event in items if event["type"] in [f"machine.{t}" for t in types]]


def cursor(hulld):
    return hulld.get("/v1/events?limit=1&after=0").json["cursor"] and hulld.get("/v1/events?limit=1000").json["cursor"]


def refused(answer, status, code, field, detail):
    assert (answer.status, answer.json["code"], answer.json.get("field"), answer.json["detail"]) == (status, code, field, detail), answer


def test_one_is_started_once_the_other_is_healthy(hulld, make, tmp_path):
    make("db", health={"exec": {"command": ["test", "-e", f"{tmp_path}/up"]}, "interval_s": 1, "retries": 1})
    assert make("web", "db")["depends_on"] == [{"machine": "db", "condition": "ready"}]
    make("early", "db:started")
    after = cursor(hulld)
    start(hulld, "web", "early")
    waits_for(hulld, "web", "db")
    assert "starting (waits for db)" in finished(hull(hulld, "ps", "-a"))[0].decode()
    hulld.post("/v1/machines/db/start")
    assert hulld.wait("early", "running,failed")["state"] == "running"
    wait_until(lambda: hulld.machine("db")["health"]["state"] == "unhealthy", "its check has failed")
    assert waits_for(hulld, "web", "db")["pid"] is None
    (tmp_path / "up").touch()
    assert hulld.wait("web", "running,failed")["waiting_for"] == []
    assert happened(hulld, after, "waiting", "running", "healthy") == [
        ("waiting", "web"), ("waiting", "early"), ("running", "db"), ("running", "early"), ("healthy", "db"), ("running", "web")]
    events = hulld.get(f"/v1/events?after={after}&type=machine.waiting").json["items"]
    assert [event["data"]["reason"] for event in events] == ["for machine db to be healthy", "for machine db to run"]
    # What is there already is not waited for.
    hulld.post("/v1/machines/web/restart")
    wait_until(lambda: happened(hulld, after, "running")[-1] == ("running", "web") and
               len(happened(hulld, after, "running")) == 4, "it runs again")
    assert len(happened(hulld, after, "waiting")) == 2


def test_one_is_started_once_another_has_done_its_work(hulld, make):
    make("migrate")
    make("web", "migrate:completed")
    start(hulld, "web", "migrate")
    hulld.wait("migrate", "running")
    waits_for(hulld, "web", "migrate")
    hulld.post("/v1/machines/migrate/stop")
    assert hulld.wait("migrate", "stopped")["exit_status"] == 0
    assert hulld.wait("web", "running,failed")["state"] == "running"


@pytest.mark.parametrize("status", [3, None])
def test_what_cannot_be_there_any_more_fails_who_waits_for_it(hulld, make, status):
    make("db", restart={"policy": "on-failure", "max_retries": 1})
    if status is None:
        make("web", "db:started")
        start(hulld, "web", "db")
        for _ in range(2):  # its restart may yet bring it up
            hulld.wait("db", "running")
            assert hulld.wait("web", "running")["waiting_for"] == []
            hulld.post("/v1/machines/web/stop")
            hulld.wait("web", "stopped")
            before = hulld.tip()
            os.kill(hulld.machine("db")["pid"], signal.SIGKILL)
            hulld.wait("db", "failed", after=before)
            hulld.post("/v1/machines/web/start")
        why = "machine db, which it depends on, failed: monitor_died"
    else:
        (hulld.statuses / make("job")["id"]).write_text(str(status))
        make("web", "job:completed")
        start(hulld, "web", "job")
        why = "machine job, which it depends on, ended with status 3"
    web = wait_until(lambda: (m := hulld.machine("web"))["state"] == "failed" and m, "it has failed")
    assert web["cause"] == {"code": "dependency_failed", "message": why} and web["waiting_for"] == []


def test_a_check_that_is_taken_away_is_not_waited_for(hulld, make):
    make("db", health={"exec": {"command": ["false"]}, "interval_s": 1, "retries": 1})
    make("web", "db")
    make("strict", "db:healthy")
    start(hulld, "web", "strict", "db")
    wait_until(lambda: hulld.machine("db")["health"]["state"] == "unhealthy", "its check has failed")
    waits_for(hulld, "strict", "db")
    waits_for(hulld, "web", "db")
    assert hulld.request("PATCH", "/v1/machines/db", {"health": None}, {"Content-Type": "application/merge-patch+json"}).status == 200
    assert hulld.wait("web", "running,failed")["state"] == "running"
    assert hulld.wait("strict", "failed")["cause"] == {
        "code": "dependency_failed", "message": "machine db, which should be healthy before it, has no health check any more"}


@pytest.mark.usefixtures("impatient")
def test_who_waits_too_long_fails_and_may_try_again(hulld, make):
    make("db")
    make("web", "db", restart={"policy": "on-failure"})
    start(hulld, "web")
    web = wait_until(lambda: (m := hulld.machine("web"))["cause"] and m, "its time is over")
    assert web["cause"] == {"code": "dependency_timeout", "message":
                            f"machine db, which it depends on, should run within {TIMEOUT_S} s, and is created"}
    hulld.post("/v1/machines/db/start")
    assert hulld.wait("web", "running")["restarts"] >= 1


@pytest.mark.usefixtures("impatient")
def test_who_waits_for_one_that_is_being_started_waits_until_that_is_over(hulld, make):
    """However long its check may take; and so does who waits for who waits."""
    up = hulld.statuses / "up"
    check = {"exec": {"command": ["test", "-e", str(up)]}, "interval_s": 1}
    make("db", health={**check, "grace_s": 600})
    make("web", "db")
    make("shop", "web")
    start(hulld, "shop", "web", "db")
    assert hulld.get(f"/v1/machines/shop/wait?state=failed,running&timeout_s={TIMEOUT_S + 2}").status == 408
    waits_for(hulld, "shop", "web")
    db, web = (hulld.get(f"/v1/operations/{hulld.machine(name)['operation']}").json for name in ("db", "web"))
    assert web["deadline"] > db["deadline"], "it is shown"
    up.touch()
    assert hulld.wait("shop", "running,failed")["state"] == "running"
    up.unlink()
    for name in ("shop", "web", "db"):
        hulld.post(f"/v1/machines/{name}/kill")
        hulld.wait(name, "stopped")
    assert patch(hulld, {"health": {**check, "retries": TIMEOUT_S + 2, "grace_s": 0}}, "/v1/machines/db").status == 200
    start(hulld, "web", "db")
    cause = hulld.wait("web", "failed")["cause"]
    assert cause["code"] == "dependency_timeout" and cause["message"].startswith("machine db, which it depends on, should be healthy within "), cause
    assert hulld.machine("db")["health"]["state"] == "unhealthy"


def test_who_waits_can_be_stopped_killed_deleted_and_changed(hulld, make):
    make("db")
    for name in ("stopped", "killed", "deleted", "changed"):
        make(name, "db")
    start(hulld, "stopped", "killed", "deleted", "changed")
    for name, verb in (("stopped", "stop"), ("killed", "kill")):
        hulld.post(f"/v1/machines/{name}/{verb}")
        assert hulld.wait(name, "stopped")["cause"] == {"code": "stopped", "message": "ended before its monitor was started"}
    assert hulld.delete("/v1/machines/deleted?force=1").status == 204
    assert patch(hulld, {"depends_on": []}, "/v1/machines/changed").json["pending"] == []
    assert hulld.wait("changed", "running,failed")["state"] == "running"
    # A machine that is gone is waited for by nobody.
    start(hulld, "stopped")
    waits_for(hulld, "stopped", "db")
    hulld.delete("/v1/machines/db?force=1")
    failed = wait_until(lambda: (m := hulld.machine("stopped"))["state"] == "failed" and m, "it fails")
    assert failed["cause"] == {"code": "dependency_failed", "message": "there is no machine db, which it depends on"}
    # What is gone hinders no other change, and no one may come to depend on it anew.
    assert patch(hulld, {"labels": {"a": "b"}}, "/v1/machines/stopped").status == 200
    refused(patch(hulld, {"depends_on": [{"machine": "db"}]}, "/v1/machines/changed"), 404, "not_found", "depends_on[0].machine",
            'there is no machine "db"')


def test_the_wait_goes_on_when_hulld_was_killed(hulld, make):
    make("db")
    make("web", "db")
    start(hulld, "web")
    waits_for(hulld, "web", "db")
    hulld.restart()
    waits_for(hulld, "web", "db")
    start(hulld, "db")
    assert hulld.wait("web", "running,failed")["state"] == "running"
    pid = hulld.machine("web")["pid"]
    hulld.restart()  # one that runs is adopted, whatever it depends on
    assert hulld.machine("web")["pid"] == pid


def test_a_host_that_comes_up_starts_them_in_their_order(hulld, make, tmp_path):
    (tmp_path / "up").touch()
    make("db", restart={"policy": "always"}, health={"exec": {"command": ["test", "-e", f"{tmp_path}/up"]}, "interval_s": 1})
    make("app", "db", restart={"policy": "always"})
    make("web", "app", "db", restart={"policy": "always"})
    start(hulld, "web", "app", "db")
    hulld.wait("web", "running")
    after = cursor(hulld)
    hulld.kill(signal.SIGPWR)
    hulld.start()
    assert hulld.wait("web", "running,failed")["state"] == "running"
    assert happened(hulld, after, "running") == [("running", "db"), ("running", "app"), ("running", "web")]


def test_a_restart_by_policy_keeps_to_quotas(hulld, make):
    make("web", restart={"policy": "always"})
    start(hulld, "web")
    pid = hulld.wait("web", "running")["pid"]
    assert hulld.request("PUT", "/v1/projects/default/quotas", {"machines": 0}).status == 200
    os.kill(pid, signal.SIGKILL)
    web = wait_until(lambda: (m := hulld.machine("web"))["cause"] and m["cause"]["code"] == "start_failed" and m, "it is not started")
    assert "quota machines of project default" in web["cause"]["message"]
    assert hulld.request("PUT", "/v1/projects/default/quotas", {}).status == 200
    assert hulld.wait("web", "running")["state"] == "running", "it is tried again"


def test_many_may_wait_for_one(hulld, make):
    make("db")
    names = [f"web-{i}" for i in range(20)]
    for name in names:
        make(name, "db")
    start(hulld, *names, "db")
    for name in names:
        assert hulld.wait(name, "running,failed")["state"] == "running"


def test_what_makes_no_sense_is_refused(hulld, make):
    def create(*depends_on, name="new", **spec):
        return hulld.post("/v1/machines", {"name": name, "image": "any", "command": ["any"], "network": "none",
                                           "depends_on": list(depends_on), **spec})

    make("a")
    make("b", "a")
    make("c", "b")
    refused(create({"machine": "nosuch"}), 404, "not_found", "depends_on[0].machine", 'there is no machine "nosuch"')
    refused(create({"machine": hulld.machine("a")["id"]}), 404, "not_found", "depends_on[0].machine",
            f'there is no machine "{hulld.machine("a")["id"]}"')
    refused(create({"machine": "a"}, {"machine": "a", "condition": "started"}), 400, "invalid_field", "depends_on[1].machine",
            "a is named twice")
    refused(create({"machine": "a", "condition": "healthy"}), 400, "invalid_field", "depends_on[0].condition",
            "machine a has no health check")
    refused(patch(hulld, {"depends_on": [{"machine": "a", "condition": "healthy"}]}, "/v1/machines/b"), 400, "invalid_field",
            "depends_on[0].condition", "machine a has no health check")
    refused(create({"machine": "new"}), 400, "invalid_field", "depends_on", "makes a circle: new -> new")
    refused(patch(hulld, {"depends_on": [{"machine": "c"}]}), 400, "invalid_field", "depends_on", "makes a circle: a -> c -> b -> a")
    for field, dependency in (("condition", {"machine": "a", "condition": "up"}), ("machine", {}), ("machine", {"machine": "A"}),
                              ("at", {"machine": "a", "at": 1})):
        answer = create(dependency)
        assert answer.status == 400 and answer.json["field"] == f"depends_on[0].{field}", answer
    assert create(*({"machine": f"m{i}"} for i in range(17))).json["field"] == "depends_on"
    refused(patch(hulld, {"name": "z"}), 409, "machine_in_use", "name", "machine b depends on it by the name a")
    refused(hulld.delete("/v1/machines/a"), 409, "machine_in_use", None, "machine b depends on a")
    error = finished(hull(hulld, "rm", "a"), 1)[1].decode()
    assert "machine b depends on a" in error and "hull rm -f a" in error
    assert hulld.get("/v1/machines?name=new").json["items"] == []
    # Another project's machine is none.
    hulld.post("/v1/projects", {"name": "other"})
    answer = hulld.request("POST", "/v1/machines", {"name": "new", "image": "any", "command": ["any"], "depends_on": [{"machine": "a"}]},
                           {"Hull-Project": "other"})
    assert answer.json["code"] == "not_found"
    hulld.delete("/v1/projects/other")
    # By force all goes, and a circle that a name which comes again would close is refused then.
    assert hulld.delete("/v1/machines/a?force=1").status == 204
    refused(create({"machine": "c"}, name="a"), 400, "invalid_field", "depends_on", "makes a circle: a -> c -> b -> a")


@pytest.mark.usefixtures("impatient")
def test_the_command_names_them(hulld, make):
    make("db")
    make("cache")
    run = hull(hulld, "run", "-d", "--name", "web", "--network", "none", "--depends-on", "db:completed", "any", "any")
    assert "machine db, which it depends on, should have completed within 3 s, and is created" in finished(run, 1)[1].decode()
    make("web", "db")
    finished(hull(hulld, "update", "web", "--depends-on", "cache:started", "--depends-on", "db-"))
    assert hulld.machine("web")["depends_on"] == [{"machine": "cache", "condition": "started"}]
    assert "db is none of those" in finished(hull(hulld, "update", "web", "--depends-on", "db-"), 2)[1].decode()
