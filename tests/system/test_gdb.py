"""A debugger at the guest: gdb itself, and its protocol spoken by hand where gdb would be too polite."""
import os
import re
import signal
import socket
import subprocess

import pytest

from conftest import BOOT_ARGS, DEADLINE

pytestmark = pytest.mark.kvm

SYMBOLS = ["native_write_cr4"]  # of code: a kernel may tell of no others
# Changes CR4 over and over: the one instruction for that is where a hardware breakpoint is met on an emulated host, too.
TOGGLE = r"""
#include <sys/prctl.h>

int main(void)
{
	for (;;) {
		prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0);
		prctl(PR_SET_TSC, PR_TSC_ENABLE, 0, 0, 0);
	}
}
"""
GUEST = "toggle & echo guest: up; while read word; do echo guest: alive $word; done"


@pytest.fixture(scope="session")
def toggle(tmp_path_factory):
    path = tmp_path_factory.mktemp("toggle") / "toggle"
    subprocess.run(["cc", "-static", "-O", "-o", path, "-x", "c", "-"], input=TOGGLE.encode(), check=True)
    return path.read_bytes()


@pytest.fixture
def machine_config(vmlinux, initramfs, toggle):
    """machine_config(script): of two processors, with the kernel where it was linked to be."""

    def make(script, **machine):
        return {"boot-source": {"kernel_image_path": str(vmlinux),
                                "initrd_path": str(initramfs(script, files={"bin/toggle": toggle})),
                                "boot_args": BOOT_ARGS + " nokaslr"},
                "machine-config": {"vcpu_count": 2, "mem_size_mib": 192, **machine}}

    return make


@pytest.fixture(scope="session")
def seen():
    return {}


@pytest.fixture
def symbols(vmm, machine_config, seen):
    """Addresses in the kernel, as a guest tells them (its file has none), and of the instruction that writes CR4."""
    if not seen:
        machine = vmm(machine_config("grep -wE '%s' /proc/kallsyms; poweroff -f" % "|".join(SYMBOLS)))
        assert machine.wait() == 0
        for name in SYMBOLS:
            seen[name] = int(re.search(rf"^([0-9a-f]{{16}}) \w {name}\b", machine.console, re.MULTILINE).group(1), 16)
    return seen


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gdb.sock"


def gdb(path, *commands):
    """What gdb prints that attaches there and is told that, one after the other."""
    arguments = ["gdb", "-nx", "-q", "-batch", "-iex", "set remotetimeout 60", "-iex", "set debuginfod enabled off"]
    for command in (f"target remote {path}", *commands):
        arguments += ["-ex", command]
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * DEADLINE)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def alive(machine):
    """It answers."""
    word = f"word{len(re.findall('guest: alive', machine.console))}"
    machine.send(f"{word}\n")
    machine.wait_for(rf"guest: alive {word}\b")


class Remote:
    """A debugger by hand."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(str(path))
        self.buffer = b""
        assert self.ask("QStartNoAckMode") == "OK"
        self.socket.sendall(b"+")

    def send(self, content):
        self.socket.sendall(b"$%s#%02x" % (content.encode(), sum(content.encode()) & 0xff))

    def answer(self):
        while not (match := re.search(rb"\$([^#]*)#..", self.buffer)):
            more = self.socket.recv(65536)
            assert more, self.buffer
            self.buffer += more
        self.buffer = self.buffer[match.end():]
        return match.group(1).decode()

    def ask(self, content):
        self.send(content)
        return self.answer()

    def close(self):
        self.socket.close()


def writes_cr4(path, symbols):
    """The address of the instruction, found as a person would."""
    listing = gdb(path, f"x/8i {symbols['native_write_cr4']:#x}", "detach")
    return int(re.search(r"(0x[0-9a-f]+):\s+mov\s+%\w+,%cr4", listing).group(1), 16)


def test_gdb_stops_looks_steps_and_lets_go(vmm, machine_config, symbols, path):
    machine = vmm(machine_config(GUEST), "--gdb-socket", path)
    machine.wait_for("guest: up")
    place = writes_cr4(path, symbols)
    out = gdb(path, "info threads", "info registers cr0 cr3 efer gs_base cs mxcsr xmm0 st0", "p $cr0 & 1",
              f"hbreak *{place:#x}", "continue", f"printf \"at %d\\n\", $rip == {place:#x}",
              "p/x $cs", "x/2i $rip", "x/4xg $rsp", "stepi", f"printf \"gone %d\\n\", $rip > {place:#x} && $rip < {place:#x} + 8",
              "stepi", "set $old = $r15", "set $r15 = 0x123456789abcdef0", "p/x $r15", "set $r15 = $old",
              "p/x $mxcsr", "set $xmm0.v2_int64[0] = 0x1122334455667788", "p/x $xmm0.v2_int64[0]",
              "continue 3", f"printf \"again %d\\n\", $rip == {place:#x}", "info threads", "delete", "detach")
    assert len(re.findall(r"Thread \d \(vCPU [01]\)", out)) >= 4
    for expected in ("= 1\n", "at 1\n", "gone 1\n", "= 0x123456789abcdef0\n", "again 1\n", "= 0x10\n", "= 0x1f80\n",
                     "= 0x1122334455667788\n", "hit Breakpoint 1, ", "detached]"):
        assert expected in out, expected
    alive(machine)
    # Another may come after it, change memory, and end it.
    out = gdb(path, f"set {{int}} {symbols['native_write_cr4']:#x} = 0x554e494c", f"x/s {symbols['native_write_cr4']:#x}", "kill")
    assert '"LINU' in out
    assert machine.wait() == 0
    assert machine.status == {"cause": "signal", "exit_status": None, "message": "the debugger killed it"}


def test_breakpoints_in_memory_and_watchpoints(vmm, machine_config, symbols, path):
    machine = vmm(machine_config(GUEST), "--gdb-socket", path)
    machine.wait_for("guest: up")
    place = symbols["native_write_cr4"]
    out = gdb(path, f"break *{place:#x}", "continue", f"printf \"at %d\\n\", $rip == {place:#x}", "continue 20",
              f"printf \"again %d\\n\", $rip == {place:#x}", "delete", "set $place = $rsp - 8", "watch *(long *) $place", "continue",
              "delete", "detach")
    for expected in ("at 1\n", "again 1\n", "Hardware watchpoint 2", "New value"):
        assert expected in out, expected
    alive(machine)
    machine.terminate(signal.SIGINT)
    assert machine.wait() == 0


def test_an_emulated_host_refuses_breakpoints_in_memory(vmm, machine_config, symbols, path):
    machine = vmm(machine_config(GUEST), "--gdb-socket", path)
    machine.wait_for("guest: up")
    remote = Remote(path)
    assert remote.ask(f"Z0,{symbols['native_write_cr4']:x},1") == "E5f"
    remote.close()
    alive(machine)
    assert "use a hardware breakpoint" in machine.log
    machine.terminate(signal.SIGINT)
    assert machine.wait() == 0


def test_a_debugger_that_vanishes_leaves_it_running(vmm, machine_config, symbols, path):
    machine = vmm(machine_config(GUEST), "--gdb-socket", path)
    machine.wait_for("guest: up")
    place = writes_cr4(path, symbols)
    for how in ("stopped", "running", "stopped at a breakpoint", "silent"):
        remote = Remote(path)
        if how != "silent":
            assert remote.ask(f"Z1,{place:x},1") == "OK"
        if how == "running":
            remote.send("vCont;c")
        elif how == "stopped at a breakpoint":
            assert re.match("T05thread:[12];hwbreak:;", remote.ask("vCont;c"))
        remote.close()
        alive(machine)
    machine.terminate(signal.SIGINT)
    assert machine.wait() == 0


def test_it_is_interrupted_and_one_at_a_time_is_enough(vmm, machine_config, symbols, path):
    machine = vmm(machine_config(GUEST), "--gdb-socket", path)
    machine.wait_for("guest: up")
    remote = Remote(path)
    assert remote.ask("?") == "T05thread:1;"
    with socket.socket(socket.AF_UNIX) as second:
        second.settimeout(DEADLINE)
        second.connect(str(path))
        assert second.recv(1) == b""
    for _ in range(3):
        remote.send("vCont;c")
        alive(machine)
        remote.socket.sendall(b"\x03")
        assert re.match("T02thread:[12];", remote.answer())
    # One of them alone; its neighbour stays where it is.
    other = remote.ask("Hg2") and remote.ask("p10")
    assert remote.ask("vCont;s:1") == "T05thread:1;"
    assert remote.ask("Hg2") == "OK" and remote.ask("p10") == other
    assert remote.ask("P12=ff000000") == "E16"  # a selector
    assert remote.ask("mffff000000000000,8") == "E0e"
    assert remote.ask("D") == "OK"
    alive(machine)
    machine.terminate(signal.SIGINT)
    assert machine.wait() == 0


def test_a_pause_and_a_debugger_are_two_reasons_to_stand_still(vmm, machine_config, symbols, path):
    machine = vmm(None, "--gdb-socket", path)
    config = machine_config(GUEST)
    machine.must("PUT", "/boot-source", config["boot-source"])
    machine.must("PUT", "/machine-config", config["machine-config"])
    machine.must("PUT", "/actions", {"action_type": "InstanceStart"})
    machine.wait_for("guest: up")
    place = writes_cr4(path, symbols)
    machine.must("PATCH", "/vm", {"state": "Paused"})
    remote = Remote(path)
    assert remote.ask(f"Z1,{place:x},1") == "OK"
    remote.send("vCont;c")
    remote.socket.sendall(b"\x03")
    assert remote.answer().startswith("T02")  # it did not run at all
    machine.must("PATCH", "/vm", {"state": "Resumed"})
    assert "hwbreak" in remote.ask("vCont;c")
    machine.must("PATCH", "/vm", {"state": "Paused"})
    machine.must("PATCH", "/vm", {"state": "Resumed"})  # the debugger still holds it
    assert remote.ask("p10") == place.to_bytes(8, "little").hex()
    assert remote.ask("D") == "OK"
    alive(machine)
    machine.terminate(signal.SIGINT)
    assert machine.wait() == 0


def test_a_machine_waits_for_its_debugger(vmm, machine_config, path):
    machine = vmm(machine_config("echo guest: up; poweroff -f", gdb_socket_path=str(path)))
    machine.wait_for_log("running")
    out = gdb(path, "p/x $cr0 & 0x80000001", "set $first = $rip", "stepi", "printf \"moved %d\\n\", $rip != $first", "stepi", "stepi",
              "continue")
    assert "= 0x1\n" in out and "moved 1\n" in out and "exited normally" in out  # it stood where paging is off
    assert machine.wait() == 0
    assert machine.status["cause"] == "poweroff" and "guest: up" in machine.console


@pytest.mark.parametrize("option", [True, False])
def test_a_socket_that_cannot_be_made_is_refused(vmm, machine_config, option):
    path, field = "/nonexistent/gdb.sock", "--gdb-socket" if option else "machine-config.gdb_socket_path"
    machine = vmm(machine_config("poweroff -f", **({} if option else {"gdb_socket_path": path})), *(["--gdb-socket", path] if option else []))
    assert machine.wait() == 1
    assert machine.status["field"] == field and "No such file" in machine.status["message"]
    assert machine.log == f"hull-vmm: {field}: {machine.status['message']}\n"


# QEMU's emulated processor lets no INT3 out of a guest and knows no watchpoints in one: a host is tested for what it has.
if "KVMHOST" in os.environ:
    del test_breakpoints_in_memory_and_watchpoints
else:
    del test_an_emulated_host_refuses_breakpoints_in_memory
