"""A guest's initramfs, made from a shell script: for the system tests and for benches/."""
import lzma
import re
import stat
import subprocess
from pathlib import Path


class Cpio:
    """A newc archive, as an initramfs is: enough of it to boot a script."""

    def __init__(self):
        self.data = bytearray()
        self.inode = 0

    def _entry(self, name, mode, content=b"", device=(0, 0)):
        self.inode += 1
        fields = [self.inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0]
        self.data += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        self.data += b"\0" * (-len(self.data) % 4) + content
        self.data += b"\0" * (-len(self.data) % 4)

    def folder(self, name):
        self._entry(name, stat.S_IFDIR | 0o755)

    def file(self, name, content, mode=0o755):
        self._entry(name, stat.S_IFREG | mode, content)

    def device(self, name, major, minor):
        """A character device."""
        self._entry(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def link(self, name, target):
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def finish(self):
        self._entry("TRAILER!!!", 0)
        return bytes(self.data)


def module(folder, name):
    """A kernel module's bytes, by its name, unpacked; none of one that is built in, nor of any of a kernel that has no modules.
    (Walking the folder would take a minute over 9p.)"""
    for order in folder.glob("*/modules.order"):
        if not order.read_text():
            return b""
        if f"/{name}.ko\n" in order.with_name("modules.builtin").read_text().replace("-", "_"):
            return b""
        for line in order.read_text().split():
            if Path(line).stem.replace("-", "_") == name:
                path = order.parent / line
                if path.exists():
                    return path.read_bytes()
                return lzma.decompress(path.with_name(path.name + ".xz").read_bytes())
    raise FileNotFoundError(f"no module {name} below {folder}")


def make_initramfs(path, script, modules_folder, modules=(), files=None):
    """`script` runs under busybox as PID 1, once `modules` are loaded, in order; `files` are further ones, by name."""
    init = ["#!/bin/sh", "/bin/busybox --install -s /bin", "mount -t proc proc /proc", "mount -t sysfs sys /sys",
            "mount -t devtmpfs dev /dev", "for m in /modules/*; do [ -e $m ] && insmod $m; done", script]
    archive = Cpio()
    for folder in ("bin", "dev", "lib64", "proc", "sys", "modules", "mnt", "tmp"):
        archive.folder(folder)
    archive.file("bin/busybox", Path("/bin/busybox").read_bytes())
    archive.link("bin/sh", "busybox")
    for number, name in enumerate(modules):
        if content := module(modules_folder, name):
            archive.file(f"modules/{number:02}-{name}.ko", content, 0o644)
    for name, content in (files or {}).items():
        archive.file(name, content)
    archive.file("init", "\n".join(init).encode() + b"\n")
    path.write_bytes(archive.finish())
    return path


def shared_libraries(program):
    """The paths of the shared libraries that it needs here."""
    words = (line.split() for line in subprocess.check_output(["ldd", program], text=True).splitlines())
    return {Path(line[2]) for line in words if len(line) > 2 and line[1] == "=>"}


def program_files(program, libraries):
    """A program and its libraries, for make_initramfs. It runs with LD_LIBRARY_PATH=/lib64."""
    paths = {f"bin/{Path(program).name}": program, "lib64/ld-linux-x86-64.so.2": "/lib64/ld-linux-x86-64.so.2"}
    paths.update({f"lib64/{path.name}": path for path in libraries})
    return {name: Path(path).read_bytes() for name, path in paths.items()}


# What the guest's script runs fio with.
FIO_ENVIRONMENT = "LD_LIBRARY_PATH=/lib64 LD_PRELOAD=libabsent.so"


def fio_files(folder):
    """fio and the shared libraries that it needs here. Its engines for Ceph, Gluster, RDMA and so on would bring 80 MiB more:
    an empty library in the place of each of these satisfies the loader. `folder` is for making them."""
    program = "/usr/bin/fio"
    needed = {path for path in shared_libraries(program)
              if path.name.startswith(("libnuma.", "libz.", "libm.", "libaio.", "libc."))}
    names = {line.split("[")[1].rstrip("]") for line in
             subprocess.check_output(["readelf", "-d", program], text=True).splitlines() if "(NEEDED)" in line}
    absent = names - {path.name for path in needed} - {"ld-linux-x86-64.so.2"}
    undefined = {line.split()[-1].split("@")[0] for line in
                 subprocess.check_output(["nm", "-D", "--undefined-only", program], text=True).splitlines()
                 if re.search(r" (glfs|rados|rbd|nbd|ibv|rdma|pmem)\w*(@|$)", line)}
    source = "".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in sorted(undefined))
    files = program_files(program, needed)
    # What they defined is in one more, libabsent.so: a library without versions may not have a name that fio wants versions of.
    for name in absent | {"libabsent.so"}:
        subprocess.run(["cc", "-shared", "-nostdlib", "-w", f"-Wl,-soname,{name}", "-o", folder / name, "-x", "c", "-"],
                       input=source.encode() if name == "libabsent.so" else b"", check=True)
        files[f"lib64/{name}"] = (folder / name).read_bytes()
    return files
