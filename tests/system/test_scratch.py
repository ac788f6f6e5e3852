"""Scratch disks: made by mkfs.ext4 once of each size, and copied from then on."""
import os
import signal
import subprocess

import pytest

from hulld_fixtures import Hulld, make_erofs, wait_until, wrap_mkfs

KEPT = 16


@pytest.fixture
def hulld(tmp_path):
    """Its mkfs.ext4 is the real one, called by a script that counts how often, and does first what is in `before`."""
    tools, before = wrap_mkfs(tmp_path, f"echo >>{tmp_path}/count\n")
    daemon = Hulld(tmp_path, env={"PATH": f"{tools}:{os.environ['PATH']}"}).with_stand_in()
    daemon.before, daemon.count = before, tmp_path / "count"
    daemon.start()
    daemon.image("hello", make_erofs(tmp_path), command=["/bin/true"])
    yield daemon
    daemon.before.write_text("")
    daemon.stop()


def made(hulld):
    return len(hulld.count.read_text().splitlines()) if hulld.count.exists() else 0


def begin(hulld, name, disk_mib):
    answer = hulld.post("/v1/machines", {"name": name, "image": "hello", "network": "none", "disk_mib": disk_mib})
    assert answer.status == 201, answer
    assert hulld.post(f"/v1/machines/{name}/start").status == 200
    return answer.json["id"]


def start(hulld, name, disk_mib):
    """The machine's disk; it has a monitor by then."""
    machine = begin(hulld, name, disk_mib)
    wait_until(lambda: hulld.machine(name)["pid"], "there is a monitor")
    return hulld.state / "machines" / machine / "scratch.ext4"


def templates(hulld):
    return sorted(os.listdir(hulld.state / "scratch"))


def test_each_machine_has_a_copy_that_is_whole(hulld):
    disks = [start(hulld, name, 64) for name in ("a", "b")] + [start(hulld, "c", 96)]
    assert made(hulld) == 2
    assert templates(hulld) == ["64.ext4", "96.ext4"]
    for disk, size_mib in zip(disks, (64, 64, 96)):
        assert disk.stat().st_size == size_mib << 20
        assert disk.stat().st_blocks * 512 < 4 << 20, "it is sparse"
        assert disk.stat().st_mode & 0o777 == 0o600
        subprocess.run(["/sbin/e2fsck", "-fn", disk], check=True, capture_output=True)
        assert not (disk.parent / "scratch.new").exists()
    with disks[0].open("r+b") as disk:
        disk.write(b"a's own")
    assert disks[1].read_bytes()[:7] == start(hulld, "d", 64).read_bytes()[:7] == bytes(7)


def test_what_a_machine_wrote_is_there_at_its_next_start(hulld):
    disk = start(hulld, "a", 64)
    assert hulld.post("/v1/machines/a/kill").status == 200
    hulld.wait("a", "stopped")
    disk.write_bytes(b"its own")
    assert hulld.post("/v1/machines/a/start").status == 200
    wait_until(lambda: hulld.machine("a")["pid"], "there is a monitor")
    assert disk.read_bytes() == b"its own"
    assert made(hulld) == 1


def test_some_templates_are_kept_and_the_oldest_goes_first(hulld):
    for i in range(KEPT + 2):
        start(hulld, f"m{i}", 16 + i)
        hulld.delete(f"/v1/machines/m{i}?force=1")
    assert templates(hulld) == sorted(f"{16 + i}.ext4" for i in range(2, KEPT + 2))
    start(hulld, "again", 16)
    assert made(hulld) == KEPT + 3


def test_a_mkfs_that_fails_says_why_and_leaves_nothing(hulld):
    hulld.before.write_text("echo 'mke2fs: the moon is full' >&2; exit 1\n")
    machine = begin(hulld, "a", 64)
    cause = hulld.wait("a", "failed")["cause"]
    assert cause == {"code": "start_failed", "message": "cannot make the scratch disk: mkfs.ext4 failed: mke2fs: the moon is full"}
    assert templates(hulld) == []
    assert not [name for name in os.listdir(hulld.state / "machines" / machine) if name.startswith("scratch")]
    hulld.before.write_text("")
    assert hulld.post("/v1/machines/a/start").status == 200
    wait_until(lambda: hulld.machine("a")["pid"], "there is a monitor")


def ended(pid):
    """A zombie, too, has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("how", ["kill", "delete", "SIGKILL"])
def test_one_that_is_not_wanted_any_more_is_ended(hulld, tmp_path, how):
    hulld.before.write_text(f"echo $$ >{tmp_path}/pid; exec sleep 1000\n")
    begin(hulld, "a", 64)
    pid = int(wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "mkfs.ext4 runs"))
    hulld.before.write_text("")
    if how == "SIGKILL":  # the next one begins again, and waits for nothing of this one's
        hulld.restart()
        wait_until(lambda: hulld.machine("a")["pid"], "there is a monitor")
        assert templates(hulld) == ["64.ext4"]
        os.kill(pid, signal.SIGKILL)
        return
    if how == "kill":
        assert hulld.post("/v1/machines/a/kill").status == 200
        assert hulld.wait("a", "stopped,failed")["state"] == "stopped"
    else:
        assert hulld.delete("/v1/machines/a?force=1").status == 204
        assert os.listdir(hulld.state / "machines") == []
    wait_until(lambda: ended(pid), "mkfs.ext4 has been ended")
    assert templates(hulld) == [], "what it made so far went with it"


def test_a_copy_that_is_not_wanted_any_more_leaves_nothing(hulld):
    """strace holds it up in its first sendfile."""
    start(hulld, "first", 64)
    with subprocess.Popen(["strace", "-f", "-o", "/dev/null", "-e", "inject=sendfile:delay_enter=60000000", "-p", str(hulld.process.pid)],
                          stderr=subprocess.PIPE, text=True) as tracer:
        assert "attached" in tracer.stderr.readline()
        disk = hulld.state / "machines" / begin(hulld, "a", 64) / "scratch.new"
        wait_until(disk.exists, "it is copied")
        assert hulld.post("/v1/machines/a/kill").json["state"] == "stopped"
        left = disk.exists()
        tracer.send_signal(signal.SIGINT)
    assert not left
    assert start(hulld, "second", 64).exists() and not disk.exists()


def test_a_full_disk_is_said_and_nothing_is_half_there(hulld):
    hulld.kill()
    folder = hulld.state / "machines"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20k", "tmpfs", folder], check=True)
    try:
        hulld.start()
        machine = begin(hulld, "a", 64)
        cause = hulld.wait("a", "failed")["cause"]
        assert cause == {"code": "start_failed", "message": "cannot make the scratch disk: No space left on device"}
        assert not [name for name in os.listdir(folder / machine) if name.startswith("scratch")]
        subprocess.run(["mount", "-o", "remount,size=16m", folder], check=True)
        assert hulld.post("/v1/machines/a/start").status == 200
        wait_until(lambda: hulld.machine("a")["pid"], "there is a monitor")
        assert made(hulld) == 1
        hulld.delete("/v1/machines/a?force=1")
    finally:
        hulld.kill()
        subprocess.run(["umount", "-l", folder], check=True)
        hulld.start()
