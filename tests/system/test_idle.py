"""Machines that sleep when nobody uses them, and wake when somebody comes. hulld, hull-ingress, HAProxy and the agent are real, a machine is this
host (test_exec.py), so that what serves in it is a server of this file's; test_hulld_kvm.py has one that boots."""
import contextlib
import os
import signal
import socket
import sqlite3
import sys
import threading
import urllib.request

import pytest

from free_ports import free_port
from hulld_fixtures import DEADLINE, wait_until
from test_exec import Stream, execute, finished, hull, start_alone
from test_orders import seconds
from test_ports import ingress_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent is root")
SLEEPS = {"idle": {"after_s": 1}}
AWAKE_S = 2  # so long nobody falls asleep who should after a second


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    http = free_port()
    daemon = start_alone(tmp_path_factory.mktemp("hulld"), "--http", f"127.0.0.1:{http}")
    daemon.http = http
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def echo():
    """The port of what serves in every machine: TCP and UDP, says what it is told; HTTP gets an answer, too."""
    tcp, udp = socket.create_server(("127.0.0.1", port := free_port()), backlog=512), socket.socket(type=socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", port))

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nawake" if data.startswith(b"GET") else data)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(tcp.accept()[0],), daemon=True).start()

    def answer():
        with contextlib.suppress(OSError):
            while True:
                data, client = udp.recvfrom(65536)
                udp.sendto(data, client)

    for one in accept, answer:
        threading.Thread(target=one, daemon=True).start()
    yield port
    tcp.close()
    udp.close()


class Machine:
    def __init__(self, hulld, name, *ports, idle=1, action=None, **spec):
        action = {"action": action} if action else {}
        self.hulld, self.name = hulld, name
        answer = hulld.post("/v1/machines", {"name": name, "image": "any", "command": ["any"], "network": "none", "disk_mib": 16,
                                             "ports": list(ports), **({"idle": {"after_s": idle, **action}} if idle else {}), **spec})
        assert answer.status == 201, answer
        self.cursor = hulld.get("/v1/events?since_s=0").json["cursor"]

    def start(self):
        assert self.hulld.post(f"/v1/machines/{self.name}/start").status == 200
        assert self.hulld.wait(self.name, "running,failed")["state"] == "running", self.shown
        return self

    def falls_asleep(self):
        machine = self.hulld.wait(self.name, "asleep")
        assert machine["asleep"] and machine["state"] == "stopped" and machine["cause"]["code"] == "idle", machine
        return self

    def patch(self, text):
        answer = self.hulld.request("PATCH", f"/v1/machines/{self.name}", text, headers={"Content-Type": "application/merge-patch+json"})
        assert answer.status == 200, answer

    @property
    def shown(self):
        return self.hulld.machine(self.name)

    @property
    def stays_awake(self):
        return self.hulld.get(f"/v1/machines/{self.name}/wait?state=asleep,stopping&timeout_s={AWAKE_S}").status == 408

    def events(self):
        """What has happened to it since it was made, but for its operations."""
        page = self.hulld.get(f"/v1/events?after={self.cursor}&machine={self.name}&type=machine&limit=1000").json
        return [event["type"].removeprefix("machine.") for event in page["items"]]


@pytest.fixture
def make(hulld):
    names = []

    def made(name, *ports, **spec):
        names.append(name)
        return Machine(hulld, name, *ports, **spec)

    yield made
    for name in names:
        hulld.delete(f"/v1/machines/{name}?force=1")


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)


def says(client, text=b"hello"):
    """It is answered: b"" when the connection is closed instead."""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        client.sendall(text)
        return client.recv(100)
    return b""


def answers(port):
    with contextlib.suppress(ConnectionRefusedError), connect(port) as client:
        return says(client) == b"hello"


def test_it_sleeps_when_nobody_is_there_and_wakes_when_somebody_comes(hulld, make, echo):
    web = make("web", {"host": (port := free_port()), "guest": echo})
    with connect(port) as client:
        web.start()
        assert says(client) == b"hello"
        assert web.stays_awake and says(client, b"still") == b"still"
    web.falls_asleep()
    stop = hulld.get("/v1/operations?machine=web&kind=stop").json["items"][0]
    assert (stop["state"], stop["requested_by"]) == ("succeeded", "hulld")
    assert b"asleep" in finished(hull(hulld, "ps"))[0]
    assert [m["name"] for m in hulld.get("/v1/machines?state=asleep").json["items"]] == ["web"]
    with connect(port) as client:
        assert says(client) == b"hello"
        assert not web.shown["asleep"] and web.shown["state"] == "running" and web.shown["restarts"] == 0
    web.falls_asleep()
    assert web.events() == ["starting", "running", "stopping", "stopped", "asleep", "waking", "starting", "running", "stopping", "stopped", "asleep"]
    assert 'state="asleep"} 1' in (metrics := hulld.get("/metrics").body.decode()) and "hull_machine_wakes_total 1\n" in metrics


def test_a_datagram_wakes_it_and_is_answered(make, echo):
    name = make("name", {"host": (port := free_port()), "guest": echo, "protocol": "udp"}).start()
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(DEADLINE)
        client.connect(("127.0.0.1", port))
        for text in b"first", b"second":  # of the same client, whose session of before has ended
            assert says(client, text) == text
            name.falls_asleep()
        assert says(client, b"third") == b"third"


def test_a_request_by_host_name_wakes_it_and_one_that_is_awake_is_preferred(hulld, make, echo):
    one = make("one", {"hostname": "idle.localhost", "guest": echo}).start().falls_asleep()
    url = urllib.request.Request(f"http://127.0.0.1:{hulld.http}/", headers={"Host": "idle.localhost"})

    def fetched():
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=DEADLINE) as answer:
            return answer.read() == b"awake"

    assert wait_until(fetched, "HAProxy has been told of the name")
    assert one.events().count("waking") == 1
    two = make("two", {"hostname": "idle.localhost", "guest": echo}).start()
    one.falls_asleep()
    two.falls_asleep()
    one.patch('{"idle": null}')
    hulld.post("/v1/machines/one/start")
    hulld.wait("one", "running")
    hulld.post("/v1/machines/one/exec", {"command": ["/bin/true"]})
    assert wait_until(lambda: f"{two.shown['id']}-{echo}" not in served(hulld), "HAProxy has been told who is awake")
    assert all(fetched() for _ in range(8)) and two.shown["asleep"]


def served(hulld):
    """The servers that HAProxy may choose from."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(hulld.run / "http" / "haproxy.sock"))
        client.sendall(b"show servers state\n")
        lines = client.makefile().read().splitlines()
    return {words[3] for words in map(str.split, lines) if len(words) > 6 and words[1].startswith("b") and words[6] == "0"}


def test_what_somebody_stopped_is_not_woken(hulld, make, echo):
    web = make("stays", {"host": (port := free_port()), "guest": echo}).start().falls_asleep()
    assert hulld.post("/v1/machines/stays/stop").json["asleep"] is False
    with connect(port) as client:
        client.settimeout(10)  # who waits does so for 30 s
        assert client.recv(1) == b""
    assert web.shown["state"] == "stopped" and web.events()[-2:] == ["asleep", "stopped"]
    stopping, = hulld.get(f"/v1/events?after={web.cursor}&machine=stays&type=machine.stopping").json["items"]
    assert stopping["data"]["cause"] == {"code": "idle", "message": "nobody used it"}
    web.start().falls_asleep()
    hulld.restart()
    assert hulld.post("/v1/machines/stays/kill").json["asleep"] is False
    hulld.restart()
    assert web.shown["asleep"] is False


def test_who_comes_while_hulld_is_down_is_served_once_it_is_back(hulld, make, echo):
    web = make("down", {"host": (port := free_port()), "guest": echo}).start().falls_asleep()
    hulld.kill()
    with connect(port) as client:
        client.sendall(b"early")
        hulld.start()
        assert client.recv(100) == b"early"
    assert web.events().count("waking") == 1
    web.falls_asleep()


def test_everybody_is_served_though_hulld_is_killed_again_and_again(hulld, make, echo):
    """While it runs, is put to sleep, sleeps and is woken, wherever that is by then."""
    web = make("killed", {"host": (port := free_port()), "guest": echo}).start()
    answers, over = [], threading.Event()

    def come():
        while not over.is_set():
            with connect(port) as client:
                answers.append(says(client))
            over.wait(1.05)  # it is just being put to sleep, or about to be

    visitor = threading.Thread(target=come)
    visitor.start()
    for moment in range(8):
        over.wait(0.3 + 0.13 * moment)
        hulld.restart()
    over.set()
    visitor.join()
    assert len(answers) > 2 and set(answers) == {b"hello"}
    web.falls_asleep()
    assert not list(agents(hulld, web.shown["id"]))


def agents(hulld, machine):
    """The processes that are the machine of that id."""
    name = machine.encode()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/cmdline", "rb") as line:
            if name in (words := line.read().split(b"\0")) and str(hulld.options["--vmm"]).encode() in words:
                yield entry


def test_what_ran_when_the_host_went_down_wakes_when_somebody_comes(hulld, make, echo):
    web = make("host", {"host": (port := free_port()), "guest": echo}, idle=60).start()
    gone = make("gone", {"host": free_port(), "guest": echo}, idle=60).start()
    hulld.post("/v1/machines/gone/stop")
    hulld.wait("gone", "stopped")
    hulld.kill(signal.SIGPWR)
    hulld.start()
    assert web.shown["asleep"] and web.shown["cause"]["code"] == "poweroff" and not gone.shown["asleep"]
    wait_until(lambda: answers(port), "hull-ingress has the port again, and it is woken")
    machine = web.shown["id"]
    hulld.kill()  # and now its power fails
    for process in agents(hulld, machine):
        os.kill(int(process), signal.SIGKILL)
    with contextlib.closing(sqlite3.connect(hulld.state / "hull.db")) as database, database:
        database.execute("UPDATE machines SET boot_id = 'another' WHERE name = 'host'")
    hulld.start()
    assert web.shown["asleep"] and web.shown["cause"]["code"] == "host_restarted"
    wait_until(lambda: answers(port), "it is woken")


def test_a_crowd_starts_it_once(make, echo):
    web = make("crowd", {"host": (port := free_port()), "guest": echo}, idle=3).start().falls_asleep()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(port)) for _ in range(1000)]
        assert {says(client) for client in clients} == {b"hello"}
        assert web.events().count("waking") == web.events().count("asleep") == 1


def test_one_that_cannot_be_woken_says_why_and_is_tried_again_later(hulld, make, echo):
    web = make("broken", {"host": (port := free_port()), "guest": echo}).start().falls_asleep()
    monitor = hulld.options["--vmm"]
    monitor.rename(away := monitor.with_suffix(".away"))
    with connect(port) as first, connect(port) as second:
        assert says(first) == says(second) == b""
    assert (web.shown["state"], web.shown["asleep"]) == ("failed", True)
    assert web.shown["cause"]["code"] == "start_failed" and "the monitor cannot be used" in web.shown["cause"]["message"]
    with connect(port) as third:
        assert says(third) == b""
    away.rename(monitor)
    wait_until(lambda: answers(port), "it is tried again")
    tries = [seconds(event["at"]) for event in hulld.get(f"/v1/events?after={web.cursor}&machine=broken&type=machine.waking").json["items"]]
    assert all(later - earlier > 0.9 for earlier, later in zip(tries, tries[1:])), "not even tried within a second"
    assert web.events().count("failed") == len(tries) - 1


@contextlib.contextmanager
def held_up(machine):
    """It is put to sleep, but does not end before this does."""
    pid = machine.shown["pid"]
    os.kill(pid, signal.SIGSTOP)
    machine.patch('{"idle": {"after_s": 1}}')
    machine.hulld.wait(machine.name, "stopping")
    yield
    os.kill(pid, signal.SIGCONT)


def test_who_comes_while_it_is_put_to_sleep_has_it_started_again(hulld, make, echo):
    web = make("late", {"host": (port := free_port()), "guest": echo}, idle=None, stop={"timeout_s": 60}).start()
    with held_up(web):
        client = connect(port)
        wait_until(lambda: any(port["connections"] for port in ingress_of(hulld)[1]), "somebody waits")
        assert web.shown["state"] == "stopping"
    with client:
        assert says(client) == b"hello"
        assert web.events() == ["starting", "running", "updated", "stopping", "waking", "starting", "running"]


def test_a_start_of_one_that_is_put_to_sleep_is_one(hulld, make, echo):
    web = make("again", {"host": free_port(), "guest": echo}, idle=None, stop={"timeout_s": 60}).start()
    with held_up(web):
        assert hulld.post("/v1/machines/again/start").status == 200
        web.patch('{"idle": {"after_s": 60}}')
    assert hulld.wait("again", "running")["asleep"] is False


def test_what_is_executed_keeps_it_awake(hulld, make):
    box = make("box", idle=None).start()  # without ports: nobody wakes it but a start
    stream = Stream(hulld, "box", "/bin/cat").switch()
    box.patch('{"idle": {"after_s": 1}}')
    assert box.stays_awake
    stream.sock.close()
    box.falls_asleep().patch('{"idle": null}')
    box.start()
    assert execute(hulld, "box", "/bin/true").status == 200
    box.patch('{"idle": {"after_s": 1}}')
    box.falls_asleep()


def test_what_a_machine_depends_on_is_awake_as_long_as_it_is_and_wakes_with_it(hulld, make, echo):
    db = make("db", {"host": free_port(), "guest": echo}).start()
    web = make("front", {"host": (port := free_port()), "guest": echo}, depends_on=[{"machine": "db"}]).start()
    with connect(port) as client:
        assert says(client) == b"hello" and db.stays_awake
    web.falls_asleep()
    db.falls_asleep()
    with connect(port) as client:
        assert says(client) == b"hello" and db.shown["state"] == "running"


def test_idle_is_changed_at_once(make, echo):
    web = make("changed", {"host": (port := free_port()), "guest": echo}, idle=None).start()
    web.patch('{"idle": {"after_s": 1}}')
    assert web.shown["pending"] == [] and web.shown["idle"] == {"after_s": 1, "action": "stop"}
    web.falls_asleep()
    with connect(port) as client:
        assert says(client) == b"hello"
        web.patch('{"idle": null}')
    assert web.stays_awake and "idle" not in web.shown


def test_a_drained_host_wakes_nobody(hulld, make, echo):
    web = make("drained", {"host": (port := free_port()), "guest": echo}).start().falls_asleep()
    hulld.post("/v1/host/drain")
    with connect(port) as client:
        assert says(client) == b""
    assert web.shown["asleep"]
    hulld.post("/v1/host/undrain")
    wait_until(lambda: answers(port), "it is woken")


OLD_INGRESS = """#!{python}
import json, os, socket, subprocess, sys
path = sys.argv[sys.argv.index("--socket") + 1]
subprocess.Popen(["{ingress}", "--socket", path + ".new", "--idle-seconds", "1"])
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
while True:
    asker, knows = listener.accept()[0], socket.socket(socket.AF_UNIX)
    while knows.connect_ex(path + ".new") != 0:
        pass
    answers = knows.makefile()
    for line in asker.makefile():
        if (op := json.loads(line)["op"]) == "sleep":
            asker.sendall(b'{{"ok":false,"code":"invalid","message":"op: must be one of publish, unpublish"}}\\n')
            continue
        knows.sendall(line.encode())
        asker.sendall(answers.readline().encode())
        if op == "shutdown":
            os.unlink(path)
            sys.exit()
"""


def test_of_a_hull_ingress_that_knows_no_sleep_machines_run_on(tmp_path, echo):
    old = tmp_path / "ingress"
    daemon = start_alone(tmp_path)
    old.write_text(OLD_INGRESS.format(python=sys.executable, ingress=daemon.options["--ingress"]))
    old.chmod(0o755)
    daemon.options["--ingress"] = old
    daemon.restart()
    web = Machine(daemon, "old", {"host": (port := free_port()), "guest": echo}).start()
    assert web.stays_awake
    with connect(port) as client:
        assert says(client) == b"hello"
    assert daemon.log.read_text().count("a machine is not put to sleep: hull-ingress, perhaps an older one") == 1
    daemon.stop()


@pytest.mark.parametrize("idle, field", [({}, "idle.after_s"), ({"after_s": 0}, "idle.after_s"), ({"after_s": 2592001}, "idle.after_s"),
                                         ({"after_s": 1, "action": "nap"}, "idle.action"), ({"after_s": 1, "until": 2}, "idle.until"),
                                         (60, "idle")])
def test_what_makes_no_sense_is_refused_by_field(hulld, idle, field):
    answer = hulld.post("/v1/machines", {"name": "odd", "image": "any", "command": ["any"], "idle": idle})
    assert answer.status == 400 and answer.json["field"] == field, answer


def test_the_command_line_says_how(hulld, make, echo):
    web = make("told", {"host": free_port(), "guest": echo}, idle=None)
    assert finished(hull(hulld, "update", "told", "--idle", "2h"))[2] == 0
    assert web.shown["idle"] == {"after_s": 7200, "action": "stop"}
    assert finished(hull(hulld, "update", "told", "--no-idle"))[2] == 0
    assert "idle" not in web.shown
    output, error, status = finished(hull(hulld, "run", "-d", "--name", "shut", "--network", "none", "--idle", "5m", "any", "any"))
    assert status == 0 and b"hull: shut has no port that somebody could wake it by; once it is asleep, `hull start shut` does\n" in error, error
    assert hulld.delete("/v1/machines/shut?force=1").status == 204
    for wrong in "0", "5x", "-1", "s", "1h30m", "", "99999999999":
        output, error, status = finished(hull(hulld, "update", "told", "--idle", wrong))
        assert status == 2 and b"--idle" in error, (output, error)
