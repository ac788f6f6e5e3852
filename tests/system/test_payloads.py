"""Guests of one C file without a kernel (guest-kernel/payloads/): what is nearest to the processor and to the devices' registers."""
import re
import socket

import pytest

from conftest import payload

pytestmark = pytest.mark.kvm


def boot(vmm, name, **pieces):
    return vmm({"boot-source": {"kernel_image_path": str(payload(name))}, "machine-config": {"vcpu_count": 1, "mem_size_mib": 16}, **pieces})


def said(machine):
    return re.findall("^payload: (.*?)\r?$", machine.console, re.M)


def test_a_payload_is_up_and_off(vmm):
    """How soon is printed: the cycles are nanoseconds on a host that counts instructions, and no test looks at them."""
    machine = boot(vmm, "hello")
    assert machine.wait() == 0
    (line,) = said(machine)
    assert re.fullmatch(r"hello after \d+ cycles", line)
    print(line)
    assert machine.status == {"cause": "poweroff", "exit_status": 0, "message": "the guest powered off"}


def test_a_processor_is_what_it_says(vmm):
    machine = boot(vmm, "processor")
    assert machine.wait() == 0, machine.console
    assert said(machine) == ["cpuid: as it should be", "msrs: refused", "exceptions: each its own", "timers: fired"]


# By their names, the kinds of devices. Each malformed chain is sent with indirect tables negotiated, and without.
WITHSTOOD = {"net": 1, "blk": 2, "console": 3, "rng": 4, "balloon": 5, "vsock": 19}


def test_hostile_queues_gain_nothing(vmm, tmp_path_factory):
    """All kinds at once. The monitor lives to the end, and what it was given is as it was."""
    folder = tmp_path_factory.mktemp("hostile")
    disk = folder / "disk"
    content = b"Hull" + bytes(range(256)) * 4
    disk.write_bytes(content.ljust(1 << 16, b"x"))
    before = disk.read_bytes()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "net"))
    listener.listen()
    with listener:
        machine = boot(
            vmm, "hostile_queues",
            drives=[{"drive_id": "disk", "path_on_host": str(disk), "is_root_device": False}],
            entropy={}, vsock={"guest_cid": 3, "uds_path": str(folder / "vsock")},
            balloon={"amount_mib": 0, "deflate_on_oom": False, "stats_polling_interval_s": 1},
            console={"output_path": str(folder / "console")},
            **{"network-interfaces": [{"iface_id": "eth0", "stream_socket_path": str(folder / "net")}]})
        assert machine.wait() == 0, f"{machine.console}\n{machine.log}"
    lines = said(machine)
    print("\n".join(lines))
    assert lines[-1] == "the end"
    found = {int(kind): int(count) for kind, count in (re.fullmatch(r"device (\d+) withstood (\d+)", line).groups() for line in lines[:-1])}
    assert sorted(found) == sorted(WITHSTOOD.values()) and min(found.values()) >= 42
    assert disk.read_bytes() == before
    assert {path.name for path in folder.iterdir()} == {"disk", "net", "console"}
    assert "needs a reset by its driver" in machine.log
    assert machine.status["cause"] == "poweroff"
