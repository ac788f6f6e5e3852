"""Virtio devices on a PCI bus: with messages for interrupts, more of them, and such as come and go while the guest runs."""
import contextlib
import json
import os
import signal
import socketserver
import subprocess
import threading
import time
import zlib
from pathlib import Path

import pytest

from conftest import BOOT_ARGS, Counts, DEADLINE, TOP

from guest_image import FIO_ENVIRONMENT, fio_files
from test_api import NOT_ANY_MORE, guest  # noqa: F401 (a fixture)

MIB = 1 << 20
BLK = ["virtio_blk"]
NET = ["failover", "net_failover", "virtio_net"]
PMEM = ["libnvdimm", "nd_btt", "nd_pmem", "nd_virtio", "virtio_pmem"]

# A guest that does what it is told, a line at a time, and says how that ended.
OBEDIENT = """
# A disk's node is there an instant before the disk.
until_there() { until [ -e $1 ] && { [ ! -b $1 ] || head -c 1 $1 > /dev/null 2>&1; }; do usleep 20000; done; }
until_gone() { while [ -e $1 ]; do usleep 20000; done; }
echo guest: up
told=0
while read -r line; do eval "$line"; status=$?; told=$((told + 1)); echo; echo "done $told: $status"; done
"""


class Obedient:
    def __init__(self, api):
        self.api, self.n = api, 0
        api.wait_for("guest: up")

    def do(self, command):
        """Runs it in the guest; what it said. It must succeed."""
        begin = len(self.api.console)
        self.n += 1
        self.api.send(command + "\n")
        match = self.api.wait_for(f"^done {self.n}: ([0-9]+)")
        said = self.api.console[begin:match.start()]
        assert match.group(1) == "0", said
        return said

    def off(self):
        self.api.send("poweroff -f\n")
        assert self.api.wait() == 0 and self.api.status["cause"] == "poweroff"


@pytest.fixture
def disk(tmp_path_factory):
    """disk(name, content): the path of a disk of a MiB that begins so."""

    def make(name, content=b""):
        path = tmp_path_factory.mktemp("disks") / name
        path.write_bytes(content + b"\0" * (MIB - len(content)))
        return path

    return make


def drive(name, path, **fields):
    return {"drive_id": name, "path_on_host": str(path), "is_root_device": False, **fields}


def open_files(api):
    files = []
    for fd in os.listdir(f"/proc/{api.process.pid}/fd"):
        try:
            files.append(os.readlink(f"/proc/{api.process.pid}/fd/{fd}"))
        except FileNotFoundError:
            pass
    return files


def wait_until_closed(api, path):
    deadline = time.monotonic() + DEADLINE
    while str(path) in open_files(api):
        assert time.monotonic() < deadline, f"{path} is still open"
        api.must("GET", "/")


@pytest.mark.kvm
def test_every_kind_of_device_works_with_messages_for_interrupts(guest, disk, tmp_path_factory):
    path = disk("disk", b"written before")
    folder = tmp_path_factory.mktemp("vsock")
    api = guest(OBEDIENT, {"/drives/disk": drive("disk", path, io_engine="Async", cache_type="Writeback"), "/entropy": {},
                           "/machine-config": {"vcpu_count": 2, "mem_size_mib": 256},
                           "/vsock": {"guest_cid": 3, "uds_path": str(folder / "vsock")}}, ["--enable-pci"],
                [*BLK, "virtio_rng"])
    console = Obedient(api)
    assert "written before" in console.do("head -c 14 /dev/vda")
    console.do("yes new | dd of=/dev/vda bs=64k count=8 iflag=fullblock conv=fsync")
    console.do("head -c 1000 /dev/hwrng > /dev/null")
    interrupts = console.do("cat /proc/interrupts")
    assert "PCI-MSIX-0000:00:01.0" in interrupts and "virtio0-req.0" in interrupts
    assert "1af4:1042" in console.do("for d in /sys/bus/pci/devices/*; do echo $(cut -c3- $d/vendor):$(cut -c3- $d/device); done")
    console.off()
    assert path.read_bytes()[:8 * 65536] == b"new\n" * (8 * 65536 // 4)


# A job on each CPU, each with its part of the disk.
FIO_JOB = b"""
[global]
filename=/dev/vda
verify=crc32c
verify_fatal=1
verify_state_save=0
allow_file_create=0
thread=1

[each]
rw=randwrite
ioengine=libaio
direct=1
iodepth=8
bs=4k
size=2m
numjobs=4
offset_increment=2m
cpus_allowed=0-3
cpus_allowed_policy=split
"""


def queue_threads(api):
    """The names of the monitor's threads that work on queues."""
    names = []
    for thread in Path("/proc", str(api.process.pid), "task").iterdir():
        with contextlib.suppress(OSError):  # one that has ended meanwhile
            names.append((thread / "comm").read_text().strip())
    return sorted(name for name in names if name.split()[0] in ("blk", "net"))


def interrupts_of(said, kind):
    """How often each vector of that name has interrupted, by the table's lines."""
    counts = {}
    for line in said.splitlines():
        fields = line.split()
        if fields and kind in fields[-1]:
            counts[fields[-1]] = sum(int(field) for field in fields[1:5])
    return counts


class Echo(socketserver.ThreadingTCPServer):
    """Sends back what it was sent, once that has ended."""
    daemon_threads = True

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(self.rfile.read())

    def __init__(self, address):
        super().__init__((address, 7000), self.Handler)
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()

    def close(self):
        self.shutdown()
        self.thread.join()
        self.server_close()


@pytest.fixture
def wide_tap():
    """A tap of several queues, and a server behind it."""
    subprocess.run(["ip", "tuntap", "add", "hullwide0", "mode", "tap", "vnet_hdr", "multi_queue"], check=True)
    subprocess.run(["ip", "addr", "add", "10.98.0.1/24", "dev", "hullwide0"], check=True)
    subprocess.run(["ip", "link", "set", "hullwide0", "up"], check=True)
    server = Echo("10.98.0.1")
    yield "hullwide0"
    server.close()
    subprocess.run(["ip", "link", "del", "hullwide0"], check=True)


def a_stream_from_each_cpu(console):
    """Both ways, at the same time, and checked at the end of the way."""
    size = 2 * MIB
    said = console.do(f'for i in 0 1 2 3; do ( yes "stream $i" | head -c {size} | taskset $((1 << i)) nc 10.98.0.1 7000 | crc32 > /tmp/crc$i ) & done;'
                      ' wait; for i in 0 1 2 3; do echo stream $i: $(cat /tmp/crc$i); done')
    for i in range(4):
        line = f"stream {i}\n".encode()
        assert f"stream {i}: {zlib.crc32((line * (size // len(line) + 1))[:size]):08x}" in said


REACH_THE_HOST = "until_there /sys/class/net/eth0; ip addr add 10.98.0.2/24 dev eth0; ip link set eth0 up; ping -c 1 -W 20 10.98.0.1"


def queue_pairs_of_a_running_guest(api, console, tap):
    before = len(open_files(api)), len(queue_threads(api))
    api.must("PUT", "/network-interfaces/wide", {"iface_id": "wide", "host_dev_name": tap, "queue_pairs": 4})
    console.do(REACH_THE_HOST)
    assert [name for name in queue_threads(api) if name.startswith("net")] == [f"net {i} wide" for i in range(4)]
    assert "rx-0 rx-1 rx-2 rx-3 tx-0 tx-1 tx-2 tx-3" in console.do("echo $(ls /sys/class/net/eth0/queues | sort)")
    a_stream_from_each_cpu(console)
    interrupts = interrupts_of(console.do("cat /proc/interrupts"), "-input.")
    assert len(interrupts) == 4 and all(interrupts.values()), interrupts
    limiter = {"bandwidth": {"size": 100 * MIB, "refill_time": 100}}
    api.must("PATCH", "/network-interfaces/wide", {"iface_id": "wide", "rx_rate_limiter": limiter, "tx_rate_limiter": limiter})
    # A driver that lets go of it, and takes it up again.
    console.do(f"cd /sys/bus/virtio/drivers/virtio_net; d=$(echo virtio*); echo $d > unbind; echo $d > bind; cd /; {REACH_THE_HOST}")
    a_stream_from_each_cpu(console)
    api.must("DELETE", "/network-interfaces/wide")
    console.do("until_gone /sys/class/net/eth0")
    wait_until_closed(api, "/dev/net/tun")
    assert (len(open_files(api)), len(queue_threads(api))) == before


@pytest.mark.kvm
def test_queues_with_a_thread_each(guest, disk, wide_tap, tmp_path_factory):
    folder = tmp_path_factory.mktemp("queues")
    large, late, lines = folder / "large", disk("late", b"plugged"), folder / "metrics"
    with large.open("wb") as file:
        file.truncate(8 * MIB)
    pieces = {"/machine-config": {"vcpu_count": 4, "mem_size_mib": 256}, "/metrics": {"metrics_path": str(lines)},
              "/drives/large": drive("large", large, io_engine="Async", cache_type="Writeback", num_queues=4)}
    api = guest(OBEDIENT, pieces, ["--enable-pci"], [*BLK, *NET], {**fio_files(folder), "job.fio": FIO_JOB})
    console, counts = Obedient(api), Counts(api, lines)
    assert queue_threads(api) == [f"blk {i} large" for i in range(4)]
    assert api.must("GET", "/vm/config")["drives"][0]["num_queues"] == 4
    assert "0 1 2 3" in console.do("echo $(ls /sys/block/vda/mq | sort)")
    console.do(FIO_ENVIRONMENT + " fio --output=/tmp/fio.log /job.fio || { cat /tmp/fio.log; false; }")
    interrupts = interrupts_of(console.do("cat /proc/interrupts"), "-req.")
    assert len(interrupts) == 4 and all(interrupts.values()), interrupts
    counted = counts.next()["block_large"]
    assert counted["write_bytes"] == 8 * MIB and counted["write_count"] >= 8 and counted["execute_fails"] == 0
    # What is changed while it runs, is changed for all queues.
    api.must("PATCH", "/drives/large", {"drive_id": "large", "rate_limiter": {"ops": {"size": 100000, "refill_time": 100}}})
    api.must("PATCH", "/drives/large", {"drive_id": "large", "path_on_host": str(late)})
    assert "plugged" in console.do("echo 3 > /proc/sys/vm/drop_caches; for i in 1 2 4 8; do taskset $i head -c 7 /dev/vda; done")
    api.must("PATCH", "/drives/large", {"drive_id": "large", "path_on_host": str(large)})
    # One that comes later, with more queues than the guest has CPUs, and goes.
    before = len(open_files(api))
    api.must("PUT", "/drives/late", drive("late", late, num_queues=8))
    assert "plugged" in console.do("until_there /dev/vdb; head -c 7 /dev/vdb")
    assert "0 1 2 3" in console.do("echo $(ls /sys/block/vdb/mq | sort)")
    assert len(queue_threads(api)) == 12
    api.must("DELETE", "/drives/late")
    console.do("until_gone /dev/vdb")
    wait_until_closed(api, late)
    assert len(queue_threads(api)) == 4 and len(open_files(api)) == before
    queue_pairs_of_a_running_guest(api, console, wide_tap)
    # A driver that lets go of it, and takes it up again.
    console.do("for d in /sys/bus/virtio/drivers/virtio_blk/virtio*; do n=${d##*/}; done; cd /sys/bus/virtio/drivers/virtio_blk;"
               " echo $n > unbind; echo $n > bind; cd /; until_there /dev/vda; head -c 8000000 /dev/vda | wc -c")
    assert "loses it" not in api.log and "needs a reset" not in api.log
    console.off()


@pytest.mark.kvm
def test_several_queues_need_the_bus(vmm, vmlinux, disk, wide_tap):
    api = vmm(None)
    api.must("PUT", "/boot-source", {"kernel_image_path": str(vmlinux)})
    for n in (0, 9):
        api.refused("PUT", "/drives/data", drive("data", disk("data"), num_queues=n), "num_queues: must be 1 to 8")
    api.must("PUT", "/drives/data", drive("data", disk("data"), num_queues=2))
    api.refused("PUT", "/actions", {"action_type": "InstanceStart"}, "drives[0].num_queues: is 2: more than one needs --enable-pci")
    api.must("PUT", "/drives/data", drive("data", disk("data")))
    wide = {"iface_id": "wide", "host_dev_name": wide_tap, "queue_pairs": 2}
    api.refused("PUT", "/network-interfaces/wide", {**wide, "queue_pairs": 9}, "queue_pairs: must be 1 to 8")
    api.refused("PUT", "/network-interfaces/wide", {**wide, "vhost": True}, "queue_pairs: cannot be given with vhost")
    api.refused("PUT", "/network-interfaces/wide", {**wide, "queue_pairs": 1}, "host_dev_name: hullwide0 is not a tap interface with one queue")
    subprocess.run(["ip", "tuntap", "add", "hullthin0", "mode", "tap", "vnet_hdr"], check=True)
    api.refused("PUT", "/network-interfaces/wide", {**wide, "host_dev_name": "hullthin0"},
                "host_dev_name: hullthin0 is not a tap interface with several queues (multi_queue)")
    subprocess.run(["ip", "link", "del", "hullthin0"], check=True)
    api.must("PUT", "/network-interfaces/wide", wide)
    api.refused("PUT", "/actions", {"action_type": "InstanceStart"},
                "network-interfaces[0].queue_pairs: is 2: more than one needs --enable-pci")


@pytest.mark.kvm
def test_twenty_drives(guest, disk):
    """More than there are pages of virtio-mmio."""
    pieces = {f"/drives/d{i}": drive(f"d{i}", disk(f"d{i}", b"disk %02d" % i), is_read_only=i % 2 == 1) for i in range(20)}
    console = Obedient(guest(OBEDIENT, pieces, ["--enable-pci"], BLK))
    said = console.do('for d in /sys/block/vd*; do echo "$(cat $d/serial) $(head -c 7 /dev/${d##*/}) $(cat $d/ro)"; done')
    for i in range(20):
        assert f"d{i} disk {i:02d} {i % 2}" in said
    console.off()


@pytest.mark.kvm
def test_drives_come_and_go_while_the_guest_runs(guest, disk):
    path = disk("late", b"plugged")
    api = guest(OBEDIENT, {}, ["--enable-pci"], BLK)
    console = Obedient(api)
    before = len(open_files(api))
    for round_ in range(3):
        api.must("PUT", "/drives/late", drive("late", path))
        assert [d["drive_id"] for d in api.must("GET", "/vm/config")["drives"]] == ["late"]
        assert "plugged" in console.do("until_there /dev/vda; head -c 7 /dev/vda")
        console.do(f"echo round {round_} | dd of=/dev/vda bs=512 seek=8 conv=fsync")
        assert path.read_bytes()[4096:4103] == b"round %d" % round_
        api.must("PATCH", "/drives/late", {"drive_id": "late", "rate_limiter": {"ops": {"size": 1000, "refill_time": 100}}})
        api.refused("PUT", "/drives/late", drive("late", path), 'drives has "late" already')
        # The guest is asked for it, and lets go by itself.
        api.must("DELETE", "/drives/late")
        assert api.must("GET", "/vm/config")["drives"] == []
        api.refused("PATCH", "/drives/late", {"drive_id": "late"}, "late")
        api.refused("DELETE", "/drives/late", None, 'drives has no "late"')
        console.do("until_gone /dev/vda")
        wait_until_closed(api, path)
    assert len(open_files(api)) == before
    assert "loses it" not in api.log
    console.off()


@pytest.mark.kvm
def test_an_interface_comes_and_goes_while_the_guest_runs(guest):
    api = guest(OBEDIENT, {}, ["--enable-pci"], NET)
    console = Obedient(api)
    subprocess.run(["ip", "tuntap", "add", "hullpci0", "mode", "tap", "vnet_hdr"], check=True)
    try:
        subprocess.run(["ip", "addr", "add", "10.99.0.1/24", "dev", "hullpci0"], check=True)
        subprocess.run(["ip", "link", "set", "hullpci0", "up"], check=True)
        for _ in range(2):
            api.must("PUT", "/network-interfaces/late", {"iface_id": "late", "host_dev_name": "hullpci0",
                                                         "guest_mac": "06:00:ac:10:00:07"})
            said = console.do("until_there /sys/class/net/eth0; cat /sys/class/net/eth0/address; ip addr add 10.99.0.2/24 dev eth0; "
                              "ip link set eth0 up; ping -c 2 -W 20 10.99.0.1")
            assert "06:00:ac:10:00:07" in said and "2 packets received" in said
            api.must("DELETE", "/network-interfaces/late")
            console.do("until_gone /sys/class/net/eth0")
            wait_until_closed(api, "/dev/net/tun")
    finally:
        subprocess.run(["ip", "link", "del", "hullpci0"], check=True)
    console.off()


@pytest.mark.kvm
def test_a_file_as_memory_comes_and_goes_while_the_guest_runs(guest, tmp_path_factory):
    path = tmp_path_factory.mktemp("pmem") / "late"
    path.write_bytes(b"plugged" + bytes(4 * MIB - 7))
    api = guest(OBEDIENT, {}, ["--enable-pci"], PMEM)
    console = Obedient(api)
    pmem = {"id": "late", "path_on_host": str(path)}
    api.refused("PUT", "/pmem/late", {**pmem, "root_device": True}, "root_device: ")
    for round_ in range(2):
        api.must("PUT", "/pmem/late", pmem)
        assert "plugged" in console.do("until_there /dev/pmem0; head -c 7 /dev/pmem0")
        console.do(f"echo round {round_} | dd of=/dev/pmem0 bs=512 seek=8 conv=fsync")
        assert path.read_bytes()[4096:4103] == b"round %d" % round_
        api.must("DELETE", "/pmem/late")
        console.do("until_gone /dev/pmem0")
        wait_until_closed(api, path)
        assert str(path) not in Path(f"/proc/{api.process.pid}/maps").read_text()
    console.off()


@pytest.mark.kvm
def test_a_guest_that_looks_for_itself(vmm, vmlinux, initramfs, disk):
    """As a user of Firecracker does it: the guest rescans its bus, and lets go of the device before it is taken back. Without
    ACPI's hot-plug, a device that is in use is taken away all the same, once the guest has had its time."""
    path = disk("late", b"plugged")
    api = vmm(None, "--enable-pci")
    api.must("PUT", "/boot-source", {"kernel_image_path": str(vmlinux), "initrd_path": str(initramfs(OBEDIENT, BLK)),
                                     "boot_args": BOOT_ARGS + " acpiphp.disable=1"})
    api.must("PUT", "/actions", {"action_type": "InstanceStart"})
    console = Obedient(api)
    api.must("PUT", "/drives/late", drive("late", path))
    console.do("[ ! -e /dev/vda ]; echo 1 > /sys/bus/pci/rescan; until_there /dev/vda")
    console.do("echo 1 > /sys/bus/pci/devices/0000:00:01.0/remove; until_gone /dev/vda")
    api.must("DELETE", "/drives/late")
    assert str(path) not in open_files(api)  # at once
    api.must("PUT", "/drives/late", drive("late", path))
    assert "plugged" in console.do("echo 1 > /sys/bus/pci/rescan; until_there /dev/vda; head -c 7 /dev/vda")
    api.must("DELETE", "/drives/late")
    api.refused("PUT", "/drives/late", drive("late", path), "is being taken out of the guest")
    wait_until_closed(api, path)
    assert "has not let go of it" in api.log
    console.do("echo the guest lives")
    api.terminate(signal.SIGINT)  # its driver waits for ever for a device that is gone to be reset
    assert api.wait() == 0


@pytest.mark.kvm
def test_a_device_without_a_driver_goes_also_while_the_bus_looks_at_it(guest, disk):
    path = disk("late")
    api = guest(OBEDIENT, {}, ["--enable-pci"], [])
    console = Obedient(api)
    api.must("PUT", "/drives/late", drive("late", path))
    console.do("until_there /sys/bus/pci/devices/0000:00:01.0")
    api.must("DELETE", "/drives/late")
    wait_until_closed(api, path)
    console.do("until_gone /sys/bus/pci/devices/0000:00:01.0")
    console.off()


@pytest.mark.kvm
def test_drives_that_come_while_the_guest_boots(guest, disk):
    """Before it has opened the line on which it would be told."""
    path = disk("late")
    api = guest(OBEDIENT, {}, ["--enable-pci"], BLK)
    for i in range(24):
        for _ in range(30):  # which spreads them over the boot
            api.must("GET", "/")
        api.must("PUT", f"/drives/d{i}", drive(f"d{i}", path, is_read_only=True))
    console = Obedient(api)
    console.do("until [ $(ls /sys/block | grep -c vd) = 24 ]; do usleep 20000; done")
    console.off()


@pytest.mark.kvm
def test_a_guest_that_is_paused_is_asked_when_it_runs_again(guest, disk):
    path, other = disk("late", b"plugged"), disk("other", b"another")
    api = guest(OBEDIENT, {"/drives/late": drive("late", path)}, ["--enable-pci"], BLK)
    console = Obedient(api)
    console.do("until_there /dev/vda")
    api.must("PATCH", "/vm", {"state": "Paused"})
    api.must("DELETE", "/drives/late")
    api.must("PUT", "/drives/other", drive("other", other))
    api.refused("PUT", "/drives/late", drive("late", path), "is being taken out of the guest")
    assert [d["drive_id"] for d in api.must("GET", "/vm/config")["drives"]] == ["other"]
    assert str(path) in open_files(api)
    api.must("PATCH", "/vm", {"state": "Resumed"})
    console.do("until [ \"$(cat /sys/block/vd*/serial)\" = other ]; do usleep 20000; done; head -c 7 /dev/vd? | grep another")
    wait_until_closed(api, path)
    assert "loses it" not in api.log
    # It ends while it is asked for one.
    api.must("PATCH", "/vm", {"state": "Paused"})
    api.must("DELETE", "/drives/other")
    api.terminate(signal.SIGINT)
    assert api.wait() == 0


@pytest.mark.kvm
def test_a_guest_that_lets_go_of_what_nobody_wants_back(guest, disk):
    """It has it again when it looks."""
    path = disk("there", b"there")
    api = guest(OBEDIENT, {"/drives/there": drive("there", path)}, ["--enable-pci"], BLK)
    console = Obedient(api)
    console.do("until_there /dev/vda; echo 0 > /sys/bus/pci/slots/1/power; until_gone /dev/vda")
    assert str(path) in open_files(api) and len(api.must("GET", "/vm/config")["drives"]) == 1
    assert "there" in console.do("echo 1 > /sys/bus/pci/slots/1/power; until_there /dev/vda; head -c 5 /dev/vda")
    console.off()


@pytest.fixture(scope="session")
def hostile_driver(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "hostile_virtio"
    subprocess.run(["cc", "-static", "-O2", "-Wall", "-Werror", "-o", path, TOP / "tests" / "system" / "hostile_virtio.c"], check=True)
    return {"bin/hostile_virtio": path.read_bytes()}


@pytest.mark.kvm
def test_a_driver_with_bad_manners_finds_what_the_standard_says(guest, disk, hostile_driver):
    """Resets again and again, ids read again, doorbells without end, on each of the devices; then an honest driver is served."""
    path, late = disk("disk", b"written before"), disk("late")
    pieces = {"/drives/disk": drive("disk", path), "/entropy": {}, "/balloon": {"amount_mib": 0, "deflate_on_oom": True}}
    api = guest(OBEDIENT, pieces, ["--enable-pci"], [*BLK, "virtio_rng", "virtio_balloon"], files=hostile_driver)
    console = Obedient(api)
    console.do("cd /sys/bus/pci/drivers/virtio-pci; devices=$(echo 0000:*); [ $(echo $devices | wc -w) -eq 3 ]")
    before = len(open_files(api)), len(os.listdir(f"/proc/{api.process.pid}/task"))
    # A driver that goes while its requests are under way takes them back.
    console.do("for i in 1 2 3 4 5 6 7 8; do dd if=/dev/vda of=/dev/null bs=64k iflag=direct 2> /dev/null & "
               "for d in $devices; do echo $d > unbind; done; wait $!; for d in $devices; do echo $d > bind; done; until_there /dev/vda; done")
    console.do("for d in $devices; do echo $d > unbind; hostile_virtio /sys/bus/pci/devices/$d || { echo $d; break; }; echo $d > bind; done; "
               "[ $(echo 0000:* | wc -w) -eq 3 ]")
    assert "written before" in console.do("until_there /dev/vda; head -c 14 /dev/vda; head -c 1000 /dev/hwrng > /dev/null")
    # One that is taken away from under such a driver.
    api.must("PUT", "/drives/late", drive("late", late))
    console.do("until_there /dev/vdb; late=$(echo 0000:* | tr ' ' '\\n' | tail -n 1); echo $late > unbind; "
               "(while [ -e /sys/bus/pci/devices/$late ]; do hostile_virtio /sys/bus/pci/devices/$late; done > /dev/null 2>&1) &")
    api.must("DELETE", "/drives/late")
    wait_until_closed(api, late)
    console.do("until_gone /sys/bus/pci/devices/$late")
    assert (len(open_files(api)), len(os.listdir(f"/proc/{api.process.pid}/task"))) == before
    assert len(api.log.splitlines()) < 60
    console.off()


@pytest.mark.kvm
def test_what_cannot_be_plugged_is_refused_and_leaves_nothing(guest, disk, tmp_path_factory):
    path = disk("disk")
    empty = tmp_path_factory.mktemp("empty") / "empty"
    empty.touch()
    api = guest(OBEDIENT, {"/drives/there": drive("there", path, is_read_only=True)}, ["--enable-pci"], BLK)
    console = Obedient(api)
    before = len(open_files(api)), api.must("GET", "/vm/config")
    for body, reason in [
            (drive("late", "/missing"), "path_on_host: /missing: No such file"),
            (drive("late", empty), "path_on_host"),
            (drive("late", path, is_root_device=True), "is_root_device: "),
            (drive("other", path), 'drive_id: is "other", and the path says "late"'),
            ({**drive("late", path), "socket": "/s"}, "socket"),
            ({"drive_id": "late"}, "is required")]:
        api.refused("PUT", "/drives/late", body, reason)
    api.refused("PUT", "/network-interfaces/late", {"iface_id": "late", "host_dev_name": "lo"}, "host_dev_name")
    api.refused("PUT", "/drives/there", drive("there", path, is_read_only=True), 'drives has "there" already')
    api.refused("PUT", "/vsock", {"guest_cid": 3, "uds_path": "/v"}, NOT_ANY_MORE)
    api.refused("PUT", "/entropy", {}, NOT_ANY_MORE)
    for i in range(30):
        api.must("PUT", f"/drives/d{i}", drive(f"d{i}", path, is_read_only=True))
    api.refused("PUT", "/drives/d30", drive("d30", path, is_read_only=True), "31")
    for i in range(30):
        api.must("DELETE", f"/drives/d{i}")
    console.do("while [ -e /dev/vdb ]; do usleep 20000; done")
    deadline = time.monotonic() + DEADLINE
    while len(open_files(api)) != before[0]:
        assert time.monotonic() < deadline, open_files(api)
        api.must("GET", "/")
    assert api.must("GET", "/vm/config") == before[1]
    console.off()


@pytest.mark.kvm
def test_without_a_bus_nothing_can_be_plugged(guest, disk):
    path = disk("disk")
    api = guest(OBEDIENT, {"/drives/there": drive("there", path)}, [], ["virtio_mmio", *BLK])
    console = Obedient(api)
    api.refused("PUT", "/drives/late", drive("late", path), NOT_ANY_MORE)
    api.refused("DELETE", "/drives/there", None, NOT_ANY_MORE)
    assert "0000:00" not in console.do("ls /sys/bus/pci/devices")
    console.off()


def test_the_bus_has_an_end(vmm, vmlinux, disk):
    path = disk("disk")
    machine = vmm(json.dumps({"boot-source": {"kernel_image_path": str(vmlinux)},
                              "drives": [drive(f"d{i}", path, is_read_only=True) for i in range(32)]}), "--enable-pci")
    assert machine.wait() == 1 and machine.log.startswith("hull-vmm: drives: ")


@pytest.mark.kvm
def test_pages_have_an_end(vmm, vmlinux, disk):
    path = disk("disk")
    machine = vmm(json.dumps({"boot-source": {"kernel_image_path": str(vmlinux)},
                              "drives": [drive(f"d{i}", path, is_read_only=True) for i in range(19)]}))
    assert machine.wait() == 1
    assert machine.log.startswith("hull-vmm: drives[18]: a machine has room for 18 virtio devices, or more with --enable-pci")
