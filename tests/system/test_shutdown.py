"""How a machine is told to end from outside: SIGTERM and SIGINT, the power button, Ctrl-Alt-Del; and how long its boot took."""
import re
import signal

import pytest

from conftest import BOOT_ARGS, DEADLINE

NOT_YET = "not supported before starting the microVM"
BUTTON = ["button", "evdev"]
# Whatever is pressed powers it off; it has said "up" once it listens.
LISTENER = """for e in /dev/input/event*; do (head -c 1 $e > /dev/null; echo guest: pressed; poweroff -f) & done
    echo guest: up; while :; do sleep 1000; done"""
DEAF = "echo guest: up; while :; do :; done"

pytestmark = pytest.mark.kvm


@pytest.fixture
def guest(vmm, vmlinux, initramfs):
    """guest(script, modules, *arguments): a running machine, its API at hand."""

    def start(script, modules=(), *arguments):
        machine = vmm(None, *arguments)
        machine.must("PUT", "/boot-source", {"kernel_image_path": str(vmlinux), "initrd_path": str(initramfs(script, modules)),
                                             "boot_args": BOOT_ARGS})
        machine.must("PUT", "/machine-config", {"vcpu_count": 2, "mem_size_mib": 128})
        machine.refused("PUT", "/actions", {"action_type": "SendCtrlAltDel"}, NOT_YET)
        machine.must("PUT", "/actions", {"action_type": "InstanceStart"})
        return machine

    return start


def test_sigterm_presses_the_power_button(guest):
    machine = guest(LISTENER, BUTTON)
    machine.wait_for("guest: up")
    machine.terminate()
    machine.wait_for("guest: pressed")
    assert machine.wait() == 0
    assert machine.status == {"cause": "poweroff", "exit_status": None, "message": "the guest powered off"}


def test_a_paused_machine_runs_on_to_shut_down(guest):
    machine = guest(LISTENER, BUTTON)
    machine.wait_for("guest: up")
    machine.must("PATCH", "/vm", {"state": "Paused"})
    machine.terminate()
    assert machine.wait() == 0
    assert machine.status["cause"] == "poweroff"


def test_a_deaf_guest_has_its_time(guest):
    machine = guest(DEAF, [], "--shutdown-timeout", "2")
    machine.wait_for("guest: up")
    machine.terminate()
    assert machine.wait() == 0
    assert machine.status == {"cause": "signal", "exit_status": None,
                              "message": "SIGTERM, and the guest did not power off within 2 s"}


@pytest.mark.parametrize("second, message", [(signal.SIGTERM, "SIGTERM, twice"), (signal.SIGINT, "SIGINT")])
def test_a_second_signal_does_not_wait(guest, second, message):
    machine = guest(DEAF, [], "--shutdown-timeout", "86400")
    machine.wait_for("guest: up")
    machine.terminate()
    machine.wait_for_log("SIGTERM")
    machine.terminate(second)
    assert machine.wait() == 0
    assert machine.status == {"cause": "signal", "exit_status": None, "message": message}


# A kernel whose init has not said otherwise reboots at once.
KEYBOARD = """until grep -A 5 'N: .*"AT .* keyboard"' /proc/bus/input/devices | grep -q 'Handlers=.*kbd'; do :; done
    echo guest: up; while :; do sleep 1000; done"""


def test_ctrl_alt_del_is_typed(guest):
    machine = guest(KEYBOARD)
    machine.wait_for("guest: up")
    machine.must("PUT", "/actions", {"action_type": "SendCtrlAltDel"})
    assert machine.wait() == 0
    assert machine.status["cause"] == "reset"


def test_ctrl_alt_del_waits_in_a_paused_machine(guest):
    machine = guest(KEYBOARD)
    machine.wait_for("guest: up")
    machine.must("PATCH", "/vm", {"state": "Paused"})
    machine.must("PUT", "/actions", {"action_type": "SendCtrlAltDel"})
    machine.refused("PUT", "/actions", {"action_type": "SendCtrlAltDel"}, "the guest has not taken earlier keys")
    machine.must("PATCH", "/vm", {"state": "Resumed"})
    assert machine.wait() == 0
    assert machine.status["cause"] == "reset"


BOOTED = "for i in 1 2 3; do devmem 0xc0000000 8 123; done; devmem 0xc0000000 8 122; poweroff -f"


def test_the_guest_ends_the_measuring_of_its_boot(guest):
    machine = guest(BOOTED, [], "--boot-timer")
    assert machine.wait() == 0
    found = re.findall(r"Guest-boot-time = +(\d+) us (\d+) ms, +(\d+) CPU us (\d+) CPU ms\n", machine.log)
    assert len(found) == 1, machine.log
    us, ms, cpu_us, cpu_ms = map(int, found[0])
    assert 0 < us < DEADLINE * 1e6 and us // 1000 == ms and 0 < cpu_us and cpu_us // 1000 == cpu_ms


def test_without_the_option_its_boot_is_not_measured(guest):
    machine = guest(BOOTED)
    assert machine.wait() == 0
    assert "Guest-boot-time" not in machine.log
