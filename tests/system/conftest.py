"""What system tests share: a guest's initramfs made from a shell script, and a monitor started from a configuration.

HULL_BUILD  the build folder (default: build)
HULL_GUEST  the folder of the guest's kernel, its modules and its initramfs (default: guest in the build folder, the stock kernel's, made
            by `make guest`; the tuned kernel's is guest-tuned, made by `make guest-kernel`)
"""
import functools
import http.client
import importlib.util
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from guest_image import Cpio, make_initramfs  # noqa: F401 (tests have Cpio from here)

TOP = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("HULL_BUILD", TOP / "build")).resolve()
GUEST = Path(os.environ.get("HULL_GUEST", BUILD / "guest")).resolve()
# Of a guest as hulld boots it, but on either transport: a stock kernel would test its ciphers for half a second, each time.
BOOT_ARGS = "console=ttyS0 quiet panic=-1 reboot=k cryptomgr.notests"
DEADLINE = 120  # seconds, for whatever a guest on an emulated host is waited for


def payload(name):
    """The path of a guest of guest-kernel/payloads/, a kernel to the monitor."""
    return BUILD / "guest-kernel" / "payloads" / name


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path, timeout=DEADLINE):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Vmm:
    """One hull-vmm process: its console, its status record, its log. Without a configuration it is given an API's socket, and
    a client may `call`, `must` or be `refused`."""

    def __init__(self, config, folder, arguments=(), stdin=None, pass_fds=(), wrapper=(), option="--config-file"):
        self.folder = folder
        self.socket_path = folder / "api.sock"
        self.client = None
        if config is None:
            arguments = ["--api-sock", self.socket_path, *arguments]
        else:
            self.config_path = folder / "config.json"
            self.config_path.write_text(config if isinstance(config, str) else json.dumps(config))
            arguments = [option, self.config_path, "--no-api", *arguments]
        self.log_path = folder / "log"
        self.before = set(folder.iterdir()) | {self.log_path}
        self.output = b""
        self.returncode = self.status = None
        status_read, status_write = os.pipe()
        self._status = os.fdopen(status_read)
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(
                [*wrapper, BUILD / "hull-vmm", "--status-fd", str(status_write), *arguments],
                stdin=subprocess.PIPE if stdin is None else stdin, stdout=subprocess.PIPE, stderr=log,
                pass_fds=[status_write, *pass_fds])
        os.close(status_write)

    @property
    def console(self):
        return self.output.decode(errors="replace")

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")

    def _describe(self, why):
        return f"{why}\n--- console\n{self.console[-4000:]}\n--- log\n{self.log}"

    def _read(self, deadline):
        """More console. False at its end."""
        ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
        assert ready, self._describe("nothing more came in time")
        more = os.read(self.process.stdout.fileno(), 65536)
        self.output += more
        return bool(more)

    def wait_for(self, pattern, timeout=DEADLINE):
        """Reads the console until `pattern` (a regular expression) is in it. The match."""
        deadline = time.monotonic() + timeout
        while not (match := re.search(pattern, self.console, re.MULTILINE)):
            assert self._read(deadline), self._describe(f"the console ended without {pattern!r}")
        return match

    def wait_for_log(self, pattern, timeout=DEADLINE):
        """Until it is in the log. All that match."""
        deadline = time.monotonic() + timeout
        while not (found := re.findall(pattern, self.log)):
            assert self.process.poll() is None and time.monotonic() < deadline, self._describe(f"no {pattern!r} in the log")
            select.select([self.process.stdout], [], [], 0.005)
        return found

    def _connect(self):
        """Once the socket is there: it is listened on from the instant it has its mode."""
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                connection = UnixConnection(self.socket_path)
                connection.connect()
                return connection
            except (FileNotFoundError, ConnectionRefusedError):
                assert self.process.poll() is None and time.monotonic() < deadline, self._describe("no API socket")
                select.select([], [], [], 0.005)

    def call(self, method, path, body=None):
        """(status, the answer's JSON or None)"""
        self.client = self.client or self._connect()
        self.client.request(method, path, None if body is None else body if isinstance(body, (str, bytes)) else json.dumps(body))
        answer = self.client.getresponse()
        text = answer.read()
        if answer.getheader("Connection") == "close":
            self.client.close()
            self.client = None
        return answer.status, json.loads(text) if text else None

    def must(self, method, path, body=None):
        """The answer's JSON, or None where there is nothing to say."""
        status, answer = self.call(method, path, body)
        assert status == (200 if answer is not None else 204), self._describe(f"{method} {path}: {status} {answer}")
        return answer

    def refused(self, method, path, body, reason, status=400):
        """It is, with a message that holds `reason`."""
        got, answer = self.call(method, path, body)
        assert got == status and list(answer) == ["fault_message"] and reason in answer["fault_message"], \
            self._describe(f"{method} {path}: {got} {answer}")

    def send(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def terminate(self, signo=signal.SIGTERM):
        self.process.send_signal(signo)

    def wait(self, timeout=DEADLINE):
        """Until it ended. Its exit status; `status` is its record then."""
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            pass
        try:
            self.returncode = self.process.wait(max(1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise AssertionError(self._describe("it closed its console and did not end")) from None
        record = self._status.read()
        assert record.endswith("\n") and record.count("\n") == 1, self._describe(f"status record {record!r}")
        self.status = json.loads(record)
        self.assert_nothing_left()
        return self.returncode

    def assert_nothing_left(self):
        left = set(self.folder.iterdir()) - self.before
        assert not left, f"left behind: {left}"

    def close(self):
        if self.client:
            self.client.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._status):
            if stream:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass


def add_up(one, other):
    """Counts of counts, added; of what is no number, the latter."""
    if isinstance(one, dict):
        return {name: add_up(one[name], other[name]) if name in one and name in other else one.get(name, other.get(name))
                for name in {**one, **other}}
    return one + other if isinstance(one, int) else other


class Counts:
    """What the monitor's file of metrics tells, each time since the last. On a slow host that is more lines than one: each minute has
    its own."""

    def __init__(self, api, path):
        self.api, self.path, self.read = api, path, 0

    def next(self):
        self.api.must("PUT", "/actions", {"action_type": "FlushMetrics"})
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        new, self.read = lines[self.read:], len(lines)
        return functools.reduce(add_up, new)


@pytest.fixture(scope="session")
def kernel():
    """As a bzImage."""
    path = GUEST / "vmlinuz"
    assert path.exists(), f"no guest kernel at {path}: run `make guest`"
    return path


@pytest.fixture(scope="session")
def vmlinux(kernel):
    """The same kernel as ELF file, which need not unpack itself: seconds less on an emulated host."""
    return kernel.with_name("vmlinux")


@pytest.fixture(scope="session")
def modules_folder():
    path = GUEST / "lib" / "modules"
    assert path.exists(), f"no guest modules at {path}: run `make guest`"
    return path


@pytest.fixture
def initramfs(tmp_path_factory, modules_folder):
    """initramfs(script, modules=(), files=None): the path of a fresh one."""

    def make(script, modules=(), files=None):
        path = tmp_path_factory.mktemp("initramfs") / "initramfs.cpio"
        return make_initramfs(path, script, modules_folder, modules, files)

    return make


@pytest.fixture
def vmm(tmp_path):
    """vmm(config, *arguments): a running monitor; `tmp_path` is its folder."""
    started = []

    def start(config, *arguments, **options):
        started.append(Vmm(config, tmp_path, arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture(scope="module")
def bench(request):
    """The program of benches/ that a file of tests has as its BENCH, as a module."""
    name = f"bench_{request.module.BENCH}"
    sys.path.insert(0, str(TOP / "benches"))
    loader = SourceFileLoader(name, str(TOP / "benches" / request.module.BENCH))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    sys.modules[name] = module
    loader.exec_module(module)
    yield module
    sys.path.remove(str(TOP / "benches"))
