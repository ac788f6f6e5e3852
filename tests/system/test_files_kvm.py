"""Files in and out of a real machine (test_files.py has what needs none)."""
import hashlib
import os
import time

import pytest

from hulld_fixtures import Hulld, make_erofs
from test_exec import execute, ran
from test_files import archive, cp, described, get, make_tree, put, tarfile

pytestmark = pytest.mark.kvm
BOOT = 180  # seconds: an emulated host boots slowly
COPY_MIB = int(os.environ.get("HULL_TEST_COPY_MIB", "16"))  # 2048 by hand


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hulld")
    daemon = Hulld(folder, env={"HULL_START_TIMEOUT_S": str(BOOT)}).start()
    daemon.image("busybox", make_erofs(folder, {}))
    daemon.post("/v1/machines", {"name": "box", "image": "busybox", "command": ["/bin/sleep", "100000"], "network": "none",
                                 "disk_mib": COPY_MIB + 64, "memory_mib": 192})
    daemon.post("/v1/machines/box/start")
    machine = daemon.wait("box", "running,failed", BOOT)
    assert machine["state"] == "running", machine
    yield daemon
    daemon.stop()


def digest(path):
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            total.update(chunk)
    return total.hexdigest()


def test_a_tree_is_the_same_after_the_way_in_and_out(hulld, tmp_path):
    tree = make_tree(tmp_path / "tree")
    cp(hulld, tree, "box:/srv/tree")
    assert ran(execute(hulld, "box", "stat", "-c", "%a %u %g", "/srv/tree/program"))[0] == "751 4000000 1001\n"
    cp(hulld, "box:/srv/tree", tmp_path / "back")
    assert described(tmp_path / "back") == described(tree)
    assert ran(execute(hulld, "box", "rm", "-r", "/srv/tree")) == ("", "")


def test_a_large_file_is_the_same_after_the_way_in_and_out(hulld, tmp_path):
    with (tmp_path / "large").open("wb") as file:
        for mib in range(0, COPY_MIB, 8):
            file.seek(mib << 20)
            file.write(os.urandom(4 << 20))
        file.truncate((COPY_MIB << 20) + 12345)
    begin = time.monotonic()
    cp(hulld, tmp_path / "large", "box:/large", timeout=3000)
    middle = time.monotonic()
    said = ran(execute(hulld, "box", "sha256sum", "/large", timeout=1200))[0]
    assert said.split()[0] == digest(tmp_path / "large")
    again = time.monotonic()
    cp(hulld, "box:/large", tmp_path / "back", timeout=3000)
    print(f"{COPY_MIB} MiB: in {middle - begin:.1f} s, out {time.monotonic() - again:.1f} s")
    assert digest(tmp_path / "back") == digest(tmp_path / "large")
    assert ran(execute(hulld, "box", "rm", "/large")) == ("", "")


def test_a_full_disk_is_said_and_the_agent_goes_on(hulld, tmp_path):
    ran(execute(hulld, "box", "mkdir", "/full"))
    ran(execute(hulld, "box", "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/full"))
    answer = put(hulld, "/full", archive(("large", tarfile.REGTYPE, b"x" * (3 << 20))))
    assert (answer.status, answer.json["code"]) == (507, "insufficient_storage"), answer
    assert ran(execute(hulld, "box", "ls", "-A", "/full")) == ("", "")
    assert get(hulld, "/full").status == 200


def test_while_programs_stand_still_nothing_is_copied(hulld):
    assert hulld.post("/v1/machines/box/freeze").status == 200
    answer = get(hulld, "/etc")
    assert (answer.status, answer.json["code"]) == (409, "wrong_state"), answer
    hulld.post("/v1/machines/box/thaw")
    assert get(hulld, "/etc").status == 200
