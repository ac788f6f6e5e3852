"""What devices give a guest as memory: files by pmem, and memory that is plugged and unplugged while it runs."""
import json
import random
import re
import subprocess
import time
import zlib

import pytest

from conftest import BOOT_ARGS, DEADLINE, TOP, payload

MIB = 1 << 20
BLK = ["virtio_mmio", "virtio_blk"]
PMEM = ["virtio_mmio", "libnvdimm", "nd_btt", "nd_pmem", "nd_virtio", "virtio_pmem"]

pytestmark = pytest.mark.kvm


@pytest.fixture
def guest(vmm, vmlinux, initramfs):
    """guest(script, pieces, modules, files): put together by requests and started; the monitor."""

    def start(script, pieces, modules, files=None, mem_mib=256, boot_args="", kind=None, pci=False):
        api = vmm(None, *(["--enable-pci"] if pci else []))
        api.must("PUT", "/boot-source", {"kernel_image_path": str(vmlinux), "initrd_path": str(initramfs(script, modules, files)),
                                         "boot_args": BOOT_ARGS + boot_args})
        api.must("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": mem_mib, "memory_kind": kind})
        for path, body in pieces.items():
            api.must("PUT", path, body)
        api.must("PUT", "/actions", {"action_type": "InstanceStart"})
        return api

    return start


def wait_for_devices(*names):
    """A line of shell: Linux makes them some time after their driver is loaded."""
    return " ".join(f"until [ -b /dev/{name} ]; do :; done;" for name in names) + "\n"


def finish(machine):
    assert machine.wait() == 0, machine.log
    print(machine.console)
    assert machine.status["cause"] == "poweroff"


def pmem(name, path, **more):
    return {f"/pmem/{name}": {"id": name, "path_on_host": str(path), **more}}


def disk(name, path, **more):
    return {f"/drives/{name}": {"drive_id": name, "path_on_host": str(path), "is_root_device": False, **more}}


def ask(machine, command, pattern):
    """What the guest answers, once it has answered."""
    seen = len(machine.console)
    machine.send(command + "\n")
    return machine.wait_for(r"(?s)\A.{%d}.*?%s" % (seen, pattern))


def metrics(machine, path, group, seen=0):
    """What was counted, in lines of which there is one each minute besides, from the `seen`th on; and how many lines there are."""
    machine.must("PUT", "/actions", {"action_type": "FlushMetrics"})
    lines = [json.loads(line)[group] for line in path.read_text().splitlines()]
    return {name: sum(line[name] for line in lines[seen:]) for name, value in lines[0].items() if isinstance(value, int)}, len(lines)


# Files.


@pytest.fixture
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def make_ext4(path, mib):
    with open(path, "wb") as file:
        file.truncate(mib * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-m", "0", path], check=True)


def read_from_ext4(path, name):
    checked = subprocess.run(["e2fsck", "-fp", path], capture_output=True, text=True)
    assert checked.returncode <= 1, checked.stdout  # 1: a journal was replayed
    return subprocess.run(["debugfs", "-R", f"cat {name}", path], check=True, capture_output=True).stdout


@pytest.fixture(scope="session")
def dax_dma(tmp_path_factory):
    path = tmp_path_factory.mktemp("dax_dma") / "dax_dma"
    subprocess.run(["cc", "-static", "-O2", "-o", path, TOP / "tests" / "system" / "dax_dma.c"], check=True)
    return {"bin/dax_dma": path.read_bytes()}


def test_a_file_system_without_a_page_cache_keeps_what_is_written(guest, folder, dax_dma):
    content = random.Random(5).randbytes(MIB)
    (folder / "disk").write_bytes(content)
    make_ext4(folder / "file", 32)
    pieces = {**pmem("data", folder / "file"), **disk("disk", folder / "disk")}
    machine = guest(wait_for_devices("pmem0") + """mount -t ext4 -o dax=always /dev/pmem0 /mnt; echo guest: mount $? $(grep -c 'pmem0.*dax=always' /proc/mounts)
        dd if=/dev/vda of=/mnt/copy bs=64k conv=fsync 2>/dev/null; echo guest: copy $?
        dd if=/dev/zero of=/mnt/pages bs=64k count=1 2>/dev/null
        dax_dma /mnt/pages /dev/vda 131072 read; echo guest: read $?
        dax_dma /mnt/pages /dev/vda 0 write; echo guest: write $?
        umount /mnt; poweroff -f""", pieces, BLK + PMEM, dax_dma)
    finish(machine)
    for line in ("mount 0 1", "copy 0", "read 0", "write 0"):
        assert f"guest: {line}" in machine.console
    assert read_from_ext4(folder / "file", "copy") == content
    assert read_from_ext4(folder / "file", "pages") == content[131072:][:65536]
    assert (folder / "disk").read_bytes() == content[131072:][:65536] + content[65536:]
    # And another machine finds it there.
    machine = guest(wait_for_devices("pmem0") + "mount -t ext4 -o dax /dev/pmem0 /mnt; echo guest: crc $(crc32 < /mnt/copy); umount /mnt; poweroff -f",
                    pmem("data", folder / "file"), PMEM, pci=True)
    finish(machine)
    assert f"guest: crc {zlib.crc32(content):08x}" in machine.console


def test_what_was_flushed_outlives_the_monitor(guest, folder):
    make_ext4(folder / "file", 16)
    machine = guest(wait_for_devices("pmem0") + """mount -t ext4 -o dax /dev/pmem0 /mnt; echo precious > /mnt/note; sync /mnt/note; echo guest: written
        while :; do :; done""", pmem("data", folder / "file"), PMEM)
    machine.wait_for("guest: written")
    machine.process.kill()
    machine.process.wait()
    assert read_from_ext4(folder / "file", "note") == b"precious\n"


def test_a_read_only_file_is_not_written(guest, folder, dax_dma):
    content = random.Random(6).randbytes(65536)
    make_ext4(folder / "file", 16)
    (folder / "content").write_bytes(content)
    subprocess.run(["debugfs", "-w", "-R", f"write {folder / 'content'} content", folder / "file"], check=True, capture_output=True)
    (folder / "disk").write_bytes(bytes(MIB))
    before = (folder / "file").read_bytes()
    pieces = {**pmem("fixed", folder / "file", read_only=True), **disk("disk", folder / "disk")}
    # The kernel does not know: it believes that it has written. A disk that is to write there fails, and its driver is told.
    machine = guest(wait_for_devices("pmem0") + """mount -t ext4 -o ro,dax=always,noload /dev/pmem0 /mnt; echo guest: crc $(crc32 < /mnt/content)
        dax_dma /mnt/content /dev/vda 65536 write; echo guest: write $?; umount /mnt
        dd if=/dev/zero of=/dev/pmem0 bs=4k count=4 conv=fsync,notrunc 2>/dev/null; echo guest: overwrite $?
        mount -t ext4 -o ro,dax=always,noload /dev/pmem0 /mnt; echo guest: again $(crc32 < /mnt/content)
        poweroff -f""", pieces, BLK + PMEM, dax_dma)
    finish(machine)
    assert f"guest: crc {zlib.crc32(content):08x}" in machine.console and f"guest: again {zlib.crc32(content):08x}" in machine.console
    assert "guest: write 0" in machine.console and "guest: overwrite" in machine.console
    assert (folder / "file").read_bytes() == before
    assert (folder / "disk").read_bytes()[65536:131072] == content
    assert 1 <= len(re.findall(r"which it may only read: dropped", machine.log)) <= 8


def test_sizes_places_and_the_command_line(guest, folder):
    """Any size, each in a place of its own, in order; and what is behind the end of the file reads as zeroes."""
    (folder / "small").write_bytes(b"x" * 5000)
    (folder / "large").write_bytes(b"y" * (5 * MIB))
    pieces = {**pmem("small", folder / "small"), **pmem("large", folder / "large", root_device=True, read_only=True)}
    machine = guest(wait_for_devices("pmem0", "pmem1") + """echo guest: sizes $(blockdev --getsize64 /dev/pmem0) $(blockdev --getsize64 /dev/pmem1)
        echo guest: first $(head -c 5000 /dev/pmem0 | tr -d x | wc -c) $(tail -c +5001 /dev/pmem0 | tr -d '\\0' | wc -c)
        echo guest: second $(head -c 5242880 /dev/pmem1 | tr -d y | wc -c); cat /proc/cmdline /proc/iomem
        poweroff -f""", pieces, PMEM)
    finish(machine)
    assert f"guest: sizes {2 * MIB} {6 * MIB}" in machine.console
    assert "guest: first 0 0" in machine.console and "guest: second 0" in machine.console
    assert "root=/dev/pmem1 ro" in machine.console
    places = [int(start, 16) for start in re.findall(r"([0-9a-f]+)-[0-9a-f]+ : namespace", machine.console)]
    assert len(places) == 2 and places[0] >= 4 << 30 and places[1] > places[0] and places[0] % (2 * MIB) == 0
    assert (folder / "small").stat().st_size == 5000


def test_flushes_keep_to_a_limit_that_can_be_changed(guest, folder):
    (folder / "file").write_bytes(bytes(2 * MIB))
    report = folder / "metrics"
    slow = {"ops": {"size": 1, "refill_time": 400}}
    pieces = {"/metrics": {"metrics_path": str(report)}, **pmem("data", folder / "file", rate_limiter=slow)}
    machine = guest(wait_for_devices("pmem0") + """hundredths() { sed 's/ .*//; s/[.]//; s/^0*//' /proc/uptime; } # 08 is no octal number
        echo guest: ready; while read -r line; do
            [ $line = off ] && poweroff -f
            before=$(hundredths)
            for i in 1 2 3 4 5 6; do dd if=/dev/zero of=/dev/pmem0 bs=4k count=1 conv=fsync,notrunc 2>/dev/null; done
            echo guest: took $(($(hundredths) - before))
        done""", pieces, PMEM)
    machine.wait_for("guest: ready")
    assert int(ask(machine, "go", r"guest: took (\d+)").group(1)) >= 195  # hundredths: five of six waited
    counted, lines = metrics(machine, report, "pmem_data")
    assert counted["queue_event_count"] >= 6 and counted["rate_limiter_throttled_events"] >= 5 and counted["event_fails"] == 0
    machine.must("PATCH", "/pmem/data", {"id": "data", "rate_limiter": {"ops": {"size": 0, "refill_time": 0}}})
    ask(machine, "go", "guest: took")
    assert metrics(machine, report, "pmem_data", lines)[0]["rate_limiter_throttled_events"] == 0
    assert machine.must("GET", "/vm/config")["pmem"][0]["rate_limiter"]["ops"]["size"] == 0
    machine.refused("PATCH", "/pmem/other", {"id": "other", "rate_limiter": None}, 'there is no "other"')
    machine.refused("PATCH", "/pmem/data", {"id": "other"}, "the path says")
    machine.refused("PATCH", "/pmem/data", {"id": "data", "read_only": True}, "unknown field")
    machine.refused("DELETE", "/pmem/data", None, "not supported after starting")
    machine.send("off\n")
    finish(machine)


# Memory that is plugged.

MEM = ["virtio_mmio", "virtio_mem"]
MOVABLE = "memhp_default_state=online_movable"  # what is plugged can be unplugged again
COMMANDS = """echo guest: ready; while read -r command argument; do case $command in
    total) echo guest: total $(grep MemTotal /proc/meminfo | tr -dc 0-9);;
    fill) mount -t tmpfs -o size=400m none /mnt
        dd if=/dev/urandom of=/mnt/fill bs=1M count=$argument 2>/dev/null; echo guest: filled $?;;
    free) umount /mnt; echo guest: freed;;
    off) poweroff -f;;
esac; done"""


def hotplug(**more):
    return {"/hotplug/memory": {"total_size_mib": 512, **more}}


def total_mib(machine):
    return int(ask(machine, "total", r"guest: total (\d+)").group(1)) / 1024


def wait_for_total(machine, mib):
    """The guest's driver brings a block online after it has said that it is plugged."""
    deadline = time.monotonic() + DEADLINE
    while (total := total_mib(machine)) != pytest.approx(mib, abs=1):
        assert time.monotonic() < deadline, (total, mib)


def pss_mib(machine):
    rollup = open(f"/proc/{machine.process.pid}/smaps_rollup").read()
    return int(re.search(r"^Pss: +(\d+) kB", rollup, re.MULTILINE).group(1)) / 1024


def request(machine, mib, reached=None):
    """Until the guest has plugged so much."""
    machine.must("PATCH", "/hotplug/memory", {"requested_size_mib": mib})
    deadline = time.monotonic() + DEADLINE
    while (size := machine.must("GET", "/hotplug/memory"))["plugged_size_mib"] != mib:
        assert time.monotonic() < deadline, (size, machine.console, machine.log)
    assert size == {"total_size_mib": 512, "block_size_mib": 2, "slot_size_mib": 128, "plugged_size_mib": mib,
                    "requested_size_mib": mib}


@pytest.mark.parametrize("kind, pci", [("shared", False), ("cow", True)], ids=["shared", "cow-pci"])
def test_memory_comes_and_goes(guest, folder, kind, pci):
    report = folder / "metrics"
    machine = guest(COMMANDS, {"/metrics": {"metrics_path": str(report)}, **hotplug()}, MEM, boot_args=" " + MOVABLE, kind=kind, pci=pci)
    machine.wait_for("guest: ready")
    before, used = total_mib(machine), pss_mib(machine)
    request(machine, 256)
    wait_for_total(machine, before + 256)
    request(machine, 130)  # blocks of 2 MiB: not whole slots
    wait_for_total(machine, before + 130)
    request(machine, 384)
    assert pss_mib(machine) - used < 40  # what is plugged costs nothing but the guest's books
    ask(machine, "fill 300", "guest: filled 0")
    assert pss_mib(machine) - used > 290
    ask(machine, "free", "guest: freed")
    assert pss_mib(machine) - used > 290  # nobody told the host
    request(machine, 0)
    wait_for_total(machine, before)
    print(f"{kind}: {used:.0f} MiB before, {pss_mib(machine):.0f} MiB when all is unplugged again")
    assert pss_mib(machine) - used < 60  # what lay in the machine's own RAM stays there
    counted, _ = metrics(machine, report, "memory_hotplug")
    assert counted["plug_bytes"] >= 510 * MIB and counted["unplug_bytes"] == counted["plug_bytes"]
    assert counted["plug_fails"] == counted["unplug_discard_fails"] == counted["queue_event_fails"] == 0
    machine.send("off\n")
    finish(machine)


def test_what_may_be_requested(guest):
    machine = guest(COMMANDS, hotplug(), MEM, boot_args=" " + MOVABLE)
    machine.wait_for("guest: ready")
    for body, reason in (({"requested_size_mib": 514}, "more than there can be"), ({"requested_size_mib": 3}, "multiple of block_size_mib"),
                         ({"requested_size_mib": -2}, "requested_size_mib"), ({}, "required"), ({"total_size_mib": 1024}, "unknown field")):
        machine.refused("PATCH", "/hotplug/memory", body, reason)
    machine.refused("PUT", "/hotplug/memory", {"total_size_mib": 1024}, "not supported after starting")
    machine.must("PATCH", "/vm", {"state": "Paused"})
    machine.must("PATCH", "/hotplug/memory", {"requested_size_mib": 128})
    assert machine.must("GET", "/hotplug/memory")["plugged_size_mib"] == 0
    machine.must("PATCH", "/vm", {"state": "Resumed"})
    request(machine, 128)
    machine.send("off\n")
    finish(machine)


def test_what_is_not_plugged_is_not_there(guest):
    machine = guest("echo guest: reads $(devmem 0x100000000 32); devmem 0x100000000 32 1; devmem 0x11ffffff0 32 1; "
                    "echo guest: reads $(devmem 0x11ffffff0 32); read -r line; poweroff -f", hotplug(), ["virtio_mmio"],
                    boot_args=" initcall_blacklist=virtio_mem_driver_init")  # where it is built in, it keeps others out
    machine.wait_for("(?s)guest: reads 0xFFFFFFFF.*guest: reads 0xFFFFFFFF")
    machine.refused("PATCH", "/hotplug/memory", {"requested_size_mib": 128}, "the guest has no driver for it")
    machine.send("\n")
    finish(machine)


def test_a_hostile_driver_gains_nothing(vmm):
    api = vmm(None)
    api.must("PUT", "/boot-source", {"kernel_image_path": str(payload("hostile_mem"))})
    api.must("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 64})
    for path, body in {**hotplug(), "/entropy": {}}.items():
        api.must("PUT", path, body)
    api.must("PUT", "/actions", {"action_type": "InstanceStart"})
    api.wait_for("payload: reads what is not there: 1\\s+payload: ready")
    api.must("PATCH", "/hotplug/memory", {"requested_size_mib": 4})
    assert api.wait() == 1
    assert re.findall("payload: (.*?)\r?\n", api.console)[2:] == [
        "plug 0", "plug too much 1", "entropy 1", "unplug under the answer 2", "it is all there: 1", "plug the next 0", "unplug 0",
        "entropy 0", "touches it"]
    assert api.status["cause"] == "error" and "it touched memory that is not there: not plugged" in api.status["message"]


def test_a_machine_without_it(guest):
    machine = guest("echo guest: up; read -r line; poweroff -f", {}, [])
    machine.wait_for("guest: up")
    for method, body in (("GET", None), ("PATCH", {"requested_size_mib": 128})):
        machine.refused(method, "/hotplug/memory", body, "made without memory-hotplug")
    machine.send("\n")
    finish(machine)


def test_more_than_the_processor_addresses_is_refused(vmm, vmlinux):
    if int(re.search(r"address sizes\s*: (\d+) bits physical", open("/proc/cpuinfo").read()).group(1)) > 42:
        pytest.skip("this processor addresses all that a configuration may ask for")
    api = vmm(None)
    api.must("PUT", "/boot-source", {"kernel_image_path": str(vmlinux)})
    api.must("PUT", "/hotplug/memory", {"total_size_mib": 8 << 20})
    api.refused("PUT", "/actions", {"action_type": "InstanceStart"}, "memory-hotplug.total_size_mib: the host's processor addresses")
