"""hulld with real machines: hull-vmm, hull-init, a stock kernel, on KVM."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from free_ports import free_port
from hulld_fixtures import BUILD, Connection, Hulld, make_erofs, wait_until

pytestmark = pytest.mark.kvm
BOOT = 180  # seconds: an emulated host boots slowly
HELD_S = 30  # by hull-ingress, who comes to a machine that is not there yet

SERVE = "#!/bin/sh\necho serving\nexec httpd -f -p 80 -h /srv\n"
IGNORE = "#!/bin/sh\ntrap '' TERM\necho deaf\nwhile true; do sleep 1; done\n"
TALK = "#!/bin/sh\nnc -ll -p 7 -e cat &\n/srv/udp-echo 7 &\nn=0\nwhile true; do echo line $n; n=$((n+1)); sleep 0.2; done\n"
COUNT = "#!/bin/sh\nn=0\nwhile true; do echo line $n; n=$((n+1)); sleep 0.2; done\n"
MARK = "#!/bin/sh\necho run >> /srv/runs\nwc -l < /srv/runs\n"


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.fail("/dev/kvm is not usable")
    folder = tmp_path_factory.mktemp("hulld")
    (folder / "bin").mkdir()
    http = free_port()
    daemon = Hulld(folder, "--http", f"127.0.0.1:{http}", env={"HULL_START_TIMEOUT_S": str(BOOT), "PATH": f"{folder}/bin:{os.environ['PATH']}"}).start()
    daemon.http = http
    (folder / "rootfs/srv").mkdir(parents=True)
    subprocess.run(["cc", "-static", "-o", folder / "rootfs/srv/udp-echo", Path(__file__).parent / "udp_echo.c"], check=True)
    daemon.image("busybox", make_erofs(folder, {"srv/serve": SERVE, "srv/ignore": IGNORE, "srv/count": COUNT,
                                                "srv/mark": MARK, "srv/talk": TALK}))
    yield daemon
    daemon.stop()


def create(hulld, name, command, **spec):
    answer = hulld.post("/v1/machines", {"name": name, "image": "busybox", "command": command, "network": "none",
                                         "disk_mib": 64, **spec})
    assert answer.status == 201, answer


def start(hulld, name, command, state="running", **spec):
    create(hulld, name, command, **spec)
    answer = hulld.post(f"/v1/machines/{name}/start")
    assert answer.status == 200 and answer.json["state"] == "starting", answer
    states = {state, "failed"} if state == "running" else {state, "failed", "stopped"}
    machine = hulld.wait(name, ",".join(states), BOOT)
    console = hulld.get(f"/v1/machines/{name}/logs?source=console&tail=40").body.decode(errors="replace")
    assert machine["state"] == state, (machine["cause"], console)
    return machine


def logs(hulld, name, query=""):
    return hulld.get(f"/v1/machines/{name}/logs?{query}").body.decode()


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def monitors(hulld, machine):
    """How many monitors run for that machine."""
    count = 0
    for entry in os.listdir("/proc"):
        try:
            words = open(f"/proc/{entry}/cmdline", "rb").read().split(b"\0") if entry.isdigit() else []
        except OSError:
            continue
        count += str(BUILD / "hull-vmm").encode() in words and machine["id"].encode() in words and alive(entry)
    return count


@pytest.mark.parametrize("status", [0, 7])
def test_a_workload_ends_with_its_status_and_output(hulld, status):
    name = f"exit{status}"
    assert hulld.request("PUT", "/v1/secrets/WHO", {"value": "inside"}).status in (200, 201)
    machine = start(hulld, name, ["/bin/sh", "-c", f"echo $HOW $WHO; exit {status}"], "stopped", env={"HOW": "from"}, secrets=["WHO"])
    assert machine["exit_status"] == status and machine["cause"]["code"] == "poweroff"
    assert machine["pid"] is None
    assert "from inside\n" in logs(hulld, name)
    hulld.delete(f"/v1/machines/{name}")


def test_what_a_machine_writes_is_there_when_it_starts_again_with_another_image_and_environment(hulld, tmp_path):
    start(hulld, "mark", ["/srv/mark"], "stopped")
    hulld.image("newer", make_erofs(tmp_path, {"srv/mark": MARK + "echo $WHO\n"}))
    changed = hulld.request("PATCH", "/v1/machines/mark", '{"image": "newer", "env": {"WHO": "changed"}}',
                            headers={"Content-Type": "application/merge-patch+json"})
    assert changed.status == 200 and changed.json["pending"] == [], changed
    hulld.post("/v1/machines/mark/start")
    hulld.wait("mark", "stopped,failed", BOOT)
    assert re.findall(r"^\d+$|^changed$", logs(hulld, "mark"), re.M) == ["1", "2", "changed"]
    hulld.delete("/v1/machines/mark")


def test_stop_asks_the_workload_first(hulld):
    start(hulld, "polite", ["/bin/sleep", "1000"], stop={"signal": "SIGINT", "timeout_s": 60})
    assert hulld.post("/v1/machines/polite/stop").json["state"] == "stopping"
    machine = hulld.wait("polite", "stopped", BOOT)
    assert machine["cause"]["code"] == "poweroff" and machine["exit_status"] == 128 + signal.SIGINT
    hulld.delete("/v1/machines/polite")


def test_it_sleeps_until_somebody_comes_also_while_hulld_is_down(hulld):
    port = free_port()
    start(hulld, "sleepy", ["/srv/talk"], idle={"after_s": 1}, ports=[{"host": port, "guest": 7}])
    machine = hulld.wait("sleepy", "asleep,failed", BOOT)
    assert machine["cause"]["code"] == "idle" and machine["pid"] is None, machine
    hulld.kill()
    came = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=BOOT) as client:
        client.sendall(b"hello")
        hulld.start()
        assert hulld.wait("sleepy", "running,failed", BOOT)["state"] == "running"
        answer = None
        with contextlib.suppress(ConnectionResetError):
            answer = client.recv(100)
        assert answer == b"hello" or time.monotonic() - came > HELD_S
    hulld.delete("/v1/machines/sleepy?force=1")


def test_kill_needs_nobody_inside(hulld):
    machine = start(hulld, "deaf", ["/srv/ignore"])
    assert alive(machine["pid"])
    killed = hulld.post("/v1/machines/deaf/kill").json
    assert (killed["state"], killed["cause"]["code"]) == ("stopped", "killed")
    assert not alive(machine["pid"])
    hulld.delete("/v1/machines/deaf")


def test_a_stop_that_runs_out_of_time_kills(hulld):
    start(hulld, "late", ["/srv/ignore"])
    hulld.post("/v1/machines/late/stop", {"timeout_s": 0})
    assert hulld.wait("late", "stopped", 30)["cause"]["code"] == "killed"
    hulld.delete("/v1/machines/late")


def test_stop_works_while_it_starts_and_delete_in_any_state(hulld):
    create(hulld, "early", ["/bin/sleep", "1000"])
    hulld.post("/v1/machines/early/start")
    wait_until(lambda: hulld.machine("early")["pid"], "the monitor is there")
    assert hulld.post("/v1/machines/early/stop").status == 200
    assert hulld.wait("early", "stopped", 30)["cause"]["code"] == "stopped"
    hulld.post("/v1/machines/early/start")
    machine = hulld.machine("early")
    assert hulld.delete("/v1/machines/early").json["code"] == "wrong_state"
    assert hulld.delete("/v1/machines/early?force=1").status == 204
    assert monitors(hulld, machine) == 0
    assert not (hulld.state / "machines" / machine["id"]).exists()


def test_a_guest_that_powers_off_has_no_status(hulld):
    machine = start(hulld, "off", ["/bin/poweroff", "-f"], "stopped")
    assert (machine["exit_status"], machine["cause"]["code"], machine["restarts"]) == (None, "poweroff", 0)
    hulld.delete("/v1/machines/off")


def test_a_reset_boots_again(hulld):
    create(hulld, "reset", ["/bin/sh", "-c", "echo b > /proc/sysrq-trigger; sleep 1000"])
    hulld.post("/v1/machines/reset/start")
    wait_until(lambda: hulld.machine("reset")["restarts"] >= 1, "it has booted again", BOOT)
    assert hulld.delete("/v1/machines/reset?force=1").status == 204


def test_a_panic_fails_the_machine(hulld):
    machine = start(hulld, "panic", ["/bin/sh", "-c", "echo c > /proc/sysrq-trigger; sleep 1000"], "failed")
    assert machine["cause"]["code"] == "panic"
    hulld.delete("/v1/machines/panic")


def test_on_failure_restarts_until_the_retries_are_over(hulld):
    create(hulld, "again", ["/bin/sh", "-c", "exit 3"], restart={"policy": "on-failure", "max_retries": 1})
    hulld.post("/v1/machines/again/start")
    assert len(logs(hulld, "again", "source=console&follow=1")) > 0
    machine = hulld.machine("again")
    assert (machine["state"], machine["exit_status"], machine["restarts"]) == ("stopped", 3, 1)
    hulld.delete("/v1/machines/again")


def test_follow_sends_lines_as_they_come_and_ends_with_the_machine(hulld):
    start(hulld, "count", ["/srv/count"])
    connection = Connection(hulld.socket)
    connection.request("GET", "/v1/machines/count/logs?follow=1&tail=1")
    response = connection.getresponse()
    first = response.readline()
    assert re.fullmatch(rb"line \d+\n", first)
    assert int(response.readline().split()[1]) == int(first.split()[1]) + 1
    hulld.post("/v1/machines/count/kill")
    response.read()
    connection.close()
    assert logs(hulld, "count").startswith("line 0\nline 1\n")
    assert len(logs(hulld, "count", "tail=1").splitlines()) == 1
    hulld.delete("/v1/machines/count")


def test_a_workload_that_says_too_much_is_heard_to_the_end(hulld):
    say = "yes 'something to say' | head -c 25500000; echo the end"
    machine = start(hulld, "loud", ["/bin/sh", "-c", say], "stopped")
    log = hulld.state / "machines" / machine["id"] / "workload.log"
    assert log.stat().st_size > 24 << 20
    assert log.stat().st_blocks * 512 <= 18 << 20
    kept = logs(hulld, "loud").splitlines()
    assert set(kept[:-1]) == {"something to say"} and kept[-1] == "the end"
    hulld.delete("/v1/machines/loud")


def test_a_published_port_reaches_the_workload(hulld):
    port = free_port()
    start(hulld, "serve", ["/srv/serve"], ports=[{"host": port, "guest": 80}, {"hostname": "serve.localhost", "guest": 80}], network="default")
    url = f"http://127.0.0.1:{port}/count"
    by_name = urllib.request.Request(f"http://127.0.0.1:{hulld.http}/count", headers={"Host": "serve.localhost"})

    def is_served():
        with contextlib.suppress(urllib.error.HTTPError):
            return urllib.request.urlopen(by_name, timeout=BOOT).read().decode() == COUNT
    assert urllib.request.urlopen(url, timeout=BOOT).read().decode() == COUNT
    wait_until(is_served, "it is served by host name, too")
    hulld.kill()
    assert urllib.request.urlopen(url, timeout=BOOT).read().decode() == COUNT, "without hulld"
    assert is_served(), "and so by name"
    hulld.start()
    assert hulld.machine("serve")["state"] == "running"
    # It asks who the gateway is, at least; and its program has come from a disk.
    hulld.post("/v1/machines/serve/exec", {"command": ["ping", "-c", "1", "-W", "5", "10.0.2.2"]})
    told = dict(re.findall(r'^hull_machine_(\w+)_total{.*machine="serve"} (\d+)$', hulld.get("/metrics").body.decode(), re.MULTILINE))
    assert all(int(told[name]) > 0 for name in ("network_sent_packets", "network_received_packets", "disk_reads")), told
    assert int(told["network_sent_bytes"]) >= 42 * int(told["network_sent_packets"]), "the least that a packet has is ARP's"
    assert hulld.delete("/v1/machines/serve?force=1").status == 204


def test_a_network_that_fails_is_why_a_start_has(hulld):
    passt = hulld.folder / "bin/passt"
    passt.write_text("#!/bin/sh\necho no namespaces today >&2\nexit 1\n")
    passt.chmod(0o755)
    try:
        machine = start(hulld, "cut-off", ["true"], "failed", network="default")
    finally:
        passt.unlink()
    assert machine["cause"] == {"code": "start_failed", "message": "passt ended before the machine was up: no namespaces today"}
    assert monitors(hulld, machine) == 0


def test_machines_outlive_hulld_and_are_adopted(hulld):
    before = start(hulld, "outlive", ["/srv/count"])
    hulld.kill()
    assert alive(before["pid"])
    hulld.start()
    after = hulld.machine("outlive")
    assert (after["state"], after["pid"], after["started_at"]) == ("running", before["pid"], before["started_at"])
    hulld.kill()
    os.kill(before["pid"], signal.SIGKILL)
    wait_until(lambda: not alive(before["pid"]), "the monitor is gone")
    hulld.start()
    machine = hulld.machine("outlive")
    assert (machine["state"], machine["cause"]["code"]) == ("failed", "monitor_died")
    hulld.delete("/v1/machines/outlive")


def test_logs_and_open_connections_go_on_without_hulld(hulld):
    port = free_port()
    machine = start(hulld, "talk", ["/srv/talk"], ports=[{"host": port, "guest": 7}, {"host": port, "guest": 7, "protocol": "udp"}], stop={"timeout_s": 240, "drain_s": 120})
    log = hulld.state / "machines" / machine["id"] / "workload.log"

    def says(text):
        client.sendall(text)
        assert client.recv(len(text), socket.MSG_WAITALL) == text

    def echoes(text):
        datagrams.send(text)
        try:
            while (got := datagrams.recv(65536)) != text and got == b"by UDP":
                pass  # of a try that came late
            return got == text
        except TimeoutError:  # it is UDP: the program may not have been there
            return False

    with socket.create_connection(("127.0.0.1", port), timeout=BOOT) as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect(("127.0.0.1", port))
        datagrams.settimeout(1)
        wait_until(lambda: echoes(b"by UDP"), "the echo", BOOT)
        datagrams.settimeout(BOOT)
        says(b"with hulld")
        hulld.kill()
        assert echoes(b"") and echoes(b"u" * 65507)
        said = log.read_text().count("line ")
        says(b"without it")
        wait_until(lambda: log.read_text().count("line ") > said + 1, "the log grows", BOOT)
        hulld.start()
        says(b"with another")
        hulld.post("/v1/machines/talk/stop")
        says(b"that waits for its end")
        assert hulld.machine("talk")["state"] == "stopping"
    assert hulld.wait("talk", "stopped", BOOT)["exit_status"] == 128 + signal.SIGTERM
    lines = logs(hulld, "talk").splitlines()
    assert len(lines) > said + 1 and lines == [f"line {n}" for n in range(len(lines))]
    hulld.delete("/v1/machines/talk?force=1")


def test_a_host_that_goes_down_asks_the_workload_first(hulld):
    start(hulld, "down", ["/bin/sh", "-c", "trap 'echo bye; exit 3' TERM; echo ready; while true; do sleep 0.1; done"])
    wait_until(lambda: "ready" in logs(hulld, "down"), "it listens to signals", BOOT)
    hulld.kill(signal.SIGPWR)
    assert hulld.process.returncode == 0
    hulld.start()
    machine = hulld.machine("down")
    assert (machine["state"], machine["exit_status"], machine["cause"]["code"]) == ("stopped", 3, "poweroff")
    assert logs(hulld, "down") == "ready\nbye\n"
    hulld.delete("/v1/machines/down")


def test_a_stop_goes_on_after_a_crash(hulld):
    start(hulld, "stopping", ["/srv/ignore"])
    hulld.post("/v1/machines/stopping/stop", {"timeout_s": 5})
    hulld.restart()
    assert hulld.wait("stopping", "stopped", BOOT)["state"] == "stopped"
    hulld.delete("/v1/machines/stopping")


def test_sigkill_at_any_instant_of_a_start_leaves_one_monitor(hulld):
    """Sooner and later into the start: before the disk is made, between fork and exec, while it boots."""
    create(hulld, "crash", ["/bin/sleep", "1000"])
    for delay_ms in (0, 5, 10, 20, 40, 80, 160, 320):
        assert hulld.post("/v1/machines/crash/start").status == 200
        threading.Event().wait(delay_ms / 1000)
        hulld.restart()
        machine = hulld.wait("crash", "running,failed", BOOT) if delay_ms == 320 else hulld.machine("crash")
        assert machine["state"] in ("starting", "running"), machine
        machine = wait_until(lambda: hulld.machine("crash") if hulld.machine("crash")["pid"] else None, "a monitor")
        wait_until(lambda: monitors(hulld, machine) == 1, "it is executed")
        assert hulld.post("/v1/machines/crash/kill").json["state"] == "stopped"
        assert monitors(hulld, machine) == 0
    hulld.delete("/v1/machines/crash")


@pytest.fixture
def own_host():
    """A host of `kvmhost up` where /dev/kvm is usable, which is this machine: (its folder, kvmhost(verb, ...))."""
    folder = Path(tempfile.mkdtemp(prefix="hull-"))  # short: socket addresses are
    env = {name: value for name, value in os.environ.items() if name != "KVMHOST_EMULATE"}
    env.update(XDG_CONFIG_HOME=str(folder / "config"), HULL_START_TIMEOUT_S=str(BOOT))

    def kvmhost(*words):
        done = subprocess.run([Path(__file__).resolve().parents[2] / "tools" / "kvmhost", *words, "--state", folder], env=env,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield folder, kvmhost
    kvmhost("down")
    shutil.rmtree(folder)


def processes_of(folder):
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if str(folder).encode() in open(f"/proc/{entry}/cmdline", "rb").read() and alive(entry):
                found.append(entry)
        except OSError:
            continue
    return found


def test_down_ends_all_that_runs_on_this_machine_too(own_host, hulld):
    folder, kvmhost = own_host
    assert json.loads(kvmhost("up", "--hull", str(BUILD)))["url"].startswith("http://127.0.0.1:")
    here = Hulld.__new__(Hulld)
    here.socket = folder / "run" / "hulld" / "hulld.sock"
    here.image("busybox", (hulld.folder / "image.erofs").read_bytes())
    port = free_port()
    start(here, "web", ["/bin/sh", "-c", "trap 'echo bye; exit' TERM; while true; do sleep 0.1; done"],
          ports=[{"host": port, "guest": 80}])
    assert len(processes_of(folder)) >= 3  # the relay, hulld, hull-ingress, the monitor
    kvmhost("down")
    assert processes_of(folder) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    kvmhost("up", "--hull", str(BUILD))
    assert here.machine("web")["state"] == "stopped" and logs(here, "web").endswith("bye\n")
