"""Machines that are suspended, and go on: hulld, hull-vmm, hull-init and a guest's kernel, on KVM. What the guest counts in its memory tells whether
it went on where it was: a number that is missing was lost, and one that comes twice was lived twice."""
import contextlib
import os
import re
import socket
import subprocess
import threading
import time

import pytest

from free_ports import free_port
from hulld_fixtures import BUILD, Hulld, make_erofs, wait_until
from test_exec import ran
from test_hulld_kvm import BOOT, HELD_S, monitors

pytestmark = pytest.mark.kvm
CREW = 4
OUTSIDE = "10.99.77.1"  # of this host, on no network of anybody's
COUNT = """#!/bin/sh
# $1: µs from a line to the next
nc -ll -p 7 -e cat &
exec 7>/held
n=0
while true; do
	[ ! -e /run/late ] || echo b > /proc/sysrq-trigger
	echo line $n; echo $n >&7; n=$((n+1)); usleep ${1:-100000}
done
"""
HOOKS = {"before-snapshot": """#!/bin/sh
[ ! -e /run/hang ] || sleep 1000
[ ! -e /tmp/refuse ] || { echo the cache is not written; exit 3; }
[ ! -e /run/reset ] || echo b > /proc/sysrq-trigger
[ ! -e /run/armed ] || touch /run/late
echo before >> /tmp/hooks
""",
         "after-restore": "#!/bin/sh\necho after >> /tmp/hooks\n"}


def make_image(folder):
    hooks = folder / "rootfs/etc/hull/hooks"
    hooks.mkdir(parents=True)
    for name, text in HOOKS.items():
        (hooks / name).write_text(text)
        (hooks / name).chmod(0o755)
    return make_erofs(folder, {"srv/count": COUNT})


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return make_image(tmp_path_factory.mktemp("image"))


def begin(folder, content):
    daemon = Hulld(folder, env={"HULL_START_TIMEOUT_S": str(BOOT)}).start()
    daemon.image("busybox", content, command=["/srv/count"])
    return daemon


@pytest.fixture(scope="module")
def hulld(tmp_path_factory, content):
    daemon = begin(tmp_path_factory.mktemp("hulld"), content)
    yield daemon
    daemon.stop()


class Machine:
    """One that counts, and serves an echo at its port 7."""

    def __init__(self, hulld, name, project=None, starts=True, **spec):
        self.hulld, self.name, self.headers = hulld, name, {"Hull-Project": project} if project else {}
        answer = self.asked("POST", "/v1/machines", {"name": name, "image": "busybox", "network": "none", "disk_mib": 64, "memory_mib": 128, **spec})
        assert answer.status == 201, answer
        self.id = answer.json["id"]
        self.folder = hulld.state / "machines" / self.id
        if starts:
            self.go("start")

    def asked(self, method, path, body=None, **headers):
        return self.hulld.request(method, path, body, headers={**self.headers, **headers}, timeout=BOOT + 10)

    def verb(self, verb, body=None):
        return self.asked("POST", f"/v1/machines/{self.id}/{verb}", body)

    def go(self, verb, *states):
        """Does it, and waits until it has come to one of the states, or runs."""
        answer = self.verb(verb)
        assert answer.status == 200, answer
        return self.wait(*(states or ("running",)))

    def wait(self, *states):
        answer = self.asked("GET", f"/v1/machines/{self.id}/wait?state={','.join({*states, 'failed'})}&timeout_s={BOOT}")
        assert answer.status == 200, (answer, self.shown, self.hulld.log.read_text()[-2000:])
        assert answer.json["state"] in states or "asleep" in states, (answer.json["state"], answer.json["cause"], self.said()[-20:], self.monitor_says())
        return answer.json

    def suspended(self):
        """Suspends it, and looks whether it is no more than two files."""
        shown = self.go("suspend", "suspended", "running")
        assert shown["state"] == "suspended", (shown["cause"], self.monitor_says())
        assert shown["pid"] is None and not monitors(self.hulld, shown) and sorted(p.name for p in self.saved.iterdir()) == ["memory", "state"]
        return shown

    @property
    def shown(self):
        return self.asked("GET", f"/v1/machines/{self.id}").json

    @property
    def saved(self):
        return self.folder / "suspended"

    @property
    def nothing_is_saved(self):
        return not self.saved.exists() or not list(self.saved.iterdir())

    def monitor_says(self):
        return (self.folder / "vmm.log").read_text()[-1500:]

    def said(self):
        return (self.folder / "workload.log").read_text(errors="replace").splitlines()

    def counted(self):
        return [int(line.split()[1]) for line in self.said() if re.fullmatch(r"line \d+", line)]

    def goes_on(self):
        """It counts on; what it has counted in this run until now, without a gap."""
        before = len(self.counted())
        wait_until(lambda: len(self.counted()) > before + 1, f"{self.name} counts", BOOT)
        counted = self.counted()
        run = counted[len(counted) - 1 - counted[::-1].index(0):]
        assert run == list(range(len(run))), run
        return run

    def does(self, script):
        return ran(self.asked("POST", f"/v1/machines/{self.id}/exec", {"command": ["sh", "-c", script]}))[0]

    def events(self, after=0):
        page = self.asked("GET", f"/v1/events?after={after}&machine={self.id}&type=machine&limit=1000").json
        return [event["type"].removeprefix("machine.") for event in page["items"]]

    def cursor(self):
        return self.asked("GET", "/v1/events?since_s=0").json["cursor"]

    def delete(self):
        self.asked("DELETE", f"/v1/machines/{self.id}?force=1")


@pytest.fixture(scope="module")
def outside():
    """A server of this host, by an address that is not its loopback's. The port."""
    subprocess.run(["ip", "addr", "add", f"{OUTSIDE}/32", "dev", "lo"], check=True)
    server = socket.create_server((OUTSIDE, 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                with server.accept()[0] as client:
                    client.sendall(b"from outside\n")

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.close()
    subprocess.run(["ip", "addr", "del", f"{OUTSIDE}/32", "dev", "lo"], check=True)


@pytest.fixture(scope="module")
def web(hulld, outside):
    """What most tests are of: it has a network, a volume, a secret, and a port."""
    assert hulld.post("/v1/volumes", {"name": "data", "size_mib": 64}).status == 201
    assert hulld.request("PUT", "/v1/secrets/TOKEN", {"value": "hidden"}).status in (200, 201)
    machine = Machine(hulld, "web", network="default", mounts=[{"volume": "data", "path": "/data"}], secrets=["TOKEN"],
                      ports=[{"host": (port := free_port()), "guest": 7}])
    machine.port, machine.outside = port, outside
    return machine


def hull(hulld, *words):
    done = subprocess.run([BUILD / "hull", *words], env={"PATH": os.environ["PATH"], "HULL_HOST": f"unix://{hulld.socket}"}, capture_output=True, text=True, timeout=BOOT)
    return done.stdout, done.stderr, done.returncode


def answers(port, timeout=BOOT):
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=timeout) as client:
        client.sendall(b"hello")
        return client.recv(100) == b"hello"
    return False


def test_it_goes_on_where_it_was_with_all_that_it_had(hulld, web):
    cursor = web.cursor()
    web.does("echo unsynced > /data/file; date -s @1000000000 > /dev/null")
    before = len(web.goes_on())
    assert hull(hulld, "suspend", "web") == ("web\n", "", 0)
    shown = web.suspended()  # once more is the same
    assert (shown["cause"], shown["operation"], shown["asleep"]) == (None, None, False), shown
    assert web.saved.stat().st_mode & 0o777 == 0o700 and {p.stat().st_mode & 0o777 for p in web.saved.iterdir()} == {0o600}

    assert re.search(r"^web .* suspended ", hull(hulld, "ps")[0], re.M)
    assert [m["name"] for m in hulld.get("/v1/machines?state=suspended").json["items"]] == ["web"]
    assert 'state="suspended"} 1' in hulld.get("/metrics").body.decode()
    assert hull(hulld, "exec", "web", "true")[1:] == ("hull: machine web is suspended\n      `hull resume web` first\n", 125)
    hulld.post("/v1/machines", {"name": "rival", "image": "busybox", "network": "none", "disk_mib": 64, "mounts": [{"volume": "data", "path": "/data"}]})
    rival = hulld.post("/v1/machines/rival/start")
    assert rival.status == 409 and rival.json["code"] == "volume_in_use", rival
    assert hulld.delete("/v1/machines/rival").status == 204
    assert hulld.get("/v1/volumes/data").json["attached_to"] == ["web"]

    assert hull(hulld, "resume", "web") == ("web\n", "", 0)
    assert len(web.goes_on()) > before + 1 and web.nothing_is_saved
    asked = time.time()
    assert asked - 5 < int(web.does("date +%s")) < time.time() + 5
    assert web.does("cat /data/file") == "unsynced\n" and f"{before}\n" in web.does("cat /held")
    assert answers(web.port) and web.does(f"sleep 1 | nc {OUTSIDE} {web.outside}") == "from outside\n"
    assert web.does("cat /tmp/hooks") == "before\nafter\n"
    assert web.events(cursor) == ["suspending", "suspended", "resuming", "running"]
    assert [o["state"] for o in hulld.get("/v1/operations?machine=web&kind=suspend,resume").json["items"]] == ["succeeded"] * 2


def test_nobody_uses_it_and_it_is_suspended_until_somebody_comes(hulld, web):
    assert hull(hulld, "update", "web", "--idle", "1:suspend")[2] == 0 and web.shown["idle"] == {"after_s": 1, "action": "suspend"}
    shown = web.wait("asleep")
    assert (shown["state"], shown["asleep"], shown["cause"]["code"]) == ("suspended", True, "idle"), shown
    assert "asleep (suspended)" in hull(hulld, "ps")[0]
    before = len(web.counted())
    hulld.kill()
    came = time.monotonic()
    with socket.create_connection(("127.0.0.1", web.port), timeout=BOOT) as client:
        client.sendall(b"early")
        hulld.start()
        answer = None
        with contextlib.suppress(ConnectionResetError):
            answer = client.recv(100)
        assert (answer == b"early" and len(web.goes_on()) > before) or time.monotonic() - came > HELD_S
    assert hull(hulld, "update", "web", "--no-idle")[2] == 0
    if web.shown["state"] != "running":
        web.go("resume")


def test_whenever_hulld_is_killed_it_is_lived_once(hulld, web):
    """While it is suspended, and while it is resumed, at moments that are spread over both."""
    for round, after_s in enumerate([0, 0.1, 0.5]):
        assert web.verb("suspend").status == 200
        threading.Event().wait(after_s)
        hulld.restart()
        shown = web.wait("running", "suspended")
        assert monitors(hulld, shown) == (shown["state"] == "running"), (round, shown)
        if shown["state"] == "suspended":
            assert web.verb("resume").status == 200
            threading.Event().wait(after_s)
            hulld.restart()
            shown = web.wait("running", "suspended")
            assert monitors(hulld, shown) == (shown["state"] == "running"), (round, shown)
        if shown["state"] == "suspended":
            web.go("resume")
        web.goes_on()
        assert web.nothing_is_saved, round
    assert "starting" not in web.events()[web.events().index("running"):], "it was never started anew"


@pytest.mark.parametrize("name, damage", [("state", "another byte"), ("memory", "a byte less")])
def test_what_is_damaged_is_not_resumed_but_started(hulld, web, name, damage):
    web.does("echo synced > /data/file && sync")
    web.suspended()
    path = web.saved / name
    with open(path, "r+b") as file:
        if damage == "a byte less":
            file.truncate(path.stat().st_size - 1)
        else:
            file.seek(path.stat().st_size // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
    cursor, before = web.cursor(), web.counted().count(0)
    out, err, status = hull(hulld, "resume", "web")
    assert (out, status) == ("web\n", 0) and err.startswith("hull: web: it was started anew, as it could not be resumed: "), (err, web.shown, web.events(cursor))
    assert web.shown["cause"]["code"] == "resume_failed" and "starting" in web.events(cursor), web.events(cursor)
    wait_until(lambda: web.counted().count(0) == before + 1, "it counts from the beginning", BOOT)
    web.goes_on()
    assert web.nothing_is_saved and answers(web.port) and web.does("cat /data/file") == "synced\n"


def test_what_is_not_resumed_any_more_is_thrown_away(hulld, web):
    web.suspended()
    web.go("stop", "stopped")
    assert web.nothing_is_saved
    web.go("start")
    web.suspended()
    before = web.counted().count(0)
    web.go("restart")
    wait_until(lambda: web.counted().count(0) == before + 1, "it counts from the beginning", BOOT)
    assert web.nothing_is_saved
    web.suspended()
    assert web.asked("DELETE", f"/v1/machines/{web.id}").status == 204 and not web.folder.exists()
    assert hulld.get("/v1/volumes/data").json["attached_to"] == []


@pytest.fixture(scope="module")
def theirs(hulld):
    """One of another project."""
    assert hulld.post("/v1/projects", {"name": "other"}).status == 201
    digest = hulld.get("/v1/images/busybox").json["rootfs"]
    headers = {"Hull-Project": "other"}
    hulld.request("PUT", f"/v1/blobs/{digest}", (hulld.state / "blobs/sha256" / digest.split(":")[1]).read_bytes(), headers=headers)
    assert hulld.post("/v1/images", {"name": "busybox", "rootfs": digest, "config": {"command": ["/srv/count"]}}, headers=headers).status == 201
    machine = Machine(hulld, "theirs", "other")
    yield machine
    machine.delete()


def test_of_another_project_and_what_its_image_has_against_it(hulld, theirs):
    """Its kernel's code is its own. A hook that fails is why it runs on."""
    theirs.goes_on()
    theirs.suspended()
    assert [hulld.post(f"/v1/machines/{theirs.id}/{verb}").status for verb in ("resume", "suspend")] == [404, 404]
    theirs.go("resume")
    theirs.goes_on()
    theirs.does("touch /tmp/refuse")
    shown = theirs.go("suspend", "running", "suspended")
    assert shown["state"] == "running" and shown["cause"]["code"] == "suspend_failed" and "the cache is not written" in shown["cause"]["message"], shown
    assert theirs.nothing_is_saved
    theirs.does("rm /tmp/refuse")
    theirs.suspended()
    theirs.go("resume")
    theirs.goes_on()


def do_all(machines, verb, state):
    for machine in machines:
        assert machine.verb(verb).status == 200
    for machine in machines:
        machine.wait(state)


def test_several_are_saved_side_by_side_and_each_comes_back_as_it_was(hulld, theirs):
    """And one beside them, whose hook never ends, runs on."""
    theirs.does("touch /run/hang")
    assert theirs.verb("suspend").status == 200
    crew = [Machine(hulld, f"crew{number}", starts=False, memory_mib=96, command=["/srv/count", "1000000"]) for number in range(CREW)]
    do_all(crew, "start", "running")
    before = [len(one.counted()) for one in crew]
    do_all(crew, "suspend", "suspended")
    for one in crew:
        assert not monitors(hulld, one.shown) and sorted(os.listdir(one.saved)) == ["memory", "state"]
    do_all(crew, "resume", "running")
    for one, counted in zip(crew, before):
        assert len(one.goes_on()) > counted and one.nothing_is_saved and one.shown["cause"] is None
        assert one.events() == ["created", "starting", "running", "suspending", "suspended", "resuming", "running"]
        one.delete()
    shown = theirs.wait("running")
    assert shown["cause"]["code"] == "suspend_failed" and theirs.nothing_is_saved, shown
    theirs.does("rm /run/hang")
    theirs.goes_on()


def test_one_that_resets_itself_while_it_is_saved_boots_again(theirs):
    """In its hook, or after it; where it stands still before, as soon as it goes on."""
    def settles():
        """Its state, once nothing is under way."""
        wait_until(lambda: not theirs.shown["operation"] and theirs.shown["state"] in ("running", "suspended"), "it settles", BOOT)
        return theirs.shown["state"]

    for restarts, when in enumerate(("reset", "armed"), 1):
        theirs.does(f"touch /run/{when}")
        assert theirs.verb("suspend").status == 200
        if settles() == "suspended":
            assert theirs.verb("resume").status == 200
        wait_until(lambda restarts=restarts: theirs.shown["restarts"] == restarts, f"it boots again: {when}", BOOT)
        assert settles() == "running" and theirs.shown["cause"]["code"] == "reset" and theirs.nothing_is_saved, theirs.shown


def test_without_room_for_its_memory_it_runs_on(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("full")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "none", folder], check=True)
    daemon = begin(folder, content)
    try:
        box = Machine(daemon, "box")
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        (folder / "filler").write_bytes(bytes(free - (12 << 20)))
        cursor = box.cursor()
        out, err, status = hull(daemon, "suspend", "box")
        assert (out, status) == ("", 1) and err.startswith("hull: box: it was not suspended: ") and "No space left" in err, err
        shown = box.wait("running")
        assert shown["cause"]["code"] == "suspend_failed" and box.nothing_is_saved, shown
        assert box.events(cursor) == ["suspending", "running"] or "suspend_failed" in box.events(cursor), box.events(cursor)
        box.goes_on()
        (folder / "filler").unlink()
        box.suspended()
        box.go("resume")
        box.goes_on()
    finally:
        daemon.stop()
        subprocess.run(["umount", folder], check=True)
