"""Files in and out of a machine: hull cp, and the API below it. The agent is real; the machine is this host, so that none has to boot
(test_files_kvm.py has one that does)."""
import io
import os
import socket
import subprocess
import tarfile
from urllib.parse import quote

import pytest

from hulld_fixtures import BUILD, DEADLINE, wait_until
from test_exec import HULL, start_alone

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent is root")


@pytest.fixture(scope="module")
def hulld(tmp_path_factory):
    daemon = start_alone(tmp_path_factory.mktemp("hulld"))
    for name in ("box", "idle"):
        daemon.post("/v1/machines", {"name": name, "image": "any", "command": ["any"], "network": "none", "disk_mib": 16})
    daemon.post("/v1/machines/box/start")
    assert daemon.wait("box", "running,failed")["state"] == "running", daemon.machine("box")
    yield daemon
    daemon.stop()


def cp(hulld, source, target, status=0, **options):
    done = subprocess.run([HULL, "--host", f"unix://{hulld.socket}", "cp", str(source), str(target)], capture_output=True,
                          **{"timeout": DEADLINE, **options})
    assert done.returncode == status, done
    return done


def get(hulld, path, machine="box"):
    return hulld.get(f"/v1/machines/{machine}/files?path={quote(os.fsencode(path))}")


def put(hulld, path, archive, into=0):
    return hulld.request("PUT", f"/v1/machines/box/files?path={quote(str(path))}&into={into}", archive)


def archive(*entries):
    """Of (name, type, what), where what is the content or the link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, what in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = what
            elif kind == tarfile.REGTYPE:
                info.size = len(what)
            tar.addfile(info, io.BytesIO(what) if kind == tarfile.REGTYPE else None)
    return out.getvalue()


def make_tree(root):
    """Of everything that is carried."""
    deep = root / "a folder" / ("n" * 120) / ("m" * 120)
    deep.mkdir(parents=True)
    (deep / "far").write_text("far")
    (root / "empty").touch()
    (root / "program").write_bytes(os.urandom(300_001))
    (root / "program").chmod(0o751)
    (root / os.fsdecode(b"odd \xff\n\"name")).write_text("odd")
    (root / "link").symlink_to("program")
    (root / "nowhere").symlink_to("/no/" + "where" * 60)
    with (root / "holes").open("wb") as file:
        file.write(b"begin")
        file.truncate(8 << 20)
    os.chown(root / "program", 4_000_000, 1001)
    os.chown(root / "link", 7, 8, follow_symlinks=False)
    os.chown(root / "a folder", 1000, 1000)
    (root / "a folder").chmod(0o2750 & 0o1777)
    os.utime(root / "program", ns=(0, 1_234_567_890_123_456_789))
    os.utime(root / "link", ns=(0, 987_654_321_000_000_000), follow_symlinks=False)
    os.utime(root / "empty", ns=(0, -1_500_000_000))
    os.utime(root / "a folder", ns=(0, 5_000_000_000))
    return root


def described(root):
    all_of_it = {}
    for path in [root, *root.rglob("*")]:
        stat = path.lstat()
        what = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        all_of_it[path.relative_to(root)] = (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_mtime_ns, what)
    return all_of_it


def leftovers(folder):
    return [path for path in folder.rglob("*") if path.name.startswith(".hull-cp-")]


def test_a_tree_is_the_same_after_the_way_in_and_out(hulld, tmp_path):
    tree = make_tree(tmp_path / "tree")
    cp(hulld, tree, f"box:{tmp_path}/inside")
    assert described(tmp_path / "inside") == described(tree)
    cp(hulld, f"box:{tmp_path}/inside", tmp_path / "back")
    assert described(tmp_path / "back") == described(tree)
    assert (tmp_path / "back/holes").stat().st_blocks < 1024  # they are holes again
    assert not leftovers(tmp_path)


def test_where_it_goes_is_as_with_cp(hulld, tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here / "some"):
        folder.mkdir(parents=True)
    (here / "file").write_text("1")
    (here / "some" / "inner").write_text("2")
    cp(hulld, here / "file", f"box:{there}")
    cp(hulld, here / "file", f"box:{there}/renamed")
    cp(hulld, here / "some", f"box:{there}")
    cp(hulld, f"{here}/some/.", f"box:{there}")
    cp(hulld, here / "some", f"box:{there}/new")
    assert sorted(str(path.relative_to(there)) for path in there.rglob("*")) == [
        "file", "inner", "new", "new/inner", "renamed", "some", "some/inner"]
    (here / "file").write_text("3")
    cp(hulld, here / "file", f"box:{there}/renamed")
    assert (there / "renamed").read_text() == "3"
    cp(hulld, f"box:{there}/renamed", ".", cwd=here)
    assert (here / "renamed").read_text() == "3"


def test_a_dash_is_an_archive(hulld, tmp_path):
    (tmp_path / "one").write_text("one")
    out = cp(hulld, f"box:{tmp_path}/one", "-").stdout
    assert tarfile.open(fileobj=io.BytesIO(out)).extractfile("one").read() == b"one"
    several = subprocess.run(["tar", "-c", "--format=gnu", "-C", make_tree(tmp_path / "tree"), "."], capture_output=True, check=True).stdout
    (tmp_path / "into").mkdir()
    cp(hulld, "-", f"box:{tmp_path}/into", input=several)
    assert (tmp_path / "into" / "a folder" / ("n" * 120) / ("m" * 120) / "far").read_text() == "far"
    assert b"no/such" in cp(hulld, "-", f"box:{tmp_path}/no/such", 1, input=several).stderr


@pytest.mark.parametrize("source, target, says", [
    ("/a", "/b", "neither is in a machine"),
    ("box:/a", "box:/b", "both are in machines"),
    ("box:", ".", "SOURCE: has no path"),
    ("nobody:/etc/hostname", ".", "nobody"),
    ("idle:/etc/hostname", ".", "machine idle is created"),
    ("box:/no/such", ".", "box: /no/such: No such file or directory"),
    ("/no/such", "box:/tmp", "/no/such: No such file or directory"),
    ("/etc/hostname", "box:/no/such/", "box: /no/: No such file or directory"),
    ("/etc/hostname", "box:/tmp/no-such-folder/", "there is no such folder"),
    ("/etc", "box:/etc/hostname", "hostname: Not a directory"),
    ("box:/etc/hostname", "/no/such/folder", "/no/such/: No such file or directory"),
    ("box:/dev/null", ".", "/dev/null: is no file, folder or link"),
])
def test_what_cannot_be_is_refused_in_a_line(hulld, tmp_path, source, target, says):
    done = cp(hulld, source, target, 2 if "in " in says and ":" not in says or "SOURCE" in says else 1, cwd=tmp_path)
    line = done.stderr.decode().splitlines()[0]
    assert line.startswith("hull: ") and says in line, done.stderr
    assert not list(tmp_path.iterdir())
    if "box: /no" in says:
        assert done.stderr.decode().splitlines()[1:] == ["      `hull exec -it box sh` is a look from inside"]


def test_devices_and_sockets_are_skipped_with_a_word(hulld, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mkfifo(tree / "fifo")
    (tree / "file").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "socket"))
        said = cp(hulld, tree, f"box:{tmp_path}/copy").stderr.decode()
    assert "tree/fifo: is a device or FIFO: skipped" in said and "tree/socket: is a socket: skipped" in said
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["file"]
    assert "fifo: is a device or FIFO: skipped" in cp(hulld, f"box:{tree}", tmp_path / "back").stderr.decode()


@pytest.mark.parametrize("entries", [
    [("../out", tarfile.REGTYPE, b"x")],
    [("/tmp/out", tarfile.REGTYPE, b"x")],
    [("a", tarfile.DIRTYPE, None), ("a/../../out", tarfile.REGTYPE, b"x")],
    [("a", tarfile.DIRTYPE, None), ("a/l", tarfile.SYMTYPE, ".."), ("a/l/out", tarfile.REGTYPE, b"x")],
    [("a", tarfile.DIRTYPE, None), ("a/l", tarfile.SYMTYPE, ".."), ("a/l", tarfile.DIRTYPE, None)],
    [("a", tarfile.SYMTYPE, ".."), ("a/out", tarfile.REGTYPE, b"x")],
    [("a", tarfile.DIRTYPE, None), ("a/l", tarfile.LNKTYPE, "../../secret")],
    [("a", tarfile.DIRTYPE, None), ("b", tarfile.REGTYPE, b"x")],
])
@pytest.mark.parametrize("into", [0, 1])
def test_nothing_leads_out_of_the_target(hulld, tmp_path, entries, into):
    target = tmp_path / "below" / "target"
    target.mkdir(parents=True)
    answer = put(hulld, target, archive(*entries), into)
    if into and entries[-1][0] == "b":
        assert answer.status == 204, answer
        return
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "invalid_field", "path"), answer
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["target"]
    assert not list(tmp_path.rglob("out")) and not leftovers(tmp_path)


@pytest.mark.parametrize("body", [b"", b"no archive" * 100, archive(("a", tarfile.REGTYPE, b"x" * 5000))[:3000],
                                  archive(("a", tarfile.REGTYPE, b"x"))[:1024]])
def test_a_damaged_archive_leaves_nothing(hulld, tmp_path, body):
    answer = put(hulld, tmp_path, body)
    assert (answer.status, answer.json["code"]) == (400, "invalid_field"), answer
    assert not leftovers(tmp_path) and [path.name for path in tmp_path.iterdir()] in ([], ["a"])


@pytest.mark.parametrize("query, code, status", [("", "missing_field", 400), ("path=etc", "invalid_field", 400), ("path=%ff", "invalid_field", 400),
                                                 ("path=/%ff", "invalid_field", 400), ("path=/no/such", "not_found", 404)])
def test_the_path_is_checked(hulld, query, code, status):
    answer = hulld.get(f"/v1/machines/box/files?{query}")
    assert (answer.status, answer.json["code"], answer.json["field"]) == (status, code, "path"), answer
    answer = hulld.get("/v1/machines/idle/files?path=/etc")
    assert (answer.status, answer.json["code"]) == (409, "wrong_state")


def test_a_client_that_vanishes_leaves_nothing(hulld, tmp_path):
    head = archive(("large", tarfile.REGTYPE, b"x" * 100_000))[:50_000]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(hulld.socket))
        sock.sendall(b"PUT /v1/machines/box/files?path=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" %
                     quote(str(tmp_path)).encode() + head)
        wait_until(lambda: leftovers(tmp_path), "it is being written")
    wait_until(lambda: not list(tmp_path.iterdir()), "it is gone")
    assert get(hulld, tmp_path).status == 200


def test_a_machine_that_ends_in_the_middle_leaves_whole_files_only(hulld, tmp_path):
    hulld.post("/v1/machines", {"name": "ends", "image": "any", "command": ["any"], "network": "none", "disk_mib": 16})
    hulld.post("/v1/machines/ends/start")
    assert hulld.wait("ends", "running,failed")["state"] == "running", hulld.machine("ends")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(hulld.socket))
        sock.sendall(b"PUT /v1/machines/ends/files?path=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" %
                     quote(str(tmp_path)).encode() + archive(("large", tarfile.REGTYPE, b"x" * 100_000))[:50_000])
        wait_until(lambda: leftovers(tmp_path), "it is being written")
        hulld.post("/v1/machines/ends/stop")
        wait_until(lambda: not list(tmp_path.iterdir()), "it is gone")


def test_a_client_that_does_not_read_costs_no_memory(hulld, tmp_path):
    """64 MiB wait where they are."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(64 << 20)

    def resident():
        text = open(f"/proc/{hulld.process.pid}/status").read()
        return int(text.split("VmRSS:")[1].split()[0])

    before = resident()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(hulld.socket))
        sock.sendall(b"GET /v1/machines/box/files?path=%s HTTP/1.1\r\nHost: x\r\n\r\n" % quote(str(tmp_path)).encode())
        assert b"200 OK" in sock.recv(1000)
        assert get(hulld, tmp_path / "no").status == 404  # others are served meanwhile
        assert resident() - before < 4096
    assert len(get(hulld, tmp_path / "large").body) > 64 << 20
    assert resident() - before < 4096


def test_a_full_disk_is_said_and_leaves_nothing(hulld, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(full)], check=True)
    try:
        answer = put(hulld, full, archive(("large", tarfile.REGTYPE, b"x" * (3 << 20))))
        assert (answer.status, answer.json["code"]) == (507, "insufficient_storage"), answer
        assert not list(full.iterdir())
        assert get(hulld, full).status == 200
    finally:
        subprocess.run(["umount", str(full)], check=True)
