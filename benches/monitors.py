"""The monitors that benches compare: what each is started with, for a guest of one vCPU and MIB of memory."""
import json
import shutil
import sys
from pathlib import Path

from harness import BUILD, MEMORY, TOP

sys.path.insert(0, str(TOP / "tests" / "system"))
import guest_image  # noqa: E402

MIB = 128
QEMU, LOADER = MEMORY / "qemu", Path("/lib64/ld-linux-x86-64.so.2")


def hull(program, files, cmdline):
    config = {"boot-source": {"kernel_image_path": str(files["kernel"]), "initrd_path": str(files["initrd"]), "boot_args": cmdline},
              "machine-config": {"vcpu_count": 1, "mem_size_mib": MIB}}
    path = MEMORY / "config.json"
    path.write_text(json.dumps(config))
    return [program, "--no-api", "--config-file", path]


def bring_qemu():
    """QEMU and all that it reads, into memory: where that is not a folder from afar can take any time."""
    program = shutil.which("qemu-system-x86_64")
    shutil.rmtree(QEMU, ignore_errors=True)
    QEMU.mkdir()
    for path in [program, LOADER, *guest_image.shared_libraries(program)]:
        shutil.copy(path, QEMU)
    (QEMU / "share").mkdir()
    for folder in ("/usr/share/seabios", "/usr/share/qemu"):
        for path in Path(folder).glob("*.[br][io][nm]"):
            shutil.copy(path, QEMU / "share")


def qemu(files, cmdline):
    return [QEMU / LOADER.name, "--library-path", QEMU, QEMU / "qemu-system-x86_64", "-L", QEMU / "share",
            "-M", "microvm,accel=kvm,pit=off,pic=off,rtc=off,auto-kernel-cmdline=off", "-cpu", "host", "-m", MIB, "-nodefaults",
            "-no-user-config", "-name", "guest,debug-threads=on", "-no-reboot", "-display", "none", "-serial", "stdio", "-kernel", files["kernel"],
            "-initrd", files["initrd"], "-append", cmdline]


def bring(monitor):
    if monitor == "QEMU":
        bring_qemu()
    elif "=" not in monitor:
        shutil.copy(*((BUILD / "hull-vmm", MEMORY) if monitor == "Hull" else (monitor, MEMORY / "other-vmm")))


def command(monitor, files, cmdline):
    """Of a monitor as a bench's command line names it: Hull, QEMU (its microvm), the path of another hull-vmm, or NAME=COMMAND."""
    name, has_template, template = monitor.partition("=")
    if has_template:
        return [word.format(**files, cmdline=cmdline, mib=MIB) for word in template.split()]
    if name == "QEMU":
        return qemu(files, cmdline)
    return hull(MEMORY / ("hull-vmm" if name == "Hull" else "other-vmm"), files, cmdline)
