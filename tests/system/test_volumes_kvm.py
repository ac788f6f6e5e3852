"""Volumes in machines: hull-vmm, hull-init, a stock kernel, on KVM."""
import json
import os
import subprocess

import pytest

from hulld_fixtures import Hulld, make_erofs, wait_until

pytestmark = pytest.mark.kvm
BOOT = 180  # seconds: an emulated host boots slowly


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.fail("/dev/kvm is not usable")
    folder = tmp_path_factory.mktemp("hulld")
    daemon = Hulld(folder, env={"HULL_START_TIMEOUT_S": str(BOOT)}).start()
    seed = folder / "rootfs/seeded/inner"
    seed.mkdir(parents=True)
    (seed / "file").write_text("of the image\n")
    (seed / "link").symlink_to("file")
    os.chown(seed.parent, 70, 71)
    seed.parent.chmod(0o750)
    daemon.image("busybox", make_erofs(folder, {}))
    yield daemon
    daemon.stop()


def volume(hulld, name, size_mib=32):
    answer = hulld.post("/v1/volumes", {"name": name, "size_mib": size_mib})
    assert answer.status == 201, answer
    return hulld.state / "volumes" / f"{answer.json['id']}.ext4"


def create(hulld, name, script, *mounts, **spec):
    mounts = [dict(zip(("volume", "path", "read_only"), mount)) for mount in mounts]
    answer = hulld.post("/v1/machines", {"name": name, "image": "busybox", "command": ["/bin/sh", "-c", script], "network": "none",
                                         "disk_mib": 64, "mounts": mounts, **spec})
    assert answer.status == 201, answer


def start(hulld, name, state):
    assert hulld.post(f"/v1/machines/{name}/start").status == 200
    machine = hulld.wait(name, f"{state},failed,stopped", BOOT)
    console = hulld.get(f"/v1/machines/{name}/logs?source=console&tail=40").body.decode(errors="replace")
    assert machine["state"] == state, (machine["cause"], console)
    return machine


def said(hulld, name, script, *mounts, status=0, **spec):
    """What a machine says that only does that, and is removed."""
    create(hulld, name, script, *mounts, **spec)
    machine = start(hulld, name, "stopped")
    text = hulld.get(f"/v1/machines/{name}/logs").body.decode()
    assert machine["exit_status"] == status, (machine["cause"], text)
    assert hulld.delete(f"/v1/machines/{name}").status == 204
    return text.splitlines()


def check(file):
    """Its machine has unmounted it."""
    subprocess.run(["/sbin/e2fsck", "-fn", file], check=True, capture_output=True)
    assert "needs_recovery" not in subprocess.check_output(["/sbin/dumpe2fs", "-h", file], text=True, stderr=subprocess.DEVNULL)


def test_what_is_on_it_outlives_machines_and_it_grows(hulld):
    files = [volume(hulld, name) for name in ("seeded", "fresh", "within")]
    mounts = ("within", "/var/fresh/a/within"), ("seeded", "/seeded"), ("fresh", "/var/fresh")
    # As the image has the folder, with what is in it; else the workload's own. Nothing of mkfs.ext4's is left.
    assert said(hulld, "a", "stat -c '%a %u:%g' /seeded /var/fresh /var/fresh/a/within; find /seeded | sort; readlink /seeded/inner/link;"
                " ls -A /var/fresh; echo kept > /var/fresh/mine && echo deep > /var/fresh/a/within/mine && rm -r /var/fresh/none",
                *mounts, user="1000:1001", status=1) == [
        "750 70:71", "755 1000:1001", "755 1000:1001", "find: /seeded: Permission denied", "/seeded", "a",
        "rm: can't remove '/var/fresh/none': No such file or directory"]
    for file in files:
        check(file)
    # Of another machine: what was there before is not put over it, and where it is does not matter.
    assert said(hulld, "b", "find /seeded | sort; cat /seeded/inner/link /x/mine /x/a/within/mine; rm -r /seeded/inner; df -m /x | tail -1 |"
                " awk '{print ($2 < 32)}'", ("within", "/x/a/within"), ("fresh", "/x"), ("seeded", "/seeded")) == [
        "/seeded", "/seeded/inner", "/seeded/inner/file", "/seeded/inner/link", "of the image", "kept", "deep", "1"]
    grown = hulld.request("PATCH", "/v1/volumes/fresh", json.dumps({"size_mib": 400}), headers={"Content-Type": "application/merge-patch+json"})
    assert grown.status == 200 and grown.json["used_bytes"] < 8 << 20
    # What it has no more the host has again.
    assert said(hulld, "c", "ls -A /seeded; cat /x/mine; df -m /x | tail -1 | awk '{print ($2 > 350)}';"
                " dd if=/dev/urandom of=/x/much bs=1M count=40 2>/dev/null", ("seeded", "/seeded"), ("fresh", "/x")) == ["kept", "1"]
    assert hulld.get("/v1/volumes/fresh").json["used_bytes"] > 40 << 20
    assert said(hulld, "d", "rm /x/much; stat -c %s /x/mine", ("fresh", "/x")) == ["5"]
    assert hulld.get("/v1/volumes/fresh").json["used_bytes"] < 16 << 20
    check(files[1])


def test_many_read_what_one_has_written_and_nobody_writes(hulld):
    volume(hulld, "shared")
    said(hulld, "w", "echo text > /d/file", ("shared", "/d"))
    for name in ("r", "s"):
        create(hulld, name, "cat /d/file; echo more > /d/file; echo $?; sleep 1000", ("shared", "/d", True))
        start(hulld, name, "running")
    for name in ("r", "s"):
        wait_until(lambda: hulld.get(f"/v1/machines/{name}/logs").body.decode().splitlines() == [
            "text", "/bin/sh: can't create /d/file: Read-only file system", "1"], f"{name} has read, and not written")
    assert sorted(hulld.get("/v1/volumes/shared").json["attached_to"]) == ["r", "s"]
    for name in ("r", "s"):
        hulld.post(f"/v1/machines/{name}/kill")
        hulld.wait(name, "stopped")
        hulld.delete(f"/v1/machines/{name}")


def test_what_was_synced_survives_a_kill_and_damage_has_a_name(hulld):
    file = volume(hulld, "torn")
    create(hulld, "k", "echo synced > /d/file; sleep 1000", ("torn", "/d"))
    start(hulld, "k", "running")
    hulld.post("/v1/machines/k/exec", {"command": ["/bin/sh", "-c", "until grep -q synced /d/file; do sleep 0.1; done; sync"]})
    hulld.post("/v1/machines/k/kill")
    hulld.wait("k", "stopped")
    # Nobody who only reads can mend it, and is told who can.
    create(hulld, "r", "cat /d/file", ("torn", "/d", True))
    cause = start(hulld, "r", "failed")["cause"]
    assert cause["code"] == "start_failed" and cause["message"] == (
        "volume torn, at /d, cannot be mounted: Structure needs cleaning, as its last writer was killed; "
        "start a machine once that mounts it without read_only: that mends it")
    hulld.delete("/v1/machines/k")
    assert said(hulld, "m", "cat /d/file", ("torn", "/d")) == ["synced"]
    assert start(hulld, "r", "stopped")["exit_status"] == 0
    with file.open("r+b") as disk:
        disk.seek(1024)
        disk.write(bytes(1024))
    create(hulld, "n", "cat /d/file", ("torn", "/d"))
    cause = start(hulld, "n", "failed")["cause"]
    assert cause == {"code": "start_failed", "message": "volume torn, at /d, cannot be mounted: Invalid argument"}
    for name in ("r", "n"):
        hulld.delete(f"/v1/machines/{name}")
