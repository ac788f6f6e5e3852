"""A hulld of the test's own, and an HTTP client of nothing but the standard library."""
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from conftest import BUILD, GUEST

DEADLINE = 60


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path, timeout=DEADLINE):
        super().__init__("hulld", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.body[:600]!r}"


def wait_until(condition, what, deadline=DEADLINE):
    """Polls what has no event to wait for."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(0.01)


class Hulld:
    """Starts hulld on folders of its own; start() again after kill() is what a crash looks like to it."""

    def __init__(self, folder, *options, env=None):
        self.folder = Path(folder)
        self.state = self.folder / "state"
        self.run = Path(tempfile.mkdtemp(prefix="hull-"))  # short: socket addresses are
        self.run.chmod(0o755)
        self.socket = self.run / "hulld.sock"
        self.log = self.folder / "hulld.log"
        self.options = {"--vmm": BUILD / "hull-vmm", "--virtiofs": BUILD / "hull-virtiofs", "--ingress": BUILD / "hull-ingress",
                        "--network": BUILD / "hull-network", "--kernel": GUEST / "vmlinux", "--initrd": GUEST / "initramfs.cpio"}
        self.extra, self.wrapper = list(options), []
        self.env = dict(os.environ, **(env or {}))
        self.process = None

    def with_stand_in(self, script="#!/bin/sh\nexec sleep 1000\n"):
        """Before the start: a script in the place of the monitor, so that machines start for ever and no guest is needed."""
        monitor = self.folder / "vmm"
        monitor.write_text(script)
        monitor.chmod(0o755)
        self.options.update({"--vmm": monitor, "--kernel": "/etc/hostname", "--initrd": "/etc/hostname"})
        return self

    def with_clocks(self):
        """Before the start: a wall clock and an uptime that are what jump() and sleep() say beside the host's."""
        library = self.folder / "clock_shift.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, Path(__file__).parent / "clock_shift.c"], check=True)
        self.env.update({"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(self.folder / "shift"), "UPTIME_SHIFT": str(self.folder / "uptime")})
        self.jump(0)
        self.sleep(0)
        return self

    def jump(self, seconds, file="shift"):
        (self.folder / "next").write_text(str(seconds))
        (self.folder / "next").rename(self.folder / file)

    def sleep(self, seconds):
        self.jump(seconds, "uptime")

    def command(self):
        command = [*self.wrapper, BUILD / "hulld", "--state", self.state, "--run", self.run, *self.extra]
        for name, value in self.options.items():
            command += [name, value]
        return list(map(str, command))

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(), stderr=log, env=self.env)
        wait_until(self.answers, "hulld answers")
        return self

    def answers(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.get("/v1/version").status == 200
        except OSError:
            return False

    def kill(self, signo=signal.SIGKILL):
        self.process.send_signal(signo)
        self.process.wait(DEADLINE)

    def restart(self, signo=signal.SIGKILL):
        self.kill(signo)
        return self.start()

    def end_machines(self):
        for machine in self.get("/v1/machines").json["items"]:
            self.delete(f"/v1/machines/{machine['id']}?force=1")

    def stop(self):
        """Ends all that the test has started."""
        if self.process.poll() is not None:
            self.start()
        self.end_machines()
        for network in self.get("/v1/networks").json["items"]:
            self.delete(f"/v1/networks/{network['name']}")
        self.kill(signal.SIGTERM)
        try:
            with socket.socket(socket.AF_UNIX) as ingress:
                ingress.connect(str(self.run / "ingress.sock"))
                ingress.sendall(b'{"op":"shutdown"}\n')
                ingress.recv(100)
        except OSError:
            pass
        if (haproxy := self.haproxy()):
            os.kill(haproxy, signal.SIGKILL)
        shutil.rmtree(self.run, ignore_errors=True)

    def haproxy(self):
        """The process id of the one that serves host names, while it runs."""
        with contextlib.suppress(OSError):  # there is none, or it ends meanwhile
            pid = int((self.run / "http" / "haproxy.pid").read_text().split()[0])
            if Path(f"/proc/{pid}/exe").is_symlink() and Path(f"/proc/{pid}/comm").read_text() == "haproxy\n":
                return pid
        return 0

    def request(self, method, path, body=None, headers=None, timeout=DEADLINE):
        connection = Connection(self.socket, timeout)
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
                headers = {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path, **kwargs):
        return self.request("GET", path, **kwargs)

    def post(self, path, body=None, **kwargs):
        return self.request("POST", path, body, **kwargs)

    def delete(self, path):
        return self.request("DELETE", path)

    def machine(self, name):
        return self.get(f"/v1/machines/{name}").json

    def tip(self):
        """The cursor of the last event so far."""
        return self.get("/v1/events?since_s=0").json["cursor"]

    def wait(self, name, states, timeout_s=DEADLINE, after=None):
        """One that was passed through since the event `after`, as failed is before a restart, counts too."""
        since = "" if after is None else f"&after={after}"
        answer = self.get(f"/v1/machines/{name}/wait?state={states}&timeout_s={timeout_s}{since}", timeout=timeout_s + 10)
        assert answer.status == 200, answer
        return answer.json

    def upload(self, content):
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        return digest, self.request("PUT", f"/v1/blobs/{digest}", content)

    def image(self, name, content, **config):
        digest, answer = self.upload(content)
        assert answer.status in (200, 201), answer
        answer = self.post("/v1/images", {"name": name, "rootfs": digest, "config": config})
        assert answer.status == 201, answer
        return digest


def wrap_mkfs(folder, script=""):
    """(a folder for $PATH, a file): the folder's mkfs.ext4 does `script`, then what is in the file, and is the real one."""
    tools, before = folder / "bin", folder / "before"
    tools.mkdir()
    before.write_text("")
    (tools / "mkfs.ext4").write_text(f"#!/bin/sh\n{script}. {before}\nexec /sbin/mkfs.ext4 \"$@\"\n")
    (tools / "mkfs.ext4").chmod(0o755)
    return tools, before


def make_erofs(folder, files=None):
    """A root file system of busybox and `files` {path: text}; without busybox where `files` is None."""
    root, image = Path(folder) / "rootfs", Path(folder) / "image.erofs"
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "run", "srv"):
        (root / name).mkdir(parents=True, exist_ok=True)
    if files is not None:
        shutil.copy("/bin/busybox", root / "bin" / "busybox")
        for tool in subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
            link = root / "bin" / tool
            if not link.exists():
                link.symlink_to("busybox")
        (root / "etc" / "passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
        for path, text in files.items():
            (root / path).write_text(text)
            (root / path).chmod(0o755)
    subprocess.run(["mkfs.erofs", str(image), str(root)], check=True, capture_output=True)
    return image.read_bytes()


@pytest.fixture(scope="module")
def hulld(request, tmp_path_factory):
    """One of a module's own, with an image, hello. Its monitors are the module's MONITOR, a script, where that has one."""
    daemon = Hulld(tmp_path_factory.mktemp("hulld"))
    if hasattr(request.module, "MONITOR"):
        daemon.with_stand_in(request.module.MONITOR)
    daemon.start()
    daemon.erofs = make_erofs(daemon.folder)
    daemon.image("hello", daemon.erofs, command=["/bin/true"])
    yield daemon
    daemon.stop()
