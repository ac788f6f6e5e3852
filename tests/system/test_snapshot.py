"""A machine that is saved, and goes on in another process: what it remembers, what it was doing, and what is refused."""
import json
import os
import socket
import struct
import subprocess
import time

import pytest

from conftest import BOOT_ARGS, DEADLINE, GUEST, Cpio
from test_api import guest  # noqa: F401 (a fixture)
from test_devices import connect
from test_guest import image  # noqa: F401 (a fixture)
from test_pci import MIB, OBEDIENT, PMEM, Obedient, disk, drive  # noqa: F401

BLK = ["virtio_mmio", "virtio_blk"]
RUNNING = "the machine is running: pause it first"


class Restored(Obedient):
    """The same guest, which has done `n` things already, with another monitor."""

    def __init__(self, api, n):
        self.api, self.n = api, n


def uptime(console):
    """The guest's CLOCK_BOOTTIME, seconds."""
    return float(console.do("cut -d' ' -f1 /proc/uptime").split()[-1])


@pytest.fixture
def files(tmp_path_factory):
    """Where a snapshot goes."""
    folder = tmp_path_factory.mktemp("snapshot")
    return {"snapshot_path": str(folder / "state"), "mem_file_path": str(folder / "memory")}


def load_of(files, **more):
    return {"snapshot_path": files["snapshot_path"], "resume_vm": True,
            "mem_backend": {"backend_type": "File", "backend_path": files["mem_file_path"]}, **more}


def save(api, files):
    """Pauses and saves it, and ends the monitor as a crash would."""
    api.must("PATCH", "/vm", {"state": "Paused"})
    api.must("PUT", "/snapshot/create", files)
    api.process.kill()
    api.process.wait()


@pytest.fixture
def restore(vmm):
    def start(files, *arguments, **more):
        api = vmm(None, *arguments)
        api.must("PUT", "/snapshot/load", load_of(files, **more))
        return api

    return start


LOADS = [
    ({}, "snapshot_path: is required"), ({"snapshot_path": "/none"}, "mem_backend: is required, or mem_file_path"),
    ({"snapshot_path": "/none", "mem_file_path": "/none"}, "snapshot_path: /none: No such file or directory"),
    ({"snapshot_path": "/", "mem_file_path": "/none"}, "snapshot_path: /: is no regular file"),
    ({"snapshot_path": "/etc/passwd", "mem_file_path": "/none"}, "snapshot_path: /etc/passwd: saved state"),
    ({"snapshot_path": "/none", "mem_file_path": "/none", "mem_backend": {"backend_type": "File", "backend_path": "/none"}}, "exclude one another"),
    ({"snapshot_path": "/none", "mem_backend": {"backend_type": "Uffd", "backend_path": "/none"}}, "mem_backend.backend_type: is Uffd"),
    ({"snapshot_path": "/none", "mem_file_path": "/none", "track_dirty_pages": True}, "track_dirty_pages: is true"),
    ({"snapshot_path": "/none", "mem_file_path": "/none", "resume": True}, "resume: unknown"),
]


def test_what_cannot_be_loaded_is_refused(vmm):
    api = vmm(None)
    api.refused("PUT", "/snapshot/create", {"snapshot_path": "s", "mem_file_path": "m"}, "not supported before starting")
    for body, reason in LOADS:
        api.refused("PUT", "/snapshot/load", body, reason)
    api.must("PUT", "/logger", {"level": "Debug"})
    api.refused("PUT", "/snapshot/load", {"snapshot_path": "/none", "mem_file_path": "/none"}, "No such file")
    api.must("PUT", "/vsock", {"guest_cid": 3, "uds_path": "/none/v.sock"})
    api.refused("PUT", "/snapshot/load", {"snapshot_path": "/none", "mem_file_path": "/none"}, "before anything of a machine is described")
    assert api.must("GET", "/")["state"] == "Not started"


@pytest.mark.parametrize("body, reason", [
    (None, "--restore: "), ("{", "--restore: not valid JSON"), ({"resume_vm": True}, "snapshot_path: is required"),
    ({"snapshot_path": "/none", "mem_file_path": "/none"}, "resume_vm: must be true with --no-api"),
    ({"snapshot_path": "/none", "mem_file_path": "/none", "resume_vm": True}, "snapshot_path: /none: No such file"),
])
def test_a_refused_restore_is_the_processs_own_end(vmm, body, reason):
    one = vmm(body if body else "", option="--restore")
    assert one.wait() == 1
    assert one.status["cause"] == "error" and f"hull-vmm: {reason}" in one.log and one.log.count("\n") == 1


@pytest.mark.kvm
def test_a_guest_goes_on_in_another_process(guest, disk, files, restore, vmm, tmp_path):  # noqa: F811
    path = disk("disk", b"written before")
    api = guest(OBEDIENT, {"/drives/disk": drive("disk", path, io_engine="Async", cache_type="Writeback"), "/entropy": {},
                           "/machine-config": {"vcpu_count": 2, "mem_size_mib": 192}}, ["--boot-timer"], [*BLK, "virtio_rng"])
    console = Obedient(api)
    console.do("remembered=seven; exec 7> /held; echo one >&7; head -c 100000 /dev/hwrng > /random; sum=$(md5sum /random)")
    console.do("(i=0; while :; do i=$((i+1)); echo $i > /new; mv /new /count; usleep 10000; done) &")
    console.do("n=0; (while dd if=/random of=/dev/vda bs=4k count=24 seek=2 conv=fsync,notrunc && blockdev --flushbufs /dev/vda && "
               "dd if=/dev/vda of=/back bs=4k skip=2 count=24 && cmp -n 98304 /random /back; do n=$((n+1)); echo $n > /rounds; done "
               "> /why 2>&1; touch /broken) &")
    console.do("until [ -e /rounds ] || [ -e /broken ]; do usleep 10000; done; [ -e /broken ] && cat /why; [ ! -e /broken ]")
    console.do("(sleep 2; echo rang > /timer) & echo $! > /sleeper")
    ran_from = time.monotonic()
    before = uptime(console)
    count = int(console.do("cat /count").split()[-1])
    api.refused("PUT", "/snapshot/create", files, RUNNING)
    save(api, files)
    ran = time.monotonic() - ran_from
    cut = tmp_path / "cut"
    cut.write_bytes(open(files["snapshot_path"], "rb").read()[:-1])
    api = vmm(None)
    api.refused("PUT", "/snapshot/load", load_of({**files, "snapshot_path": str(cut)}), "snapshot_path: section virtio-")
    api.process.kill()
    api.process.wait()
    assert 0 < os.stat(files["mem_file_path"]).st_blocks * 512 < 150 << 20 < os.stat(files["mem_file_path"]).st_size
    assert os.stat(files["mem_file_path"]).st_mode & 0o777 == os.stat(files["snapshot_path"]).st_mode & 0o777 == 0o600
    for _ in range(2):  # from one snapshot, as often as one likes
        ran_from = time.monotonic()
        again = restore(files)
        resumed = Restored(again, console.n)
        assert "seven" in resumed.do("echo $remembered; echo two >&7")
        assert resumed.do("cat /held").split()[-2:] == ["one", "two"]
        resumed.do('[ "$(md5sum /random)" = "$sum" ]')
        assert before <= uptime(resumed) <= before + ran + time.monotonic() - ran_from  # what lay in between has not passed
        resumed.do("until [ -e /timer ]; do usleep 10000; done")
        assert int(resumed.do("cat /count").split()[-1]) > count
        assert "written before" in resumed.do("echo 3 > /proc/sys/vm/drop_caches; head -c 14 /dev/vda")
        resumed.do("echo written after | dd of=/dev/vda conv=fsync bs=512 seek=8; head -c 1000 /dev/hwrng > /dev/null")
        resumed.do("rounds=$(cat /rounds); until [ $(cat /rounds) -gt $((rounds+2)) ]; do [ ! -e /broken ] || { cat /why; break; }; "
                   "usleep 10000; done; [ ! -e /broken ]")
        resumed.do("[ $(grep -c ^processor /proc/cpuinfo) = 2 ] && taskset 1 true && taskset 2 true")
        resumed.off()
        assert path.read_bytes()[4096:4109] == b"written after"


def plugged_mib(api, wanted):
    """Once the guest has plugged so much."""
    api.must("PATCH", "/hotplug/memory", {"requested_size_mib": wanted})
    end = time.monotonic() + DEADLINE
    while (size := api.must("GET", "/hotplug/memory")["plugged_size_mib"]) != wanted:
        assert time.monotonic() < end, size


def balloon_mib(api, wanted):
    api.must("PATCH", "/balloon", {"amount_mib": wanted})
    end = time.monotonic() + DEADLINE
    while api.must("GET", "/balloon/statistics")["actual_mib"] != wanted:
        assert time.monotonic() < end


@pytest.mark.kvm
def test_every_kind_of_device_goes_on_on_the_pci_bus(guest, disk, files, restore, tmp_path_factory):  # noqa: F811
    """Each at the place that it had, which the order of the configuration does not tell: one came while the guest ran, another went."""
    first, wide, late, moved = disk("first"), disk("wide", b"wide"), disk("late", b"late"), disk("moved", b"moved")
    folder = tmp_path_factory.mktemp("devices")
    (folder / "pmem").write_bytes(b"pmem" + bytes(MIB * 2 - 4))
    pieces = {
        "/machine-config": {"vcpu_count": 2, "mem_size_mib": 256}, "/drives/first": drive("first", first),
        "/drives/wide": drive("wide", wide, num_queues=2, io_engine="Async", cache_type="Writeback"),
        "/pmem/p": {"id": "p", "path_on_host": str(folder / "pmem")}, "/hotplug/memory": {"total_size_mib": 256}, "/entropy": {},
        "/balloon": {"amount_mib": 0, "deflate_on_oom": False, "stats_polling_interval_s": 1},
        "/hull/console": {"output_path": str(folder / "hvc0")}, "/vsock": {"guest_cid": 3, "uds_path": str(folder / "vsock")},
    }
    api = guest(OBEDIENT, pieces, ["--enable-pci"], ["virtio_blk", *PMEM, "virtio_mem", "virtio_rng", "virtio_balloon", "virtio_console"])
    console = Obedient(api)
    console.do("echo online_movable > /sys/devices/system/memory/auto_online_blocks; mount -t tmpfs -o size=100% none /mnt")
    api.must("PUT", "/drives/late", drive("late", late))
    console.do("until_there /dev/vdc")
    api.must("DELETE", "/drives/first")
    console.do("until_gone /dev/vda")
    plugged_mib(api, 256)
    balloon_mib(api, 16)
    console.do("seq 1 300000 > /mnt/big; sum=$(md5sum /mnt/big); echo here > /dev/hvc0")
    save(api, files)
    assert os.stat(files["mem_file_path"]).st_size == 512 * MIB + 4096
    (folder / "vsock").unlink()
    api = restore(files, drive_overrides=[{"drive_id": "late", "path_on_host": str(moved)}],
                  vsock_override={"uds_path": str(folder / "other")})
    console = Restored(api, console.n)
    console.do('[ "$(md5sum /mnt/big)" = "$sum" ]')
    console.do("until dmesg | grep 'virtual machine fork'; do usleep 10000; done")
    assert (folder / "other").is_socket() and not (folder / "vsock").exists()
    console.do("echo 3 > /proc/sys/vm/drop_caches; head -c 1000 /dev/hwrng > /dev/null; echo and there > /dev/hvc0")
    assert "wide" in console.do("head -c 4 /dev/vdb; taskset 2 dd if=/dev/zero of=/dev/vdb bs=4k seek=1 count=64 conv=fsync")
    assert "moved" in console.do("blockdev --flushbufs /dev/vdc; head -c 5 /dev/vdc")
    assert "pmem" in console.do("head -c 4 /dev/pmem0; echo written | dd of=/dev/pmem0 bs=512 seek=8 conv=fsync")
    assert (folder / "pmem").read_bytes()[4096:4103] == b"written"
    assert (folder / "hvc0").read_text().split("\n")[:2] == ["here", "and there"]
    console.do("rm /mnt/big")
    balloon_mib(api, 8)
    plugged_mib(api, 128)
    api.must("DELETE", "/drives/late")
    console.do("until_gone /dev/vdc")
    console.off()


# As hulld runs a machine: hull-init, an image and a scratch disk, a stream for the network, vsock for the output and for orders.

LINES = "i=0; while :; do i=$((i+1)); echo line $i; echo $i > /srv/count; sleep 0.1; done"
GUEST_MAC, PEER_MAC = bytes.fromhex("060000000001"), bytes.fromhex("020000000002")
GUEST_ADDRESS, PEER_ADDRESS = bytes([10, 0, 2, 15]), bytes([10, 0, 2, 2])


class Network:
    """The other end of the guest's only link: says who asks for an address, and hears who has it."""

    def __init__(self, path):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.settimeout(DEADLINE)
        self.listener.bind(str(path))
        self.listener.listen()

    def is_answered(self):
        """Takes a monitor's connection, and asks by ARP until the guest says that the address is its own."""
        link, _ = self.listener.accept()
        link.settimeout(1)
        frame = (b"\xff" * 6 + PEER_MAC + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x800, 6, 4, 1) + PEER_MAC + PEER_ADDRESS +
                 bytes(6) + GUEST_ADDRESS).ljust(60, b"\0")
        end, got = time.monotonic() + DEADLINE, b""
        while time.monotonic() < end:
            try:
                link.sendall(struct.pack(">I", len(frame)) + frame)
                got += link.recv(65536)
            except TimeoutError:
                continue
            if GUEST_MAC + GUEST_ADDRESS + PEER_MAC + PEER_ADDRESS in got:
                return link
        raise AssertionError(f"the guest has not answered: {got!r}")


class Output:
    """What a workload says, from one monitor after the other."""

    def __init__(self, path):
        self.path = path
        self.file = path.open("ab")

    def lines(self):
        return [int(line.split()[1]) for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def wait_for(self, n):
        end = time.monotonic() + DEADLINE
        while not (lines := self.lines()) or lines[-1] < n:
            assert time.monotonic() < end, lines[-3:]
            time.sleep(0.05)
        return lines


def ping(path):
    """The agent answers."""
    with connect(path, 1024) as agent:
        agent.settimeout(DEADLINE)
        agent.sendall(struct.pack("<IHHI", 0x4c4c5548, 1, 1, 0))
        assert agent.recv(8, socket.MSG_WAITALL) == b"HULL\0\0\0\0"


def machine_pieces(kernel, image, folder):  # noqa: F811
    archive = Cpio()
    archive.folder("hull")
    config = {"hostname": "web", "command": ["sh", "-c", LINES], "root": {"image": "image", "scratch": "scratch"},
              "network": {"interface": "eth0", "address": "10.0.2.15", "prefix": 24, "gateway": "10.0.2.2", "dns": ["10.0.2.3"]}}
    archive.file("hull/config.json", json.dumps(config).encode(), 0o600)
    (folder / "guest.cpio").write_bytes(archive.finish())
    subprocess.run(["mkfs.ext4", "-q", "-F", folder / "scratch.ext4", "64M"], check=True)
    return {
        "/boot-source": {"kernel_image_path": str(kernel), "initrd_path": str(GUEST / "initramfs.cpio"),
                         "initrd_append_path": str(folder / "guest.cpio"), "boot_args": BOOT_ARGS},
        "/machine-config": {"vcpu_count": 1, "mem_size_mib": 192},
        "/drives/image": drive("image", image, is_read_only=True, io_engine="Async"),
        "/drives/scratch": drive("scratch", folder / "scratch.ext4", io_engine="Async", cache_type="Writeback"),
        "/network-interfaces/eth0": {"iface_id": "eth0", "stream_socket_path": str(folder / "net"), "guest_mac": "06:00:00:00:00:01"},
        "/vsock": {"guest_cid": 3, "uds_path": str(folder / "vsock.sock")}, "/entropy": {},
    }


@pytest.mark.kvm
def test_a_machine_of_hulld_goes_on_and_loses_no_line(vmm, vmlinux, image, files, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("machine")
    network, output = Network(folder / "net"), Output(folder / "output")
    options = ["--log-fd", str(output.file.fileno())]
    api = vmm(None, *options, pass_fds=[output.file.fileno()])
    for path, body in machine_pieces(vmlinux, image, folder).items():
        api.must("PUT", path, body)
    api.must("PUT", "/actions", {"action_type": "InstanceStart"})
    link = network.is_answered()
    output.wait_for(5)
    ping(folder / "vsock.sock")
    save(api, files)
    link.close()
    # In place of a configuration, and without an API.
    again = vmm(load_of(files), *options, option="--restore", pass_fds=[output.file.fileno()])
    said = output.lines()[-1]
    link = network.is_answered()
    ping(folder / "vsock.sock")
    lines = output.wait_for(said + 5)
    assert lines == list(range(1, len(lines) + 1))
    assert "the host takes no more output" not in again.console
    again.terminate()
    # hull-init hands the workload's status over by a port that it has to be permitted.
    assert again.wait() == 143 and again.status["cause"] == "poweroff", again._describe(again.status)  # its workload, by SIGTERM
