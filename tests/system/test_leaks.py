"""What is left behind: of devices that come and go on a guest that runs, and of machines that start and end, again and again."""
import json
import os
import select
import struct
import subprocess
import time
from pathlib import Path

import pytest

from conftest import BUILD, DEADLINE, Counts

from test_api import guest  # noqa: F401 (a fixture)
from test_pci import BLK, NET, OBEDIENT, Obedient, disk, drive, open_files, wait_until_closed  # noqa: F401 (fixtures)


@pytest.fixture
def tap():
    subprocess.run(["modprobe", "vhost_net"], check=True)
    subprocess.run(["ip", "tuntap", "add", "hullleak0", "mode", "tap", "vnet_hdr"], check=True)
    yield "hullleak0"
    subprocess.run(["ip", "link", "del", "hullleak0"], check=True)


def held(api):
    """Descriptors, threads, KiB of memory that are its own."""
    process = Path("/proc", str(api.process.pid))
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return len(open_files(api)), len(os.listdir(process / "task")), int(status["RssAnon"].split()[0])


@pytest.mark.kvm
def test_devices_that_come_and_go_while_the_guest_runs_leave_nothing(guest, disk, tap, tmp_path_factory):  # noqa: F811
    """More of them than the bus has slots."""
    path, lines = disk("late", b"plugged"), tmp_path_factory.mktemp("metrics") / "metrics"
    machine = {"vcpu_count": 1, "mem_size_mib": 128, "memory_kind": "shared"}  # the guest's memory is not to be counted
    api = guest(OBEDIENT, {"/metrics": {"metrics_path": str(lines)}, "/machine-config": machine}, ["--enable-pci"], [*BLK, *NET])
    console, counts = Obedient(api), Counts(api, lines)

    def come_and_go(times):
        for i in range(times):
            api.must("PUT", "/drives/late", drive("late", path, rate_limiter={"ops": {"size": 1000, "refill_time": 100}}))
            api.must("PUT", "/network-interfaces/late", {"iface_id": "late", "host_dev_name": tap, "vhost": i % 2 == 1})
            console.do("until_there /dev/vda; until_there /sys/class/net/eth0; ip link set eth0 up; head -c 7 /dev/vda")
            api.must("DELETE", "/drives/late")
            api.must("DELETE", "/network-interfaces/late")
            console.do("until_gone /dev/vda; until_gone /sys/class/net/eth0")
            wait_until_closed(api, path)
            wait_until_closed(api, "/dev/net/tun")
            wait_until_closed(api, "/dev/vhost-net")

    come_and_go(5)
    assert counts.next()["block_late"]["read_count"] >= 5
    counted = [held(api)]
    # Each round leaves what one device leaves; what is touched once, late, is of some of them.
    while len(counted) < 3 or len(counted) < 6 and min(later[2] - earlier[2] for earlier, later in zip(counted, counted[1:])) > 64:
        come_and_go(23)
        counted.append(held(api))
    assert len({one[:2] for one in counted}) == 1, counted
    assert min(later[2] - earlier[2] for earlier, later in zip(counted, counted[1:])) <= 64, counted
    assert "loses it" not in api.log
    counted = counts.next()
    assert counted["block_late"]["read_count"] >= 45
    assert counted["net_late"]["activate_fails"] == counted["vhost_net_late"]["activate_fails"] == 0
    assert "block_late" not in counts.next()
    console.off()


# Machines.

LOAD_ADDRESS = 1 << 20
OFF = bytes([0x66, 0xba, 0x00, 0x06,  # mov $0x600,%dx   SLEEP_CONTROL
             0xb0, 0x34,              # mov $0x34,%al    SLP_EN, S5
             0xee, 0xf4])             # out %al,(%dx); hlt


def kernel_that_powers_off():
    """The smallest there is: an ELF file of one segment, entered in 64-bit mode."""
    ident = b"\x7fELF\2\1\1" + bytes(9)
    size = 64 + 56 + len(OFF)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, LOAD_ADDRESS + 64 + 56, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 4096)
    return header + segment + OFF


def process_names():
    names = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            names.append(path.read_text().strip())
        except (FileNotFoundError, ProcessLookupError):
            pass
    return names


def machines():
    return [path.name for path in Path("/sys/kernel/debug/kvm").iterdir() if path.is_dir()]


def host():
    """What outlives a process: names and counts, and KiB of memory in use that no file's page makes."""
    deadline = time.monotonic() + DEADLINE
    while left := machines():  # KVM takes the last one apart after its monitor
        assert time.monotonic() < deadline, left
        select.select([], [], [], 0.005)
    Path("/proc/sys/vm/drop_caches").write_text("3")
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    kib = {name: int(value.split()[0]) for name, value in memory.items()}
    return {
        "processes": sorted(name for name in process_names() if name.startswith(("hull", "kvm"))),
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "shared memory": sorted(os.listdir("/dev/shm")),
        "sockets": len(Path("/proc/net/unix").read_text().splitlines()),
    }, {
        "files": int(Path("/proc/sys/fs/file-nr").read_text().split()[0]),
        "shmem": kib["Shmem"], "slab": kib["SUnreclaim"], "used": kib["MemTotal"] - kib["MemFree"] - kib["Cached"] - kib["Buffers"],
    }


@pytest.mark.kvm
def test_a_thousand_machines_leave_nothing(tmp_path, tap, disk):  # noqa: F811
    if not Path("/sys/kernel/debug/kvm").is_dir():
        subprocess.run(["mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug"], check=True)
    kernel, config = tmp_path / "kernel", tmp_path / "config"
    kernel.write_bytes(kernel_that_powers_off())
    config.write_text(json.dumps({
        "boot-source": {"kernel_image_path": str(kernel)}, "machine-config": {"vcpu_count": 2, "mem_size_mib": 64},
        "drives": [drive("a", disk("a")), drive("b", disk("b"), io_engine="Async")],
        "network-interfaces": [{"iface_id": "n", "host_dev_name": tap}],
        "vsock": {"guest_cid": 3, "uds_path": str(tmp_path / "vsock")}, "entropy": {}, "balloon": {"amount_mib": 0, "deflate_on_oom": False}}))
    files = sorted(os.listdir(tmp_path))

    def start_and_stop(times):
        for i in range(times):
            arguments = ["--config-file", config, *(["--enable-pci"] if i % 2 else []),
                         *(["--no-api"] if i % 5 else ["--api-sock", tmp_path / "api"])]
            ended = subprocess.run([BUILD / "hull-vmm", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, timeout=DEADLINE)
            assert ended.returncode == 0 and b"the guest powered off" in ended.stderr, ended.stderr

    start_and_stop(50)
    names, amounts = host()
    start_and_stop(1000)
    names_after, amounts_after = host()
    grown = {name: amounts_after[name] - amounts[name] for name in amounts}
    assert names_after == names and sorted(os.listdir(tmp_path)) == files
    # Free pages that processors keep for themselves come and go by 4 MiB.
    assert grown["files"] <= 50 and grown["shmem"] <= 256 and grown["slab"] <= 2048 and grown["used"] <= 8192, grown


def test_a_machine_of_32_processors_is_made_and_ends(vmm, tmp_path_factory):
    """A stock kernel would take minutes to start so many on an emulated host of one."""
    kernel = tmp_path_factory.mktemp("kernel") / "kernel"
    kernel.write_bytes(kernel_that_powers_off())
    machine = vmm({"boot-source": {"kernel_image_path": str(kernel)}, "machine-config": {"vcpu_count": 32, "mem_size_mib": 64}})
    assert machine.wait() == 0 and machine.status["cause"] == "poweroff"
    assert "32 vCPU(s)" in machine.log
