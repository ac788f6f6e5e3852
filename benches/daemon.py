"""hulld on a host that counts instructions: it, all that it reads and all that it starts are in memory."""
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import harness
from harness import BUILD, MEMORY, TOP

sys.path.insert(0, str(TOP / "tests" / "system"))
from guest_image import shared_libraries  # noqa: E402
from hulld_fixtures import Connection, Hulld, make_erofs  # noqa: E402, F401 (for those that have this)

ROOT = Path("/run/bench")
HULLS = ("hull", "hulld", "hull-vmm", "hull-ingress")
HELPERS = ("passt", "mkfs.ext4")
LOADER = Path("/lib64/ld-linux-x86-64.so.2")


class Daemon(Hulld):
    """In a root of its own, which fill_root() has filled; `guest` is the folder of its machines' kernel."""

    def __init__(self, guest):
        super().__init__(MEMORY / "hulld")
        self.options = {"--vmm": "/bin/hull-vmm", "--ingress": "/bin/hull-ingress", "--kernel": MEMORY / "vmlinux",
                        "--initrd": MEMORY / "initramfs"}
        self.folder.mkdir(mode=0o700)
        shutil.copy(guest / "vmlinux", MEMORY / "vmlinux")
        shutil.copy(guest / "initramfs.cpio", MEMORY / "initramfs")

    def command(self):
        """Not by chroot, from which passt could not make itself a user namespace. Descriptors are as many as our systemd unit allows."""
        pivot = 'ulimit -n 65536 && cd "$0" && pivot_root . old && exec /bin/hulld "$@"'
        return ["unshare", "--mount", "sh", "-c", pivot, str(ROOT), *super().command()[1:]]

    def repeat(self, name, n, once):
        """As harness.repeat(). A machine whose guest stands still goes before the next run: it would have a share of that."""
        def once_at_most():
            try:
                return once()
            except harness.STOOD_STILL:
                self.end_machines()
                raise

        return harness.repeat(name, n, once_at_most)


def fill_root():
    """A root of what hulld and hull need, and no more."""
    ROOT.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", ROOT], check=True)
    for name in ("dev", "proc", "sys", "tmp", "run"):
        (ROOT / name).mkdir()
        subprocess.run(["mount", "--rbind", f"/{name}", ROOT / name], check=True)
    for name in ("bin", "etc", "lib64", "old", "usr/lib"):
        (ROOT / name).mkdir(parents=True)
    for path in ("/etc/passwd", "/etc/group", "/etc/resolv.conf", LOADER):
        shutil.copy(path, ROOT / str(path).lstrip("/"))
    for path in [*(BUILD / name for name in HULLS), *(Path(shutil.which(name)) for name in HELPERS)]:
        shutil.copy(path, ROOT / "bin")
        if path.name != "hull-vmm":
            for library in shared_libraries(path):
                shutil.copy(library, ROOT / "usr/lib")
    (ROOT / "sbin").symlink_to("bin")
    subprocess.run(["ldconfig", "-r", ROOT], check=True)


# ---- whose time it was ---------------------------------------------------------------------------------------------

def whose(task):
    """Of a task's name, as the scheduler has it."""
    if task.startswith("swapper"):
        return "idle"
    if task.startswith("vcpu"):
        return "vCPU"
    for name in (*HULLS, *HELPERS):
        if task == name or task.startswith(f"{name}."):
            return name
    return "others"


def shares(switches, began, ended, last):
    """{whose: ms} of the one processor's time, by its changes from a task to the next one; `last` has what is left."""
    took, at = Counter(), began
    for event in switches:
        previous = re.search(r"prev_comm=(.*?) prev_pid=", event.text)[1]
        took[whose(previous)] += event.at - at
        at = event.at
    took[last] += ended - at
    return took
