"""Folders of the host in real machines: what the guest sees and may do, and what becomes of both when the other side goes."""
import os
import signal
import subprocess

import pytest

from hulld_fixtures import Hulld, make_erofs, wait_until
from test_folders import servers

pytestmark = pytest.mark.kvm
BOOT = 180  # seconds: an emulated host boots slowly
GUEST_IDS = 0x7FFE0000  # what a guest's ids, but root's, are more on the host


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder of a user of its own."""
    folder = tmp_path_factory.mktemp("host") / "src"
    (folder / "below").mkdir(parents=True)
    (folder / "from-host").write_text("said by the host\n")
    (folder / "link").symlink_to("/etc/shadow")
    subprocess.run(["chown", "-hR", "1234:1235", folder], check=True)
    (folder / "other").write_text("of another user\n")
    (folder / "other").chmod(0o600)
    return folder


@pytest.fixture(scope="module")
def hulld(tmp_path_factory, shared):
    folder = tmp_path_factory.mktemp("hulld")
    daemon = Hulld(folder, "--mount-allow", shared, env={"HULL_START_TIMEOUT_S": str(BOOT)}).start()
    daemon.image("busybox", make_erofs(folder, {}))
    yield daemon
    daemon.stop()


def start(hulld, name, script, *mounts, **spec):
    answer = hulld.post("/v1/machines", {"name": name, "image": "busybox", "command": ["/bin/sh", "-c", script], "network": "none",
                                         "disk_mib": 64, "mounts": list(mounts), **spec})
    assert answer.status == 201, answer
    assert hulld.post(f"/v1/machines/{name}/start").status == 200
    machine = hulld.wait(name, "running,failed", BOOT)
    console = hulld.get(f"/v1/machines/{name}/logs?source=console&tail=40").body.decode(errors="replace")
    assert machine["state"] == "running", (machine["cause"], console)
    return machine


def execute(hulld, name, script):
    answer = hulld.post(f"/v1/machines/{name}/exec", {"command": ["/bin/sh", "-c", script]}).json
    return answer["exit_status"], answer["stdout"] + answer["stderr"]


def stop(hulld, name):
    hulld.post(f"/v1/machines/{name}/stop")
    assert hulld.wait(name, "stopped,failed", BOOT)["cause"]["code"] == "poweroff"
    assert hulld.delete(f"/v1/machines/{name}").status == 204


def ids(path):
    status = path.lstat()
    return status.st_uid, status.st_gid


def test_both_sides_see_what_the_other_writes_and_each_its_own_users(hulld, shared):
    start(hulld, "both", "sleep 1000", {"host_path": str(shared), "path": "/new/folder"}, {"host_path": str(shared / "below"), "path": "/new"})
    assert execute(hulld, "both", "cd /new/folder; cat from-host; stat -c %u:%g . from-host other; ls below") == (
        0, "said by the host\n0:0\n0:0\n65534:65534\nfolder\n")  # made for the mount in it
    assert execute(hulld, "both", "cd /new/folder; echo said by the guest > below/from-guest; chmod 4755 below/from-guest; mkdir -m 777 -p made; chown 33:34 made")[0] == 0
    assert (shared / "below/from-guest").read_text() == "said by the guest\n"
    assert ids(shared / "below/from-guest") == (1234, 1235) and ids(shared / "made") == (GUEST_IDS + 33, GUEST_IDS + 34)
    answer = hulld.post("/v1/machines/both/exec", {"command": ["/bin/sh", "-c", "echo by another > /new/folder/made/by-33"], "user": "33:34"})
    assert answer.json["exit_status"] == 0 and ids(shared / "made/by-33") == (GUEST_IDS + 33, GUEST_IDS + 34)
    # What is above, and where links lead to, is the guest's; devices are nobody's.
    assert execute(hulld, "both", "cat /new/folder/link 2>&1; ls /new/folder/../folder/../../ | grep -c scratch") == (1, "cat: can't open '/new/folder/link': No such file or directory\n0\n")
    assert execute(hulld, "both", "mknod /new/folder/device b 254 0")[1].endswith("Operation not permitted\n")
    assert execute(hulld, "both", "cat /new/folder/other; echo x > /new/folder/other; chown 0 /new/folder/other")[1].count("denied") == 2
    (shared / "later").write_text("said while it ran\n")
    assert execute(hulld, "both", "cat /new/folder/later") == (0, "said while it ran\n")
    assert len(servers(shared)) >= 2
    stop(hulld, "both")
    wait_until(lambda: not servers(shared) and not servers(shared / "below"), "nothing serves the folders any more")


def test_what_is_read_only_is_so_whatever_the_guest_believes(hulld, shared):
    start(hulld, "reader", "sleep 1000", {"host_path": str(shared), "path": "/srv", "read_only": True})
    said = execute(hulld, "reader", "cat /srv/from-host; echo x > /srv/no; mount -o remount,rw /srv && echo remounted; echo x > /srv/no; rm /srv/from-host;"
                                    "mkdir /mnt; mount -t virtiofs mount0 /mnt; echo x > /mnt/no; touch /mnt/from-host; chmod 777 /mnt/from-host")[1]
    assert said.startswith("said by the host\n") and "remounted\n" in said and said.count("Read-only file system") >= 5, said
    assert not (shared / "no").exists() and (shared / "from-host").stat().st_mode & 0o777 == 0o644
    stop(hulld, "reader")


def test_a_machine_keeps_its_folder_when_hulld_is_killed_and_fails_when_it_is_lost(hulld, shared):
    machine = start(hulld, "kept", "echo once more >> /srv/below/starts; sleep 1000", {"host_path": str(shared), "path": "/srv"},
                    restart={"policy": "on-failure", "max_retries": 1})
    hulld.restart()
    assert execute(hulld, "kept", "cat /srv/from-host") == (0, "said by the host\n")
    assert hulld.machine("kept")["pid"] == machine["pid"]
    for pid in servers(shared):
        os.kill(pid, signal.SIGKILL)
    hulld.wait("kept", "failed", BOOT)
    failed = [event["data"] for event in hulld.get("/v1/events?machine=kept&type=machine.failed").json["items"]]
    assert [data["cause"]["code"] for data in failed] == ["folder_lost"], failed
    assert failed[0]["cause"]["message"] == "mounts[0].host_path: its virtiofsd has ended"
    # Its policy starts it again, with another one.
    hulld.wait("kept", "running", BOOT)
    wait_until(lambda: (shared / "below/starts").read_text() == "once more\n" * 2, "it has it again")
    stop(hulld, "kept")


def test_a_folder_that_is_removed_is_gone_for_the_guest_and_for_its_next_start(hulld, shared):
    gone = shared / "gone"
    gone.mkdir()
    (gone / "text").write_text("there\n")
    os.chown(gone, 1234, 1235)
    start(hulld, "gone", "sleep 1000", {"host_path": str(gone), "path": "/srv"})
    assert execute(hulld, "gone", "cat /srv/text") == (0, "there\n")
    (gone / "text").unlink()
    gone.rmdir()
    assert wait_until(lambda: (r := execute(hulld, "gone", "ls -A /srv; echo x > /srv/new"))[0] and r, "it is gone")[1].startswith("/bin/sh: can't create")
    hulld.post("/v1/machines/gone/restart")
    machine = hulld.wait("gone", "failed", BOOT)
    assert machine["cause"] == {"code": "start_failed", "message": f"mounts[0].host_path: {gone}: No such file or directory"}
    hulld.delete("/v1/machines/gone")
