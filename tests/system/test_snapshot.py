"""A machine that is saved, and goes on in another process: what it remembers, what it was doing, and what is refused."""
import os
import time

import pytest

from test_api import guest  # noqa: F401 (a fixture)
from test_pci import OBEDIENT, Obedient, disk, drive  # noqa: F401

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
def test_a_guest_goes_on_in_another_process(guest, disk, files, restore):  # noqa: F811
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
