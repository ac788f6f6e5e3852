"""The guest's second console, hvc0: a virtio device whose host end is a file or a socket."""
import os
import socket
import stat

import pytest

from conftest import BOOT_ARGS, DEADLINE

pytestmark = pytest.mark.kvm

MODULES = ["virtio_mmio"]  # the console's own driver is built in
# The terminal forgets how it was set when nobody has it open.
RAW = "until [ -e /dev/hvc0 ]; do :; done; exec 3<> /dev/hvc0; stty -F /dev/hvc0 raw -echo; echo guest: ready\n"
# Prints what it is sent, in capitals.
ECHO = RAW + 'while read line; do echo "$line" | tr a-z A-Z; done <&3 >&3'


@pytest.fixture
def guest(vmm, vmlinux, initramfs):
    """guest(script, console): started by the API, with that console."""

    def start(script, console):
        machine = vmm(None)
        machine.must("PUT", "/boot-source", {"kernel_image_path": str(vmlinux), "initrd_path": str(initramfs(script, MODULES)),
                                             "boot_args": BOOT_ARGS})
        machine.must("PUT", "/hull/console", console)
        machine.must("PUT", "/actions", {"action_type": "InstanceStart"})
        machine.refused("PUT", "/hull/console", console, "not supported after starting the microVM")
        assert machine.must("GET", "/vm/config")["console"] == console
        return machine

    return start


def connect(path):
    terminal = socket.socket(socket.AF_UNIX)
    terminal.settimeout(DEADLINE)
    terminal.connect(str(path))
    return terminal


def read_until(terminal, end):
    data = b""
    while not data.endswith(end):
        more = terminal.recv(65536)
        assert more, data
        data += more
    return data


def test_a_terminal_comes_to_the_socket(guest, tmp_path):
    path = tmp_path / "hvc0.sock"
    machine = guest(ECHO, {"socket_path": str(path)})
    machine.wait_for("guest: ready")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    for word in (b"hello", b"again"):
        with connect(path) as terminal:
            terminal.sendall(word + b"\n")
            assert read_until(terminal, b"\n") == word.upper() + b"\n"
    with connect(path) as terminal:
        with connect(path) as second:
            assert second.recv(1) == b""
        lines = b"".join(b"line %06d\n" % i for i in range(200))
        terminal.sendall(lines)  # more than its queue holds
        assert read_until(terminal, b"LINE 000199\n") == lines.upper()
        machine.must("PATCH", "/vm", {"state": "Paused"})
        terminal.sendall(b"while it is paused\n")
        machine.must("PATCH", "/vm", {"state": "Resumed"})
        assert read_until(terminal, b"\n") == b"WHILE IT IS PAUSED\n"
        machine.terminate(2)
        assert terminal.recv(1) == b""
    assert machine.wait() == 0  # which looks for the socket


def test_a_slow_terminal_slows_the_guest_and_loses_nothing(guest, tmp_path):
    path = tmp_path / "hvc0.sock"
    machine = guest(RAW + "read line <&3; seq 1 4000 >&3; echo end >&3; echo guest: done; read line <&3; poweroff -f",
                    {"socket_path": str(path)})
    machine.wait_for("guest: ready")
    with connect(path) as terminal:
        terminal.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        terminal.sendall(b"go\n")
        first = terminal.recv(100)
        assert "guest: done" not in machine.console
        rest = read_until(terminal, b"end\n")
        assert (first + rest).decode() == "".join(f"{i}\n" for i in range(1, 4001)) + "end\n"
        machine.wait_for("guest: done")
        terminal.sendall(b"off\n")
        assert machine.wait() == 0


def test_its_output_goes_to_a_file(guest, tmp_path_factory):
    path = tmp_path_factory.mktemp("console") / "hvc0.log"
    machine = guest(RAW + "seq 1 2000 >&3; echo on ttyS0; poweroff -f", {"output_path": str(path)})
    assert machine.wait() == 0
    assert path.read_text() == "".join(f"{i}\n" for i in range(1, 2001))
    assert "on ttyS0" in machine.console and "\n1999" not in machine.console


@pytest.mark.parametrize("console, field, reason", [
    ({}, "output_path", "is required (or socket_path)"),
    ({"output_path": "/a", "socket_path": "/b"}, "socket_path", "cannot be given together with output_path"),
    ({"output_path": ""}, "output_path", "must not be empty"),
    ({"path": "/a"}, "path", "unknown field"),
])
def test_what_a_console_may_not_be(vmm, console, field, reason):
    machine = vmm(None)
    machine.refused("PUT", "/hull/console", console, f"{field}: {reason}")
    assert "console" not in machine.must("GET", "/vm/config")
    machine.terminate()
    assert machine.wait() == 0


@pytest.mark.parametrize("key", ["output_path", "socket_path"])
def test_a_place_that_is_not_there_is_refused_at_the_start(vmm, vmlinux, key):
    machine = vmm({"boot-source": {"kernel_image_path": str(vmlinux)}, "console": {key: "/nonexistent/hvc0"}})
    assert machine.wait() == 1
    assert machine.status["field"] == f"console.{key}" and "No such file" in machine.status["message"]
