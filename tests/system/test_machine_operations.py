"""What is under way on machines, as operations: their phases, their end, and what becomes of them when hulld is killed. No guest boots:
a script, or the agent on this host, is in the monitor's place."""
import contextlib
import json
import os
import pty
import re
import signal
import socket
import sqlite3
import subprocess
import threading

import pytest

from conftest import BUILD
from free_ports import free_port
from hulld_fixtures import DEADLINE, Hulld, make_erofs, wait_until
from test_exec import start_alone
from test_orders import seconds
from test_patch import patch
from test_tenants import project, token

root = pytest.mark.skipif(os.geteuid() != 0, reason="the agent is root")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """Whose machines start for ever."""
    folder = tmp_path_factory.mktemp("stand-in")
    daemon = Hulld(folder).with_stand_in().start()
    daemon.erofs = make_erofs(folder)
    daemon.image("any", daemon.erofs, command=["any"])
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Whose machines are this host."""
    daemon = start_alone(tmp_path_factory.mktemp("alone"))
    yield daemon
    daemon.stop()


def create(hulld, name, **spec):
    answer = hulld.post("/v1/machines", {"name": name, "image": "any", "command": ["any"], "network": "none", "disk_mib": 16, **spec})
    assert answer.status == 201, answer
    return answer.json


def ask(hulld, name, verb, body=None):
    """The operation that the answer names."""
    answer = hulld.post(f"/v1/machines/{name}/{verb}", body)
    assert answer.status == 200, answer
    assert answer.json["operation"] in (answer.headers["Operation"], None)
    return operation(hulld, answer.headers["Operation"])


def operation(hulld, one):
    answer = hulld.get(f"/v1/operations/{one if isinstance(one, str) else one['id']}")
    assert answer.status == 200, answer
    return answer.json


def ended(hulld, one, state="succeeded"):
    answer = hulld.get(f"/v1/operations/{one if isinstance(one, str) else one['id']}/wait?timeout_s={DEADLINE}", timeout=DEADLINE + 10)
    assert answer.status == 200 and answer.json["state"] == state, answer.body
    assert answer.json["phase"] is None and answer.json["ended_at"] >= answer.json["created_at"]
    assert all(phase["ended_at"] >= phase["started_at"] for phase in answer.json["phases"])
    return answer.json


def cancel(hulld, one, status=200):
    answer = hulld.post(f"/v1/operations/{one['id']}/cancel")
    assert answer.status == status, answer
    return answer.json


def phases(one):
    return [phase["name"] for phase in one["phases"]]


def listed(hulld, query=""):
    return hulld.get("/v1/operations" + query).json["items"]


def events(hulld, one):
    return [(event["type"], event["data"].get("phase")) for event in hulld.get("/v1/events?type=operation&limit=1000").json["items"]
            if event["data"]["operation"] == one["id"]]


def started(hulld, name, **spec):
    create(hulld, name, **spec)
    one = ask(hulld, name, "start")
    wait_until(lambda: hulld.machine(name)["pid"], "its monitor is there")
    return operation(hulld, one)


def has_ended(pid):
    try:
        with open(f"/proc/{pid}/status") as status:
            return "State:\tZ" in status.read()
    except (FileNotFoundError, ProcessLookupError):
        return True


def remove(hulld, name):
    assert hulld.delete(f"/v1/machines/{name}?force=1").status == 204


def test_a_start_says_how_far_it_has_come(stand_in):
    machine = create(stand_in, "far", network="default")
    assert machine["operation"] is None
    asked = stand_in.post("/v1/machines/far/start")
    wait_until(lambda: stand_in.machine("far")["pid"], "its monitor is there")
    one = operation(stand_in, asked.json["operation"])
    assert one["kind"] == "start" and one["state"] == "running" and one["phase"] == "kernel", one
    assert one["subject"] == {"id": machine["id"], "name": "far"} and one["project"] == "default" and one["requested_by"] == "host"
    assert phases(one) == ["disk", "network", "monitor", "kernel"] and one["phases"][-1]["ended_at"] is None
    assert one["progress"] == {"done": 3, "total": 5, "unit": "phases"}
    assert one["deadline"] > one["created_at"] and one["ended_at"] is one["error"] is one["cancelled_by"] is None
    assert events(stand_in, one) == [("operation.started", "disk"), ("operation.phase", "kernel")], "network and monitor were over at once"
    again = stand_in.post("/v1/machines/far/start")  # has no effect, and names what is under way
    assert again.json["operation"] == again.headers["Operation"] == one["id"]
    killed = ask(stand_in, "far", "kill")
    assert killed["kind"] == "kill" and killed["state"] == "succeeded" and phases(killed) == ["monitor_end"], killed
    cancelled = operation(stand_in, one)
    assert cancelled["state"] == "cancelled" and cancelled["cancelled_by"] == killed["id"], cancelled
    assert cancelled["progress"] == one["progress"] and killed["progress"] == {"done": 1, "total": 1, "unit": "phases"}
    assert phases(started_again := ask(stand_in, "far", "start"))[0] == "network", "its disk is there"
    remove(stand_in, "far")
    last = listed(stand_in, "?machine=far")
    assert [one["kind"] for one in last] == ["start", "kill", "start", "delete"], "what was with a machine stays known"
    assert last[-1]["state"] == "succeeded" and phases(last[-1]) == ["monitor_end", "ports"]
    assert last[-1]["progress"]["done"] == last[-1]["progress"]["total"] == 2
    assert last[2]["id"] == started_again["id"] and last[2]["cancelled_by"] == last[3]["id"]


def test_lists_are_filtered_and_come_in_pages(stand_in):
    for n in range(3):
        started(stand_in, f"page{n}")
        ask(stand_in, f"page{n}", "kill")
    query = "?kind=kill&state=succeeded,failed"
    everything = [one["id"] for one in listed(stand_in, query)]
    assert [one["subject"]["name"] for one in listed(stand_in, query)][-3:] == ["page0", "page1", "page2"]
    found, cursor = [], ""
    while cursor is not None:
        page = stand_in.get(f"/v1/operations{query}&limit=1{cursor}").json
        found += [one["id"] for one in page["items"]]
        cursor = f"&cursor={page['next']}" if "next" in page else None
    assert found == everything
    assert listed(stand_in, f"?machine={stand_in.machine('page1')['id']}") == listed(stand_in, "?machine=page1") != []
    assert listed(stand_in, "?machine=nobody") == listed(stand_in, "?state=running&kind=kill") == []
    for query, field in (("kind=fly", "kind"), ("state=", "state"), ("limit=0", "limit"), ("cursor=x", "cursor"), ("what=1", "what")):
        answer = stand_in.get("/v1/operations?" + query)
        assert answer.status == 400 and answer.json["field"] == field, answer
    for path in ("/v1/operations/opaaaaaaaaaaaa", "/v1/operations/x/wait"):
        assert stand_in.get(path).json["code"] == "not_found"
    for n in range(3):
        remove(stand_in, f"page{n}")


def test_what_is_asked_for_later_takes_the_place_of_what_is_under_way(stand_in):
    start = started(stand_in, "later")
    waiting = []
    waiter = threading.Thread(target=lambda: waiting.append(ended(stand_in, start, "cancelled")))
    waiter.start()
    restart = ask(stand_in, "later", "restart", {"timeout_s": 30})
    waiter.join()
    assert waiting[0]["cancelled_by"] == restart["id"] and restart["kind"] == "restart"
    wait_until(lambda: operation(stand_in, restart)["phase"] == "kernel", "it starts again")
    assert phases(operation(stand_in, restart)) == ["monitor_end", "monitor", "kernel"]
    stop = ended(stand_in, ask(stand_in, "later", "stop"))
    assert operation(stand_in, restart)["cancelled_by"] == stop["id"] and events(stand_in, restart)[-1] == ("operation.cancelled", None)
    nothing = stand_in.post("/v1/machines/later/stop")
    assert nothing.headers["Operation"] is None is nothing.json["operation"], "there was nothing to do"
    remove(stand_in, "later")


def test_an_operation_is_its_projects_own(stand_in):
    theirs = project(stand_in, "ops-theirs", stand_in.erofs)
    client, id_ = token(theirs, "read", "write")
    assert client.post("/v1/machines", {"name": "own", "image": "hello", "network": "none", "disk_mib": 16}).status == 201
    one = client.post("/v1/machines/own/start").json["operation"]
    assert client.get(f"/v1/operations/{one}").json["requested_by"] == id_
    for path in (f"/v1/operations/{one}", f"/v1/operations/{one}/wait"):
        assert stand_in.get(path).json["code"] == "not_found"
    assert one not in [other["id"] for other in listed(stand_in)]
    assert client.delete("/v1/machines/own?force=1").status == 204
    assert stand_in.delete("/v1/projects/ops-theirs").status == 204
    with sqlite3.connect(f"file:{stand_in.state}/hull.db?mode=ro", uri=True) as rows:
        assert rows.execute("SELECT count(*) FROM operations WHERE project = 'ops-theirs'").fetchone() == (0,)


def test_an_operation_goes_on_when_hulld_is_killed(stand_in):
    one = started(stand_in, "on")
    stand_in.restart()
    still = operation(stand_in, one)
    assert (still["state"], still["phase"], still["deadline"]) == ("running", "kernel", one["deadline"])
    assert stand_in.machine("on")["operation"] == one["id"]
    before = stand_in.machine("on")["pid"]
    stand_in.kill()
    os.kill(before, 9)
    wait_until(lambda: has_ended(before), "it has ended")
    stand_in.start()  # which begins the start anew
    after = wait_until(lambda: stand_in.machine("on")["pid"], "its monitor is there")
    assert after != before and (again := operation(stand_in, one))["state"] == "running" and phases(again)[-1] == "kernel"
    assert again["progress"] == still["progress"] == one["progress"] == {"done": 2, "total": 4, "unit": "phases"}
    assert again["deadline"] > one["deadline"] and len(phases(again)) == len(set(phases(again)))
    os.kill(after, 9)
    failed = ended(stand_in, one, "failed")
    assert failed["error"]["code"] == "machine_failed" and "monitor_died" in failed["error"]["detail"], failed
    assert events(stand_in, one)[-1][0] == "operation.failed"
    remove(stand_in, "on")


def test_a_start_that_fails_says_why_and_one_that_policy_makes_is_hullds(tmp_path):
    hulld = Hulld(tmp_path).with_stand_in().start()
    try:
        hulld.image("any", make_erofs(tmp_path))
        started(hulld, "late")
        ask(hulld, "late", "kill")
        hulld.env["HULL_START_TIMEOUT_S"] = "1"  # its disk is there
        hulld.restart()
        late = ended(hulld, ask(hulld, "late", "start"), "failed")
        assert late["error"]["code"] == "timeout" and late["error"]["retryable"] is True and "within 1 s" in late["error"]["detail"], late
        del hulld.env["HULL_START_TIMEOUT_S"]
        hulld.restart()
        (tmp_path / "vmm").write_text("#!/bin/sh\nexit 3\n")
        create(hulld, "again", restart={"policy": "on-failure", "max_retries": 1})
        first = ended(hulld, ask(hulld, "again", "start"), "failed")
        assert "monitor_died" in first["error"]["detail"]
        second = wait_until(lambda: listed(hulld, "?machine=again&kind=restart&state=failed"), "it was started again")
        assert [one["requested_by"] for one in second] == ["hulld"] and first["requested_by"] == "host"
        (tmp_path / "vmm").write_text("""#!/bin/sh\necho '{"cause":"error","exit_status":7,"message":"no room"}' >&4\n""")
        create(hulld, "said")
        said = ended(hulld, ask(hulld, "said", "start"), "failed")
        told = [event for event in hulld.get("/v1/events?type=operation.failed&machine=said").json["items"]]
        assert [(event["data"]["operation"], event["data"]["error"], event["data"]["cause"], event["data"]["exit_status"]) for event in told] == [
            (said["id"], said["error"], {"code": "error", "message": "no room"}, 7)]
        assert all(event["data"]["cause"] is event["data"]["exit_status"] is None
                   for event in hulld.get("/v1/events?type=operation.succeeded,operation.cancelled").json["items"])
    finally:
        hulld.stop()


def test_a_start_is_undone(stand_in):
    one = started(stand_in, "undone", restart={"policy": "always"})
    asked = cancel(stand_in, one)
    assert asked["cancelled_by"] == "host" and asked["state"] in ("running", "cancelled") and asked["error"] is None
    ended(stand_in, one, "cancelled")
    machine = stand_in.machine("undone")
    assert (machine["state"], machine["cause"]["code"], machine["operation"]) == ("stopped", "cancelled", None), machine
    assert machine["exit_status"] is None and machine["restarts"] == 0
    again = cancel(stand_in, one)
    assert again["state"] == "cancelled" and again == operation(stand_in, one), "who asks again is answered"
    killed = ask(stand_in, "undone", "kill") if ask(stand_in, "undone", "start") else None
    refused = cancel(stand_in, killed, 409)
    assert refused["code"] == "wrong_state" and f"{killed['id']} has succeeded" in refused["detail"]
    assert stand_in.post("/v1/operations/opaaaaaaaaaaaa/cancel").json["code"] == "not_found"
    remove(stand_in, "undone")


def test_a_start_that_waits_for_another_machine_is_undone(stand_in):
    create(stand_in, "never")
    create(stand_in, "waits", depends_on=[{"machine": "never"}])
    one = ask(stand_in, "waits", "start")
    assert one["phase"] == "dependencies" and phases(one) == ["dependencies"], one
    assert cancel(stand_in, one)["state"] == "cancelled" and stand_in.machine("waits")["cause"]["code"] == "cancelled"
    again = ask(stand_in, "waits", "start")
    before = operation(stand_in, again)["deadline"]
    stand_in.post("/v1/machines/never/start")
    stand_in.restart()
    assert (waiting := operation(stand_in, again))["phase"] == "dependencies" and waiting["deadline"] >= before
    for name in ("waits", "never"):
        remove(stand_in, name)


def test_a_start_is_undone_though_hulld_is_killed_meanwhile(tmp_path):
    """By a machine that does not end by itself."""
    deaf = tmp_path / "deaf"
    hulld = Hulld(tmp_path).with_stand_in(f"#!/bin/sh\ntrap '' TERM\n: >{deaf}\nwhile :; do sleep 1; done\n").start()
    try:
        hulld.image("any", make_erofs(tmp_path))
        one = started(hulld, "stays", stop={"timeout_s": 2})
        wait_until(deaf.exists, "it does not hear")
        assert cancel(hulld, one)["phase"] == "monitor_end" and hulld.machine("stays")["state"] == "stopping"
        assert hulld.post("/v1/machines/stays/start").status == 409
        hulld.restart()
        ended(hulld, one, "cancelled")
        assert hulld.machine("stays")["cause"]["code"] == "cancelled"
        deaf.unlink()
        other = ask(hulld, "stays", "start")
        wait_until(deaf.exists, "it does not hear")
        cancel(hulld, other)
        stop = ended(hulld, ask(hulld, "stays", "stop", {"timeout_s": 0}))
        assert operation(hulld, other)["cancelled_by"] == "host" and stop["kind"] == "stop"
    finally:
        hulld.stop()


def hull(hulld, *words, **more):
    env = dict(os.environ, HULL_HOST=f"unix://{hulld.socket}", TERM="vt100")
    return subprocess.Popen([BUILD / "hull", *words], stdout=subprocess.PIPE, text=True, env=env, **{"stderr": subprocess.PIPE, **more})


def said(hulld, *words, status=0):
    with hull(hulld, *words) as process:
        out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == status, (words, out, err)
        return out if status == 0 else err


def test_hull_shows_how_far_it_is_on_a_terminal_only_and_may_leave(stand_in):
    for name in ("shown", "quiet"):
        create(stand_in, name)
    control, terminal = pty.openpty()
    with hull(stand_in, "start", "shown", stderr=terminal) as process, open(control, "rb", buffering=0) as screen:
        os.close(terminal)
        seen = b""
        while not re.search(rb"% start: kernel, [1-9]\d* s", seen):
            seen += screen.read(4096)
        process.send_signal(signal.SIGINT)
        while b"waits for its end" not in seen:
            seen += screen.read(4096)
        assert process.wait(DEADLINE) == 130 and process.stdout.read() == ""
    one = stand_in.machine("shown")["operation"]
    assert b" \rhull: shown: its start goes on" in seen and b"\rshown [####" in seen and b"\x1b" not in seen and f"`hull operation cancel {one}`".encode() in seen, seen
    with hull(stand_in, "start", "quiet", "shown") as process:
        wait_until(lambda: stand_in.machine("quiet")["pid"], "its monitor is there")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == 130 and out == "" and "\r" not in err and err.count("goes on") == 1, err
    assert operation(stand_in, one)["state"] == "running"
    for name in ("shown", "quiet"):
        remove(stand_in, name)


def test_hull_lists_waits_for_and_cancels_operations(stand_in):
    one = started(stand_in, "by-hand")["id"]
    row, = [line for line in said(stand_in, "operation", "list").splitlines() if line.startswith(one)]
    assert row.split()[1:6] == ["start", "by-hand", "running:", "kernel", "2/4"], row
    assert said(stand_in, "operation", "list", "-q", "-m", "by-hand") == one + "\n"
    assert json.loads(said(stand_in, "operation", "inspect", one)) == operation(stand_in, one)
    assert one in said(stand_in, "completion", "words", "--", "operation", "cancel", "")
    waiting = hull(stand_in, "operation", "wait", one)
    assert said(stand_in, "operation", "cancel", one) == one + "\n"
    with waiting:
        out, err = waiting.communicate(timeout=DEADLINE)
        assert (waiting.returncode, out) == (1, "cancelled\n") and f"hull: {one}: cancelled" in err, err
    assert one not in said(stand_in, "operation", "list") and one in said(stand_in, "operation", "list", "-a", "-o", "json")
    assert said(stand_in, "operation", "wait", ask(stand_in, "by-hand", "start") and ask(stand_in, "by-hand", "kill")["id"]) == "succeeded\n"
    assert "hull operation list -a" in said(stand_in, "operation", "cancel", "opaaaaaaaaaaaa", status=1)
    assert "has succeeded" in said(stand_in, "operation", "cancel", listed(stand_in, "?machine=by-hand")[-1]["id"], status=1)
    remove(stand_in, "by-hand")


@root
def test_a_stop_is_undone_until_the_workload_has_been_told(alone):
    with socket.create_server(("127.0.0.1", 0)) as program:
        program.settimeout(DEADLINE)
        host = free_port()
        create(alone, "told", ports=[{"host": host, "guest": program.getsockname()[1]}], stop={"timeout_s": 60, "drain_s": 30})
        ended(alone, ask(alone, "told", "start"))
        pid = alone.machine("told")["pid"]
        with socket.create_connection(("127.0.0.1", host), timeout=DEADLINE) as client, program.accept()[0] as inside:
            for verb in ("stop", "restart"):
                one = ask(alone, "told", verb)
                assert one["phase"] == "connections" and one["state"] == "running", one
                alone.restart()  # which waits for them, too
                assert operation(alone, one)["phase"] == "connections"
                assert cancel(alone, one)["state"] == "cancelled"
                machine = alone.machine("told")
                assert (machine["state"], machine["pid"], machine["operation"], machine["cause"]) == ("running", pid, None, None), machine
            inside.sendall(b"on")
            assert client.recv(2) == b"on"
            with socket.create_connection(("127.0.0.1", host), timeout=DEADLINE) as late, program.accept()[0] as served:
                served.sendall(b"x")
                assert late.recv(1) == b"x"
            stop = ask(alone, "told", "stop")
        assert phases(ended(alone, stop)) == ["connections", "workload"]
        assert cancel(alone, stop, 409)["code"] == "wrong_state"
        remove(alone, "told")


@root
def test_connections_cost_half_of_what_is_left_when_hulld_is_killed(alone):
    """So the workload hears of its end before it comes."""
    with socket.create_server(("127.0.0.1", 0)) as program:
        program.settimeout(DEADLINE)
        host = free_port()
        create(alone, "half", ports=[{"host": host, "guest": program.getsockname()[1]}], stop={"timeout_s": 600, "drain_s": 300})
        ended(alone, ask(alone, "half", "start"))
        with socket.create_connection(("127.0.0.1", host), timeout=DEADLINE), program.accept()[0]:
            stop = ask(alone, "half", "stop")
            assert stop["phase"] == "connections"
            alone.kill()
            with contextlib.closing(sqlite3.connect(alone.state / "hull.db")) as rows:
                rows.execute("UPDATE operations SET deadline = created_at + 1 WHERE id = ?", [stop["id"]])
                rows.commit()
            alone.start()
            assert phases(ended(alone, stop)) == ["connections", "workload"], "it was told"
        assert alone.machine("half")["cause"]["code"] != "killed"
        remove(alone, "half")


@root
def test_a_start_whose_check_went_while_hulld_was_killed_has_ended(alone):
    """The patch was written, and what follows from it not."""
    create(alone, "unchecked", health={"tcp": {"port": free_port()}, "retries": 600})
    one = ask(alone, "unchecked", "start")
    alone.wait("unchecked", "running")
    alone.kill()
    with contextlib.closing(sqlite3.connect(alone.state / "hull.db")) as rows:
        rows.execute("UPDATE machines SET spec = json_remove(spec, '$.health') WHERE name = 'unchecked'")
        rows.commit()
    alone.start()
    assert operation(alone, one)["state"] == "succeeded" and alone.machine("unchecked")["operation"] is None
    remove(alone, "unchecked")


@root
def test_a_stop_that_the_workload_knows_of_is_not_undone(alone):
    """The agent's listener is held: it neither ends nor answers."""
    create(alone, "knows")
    ended(alone, ask(alone, "knows", "start"))
    path = alone.run / "machines" / alone.machine("knows")["id"] / "vsock.sock"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(path))
        agent.listen()
        one = ask(alone, "knows", "stop", {"timeout_s": 60})
        refused = cancel(alone, one, 409)
        assert refused["code"] == "wrong_state" and "has been told to end" in refused["detail"] and refused["hint"], refused
        alone.restart()
        assert operation(alone, one)["phase"] == "workload" and cancel(alone, one, 409)["code"] == "wrong_state"
        assert ask(alone, "knows", "kill")["state"] == "succeeded"
    remove(alone, "knows")


@root
def test_a_run_from_its_start_to_its_removal(alone):
    create(alone, "life")
    start = ended(alone, ask(alone, "life", "start"))
    assert phases(start)[:3] == ["disk", "monitor", "kernel"] and alone.machine("life")["operation"] is None
    assert events(alone, start)[-1] == ("operation.succeeded", None)
    restart = ended(alone, ask(alone, "life", "restart", {"timeout_s": 30}))
    assert phases(restart)[:4] == ["workload", "monitor", "kernel", "agent"][:len(phases(restart))], restart
    assert phases(restart)[0] == "workload" and restart["kind"] == "restart"
    stop = ended(alone, ask(alone, "life", "stop"))
    assert phases(stop) == ["workload"] and stop["error"] is None
    assert all(one["progress"]["done"] == one["progress"]["total"] > 0 for one in (start, restart, stop))
    ended(alone, ask(alone, "life", "start"))
    remove(alone, "life")
    assert [(one["kind"], one["state"]) for one in listed(alone, "?machine=life")] == [
        ("start", "succeeded"), ("restart", "succeeded"), ("stop", "succeeded"), ("start", "succeeded"), ("delete", "succeeded")]


@root
def test_a_start_with_a_check_ends_when_that_has_succeeded(alone):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    health = {"tcp": {"port": port}, "interval_s": 1, "retries": 600}
    create(alone, "well", health=health)
    one = ask(alone, "well", "start")
    alone.wait("well", "running")
    assert operation(alone, one)["phase"] == "health" and alone.machine("well")["operation"] == one["id"]
    assert operation(alone, one)["progress"] == {"done": 4, "total": 5, "unit": "phases"}
    # It waits for as long as its check may take, also for one that may take longer; no less.
    until = operation(alone, one)["deadline"]
    for grace_s in (1800, 0):
        assert patch(alone, {"health": {"grace_s": grace_s}}, "/v1/machines/well").status == 200
        assert abs(seconds(operation(alone, one)["deadline"]) - seconds(until) - 1800) < 1, (until, operation(alone, one))
    alone.restart()
    assert operation(alone, one)["phase"] == "health"
    listener = socket.create_server(("127.0.0.1", port))
    assert phases(well := ended(alone, one))[-1] == "health" and well["progress"]["done"] == 5
    listener.close()
    remove(alone, "well")
    create(alone, "ill", health={**health, "retries": 1})
    failed = ended(alone, ask(alone, "ill", "start"), "failed")
    assert failed["error"]["code"] == "machine_failed" and "Connection refused" in failed["error"]["detail"]
    assert alone.machine("ill")["state"] == "running", "it is not healthy, but runs"
    remove(alone, "ill")
