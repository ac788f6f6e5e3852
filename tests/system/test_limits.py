"""Rate limiters, over ten seconds and to within 5%, bursts included: what each device lets through in that time.

A bucket holds what two seconds bring, so that a guest which is kept from its turn for less has lost nothing. One that is kept from it for
longer, on a host with much else to do, gets less: what is never more than it may be has a few tries to be no less."""
import json
import os
import select
import socket
import subprocess
import time
from pathlib import Path

import pytest

from conftest import BOOT_ARGS, Vmm
from guest_image import make_initramfs, module
from test_pci import NET, OBEDIENT, PMEM, Obedient

pytestmark = pytest.mark.kvm

MIB = 1 << 20
SECONDS = 10
HOST, GUEST, TAP = "10.79.0.1", "10.79.0.2", "limits0"

# (tokens a second, burst) of each.
BYTES, OPERATIONS, FLUSHES = (MIB, 2 * MIB), (100, 50), (8, 4)
FRAMES, RANDOM, SERIAL = (MIB // 2, MIB // 2), (1000, 2000), (200, 800)
BUCKET_SECONDS = 2
TRIES = 4


def bucket(limit):
    rate, burst = limit
    return {"size": BUCKET_SECONDS * rate, "refill_time": 1000 * BUCKET_SECONDS, "one_time_burst": burst}


def due(limit, seconds=SECONDS):
    """What passes in the time: a full bucket, the burst, and what comes meanwhile."""
    rate, burst = limit
    return int(burst + (BUCKET_SECONDS + seconds) * rate)


def assert_paced(limit, passed, what, begin=lambda: None):
    """`passed()` is what has passed so far, of a bucket that is full; begin() has it begin. Never more than is due; and in ten seconds no less:
    with the bucket and the burst, or, in one of the tries that follow, what they bring."""
    seen, expected = [], due(limit)
    first, begun = before, at = passed(), time.monotonic()
    begin()
    for _ in range(TRIES):
        select.select([], [], [], SECONDS)
        value, now = passed(), time.monotonic()
        assert value - first <= 1.05 * due(limit, now - begun), (what, value - first, now - begun)
        seen.append((value - before, expected + limit[0] * (now - at - SECONDS)))
        if seen[-1][0] >= 0.95 * seen[-1][1]:
            return
        before, at, expected = value, now, limit[0] * SECONDS
    raise AssertionError(f"{what} is slowed too much: {seen}")


@pytest.fixture(scope="module")
def tap():
    for words in (f"ip tuntap add {TAP} mode tap vnet_hdr", f"ip addr add {HOST}/24 dev {TAP}", f"ip link set {TAP} up"):
        subprocess.run(words.split(), check=True)
    yield TAP
    subprocess.run(["ip", "link", "del", TAP], check=True)


class Machine:
    """A guest that does as it is told, with a limit on each of its devices."""

    def __init__(self, folder, vmlinux, modules):
        files = {"lib64/virtio-rng.ko": module(modules, "virtio_rng"), "lib64/work": WORK.encode()}
        image = make_initramfs(folder / "initramfs", OBEDIENT, modules, ["virtio_blk", *NET, *PMEM], files)
        self.metrics = folder / "metrics"
        (folder / "monitor").mkdir()
        self.api = Vmm(None, folder / "monitor", ["--enable-pci"])
        self.describe(folder, vmlinux, image)
        self.guest = Obedient(self.api)
        self.guest.do(f"ip link set eth0 up; ip addr add {GUEST}/24 dev eth0")

    def describe(self, folder, vmlinux, image):
        must = self.api.must
        must("PUT", "/boot-source", {"kernel_image_path": str(vmlinux), "initrd_path": str(image),
                                     "boot_args": BOOT_ARGS})
        must("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 256})
        for name, limiter in (("bytes", {"bandwidth": bucket(BYTES)}), ("operations", {"ops": bucket(OPERATIONS)})):
            must("PUT", f"/drives/{name}", {"drive_id": name, "path_on_host": file_of(folder / name), "is_root_device": False,
                                            "rate_limiter": limiter})
        must("PUT", "/pmem/flushes", {"id": "flushes", "path_on_host": file_of(folder / "flushes"),
                                      "rate_limiter": {"ops": bucket(FLUSHES)}})
        frames = {"bandwidth": bucket(FRAMES)}
        must("PUT", "/network-interfaces/eth0", {"iface_id": "eth0", "host_dev_name": TAP, "guest_mac": "06:00:00:00:00:01",
                                                 "rx_rate_limiter": frames, "tx_rate_limiter": frames})
        must("PUT", "/entropy", {"rate_limiter": {"bandwidth": bucket(RANDOM)}})
        must("PUT", "/serial", {"rate_limiter": bucket(SERIAL)})
        must("PUT", "/metrics", {"metrics_path": str(self.metrics)})
        must("PUT", "/actions", {"action_type": "InstanceStart"})

    def random_bytes(self):
        """That the guest has been given."""
        self.api.must("PUT", "/actions", {"action_type": "FlushMetrics"})
        return sum(json.loads(line)["entropy"]["entropy_bytes"] for line in self.metrics.read_text().splitlines())


def file_of(path):
    with path.open("wb") as file:
        file.truncate(16 * MIB)
    return str(path)


@pytest.fixture(scope="module")
def machine(tap, tmp_path_factory, vmlinux, modules_folder):
    machine = Machine(tmp_path_factory.mktemp("limits"), vmlinux, modules_folder)
    yield machine
    machine.api.close()


def moved(direction):
    """Bytes of the tap's: "tx" is what the guest is given."""
    return int(Path(f"/sys/class/net/{TAP}/statistics/{direction}_bytes").read_text())


# What is to take ten seconds says how long it took.
WORK = f"""
timed() {{ begun=$(cut -d ' ' -f 1 /proc/uptime); "$@" > /dev/null 2>&1; echo $begun $(cut -d ' ' -f 1 /proc/uptime); }}
flushes() {{ for i in $(seq {due(FLUSHES)}); do dd if=/dev/zero of=/dev/pmem0 bs=4k count=1 conv=fsync; done; }}
again_bytes() {{ timed dd if=/dev/vda of=/dev/null bs=64k count={due(BYTES) >> 16} iflag=direct > /tmp/bytes; }}
again_operations() {{ timed dd if=/dev/vdb of=/dev/null bs=4k count={due(OPERATIONS)} iflag=direct > /tmp/operations; }}
again_flushes() {{ timed flushes > /tmp/flushes; }}
again_bytes &
again_operations &
again_flushes &
insmod /lib64/virtio-rng.ko
cat /dev/hwrng > /dev/null &
"""


def test_drives_memory_and_random_numbers(machine):
    guest = machine.guest
    assert_paced(RANDOM, machine.random_bytes, "random", lambda: guest.do(". /lib64/work"))
    for name, (rate, burst) in {"bytes": BYTES, "operations": OPERATIONS, "flushes": FLUSHES}.items():
        expected = SECONDS
        for left in reversed(range(TRIES)):
            begun, ended = map(float, guest.do(f"until [ -s /tmp/{name} ]; do usleep 10000; done; cat /tmp/{name}").split()[-2:])
            assert ended - begun >= 0.95 * expected, (name, ended - begun, expected)
            if ended - begun <= 1.05 * expected:
                break
            assert left, f"{name} is slowed too much: {ended - begun} in the place of {expected} s"
            expected = SECONDS + burst / rate  # which is used up
            guest.do(f"usleep {BUCKET_SECONDS}000000; again_{name}")


def test_frames_of_the_guest(machine):
    with socket.create_server((HOST, 9)) as server:
        machine.guest.do(f"nc {HOST} 9 < /dev/zero > /dev/null 2>&1 &")
        with server.accept()[0] as connection, \
                subprocess.Popen(["cat"], stdin=connection, stdout=subprocess.DEVNULL) as receiver:
            try:
                assert_paced(FRAMES, lambda: moved("rx"), "rx")
            finally:
                receiver.kill()


def test_frames_to_the_guest(machine):
    machine.guest.do("nc -l -p 9 > /dev/null & until netstat -tln | grep -q :9; do usleep 1000; done")
    with socket.create_connection((GUEST, 9)) as connection, subprocess.Popen(["cat", "/dev/zero"], stdout=connection) as sender:
        try:
            assert_paced(FRAMES, lambda: moved("tx"), "tx")
        finally:
            sender.kill()


def test_the_serial_port(machine):
    """The guest says more than passes; what is too much is lost, and is the last thing that it says. The burst is used at once: a
    bucket that is full meanwhile loses what comes."""
    api, (rate, burst) = machine.api, SERIAL

    def heard():
        while select.select([api.process.stdout], [], [], 0)[0]:
            api.output += os.read(api.process.stdout.fileno(), 65536)
        return len(api.output)

    speak = f"seq {burst}; while :; do echo {'x' * (rate // 5)}; usleep 50000; done &\n"
    assert_paced((rate, max(0, burst - heard())), heard, "serial", lambda: api.send(speak))
    api.send("poweroff -f\n")
    assert api.wait() == 0 and api.status["cause"] == "poweroff"
