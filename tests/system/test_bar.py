"""How far long commands are: a line on a terminal, as wide as that, of which nothing is left; and nowhere else."""
import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios

import pytest

from conftest import BUILD
from hulld_fixtures import DEADLINE, Hulld, make_erofs, wait_until
from test_exec import start_alone

root = pytest.mark.skipif(os.geteuid() != 0, reason="the agent is root")
LARGE = 64 << 20


class Terminal:
    """hull with a terminal of its own for its error output; its output is a pipe."""

    def __init__(self, hulld, *words, columns=80, **env):
        self.control, theirs = pty.openpty()
        self.columns, self.seen = columns, b""
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            [BUILD / "hull", *map(str, words)], stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, start_new_session=True,
            env={**os.environ, "TERM": "vt100", "HULL_HOST": f"unix://{hulld.socket}", **env}, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(theirs)

    def read(self):
        assert select.select([self.control], [], [], DEADLINE)[0], ("it says no more", self.seen)
        try:
            piece = os.read(self.control, 65536)
        except OSError:  # nobody has it open any more
            return False
        self.seen += piece
        return bool(piece)

    def until(self, pattern):
        while not re.search(pattern, self.seen):
            assert self.read(), (pattern, self.seen)
        return self

    def press(self, key):
        os.write(self.control, key)

    def end(self, status=0):
        """What is on the screen at the end, and what was written to the pipe."""
        while self.read():
            pass
        out = self.process.stdout.read()
        assert self.process.wait(DEADLINE) == status, self.seen
        os.close(self.control)
        self.process.stdout.close()
        return self.screen(), out

    def screen(self):
        assert b"\x1b" not in self.seen, "it needs no terminal of a certain kind"
        rows, column = [[]], 0
        for c in self.seen.decode():
            if c == "\r":
                column = 0
            elif c == "\n":
                rows.append([])
            else:
                assert column < self.columns or rows[-1][:5] == list("hull:"), ("it is too wide", self.seen)
                rows[-1][column:column + 1] = [" "] * (column - len(rows[-1])) + [c]
                column += 1
        return [line for row in rows if (line := "".join(row).rstrip())]


@contextlib.contextmanager
def standing_still(hulld):
    """What is asked of it takes until the end of this."""
    hulld.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        hulld.process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    daemon = start_alone(tmp_path_factory.mktemp("alone"))
    daemon.post("/v1/machines", {"name": "box", "image": "any", "command": ["any"], "network": "none", "disk_mib": 16})
    daemon.post("/v1/machines/box/start")
    assert daemon.wait("box", "running,failed")["state"] == "running"
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """Whose machines start for ever."""
    folder = tmp_path_factory.mktemp("stand-in")
    daemon = Hulld(folder).with_stand_in().start()
    daemon.image("any", make_erofs(folder), command=["any"])
    yield daemon
    daemon.stop()


@pytest.fixture
def large(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGE)
    return tmp_path / "large"


@root
def test_a_copy_shows_a_bar_on_a_terminal_and_nowhere_else(box, large, tmp_path):
    words = ["cp", large, "box:" + str(tmp_path / "to-"), ]
    with standing_still(box):
        piped = subprocess.Popen([BUILD / "hull", *map(str, words[:2]), words[2] + "pipe"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                 env={**os.environ, "TERM": "vt100", "HULL_HOST": f"unix://{box.socket}"})
        dumb, unknown, quiet = (Terminal(box, *words[:2], words[2] + name, *more, TERM=term)
                                for name, term, more in (("dumb", "dumb", ()), ("unknown", "", ()), ("quiet", "vt100", ("-q",))))
        wide = Terminal(box, *words[:2], words[2] + "wide", columns=100)
        narrow = Terminal(box, *words[:2], words[2] + "narrow", columns=40, NO_COLOR="1")
        archive = Terminal(box, "cp", f"box:{large}", "-")
        wide.until(rb"large \[ {40}\]   0% [0-9.]+ [A-Za-z]+ of 64 MiB")
        narrow.until(rb"\r[^\r\[]*   0% [0-9.]+ [A-Za-z]+ of 64 MiB")
        archive.until(rb"large 0 ")
    assert wide.end() == narrow.end() == dumb.end() == unknown.end() == quiet.end() == ([], b"")
    assert dumb.seen == unknown.seen == quiet.seen == b""
    assert len(archive.process.stdout.read()) > LARGE and archive.end() == ([], b"")
    assert piped.communicate(timeout=DEADLINE) == (b"", b"") and piped.returncode == 0
    for name in ("pipe", "dumb", "unknown", "quiet", "wide", "narrow"):
        assert (tmp_path / f"to-{name}").stat().st_size == LARGE


@root
def test_a_bar_goes_with_ctrl_c_and_before_an_error_and_a_word(box, large, tmp_path):
    with standing_still(box):
        cut = Terminal(box, "cp", large, f"box:{tmp_path}/cut").until(rb"large \[ ")
        cut.press(b"\x03")
        assert cut.end(-signal.SIGINT) == ([], b"")
        failing = Terminal(box, "cp", large, f"box:{tmp_path}/no/such/folder").until(rb"large \[ ")
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "folder" / "fifo")
        os.link(large, tmp_path / "folder" / "large")
        skipping = Terminal(box, "cp", tmp_path / "folder", f"box:{tmp_path}/copy").until(rb"folder [0-9]")
    (line, *_), out = failing.end(1)
    assert line.startswith("hull: ") and out == b""
    lines, out = skipping.end()
    assert lines == ["hull: folder/fifo: is a device or FIFO: skipped"] and out == b""


def test_what_is_waited_for_is_shown(stand_in, tmp_path):
    (tmp_path / "m.yaml").write_text("machines:\n- {name: one, image: any, network: none, disk_mib: 16}\n- {name: two, image: any, network: none, disk_mib: 16}\n")
    applying = Terminal(stand_in, "apply", "-y", "--wait", "-f", tmp_path / "m.yaml").until(rb"apply \[ +\]   0% one is waited for, [1-9]\d* s")
    applying.press(b"\x03")
    lines, out = applying.end(-signal.SIGINT)
    assert lines == [] and b"one: created, started\ntwo: created, started\n" in out
    one = stand_in.machine("one")["operation"]
    wait_until(lambda: stand_in.machine("one")["pid"], "its monitor is there")
    waiting = Terminal(stand_in, "operation", "wait", one).until(one.encode() + rb" \[##+ +\]  50% start: kernel, [1-9]\d* s")
    row, = [line for line in subprocess.run([BUILD / "hull", "operation", "list", "-m", "one"], env={**os.environ, "HULL_HOST": f"unix://{stand_in.socket}"},
                                            capture_output=True, text=True, check=True).stdout.splitlines() if line.startswith(one)]
    assert row.split()[:6] == [one, "start", "one", "running:", "kernel", "2/4"], row
    stand_in.post(f"/v1/operations/{one}/cancel")
    lines, out = waiting.end(1)
    assert lines[0] == f"hull: {one}: cancelled" and out == b"cancelled\n"
    running = Terminal(stand_in, "run", "--name", "three", "--network", "none", "any").until(rb"three \[##+ +\]  50% start: kernel, [1-9]\d* s")
    running.press(b"\x03")
    lines, out = running.end(130)
    assert not [line for line in lines if "%" in line] and out == b"" and stand_in.get("/v1/machines/three").status == 404
    for name in ("one", "two"):
        assert stand_in.delete(f"/v1/machines/{name}?force=1").status == 204


def test_a_drain_says_how_many_have_ended(tmp_path):
    deaf = tmp_path / "trapped"
    hulld = Hulld(tmp_path).with_stand_in(f"#!/bin/sh\ntrap '' TERM\n: >{deaf}\nexec sleep 1000\n").start()
    try:
        hulld.image("any", make_erofs(tmp_path), command=["any"])
        for name in ("deaf", "too"):
            hulld.post("/v1/machines", {"name": name, "image": "any", "network": "none", "disk_mib": 16, "stop": {"timeout_s": 600}})
            hulld.post(f"/v1/machines/{name}/start")
            wait_until(deaf.exists, "it does not hear")
            deaf.unlink()
        left = Terminal(hulld, "host", "drain", "-t", "600").until(rb"0 of 2 machines have ended, [1-9]\d* s")
        left.press(b"\x03")
        assert left.end(-signal.SIGINT) == ([], b"")
        draining = Terminal(hulld, "host", "drain", "-t", "600").until(rb"host \[ +\]   0% 0 of 2 machines have ended, \d+ s")
        os.kill(hulld.machine("deaf")["pid"], signal.SIGKILL)
        draining.until(rb"host \[##+ +\]  50% 1 of 2 machines have ended")
        assert hulld.post("/v1/host/drain", {"timeout_s": 0}).status == 200
        assert draining.end() == ([], b"drained\n")
    finally:
        hulld.stop()


def test_a_build_says_that_it_installs(stand_in, tmp_path):
    for name, script in (("mmdebstrap", "exec sleep 1000"), ("mkfs.erofs", "exit 1"), ("unshare", "exit 1"), ("apt-get", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    building = Terminal(stand_in, "image", "build", "web", "--package", "nginx", "--command", "nginx", PATH=f"{tmp_path}:{os.environ['PATH']}",
                        XDG_CACHE_HOME=str(tmp_path))
    building.until(rb"web installing packages, [1-9]\d* s").press(b"\x03")
    lines, out = building.end(130)
    assert lines[0] == "hull: web: installing 1 package and Debian's essential ones" and out == b"", lines
    assert all("installing packages," not in line for line in lines)
