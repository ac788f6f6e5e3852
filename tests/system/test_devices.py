"""The devices' data paths, with a stock guest at the other end: what went in comes out, byte for byte.

HULL_VSOCK_MIB   how much goes over vsock, each way (default: 256, a thousand times what a window takes)
"""
import ctypes
import http.server
import os
import random
import socket
import subprocess
import tempfile
import threading
import time
import zlib
from pathlib import Path

import pytest

from conftest import BOOT_ARGS, DEADLINE, TOP
from guest_image import FIO_ENVIRONMENT, fio_files

MIB = 1 << 20
BLK = ["virtio_mmio", "virtio_blk"]
NET = ["virtio_mmio", "failover", "net_failover", "virtio_net"]
VSOCK = ["virtio_mmio", "vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"]

pytestmark = pytest.mark.kvm


@pytest.fixture
def config(vmlinux):
    return {
        "boot-source": {"kernel_image_path": str(vmlinux), "boot_args": BOOT_ARGS},
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 256},
    }


@pytest.fixture
def boot(vmm, config, initramfs):
    """boot(script, modules, files): a guest that runs `script` on the machine that `config` describes by then."""

    def start(script, modules=(), files=None):
        config["boot-source"]["initrd_path"] = str(initramfs(script, modules, files))
        return vmm(config)

    return start


def finish(machine, timeout=DEADLINE):
    assert machine.wait(timeout) == 0, machine.log
    print(machine.console)
    assert machine.status["cause"] == "poweroff"


# Disks.


@pytest.fixture(scope="session")
def fio(tmp_path_factory):
    return fio_files(tmp_path_factory.mktemp("fio"))


# Three kinds of work at once, each with its part of the disk.
FIO_JOB = b"""
[global]
filename=${DISK}
verify=crc32c
verify_fatal=1
verify_state_save=0
allow_file_create=0
thread=1

[sequential]
rw=write
ioengine=psync
bs=128k
offset=0
size=8m
fsync=16

[random-aio]
rw=randwrite
ioengine=libaio
direct=1
iodepth=16
bs=4k
offset=8m
size=2m
fsync=64

[random-uring]
rw=randwrite
ioengine=io_uring
direct=1
iodepth=16
bs=16k
offset=12m
size=8m
"""

FIO = "\nfio_on() { DISK=$1 " + FIO_ENVIRONMENT + """ fio --output=/tmp/fio.log $2 /job.fio 2>/dev/null; result=$?
    [ $result = 0 ] || grep -iE 'verify|error|bad|fio:' /tmp/fio.log | head; echo guest: fio $1 $2 $result; }
"""


def drive(name, path, **more):
    return {"drive_id": name, "path_on_host": str(path), "is_root_device": False, "cache_type": "Writeback",
            "io_engine": "Async", **more}


def test_what_a_disk_was_given_it_has_after_a_boot(boot, config, fio, tmp_path_factory):
    folder = tmp_path_factory.mktemp("disks")
    data, corrupted = folder / "data", folder / "corrupted"
    with data.open("wb") as file:
        file.truncate(24 * MIB)
    files = {**fio, "job.fio": FIO_JOB}
    config["drives"] = [drive("data", data)]
    machine = boot(FIO + "fio_on /dev/vda; poweroff -f", BLK, files)
    assert machine.wait_for(r"guest: fio /dev/vda (\d+)").group(1) == "0", machine.console
    finish(machine)

    # The other engine reads it back; and a single wrong byte would be seen.
    content = bytearray(data.read_bytes())
    content[15 * MIB + 12345] ^= 1
    corrupted.write_bytes(content)
    config["drives"] = [drive("data", data, io_engine="Sync"), drive("corrupted", corrupted)]
    machine = boot(FIO + "fio_on /dev/vda --verify_only; fio_on /dev/vdb --verify_only; poweroff -f", BLK, files)
    assert machine.wait_for(r"guest: fio /dev/vda --verify_only (\d+)").group(1) == "0", machine.console
    assert machine.wait_for(r"guest: fio /dev/vdb --verify_only (\d+)").group(1) != "0", machine.console
    finish(machine)


def test_discard_frees_and_read_only_refuses(boot, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("disks")
    content = random.Random(1).randbytes(32 * MIB)
    for name in ("discard", "fixed"):
        (folder / name).write_bytes(content)
        os.sync()
    config["drives"] = [drive("discard", folder / "discard"), drive("fixed", folder / "fixed", is_read_only=True)]
    config["entropy"] = {}
    machine = boot(f"""blkdiscard -o {8 * MIB} -l {16 * MIB} /dev/vda; echo guest: discard $?; sync
        dd if=/dev/vda bs=1M skip=8 count=16 2>/dev/null | cmp -n {16 * MIB} - /dev/zero && echo guest: zeroes
        dd if=/dev/zero of=/dev/vdb bs=4k count=1 conv=fsync,notrunc; echo guest: write $?
        blkdiscard /dev/vdb; echo guest: discard of the fixed $?
        echo guest: crc $(dd if=/dev/vdb bs=1M 2>/dev/null | crc32)
        set -- $(for i in 1 2; do dd if=/dev/hwrng bs=4096 count=16 iflag=fullblock 2>/dev/null | gzip -c | wc -c; done)
        echo guest: entropy $1 $2
        echo guest: different $(for i in 1 2 3 4; do head -c 64 /dev/hwrng | crc32; done | sort -u | wc -l)
        poweroff -f""", BLK + ["virtio_rng"])
    finish(machine)
    assert "guest: discard 0" in machine.console
    assert "guest: zeroes" in machine.console
    assert "guest: write 1" in machine.console
    assert "guest: discard of the fixed 1" in machine.console
    assert f"guest: crc {zlib.crc32(content):08x}" in machine.console
    sizes = machine.wait_for(r"guest: entropy (\d+) (\d+)").groups()
    assert all(int(size) > 65536 for size in sizes)  # it does not compress
    assert "guest: different 4" in machine.console
    left = folder / "discard"
    assert left.read_bytes() == content[:8 * MIB] + bytes(16 * MIB) + content[24 * MIB:]
    assert left.stat().st_blocks * 512 <= 16 * MIB + 65536
    assert (folder / "fixed").read_bytes() == content


@pytest.fixture
def block_device(tmp_path):
    """block_device(content, sector bytes): a block device with that content; its path, and the path of the file below."""
    subprocess.run(["modprobe", "loop"], check=True)
    made = []

    def make(content, sector):
        file = tmp_path / f"backing{len(made)}"
        file.write_bytes(content)
        made.append(subprocess.run(["losetup", "--find", "--show", "--sector-size", str(sector), file],
                                   check=True, capture_output=True, text=True).stdout.strip())
        return made[-1], file

    yield make
    for device in made:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_block_devices_are_disks(boot, config, block_device):
    content = random.Random(4).randbytes(16 * MIB)
    (small, small_file), (large, large_file) = block_device(content, 512), block_device(content, 4096)
    config["drives"] = [drive("small", small), drive("large", large, io_engine="Sync"), drive("same", large, is_read_only=True)]
    refused = boot("poweroff -f", BLK)
    assert refused.wait(DEADLINE) == 1 and "drives[2].path_on_host: " in refused.log and "in use" in refused.log
    config["drives"].pop()
    script = "".join(f"""
        echo guest: {disk} $(blockdev --getss /dev/{disk}) $(blockdev --getsize64 /dev/{disk}) $(crc32 < /dev/{disk})
        dd if=/dev/{disk} of=/tmp/piece bs=1M count=2 2>/dev/null
        dd if=/tmp/piece of=/dev/{disk} bs=1M seek=8 conv=fsync,notrunc 2>/dev/null; echo guest: {disk} write $?
        blkdiscard -o {4 * MIB} -l {2 * MIB} /dev/{disk}; echo guest: {disk} discard $?
        """ for disk in ("vda", "vdb"))
    machine = boot(script + "poweroff -f", BLK)
    finish(machine)
    expected = bytearray(content)
    expected[8 * MIB:10 * MIB] = content[:2 * MIB]
    expected[4 * MIB:6 * MIB] = bytes(2 * MIB)
    for disk, sector, device, file in (("vda", 512, small, small_file), ("vdb", 4096, large, large_file)):
        assert f"guest: {disk} {sector} {16 * MIB} {zlib.crc32(content):08x}" in machine.console
        assert f"guest: {disk} write 0" in machine.console and f"guest: {disk} discard 0" in machine.console
        assert Path(device).read_bytes() == expected
        assert file.stat().st_blocks * 512 <= 14 * MIB + 65536


def test_a_mounted_block_device_is_refused(boot, config, block_device, tmp_path):
    device, _ = block_device(bytes(16 * MIB), 512)
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    (tmp_path / "mnt").mkdir()
    subprocess.run(["mount", device, tmp_path / "mnt"], check=True)
    try:
        config["drives"] = [drive("data", device)]
        machine = boot("poweroff -f", BLK)
        assert machine.wait(DEADLINE) == 1
        assert machine.log == f"hull-vmm: drives[0].path_on_host: {device}: is in use: mounted, or claimed by another program\n"
    finally:
        subprocess.run(["umount", tmp_path / "mnt"], check=True)


# Networks.

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def network():
    """A network namespace of the test's own: it, its threads and its children are in it. (Single-threaded until then.)"""
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    try:
        ip("link", "set", "lo", "up")
        yield
    finally:
        if libc.setns(before, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(before)


class Server:
    """Gives out `content` under any name; remembers what it was sent."""

    def __init__(self, address, content):
        self.received = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self):
                # Debian 12's passt resets a connection of the guest's after some 24 s in which the server has said nothing.
                self.send_response_only(100)
                self.end_headers()
                try:
                    server.received.append(self.rfile.read(int(self.headers["Content-Length"])))
                except OSError as error:
                    server.received.append(error)
                    raise
                self.send_response(200)
                self.send_header("Content-Length", "3")
                self.end_headers()
                self.wfile.write(b"ok\n")

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer((address, 8000), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever)
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server():
    started = []

    def start(address, content):
        started.append(Server(address, content))
        return started[-1]

    yield start
    for one in started:
        one.close()


def download(address, path, deadline=DEADLINE):
    """A GET of `path` from port 80 of `address`: the body."""
    with socket.create_connection((address, 80), timeout=deadline) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = bytearray()
        while more := connection.recv(1 << 20):
            answer += more
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0].endswith(b"200 OK"), head
    return body


# The guest sends back what it got, `uploads` times: a transfer long enough to wrap every ring and window on the way.
# (wget --post-file of busybox would end at the first zero byte. The guest leaves the closing to the server: when a guest has
# closed its half of a connection, Debian 12's passt does not tell it of the server's close any more.)
GUEST_NETWORK = r"""
ip link set lo up; ip link set eth0 up; ip addr add {guest}/24 dev eth0; ip route add default via {gateway}
time wget -q -O /tmp/content http://{host}:8000/content; echo guest: downloaded $(crc32 < /tmp/content)
for i in $(seq {uploads}); do cat /tmp/content; done > /tmp/more
size=$(wc -c < /tmp/more)
mkfifo /tmp/end
{{ printf 'POST / HTTP/1.0\r\nContent-Length: %d\r\n\r\n' $size; cat /tmp/more /tmp/end; }} | {{ nc {host} 8000; : > /tmp/end; }}
echo guest: uploaded
"""


def test_http_both_ways_through_a_tap(boot, config, network, server):
    content = random.Random(2).randbytes(2 * MIB)
    ip("tuntap", "add", "hull0", "mode", "tap", "vnet_hdr")
    ip("addr", "add", "10.77.0.1/24", "dev", "hull0")
    ip("link", "set", "hull0", "up")
    got = server("10.77.0.1", content)
    config["network-interfaces"] = [{"iface_id": "eth0", "host_dev_name": "hull0", "guest_mac": "06:00:00:00:00:01"}]
    machine = boot(GUEST_NETWORK.format(guest="10.77.0.2", gateway="10.77.0.1", host="10.77.0.1", uploads=4) +
                   "httpd -h /tmp; echo guest: serves; read line; poweroff -f", NET)
    assert machine.wait_for("guest: downloaded (.*)").group(1).strip() == f"{zlib.crc32(content):08x}"
    machine.wait_for("guest: uploaded")
    assert got.received == [content * 4]
    machine.wait_for("guest: serves")
    assert download("10.77.0.2", "/content") == content
    machine.send("\n")
    finish(machine)


@pytest.fixture
def passt(network):
    """Debian's passt with the options hulld gives it. The path of its socket."""
    ip("link", "add", "uplink", "type", "dummy")
    ip("addr", "add", "10.88.0.1/24", "dev", "uplink")
    ip("link", "set", "uplink", "up")
    ip("route", "add", "default", "via", "10.88.0.2")  # without one passt has no IPv4
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)  # passt is somebody else by then
        extra = ["--pcap", os.environ["HULL_PASST_PCAP"]] if "HULL_PASST_PCAP" in os.environ else []
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                ["passt", "--foreground", "--quiet", "--one-off", "--socket", folder / "socket", "--pid", folder / "pid",
                 "--address", "10.0.2.15", "--netmask", "24", "--gateway", "10.0.2.2", "--mac-addr", "02:00:00:00:00:02",
                 "--dns-forward", "10.0.2.3", "--no-map-gw", "--ipv4-only", "--no-dhcp", *extra], stderr=log, stdout=log)
        deadline = time.monotonic() + DEADLINE
        while not ((folder / "pid").exists() and (folder / "pid").stat().st_size):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
        try:
            yield folder / "socket"
        finally:
            process.kill()
            process.wait()


def test_http_both_ways_through_passt(boot, config, passt, server):
    content = random.Random(3).randbytes(2 * MIB)
    got = server("10.88.0.1", content)
    config["network-interfaces"] = [{"iface_id": "eth0", "stream_socket_path": str(passt), "guest_mac": "06:00:00:00:00:01"}]
    machine = boot(GUEST_NETWORK.format(guest="10.0.2.15", gateway="10.0.2.2", host="10.88.0.1", uploads=1) + "poweroff -f", NET)
    assert machine.wait_for("guest: downloaded (.*)").group(1).strip() == f"{zlib.crc32(content):08x}"
    machine.wait_for("guest: uploaded")
    assert got.received == [content]
    finish(machine)


# vsock.


@pytest.fixture(scope="session")
def pump(tmp_path_factory):
    path = tmp_path_factory.mktemp("pump") / "pump"
    subprocess.run(["cc", "-static", "-O2", "-o", path, TOP / "tests" / "system" / "pump.c"], check=True)
    return path


def connect(path, port):
    """A connection to the guest's vsock port, by way of the monitor's socket."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(DEADLINE)
    client.connect(str(path))
    client.sendall(b"CONNECT %d\n" % port)
    answer = b""
    while not answer.endswith(b"\n"):
        answer += (byte := client.recv(1))
        assert byte, f"no connection: {answer!r}"
    assert answer.startswith(b"OK ")
    client.setblocking(True)
    return client


def test_over_vsock_both_ways(boot, config, pump, tmp_path):
    size = int(os.environ.get("HULL_VSOCK_MIB", "256")) * MIB
    path = tmp_path / "vsock.sock"
    config["vsock"] = {"guest_cid": 3, "uds_path": str(path)}
    machine = boot("pump listen 5000 & read line; poweroff -f", VSOCK, {"bin/pump": pump.read_bytes()})
    machine.wait_for("pump: ready")
    for guest, host in (("receive", "send"), ("send", "receive")):
        begin = time.monotonic()
        with connect(path, 5000) as client:
            client.sendall(f"{guest} {size}\n".encode())
            done = subprocess.run([pump, host, str(size)], stdin=client,
                                  stdout=client if host == "send" else subprocess.PIPE, stderr=subprocess.PIPE, timeout=600)
        print(f"guest did {guest}: {size // MIB} MiB in {time.monotonic() - begin:.1f} s")
        assert (done.stderr if host == "send" else done.stdout) == f"equal {size}\n".encode()
    machine.send("\n")
    finish(machine)
