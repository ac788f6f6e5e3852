"""Devices whose rings others work on, with Debian's own back-ends: qemu-storage-daemon, virtiofsd, the kernel's vhost-net."""
import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import time
import zlib

import pytest

from conftest import BUILD, DEADLINE, TOP, Counts
from test_api import NOT_ANY_MORE, guest  # noqa: F401
from test_devices import BLK, GUEST_NETWORK, MIB, NET, config, download, finish, ip, network, server  # noqa: F401
from test_pci import OBEDIENT, Obedient

FS = ["virtio_mmio"]  # fuse and virtiofs are in Debian's cloud kernel


PCI = ["--enable-pci"]


@pytest.fixture
def boot(vmm, config, initramfs):  # noqa: F811
    """boot(script, modules, arguments): a guest that runs `script` on the machine that `config` describes by then."""

    def start(script, modules, arguments=()):
        config["boot-source"]["initrd_path"] = str(initramfs(script, modules))
        return vmm(config, *arguments)

    return start


def wait_for_socket(path, process, log):
    deadline = time.monotonic() + DEADLINE
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
        select.select([], [], [], 0.005)


def compile_test(source, program, *libraries):
    """A C program below tests, with the devices' and the common library."""
    subprocess.run(["cc", "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Werror", f"-I{TOP}", "-o", program, TOP / "tests" / source,
                    BUILD / "libhull-devices.a", BUILD / "libhull-common.a", "-lpthread", *libraries], check=True)
    return program


@pytest.fixture(scope="session")
def own_backend(tmp_path_factory):
    """own_backend(name): the program tests/system/NAME.c, a back-end of our own."""
    return lambda name: compile_test(f"system/{name}.c", tmp_path_factory.mktemp("programs") / name)


@pytest.fixture
def backend(tmp_path_factory):
    """backend(socket, command...): a process that makes that socket; it is ended with the test."""
    started = []
    folder = tmp_path_factory.mktemp("backends")

    def start(path, *command):
        path.unlink(missing_ok=True)
        log = folder / f"log{len(started)}"
        with log.open("w") as out:
            started.append(subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=out))
        wait_for_socket(path, started[-1], log)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


class Storage:
    """qemu-storage-daemon: each of `nodes` is a chain of --blockdev options, the last of which is exported."""

    def __init__(self, backend, folder, nodes, options="writable=on"):
        self.socket = folder / "vhost.sock"
        self.process = backend(
            self.socket, "qemu-storage-daemon", *[word for node in nodes for word in ("--blockdev", node)],
            "--export", f"type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={self.socket},{options}")

    def stop(self):
        self.process.terminate()
        assert self.process.wait(DEADLINE) == 0


@pytest.fixture
def storage(backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("storage")
    return lambda *arguments, **more: Storage(backend, folder, *arguments, **more)


OVERLAY_BYTES = 4 * MIB  # 64 clusters of a qcow2 file


@pytest.fixture
def overlay(tmp_path_factory):
    """A qcow2 file over a raw one with random content: (overlay, base, the base's content)."""
    folder = tmp_path_factory.mktemp("images")
    content = random.Random(5).randbytes(OVERLAY_BYTES)
    base, top = folder / "base.raw", folder / "overlay.qcow2"
    base.write_bytes(content)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top], check=True)
    return top, base, content


def qcow2(path):
    return [f"driver=file,node-name=file,filename={path}", "driver=qcow2,node-name=disk,file=file"]


def drive(path, **more):
    return {"drive_id": "data", "socket": str(path), "is_root_device": False, "cache_type": "Writeback", **more}


# What is taken and what is refused, without a guest.


@pytest.fixture
def listener(tmp_path_factory):
    """A Unix socket at which nobody says anything."""
    with socket.socket(socket.AF_UNIX) as server_socket:
        path = tmp_path_factory.mktemp("listener") / "sock"
        server_socket.bind(str(path))
        server_socket.listen()
        yield path


def test_a_drive_behind_a_socket_is_described(vmm, listener):
    api = vmm(None)
    body = {"drive_id": "data", "socket": str(listener), "is_root_device": False}
    api.must("PUT", "/drives/data", body)
    got = api.must("GET", "/vm/config")["drives"][0]
    assert got["socket"] == str(listener) and got["path_on_host"] is None
    for change, reason in (
            ({"socket": None}, "path_on_host: is required (or socket)"),
            ({"path_on_host": "/dev/null"}, "path_on_host: cannot be given together with socket"),
            ({"is_read_only": True}, "is_read_only: cannot be given with socket: it is the back-end's to say"),
            ({"io_engine": "Async"}, "io_engine: cannot be given with socket"),
            ({"rate_limiter": {}}, "rate_limiter: cannot be given with socket"),
            ({"socket": "/missing"}, "socket: /missing: No such file"),
            ({"socket": "/dev/null"}, "socket: /dev/null: is no socket")):
        api.refused("PUT", "/drives/data", {**body, **change}, reason)
    assert api.must("GET", "/vm/config")["drives"] == [got]
    api.refused("PATCH", "/machine-config", {"memory_kind": "cow"}, "drives[0].socket: vhost-user maps the guest's memory")
    api.refused("PATCH", "/drives/data", {"drive_id": "data"}, "not supported before starting the microVM")
    api.must("DELETE", "/drives/data")
    api.must("PATCH", "/machine-config", {"memory_kind": "cow"})
    api.refused("PUT", "/drives/data", body, "socket: vhost-user maps the guest's memory, and of memory_kind cow it is private")


def test_a_shared_folder_is_described(vmm, listener):
    api = vmm(None)
    body = {"fs_id": "share", "tag": "my_share", "socket": str(listener)}
    assert "filesystems" not in api.must("GET", "/vm/config")
    api.must("PUT", "/hull/filesystems/share", {**body, "num_request_queues": None})
    api.must("PUT", "/hull/filesystems/share", body)
    api.must("PUT", "/hull/filesystems/more", {**body, "fs_id": "more", "tag": "x" * 36, "num_request_queues": 7})
    assert api.must("GET", "/vm/config")["filesystems"] == [
        body, {**body, "fs_id": "more", "tag": "x" * 36, "num_request_queues": 7}]
    for change, reason in (
            ({"fs_id": "other"}, 'fs_id: is "other", and the path says "share"'),
            ({"fs_id": None}, "fs_id: must be a string"), ({"tag": None}, "tag: must be a string"),
            ({"socket": None}, "socket: must be a string"),
            ({"tag": ""}, "tag: "), ({"tag": "x" * 37}, "tag: "), ({"tag": "x" * 36}, 'tag: "' + "x" * 36 + '" is taken by'),
            ({"socket": "/missing"}, "socket: /missing: No such file"), ({"socket": "/dev/null"}, "socket: /dev/null: is no socket"),
            ({"num_request_queues": 0}, "num_request_queues: must be 1 to 7"),
            ({"num_request_queues": 8}, "num_request_queues: must be 1 to 7"), ({"path": "/"}, "path: unknown field")):
        api.refused("PUT", "/hull/filesystems/share", {**body, **change}, reason)
    for key in body:
        without = {name: value for name, value in body.items() if name != key}
        api.refused("PUT", "/hull/filesystems/share", without, f"{key}: is required")
    api.refused("PUT", "/hull/filesystems/sh-are", body, "IDs can only contain")
    api.refused("PATCH", "/machine-config", {"memory_kind": "cow"}, "filesystems[0].socket: vhost-user maps the guest's memory")
    api.must("DELETE", "/hull/filesystems/share")
    api.refused("DELETE", "/hull/filesystems/share", None, 'filesystems has no "share"')
    api.must("DELETE", "/hull/filesystems/more")
    assert "filesystems" not in api.must("GET", "/vm/config")


def test_an_interface_past_this_process_is_described(vmm, listener):
    api = vmm(None)
    limiter = {"bandwidth": {"size": 1000, "refill_time": 100}}
    body = {"iface_id": "eth0", "vhost_user_socket": str(listener)}
    api.must("PUT", "/network-interfaces/eth0", body)
    got = api.must("GET", "/vm/config")["network-interfaces"][0]
    assert got["vhost_user_socket"] == str(listener) and "vhost" not in got
    for wrong, reason in (
            ({"host_dev_name": "tap0"}, "vhost_user_socket: cannot be given together with host_dev_name"),
            ({"stream_socket_path": "/s"}, "vhost_user_socket: cannot be given together with stream_socket_path"),
            ({"vhost_user_socket": None}, "host_dev_name: is required (or stream_socket_path, or vhost_user_socket)"),
            ({"vhost_user_socket": "/missing"}, "vhost_user_socket: /missing: No such file"),
            ({"vhost_user_socket": "/dev/null"}, "vhost_user_socket: /dev/null: is no socket"),
            ({"vhost": True}, "vhost: needs host_dev_name"),
            ({"rx_rate_limiter": limiter}, "rx_rate_limiter: cannot be given with vhost_user_socket"),
            ({"tx_rate_limiter": limiter}, "tx_rate_limiter: cannot be given with vhost_user_socket")):
        api.refused("PUT", "/network-interfaces/eth0", {**body, **wrong}, reason)
    api.refused("PATCH", "/machine-config", {"memory_kind": "cow"}, "vhost_user_socket: vhost-user maps the guest's memory")
    api.refused("PUT", "/mmds/config", {"network_interfaces": ["eth0"]}, 
                'names "eth0", which is given with vhost_user_socket: its frames go past this process')
    api.must("PUT", "/network-interfaces/eth2", {"iface_id": "eth2", "stream_socket_path": "/s"})
    api.must("PUT", "/mmds/config", {"network_interfaces": ["eth2"]})
    api.refused("PUT", "/network-interfaces/eth2", {**body, "iface_id": "eth2"}, 'names "eth2", which is given with vhost_user_socket')
    tap = {"iface_id": "eth1", "host_dev_name": "tap0", "vhost": True}
    api.refused("PUT", "/network-interfaces/eth2", {**tap, "iface_id": "eth2"}, 'names "eth2", which is given with vhost: its')
    for wrong, reason in (({"tx_rate_limiter": limiter}, "tx_rate_limiter: cannot be given with vhost: frames go past this process"),
                          ({"rx_rate_limiter": limiter}, "rx_rate_limiter: cannot be given with vhost"),
                          ({"vhost": 1}, "vhost: must be true or false")):
        api.refused("PUT", "/network-interfaces/eth1", {**tap, **wrong}, reason)


# A part is read from below, another is written, discarded and read again; what was there is told by checksums.
WORK = """
    echo guest: size $(blockdev --getsize64 /dev/vda)
    echo guest: before $(crc32 < /dev/vda)
    dd if=/dev/urandom of=/tmp/new bs=64k count=17 2>/dev/null; echo guest: new $(crc32 < /tmp/new)
    dd if=/tmp/new of=/dev/vda bs=64k seek=45 conv=fsync,notrunc 2>/dev/null; echo guest: written $?
    for i in $(seq 30); do dd if=/tmp/new of=/dev/vda bs=4k count=1 skip=$i seek=$((i * 21 + 70)) conv=notrunc 2>/dev/null; done
    sync; echo 3 > /proc/sys/vm/drop_caches
    echo guest: after $(crc32 < /dev/vda)
    poweroff -f
"""
LOOK = "echo guest: after $(crc32 < /dev/vda); poweroff -f"


def checksum(machine, what):
    return machine.wait_for(rf"guest: {what} ([0-9a-f]+)\s").group(1)


@pytest.mark.kvm
def test_a_qcow2_file_over_another_keeps_what_is_written(boot, config, storage, overlay):
    top, base, content = overlay
    daemon = storage(qcow2(top))
    config["drives"] = [drive(daemon.socket)]
    config["machine-config"]["vcpu_count"] = 2
    machine = boot(WORK, BLK)
    finish(machine)
    assert f"guest: size {OVERLAY_BYTES}" in machine.console and "guest: written 0" in machine.console
    assert checksum(machine, "before") == f"{zlib.crc32(content):08x}"
    after = checksum(machine, "after")
    assert after != checksum(machine, "before")
    # The same daemon serves the next machine, whose interrupts it raises itself; and so does another daemon.
    machine = boot(LOOK, BLK, PCI)
    finish(machine)
    assert checksum(machine, "after") == after
    daemon.stop()
    daemon = storage(qcow2(top), "writable=on,num-queues=2")
    machine = boot("echo guest: queues $(ls /sys/block/vda/mq | wc -l); " + LOOK, BLK, PCI)
    finish(machine)
    assert "guest: queues 2" in machine.console
    assert checksum(machine, "after") == after
    daemon.stop()
    assert base.read_bytes() == content
    raw = top.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-O", "raw", top, raw], check=True)
    assert f"{zlib.crc32(raw.read_bytes()):08x}" == after


@pytest.mark.kvm
def test_a_disk_behind_nbd(boot, config, storage, backend, overlay):
    top, base, content = overlay
    nbd = top.with_name("nbd.sock")
    backend(nbd, "qemu-nbd", "--socket", nbd, "--persistent", "--format", "qcow2", top)
    daemon = storage([f"driver=nbd,node-name=disk,server.type=unix,server.path={nbd}"])
    config["drives"] = [drive(daemon.socket)]
    machine = boot(WORK, BLK)
    finish(machine)
    assert checksum(machine, "before") == f"{zlib.crc32(content):08x}"
    after = checksum(machine, "after")
    assert after != checksum(machine, "before")
    machine = boot(LOOK, BLK)
    finish(machine)
    assert checksum(machine, "after") == after
    daemon.stop()
    assert base.read_bytes() == content


@pytest.mark.kvm
def test_a_back_end_is_the_root_device_and_may_be_read_only(boot, config, storage, tmp_path_factory):
    folder = tmp_path_factory.mktemp("root")
    (folder / "tree").mkdir()
    (folder / "tree" / "hello").write_text("hello from the root\n")
    image = folder / "root.ext4"
    subprocess.run(["mkfs.ext4", "-q", "-d", folder / "tree", image, "8M"], check=True)
    before = image.read_bytes()
    daemon = storage([f"driver=file,node-name=disk,filename={image},read-only=on"], "writable=off")
    config["drives"] = [{"drive_id": "other", "path_on_host": str(image), "is_root_device": False, "is_read_only": True},
                        {"drive_id": "root", "socket": str(daemon.socket), "is_root_device": True}]
    machine = boot("""
        echo guest: ro $(cat /sys/block/vda/ro)
        mount -o ro /dev/vda /mnt && cat /mnt/hello
        dd if=/dev/zero of=/dev/vda bs=4k count=1 2>/dev/null; echo guest: write $?
        poweroff -f""", BLK)
    finish(machine)
    assert "guest: ro 1" in machine.console and "hello from the root" in machine.console and "guest: write 1" in machine.console
    assert image.read_bytes() == before


# By the API, while it runs.

@pytest.mark.kvm
def test_a_disk_whose_back_end_dies(guest, storage, tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    image, metrics = folder / "disk", folder / "metrics"
    image.write_bytes(bytes(8 * MIB))
    daemon = storage([f"driver=file,node-name=disk,filename={image}"])
    api = guest("""
        echo guest: size $(blockdev --getsize64 /dev/vda)
        (while :; do dd if=/dev/zero of=/dev/vda bs=64k count=16 conv=fsync,notrunc 2>/dev/null; echo guest: wrote; done) &
        while read -r line; do echo heard $line; done""",
                {"/drives/data": drive(daemon.socket)}, ("--metrics-path", metrics), BLK)
    api.wait_for(f"guest: size {8 * MIB}")
    api.refused("PUT", "/drives/data", drive(daemon.socket), NOT_ANY_MORE)
    api.refused("PUT", "/hull/filesystems/a", {}, NOT_ANY_MORE)
    api.refused("DELETE", "/hull/filesystems/a", None, NOT_ANY_MORE)
    body = {"drive_id": "data"}
    for change, reason in (({"path_on_host": str(image)}, "path_on_host: cannot be given together with socket"),
                           ({"rate_limiter": {"ops": {"size": 1, "refill_time": 1}}}, "rate_limiter: cannot be given with socket")):
        api.refused("PATCH", "/drives/data", {**body, **change}, reason)
    api.must("PATCH", "/drives/data", body)
    line = Counts(api, metrics).next()["vhost_user_block_data"]
    assert line["activate_fails"] == line["backend_fails"] == 0
    assert line["init_time_us"] > 0 and line["activate_time_us"] > 0 and line["config_change_time_us"] > 0
    # Paused, it is asked all the same.
    api.must("PATCH", "/vm", {"state": "Paused"})
    api.must("PATCH", "/drives/data", body)
    api.must("PATCH", "/vm", {"state": "Resumed"})
    api.wait_for("guest: wrote")
    # It dies in the middle of the guest's writes: the machine lives.
    daemon.process.send_signal(signal.SIGKILL)
    daemon.process.wait(DEADLINE)
    deadline = time.monotonic() + DEADLINE
    while "vhost-blk data is out of order: the back-end closed the connection" not in api.log:
        assert time.monotonic() < deadline, api.log
        select.select([], [], [], 0.005)
    api.send("you\n")
    api.wait_for("heard you")
    assert Counts(api, metrics).next()["vhost_user_block_data"]["backend_fails"] == 1
    api.refused("PATCH", "/drives/data", body, "the back-end is gone")
    assert api.must("GET", "/")["state"] == "Running"
    api.terminate()
    assert api.wait() == 0 and api.status["cause"] == "signal"


@pytest.mark.kvm
def test_a_disk_comes_and_goes(guest, storage, overlay):
    top, _, content = overlay
    daemon = storage(qcow2(top))
    memory = {"vcpu_count": 1, "mem_size_mib": 128, "memory_kind": "shared"}
    own = guest(OBEDIENT, {"/machine-config": {**memory, "memory_kind": "auto"}}, PCI, BLK)
    descriptors = len(os.listdir(f"/proc/{own.process.pid}/fd"))
    own.refused("PUT", "/drives/data", drive(daemon.socket), "guest memory is this process's own: it had to be of memory_kind shared")
    assert len(os.listdir(f"/proc/{own.process.pid}/fd")) == descriptors
    own.terminate()
    own.wait()
    api = guest(OBEDIENT, {"/machine-config": memory}, PCI, BLK)
    console = Obedient(api)
    deadline = time.monotonic() + DEADLINE

    def put(path):
        """The guest lets go of the one before some time after its driver has."""
        while "being taken out" in str(answer := api.call("PUT", "/drives/data", drive(path))):
            assert time.monotonic() < deadline
            select.select([], [], [], 0.01)  # the guest has the same processor
        return answer

    for n in range(3):
        assert put(daemon.socket) == (204, None)
        console.do("until_there /dev/vda")
        if n == 0:
            assert f"{zlib.crc32(content):08x}" in console.do("crc32 < /dev/vda")
        assert f"wrote {n - 1}" in console.do("head -c 20 /dev/vda") or n == 0
        console.do(f"echo wrote {n} | dd of=/dev/vda bs=512 count=1 conv=sync,fsync")
        api.must("DELETE", "/drives/data")
        console.do("until_gone /dev/vda")
    assert put("/missing")[0] == 400
    descriptors = len(os.listdir(f"/proc/{api.process.pid}/fd"))
    api.refused("PUT", "/drives/data", drive("/missing"), "socket: cannot connect to /missing: No such file")
    assert len(os.listdir(f"/proc/{api.process.pid}/fd")) == descriptors
    console.off()
    daemon.stop()


@pytest.mark.kvm
def test_a_disk_that_grows(guest, backend, own_backend, tmp_path_factory):
    """Debian 12's qemu-storage-daemon neither tells of a new size nor has it read: a back-end of our own does."""
    sock = tmp_path_factory.mktemp("disk") / "disk.sock"
    disk = backend(sock, own_backend("vhost_user_disk"), sock, 2048)
    api = guest("""
        grows() { while [ $(blockdev --getsz /dev/vda) != $1 ]; do :; done; echo guest: has $1; }
        echo written before | dd of=/dev/vda bs=512 count=1 conv=sync,fsync 2>/dev/null
        grows 2048; grows 4096; grows 8192
        echo 3 > /proc/sys/vm/drop_caches; head -c 14 /dev/vda; poweroff -f""", {"/drives/data": drive(sock)}, modules=BLK)

    def grow(line):
        disk.stdin.write(line + b"\n")
        disk.stdin.flush()
        assert disk.stdout.readline() == b"ok\n"

    api.wait_for("guest: has 2048")
    grow(b"tell 4096")
    api.wait_for("guest: has 4096")
    grow(b"keep 8192")
    api.must("PATCH", "/drives/data", {"drive_id": "data"})
    api.wait_for("guest: has 8192")
    assert api.wait() == 0 and "written before" in api.console


@pytest.mark.kvm
def test_a_folder_is_shared_both_ways(guest, backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("share")
    shared, sock, metrics = folder / "shared", folder / "fs.sock", folder / "metrics"
    content = random.Random(6).randbytes(3 * MIB + 12345)
    (shared / "down" / "below").mkdir(parents=True)
    (shared / "from-host").write_bytes(content)
    backend(sock, "/usr/lib/qemu/virtiofsd", "-f", f"--socket-path={sock}", "-o", f"source={shared}",
            "-o", "cache=none", "-o", "sandbox=chroot", "-o", "xattr")
    api = guest("""
        mount -t virtiofs my_share /mnt && echo guest: mounted
        echo guest: crc $(crc32 < /mnt/from-host)
        dd if=/dev/urandom of=/mnt/down/below/from-guest bs=100k count=20 2>/dev/null
        echo guest: made $(crc32 < /mnt/down/below/from-guest)
        mkdir /mnt/new && mv /mnt/from-host /mnt/new/moved && ln -s moved /mnt/new/link && ls /mnt/new
        while read -r line; do cat /mnt/$line; [ $line = end ] && umount /mnt && poweroff -f; done""",
                {"/hull/filesystems/share": {"fs_id": "share", "tag": "my_share", "socket": str(sock)}},
                ("--metrics-path", metrics), FS)
    assert api.must("GET", "/vm/config")["filesystems"] == [{"fs_id": "share", "tag": "my_share", "socket": str(sock)}]
    api.wait_for("guest: mounted")
    assert checksum(api, "crc") == f"{zlib.crc32(content):08x}"
    made = checksum(api, "made")
    assert f"{zlib.crc32((shared / 'down/below/from-guest').read_bytes()):08x}" == made
    api.wait_for("moved")
    (shared / "later").write_text("said while it ran\n")
    api.send("later\n")
    api.wait_for("said while it ran")
    assert (shared / "new/link").read_bytes() == content
    (shared / "end").write_text("")
    assert Counts(api, metrics).next()["vhost_user_fs_share"]["backend_fails"] == 0
    api.send("end\n")
    assert api.wait() == 0 and api.status["cause"] == "poweroff"


# Networks.


@pytest.fixture
def tap(network):  # noqa: F811
    ip("tuntap", "add", "hull0", "mode", "tap", "vnet_hdr")
    ip("addr", "add", "10.77.0.1/24", "dev", "hull0")
    ip("link", "set", "hull0", "up")
    return "hull0"


def move_data(boot, server, arguments=()):  # noqa: F811
    content = random.Random(7).randbytes(2 * MIB)
    got = server("10.77.0.1", content)
    begin = time.monotonic()
    machine = boot(GUEST_NETWORK.format(guest="10.77.0.2", gateway="10.77.0.1", host="10.77.0.1", uploads=1) +
                   "httpd -h /tmp; echo guest: serves; read line; poweroff -f", NET, arguments)
    assert machine.wait_for("guest: downloaded (.*)").group(1).strip() == f"{zlib.crc32(content):08x}"
    machine.wait_for("guest: uploaded")
    assert got.received == [content]
    machine.wait_for("guest: serves")
    assert download("10.77.0.2", "/content") == content
    print(f"6 MiB, and the boot, in {time.monotonic() - begin:.1f} s")
    return machine


@pytest.mark.kvm
@pytest.mark.parametrize("arguments", ([], PCI), ids=("mmio", "pci"))
def test_http_both_ways_through_vhost_net(boot, config, tap, server, arguments):  # noqa: F811
    subprocess.run(["modprobe", "vhost_net"], check=True)
    config["network-interfaces"] = [{"iface_id": "eth0", "host_dev_name": tap, "vhost": True, "mtu": 1400,
                                     "guest_mac": "06:00:00:00:00:01"}]
    machine = move_data(boot, server, arguments)
    threads = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it may end meanwhile
            threads.append(open(f"/proc/{pid}/comm").read())
    threads += [open(f"/proc/{machine.process.pid}/task/{task}/comm").read()
                for task in os.listdir(f"/proc/{machine.process.pid}/task")]
    assert f"vhost-{machine.process.pid}\n" in threads, threads
    machine.send("\n")
    finish(machine)


@pytest.mark.kvm
def test_http_both_ways_through_a_vhost_user_network(boot, config, tap, server, backend, own_backend, tmp_path_factory):  # noqa: F811
    sock = tmp_path_factory.mktemp("net") / "net.sock"
    backend(sock, own_backend("vhost_user_net"), sock, tap)
    config["network-interfaces"] = [{"iface_id": "eth0", "vhost_user_socket": str(sock), "guest_mac": "06:00:00:00:00:01"}]
    machine = move_data(boot, server)
    machine.send("\n")
    finish(machine)


@pytest.mark.kvm
def test_vhost_net_stops_and_goes_on(network, tmp_path):  # noqa: F811
    """The unit test of it, on a host that has one."""
    subprocess.run(["modprobe", "vhost_net"], check=True)
    program = compile_test("unit/vhost_kernel.c", tmp_path / "vhost_kernel", "-lcmocka")
    done = subprocess.run([program], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0 and "SKIPPED" not in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.mark.kvm
def test_vhost_net_does_not_fall_back(boot, config, tap):  # noqa: F811
    """Where the kernel has none, that is an error."""
    config["network-interfaces"] = [{"iface_id": "eth0", "host_dev_name": tap, "vhost": True}]
    subprocess.run(["modprobe", "-r", "vhost_net"], check=False)
    hidden = os.path.exists("/dev/vhost-net")
    if hidden:
        os.rename("/dev/vhost-net", "/dev/vhost-net.hidden")
    try:
        machine = boot("poweroff -f", NET)
        assert machine.wait(DEADLINE) == 1
        assert "network-interfaces[0].vhost: this host has no /dev/vhost-net: load vhost_net" in machine.log
    finally:
        if hidden:
            os.rename("/dev/vhost-net.hidden", "/dev/vhost-net")
