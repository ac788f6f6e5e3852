"""A machine sees a folder of the host: who may, what is refused, what serves it. With a stand-in for the monitor, so that no guest is needed."""
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from conftest import BUILD
from hulld_fixtures import Hulld, make_erofs, wait_until

VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root's hulld shares folders")


@pytest.fixture(scope="module")
def allowed(tmp_path_factory):
    """The folder that project default may see, and beside it what it may not."""
    folder = tmp_path_factory.mktemp("host") / "allowed"
    (folder / "src/deep").mkdir(parents=True)
    (folder / "src/text").write_text("hello\n")
    (folder / "within").symlink_to("src/deep")
    (folder / "out").symlink_to("../beside")
    (folder / "up").symlink_to("..")
    (folder / "absolute").symlink_to(folder / "src")
    (folder.parent / "beside").mkdir()
    (folder.parent / "allowed-not").mkdir()
    for name in ("tenants", "everyone"):
        (folder.parent / name).mkdir()
    return folder


@pytest.fixture(scope="module")
def hulld(tmp_path_factory, allowed):
    daemon = Hulld(tmp_path_factory.mktemp("hulld"), "--mount-allow", allowed, "--mount-allow", f"tenant={allowed.parent / 'tenants'}",
                   "--mount-allow", f"*={allowed.parent / 'everyone'}").with_stand_in()
    daemon.start()
    daemon.erofs = make_erofs(daemon.folder)
    daemon.image("hello", daemon.erofs, command=["/bin/true"])
    yield daemon
    daemon.stop()


@pytest.fixture
def start(hulld):
    """start(path, read_only): a machine that sees it at /srv, told to start."""
    made = []

    def create(*mounts, failed=False):
        name = f"m{len(made)}"
        made.append(name)
        answer = hulld.post("/v1/machines", {"name": name, "image": "hello", "network": "none", "disk_mib": 16, "mounts": list(mounts)})
        assert answer.status == 201, answer
        assert hulld.post(f"/v1/machines/{name}/start").status == 200
        return hulld.wait(name, "failed") if failed else wait_until(lambda: (m := hulld.machine(name))["pid"] and m, "it has a monitor")

    yield create
    for name in made:
        hulld.delete(f"/v1/machines/{name}?force=1")


def mount(path, **more):
    return {"host_path": str(path), "path": "/srv", **more}


def is_folder(path, folder):
    try:
        return os.path.samefile(path, folder)
    except OSError:
        return False


def servers(folder):
    """Process ids of virtiofsds that share this folder, and of what is about to become one."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if words[0].endswith("hull-virtiofs") and str(folder) in words or words[0] == VIRTIOFSD and (
                is_folder(f"/proc/{entry}/root/run", folder) or is_folder(f"/proc/{entry}/root", folder)):
            found.append(int(entry))
    return found


def wait_for_server(folder):
    """The process that serves it, which waits for the monitor."""
    def serves(pid):
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(VIRTIOFSD.encode())
        except OSError:
            return False

    return wait_until(lambda: [pid for pid in servers(folder) if serves(pid)], f"{folder} is served")[0]


def left(hulld, machine):
    """What of folders is left of a machine that has ended."""
    run = hulld.run / "machines" / machine["id"]
    return [path.name for path in run.iterdir() if path.name != "vsock.sock_1026"] if run.exists() else []


# Who may.


def plan(hulld, mounts, project="default"):
    return hulld.post("/v1/machines?dry_run=1", {"image": "hello", "mounts": mounts}, headers={"Hull-Project": project})


def test_a_folder_is_one_projects_or_every_projects(hulld, allowed):
    assert hulld.post("/v1/projects", {"name": "tenant"}).status == 201
    digest = "sha256:" + hashlib.sha256(hulld.erofs).hexdigest()
    as_tenant = {"Hull-Project": "tenant"}
    assert hulld.request("PUT", f"/v1/blobs/{digest}", hulld.erofs, as_tenant).status in (200, 201)
    assert hulld.post("/v1/images", {"name": "hello", "rootfs": digest, "config": {"command": ["/bin/true"]}}, headers=as_tenant).status == 201
    beside = allowed.parent
    for path, may in ((allowed, ("default",)), (allowed / "src/deep", ("default",)), (beside / "tenants", ("tenant",)),
                      (beside / "tenants/missing", ("tenant",)), (beside / "everyone", ("default", "tenant")), (beside, ()), (beside / "beside", ()),
                      (beside / "allowed-not", ()), ("/etc", ())):
        for project in ("default", "tenant"):
            answer = plan(hulld, [mount(path)], project)
            assert answer.status == (201 if project in may else 403), (path, project, answer)
            if project not in may:
                problem = answer.json
                assert (problem["code"], problem["field"]) == ("forbidden", "mounts[0].host_path")
                assert problem["detail"] == f"machines of project {project} may not see {path} of the host" and "--mount-allow" in problem["hint"]


@pytest.mark.parametrize("mounts, code, field, words", [
    ([{"host_path": "src", "path": "/srv"}], "invalid_field", "mounts[0].host_path", "must be an absolute path"),
    ([{"host_path": "/", "path": "/srv"}], "invalid_field", "mounts[0].host_path", "and not /"),
    ([{"host_path": "{allowed}/../beside", "path": "/srv"}], "invalid_field", "mounts[0].host_path", "without empty names, . and .."),
    ([{"host_path": "{allowed}/./src", "path": "/srv"}], "invalid_field", "mounts[0].host_path", "without empty names, . and .."),
    ([{"host_path": "{allowed}/src/", "path": "/srv"}], "invalid_field", "mounts[0].host_path", "without a slash at its end"),
    ([{"host_path": "{allowed}", "path": "/"}], "invalid_field", "mounts[0].path", "must be an absolute path, and not /"),
    ([{"host_path": "{allowed}", "volume": "data", "path": "/srv"}], "invalid_field", "mounts[0].host_path", "does not go with a volume"),
    ([{"path": "/srv"}], "missing_field", "mounts[0].volume", "or a host_path"),
    ([{"host_path": "{allowed}"}], "missing_field", "mounts[0].path", "is required"),
    ([{"host_path": "{allowed}", "path": "/a"}, {"host_path": "/etc", "path": "/b"}], "forbidden", "mounts[1].host_path", "may not see /etc"),
    ([{"host_path": "{allowed}", "path": "/a"}, {"host_path": "{allowed}/src", "path": "/a"}], "invalid_field", "mounts[1].path", "there twice"),
])
def test_what_is_no_folder_by_its_name_is_refused_at_create(hulld, allowed, mounts, code, field, words):
    filled = [{key: value.replace("{allowed}", str(allowed)) for key, value in mount.items()} for mount in mounts]
    problem = plan(hulld, filled).json
    assert (problem["code"], problem["field"]) == (code, field) and words in problem["detail"], problem


@pytest.mark.parametrize("option, words", [
    ("srv", "must be an absolute path"), ("/srv/../etc", "without empty names"), ("/", "and not /"), ("Tenant=/srv", "the project's name: "),
    ("=/srv", "the project's name: "), ("tenant=srv", "must be an absolute path"), ("x" * 64 + "=/srv", "at most 63 bytes")])
def test_an_option_that_allows_no_folder_is_refused(option, words):
    refused = subprocess.run([BUILD / "hulld", "--mount-allow", option, "--version"], capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr.startswith("hulld: --mount-allow: ") and words in refused.stderr, refused


# What is found only when it is looked for.


@pytest.mark.parametrize("path, words", [
    ("missing", "No such file or directory"), ("src/text", "Not a directory"), ("out", "leads out of {allowed}"),
    ("up/allowed", "leads out of {allowed}"), ("absolute", "leads out of {allowed}"), ("src/missing/below", "No such file or directory")])
def test_what_is_no_folder_ends_the_start(hulld, start, allowed, path, words):
    machine = start(mount(allowed / path), failed=True)
    assert machine["cause"] == {"code": "start_failed", "message": f"mounts[0].host_path: {allowed / path}: " + words.format(allowed=allowed)}
    assert not left(hulld, machine) and not servers(allowed / path)


def test_of_several_the_one_that_is_wrong_is_named_and_none_is_left(hulld, start, allowed):
    good = [mount(allowed / "src"), {"host_path": str(allowed.parent / "everyone"), "path": "/b", "read_only": True}]
    machine = start(*good, {"host_path": str(allowed / "missing"), "path": "/c"}, failed=True)
    assert machine["cause"]["message"].startswith(f"mounts[2].host_path: {allowed}/missing: ")
    wait_until(lambda: not servers(allowed / "src") and not servers(allowed.parent / "everyone"), "nothing serves them any more")
    assert not left(hulld, machine)


def test_a_folder_that_is_not_allowed_any_more_is_refused_at_the_start(hulld, start, allowed, tmp_path):
    machine = start(mount(allowed / "src"))
    hulld.post(f"/v1/machines/{machine['id']}/kill")
    options, hulld.extra = hulld.extra, hulld.extra[2:]
    try:
        hulld.restart()
        problem = hulld.post(f"/v1/machines/{machine['id']}/start").json
        assert (problem["code"], problem["field"]) == ("forbidden", "mounts[0].host_path")
    finally:
        hulld.extra = options
        hulld.restart()


# What serves it.


def test_what_serves_a_folder_has_no_rights_but_its_owners(start, allowed):
    os.chown(allowed / "src/deep", 1234, 1235)
    start(mount(allowed / "within", read_only=True))  # a link that leads nowhere else
    server = Path(f"/proc/{wait_for_server(allowed / 'src/deep')}")
    status = dict(line.split(":\t") for line in (server / "status").read_text().splitlines())
    assert status["Uid"].split() == ["1234"] * 4 and status["Gid"].split() == ["1235"] * 4 and not status["Groups"].strip()
    assert (server / "uid_map").read_text().split() == ["0", "1234", "1", "1", str(0x7FFE0001), "65535"]
    assert (server / "gid_map").read_text().split() == ["0", "1235", "1", "1", str(0x7FFE0001), "65535"]
    assert not (server / "environ").read_bytes()
    [mounted] = [line.split() for line in (server / "mountinfo").read_text().splitlines() if line.split()[4] == "/run"][-1:]
    assert mounted[3].endswith("/allowed/src/deep") and {"ro", "nosuid", "nodev"} <= set(mounted[5].split(","))
    os.chown(allowed / "src/deep", 0, 0)


def test_a_folder_of_a_guests_user_is_refused(start, allowed):
    os.chown(allowed / "src/deep", 0x7FFE0000 + 33, 0)
    machine = start(mount(allowed / "src/deep"), failed=True)
    os.chown(allowed / "src/deep", 0, 0)
    assert "is a machine's, and none of the host's" in machine["cause"]["message"]


def test_it_ends_with_the_machine_also_after_a_crash_of_hulld(hulld, start, allowed):
    machine = start(mount(allowed / "src"), {"host_path": str(allowed.parent / "everyone"), "path": "/b"})
    before = [wait_for_server(allowed / "src"), wait_for_server(allowed.parent / "everyone")]
    hulld.restart()
    assert [wait_for_server(allowed / "src"), wait_for_server(allowed.parent / "everyone")] == before
    assert hulld.machine(machine["id"])["pid"] == machine["pid"]
    hulld.post(f"/v1/machines/{machine['id']}/kill")
    wait_until(lambda: not servers(allowed / "src") and not servers(allowed.parent / "everyone"), "nothing serves them any more")
    assert not left(hulld, machine)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_machine_that_loses_a_folder_fails(hulld, start, allowed, restarted):
    machine = start({"host_path": str(allowed.parent / "everyone"), "path": "/b"}, mount(allowed / "src"))
    server = wait_for_server(allowed / "src")
    if restarted:
        hulld.restart()
    os.kill(server, signal.SIGKILL)
    cause = hulld.wait(machine["id"], "failed")["cause"]
    # Of a process that is no child of its own, hulld does not hear how it ended.
    assert cause == {"code": "start_failed", "message": "mounts[1].host_path: its virtiofsd " +
                     ("has ended" if restarted else "was ended by signal 9 (Killed)")}
    wait_until(lambda: not servers(allowed.parent / "everyone"), "nothing serves the other any more")


@pytest.fixture
def unanswered(hulld):
    """hulld, with a stand-in for hull-virtiofs: a folder whose file system never answers."""
    stuck = hulld.folder / "stuck"
    stuck.write_text("#!/bin/sh\nexec sleep 1000\n")
    stuck.chmod(0o755)
    options, env = dict(hulld.options), dict(hulld.env)
    hulld.options["--virtiofs"] = stuck
    hulld.restart()
    yield hulld
    hulld.options, hulld.env = options, env
    hulld.restart()


def test_the_monitor_is_not_let_go_before_its_folders_are_there(unanswered, start, allowed):
    machine = start(mount(allowed / "src"))
    assert Path(f"/proc/{machine['pid']}/comm").read_text() == "hulld\n"  # a child that has not executed anything
    assert unanswered.post(f"/v1/machines/{machine['id']}/kill").status == 200
    unanswered.env["HULL_START_TIMEOUT_S"] = "1"  # its disk is there
    unanswered.restart()
    assert unanswered.post(f"/v1/machines/{machine['id']}/start").status == 200
    assert unanswered.wait(machine["id"], "failed")["cause"] == {
        "code": "start_timeout", "message": f"{allowed / 'src'} did not answer within 1 s"}
    assert not left(unanswered, machine)


def test_a_start_whose_folder_does_not_answer_begins_anew_after_a_crash(unanswered, hulld, start, allowed):
    machine = start(mount(allowed / "src"))
    unanswered.options["--virtiofs"] = BUILD / "hull-virtiofs"
    unanswered.restart()
    wait_for_server(allowed / "src")
    assert unanswered.machine(machine["id"])["pid"] not in (None, machine["pid"])


@pytest.fixture
def as_nobody(tmp_path_factory):
    """as_nobody(folder, subordinate, *options): a hulld of that user, which may have subordinate ids, and has a machine that sees the folder."""
    place = Path(tempfile.mkdtemp(prefix="hull-"))
    started = []

    def start(folder, subordinate, *options):
        ids = place / "subuid"
        ids.write_text(subordinate)
        daemon = Hulld(place, "--mount-allow", folder).with_stand_in()
        as_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--groups", "65534,1", *options]
        mounts = f"mount --bind {ids} /etc/subuid && mount --bind {ids} /etc/subgid && exec \"$@\""
        daemon.wrapper = ["unshare", "-m", "sh", "-c", mounts, "sh", *as_user]
        for path in (place, daemon.run):
            subprocess.run(["chown", "-R", "65534:65534", path], check=True)
        started.append(daemon.start())
        daemon.image("hello", make_erofs(tmp_path_factory.mktemp("image")), command=["/bin/true"])
        assert daemon.post("/v1/machines", {"name": "m", "image": "hello", "network": "none", "mounts": [mount(folder)]}).status == 201
        return daemon, daemon.post("/v1/machines/m/start")

    yield start
    for daemon in started:
        daemon.stop()
    shutil.rmtree(place)


def test_a_hulld_that_is_not_root_shares_with_its_users_rights(as_nobody):
    folder = Path(tempfile.mkdtemp(prefix="hull-"))
    folder.chmod(0o755)
    hulld, answer = as_nobody(folder, "somebody:1:65536\nnobody:100000:1000\nnobody:300000:65536\n")
    assert answer.status == 200 and hulld.get("/v1/host").json["capabilities"]["folders"] is True
    server = Path(f"/proc/{wait_for_server(folder)}")
    status = dict(line.split(":\t") for line in (server / "status").read_text().splitlines())
    assert status["Uid"].split() == ["65534"] * 4 and not status["Groups"].strip()  # whoever owns the folder
    assert (server / "uid_map").read_text().split() == ["0", "65534", "1", "1", "300000", "65535"]
    hulld.post("/v1/machines/m/kill")
    wait_until(lambda: not servers(folder), "nothing serves it any more")
    folder.rmdir()


def test_a_hulld_that_is_not_root_and_has_no_ids_to_give_says_so(as_nobody):
    hulld, answer = as_nobody(Path("/srv"), "somebody:1:65536\n")
    assert answer.status == 200
    assert hulld.wait("m", "failed")["cause"]["message"].startswith(
        "mounts[0].host_path: /etc/subuid gives no 65535 ids to user nobody: usermod --add-subuids")


def test_a_hulld_that_may_not_gain_privileges_says_so(as_nobody):
    hulld, answer = as_nobody(Path("/srv"), "nobody:300000:65536\n", "--no-new-privs")
    assert hulld.get("/v1/host").json["capabilities"]["folders"] is False
    assert answer.json["code"] == "machine_failed" and answer.json["detail"] == (
        "this host cannot share a folder: hulld is neither root nor may it gain privileges (systemd's NoNewPrivileges=)")


def test_the_host_says_that_it_can(hulld):
    assert hulld.get("/v1/host").json["capabilities"]["folders"] is True
