"""The Debian package, on a host of its own: installed, used by who is not root, renewed under a machine that runs, and gone again."""
import grp
import os
import pwd
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from conftest import BUILD
from hulld_fixtures import Hulld, make_erofs, wait_until

pytestmark = pytest.mark.kvm
BOOT = 120


def sh(*command, **kwargs):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=BOOT, **kwargs).stdout


def dpkg(*arguments):
    done = subprocess.run(["dpkg", "--force-unsafe-io", "--no-triggers", *arguments], capture_output=True, text=True, timeout=BOOT,
                          env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    assert done.returncode == 0, done.stdout + done.stderr


def settings():
    """Of the unit that was installed: {name: [values]}."""
    found = {}
    for line in Path("/lib/systemd/system/hulld.service").read_text().splitlines():
        if match := re.match(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


class Service:
    """What systemd does with the unit, which here is not what starts programs."""

    def __init__(self):
        self.unit = settings()
        user = pwd.getpwnam(self.unit["User"][0])
        for name, place in (("State", "/var/lib"), ("Runtime", "/run")):
            folder = Path(place) / self.unit[f"{name}Directory"][0]
            folder.mkdir(exist_ok=True)
            folder.chmod(int(self.unit[f"{name}DirectoryMode"][0], 8))
            os.chown(folder, user.pw_uid, user.pw_gid)
        command = [word for word in self.unit["ExecStart"][0].split() if not word.startswith("$")]
        self.process = subprocess.Popen(["setpriv", "--reuid", user.pw_name, "--regid", self.unit["Group"][0], "--init-groups",
                                         "--ambient-caps", "-all,+net_bind_service", "--inh-caps", "-all,+net_bind_service",
                                         "--bounding-set", "-all,+net_bind_service", "--no-new-privs", *command], umask=0o027)
        wait_until(self.answers, "hulld answers")

    def answers(self):
        assert self.process.poll() is None
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex("/run/hull/hulld.sock") == 0

    def end(self, signo):
        self.process.send_signal(signo)
        return self.process.wait(BOOT)


def ours():
    """What it leaves where no package's list of files reaches: names, not what its users have."""
    return sorted(line for line in sh("find", "/etc", "/run", "/var/lib", "-maxdepth", "4", "-xdev", "-name", "*hull*").splitlines()
                  if not line.startswith("/var/lib/dpkg/"))


def test_it_comes_serves_is_renewed_and_goes(tmp_path):
    package = next((BUILD / "deb").glob("hull_*.deb"))
    before = ours()
    dpkg("-i", str(package))
    assert "hull" in grp.getgrnam("kvm").gr_mem and pwd.getpwnam("hull").pw_shell == "/usr/sbin/nologin"
    verify = subprocess.run(["systemd-analyze", "verify", "--recursive-errors=no", "hulld.service"], capture_output=True, text=True, timeout=BOOT)
    assert verify.returncode == 0, verify.stderr
    for name in ("hull", "hulld", "hull-ingress", "hull-network", "hull-vmm", "kvmhost"):
        assert sh("man", "-w", name).strip().endswith(".gz")
    os.chown("/dev/kvm", 0, grp.getgrnam("kvm").gr_gid)
    os.chmod("/dev/kvm", 0o660)

    # A member of the group needs no more than that; another has no way in.
    service = Service()
    api = Hulld(tmp_path / "client")
    api.socket = Path("/run/hull/hulld.sock")
    api.image("box", make_erofs(tmp_path, {}))
    member = ["setpriv", "--reuid", "nobody", "--regid", "hull", "--clear-groups"]
    hull = [*member, "env", "HOME=/nonexistent", "hull"]
    assert sh(*hull, "run", "--rm", "--network", "none", "box", "echo", "hello") == "hello\n"
    stranger = subprocess.run(["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "env", "HOME=/nonexistent", "hull", "ps"],
                              capture_output=True, text=True)
    assert stranger.returncode == 1 and "Permission denied" in stranger.stderr and "adduser $USER hull" in stranger.stderr, stranger.stderr
    assert not Path("/var/lib/hull").stat().st_mode & 0o7

    # An upgrade: hulld is another, the machine is the same, and its port below 1024 is served all the time.
    sh(*hull, "run", "-d", "--name", "web", "-p", "80:8080", "box", "sh", "-c", "while :; do echo hello | nc -l -p 8080; done")

    def served():
        with socket.create_connection(("127.0.0.1", 80), 10) as client:
            return client.recv(10) == b"hello\n"

    wait_until(served, "the machine answers", BOOT)
    assert service.end(signal.SIGTERM) == 0
    dpkg("-i", str(package))
    service = Service()
    assert "running" in sh(*hull, "ps")
    wait_until(served, "the machine answers", BOOT)

    # The host goes down: the machine first.
    assert "kill -PWR $MAINPID" in service.unit["ExecStop"][0]
    assert service.end(signal.SIGPWR) == 0
    wait_until(lambda: subprocess.run(["pgrep", "-u", "hull"], capture_output=True).stdout == b"", "hull-ingress and the network have ended too")

    files = [path for path in sh("dpkg", "-L", "hull").splitlines() if "hull" in Path(path).name]
    Path("/etc/default/hulld").write_text("HULLD_OPTIONS=\n")  # as README.md says
    dpkg("-r", "hull")
    assert len(files) > 15 and not [path for path in files if os.path.lexists(path)]
    assert Path("/etc/default/hulld").exists() and Path("/var/lib/hull/hull.db").exists(), "machines and images are there for the next who installs it"
    dpkg("-P", "hull")
    assert ours() == before
